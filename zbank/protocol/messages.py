"""Every message on the wire.

A frame's body is a msgpack list of envelopes `[n, message]`: `n` is the sender's own number, given back with the answer
(0 where none is awaited), and a message is `[tag, field, …]`. Fields are checked exactly: type, range, length; an
unknown tag or an extra field is refused. What the codec lets through still has to pass the domain's rules.

They stand in `client_messages`, `token_messages`, `watch_messages`, `actor_messages` and `replica_messages`; this page is
the whole vocabulary.
"""

from __future__ import annotations

from zbank.protocol.act_messages import ActInfo, ActsPage, GetActs
from zbank.protocol.actor_messages import (
    BUSY,
    CONFLICT,
    KNOWN,
    OCCUPIED,
    REFUSED,
    STALE,
    STOPPED,
    STORAGE_FULL,
    VOID,
    YES,
    Abort,
    Ack,
    Beat,
    Commit,
    Forward,
    Inquiry,
    Position,
    Prepare,
    Register,
    Registered,
    StillPending,
    Vote,
)
from zbank.protocol.client_messages import (
    AccountInfo,
    AccountsPage,
    Cancel,
    ChangeAccount,
    Directory,
    EntriesPage,
    EntryInfo,
    Fault,
    GetAccount,
    GetDirectory,
    GetEntries,
    GetStatus,
    GetTransfer,
    Hello,
    InDoubt,
    ListAccounts,
    ListTransfers,
    OpenAccount,
    Opened,
    Outcome,
    ParticipantInfo,
    Phase,
    StatusInfo,
    Transfer,
    TransferInfo,
    TransferListed,
    TransfersPage,
    Welcome,
)
from zbank.protocol.member_messages import BranchRetired, Retire, RetireAnswer, RetireBranch
from zbank.protocol.replica_messages import (
    MAX_ROW_BYTES,
    MAX_ROWS,
    Feed,
    GetDecisions,
    GetRows,
    Held,
    Lead,
    Look,
    NameAcks,
    Named,
    Promote,
    Promoting,
    Redeliver,
    Redelivering,
    RegisterReplica,
    RowInfo,
    Rows,
    Standing,
)
from zbank.protocol.token_messages import GetTokens, MakeToken, RevokeToken, TokenInfo, TokensPage
from zbank.protocol.watch_messages import (
    APPLIED,
    BEGIN,
    DECISION,
    RELEASED,
    VOTE,
    CountInfo,
    Event,
    EventsPage,
    FiguresInfo,
    GetEvents,
    GetFigures,
    HistogramInfo,
    Inquired,
    InquireNow,
)
from zbank.protocol.wire import (
    ABORTED,
    AUDITOR,
    BRANCH,
    BRIDGE,
    CLIENT,
    COMMITTED,
    COORDINATOR,
    FAR_US,
    FEED,
    MAX_PAGE,
    MAX_SEARCH_CHARS,
    NEVER_US,
    OPERATOR,
    OUT_OF_OFFICE,
    PENDING,
    PROTOCOL_VERSION,
    REPLICA,
    TELLER,
    UNKNOWN,
    AckedBy,
    BranchInfo,
    Message,
    Place,
    ReplicaInfo,
    RetiredInfo,
    Txn,
    parse_txn,
)

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
    | ListTransfers
    | GetEvents
    | GetFigures
    | GetStatus
    | GetDirectory
    | GetActs
    | InquireNow
    | MakeToken
    | RevokeToken
    | GetTokens
    | Promote
    | NameAcks
    | RetireBranch
)
Read = ListAccounts | GetEntries | GetTransfer | ListTransfers  # served from the posted tables, after the turn's force
Answer = (
    Welcome
    | Fault
    | Outcome
    | Opened
    | AccountInfo
    | AccountsPage
    | EntriesPage
    | TransferInfo
    | TransfersPage
    | EventsPage
    | FiguresInfo
    | StatusInfo
    | Directory
    | Inquired
    | TokenInfo
    | TokensPage
    | ActsPage
    | Standing
    | Promoting
    | Named
    | BranchRetired
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
    | GetRows
    | Rows
    | RegisterReplica
    | Lead
    | GetDecisions
    | Redeliver
    | Redelivering
    | Retire
    | RetireAnswer
)
AnyMessage = Request | Answer | Peer
Envelope = tuple[int, AnyMessage]

__all__ = [
    "ABORTED",
    "APPLIED",
    "AUDITOR",
    "BEGIN",
    "BRANCH",
    "BRIDGE",
    "BUSY",
    "CLIENT",
    "COMMITTED",
    "CONFLICT",
    "COORDINATOR",
    "DECISION",
    "FAR_US",
    "FEED",
    "KNOWN",
    "MAX_PAGE",
    "MAX_ROWS",
    "MAX_ROW_BYTES",
    "MAX_SEARCH_CHARS",
    "NEVER_US",
    "OCCUPIED",
    "OPERATOR",
    "OUT_OF_OFFICE",
    "PENDING",
    "PROTOCOL_VERSION",
    "REFUSED",
    "RELEASED",
    "REPLICA",
    "STALE",
    "STOPPED",
    "STORAGE_FULL",
    "TELLER",
    "UNKNOWN",
    "VOID",
    "VOTE",
    "YES",
    "Abort",
    "AccountInfo",
    "AccountsPage",
    "Ack",
    "AckedBy",
    "ActInfo",
    "ActsPage",
    "Answer",
    "AnyMessage",
    "Beat",
    "BranchInfo",
    "BranchRetired",
    "Cancel",
    "ChangeAccount",
    "Commit",
    "CountInfo",
    "Directory",
    "EntriesPage",
    "EntryInfo",
    "Envelope",
    "Event",
    "EventsPage",
    "Fault",
    "Feed",
    "FiguresInfo",
    "Forward",
    "GetAccount",
    "GetActs",
    "GetDecisions",
    "GetDirectory",
    "GetEntries",
    "GetEvents",
    "GetFigures",
    "GetRows",
    "GetStatus",
    "GetTokens",
    "GetTransfer",
    "Held",
    "Hello",
    "HistogramInfo",
    "InDoubt",
    "InquireNow",
    "Inquired",
    "Inquiry",
    "Lead",
    "ListAccounts",
    "ListTransfers",
    "Look",
    "MakeToken",
    "Message",
    "NameAcks",
    "Named",
    "OpenAccount",
    "Opened",
    "Outcome",
    "ParticipantInfo",
    "Peer",
    "Phase",
    "Place",
    "Position",
    "Prepare",
    "Promote",
    "Promoting",
    "Read",
    "Redeliver",
    "Redelivering",
    "Register",
    "RegisterReplica",
    "Registered",
    "ReplicaInfo",
    "Request",
    "Retire",
    "RetireAnswer",
    "RetireBranch",
    "RetiredInfo",
    "RevokeToken",
    "RowInfo",
    "Rows",
    "Standing",
    "StatusInfo",
    "StillPending",
    "TokenInfo",
    "TokensPage",
    "Transfer",
    "TransferInfo",
    "TransferListed",
    "TransfersPage",
    "Txn",
    "Vote",
    "Welcome",
    "parse_txn",
]
