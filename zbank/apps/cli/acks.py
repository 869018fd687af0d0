"""`zbank acks`: which replica has to have everything before it is answered."""

from __future__ import annotations

import contextlib
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import click

from zbank.apps.cli.output import emit_json
from zbank.apps.cli.shell import EXIT_DONE, EXIT_REFUSED, EXIT_UNKNOWN, Bank, bank_options, complain, json_option, named
from zbank.errors import RemoteFault, ZbankError

if TYPE_CHECKING:
    from zbank import Client
    from zbank.protocol.messages import AckedBy, ReplicaInfo, StatusInfo

FOLLOW_S = 10.0  #: so long the branch may take to follow the word, and the replica to have it
LOOK_EVERY_S = 0.2
LEVEL_S = 5.0  #: a replica that is well shows everything that was there so long ago
NONE = "none"


@click.command()
@click.argument("of", metavar="BRANCH")
@click.argument("replica", metavar="REPLICA|none")
@bank_options
@json_option
def acks(bank: Bank, of: str, replica: str, as_json: bool) -> int:
    """Name the synchronous replica of BRANCH: from then on nothing is answered before it is on that one's disk, too. While the
    replica is away, the branch stops.

    With `none` the branch stands on its own disk alone. That is the way out when the replica is lost for good, too, and no
    other one is there. Whoever was named before is an ordinary replica then: it may lack what was answered.

    \b
    Examples:
      zbank acks Mumbai Mumbai-replica-1
      zbank acks Mumbai none
    """
    with bank.connect() as client:
        replicas = _replicas_of(bank, client, of, replica)
        now = _status_of(client, of)
        chosen = None
        if replica != NONE:
            chosen = next((info for info in replicas if info.name == replica), None)
            if chosen is None:
                known = ", ".join(info.name for info in replicas) or "none"
                return complain(f"refused: replica_not_found: {of} has no replica {replica}: it has {known}", EXIT_REFUSED)
            if now is not None and not now.stopped and not _is_level(chosen):
                text = f"{replica} has not caught up with {of}, which would be stopped until then: `zbank status` shows its lag"
                return complain(f"refused: not_level: {text}", EXIT_REFUSED)
        word = named(client).name_acks(of, chosen)
        follows = _wait_until_followed(client, of, word)
    if as_json:
        emit_json({"of": of, "synchronous": word.replica or None, "generation": word.generation, "followed": follows})
    elif follows:
        before = "" if now is None or now.acks is None else now.acks.replica
        for line in _what_it_means(of, word, before):
            click.echo(line)
    if chosen is not None and not chosen.can_lead and not as_json:
        click.echo(f"But {chosen.name} cannot take the place of {of}: it has not the secret of its key, {of}.secret.")
    if not follows:
        return complain(f"unknown: it is recorded, but {of} has not followed yet: look at `zbank status`", EXIT_UNKNOWN)
    return EXIT_DONE


def _replicas_of(bank: Bank, client: Client, of: str, replica: str) -> list[ReplicaInfo]:
    """All replicas of it. A coordinator that has stopped lists none: who is at its other place is asked, and it can be told to
    do without."""
    from zbank.config import COORDINATOR_NAME

    try:
        return [info for info in client.replicas() if info.of == of]
    except RemoteFault as error:
        if of != COORDINATOR_NAME:
            raise
        found = [] if replica == NONE else _at_places(bank, of)
        if replica == NONE or any(info.name == replica for info in found):
            return found
        hint = f"`zbank acks {of} none` lets it go on alone, and then you can name {replica}"
        raise RemoteFault(error.remote_code, f"{error.detail}. If that one is lost for good: {hint}") from error


def _at_places(bank: Bank, of: str) -> list[ReplicaInfo]:
    """Replicas of the coordinator that answer at the places where that may be."""
    from zbank.protocol.messages import REPLICA, ReplicaInfo

    found: list[ReplicaInfo] = []
    for place in bank.endpoint.split(","):
        with contextlib.suppress(ZbankError), replace(bank, endpoint=place).connect() as client:
            status = client.contact_status()
            if status.role == REPLICA and status.accounts < 0:
                found.append(ReplicaInfo(status.name, of, place, status.instance, status.epoch, status.seq, 0, 0))
    return found


def _is_level(chosen: ReplicaInfo) -> bool:
    """Else the branch would wait for all that this replica has to fetch first."""
    from zbank.transport.views import lag_seconds

    lag_s = lag_seconds(chosen.lag_us)
    return lag_s is not None and lag_s <= LEVEL_S


def _what_it_means(of: str, word: AckedBy, before: str) -> list[str]:
    """What is true from now on. `before`: who was named by the last word; "" = nobody."""
    from zbank.config import COORDINATOR_NAME

    if word.replica:
        said = [f"{of} answers nothing before {word.replica} has it on its disk, and stops while {word.replica} is away."]
    else:
        said = [f"{of} stands on its own disk alone: what it answers from now on may be lost with it."]
    if of == COORDINATOR_NAME and before not in ("", word.replica):
        said.append(f"{before} may lack decisions from now on, and not know it: never promote it, and remove its data.")
    elif before not in ("", word.replica):
        said.append(f"{before} is an ordinary replica now: it follows, and nobody waits for it.")
    return said


def _wait_until_followed(client: Client, of: str, word: AckedBy) -> bool:
    """Until the branch says that it heeds this word, or a later one, and the replica that it has it in its rows."""
    from zbank.protocol.gate import keeps_all

    end_s = time.monotonic() + FOLLOW_S
    while time.monotonic() < end_s:
        try:
            now = _status_of(client, of)
            heeded = None if now is None else now.acks
            if heeded is not None and heeded.generation >= word.generation:
                later = heeded.generation > word.generation
                if later or not word.replica or any(keeps_all(word, info) for info in client.replicas()):
                    return True
        except ZbankError:
            pass  # the coordinator is away for a moment: look again
        time.sleep(LOOK_EVERY_S)
    return False


def _status_of(client: Client, of: str) -> StatusInfo | None:
    """How the branch does, or the coordinator by its name; None while it does not answer."""
    from zbank.protocol.messages import StatusInfo

    return next((info for info in client.status() if isinstance(info, StatusInfo) and info.name == of), None)
