"""`zbank promote`: let a replica take the place of its branch, after saying what that costs."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

import click

from zbank.apps.cli.output import emit_json
from zbank.apps.cli.promote_coordinator import promote_coordinator
from zbank.apps.cli.serve import STANDBY_PORT
from zbank.apps.cli.shell import (
    EXIT_DONE,
    EXIT_REFUSED,
    EXIT_UNKNOWN,
    Bank,
    bank_options,
    checked_endpoint,
    complain,
    json_option,
    named,
    printable,
)
from zbank.errors import ZbankError

if TYPE_CHECKING:
    from zbank import Client
    from zbank.protocol.messages import BranchInfo, ReplicaInfo

OPEN_S = 30.0  #: so long the new branch may take to open
LOOK_EVERY_S = 0.2


@click.command()
@click.argument("branch")
@click.option("--replica", "name", metavar="NAME", help="Which of its replicas; `zbank status` lists them.")
@click.option("--at", metavar="ADDRESS", help="For the coordinator: where its replica is.  [where one answers]")
@click.option("--confirm", metavar="WORDS", help="The words that are asked for, where nobody can type them.")
@bank_options
@json_option
def promote(bank: Bank, branch: str, name: str | None, at: str | None, confirm: str | None, as_json: bool) -> int:
    """Let a replica take the place of BRANCH (or of the coordinator), whose process or machine is gone. Says first what is
    lost, and asks.

    \b
    Examples:
      zbank promote Mumbai --replica Mumbai-replica
      zbank promote Mumbai --replica Mumbai-replica --confirm "promote Mumbai"
      zbank promote coordinator --config config/cluster.toml
    """
    from zbank.config import COORDINATOR_NAME

    words = f"promote {branch}"
    if branch == COORDINATOR_NAME:
        places = [checked_endpoint(at, "--at", STANDBY_PORT)] if at else bank.endpoint.split(",")
        if not at and len(places) == 1:
            raise click.UsageError("say where the coordinator's replica is: --at ADDRESS, or --config FILE with a standby")
        return promote_coordinator(bank, branch, places, lambda words: _is_confirmed(words, confirm), as_json=as_json)
    if name is None:
        raise click.UsageError("which of its replicas? --replica NAME; `zbank status` lists them")
    with bank.connect() as client:
        replicas = [info for info in client.replicas() if info.of == branch]
        infos = {info.name: info for info in client.branches()}  # after the replicas: the word must not be older
        chosen = next((info for info in replicas if info.name == name), None)
        if chosen is None:
            known = ", ".join(info.name for info in replicas) or "none"
            return complain(f"refused: replica_not_found: {branch} has no replica {name}: it has {known}", EXIT_REFUSED)
        if not as_json:
            for line in _what_it_costs(infos.get(branch), chosen, replicas):
                click.echo(printable(line))
        if not _is_confirmed(words, confirm):
            return complain(f"refused: nothing was done: the words are {words!r}", EXIT_REFUSED)
        promoted = named(client).promote(branch, chosen)
        is_open = _wait_until_open(client, branch, chosen)
    if as_json:
        emit_json({"branch": branch, "replica": promoted.name, "position": promoted.seq, "open": is_open})
    elif is_open:
        click.echo(f"{branch} is open again: {promoted.name} serves it")
    if not is_open:
        text = f"{promoted.name} is branch {branch} by the coordinator's word, but does not serve yet"
        return complain(f"unknown: {text}: look at its log, and at `zbank status`", EXIT_UNKNOWN)
    return EXIT_DONE


def _what_it_costs(branch: BranchInfo | None, chosen: ReplicaInfo, replicas: list[ReplicaInfo]) -> list[str]:
    """What is lost, and what to see to before."""
    from zbank.protocol.gate import keeps_all

    word = None if branch is None else branch.acks
    is_up = branch is not None and branch.up
    if keeps_all(word, chosen):
        return [*_nothing_lost(chosen), *([f"{chosen.of} IS UP: stop it first."] if is_up else ())]
    whole = next((info.name for info in replicas if keeps_all(word, info)), "")
    lines = _loss(chosen, whole, [info.name for info in replicas if info.seq > chosen.seq])
    if is_up:
        lines.append(f"{chosen.of} IS UP: stop it first (then {chosen.name} can take its last rows, and nothing is lost).")
    return lines


def _nothing_lost(chosen: ReplicaInfo) -> list[str]:
    """Of the synchronous replica."""
    return [
        f"{chosen.name} is the synchronous replica of {chosen.of}: nothing that was acknowledged is lost. What was asked and",
        "not answered is done or not: the same id may be sent again.",
        f"The old process of {chosen.of}, wherever it may still run, can acknowledge nothing without this replica. To whoever",
        "is connected to it, it may show balances for up to 3 s, then it refuses everything.",
        f"From then on {chosen.of} stands on one disk alone, until another replica is named: `zbank acks {chosen.of} REPLICA`.",
    ]


def _loss(chosen: ReplicaInfo, whole: str, further: list[str]) -> list[str]:
    """Of any other one. `whole`: the synchronous replica, "" = there is none; `further`: who has more rows."""
    from zbank.transport.views import lag_seconds

    lag_s = lag_seconds(chosen.lag_us)
    if lag_s is None:
        when = "it was never seen to have all that its branch had"
    else:
        when = f"it had all that its branch had {lag_s:.1f} s ago"
    lines = [f"{chosen.name} stands at row {chosen.seq}: {when}."]
    if chosen.behind:
        lines.append(f"It is known to lack {chosen.behind} rows.")
    if whole:
        lines.append(f"{whole} is the synchronous replica: take that one, with it nothing that was acknowledged is lost.")
    elif further:
        lines.append(f"{', '.join(further)} has more: better take that one.")
    return [
        *lines,
        f"Whatever {chosen.of} did after that is lost, also what customers were told: payments within {chosen.of}, deposits,",
        "withdrawals, new accounts. Payments between branches are not lost: the coordinator has them, and they are posted",
        "again; what an account cannot bear then goes to `suspense`, with an alarm.",
        f"The old process of {chosen.of} must be stopped and must not come back by itself on a machine that the coordinator",
        "cannot reach: there it would go on with payments of its own.",
    ]


def _is_confirmed(words: str, confirm: str | None) -> bool:
    if confirm is not None:
        return confirm == words
    if not sys.stdin.isatty():
        return False
    return bool(click.prompt(f"Type `{words}` to go on", default="", show_default=False) == words)


def _wait_until_open(client: Client, branch: str, chosen: ReplicaInfo) -> bool:
    """Until the new branch is connected to the coordinator, and serves."""
    from zbank.domain.legs import CASH

    end_s = time.monotonic() + OPEN_S
    while time.monotonic() < end_s:
        try:
            found = next((info for info in client.branches() if info.name == branch), None)
            if found is not None and found.up and found.instance == chosen.instance:
                client.account(f"{branch}/{CASH}")  # it says `busy` until it has been told all that was decided
                return True
        except ZbankError:
            pass  # the coordinator is away for a moment: look again
        time.sleep(LOOK_EVERY_S)
    return False
