"""What a standard run must have met: a simulation that never gets into a situation proves nothing about it.

For each line of the protocol's "Faults that must come out right": the counters that stand for it. Promotion of a replica
and restore from a backup are not in this build.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

STANDARD_SEEDS = 600  #: a run of so many meets every situation of the table, or fails

# What must have happened to each kind of message of two-phase commit and around it.
MESSAGES = (
    *("Prepare", "Vote", "Commit", "Abort", "Ack", "Inquiry", "StillPending", "Forward", "Transfer"),
    *("Outcome", "Fault", "Cancel", "Register", "Registered"),
    *("MakeToken", "RevokeToken", "TokenInfo", "GetEvents", "EventsPage", "ListTransfers", "TransfersPage"),
)
FATES = ("lost", "repeated", "delayed", "overtaken")
FORCED = ("prepared", "committed", "aborted", "executed", "refused", "decided", "ended", "posting", "started")


class Situation(NamedTuple):
    """A line of the table: a fault and the counters that show that it was met, each of them."""

    fault: str
    counters: tuple[str, ...]


def _force(*ways_and_kinds: tuple[str, str]) -> tuple[str, ...]:
    return tuple(f"{way} the force of {kind}" for way, kind in ways_and_kinds)


SITUATIONS = (
    Situation("the coordinator is killed before its decision's force", _force(("before", "decided"))),
    Situation("the coordinator is killed during its decision's force", _force(("power", "decided"))),
    Situation("the coordinator is killed after its decision's force", _force(("after", "decided"))),
    Situation("the coordinator is killed around the last ack", _force(("before", "ended"), ("after", "ended"))),
    Situation("a branch is killed before its vote's force", _force(("before", "prepared"))),
    Situation("a branch is killed during its vote's force", _force(("power", "prepared"))),
    Situation("a branch is killed after its vote's force", _force(("after", "prepared"))),
    Situation("a branch is killed before it has applied", _force(("before", "committed"), ("before", "aborted"))),
    Situation("a branch is killed after it has applied", _force(("after", "committed"), ("after", "aborted"))),
    Situation("a branch starts again in doubt", ("a branch starts again in doubt",)),
    Situation("a branch is paused past every timeout", ("a branch paused past every timeout",)),
    Situation("a coordinator is paused past every timeout", ("a coordinator paused past every timeout",)),
    Situation("partitions, two-way and one-way", ("cut", "cut one way")),
    *(Situation(f"any message {fate}", tuple(f"{message} {fate}" for message in MESSAGES)) for fate in FATES),
    Situation("a stale Prepare after the abort", ("vote void",)),
    Situation("a late Abort after the commit", ("a late Abort after the commit",)),
    Situation(
        "a late duplicate after the outcome",
        tuple(f"a late duplicate of a request after {status} was told" for status in ("aborted", "committed")),
    ),
    Situation("two coordinators with one id", ("vote occupied", "vote known", "an Abort meets another txn of the id")),
    Situation("an id with another content", ("vote conflict", "fault idempotency_conflict")),
    Situation(
        "an id in another's name",
        tuple(
            f"in another's name an id is told to conflict: {kind}"
            for kind in ("Transfer", "Cancel", "OpenAccount", "ChangeAccount")
        ),
    ),
    Situation(
        "tokens outlive a restart",
        tuple(f"a token that is {state} after a restart" for state in ("good", "revoked")),
    ),
    Situation(
        "a crash or a full disk while a token is made or revoked",
        _force(
            *((way, "token_made") for way in ("before", "after", "power", "full")),
            *((way, "token_revoked") for way in ("before", "after")),
        ),
    ),
    Situation(
        "a token is made again late",
        (
            "a token that was made is revoked when it is asked for again",
            "a token that was forgotten is asked for again",
            "MakeToken is answered idempotency_conflict",
        ),
    ),
    Situation("more tokens than there may be", ("a token gives way", "MakeToken is answered limit_exceeded")),
    Situation("pages of tokens", ("a page of tokens", "a page of tokens, and there are more")),
    Situation(
        "lists of transfers",
        (
            *(f"a list with {status}" for status in ("committed", "aborted", "pending")),
            *(f"{page} of transfers{rest}" for page in ("a page", "an empty page") for rest in ("", " that is not the last")),
        ),
    ),
    Situation(
        "events are followed",
        (
            *("events from now on", "events after a row that there is not"),
            *("events, all of them", "events, and there are more"),
        ),
    ),
    Situation(
        "participants answer each other's inquiries",
        tuple(f"a participant answers an inquiry: {answer}" for answer in ("Commit", "Abort", "StillPending")),
    ),
    Situation("told before all is applied", ("told committed, still being applied", "told pending")),
    Situation("a branch with too much prepared", ("vote busy", "fault busy")),
    Situation("disk full at prepare", (*_force(("full", "prepared")), "vote storage_full", "fault storage_full")),
    Situation("disk full at decision", _force(("full", "decided"))),
    Situation("disk full at commit", _force(("full", "committed"))),
    Situation("failed sync anywhere", _force(*(("sync", kind) for kind in FORCED))),
    Situation("a power cut during any force", _force(*(("power", kind) for kind in FORCED))),
    Situation("a power cut loses writes", ("a power cut loses writes that no sync confirmed",)),
    Situation("a disk that stalls", ("a force takes long",)),
    Situation("clock jumps", ("the wall clock jumps forward", "the wall clock jumps back")),
    Situation("loss of the fence", ("the fence is lost", "fault fence_lost", "vote stale")),
)


def missing(reached: Mapping[str, int]) -> Iterator[Situation]:
    """The situations that were not met, each with the counters that stayed at zero."""
    for situation in SITUATIONS:
        never = tuple(counter for counter in situation.counters if not reached.get(counter))
        if never:
            yield Situation(situation.fault, never)
