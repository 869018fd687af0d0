"""What the REST bridge takes in bodies, checked by these models and described by them."""

from __future__ import annotations

import re
from datetime import date
from decimal import Decimal
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, WithJsonSchema

from zbank.domain.legs import MAX_LEGS, MAX_MEMO_CHARS, MAX_NAME_CHARS, MAX_NUMBER_CHARS
from zbank.domain.money import MAX_AMOUNT_CHARS
from zbank.ids import MAX_KEY_CHARS

MAX_OWNER_CHARS = 100

BRANCH_PATTERN = rf"^[A-Za-z][A-Za-z0-9_-]{{0,{MAX_NAME_CHARS - 1}}}$"
NUMBER_PATTERN = rf"^[A-Za-z0-9][A-Za-z0-9._-]{{0,{MAX_NUMBER_CHARS - 1}}}$"
ACCOUNT_PATTERN = rf"{BRANCH_PATTERN[:-1]}/{NUMBER_PATTERN[1:]}"
KEY_PATTERN = rf"^[!-~]{{1,{MAX_KEY_CHARS}}}$"  #: of an Idempotency-Key
TXN_PATTERN = r"^[A-Za-z][A-Za-z0-9_-]{0,31}-[0-9]{1,18}-[0-9]{1,18}$"
REPLICA_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"
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


class PlayGiven(Given):
    """How to play a drill."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"step": True}]})

    step: bool = Field(default=False, description="Wait before each step until it is asked for.")


class PromotionGiven(Given):
    """Which replica's data takes the place of which branch, and the words that say that this is meant."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"branch": "Mumbai", "instance": "01a206e4-6535-7290-a6cf-c388bb3b8b1c", "confirm": "promote Mumbai"}
            ]
        }
    )

    branch: Branch
    instance: Annotated[
        str,
        StringConstraints(strict=True, pattern=ID_PATTERN),
        Field(description="Of the replica, as `GET /v1/replicas` tells it."),
    ]
    confirm: Annotated[
        str,
        StringConstraints(strict=True, max_length=100),
        Field(description="The words `promote` and the branch's name."),
    ]


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
