"""Who may send what to whom: one table. What stands in no cell is refused.

Without keys the role is what the peer says of itself; with keys it will be what its key says.
"""

from __future__ import annotations

from zbank.protocol.messages import (
    BRANCH,
    CLIENT,
    COORDINATOR,
    Abort,
    Ack,
    AnyMessage,
    Beat,
    Cancel,
    ChangeAccount,
    Commit,
    Fault,
    Forward,
    GetAccount,
    GetDirectory,
    GetEntries,
    GetEvents,
    GetFigures,
    GetStatus,
    GetTokens,
    GetTransfer,
    Hello,
    InquireNow,
    Inquiry,
    ListAccounts,
    ListTransfers,
    MakeToken,
    OpenAccount,
    Outcome,
    Position,
    Prepare,
    Register,
    Registered,
    RevokeToken,
    StillPending,
    Transfer,
    Vote,
    Welcome,
)

Kinds = frozenset[type[AnyMessage]]

_NEWS: Kinds = frozenset({Welcome, Fault, Beat})

#: by (role of who listens, role of who connected to it)
ON_SERVER: dict[tuple[str, str], Kinds] = {
    (BRANCH, CLIENT): frozenset(
        {
            Hello,
            Beat,
            Transfer,
            Cancel,
            OpenAccount,
            ChangeAccount,
            GetAccount,
            ListAccounts,
            GetEntries,
            GetTransfer,
            ListTransfers,
            GetEvents,
            GetFigures,
            GetStatus,
            InquireNow,
        }
    ),
    (BRANCH, BRANCH): frozenset({Hello, Beat, Inquiry}),
    (COORDINATOR, CLIENT): frozenset(
        {
            Hello,
            Beat,
            Transfer,
            GetTransfer,
            GetEvents,
            GetFigures,
            GetStatus,
            GetDirectory,
            MakeToken,
            RevokeToken,
            GetTokens,
        }
    ),
    (COORDINATOR, BRANCH): frozenset({Hello, Beat, Register, Position, Vote, Ack, Inquiry, Outcome, Fault}),
}

#: the same, before the connection is known to stand for the actor it names. No Beat: a branch beats when it believes that
#: it is registered, and whoever is not any more (a late Register of an older connection does that) has to hear so.
UNTIL_BOUND: dict[tuple[str, str], Kinds] = {
    (COORDINATOR, BRANCH): frozenset({Hello, Register}),
}

#: by role of the actor that this branch has connected to
ON_LINK: dict[str, Kinds] = {
    COORDINATOR: _NEWS | {Registered, Forward, Prepare, Commit, Abort, StillPending},
    BRANCH: _NEWS | {Commit, Abort, StillPending},
}
