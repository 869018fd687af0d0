"""What a client asks, and what it is answered."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from zbank.domain.legs import MAX_LEGS, AccountNumber, AccountNumberOrNone, BranchName, Leg
from zbank.domain.refusal import Refusal
from zbank.protocol.wire import (
    FAR_US,
    AckedBy,
    BranchInfo,
    CommitNumber,
    Count,
    CurrencyCode,
    Date,
    Id,
    Legs,
    Limit,
    Memo,
    Message,
    Name,
    Place,
    ReplicaInfo,
    RetiredInfo,
    Search,
    Text,
    Txn,
)

Cursor = Annotated[str, Meta(max_length=64)]

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
    caller: Name = ""  #: in whose name (T6), from a client that speaks for others; "" = the connection's own
    request_id: Name = ""  #: of the HTTP request that it came by, for the logs of all it passes; nothing is decided by it


class Cancel(Message, frozen=True, tag="cancel"):
    """Make sure that this id never executes at this branch, unless it has already. Answered by Outcome."""

    id: Id
    caller: Name = ""  #: as in Transfer
    request_id: Name = ""  #: as in Transfer


class OpenAccount(Message, frozen=True, tag="open"):
    """Open an account at the branch. Answered by Opened, Outcome (aborted) or Fault."""

    id: Id
    number: AccountNumberOrNone  #: "" = the branch gives the next free one
    owner: Annotated[str, Meta(max_length=100)]
    currency: Annotated[str, Meta(max_length=3)]  #: "" = the branch's
    overdraft_limit_minor: Count
    caller: Name = ""  #: as in Transfer
    request_id: Name = ""  #: as in Transfer


class ChangeAccount(Message, frozen=True, tag="change"):
    """Set an account's status and overdraft limit. Answered by Outcome."""

    id: Id
    number: AccountNumber
    status: Annotated[str, Meta(max_length=10)]  #: "open", "frozen", "closed"; "" = as it is
    overdraft_limit_minor: Annotated[int, Meta(ge=-1, le=2**63 - 1)]  #: -1 = as it is
    caller: Name = ""  #: as in Transfer
    request_id: Name = ""  #: as in Transfer


class GetAccount(Message, frozen=True, tag="account?"):
    """Answered by AccountInfo or Fault account_not_found."""

    number: AccountNumber


class ListAccounts(Message, frozen=True, tag="accounts?"):
    """A page of the branch's accounts, by number. Answered by AccountsPage."""

    after: Annotated[str, Meta(max_length=34)]  #: the last number of the page before; "" = from the start
    limit: Limit
    search: Search = ""  #: only owners with this text in them and numbers that begin with it, whatever the case; "" = all
    status: Annotated[str, Meta(max_length=6)] = ""  #: only open, frozen or closed ones; "" = all


class GetEntries(Message, frozen=True, tag="entries?"):
    """A page of an account's entries. Answered by EntriesPage or Fault account_not_found."""

    number: AccountNumber
    newest_first: bool
    cursor: Cursor  #: from the page before; "" = from the start
    limit: Limit
    from_us: Count = 0  #: entries posted at or after this time, by the branch's clock
    until_us: Count = FAR_US  #: and before this one


class ListTransfers(Message, frozen=True, tag="transfers?"):
    """A page of the transfers that this branch knows and has the content of, newest first. Answered by TransfersPage.

    A page may be short, or empty, and still not be the last: an actor looks through so many rows at once and no more.
    """

    number: AccountNumberOrNone  #: only those with a leg on this account; "" = all
    status: Annotated[str, Meta(max_length=10)]  #: COMMITTED, ABORTED or PENDING; "" = all (of one account: COMMITTED)
    is_home: bool  #: only those whose home branch this is: so each transfer is listed once in the whole bank (P2)
    from_us: Count
    until_us: Count
    cursor: Cursor  #: from the page before; "" = from the newest
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
    coordinator: Annotated[str, Meta(max_length=200)]  #: the coordinator's endpoint, as a branch knows it; "" = none


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
    number: CommitNumber  #: commit number; 0 unless committed
    at_us: Count  #: when it became final, by the clock of who answers; 0 = not told
    replayed: bool  #: answered from the record, not executed by this request
    applied: bool  #: every branch has applied it (P10); False = committed, still being applied
    places: Annotated[tuple[Place, ...], Meta(max_length=MAX_LEGS)] = ()  #: the rows that did it, as far as they are known


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
    next: str  #: `after` of the next page; "" = this was the last. A page of a search may be short and not the last


class TransferListed(Struct, array_like=True, frozen=True, gc=False, forbid_unknown_fields=True):
    """One line of a list of transfers."""

    cursor: Cursor  #: of a page that goes on after this one
    info: TransferInfo


class TransfersPage(Message, frozen=True, tag="transfers"):
    """A page of transfers."""

    transfers: tuple[TransferListed, ...]
    cursor: Cursor  #: of the next page; "" = this was the last


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


class ParticipantInfo(Struct, array_like=True, frozen=True, gc=False, forbid_unknown_fields=True):
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
    participants: tuple[ParticipantInfo, ...]
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
    customers_minor: int = 0  #: branch: sum of all balances but the bank's own accounts
    acks: AckedBy | None = None  #: the word on its synchronous replica; None = there was never one
    stopped: bool = False  #: it takes nothing on, for want of that replica; or of its newest data (a coordinator)


class Directory(Message, frozen=True, tag="directory"):
    """All branches the coordinator knows, by name."""

    coordinator: Name
    branches: tuple[BranchInfo, ...]
    replicas: tuple[ReplicaInfo, ...] = ()  #: by name; also those that are silent: their lag grows
    retired: tuple[RetiredInfo, ...] = ()  #: branches that have left for good, the latest last
    word: AckedBy | None = None  #: on the coordinator's own synchronous replica; those on the branches' are with them

    def words(self) -> dict[str, AckedBy | None]:
        """By branch, and by the coordinator's name: the last word on its synchronous replica."""
        return {self.coordinator: self.word} | {info.name: info.acks for info in self.branches}
