"""The books of a bank at rest, read from outside by the client: every account, every entry of every statement."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from zbank.domain.legs import CASH, CLEARING, SYSTEM_NUMBERS
from zbank.domain.money import currency, parse_signed_amount
from zbank.transport.views import AccountView, EntryView

if TYPE_CHECKING:
    from zbank import Client

PAGE_ENTRIES = 1000
OPENING_MEMO = "opening balance"  #: of the payments that fill the demo accounts


class Books:
    """What stands in the books, by transfer and by account, and what is wrong with them in themselves."""

    def __init__(self) -> None:
        self.posted: dict[str, dict[str, int]] = defaultdict(dict)  #: by id: what it moved on which customer's account
        self.customers: dict[str, int] = {}  #: balances in minor units, by account
        self.openings: set[str] = set()  #: ids of the payments by which the demo accounts got their money
        self._clearing: Counter[str] = Counter()  # by id
        self._totals: Counter[str] = Counter()  # by branch
        self._findings: list[str] = []

    def add(self, account: AccountView, entries: Iterable[EntryView]) -> None:
        """Take an account in with all its entries, oldest first."""
        name = account.account
        money = currency(account.currency)
        self._totals[account.branch] += account.balance_minor
        if account.held_minor:
            self._findings.append(f"{name} holds {account.held} at rest")
        balance_minor = 0
        for entry in entries:
            amount_minor = parse_signed_amount(entry.amount, money)
            balance_minor += amount_minor
            if parse_balance(entry.balance, account.currency) != balance_minor:
                self._findings.append(
                    f"{name}: the balance after {entry.id} is {entry.balance}, the entries say otherwise"
                )
            self._post(account, entry.id, amount_minor)
            if entry.memo == OPENING_MEMO:
                self.openings.add(entry.id)
        if balance_minor != account.balance_minor:
            self._findings.append(f"{name}: the balance is {account.balance}, the entries say otherwise")
        if account.number not in SYSTEM_NUMBERS:
            self.customers[name] = account.balance_minor
            if account.balance_minor < 0:
                self._findings.append(f"{name} has {account.balance}, and may not be overdrawn")

    def _post(self, account: AccountView, id: str, amount_minor: int) -> None:
        if account.number == CLEARING:
            self._clearing[id] += amount_minor
        elif account.number == CASH:
            pass  # the counter side of an opening, which is judged by the customer's side
        elif account.account in self.posted[id]:
            self._findings.append(f"{id} is posted twice to {account.account}")
            self.posted[id][account.account] += amount_minor
        else:
            self.posted[id][account.account] = amount_minor

    def findings(self) -> Iterator[str]:
        """What is wrong with the books in themselves."""
        yield from self._findings
        yield from (f"the books of {name} sum to {total} minor units" for name, total in self._totals.items() if total)
        yield from (
            f"{id}: clearing does not cancel, {left} minor units are left"
            for id, left in self._clearing.items()
            if left
        )


def parse_balance(text: str, code: str) -> int:
    """Minor units of a balance, which unlike an amount may be zero."""
    money = currency(code)
    return 0 if text.strip("0.") == "" else parse_signed_amount(text, money)


def read_books(client: Client) -> Books:
    """All accounts of all branches with all entries. Raises ZbankError when somebody does not answer."""
    books = Books()
    for account in client.accounts():
        books.add(account, entries_of(client, account.account))
    return books


def entries_of(client: Client, account: str) -> Iterator[EntryView]:
    """The whole statement of an account, oldest entry first, page by page."""
    cursor = ""
    while True:
        page = client.statement(account, newest_first=False, limit=PAGE_ENTRIES, cursor=cursor)
        yield from page.entries
        cursor = page.cursor
        if not cursor:
            return
