"""What the REST bridge takes behind the `?` of an address, checked by these models and described by them."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, StringConstraints, WithJsonSchema

from zbank.apps.api.given import KEY_PATTERN, AccountName, Branch, Given
from zbank.protocol.messages import MAX_SEARCH_CHARS

_TIME = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}([Tt ][0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]+)?([Zz]|[+-][0-9]{2}:[0-9]{2}))?", re.ASCII
)
_NUMBER = re.compile(r"-?[0-9]+(\.[0-9]+)?([Ee][+-]?[0-9]+)?", re.ASCII)  # of JSON
MAX_NUMBER_CHARS = 40
MAX_ROW = 10**18 - 1
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

Search = Annotated[
    str,
    StringConstraints(max_length=MAX_SEARCH_CHARS),
    Field(description="Only owners with this text in them and numbers that begin with it, whatever the case."),
]
Status = Literal["open", "frozen", "closed"] | None


def _seconds(value: object) -> object:
    if isinstance(value, str) and (len(value) > MAX_NUMBER_CHARS or _NUMBER.fullmatch(value) is None):
        raise ValueError("write seconds, as in 2.5")
    return float(value) if isinstance(value, str) else value


def _row(value: object) -> object:
    if isinstance(value, str) and not (value.isascii() and value.isdigit() and len(value) <= len(str(MAX_ROW))):
        raise ValueError("write the number of a row")
    return int(value) if isinstance(value, str) else value


class NearQuery(Given):
    """Whether a replica may answer, and how old its answer may be."""

    max_staleness_s: Annotated[
        float | None,
        BeforeValidator(_seconds),
        Field(ge=0, le=86_400),
        WithJsonSchema({"type": "number", "minimum": 0, "maximum": 86_400}),
    ] = Field(
        default=None,
        description="A replica may answer, if it shows everything that was there so many seconds ago; else the branch does.",
    )
    position: Annotated[
        int | None,
        BeforeValidator(_row),
        Field(ge=0, le=MAX_ROW),
        WithJsonSchema({"type": "integer", "minimum": 0, "maximum": MAX_ROW}),
    ] = Field(
        default=None,
        description="A replica may answer, once it has this row of the branch's journal: as in `positions` of a transfer.",
    )


class PageQuery(Given):
    """A page of a list."""

    limit: PageLimit = 50
    cursor: Cursor = ""


class AccountsQuery(PageQuery, NearQuery):
    """A page of accounts."""

    search: Search = ""
    status: Status = None


class BankAccountsQuery(PageQuery):
    """A page of the accounts of all branches."""

    search: Search = ""
    status: Status = None
    branch: Branch | None = None


class EntriesQuery(PageQuery, NearQuery):
    """A page of entries, of a span of time."""

    start: Moment | None = Field(default=None, alias="from", description="Entries posted at this time or later.")
    end: Moment | None = Field(default=None, alias="to", description="And before this one.")
    order: Literal["newest", "oldest"] = "newest"


class BalanceQuery(NearQuery):
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
