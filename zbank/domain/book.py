"""The book of one branch: which movements its accounts can bear, and what they do to the accounts.

All that changes an account's money is in this file. Every posting sums to zero, so the book does at every moment: a leg
whose other side is at another branch is posted against `clearing` (DESIGN §2).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

from zbank.domain.account import CLOSED, FROZEN, Account
from zbank.domain.legs import CLEARING, MAX_MINOR, Leg
from zbank.domain.money import currency, format_amount
from zbank.domain.refusal import (
    ACCOUNT_CLOSED,
    ACCOUNT_FROZEN,
    ACCOUNT_NOT_EMPTY,
    ACCOUNT_NOT_FOUND,
    CURRENCY_MISMATCH,
    INSUFFICIENT_FUNDS,
    LIMIT_EXCEEDED,
    SYSTEM_ACCOUNT,
    Refusal,
)

Movement = tuple[str, int]  #: (account number, signed amount in minor units)
Entry = tuple[str, int, int]  #: (account number, signed amount, balance after it), minor units


def branch_movements(legs: Iterable[Leg], branch: str) -> list[Movement]:
    """The legs of one branch in their order, and the clearing movement that makes them sum to zero, if they do not."""
    movements = [(leg.number, leg.amount_minor) for leg in legs if leg.branch == branch]
    total = 0
    for _, amount_minor in movements:
        total += amount_minor
    if total:
        movements.append((CLEARING, -total))
    return movements


def net(movements: Iterable[Movement]) -> dict[str, int]:
    """Signed net amount by account; several movements on one account count as their sum."""
    amounts: dict[str, int] = {}
    for number, amount_minor in movements:
        amounts[number] = amounts.get(number, 0) + amount_minor
    return amounts


class Book:
    """The accounts of a branch that are in memory. Whoever asks has loaded the accounts the question is about."""

    def __init__(self, branch: str, currency_code: str) -> None:
        self.branch = branch
        self.currency_code = currency_code
        self.accounts: dict[str, Account] = {}

    def check(self, amounts: Mapping[str, int], currency_code: str) -> Refusal | None:
        """Why these net amounts (by account, minor units) cannot be posted or promised now; None when they can."""
        if currency_code != self.currency_code:
            detail = f"{self.branch} keeps accounts in {self.currency_code}, the request is in {currency_code}"
            return Refusal(CURRENCY_MISMATCH, detail)
        for number, amount_minor in amounts.items():
            account = self.accounts.get(number)
            if account is None:
                return self.not_found(number)
            if account.status != "open":
                return self._not_open(account)
            if amount_minor < 0:
                if account.held_minor - amount_minor > MAX_MINOR:
                    return self._too_large(number)
                if account.is_system:
                    if account.balance_minor - account.held_minor + amount_minor < -MAX_MINOR:
                        return self._too_large(number)
                elif account.available_minor + amount_minor < 0:
                    return self._insufficient(account, -amount_minor)
            elif max(account.balance_minor, 0) + account.incoming_minor + amount_minor > MAX_MINOR:
                return self._too_large(number)
        return None

    def can_bear(self, number: str, amount_minor: int, released_minor: int = 0) -> bool:
        """May this net amount be posted on an account that nobody asked before? A freeze holds back nothing decided.

        `released_minor`: a promise that is taken back with it."""
        account = self.accounts.get(number)
        if account is None or account.status == CLOSED:
            return False
        if amount_minor > 0:
            incoming_minor = account.incoming_minor - max(released_minor, 0)
            return max(account.balance_minor, 0) + incoming_minor + amount_minor <= MAX_MINOR
        return account.is_system or account.available_minor - min(released_minor, 0) + amount_minor >= 0

    def hold(self, amounts: Mapping[str, int]) -> None:
        """Promise net amounts that passed `check`: debits are held, credits counted (PROTOCOL P4)."""
        for number, amount_minor in amounts.items():
            account = self.accounts[number]
            if amount_minor < 0:
                account.held_minor -= amount_minor
            else:
                account.incoming_minor += amount_minor

    def release(self, amounts: Mapping[str, int]) -> None:
        """Take back a `hold` of the same amounts."""
        for number, amount_minor in amounts.items():
            account = self.accounts[number]
            if amount_minor < 0:
                account.held_minor += amount_minor
                assert account.held_minor >= 0, f"more released than held on {number}"
            else:
                account.incoming_minor -= amount_minor
                assert account.incoming_minor >= 0, f"more released than promised on {number}"

    def post(self, movements: Sequence[Movement]) -> list[Entry]:
        """Do movements that passed `check` (or were held and released); gives each with the balance after it.

        They are done in their order, but for one that would take a balance out of 63 bits on the way: it waits for the
        other movement of its account that makes room (`check` saw to it that there is one).
        """
        entries = []
        total = 0
        waiting = list(movements)
        for number, amount_minor in waiting:
            account = self.accounts[number]
            balance_minor = account.balance_minor + amount_minor
            if not -MAX_MINOR <= balance_minor <= MAX_MINOR:
                # Each pass over what waits does one movement at least.
                assert len(waiting) <= len(movements) ** 2, f"the balance of {number} would leave 63 bits"
                waiting.append((number, amount_minor))
                continue
            account.balance_minor = balance_minor
            total += amount_minor
            entries.append((number, amount_minor, balance_minor))
        assert total == 0, f"a posting of {total} minor units would unbalance {self.branch}"
        return entries

    def check_change(self, number: str, status: str, overdraft_limit_minor: int) -> Refusal | None:
        """Why an account cannot get this status and limit; None when it can."""
        account = self.accounts.get(number)
        if account is None:
            return self.not_found(number)
        name = f"{self.branch}/{number}"
        if account.is_system:
            return Refusal(SYSTEM_ACCOUNT, f"{name} is the bank's own and is never changed")
        if account.status == CLOSED:
            return self._not_open(account)
        if status == CLOSED and (account.balance_minor or account.held_minor or account.incoming_minor):
            return Refusal(ACCOUNT_NOT_EMPTY, f"{name} has money on it or promised: bring its balance to zero first")
        # Lowering below what is used or held would break the promise of a yes vote (PROTOCOL P4).
        if overdraft_limit_minor < account.overdraft_limit_minor and (
            account.balance_minor - account.held_minor + overdraft_limit_minor < 0
        ):
            return Refusal(LIMIT_EXCEEDED, f"{name} uses or holds more of its overdraft than the new limit allows")
        return None

    def not_found(self, number: str) -> Refusal:
        """The refusal for an account that the branch does not have."""
        return Refusal(ACCOUNT_NOT_FOUND, f"there is no account {self.branch}/{number}")

    def trim(self, capacity: int, pinned: Collection[str]) -> None:
        """Forget accounts that are not pinned when there are more than `capacity` in memory."""
        if len(self.accounts) > capacity:
            self.accounts = {number: self.accounts[number] for number in pinned if number in self.accounts}

    def _not_open(self, account: Account) -> Refusal:
        assert account.status in (FROZEN, CLOSED), account.status
        code = ACCOUNT_FROZEN if account.status == FROZEN else ACCOUNT_CLOSED
        return Refusal(code, f"{self.branch}/{account.number} is {account.status}")

    def _insufficient(self, account: Account, needed_minor: int) -> Refusal:
        unit = currency(self.currency_code)
        available = format_amount(account.available_minor, unit)
        needed = format_amount(needed_minor, unit)
        name = f"{self.branch}/{account.number}"
        return Refusal(INSUFFICIENT_FUNDS, f"{name} has {available} {unit.code} available, {needed} is needed")

    def _too_large(self, number: str) -> Refusal:
        return Refusal(LIMIT_EXCEEDED, f"the balance of {self.branch}/{number} would pass the largest possible amount")
