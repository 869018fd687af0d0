"""Legs: who gives and who gets in one transfer; what must hold of them by content alone.

Nothing here knows any balance. A list of legs that fails `check_legs` is malformed for everybody and for ever, so it is
never an outcome and is not recorded.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from datetime import date
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from zbank.errors import InvalidAmount, InvalidInput

MAX_MINOR = 2**63 - 1  #: the largest amount and the largest balance, in minor units (signed 64 bits)
MAX_LEGS = 256
MAX_NAME_CHARS = 32
MAX_NUMBER_CHARS = 34  #: an IBAN fits
MAX_MEMO_CHARS = 140
DIGEST_BYTES = 16

CASH = "cash"
CLEARING = "clearing"
SUSPENSE = "suspense"
SYSTEM_NUMBERS = frozenset({CASH, CLEARING, SUSPENSE})

_encode = msgspec.msgpack.Encoder().encode  # every part length-delimited, one form only: fit to be hashed

# What a name may be is declared here alone: on the wire, in the config and on the command line.
BRANCH_PATTERN = rf"\A[A-Za-z][A-Za-z0-9_-]{{0,{MAX_NAME_CHARS - 1}}}\Z"
NUMBER_PATTERN = rf"\A[A-Za-z0-9][A-Za-z0-9._-]{{0,{MAX_NUMBER_CHARS - 1}}}\Z"

BranchName = Annotated[str, Meta(pattern=BRANCH_PATTERN)]
AccountNumber = Annotated[str, Meta(pattern=NUMBER_PATTERN)]
AccountNumberOrNone = Annotated[str, Meta(pattern=rf"\A\Z|{NUMBER_PATTERN}")]
Amount = Annotated[int, Meta(ge=-MAX_MINOR, le=MAX_MINOR)]


class Leg(Struct, array_like=True, frozen=True, gc=False, forbid_unknown_fields=True):
    """One account's share of a transfer."""

    # Only lengths are checked here: a name against the pattern is nobody's, and two patterns a leg would cost 1 µs.
    branch: Annotated[str, Meta(min_length=1, max_length=MAX_NAME_CHARS)]
    number: Annotated[str, Meta(min_length=1, max_length=MAX_NUMBER_CHARS)]  #: the account's number within its branch
    amount_minor: Amount  #: signed: + credits the account, - debits it; never 0

    @property
    def account(self) -> str:
        """`Branch/number`."""
        return f"{self.branch}/{self.number}"


def check_legs(legs: Sequence[Leg]) -> None:
    """Raise InvalidInput (or InvalidAmount) unless the legs can be a transfer.

    That is: 2..MAX_LEGS of them, no zero amount, more than one account, sum zero, none on the bank's own `clearing`, and one on
    `suspense` only in a transfer within that branch (by which an operator sets right what accounts could not bear).
    """
    if not 2 <= len(legs) <= MAX_LEGS:
        raise InvalidInput(f"a transfer has 2 to {MAX_LEGS} legs, this one has {len(legs)}")
    total = 0
    first = legs[0]
    one_account = True
    for leg in legs:
        amount = leg.amount_minor
        if amount == 0:
            raise InvalidAmount(f"the amount of a leg is not zero, the one on {leg.account} is")
        if leg.number == CLEARING:
            raise InvalidInput(f"{leg.account} is the bank's own: only the bank itself posts to it")
        if leg.number == SUSPENSE and any(other.branch != leg.branch for other in legs):
            raise InvalidInput(f"{leg.account} is the bank's own: it is settled within branch {leg.branch} only")
        if leg.number != first.number or leg.branch != first.branch:
            one_account = False
        total += amount
    if one_account:
        raise InvalidInput(f"both sides of the transfer are {first.account}: give two different accounts")
    if total != 0:
        raise InvalidAmount(f"the legs of a transfer sum to zero, these sum to {total} minor units")


def check_date(text: str) -> None:
    """Raise InvalidInput unless this is a day as YYYY-MM-DD, or ""."""
    if not text:
        return
    try:
        valid = date.fromisoformat(text).isoformat() == text
    except ValueError:
        valid = False
    if not valid:
        raise InvalidInput(f"{text!r} is no day: write it as 2026-01-31")


def branches_of(legs: Iterable[Leg]) -> tuple[str, ...]:
    """The branches that take part, each once, sorted."""
    return tuple(sorted({leg.branch for leg in legs}))


def home_branch(legs: Iterable[Leg]) -> str:
    """The branch that arbitrates the transfer's id: that of its first debit leg, legs sorted by account (PROTOCOL P2).

    The legs must have passed `check_legs` (so there is a debit).
    """
    return min((leg.branch, leg.number) for leg in legs if leg.amount_minor < 0)[0]


def content_digest(legs: Iterable[Leg], currency: str, memo: str, effective_on: str) -> bytes:
    """SHA-256, cut to 16 bytes, of what a transfer says, whatever the order of its legs (PROTOCOL T6, P7)."""
    sides = sorted((leg.branch, leg.number, leg.amount_minor) for leg in legs)
    return hashlib.sha256(_encode((currency, memo, effective_on, sides))).digest()[:DIGEST_BYTES]
