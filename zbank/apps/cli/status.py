"""`zbank status`: every part of the bank, and how it does."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from zbank.apps.cli.output import Column, emit_json, show_table
from zbank.apps.cli.shell import EXIT_DONE, EXIT_REFUSED, Bank, bank_options, complain, json_option, printable
from zbank.errors import ZbankError

if TYPE_CHECKING:
    from zbank.protocol.messages import AckedBy, ReplicaInfo, StatusInfo
    from zbank.transport.views import ActorDown

MICROSECONDS_PER_SECOND = 1_000_000

COLUMNS = (
    Column("role"),
    Column("name"),
    Column("address"),
    Column("state"),
    Column("epoch", right=True),
    Column("journal rows", right=True),
    Column("in flight", right=True),
    Column("in doubt", right=True),
    Column("uptime", right=True),
)

REPLICA_COLUMNS = (
    Column("replica"),
    Column("of"),
    Column("address"),
    Column("epoch", right=True),
    Column("journal rows", right=True),
    Column("behind", right=True),
    Column("lag", right=True),
    Column("synchronous"),  #: only where there is one
)


@click.command()
@bank_options
@json_option
def status(bank: Bank, as_json: bool) -> int:
    """Show the coordinator and every branch: address, state, journal, transfers in flight and in doubt, alarms.

    Exits with 1 when a part does not answer.

    \b
    Examples:
      zbank status
      zbank status --endpoint tcp://192.168.1.50:9000 --json
    """
    with bank.connect() as client:
        actors = client.status()
        addresses: dict[str, str] = {}
        replicas: list[dict[str, Any]] = []
        with contextlib.suppress(ZbankError):  # the coordinator may have left meanwhile
            known = client.directory()
            addresses = {info.name: info.endpoint for info in known.branches}
            words = known.words()
            replicas = [describe_replica(info, words.get(info.of)) for info in known.replicas]
        coordinator = client.coordinator
    listed = [describe_actor(actor, addresses, coordinator, bank.endpoint) for actor in actors]
    down = [actor["name"] or actor["role"] for actor in listed if actor["state"] == "down"]
    if as_json:
        emit_json({"actors": listed, "replicas": replicas})
    else:
        show_table(COLUMNS, map(_row, listed))
        if replicas:
            click.echo()
            shown = len(REPLICA_COLUMNS) - (not any(replica["synchronous"] for replica in replicas))
            show_table(REPLICA_COLUMNS[:shown], (_replica_row(replica)[:shown] for replica in replicas))
        for line in _notes(listed):
            click.echo(line)
    if down:
        return complain(f"failed: no answer from {', '.join(down)}", EXIT_REFUSED)
    return EXIT_DONE


def describe_actor(
    actor: StatusInfo | ActorDown, addresses: dict[str, str], coordinator: str, asked: str = ""
) -> dict[str, Any]:
    """One actor as JSON. `addresses` are those of the directory, `coordinator` is its own; `asked` was: a branch that is in no
    directory, as it was retired or is refused, is there."""
    from zbank.ids import format_id
    from zbank.protocol.gate import who_acknowledges
    from zbank.protocol.messages import StatusInfo

    if not isinstance(actor, StatusInfo):
        return {
            "role": actor.role,
            "name": actor.name,
            "address": actor.endpoint,
            "state": "down",
            "reason": actor.reason,
        }
    return {
        "role": actor.role,
        "name": actor.name,
        "address": addresses.get(actor.name, coordinator if actor.role == "coordinator" else asked),
        "state": "up",
        "cluster": actor.cluster,
        "instance": format_id(actor.instance),
        "epoch": actor.epoch,
        "journal_rows": actor.seq,
        "journal_bytes": actor.journal_bytes,
        "commit_number": actor.number,
        "unposted": actor.unposted,
        "uptime_s": round(actor.uptime_us / MICROSECONDS_PER_SECOND, 3),
        "accounts": None if actor.accounts < 0 else actor.accounts,
        "total_minor": actor.total_minor,
        "clearing_minor": actor.clearing_minor,
        "in_flight": actor.in_flight,
        "in_doubt": [
            {"txn": str(item.txn), "id": format_id(item.id), "age_s": round(item.age_us / MICROSECONDS_PER_SECOND, 3)}
            for item in actor.in_doubt
        ],
        "alarms": list(actor.alarms),
        "synchronous_replica": who_acknowledges(actor.acks),
        "stopped": actor.stopped,
        "version": actor.version,
    }


def describe_replica(info: ReplicaInfo, word: AckedBy | None) -> dict[str, Any]:
    """One replica as JSON; `word` is the last one on whom it follows. `lag_s` null = it was never level with that."""
    from zbank.ids import format_id
    from zbank.protocol.gate import keeps_all
    from zbank.transport.views import lag_seconds

    lag_s = lag_seconds(info.lag_us)
    return {
        "name": info.name,
        "of": info.of,
        "address": info.endpoint,
        "instance": format_id(info.instance),
        "epoch": info.epoch,
        "position": info.seq,
        "behind": info.behind,
        "lag_s": None if lag_s is None else round(lag_s, 3),
        "synchronous": keeps_all(word, info),
    }


def _replica_row(replica: dict[str, Any]) -> tuple[str, ...]:
    lag_s = replica["lag_s"]
    return (
        replica["name"],
        replica["of"],
        replica["address"],
        str(replica["epoch"]),
        str(replica["position"]),
        str(replica["behind"]),
        "not level yet" if lag_s is None else format_duration(lag_s),
        "yes" if replica["synchronous"] else "",
    )


def _row(actor: dict[str, Any]) -> tuple[str, ...]:
    head = (actor["role"], actor["name"], actor["address"])
    if actor["state"] == "down":
        return (*head, "DOWN", "", "", "", "", "")
    return (
        *head,
        "STOPPED" if actor["stopped"] else "up, alarm" if actor["alarms"] else "up",
        str(actor["epoch"]),
        str(actor["journal_rows"]),
        str(actor["in_flight"]),
        str(len(actor["in_doubt"])),
        format_duration(actor["uptime_s"]),
    )


def _notes(actors: list[dict[str, Any]]) -> Iterator[str]:
    """What does not fit into a cell: alarms, why one is down, and what is in doubt."""
    for actor in actors:
        name = actor["name"] or actor["role"]
        if actor["state"] == "down":
            yield printable(f"down: {name}: {actor['reason']}")
            continue
        for alarm in actor["alarms"]:
            yield printable(f"alarm: {name}: {alarm}")
        for item in actor["in_doubt"]:
            yield f"in doubt: {name}: transfer {item['id']} for {format_duration(item['age_s'])} (txn {item['txn']})"


def format_duration(seconds: float) -> str:
    """`3.2s`, `4m05s`, `2h03m`, `3d04h`."""
    if seconds < 60:
        return f"{seconds:.1f}s"
    minutes, rest = divmod(int(seconds), 60)
    if minutes < 60:
        return f"{minutes}m{rest:02d}s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02d}m" if hours < 24 else f"{hours // 24}d{hours % 24:02d}h"
