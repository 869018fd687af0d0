"""Who may do what over REST: one table of roles, and whose accounts a customer may touch."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from zbank.domain.legs import SUSPENSE, SYSTEM_NUMBERS
from zbank.protocol.messages import AUDITOR, OPERATOR, TELLER
from zbank.protocol.tokens import CUSTOMER

# What can be done.
SEE = "see"  # accounts, entries, transfers, events: a customer's own
SEE_BANK = "see_bank"  # what is no single customer's: lists of all, the cluster, what is in doubt
PAY = "pay"  # transfers: a customer's from the own accounts
CASH = "cash"  # deposits and withdrawals
KEEP = "keep"  # open and change accounts
WATCH = "watch"  # metrics
INQUIRE = "inquire"  # make a branch ask about what it is in doubt of
PROMOTE = "promote"  # let a replica take its branch's place, where the bridge itself may ask for that
DRILL = "drill"  # play a drill, where the bank was started for it

ALL = frozenset({SEE, SEE_BANK, PAY, CASH, KEEP, WATCH, INQUIRE, PROMOTE, DRILL})

MAY: dict[str, frozenset[str]] = {
    CUSTOMER: frozenset({SEE, PAY}),
    TELLER: frozenset({SEE, SEE_BANK, PAY, CASH, KEEP}),
    AUDITOR: frozenset({SEE, SEE_BANK, WATCH}),
    OPERATOR: ALL,
}


@dataclass(frozen=True, slots=True)
class Principal:
    """Who asks."""

    caller: str  #: in whose name ids are used; "" = nobody in particular, where no tokens are demanded
    role: str
    accounts: frozenset[str] = frozenset()  #: a customer's own
    token_id: str = ""

    def may(self, act: str) -> bool:
        """Is this among what the role may do?"""
        return act in MAY[self.role]

    @property
    def is_customer(self) -> bool:
        """Sees and debits only the own accounts."""
        return self.role == CUSTOMER

    def owns(self, account: str) -> bool:
        """May this account be seen?"""
        return not self.is_customer or account in self.accounts

    def owns_any(self, accounts: Iterable[str]) -> bool:
        """May a transfer between these accounts be seen?"""
        return not self.is_customer or not self.accounts.isdisjoint(accounts)

    def why_not_pay(self, legs: Iterable[tuple[str, bool]]) -> str:
        """Why this one may not move money so: legs as (account, is debited). "" = it may."""
        if not self.is_customer:
            suspended = next((name for name, _ in legs if name.endswith(f"/{SUSPENSE}")), "")
            return f"{suspended} is settled by an operator" if suspended and self.role != OPERATOR else ""
        for account, is_debited in legs:
            if is_debited and account not in self.accounts:
                return f"{account} is not an account of yours: you can pay from your own only"
            if account.rpartition("/")[2] in SYSTEM_NUMBERS:
                return f"{account} is the bank's own: ask a teller"
        return ""


ANYBODY = Principal("", OPERATOR)  #: where no tokens are demanded: the demo on this machine
