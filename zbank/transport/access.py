"""Who may send what to whom: one table. What stands in no line of it is refused.

At a replica it holds as at the branch that it follows, as far as it takes a message at all. The role is what the
connection's key says. Without keys (on one machine alone) it is what the peer says of itself, and
whoever is no actor is ANYBODY.
"""

from __future__ import annotations

from msgspec.structs import replace

from zbank.domain.legs import SUSPENSE, SYSTEM_NUMBERS
from zbank.protocol.messages import (
    AUDITOR,
    BRANCH,
    BRIDGE,
    CLIENT,
    COORDINATOR,
    OPERATOR,
    REPLICA,
    TELLER,
    UNKNOWN,
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
    Hello,
    InquireNow,
    Inquiry,
    Lead,
    ListAccounts,
    ListTransfers,
    MakeToken,
    NameAcks,
    OpenAccount,
    Outcome,
    Position,
    Prepare,
    Promote,
    Redeliver,
    Redelivering,
    Register,
    Registered,
    RegisterReplica,
    Retire,
    RetireAnswer,
    RetireBranch,
    RevokeToken,
    Rows,
    StillPending,
    Transfer,
    TransferInfo,
    Vote,
    Welcome,
)
from zbank.transport.keys import PEOPLE, Key

Kinds = frozenset[type[AnyMessage]]
Roles = frozenset[str]

ANYBODY = "anybody"  #: where there are no keys

NOBODY: Roles = frozenset()
ALL: Roles = frozenset({*PEOPLE, ANYBODY})
PAY = ALL - {AUDITOR}  # a client from the own accounts alone, and never the bank's
SEE_ALL = ALL - {CLIENT}
KEEP = SEE_ALL - {AUDITOR}
WATCH = SEE_ALL - {TELLER}
RUN = WATCH - {AUDITOR}
GRANT = frozenset({OPERATOR, ANYBODY})
BRANCHES = frozenset({BRANCH})
REPLICAS = frozenset({REPLICA})
ACTORS = BRANCHES | REPLICAS

#: by message: whose key may send it to a branch, and whose to the coordinator. No key of a coordinator is in it: it calls
#: nobody, and Prepare, Commit and Abort are taken only over a connection that was made to its key (ON_LINK).
TABLE: dict[type[AnyMessage], tuple[Roles, Roles]] = {
    Hello: (ALL | ACTORS, ALL | ACTORS),
    Beat: (ALL | ACTORS, ALL | ACTORS),
    Transfer: (PAY, PAY),
    Cancel: (PAY, NOBODY),
    OpenAccount: (KEEP, NOBODY),
    ChangeAccount: (KEEP, NOBODY),
    GetAccount: (ALL, NOBODY),
    GetEntries: (ALL, NOBODY),
    GetTransfer: (ALL, ALL),
    GetDirectory: (NOBODY, ALL),
    ListAccounts: (SEE_ALL, NOBODY),
    ListTransfers: (SEE_ALL, NOBODY),
    GetStatus: (SEE_ALL, SEE_ALL),
    GetEvents: (WATCH, WATCH),
    GetFigures: (WATCH, WATCH),
    InquireNow: (RUN, NOBODY),
    GetTokens: (NOBODY, WATCH),
    GetActs: (NOBODY, WATCH),
    MakeToken: (NOBODY, GRANT),
    RevokeToken: (NOBODY, GRANT),
    RetireBranch: (NOBODY, GRANT),
    GetRows: (REPLICAS, REPLICAS),
    RegisterReplica: (NOBODY, REPLICAS),
    Promote: (NOBODY, GRANT),
    NameAcks: (NOBODY, GRANT),
    GetDecisions: (NOBODY, BRANCHES),
    Inquiry: (BRANCHES, BRANCHES),
    Register: (NOBODY, BRANCHES),
    Position: (NOBODY, BRANCHES),
    Vote: (NOBODY, BRANCHES),
    Ack: (NOBODY, BRANCHES),
    RetireAnswer: (NOBODY, BRANCHES),
    Outcome: (NOBODY, BRANCHES),
    Fault: (NOBODY, BRANCHES),
}

#: what a replica takes: questions
AT_REPLICA: Kinds = frozenset(
    {Hello, Beat, GetAccount, GetEntries, GetTransfer, ListAccounts, ListTransfers, GetStatus, GetEvents, GetFigures}
)


def _of(column: int, role: str) -> Kinds:
    return frozenset(kind for kind, roles in TABLE.items() if role in roles[column])


#: the table by (role of who listens, role of who connected to it)
ON_SERVER: dict[tuple[str, str], Kinds] = {
    (listener, role): _of(column, role)
    for column, listener in enumerate((BRANCH, COORDINATOR))
    for role in sorted(ALL | ACTORS)
}
ON_SERVER |= {(REPLICA, role): _of(0, role) & AT_REPLICA for role in sorted(ALL | ACTORS)}
#: nobody stands above a coordinator: its replica itself is asked to take its place
ON_SERVER |= {(REPLICA, role): ON_SERVER[REPLICA, role] | {Promote} for role in sorted(GRANT)}

#: the same, before the connection is known to stand for the actor it names. No Beat: a branch beats when it believes that
#: it is registered, and whoever is not any more (a late Register of an older connection does that) has to hear so.
UNTIL_BOUND: dict[tuple[str, str], Kinds] = {
    (COORDINATOR, BRANCH): frozenset({Hello, Register}),
}

_NEWS: Kinds = frozenset({Welcome, Fault, Beat})

#: by role of the actor that this branch has connected to
ON_LINK: dict[str, Kinds] = {
    COORDINATOR: _NEWS
    | {Registered, Lead, Forward, Prepare, Commit, Abort, StillPending, Redeliver, Redelivering, Retire, Rows},
    BRANCH: _NEWS | {Commit, Abort, StillPending, Rows},
}


def why_forbidden(key: Key, listener: str, message: AnyMessage) -> str:
    """Why this key may not send this very message, whose kind it may; "" = it may. `listener` is the branch asked."""
    if getattr(message, "caller", "") and key.role != BRIDGE:
        return f"{key.name} asks in its own name: only a {BRIDGE}'s key speaks for others"
    if isinstance(message, GetDecisions) and message.branch != key.name:
        return f"{key.name} asks for what concerns {message.branch}"
    if isinstance(message, GetRows) and listener == COORDINATOR and not key.follows_coordinator:
        return f"{key.name} follows a branch: what the coordinator decided is for replicas of it, {COORDINATOR}-…, alone"
    if isinstance(message, Transfer) and key.role == TELLER and any(leg.number == SUSPENSE for leg in message.legs):
        return f"what stands on {SUSPENSE} is settled by an {OPERATOR}'s key"
    if key.role != CLIENT:
        return ""
    if isinstance(message, GetAccount | GetEntries) and f"{listener}/{message.number}" not in key.accounts:
        return f"{listener}/{message.number} is not an account of {key.name}"
    if isinstance(message, Transfer):
        for leg in message.legs:
            if leg.number in SYSTEM_NUMBERS:
                return f"{leg.account} is the bank's own: a {TELLER}'s key may use it"
            if leg.amount_minor < 0 and leg.account not in key.accounts:
                return f"{leg.account} is not an account of {key.name}: it can pay from its own only"
    return ""


def only_own(key: Key, message: AnyMessage) -> AnyMessage:
    """What a client's key is told: of a transfer between others, that nothing is known."""
    if isinstance(message, TransferInfo) and not any(leg.account in key.accounts for leg in message.legs):
        return replace(
            message,
            status=UNKNOWN,
            refusal=None,
            legs=(),
            currency="",
            memo="",
            effective_on="",
            number=0,
            at_us=0,
            txn=None,
            participants=(),
            timeline=(),
        )
    return message
