"""What the REST bridge answers, described for the OpenAPI document.

Answers are made by the client's views (`to_json`), so nothing is checked here at run time; a test holds the two together.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field


class Shown(BaseModel):
    """What is answered."""

    model_config = ConfigDict(frozen=True)


def example(**fields: Any) -> ConfigDict:
    """The configuration of a model with an example."""
    return ConfigDict(frozen=True, json_schema_extra={"examples": [fields]})


Time = Annotated[str, Field(json_schema_extra={"format": "date-time"}, examples=["2026-11-27T02:00:00.000Z"])]
Decimals = Annotated[str, Field(examples=["1000.00"], description="Decimal text.")]
IdText = Annotated[str, Field(json_schema_extra={"format": "uuid"}, examples=["01a206e4-6535-7290-a6cf-c388bb3b8b1c"])]


class ProblemShown(Shown):
    """Why not (RFC 9457). `code` is stable, `detail` is for people."""

    type: str
    title: str
    status: int
    code: str
    detail: str


class ActorDownShown(Shown):
    """An actor that does not answer."""

    role: str
    name: str
    endpoint: str
    up: Literal[False]
    reason: str


_ACCOUNT = {
    "account": "Mumbai/1001",
    "branch": "Mumbai",
    "number": "1001",
    "owner": "Demo",
    "currency": "INR",
    "status": "open",
    "balance": "9950.00",
    "held": "0.00",
    "available": "9950.00",
    "overdraft_limit": "0.00",
}
_CURSOR = "ODctMA"


class AsOfShown(Shown):
    """Where the replica stood that answered."""

    position: int = Field(description="Row of its branch's journal.")
    behind: int = Field(description="Rows that the branch was known to have more.")
    lag_s: float | None = Field(description="It showed everything that was there so long ago; null: it never was level.")


class AccountShown(Shown):
    """An account as it stands."""

    model_config = example(**_ACCOUNT)

    account: str = Field(examples=["Mumbai/1001"])
    branch: str
    number: str
    owner: str
    currency: str = Field(examples=["INR"])
    status: Literal["open", "frozen", "closed"]
    balance: Decimals
    held: Decimals
    available: Decimals = Field(description="balance - held + overdraft_limit")
    overdraft_limit: Decimals
    as_of: AsOfShown | None = Field(default=None, description="Only when a replica answered.")


class AccountsShown(Shown):
    """All accounts of a branch."""

    model_config = example(accounts=[_ACCOUNT])

    accounts: list[AccountShown]


class AccountsPageShown(AccountsShown):
    """A page of accounts."""

    model_config = example(accounts=[_ACCOUNT], cursor=None)

    cursor: str | None = Field(description="Of the next page; null after the last.")


class BankAccountsShown(AccountsPageShown):
    """A page of accounts of all branches. It may be short and not the last."""

    model_config = example(accounts=[_ACCOUNT], cursor=None, missing=[])

    missing: list[ActorDownShown] = Field(description="Branches that did not answer: their accounts are left out.")


_ENTRY = {
    "id": "01a206e4-6535-7290-a6cf-c388bb3b8b1c",
    "at": "2026-11-27T02:00:00.000Z",
    "effective_on": None,
    "amount": "-50.00",
    "balance": "9950.00",
    "currency": "INR",
    "memo": "rent June",
    "counterparties": ["Delhi/1002"],
}


class EntryShown(Shown):
    """One line of a statement."""

    model_config = example(**_ENTRY)

    id: IdText
    at: Time
    effective_on: str | None
    amount: Decimals = Field(description="Signed: + credits, - debits.")
    balance: Decimals = Field(description="After this entry.")
    currency: str
    memo: str
    counterparties: list[str] = Field(description="The other accounts of the transfer.")


class EntriesShown(Shown):
    """A page of a statement."""

    model_config = example(account=_ACCOUNT, entries=[_ENTRY], cursor=_CURSOR)

    account: AccountShown
    entries: list[EntryShown]
    cursor: str | None = Field(description="Of the next page; null after the last.")


class BalanceShown(Shown):
    """A balance at some time."""

    model_config = example(account="Mumbai/1001", currency="INR", balance="10000.00", at="2026-01-31T00:00:00.000Z")

    account: str
    currency: str
    balance: Decimals
    at: Time | None = Field(description="Null: now.")
    as_of: AsOfShown | None = Field(default=None, description="Only when a replica answered.")


class LegShown(Shown):
    """One account's share."""

    account: str
    amount: Decimals = Field(description="Signed: + credits, - debits.")


class RefusalShown(Shown):
    """Why the bank said no."""

    code: str = Field(examples=["insufficient_funds"])
    detail: str


class ParticipantShown(Shown):
    """One branch's part in a transfer."""

    branch: str
    state: Literal["prepared", "committed", "aborted", "in_doubt"]
    vote: str | None
    prepare_ms: float | None
    apply_ms: float | None


class PhaseShown(Shown):
    """One bar of the timeline, in milliseconds since the request."""

    phase: str
    actor: str
    start_ms: float
    end_ms: float


LEGS = [{"account": "Mumbai/1001", "amount": "-50.00"}, {"account": "Delhi/1002", "amount": "50.00"}]
_TRANSFER = {
    "id": "01a206e4-6535-7290-a6cf-c388bb3b8b1c",
    "status": "committed",
    "from": "Mumbai/1001",
    "to": "Delhi/1002",
    "amount": "50.00",
    "currency": "INR",
    "legs": LEGS,
    "refusal": None,
    "reason": None,
    "participants": [],
    "timeline": [],
    "created_at": "2026-11-27T02:00:00.000Z",
}
_MORE = {
    "participants": [
        {"branch": "Delhi", "state": "committed", "vote": "yes", "prepare_ms": 1.943, "apply_ms": 1.468},
        {"branch": "Mumbai", "state": "committed", "vote": "yes", "prepare_ms": 2.276, "apply_ms": 1.92},
    ],
    "timeline": [
        {"phase": "prepare", "actor": "Delhi", "start_ms": 0.0, "end_ms": 1.943},
        {"phase": "prepare", "actor": "Mumbai", "start_ms": 0.0, "end_ms": 2.276},
        {"phase": "decide", "actor": "coordinator", "start_ms": 2.276, "end_ms": 2.703},
        {"phase": "apply", "actor": "Delhi", "start_ms": 2.703, "end_ms": 3.744},
        {"phase": "apply", "actor": "Mumbai", "start_ms": 2.703, "end_ms": 4.196},
    ],
    "memo": "rent June",
    "effective_on": None,
    "txn": "coordinator-1-7",
}


class TransferShown(Shown):
    """What became of a transfer."""

    model_config = example(**_TRANSFER)

    id: IdText
    status: Literal["committed", "aborted", "pending", "unknown"]
    source: str | None = Field(alias="from", description="Null unless there are two legs.")
    to: str | None
    amount: Decimals | None
    currency: str | None
    legs: list[LegShown]
    refusal: RefusalShown | None
    reason: str | None = Field(description="Why more is not known, and what to do.")
    participants: list[ParticipantShown]
    timeline: list[PhaseShown]
    created_at: Time | None
    positions: dict[str, int] | None = Field(
        default=None, description="In the answer to a write, by branch, as far as known: `position` for reading at replicas."
    )


class TransferDetailShown(TransferShown):
    """All that is known of a transfer."""

    model_config = example(**{**_TRANSFER, **_MORE})

    memo: str
    effective_on: str | None
    txn: str | None = Field(description="The two-phase commit that settled it or is at work.")


class TransfersShown(Shown):
    """A page of transfers, newest first. It may be short and not the last."""

    model_config = example(transfers=[{**_TRANSFER, **_MORE, "participants": [], "timeline": []}], cursor=_CURSOR, missing=[])

    transfers: list[TransferDetailShown]
    cursor: str | None = Field(description="Of the next page; null after the last.")
    missing: list[ActorDownShown] = Field(description="Branches that did not answer: their part stands in a later page.")


class BulkLineShown(Shown):
    """What became of one line."""

    model_config = example(line=1, status=201, replayed=False, transfer=_TRANSFER, problem=None)

    line: int = Field(description="1, 2, 3, …")
    status: int = Field(description="As the HTTP status of a single transfer.")
    replayed: bool = Field(description="An earlier request with this key had done it already.")
    transfer: TransferShown | None
    problem: ProblemShown | None


class HealthShown(Shown):
    """Whether the bridge, or the bank behind it, can be used."""

    model_config = example(status="ok", down={})

    status: Literal["ok", "not_ready"]
    down: dict[str, str] = Field(description="By actor, why it cannot be used.")
