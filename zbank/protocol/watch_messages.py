"""What can be watched of an actor from outside: what happens in its journal, and what it counts."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from zbank.domain.legs import Leg
from zbank.domain.refusal import Refusal
from zbank.protocol.wire import CommitNumber, Count, Id, Limit, Message, Name, Txn

# Kinds of events, beside COMMITTED and ABORTED (a local transfer, or the id's tombstone).
BEGIN = "begin"  # a txn has reached the transfer's home branch
VOTE = "vote"
DECISION = "decision"
APPLIED = "applied"
RELEASED = "released"  # a txn was aborted here; its id may come back under another txn


class GetEvents(Message, frozen=True, tag="events?"):
    """What happened since a row of the actor's journal. Answered by EventsPage."""

    after: Annotated[int, Meta(ge=-1, le=2**63 - 1)]  #: row of the journal; -1 = from now on: where the journal stands
    limit: Limit


class InquireNow(Message, frozen=True, tag="inquire!"):
    """To a branch: ask about what you are in doubt of now, not when it is time (P8). Answered by Inquired or Fault
    not_in_doubt."""

    txn: Txn
    id: Id


class Inquired(Message, frozen=True, tag="inquired"):
    """The inquiries have left; what they lead to is not known yet."""

    id: Id
    asked: tuple[Name, ...]  #: actors


class GetFigures(Message, frozen=True, tag="figures?"):
    """Answered by FiguresInfo."""


class Event(Struct, array_like=True, frozen=True, gc=False, forbid_unknown_fields=True):
    """One thing that happened to a transfer at an actor: a row of its journal, forced (so it never un-happens)."""

    seq: Count  #: of the row
    at_us: Count
    kind: Name  #: COMMITTED, ABORTED, BEGIN, VOTE, DECISION, APPLIED or RELEASED
    id: Id  #: the transfer
    txn: Txn | None = None
    vote: Name = ""  #: with VOTE: "yes" or "refused"
    number: CommitNumber = 0
    refusal: Refusal | None = None
    legs: tuple[Leg, ...] = ()  #: () where the row does not say
    currency: Annotated[str, Meta(max_length=3)] = ""
    memo: str = ""


class EventsPage(Message, frozen=True, tag="events"):
    """What happened, in the order of the journal."""

    events: tuple[Event, ...]
    seq: Count  #: `after` of the next page
    is_last: bool  #: the journal ends there, for now


class CountInfo(Struct, array_like=True, frozen=True, gc=False, forbid_unknown_fields=True):
    """How often something happened, since the actor started."""

    name: Name
    count: int


class HistogramInfo(Struct, array_like=True, frozen=True, gc=False, forbid_unknown_fields=True):
    """How often something took how long, since the actor started."""

    name: Name
    bounds_us: tuple[int, ...]  #: upper bounds of the classes; one more class is above them all
    counts: tuple[int, ...]  #: of each class, one more than bounds
    total_us: int


class FiguresInfo(Message, frozen=True, tag="figures"):
    """What an actor counts, since it started."""

    role: Name
    name: Name
    counts: tuple[CountInfo, ...]  #: "turns", "messages", "rows KIND" of the journal, and transfers as in "local committed"
    histograms: tuple[HistogramInfo, ...]
