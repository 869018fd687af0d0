"""Every journal record, declared once. `apply` of the actor's state machine is the only reader; records never change.

The journal row around a record carries (seq, epoch, at, kind, id, body, chain); `kind` is the record's tag.
A record may gain fields at its end, with defaults; tags are never used again for another meaning.
"""

from __future__ import annotations

from msgspec import Struct

from zbank.domain.legs import Leg
from zbank.domain.refusal import Refusal
from zbank.protocol.messages import AckedBy, Txn


class Record(Struct, array_like=True, frozen=True, gc=False):
    """Base of all records."""


class Started(Record, frozen=True, tag="started"):
    """The actor took office with the row's epoch (PROTOCOL P11, R5)."""

    version: str  #: of zbank


# --- branch ---


class AccountOpened(Record, frozen=True, tag="account_opened"):
    """A new account with balance zero."""

    id: bytes  #: of the request; b"" for a system account
    digest: bytes
    caller: str
    number: str
    owner: str
    currency: str
    overdraft_limit_minor: int


class AccountChanged(Record, frozen=True, tag="account_changed"):
    """Status and limit after the change."""

    id: bytes
    digest: bytes
    caller: str
    number: str
    status: str
    overdraft_limit_minor: int


class Content(Struct, array_like=True, frozen=True, gc=False):
    """What a transfer says and who said it: the same in every record that begins one."""

    legs: tuple[Leg, ...]
    currency: str
    memo: str
    effective_on: str  #: "YYYY-MM-DD" or ""
    digest: bytes
    caller: str


class Executed(Record, frozen=True, tag="executed"):
    """A local transfer: committed and posted by this one record."""

    id: bytes
    number: int  #: the branch's commit number, unchanged by it (C1)
    content: Content


class Refused(Record, frozen=True, tag="refused"):
    """The id's tombstone: it will never execute (P6). Also a cancel, with an empty digest: fits any content."""

    id: bytes
    digest: bytes
    caller: str
    refusal: Refusal
    content: Content | None = None  #: of the transfer that was refused; None = a cancel, or it was no transfer


class Prepared(Record, frozen=True, tag="prepared"):
    """A yes vote: the legs of this branch are held until the decision is known, for ever if need be (P4)."""

    id: bytes
    txn: Txn
    content: Content


class Committed(Record, frozen=True, tag="committed"):
    """The decision commit, applied: the legs and their clearing leg are posted."""

    id: bytes
    txn: Txn
    number: int  #: commit number


class Aborted(Record, frozen=True, tag="aborted"):
    """The decision abort: holds released, the txn void here for good; with a refusal also the id's tombstone."""

    id: bytes
    txn: Txn
    refusal: Refusal | None = None
    digest: bytes = b""
    caller: str = ""


class CoordinatorSeen(Record, frozen=True, tag="coordinator_seen"):
    """The coordinator `name` is in office with this epoch: lower ones are refused from here on (P11)."""

    name: str
    epoch: int
    word: int = 0  #: row of its last word on its own synchronous replica; 0 = there was none


class Promoted(Record, frozen=True, tag="promoted"):
    """A replica took the place of whom it followed here: what that wrote after the row before this one is void (R2).

    A branch is unreconciled from here on, and serves nobody, until each coordinator has told what it decided.
    """

    by: str  #: the operator
    former_epoch: int  #: of the last row that was taken over


class Redelivered(Record, frozen=True, tag="redelivered"):
    """A commit told anew after a promotion: posted whatever the accounts say, for it was decided (R2)."""

    id: bytes
    txn: Txn
    number: int  #: commit number
    content: Content
    suspended: tuple[str, ...] = ()  #: accounts here that cannot bear their leg: `suspense` does


class Reconciled(Record, frozen=True, tag="reconciled"):
    """This coordinator has told all that it decided."""

    coordinator: str
    is_last: bool  #: of all coordinators: the branch opens


class Retired(Record, frozen=True, tag="retired"):
    """The branch is empty, and closed for good: from here on no record changes its books."""

    coordinator: str  #: that asked it to
    by: str  #: who asked the coordinator


class AcksBy(Record, frozen=True, tag="acks_by"):
    """From this row on, nothing leaves the branch before this replica has it: the coordinator's word, taken over (R3)."""

    acks: AckedBy


# --- coordinator ---


class AcksNamed(Record, frozen=True, tag="acks_named"):
    """A replica is the synchronous one of a branch, or of this coordinator: the row's number is the word's generation (R3)."""

    of: str
    replica: str  #: "" = none any more
    instance: bytes  #: of its store
    by: str  #: who said so; "" = the config



class BranchJoined(Record, frozen=True, tag="branch_joined"):
    """A branch registered for the first time, or with another endpoint, currency or instance."""

    name: str
    endpoint: str
    currency: str
    instance: bytes


class BranchLeft(Record, frozen=True, tag="branch_left"):
    """A branch has closed for good: it is in the directory no more, and its name is never used again."""

    name: str
    by: str  #: who retired it


class BranchVote(Struct, array_like=True, frozen=True, gc=False):
    """A yes vote as the decision keeps it."""

    branch: str
    epoch: int
    seq: int
    voted_us: int  #: after the request, by the coordinator's clock
    turn_us: int  #: how long the branch's turn took, by its own clock


class Decided(Record, frozen=True, tag="decided"):
    """The decision commit, kept for good (P5): from its force on, this transfer is done."""

    id: bytes
    txn: Txn
    number: int
    content: Content
    votes: tuple[BranchVote, ...]
    decided_us: int  #: decision made, after the request


class BranchAck(Struct, array_like=True, frozen=True, gc=False):
    """An ack as the end record keeps it."""

    branch: str
    epoch: int  #: of the branch
    seq: int  #: its row that the ack stands on
    acked_us: int  #: after the request, by the coordinator's clock; -1 = the request was before a restart
    turn_us: int  #: how long the branch's turn took, by its own clock


class Ending(Struct, array_like=True, frozen=True, gc=False):
    """All participants of one txn have acked."""

    id: bytes
    acks: tuple[BranchAck, ...]
    forced_us: int = -1  #: from the request to the decision on disk; -1 = not known


class Ended(Record, frozen=True, tag="ended"):
    """Several txns are over: nothing of them is sent again. Rides with the next force; losing it costs a resend."""

    endings: tuple[Ending, ...]


class Fork(Struct, array_like=True, frozen=True, gc=False):
    """Where a promotion left the former branch's journal: rows of a lower epoch after this one are void."""

    epoch: int  #: of the promoted branch, at the least
    seq: int  #: the last row that its replica was known to have


class BranchPromoted(Record, frozen=True, tag="branch_promoted"):
    """A replica is the branch from now on; its former store is not let in again (R2)."""

    caller: str  #: the operator
    name: str  #: of the branch
    replica: str
    endpoint: str
    instance: bytes  #: of the replica's store
    former_instance: bytes
    epoch: int  #: the new branch's is this one or higher
    forks: tuple[Fork, ...] = ()  #: of all promotions of this branch


class TokenMade(Record, frozen=True, tag="token_made"):
    """Who holds the secret of this digest may act through the REST bridge."""

    id: bytes  #: of the token
    caller: str  #: who made it
    holder: str
    role: str
    accounts: tuple[str, ...]
    secret_digest: bytes
    expires_us: int  #: 0 = never


class TokenRevoked(Record, frozen=True, tag="token_revoked"):
    """The token is good for nothing any more."""

    id: bytes  #: of the token
    caller: str  #: who revoked it


class NotedKey(Struct, array_like=True, frozen=True, gc=False):
    """A CURVE key that may connect."""

    public: str
    name: str
    role: str
    accounts: tuple[str, ...]  #: a client's own


class KeysChanged(Record, frozen=True, tag="keys_changed"):
    """The list of keys was seen to be another than before."""

    listed: tuple[NotedKey, ...]
    ended: tuple[NotedKey, ...]


BranchRecord = (
    Started
    | AccountOpened
    | AccountChanged
    | Executed
    | Refused
    | Prepared
    | Committed
    | Aborted
    | CoordinatorSeen
    | Promoted
    | Redelivered
    | Reconciled
    | Retired
    | AcksBy
)
CoordinatorRecord = (
    Started
    | BranchJoined
    | BranchPromoted
    | BranchLeft
    | Decided
    | Ended
    | TokenMade
    | TokenRevoked
    | KeysChanged
    | AcksNamed
    | Promoted
)
AnyRecord = BranchRecord | CoordinatorRecord
