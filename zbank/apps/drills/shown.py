"""What a drill shows: plain data, for a terminal, a web page or a program (`--json`)."""

from __future__ import annotations

from msgspec import Struct

from zbank.apps.drills.books import Accounts
from zbank.apps.drills.control import ForcedRow, Parcel

ARROW = "arrow"  #: a message from `actor` that `target` took in
LOST = "lost"  #: a message from `actor` to `target` that was lost
NOBODY = "nobody"  #: a message from `actor` to `target`, which is not there
ROW = "row"  #: a journal row that `actor` forced
CRASH = "crash"
OFFICE = "office"  #: `actor` takes office
TIME = "time"  #: time has passed
CUT = "cut"  #: `actor` is cut off from the coordinator
HEALED = "healed"
REST = "rest"  #: the step after the last: what was still under way

SAYS = "says"  #: `actor` can say no more than this


class Mark(Struct, frozen=True):
    """One thing that happened, as a line of the picture."""

    kind: str
    actor: str = ""
    target: str = ""
    label: str = ""
    detail: str = ""


class Known(Struct, frozen=True):
    """What one actor knows of the transfer, and the rows about it on its disk."""

    actor: str
    there: bool  #: False = its process is down
    epoch: int
    knows: tuple[str, ...]
    rows: tuple[ForcedRow, ...]


class Beginning(Struct, frozen=True, tag="drill", tag_field="what"):
    """What a drill is about."""

    name: str
    title: str
    question: str
    places: tuple[str, ...]  #: from left to right: client, coordinator, the two branches
    home: str
    other: str
    id: str  #: of the transfer


class Shown(Struct, frozen=True, tag="step", tag_field="what"):
    """What came of one step."""

    number: int | None  #: 1, 2, 3, …; None of a look, and of the rest, which happens by itself
    step: str  #: its kind
    marks: tuple[Mark, ...]
    text: str
    rule: str
    known: tuple[Known, ...] = ()


class Announced(Struct, frozen=True, tag="waiting", tag_field="what"):
    """What is awaited now; it takes its time."""

    text: str


class Result(Struct, frozen=True, tag="result", tag_field="what"):
    """How a drill ended."""

    outcome: str  #: of the transfer, as the bank tells it
    should_be: str
    accounts: Accounts
    lesson: str
    ok: bool


Telling = Beginning | Shown | Announced | Result


_FAULTS = {"idempotency_conflict": "conflict", "branch_unavailable": "not known"}


def label_of(parcel: Parcel) -> str:
    """A message's name in the picture."""
    if parcel.kind == "vote":
        return f"vote {parcel.detail.split()[0]}"
    if parcel.kind == "outcome":
        return parcel.detail.split(",")[0].split()[0]
    if parcel.kind == "fault":
        return _FAULTS.get(parcel.detail.split(":")[0], "fault")
    return parcel.kind
