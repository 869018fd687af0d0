"""`zbank branches`: which branches there are, and the end of one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from zbank.apps.cli.output import Column, emit_json, show_table
from zbank.apps.cli.shell import EXIT_DONE, Bank, bank_options, json_option, named

if TYPE_CHECKING:
    from zbank.protocol.messages import BranchInfo, RetiredInfo

COLUMNS = (Column("branch"), Column("address"), Column("currency"), Column("state"), Column("data"))


@click.group()
def branches() -> None:
    """List the branches of the bank, and close one for good.

    A branch is added by starting it (`zbank branch`), and moved by starting it somewhere else with the data it had: no other
    part has to be restarted.

    \b
    Examples:
      zbank branches list
      zbank branches retire Pune
    """


@branches.command("list")
@bank_options
@json_option
def list_(bank: Bank, as_json: bool) -> int:
    """List all branches that the coordinator knows, retired ones too. `data` tells apart two of one name.

    \b
    Example:
      zbank branches list --json
    """
    with bank.connect() as client:
        found = [_json(info) for info in client.branches()]
        gone = [_retired_json(info) for info in client.retired_branches()]
    if as_json:
        emit_json({"branches": found, "retired": gone})
        return EXIT_DONE
    rows = [(one["name"], one["address"], one["currency"], one["state"], one["instance"][-8:]) for one in found]
    rows += [(one["name"], one["address"], one["currency"], _since(one), one["instance"][-8:]) for one in gone]
    show_table(COLUMNS, rows)
    return EXIT_DONE


@branches.command()
@click.argument("name")
@bank_options
@json_option
def retire(bank: Bank, name: str, as_json: bool) -> int:
    """Close a branch for good. It has to be up and empty: each account closed, the cash desk settled, nothing under way.

    Its name is never used again, and its history stays. Asking again is safe.

    \b
    Example:
      zbank branches retire Pune
    """
    with bank.connect() as client:
        info = named(client).retire_branch(name)
    shown = _retired_json(info)
    if as_json:
        emit_json(shown)
        return EXIT_DONE
    click.echo(f"retired: {info.name}, {shown['retired_at'][:19].replace('T', ' ')}. Its process only answers questions now:")
    click.echo("stop it when nobody needs its history any more, keep its data, and take it out of the config file.")
    return EXIT_DONE


def _json(info: BranchInfo) -> dict[str, Any]:
    from zbank.ids import format_id
    from zbank.protocol.gate import who_acknowledges

    return {
        "name": info.name,
        "address": info.endpoint,
        "currency": info.currency,
        "state": "up" if info.up else "down",
        "instance": format_id(info.instance),
        "synchronous_replica": who_acknowledges(info.acks),
    }


def _retired_json(info: RetiredInfo) -> dict[str, Any]:
    from zbank.clock import format_time
    from zbank.ids import format_id

    return {
        "name": info.name,
        "address": info.endpoint,
        "currency": info.currency,
        "state": "retired",
        "instance": format_id(info.instance),
        "retired_at": format_time(info.at_us),
        "retired_by": info.by,
    }


def _since(shown: dict[str, Any]) -> str:
    by = f" by {shown['retired_by']}" if shown["retired_by"] else ""
    return f"retired {shown['retired_at'][:10]}{by}"
