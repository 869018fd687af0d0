"""`zbank promote coordinator`: let the coordinator's replica take its place. Nobody but that replica can be asked."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import click

from zbank.apps.cli.output import emit_json
from zbank.apps.cli.shell import EXIT_DONE, EXIT_REFUSED, EXIT_UNKNOWN, Bank, complain, named, printable
from zbank.errors import ZbankError

if TYPE_CHECKING:
    from zbank.protocol.messages import StatusInfo

LEADS_S = 15.0  #: so long it may take
LOOK_EVERY_S = 0.2


def promote_coordinator(
    bank: Bank, of: str, places: Sequence[str], is_confirmed: Callable[[str], bool], *, as_json: bool
) -> int:
    """Ask the replica at one of `places`; `is_confirmed` asks for the words. Gives the exit code."""
    place, status, others = _find(bank, places)
    if status is None:
        return complain(f"refused: there is nothing to promote: {'; '.join(others)}", EXIT_REFUSED)
    if not as_json:
        for line in _what_it_means(status, of, place):
            click.echo(printable(line))
    words = f"promote {of}"
    if not is_confirmed(words):
        return complain(f"refused: nothing was done: the words are {words!r}", EXIT_REFUSED)
    at = replace(bank, endpoint=place)
    with at.connect() as client:
        promoted = named(client).promote_contact(of, status.instance)
    leads = _wait_until_it_leads(at)
    if as_json:
        emit_json({"coordinator": of, "replica": promoted.name, "position": promoted.seq, "address": place, "leads": leads})
    elif leads:
        click.echo(f"{promoted.name} is the coordinator now, at {place}. Who has this address in its config finds it.")
        click.echo("Do not start the old one again: it could answer nobody.")
    if not leads:
        return complain(f"unknown: {promoted.name} takes over, but does not lead yet: look at its log", EXIT_UNKNOWN)
    return EXIT_DONE


def _find(bank: Bank, places: Sequence[str]) -> tuple[str, StatusInfo | None, list[str]]:
    """Where a replica of the coordinator answers, and how it does; else what is at each of the places. Raises what the
    connection raises, where there is one place."""
    from zbank.protocol.messages import COORDINATOR, REPLICA

    others: list[str] = []
    for place in reversed(places):  # the coordinator's own comes first, and is most often silent
        try:
            with replace(bank, endpoint=place).connect() as client:
                status = client.contact_status()
        except ZbankError as error:
            if len(places) == 1:
                raise
            others.append(str(error))
            continue
        if status.role == REPLICA and status.accounts < 0:
            return place, status, []
        what = "the coordinator" if status.role == COORDINATOR else f"{status.name}, no replica of the coordinator"
        others.append(f"at {place} answers {what}")
    return "", None, others


def _what_it_means(status: StatusInfo, of: str, place: str) -> list[str]:
    word = status.acks
    if word is None or word.instance != status.instance:
        return [
            f"{status.name} at {place} stands at row {status.seq}. It is not the synchronous replica of {of}: it will refuse,",
            "since nobody could say which decisions it lacks.",
        ]
    return [
        f"{status.name} at {place} is the synchronous replica of {of}, and stands at row {status.seq}: nothing that the",
        "coordinator ever told anybody is lost, and the old one can tell nobody anything any more, even if it still runs.",
        f"From then on the coordinator stands on one disk, until another replica is named: `zbank acks {of} NAME`.",
    ]


def _wait_until_it_leads(at: Bank) -> bool:
    end_s = time.monotonic() + LEADS_S
    while time.monotonic() < end_s:
        try:
            with replace(at, timeout_s=1.0).connect() as client:
                if client.contact_status().role == "coordinator":
                    return True
        except ZbankError:
            pass  # it changes its role: look again
        time.sleep(LOOK_EVERY_S)
    return False
