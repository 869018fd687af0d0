"""`zbank acks`: which replica has to have everything before it is answered."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import click

from zbank.apps.cli.output import emit_json
from zbank.apps.cli.shell import EXIT_DONE, EXIT_REFUSED, EXIT_UNKNOWN, Bank, bank_options, complain, json_option, named
from zbank.errors import ZbankError

if TYPE_CHECKING:
    from zbank import Client
    from zbank.protocol.messages import AckedBy

FOLLOW_S = 10.0  #: so long the branch may take to follow the word
LOOK_EVERY_S = 0.2
NONE = "none"


@click.command()
@click.argument("of", metavar="BRANCH")
@click.argument("replica", metavar="REPLICA|none")
@bank_options
@json_option
def acks(bank: Bank, of: str, replica: str, as_json: bool) -> int:
    """Name the synchronous replica of BRANCH: from then on nothing is answered before it is on that disk, too. While the
    replica is away, the branch stops.

    With `none` the branch stands on its own disk alone, as before: also the way out when the replica is lost for good. The
    one before is then an ordinary replica: what the branch does from here on is lost when that one is promoted.

    \b
    Examples:
      zbank acks Mumbai Mumbai-replica-1
      zbank acks Mumbai none
    """
    with bank.connect() as client:
        chosen = None
        if replica != NONE:
            replicas = [info for info in client.replicas() if info.of == of]
            chosen = next((info for info in replicas if info.name == replica), None)
            if chosen is None:
                known = ", ".join(info.name for info in replicas) or "none"
                return complain(f"refused: replica_not_found: {of} has no replica {replica}: it has {known}", EXIT_REFUSED)
        word = named(client).name_acks(of, chosen)
        follows = _wait_until_followed(client, of, word)
    if as_json:
        emit_json({"of": of, "synchronous": word.replica or None, "generation": word.generation, "followed": follows})
    elif follows and chosen is not None:
        click.echo(f"{of} answers nothing before {word.replica} has it on its disk.")
    elif follows:
        click.echo(f"{of} stands on its own disk alone.")
    if not follows:
        return complain(f"unknown: it is recorded, but {of} has not followed yet: look at `zbank status`", EXIT_UNKNOWN)
    return EXIT_DONE


def _wait_until_followed(client: Client, of: str, word: AckedBy) -> bool:
    """Until the branch says that it heeds this word, or a later one."""
    end_s = time.monotonic() + FOLLOW_S
    while time.monotonic() < end_s:
        try:
            heeded = next((info.acks for info in client.status() if info.name == of and hasattr(info, "acks")), None)
            if heeded is not None and heeded.generation >= word.generation:
                return True
        except ZbankError:
            pass  # the coordinator is away for a moment: look again
        time.sleep(LOOK_EVERY_S)
    return False
