"""`zbank acts`: what those in charge did, from the coordinator's journal."""

from __future__ import annotations

import click

from zbank.apps.cli.output import Column, emit_json, show_table
from zbank.apps.cli.shell import EXIT_DONE, Bank, bank_options, json_option

COLUMNS = (Column("at"), Column("act"), Column("by"), Column("about", fold=True))
MAX_LIMIT = 1000


@click.command()
@click.option("--limit", type=click.IntRange(1, MAX_LIMIT), default=50, show_default=True, help="How many, newest first.")
@bank_options
@json_option
def acts(bank: Bank, limit: int, as_json: bool) -> int:
    """List what those in charge did: tokens made and revoked, keys listed and ended, branches come, moved and retired. The
    journal never forgets it.

    \b
    Examples:
      zbank acts
      zbank acts --limit 500 --json
    """
    from zbank.clock import format_time

    with bank.connect() as client:
        found = client.acts(limit)
    if as_json:
        shown = [
            {"seq": one.seq, "at": format_time(one.at_us), "act": one.act, "by": one.by, "about": one.about} for one in found
        ]
        emit_json({"acts": shown})
        return EXIT_DONE
    rows = [(format_time(one.at_us)[:19].replace("T", " "), one.act.replace("_", " "), one.by, one.about) for one in found]
    show_table(COLUMNS, rows)
    return EXIT_DONE
