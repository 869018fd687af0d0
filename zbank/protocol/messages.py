"""Every message on the wire, declared once.

A frame's body is a msgpack list of envelopes `[n, message]`: `n` is the sender's own number, given back with the answer
(0 where none is awaited), and a message is `[tag, field, …]`. Fields are checked exactly: type, range, length; an
unknown tag or an extra field is refused. What the codec lets through still has to pass the domain's rules.

Groups: what a client asks, what it is answered, and what actors say to each other.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from zbank.domain.legs import MAX_LEGS, MAX_MEMO_CHARS, AccountNumber, BranchName, Leg
from zbank.domain.refusal import Refusal

PROTOCOL_VERSION = 1
MAX_PAGE = 1000

Id = Annotated[bytes, Meta(min_length=16, max_length=16)]
Digest = Annotated[bytes, Meta(max_length=16)]
CurrencyCode = Annotated[str, Meta(min_length=3, max_length=3)]
Memo = Annotated[str, Meta(max_length=MAX_MEMO_CHARS)]
Date = Annotated[str, Meta(max_length=10)]  #: "YYYY-MM-DD", or "" for none
Text = Annotated[str, Meta(max_length=500)]
Name = Annotated[str, Meta(max_length=64)]
Endpoint = Annotated[str, Meta(max_length=200)]
Count = Annotated[int, Meta(ge=0, le=2**63 - 1)]
Limit = Annotated[int, Meta(ge=1, le=MAX_PAGE)]
Legs = Annotated[tuple[Leg, ...], Meta(max_length=MAX_LEGS)]

COMMITTED = "committed"
ABORTED = "aborted"
PENDING = "pending"
UNKNOWN = "unknown"

# Roles, as said in Hello and Welcome.
CLIENT = "client"
BRANCH = "branch"
COORDINATOR = "coordinator"


class Message(Struct, array_like=True, frozen=True, gc=False, forbid_unknown_fields=True):
    """Base of all messages."""


class Txn(Struct, array_like=True, frozen=True, gc=False, forbid_unknown_fields=True, order=True):
    """One 2PC attempt at a transfer (PROTOCOL P3)."""

    coordinator: Name  #: the coordinator's name
    epoch: Count  #: its epoch when it began the attempt
    n: Count  #: a running number within the epoch

    def __str__(self) -> str:
        return f"{self.coordinator}-{self.epoch}-{self.n}"


class BranchInfo(Struct, array_like=True, frozen=True, gc=False, forbid_unknown_fields=True):
    """One line of the coordinator's directory."""

    name: BranchName
    endpoint: Endpoint  #: where clients reach it
    currency: CurrencyCode
    instance: Id  #: of its store
    epoch: Count
    up: bool  #: heard of within the heartbeat limit


# --- what a client asks ---


class Hello(Message, frozen=True, tag="hello"):
    """First message on every connection; the answer is Welcome or Fault."""

    version: int  #: PROTOCOL_VERSION
    cluster: Name  #: the cluster's name; "" from a client that does not care
    role: Name  #: CLIENT, BRANCH or COORDINATOR
    name: Name  #: of the caller; for actors their configured name


class Transfer(Message, frozen=True, tag="transfer"):
    """Move money: one local record, or two-phase commit (P1). A deposit or withdrawal is a transfer with `cash`."""

    id: Id  #: made by the client before sending
    legs: Legs
    currency: CurrencyCode
    memo: Memo = ""
    effective_on: Date = ""


class Cancel(Message, frozen=True, tag="cancel"):
    """Make sure that this id never executes at this branch, unless it has already. Answered by Outcome."""

    id: Id


class OpenAccount(Message, frozen=True, tag="open"):
    """Open an account at the branch. Answered by Opened, Outcome (aborted) or Fault."""

    id: Id
    number: Annotated[str, Meta(max_length=34)]  #: "" = the branch gives the next free one
    owner: Annotated[str, Meta(max_length=100)]
    currency: Annotated[str, Meta(max_length=3)]  #: "" = the branch's
    overdraft_limit_minor: Count


class ChangeAccount(Message, frozen=True, tag="change"):
    """Set an account's status and overdraft limit. Answered by Outcome."""

    id: Id
    number: AccountNumber
    status: Annotated[str, Meta(max_length=10)]  #: "open", "frozen", "closed"; "" = as it is
    overdraft_limit_minor: Annotated[int, Meta(ge=-1, le=2**63 - 1)]  #: -1 = as it is


class GetAccount(Message, frozen=True, tag="account?"):
    """Answered by AccountInfo or Fault account_not_found."""

    number: AccountNumber


class ListAccounts(Message, frozen=True, tag="accounts?"):
    """A page of the branch's accounts, by number. Answered by AccountsPage."""

    after: Annotated[str, Meta(max_length=34)]  #: the last number of the page before; "" = from the start
    limit: Limit


class GetEntries(Message, frozen=True, tag="entries?"):
    """A page of an account's entries. Answered by EntriesPage or Fault account_not_found."""

    number: AccountNumber
    newest_first: bool
    cursor: Annotated[str, Meta(max_length=64)]  #: from the page before; "" = from the start
    limit: Limit


class GetTransfer(Message, frozen=True, tag="transfer?"):
    """What this actor knows of an id. Answered by TransferInfo; status `unknown` when it knows nothing."""

    id: Id


class GetStatus(Message, frozen=True, tag="status?"):
    """Answered by StatusInfo."""


class GetDirectory(Message, frozen=True, tag="directory?"):
    """To the coordinator. Answered by Directory."""


# --- what a client is answered ---


class Welcome(Message, frozen=True, tag="welcome"):
    """The answer to Hello: who speaks."""

    version: int
    cluster: Name
    role: Name
    name: Name
    instance: Id
    epoch: Count
    currency: Annotated[str, Meta(max_length=3)]  #: a branch's; "" from a coordinator
    coordinator: Endpoint  #: the coordinator's endpoint, as a branch knows it; "" = none


class Fault(Message, frozen=True, tag="fault"):
    """Not done, or not known: never an outcome. The same id may be sent again."""

    code: Name
    detail: Text
    retry_after_ms: Count = 0


class Outcome(Message, frozen=True, tag="outcome"):
    """What became of an id. `committed` and `aborted` are final (PROTOCOL P6)."""

    id: Id
    status: Name  #: COMMITTED, ABORTED or PENDING
    refusal: Refusal | None
    number: Count  #: commit number; 0 unless committed
    at_us: Count  #: when it became final, by the clock of who answers; 0 = not told
    replayed: bool  #: answered from the record, not executed by this request
    applied: bool  #: every branch has applied it (P10); False = committed, still being applied


class Opened(Message, frozen=True, tag="opened"):
    """The account of an OpenAccount."""

    id: Id
    account: AccountInfo
    replayed: bool


class AccountInfo(Message, frozen=True, tag="account"):
    """An account as it stands."""

    number: AccountNumber
    owner: str
    currency: CurrencyCode
    status: Name
    balance_minor: int
    held_minor: int
    overdraft_limit_minor: int
    opened_at_us: int


class AccountsPage(Message, frozen=True, tag="accounts"):
    """A page of accounts."""

    accounts: tuple[AccountInfo, ...]
    next: str  #: `after` of the next page; "" = this was the last


class EntryInfo(Struct, array_like=True, frozen=True, gc=False, forbid_unknown_fields=True):
    """One line of a statement."""

    seq: int  #: of the journal record that posted it
    id: Id  #: the transfer
    at_us: int
    effective_on: Date
    amount_minor: int  #: signed
    balance_minor: int  #: after this entry
    memo: str
    counterparties: tuple[str, ...]  #: the other accounts of the transfer


class EntriesPage(Message, frozen=True, tag="entries"):
    """A page of an account's entries."""

    account: AccountInfo
    entries: tuple[EntryInfo, ...]
    cursor: str  #: of the next page; "" = this was the last


class Participant(Struct, array_like=True, frozen=True, gc=False, forbid_unknown_fields=True):
    """One branch's part in a transfer, as the answering actor knows it."""

    branch: BranchName
    state: Name  #: "prepared", "committed", "aborted", "in_doubt"
    vote: Name  #: "yes", "refused", …; "" = unknown
    prepare_us: int  #: request to vote, as the coordinator saw it; -1 = unknown
    apply_us: int  #: decision to ack, as the coordinator saw it; -1 = unknown


class Phase(Struct, array_like=True, frozen=True, gc=False, forbid_unknown_fields=True):
    """One bar of a transfer's timeline, in microseconds since the coordinator received the request."""

    phase: Name  #: "request", "prepare", "decide", "apply"
    actor: Name
    start_us: int
    end_us: int


class TransferInfo(Message, frozen=True, tag="transferinfo"):
    """What an actor knows of an id."""

    id: Id
    status: Name  #: COMMITTED, ABORTED, PENDING or UNKNOWN
    refusal: Refusal | None
    legs: tuple[Leg, ...]
    currency: Annotated[str, Meta(max_length=3)]
    memo: str
    effective_on: str
    number: int  #: commit number, 0 = none
    at_us: int  #: 0 = not known
    txn: Txn | None
    participants: tuple[Participant, ...]
    timeline: tuple[Phase, ...]


class InDoubt(Struct, array_like=True, frozen=True, gc=False, forbid_unknown_fields=True):
    """A prepared txn whose decision this branch does not know."""

    txn: Txn
    id: Id
    age_us: int


class StatusInfo(Message, frozen=True, tag="status"):
    """How an actor does."""

    role: Name
    name: Name
    cluster: Name
    instance: Id
    epoch: int
    seq: int  #: last journal record
    number: int  #: commit number (Lamport clock)
    uptime_us: int
    accounts: int  #: -1 for a coordinator
    total_minor: int  #: sum of all balances of the branch: always 0
    clearing_minor: int  #: balance of the clearing account: money in flight
    unposted: int  #: records not yet posted
    in_flight: int  #: coordinator: txns not ended; branch: prepared txns
    in_doubt: tuple[InDoubt, ...]  #: branch: prepared longer than the inquiry time, oldest first, at most 100
    journal_bytes: int
    alarms: tuple[str, ...]
    version: Name  #: of zbank


class Directory(Message, frozen=True, tag="directory"):
    """All branches the coordinator knows, by name."""

    coordinator: Name
    branches: tuple[BranchInfo, ...]


# --- what actors say to each other ---


class Register(Message, frozen=True, tag="register"):
    """Branch to coordinator, after Welcome: here I am (DESIGN §5, PROTOCOL P11)."""

    info: BranchInfo
    coordinator_epoch: Count  #: the highest epoch of this coordinator that the branch knows of
    coordinator_number: Count  #: the highest commit number of this coordinator that the branch has applied


class Registered(Message, frozen=True, tag="registered"):
    """Coordinator to branch: you are in the directory."""

    coordinator: Name
    epoch: Count
    branches: tuple[BranchInfo, ...]


class Beat(Message, frozen=True, tag="beat"):
    """Application heartbeat, both ways: the actor's loop turns. Answered by Beat with `answer` set."""

    answer: bool


class Position(Message, frozen=True, tag="position"):
    """First in each frame of a branch that carries votes or acks: where its journal stands after the force (P11)."""

    epoch: Count
    seq: Count
    chain: Annotated[bytes, Meta(min_length=32, max_length=32)]
    turn_us: Count  #: how long this turn took, from the first message read to the force


class Forward(Message, frozen=True, tag="forward"):
    """Coordinator to branch: a local transfer that was handed to the wrong door (P1). Answered by Outcome or Fault."""

    caller: Name
    transfer: Transfer


class Prepare(Message, frozen=True, tag="prepare"):
    """Coordinator to branch: can you, and will you whatever happens, do your legs of this transfer?"""

    txn: Txn
    transfer: Transfer  #: all legs, also those of others: for statements, inquiries, redelivery
    digest: Digest  #: of the content
    caller: Name


YES = "yes"
REFUSED = "refused"
KNOWN = "known"
OCCUPIED = "occupied"
VOID = "void"  # this txn was voided here (tombstone): it can never prepare here; the id may be tried under another txn
STALE = "stale"  # a newer epoch of this coordinator is in office: the sender must leave
CONFLICT = "conflict"  # the id stands for other content, or belongs to another caller
BUSY = "busy"
STORAGE_FULL = "storage_full"


class Vote(Message, frozen=True, tag="vote"):
    """The answer to Prepare. Only `yes` binds."""

    txn: Txn
    id: Id
    answer: Name  #: YES, REFUSED, KNOWN, OCCUPIED, VOID, STALE, CONFLICT, BUSY or STORAGE_FULL
    number: Count  #: the branch's commit number (C1)
    seq: Count  #: journal position that this answer stands on
    outcome: Outcome | None = None  #: with KNOWN
    refusal: Refusal | None = None  #: with REFUSED
    final: bool = False  #: with REFUSED: the id's tombstone is forced here (this is the home branch)
    other: Txn | None = None  #: with OCCUPIED: the txn that holds the id here


class Commit(Message, frozen=True, tag="commit"):
    """The decision commit, from the coordinator or, after an inquiry, from a participant that knows it."""

    txn: Txn
    id: Id
    number: Count


class Abort(Message, frozen=True, tag="abort"):
    """The decision abort. With a refusal it also settles the id for good, at the home branch (P6)."""

    txn: Txn
    id: Id
    refusal: Refusal | None = None
    digest: Digest = b""  #: with a refusal
    caller: Name = ""  #: with a refusal


class Ack(Message, frozen=True, tag="ack"):
    """The branch has done what Commit or Abort said, and forced it."""

    txn: Txn
    id: Id
    seq: Count
    outcome: Outcome | None = None  #: to an Abort with a refusal: what the id now is here
    other: Txn | None = None  #: the txn that occupies the id; with neither, the id stands for other content


class Inquiry(Message, frozen=True, tag="inquiry"):
    """A branch in doubt asks the coordinator or a participant (P8). Answered by Commit, Abort or StillPending."""

    txn: Txn
    id: Id


class StillPending(Message, frozen=True, tag="pending"):
    """The answer to an Inquiry while nothing can be said: collecting, prepared here too, or not reconciled."""

    txn: Txn
    id: Id


Request = (
    Hello
    | Transfer
    | Cancel
    | OpenAccount
    | ChangeAccount
    | GetAccount
    | ListAccounts
    | GetEntries
    | GetTransfer
    | GetStatus
    | GetDirectory
)
Read = ListAccounts | GetEntries | GetTransfer  # served from the posted tables, after the turn's force
Answer = (
    Welcome
    | Fault
    | Outcome
    | Opened
    | AccountInfo
    | AccountsPage
    | EntriesPage
    | TransferInfo
    | StatusInfo
    | Directory
)
Peer = (
    Register
    | Registered
    | Beat
    | Position
    | Forward
    | Prepare
    | Vote
    | Commit
    | Abort
    | Ack
    | Inquiry
    | StillPending
)
AnyMessage = Request | Answer | Peer
Envelope = tuple[int, AnyMessage]
