"""What all messages are made of: checked field types, names of states and roles, and the base of every message."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from zbank.domain.legs import MAX_LEGS, MAX_MEMO_CHARS, BranchName, Leg
from zbank.domain.refusal import MAX_DETAIL_CHARS
from zbank.errors import InvalidInput

PROTOCOL_VERSION = 6
MAX_PAGE = 1000
MAX_SEARCH_CHARS = 100

Id = Annotated[bytes, Meta(min_length=16, max_length=16)]
Digest = Annotated[bytes, Meta(max_length=16)]
CurrencyCode = Annotated[str, Meta(min_length=3, max_length=3)]
Memo = Annotated[str, Meta(max_length=MAX_MEMO_CHARS)]
Date = Annotated[str, Meta(max_length=10)]  #: "YYYY-MM-DD", or "" for none
Text = Annotated[str, Meta(max_length=MAX_DETAIL_CHARS)]
Name = Annotated[str, Meta(max_length=64)]
Search = Annotated[str, Meta(max_length=MAX_SEARCH_CHARS)]
Endpoint = Annotated[str, Meta(pattern=r"\Atcp://[^\s/]{1,180}:[0-9]{1,5}\Z")]
MAX_COMMIT_NUMBER = 2**62  #: no honest clock comes near it; a coordinator gives none above, whatever it is told
CommitNumber = Annotated[int, Meta(ge=0, le=MAX_COMMIT_NUMBER)]
Count = Annotated[int, Meta(ge=0, le=2**63 - 1)]
FAR_US = 2**63 - 1  #: later than any time
NEVER_US = 10**15  #: a lag that is not known: the replica was never level with its branch
Limit = Annotated[int, Meta(ge=1, le=MAX_PAGE)]
Legs = Annotated[tuple[Leg, ...], Meta(max_length=MAX_LEGS)]

COMMITTED = "committed"
ABORTED = "aborted"
PENDING = "pending"
UNKNOWN = "unknown"

OUT_OF_OFFICE = "out_of_office"  # a fault: this coordinator must not serve now; there may be another one

# Roles, as said in Hello and Welcome.
CLIENT = "client"  # whoever is no actor; its key says what kind
BRANCH = "branch"
COORDINATOR = "coordinator"

# Further roles that a key can have, and a token.
TELLER = "teller"  # any account, and the cash desk
AUDITOR = "auditor"  # reads all, changes nothing
OPERATOR = "operator"
BRIDGE = "bridge"  # asks in the names of others, whom it has let in: the REST bridge
REPLICA = "replica"

FEED = "feed"  #: where rows come from that nobody in particular vouches for


class Message(Struct, array_like=True, frozen=True, gc=False, forbid_unknown_fields=True):
    """Base of all messages."""


class Txn(Struct, array_like=True, frozen=True, gc=False, forbid_unknown_fields=True, order=True):
    """One 2PC attempt at a transfer (PROTOCOL P3)."""

    coordinator: Name  #: the coordinator's name
    epoch: Count  #: its epoch when it began the attempt
    n: Count  #: a running number within the epoch

    def __str__(self) -> str:
        return f"{self.coordinator}-{self.epoch}-{self.n}"


def parse_txn(text: str) -> Txn:
    """A txn from its text form, as in `coordinator-2-17`. Raises InvalidInput."""
    name, epoch, n = [*text.rsplit("-", 2), "", ""][:3]  # a name may have dashes in it
    if not 0 < len(name) <= 64 or not all(part.isascii() and part.isdigit() and len(part) <= 18 for part in (epoch, n)):
        raise InvalidInput(f"{text!r} is no two-phase commit: one looks like coordinator-2-17")
    return Txn(name, int(epoch), int(n))


class Place(Struct, array_like=True, frozen=True, gc=False, forbid_unknown_fields=True):
    """A row of a branch's journal: a replica that has come so far shows what that row did."""

    branch: BranchName
    seq: Count


class ReplicaInfo(Struct, array_like=True, frozen=True, gc=False, forbid_unknown_fields=True):
    """One replica, as it last told the coordinator."""

    name: Name
    of: BranchName
    endpoint: Endpoint  #: where clients reach it
    instance: Id  #: of its store
    epoch: Count  #: of its last row
    seq: Count  #: its last row
    behind: Count  #: rows that its branch is known to have more
    lag_us: Count  #: it has everything that its branch had so long ago
    can_lead: bool = True  #: it has the branch's key, so that it can take its place
    acks: Count = 0  #: the generation by which it is the synchronous replica, as its rows say; 0 = it is not


class RetiredInfo(Struct, array_like=True, frozen=True, gc=False, forbid_unknown_fields=True):
    """A branch that has left for good. Its name is never used again: it stands in old transfers."""

    name: BranchName
    endpoint: Endpoint  #: where it was
    currency: CurrencyCode
    instance: Id  #: of its store
    by: Name  #: who retired it
    at_us: Count


class AckedBy(Struct, array_like=True, frozen=True, gc=False, forbid_unknown_fields=True):
    """The coordinator's word on who holds an actor's rows before anything that stands on them leaves it (PROTOCOL R3)."""

    replica: Name  #: the synchronous replica; "" = by that word there is none
    instance: Annotated[bytes, Meta(max_length=16)]  #: of its store; b"" = none is known
    generation: Count  #: grows with each word; 0 = there was none yet


class BranchInfo(Struct, array_like=True, frozen=True, gc=False, forbid_unknown_fields=True):
    """One line of the coordinator's directory."""

    name: BranchName
    endpoint: Endpoint  #: where clients reach it
    currency: CurrencyCode
    instance: Id  #: of its store
    epoch: Count
    up: bool  #: heard of within the heartbeat limit
    acks: AckedBy | None = None  #: the last word on it, in Register the last that it has followed; None = there was never one
