"""Questions that change nothing: which are answered when in a turn, and what answering costs."""

from __future__ import annotations

from zbank.protocol.messages import (
    AccountsPage,
    AnyMessage,
    EntriesPage,
    EventsPage,
    GetAccount,
    GetActs,
    GetDecisions,
    GetDirectory,
    GetEntries,
    GetEvents,
    GetFigures,
    GetRows,
    GetStatus,
    GetTokens,
    GetTransfer,
    ListAccounts,
    ListTransfers,
    NameAcks,
    Read,
    TransfersPage,
)
from zbank.storage.transfers import SCAN_ROWS

ROWS_OF_ONE_READ = 10  #: what any read costs, in rows

LOOKS = (GetAccount, GetActs, GetDirectory, GetTokens)  # answered from memory, nothing is recorded
READS = (  # answered after the force
    ListAccounts,
    GetDecisions,
    GetEntries,
    GetTransfer,
    ListTransfers,
    GetEvents,
    GetFigures,
    GetRows,
    GetStatus,
)

AT_ONCE = (GetFigures, GetRows, GetStatus)  # these answers wait for no replica: they say how the actor does
WHILE_STOPPED = (*AT_ONCE, NameAcks)  # taken also when the synchronous replica is away

ClientRead = Read | GetEvents | GetFigures | GetStatus
AnyRead = ClientRead | GetDecisions | GetRows


def rows_of(message: ClientRead, answer: AnyMessage) -> int:
    """What a read has cost, in rows."""
    match answer:
        case AccountsPage():
            return ROWS_OF_ONE_READ + len(answer.accounts)
        case EntriesPage():
            return ROWS_OF_ONE_READ + len(answer.entries)
        case EventsPage() if isinstance(message, GetEvents) and message.after >= 0:
            return ROWS_OF_ONE_READ + max(0, answer.seq - message.after)
        case TransfersPage():
            return ROWS_OF_ONE_READ + SCAN_ROWS
    return ROWS_OF_ONE_READ


def size_of(answer: AnyMessage) -> int:
    """What it takes to keep an answer, in ordinary ones."""
    match answer:
        case AccountsPage():
            return 1 + len(answer.accounts)
        case EntriesPage():
            return 1 + len(answer.entries)
        case EventsPage():
            return 1 + len(answer.events)
        case TransfersPage():
            return 1 + len(answer.transfers)
    return 1
