"""Accounts: names, status, and the numbers one account carries."""

from __future__ import annotations

import re

from msgspec import Struct

from zbank.domain.legs import BRANCH_PATTERN, MAX_NAME_CHARS, MAX_NUMBER_CHARS, NUMBER_PATTERN, SYSTEM_NUMBERS
from zbank.errors import InvalidInput

OPEN = "open"
FROZEN = "frozen"  # neither debits nor credits
CLOSED = "closed"  # for good
STATUSES = (OPEN, FROZEN, CLOSED)

_BRANCH = re.compile(BRANCH_PATTERN)
_NUMBER = re.compile(NUMBER_PATTERN)


class Account(Struct, gc=False):
    """One account as the fold of the journal so far. Amounts in minor units of `currency`."""

    number: str
    owner: str
    currency: str
    status: str
    overdraft_limit_minor: int  #: how far below zero the balance may go, ≥ 0; a system account ignores it
    balance_minor: int
    held_minor: int  #: set aside by prepared debits (and customers' holds), ≥ 0
    incoming_minor: int  #: promised by prepared credits, ≥ 0; counts for overflow only
    opened_at_us: int

    @property
    def is_system(self) -> bool:
        """`cash`, `clearing` or `suspense`: counter sides, of any balance."""
        return self.number in SYSTEM_NUMBERS

    @property
    def available_minor(self) -> int:
        """What may be debited now: balance - held + overdraft limit."""
        return self.balance_minor - self.held_minor + self.overdraft_limit_minor


def check_branch_name(name: str) -> str:
    """The name itself; raises InvalidInput unless it is a letter and then letters, digits, `_` or `-`, 32 at most."""
    if not _BRANCH.fullmatch(name):
        raise InvalidInput(
            f"{name!r} is no branch name: it is a letter, then letters, digits, '_' or '-', {MAX_NAME_CHARS} at most"
        )
    return name


def check_account_number(number: str) -> str:
    """The number itself; raises InvalidInput unless it is letters, digits, `.`, `_` or `-`, 34 at most."""
    if not _NUMBER.fullmatch(number):
        raise InvalidInput(
            f"{number!r} is no account number: it is letters, digits, '.', '_' or '-', {MAX_NUMBER_CHARS} at most, "
            "and begins with a letter or digit"
        )
    return number


def parse_account(text: str) -> tuple[str, str]:
    """(branch, number) of `Branch/number`; raises InvalidInput when it is not of that form."""
    branch, slash, number = text.partition("/")
    if not slash:
        raise InvalidInput(f"{text!r} is no account: write Branch/number, as in Mumbai/1001")
    return check_branch_name(branch), check_account_number(number)
