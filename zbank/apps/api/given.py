"""What the REST bridge takes: bodies and query parameters, checked by these models and described by them."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, WithJsonSchema

from zbank.domain.legs import MAX_LEGS, MAX_MEMO_CHARS, MAX_NAME_CHARS, MAX_NUMBER_CHARS
from zbank.domain.money import MAX_AMOUNT_CHARS
from zbank.ids import MAX_KEY_CHARS
from zbank.protocol.messages import MAX_SEARCH_CHARS

MAX_OWNER_CHARS = 100

BRANCH_PATTERN = rf"^[A-Za-z][A-Za-z0-9_-]{{0,{MAX_NAME_CHARS - 1}}}$"
NUMBER_PATTERN = rf"^[A-Za-z0-9][A-Za-z0-9._-]{{0,{MAX_NUMBER_CHARS - 1}}}$"
ACCOUNT_PATTERN = rf"{BRANCH_PATTERN[:-1]}/{NUMBER_PATTERN[1:]}"
KEY_PATTERN = rf"^[!-~]{{1,{MAX_KEY_CHARS}}}$"  #: of an Idempotency-Key
TXN_PATTERN = r"^[A-Za-z][A-Za-z0-9_-]{0,31}-[0-9]{1,18}-[0-9]{1,18}$"
DRILL_PATTERN = r"^[a-z]+(?:-[a-z]+)*$"
ID_PATTERN = r"^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$"
AMOUNT_PATTERN = r"^(0|[1-9][0-9]*)(\.[0-9]+)?$"
SIGNED_PATTERN = r"^-?(0|[1-9][0-9]*)(\.[0-9]+)?$"

_AMOUNT = re.compile(AMOUNT_PATTERN, re.ASCII)
_SIGNED = re.compile(SIGNED_PATTERN, re.ASCII)
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", re.ASCII)


def _checked_amount(value: object, pattern: re.Pattern[str], good: str) -> object:
    if isinstance(value, str):
        if len(value) > MAX_AMOUNT_CHARS or value.endswith("\n") or pattern.match(value) is None:
            raise ValueError(f"write digits with a point, as in {good}")
    elif isinstance(value, bool) or not isinstance(value, int | Decimal):
        raise ValueError(f"an amount is a decimal string or an exact number, as in {good}")
    return value


def _amount(value: object) -> object:
    if _limit(value) == 0 and not isinstance(value, str):
        raise ValueError("give an amount above zero")
    return value


def _limit(value: object) -> object:
    value = _checked_amount(value, _AMOUNT, '"50.00"')
    if isinstance(value, int | Decimal) and value < 0:
        raise ValueError("give an amount that is not negative")
    return value


def _signed_amount(value: object) -> object:
    return _checked_amount(value, _SIGNED, '"-50.00" or "50.00"')


def _day(value: object) -> object:
    if not isinstance(value, str) or _DATE.fullmatch(value) is None:
        raise ValueError("write a day as 2026-01-31")
    date.fromisoformat(value)
    return value


def _number_or_text(value: object) -> object:
    if isinstance(value, Decimal) and value == value.to_integral_value() and abs(value.adjusted()) <= MAX_NUMBER_CHARS:
        value = int(value)  # 1001.0 is an integer, by the word of JSON Schema
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _amount_schema(pattern: str, **number: Any) -> WithJsonSchema:
    return WithJsonSchema(
        {
            "anyOf": [
                {"type": "string", "pattern": pattern, "maxLength": MAX_AMOUNT_CHARS},
                {"type": "number", **number},
            ],
            "description": "A decimal string, or a number: it is taken exactly as it is written.",
            "examples": ["50.00"],
        }
    )


Branch = Annotated[str, StringConstraints(strict=True, pattern=BRANCH_PATTERN)]
Number = Annotated[str, StringConstraints(strict=True, pattern=NUMBER_PATTERN)]
AccountName = Annotated[
    str, StringConstraints(strict=True, pattern=ACCOUNT_PATTERN), Field(examples=["Mumbai/1001"], description="Branch/number")
]
NumberOrInt = Annotated[
    str,
    BeforeValidator(_number_or_text),
    StringConstraints(strict=True, pattern=NUMBER_PATTERN),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string", "pattern": NUMBER_PATTERN},
                {"type": "integer", "minimum": 0, "maximum": 10**MAX_NUMBER_CHARS - 1},
            ]
        }
    ),
]
Amount = Annotated[str | int | Decimal, BeforeValidator(_amount), _amount_schema(AMOUNT_PATTERN, exclusiveMinimum=0)]
SignedAmount = Annotated[str | int | Decimal, BeforeValidator(_signed_amount), _amount_schema(SIGNED_PATTERN)]
Limit = Annotated[str | int | Decimal, BeforeValidator(_limit), _amount_schema(AMOUNT_PATTERN, minimum=0)]
Memo = Annotated[str, StringConstraints(strict=True, max_length=MAX_MEMO_CHARS)]
Currency = Annotated[str, StringConstraints(strict=True, pattern=r"^[A-Z]{3}$"), Field(examples=["INR"])]
Day = Annotated[str, BeforeValidator(_day), WithJsonSchema({"type": "string", "format": "date", "examples": ["2026-01-31"]})]


class Given(BaseModel):
    """What a caller sends: exactly these fields."""

    model_config = ConfigDict(extra="forbid", frozen=True)


# --- the simple endpoints ---------------------------------------------------------------------------------------------


class AccountGiven(Given):
    """Which account."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"branch": "Mumbai", "account_no": "1001"}]})

    branch: Branch
    account_no: NumberOrInt


class CashGiven(AccountGiven):
    """How much goes in or out at which account."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"branch": "Mumbai", "account_no": "1001", "amount": "100.00"}]}
    )

    amount: Amount


class SimpleTransferGiven(Given):
    """How much goes from where to where."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "src_branch": "Mumbai",
                    "src_account_no": "1001",
                    "dest_branch": "Delhi",
                    "dest_account_no": "1002",
                    "amount": "50.00",
                }
            ]
        }
    )

    src_branch: Branch
    src_account_no: NumberOrInt
    dest_branch: Branch
    dest_account_no: NumberOrInt
    amount: Amount


# --- version 1 --------------------------------------------------------------------------------------------------------


class OpenGiven(Given):
    """A new account; without a number the branch gives the next free one."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"owner": "Asha Rao", "overdraft_limit": "500.00"}]})

    number: Number | None = None
    owner: Annotated[str, StringConstraints(strict=True, max_length=MAX_OWNER_CHARS)] = ""
    currency: Currency | None = None
    overdraft_limit: Limit = "0"


class ChangeGiven(Given):
    """What of an account is to change: give one or both."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"status": "frozen"}]})

    status: Literal["open", "frozen", "closed"] | None = None
    overdraft_limit: Limit | None = None


class MovementGiven(Given):
    """A deposit or a withdrawal."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"account": "Mumbai/1001", "amount": "100.00"}]})

    account: AccountName
    amount: Amount
    memo: Memo = ""
    currency: Currency | None = None
    effective_on: Day | None = None


class LegGiven(Given):
    """One account's share: + credits, - debits."""

    account: AccountName
    amount: SignedAmount


class PairGiven(Given):
    """From one account to another."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"from": "Mumbai/1001", "to": "Delhi/1002", "amount": "50.00", "memo": "rent June"}]
        }
    )

    source: AccountName = Field(alias="from")
    destination: AccountName = Field(alias="to")
    amount: Amount
    memo: Memo = ""
    currency: Currency | None = None
    effective_on: Day | None = None


class LegsGiven(Given):
    """Between many accounts at once; the amounts sum to zero."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "legs": [
                        {"account": "Mumbai/1001", "amount": "-30.00"},
                        {"account": "Delhi/1002", "amount": "20.00"},
                        {"account": "Pune/1001", "amount": "10.00"},
                    ],
                    "memo": "shared dinner",
                }
            ]
        }
    )

    legs: Annotated[list[LegGiven], Field(min_length=2, max_length=MAX_LEGS)]
    memo: Memo = ""
    currency: Currency | None = None
    effective_on: Day | None = None


# --- query parameters -------------------------------------------------------------------------------------------------

_TIME = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}([Tt ][0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]+)?([Zz]|[+-][0-9]{2}:[0-9]{2}))?", re.ASCII
)
MAX_CURSOR_CHARS = 8_000
MAX_PAGE = 1_000


def _moment(value: object) -> object:
    """Microseconds UTC of a date-time of RFC 3339, or of the beginning of a day."""
    if not isinstance(value, str) or _TIME.fullmatch(value) is None:
        raise ValueError("write a time as 2026-01-31T12:00:00Z, or a day as 2026-01-31")
    moment = datetime.fromisoformat(value.upper().replace("Z", "+00:00"))
    since = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)) - datetime(1970, 1, 1, tzinfo=UTC)
    return max(0, since // timedelta(microseconds=1))  # nothing was posted before


def _whole(value: object) -> object:
    if isinstance(value, str) and not (value.isascii() and value.isdigit() and len(value) <= 9):
        raise ValueError("write a whole number")
    return int(value) if isinstance(value, str) else value


Moment = Annotated[
    int,
    BeforeValidator(_moment),
    WithJsonSchema(
        {
            "anyOf": [{"type": "string", "format": "date-time"}, {"type": "string", "format": "date"}],
            "description": "RFC 3339; a day means its beginning, in UTC.",
        }
    ),
]
PageLimit = Annotated[
    int,
    Field(ge=1, le=MAX_PAGE),
    BeforeValidator(_whole),
    WithJsonSchema(
        {"type": "integer", "minimum": 1, "maximum": MAX_PAGE, "description": "Lines of the page, at the most."}
    ),
]
Cursor = Annotated[
    str,
    StringConstraints(pattern=r"^[A-Za-z0-9_-]*$", max_length=MAX_CURSOR_CHARS),
    Field(description="`cursor` of the page before; without it the first page."),
]


class PageQuery(Given):
    """A page of a list."""

    limit: PageLimit = 50
    cursor: Cursor = ""


class AccountsQuery(PageQuery):
    """A page of accounts."""

    search: Annotated[str, StringConstraints(max_length=MAX_SEARCH_CHARS)] = Field(
        default="", description="Only owners with this text in them and numbers that begin with it, whatever the case."
    )
    status: Literal["open", "frozen", "closed"] | None = None


class BankAccountsQuery(AccountsQuery):
    """A page of the accounts of all branches."""

    branch: Branch | None = None


class EntriesQuery(PageQuery):
    """A page of entries, of a span of time."""

    start: Moment | None = Field(default=None, alias="from", description="Entries posted at this time or later.")
    end: Moment | None = Field(default=None, alias="to", description="And before this one.")
    order: Literal["newest", "oldest"] = "newest"


class BalanceQuery(Given):
    """When."""

    at: Moment | None = Field(default=None, description="The balance after all that was posted until then; now without it.")


class KeyQuery(Given):
    """Which transfer."""

    key: Annotated[str, StringConstraints(pattern=KEY_PATTERN)] = Field(
        description="The Idempotency-Key that it was asked for with, by the same caller."
    )


class TransfersQuery(PageQuery):
    """A page of transfers."""

    account: AccountName | None = None
    branch: Branch | None = None
    status: Literal["committed", "aborted", "pending"] | None = Field(
        default=None, description="Without it all; of one account those that were committed."
    )
    start: Moment | None = Field(default=None, alias="from", description="Transfers that were settled at this time or later.")
    end: Moment | None = Field(default=None, alias="to", description="And before this one.")


class SimpleListQuery(Given):
    """Which branch."""

    branch: Branch


class PlayGiven(Given):
    """How to play a drill."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"step": True}]})

    step: bool = Field(default=False, description="Wait before each step until it is asked for.")


class ToldQuery(Given):
    """From where on to tell."""

    after: Annotated[
        int,
        Field(ge=0, le=100_000),
        BeforeValidator(_whole),
        WithJsonSchema({"type": "integer", "minimum": 0, "maximum": 100_000, "description": "`next` of the answer before."}),
    ] = 0


class EventsQuery(Given):
    """Which events."""

    kind: Literal["committed", "aborted", "begin", "vote", "decision", "applied", "released"] | None = None


class BulkGiven(Given):
    """One line of a bulk request: a transfer, and its own key if it has one."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"key": "salary-17", "from": "Mumbai/1001", "to": "Delhi/1002", "amount": "50.00"}]
        }
    )

    key: Annotated[str, StringConstraints(strict=True, pattern=KEY_PATTERN)] | None = Field(
        default=None, description="Without it: the request's Idempotency-Key, a slash, and the line's number."
    )
    source: AccountName = Field(alias="from")
    destination: AccountName = Field(alias="to")
    amount: Amount
    memo: Memo = ""
    currency: Currency | None = None
    effective_on: Day | None = None
