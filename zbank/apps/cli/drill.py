"""`zbank drill`: stop the protocol at a named point, look, break something, and watch it heal."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from zbank.apps.cli.output import Column, emit_json_line, show_table
from zbank.apps.cli.shell import EXIT_DONE, EXIT_REFUSED, Bank, bank_options, complain, json_option

if TYPE_CHECKING:
    from zbank.apps.drills.conductor import Conductor

STDIN = 0


@click.group()
def drill() -> None:
    """Learn two-phase commit: stop it at a named point, break something, watch it heal.

    The bank must have been started with `python run_cluster.py --drills`.

    \b
    Examples:
      zbank drill list
      zbank drill run coordinator-dies-after-votes --step
    """


@drill.command("list")
@json_option
def list_(as_json: bool) -> int:
    """List the drills, in the order in which to learn them.

    \b
    Example:
      zbank drill list
    """
    from zbank.apps.drills.stories import DRILLS

    if as_json:
        for story in DRILLS.values():
            emit_json_line({"name": story.name, "title": story.title, "steps": story.count})
        return EXIT_DONE
    show_table(
        (Column("name"), Column("what happens", fold=True), Column("steps", right=True)),
        ((story.name, story.title, str(story.count)) for story in DRILLS.values()),
    )
    return EXIT_DONE


@drill.command("run")
@click.argument("name")
@click.option("--step", is_flag=True, help="Wait for Enter after each step; the bank's time stands still meanwhile.")
@click.option("--data", metavar="DIR", help="Folder of the bank's data files.  [from --config, or data]")
@bank_options
@json_option
def run(bank: Bank, name: str, step: bool, data: str | None, as_json: bool) -> int:
    """Play the drill NAME with the running bank and tell what happens.

    It moves a little money between two branches; the books are checked at the end. Ctrl-C at any time: the bank goes
    on by itself.

    \b
    Examples:
      zbank drill run all-goes-well --step
      zbank drill run decision-lost --json
    """
    if sys.platform == "win32":
        raise click.UsageError("drills need the bank's own machine, and that runs Linux or macOS")
    import msgspec

    from zbank.apps.drills.session import play
    from zbank.apps.drills.shown import Result
    from zbank.apps.drills.stories import DRILLS
    from zbank.apps.drills.teller import Teller

    story = DRILLS.get(name)
    if story is None:
        raise click.UsageError(f"there is no drill {name!r}: zbank drill list shows them all")
    teller = Teller()
    enter = Enter()

    def pause(conductor: Conductor) -> None:
        if step and enter.awaited:
            if not as_json:
                teller.ask_for_enter()
            enter.wait(conductor)

    went_right = False
    with bank.connect() as client:
        for told in play(story, client, bank.endpoint, _data_folder(bank, data), pause):
            if as_json:
                emit_json_line(msgspec.to_builtins(told))
            else:
                teller.tell(told)
            went_right = isinstance(told, Result) and told.ok
    if went_right:
        return EXIT_DONE
    return complain(f"failed: the drill {name} did not end as it should", EXIT_REFUSED)


def _data_folder(bank: Bank, data: str | None) -> Path:
    """Where the bank's data files are."""
    from zbank.config import DEFAULT_DATA, load_config

    if data is not None:
        return Path(data)
    flag, _, config = bank.named.partition(" ")
    return load_config(config).data if flag == "--config" else Path(DEFAULT_DATA)


class Enter:
    """The Enter key. At the end of the input it is not waited for any more."""

    def __init__(self) -> None:
        self.awaited = True

    def wait(self, conductor: Conductor) -> None:
        """Until a line comes; the actors are heard meanwhile."""
        read = b""
        while self.awaited and read != b"\n":  # byte by byte: what stands in a buffer of ours nobody could wait for
            while not conductor.pump(also=[STDIN]):
                pass
            read = os.read(STDIN, 1)
            self.awaited = bool(read)
