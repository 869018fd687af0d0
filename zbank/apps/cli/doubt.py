"""`zbank in-doubt`: what branches have promised and nobody has told them the decision of."""

from __future__ import annotations

from typing import Any

import click

from zbank.apps.cli.output import Column, emit_json, show_table
from zbank.apps.cli.shell import EXIT_DONE, EXIT_REFUSED, Bank, bank_options, complain, json_option, printable
from zbank.apps.cli.status import MICROSECONDS_PER_SECOND, format_duration

COLUMNS = (Column("two-phase commit"), Column("branch"), Column("age", right=True), Column("transfer"))


@click.group("in-doubt")
def in_doubt() -> None:
    """Prepared transfers whose decision a branch does not know. They settle by themselves, as soon as somebody knows.

    \b
    Examples:
      zbank in-doubt list
      zbank in-doubt inquire coordinator-2-17
    """


@in_doubt.command("list")
@bank_options
@json_option
def list_(bank: Bank, as_json: bool) -> int:
    """List what is in doubt, the oldest first.

    \b
    Example:
      zbank in-doubt list --json
    """
    from zbank.ids import format_id

    with bank.connect() as client:
        told, missing = client.in_doubt()
    found: list[dict[str, Any]] = [
        {
            "txn": str(held.txn),
            "transfer": format_id(held.id),
            "branch": branch,
            "age_s": round(held.age_us / MICROSECONDS_PER_SECOND, 3),
        }
        for held, branch in told
    ]
    down = [actor.name or actor.role for actor in missing]
    if as_json:
        emit_json({"in_doubt": found, "missing": down})
    elif found:
        rows = ((held["txn"], held["branch"], format_duration(held["age_s"]), held["transfer"]) for held in found)
        show_table(COLUMNS, rows)
    else:
        click.echo("nothing is in doubt")
    if down:
        return complain(f"failed: no answer from {', '.join(down)}", EXIT_REFUSED)
    return EXIT_DONE


@in_doubt.command()
@click.argument("txn")
@bank_options
@json_option
def inquire(bank: Bank, txn: str, as_json: bool) -> int:
    """Make each branch that is in doubt of TXN ask now, not when it is time. Nothing is guessed.

    \b
    Example:
      zbank in-doubt inquire coordinator-2-17
    """
    with bank.connect() as client:
        asked, missing = client.inquire(txn)
    if as_json:
        shown = [{"branch": branch, "whom": list(whom)} for branch, whom in asked.items()]
        emit_json({"txn": txn, "asked": shown, "missing": [actor.to_json() for actor in missing]})
    else:
        for branch, whom in asked.items():
            click.echo(f"{branch} asks {', '.join(whom)}")
    if not asked:
        return complain(printable(f"refused: not_in_doubt: no branch that answers is in doubt of {txn}"), EXIT_REFUSED)
    return EXIT_DONE
