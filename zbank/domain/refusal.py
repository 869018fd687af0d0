"""Refusals: the business "no", as values with stable codes.

A refusal is an outcome: once told for an id it never changes (PROTOCOL P6). What is *not* an outcome (busy, a branch
that is away, a malformed request) is a fault and stands in `zbank.errors`.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

MAX_DETAIL_CHARS = 500  #: longer than any sentence of ours

ACCOUNT_NOT_FOUND = "account_not_found"
ACCOUNT_EXISTS = "account_exists"
ACCOUNT_FROZEN = "account_frozen"
ACCOUNT_CLOSED = "account_closed"
ACCOUNT_NOT_EMPTY = "account_not_empty"
SYSTEM_ACCOUNT = "system_account"
CURRENCY_MISMATCH = "currency_mismatch"
INSUFFICIENT_FUNDS = "insufficient_funds"
LIMIT_EXCEEDED = "limit_exceeded"
CANCELLED = "cancelled"
BRANCH_NOT_EMPTY = "branch_not_empty"
BRANCH_RETIRED = "branch_retired"

CODES = frozenset(
    {
        ACCOUNT_NOT_FOUND,
        ACCOUNT_EXISTS,
        ACCOUNT_FROZEN,
        ACCOUNT_CLOSED,
        ACCOUNT_NOT_EMPTY,
        SYSTEM_ACCOUNT,
        CURRENCY_MISMATCH,
        INSUFFICIENT_FUNDS,
        LIMIT_EXCEEDED,
        CANCELLED,
        BRANCH_NOT_EMPTY,
        BRANCH_RETIRED,
    }
)


class Refusal(Struct, array_like=True, frozen=True, gc=False, forbid_unknown_fields=True):
    """Why a request was refused."""

    code: Annotated[str, Meta(min_length=1, max_length=64)]  #: one of CODES; stable, for programs
    detail: Annotated[str, Meta(max_length=MAX_DETAIL_CHARS)]  #: one plain sentence, for people
