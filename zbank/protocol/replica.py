"""A replica of a branch: answers questions as of where it stands, and can take the branch's place (PROTOCOL R1, R2)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

from zbank.clock import Now
from zbank.domain.account import Account
from zbank.protocol import accounts, needs
from zbank.protocol.branch_state import BranchState
from zbank.protocol.branch_status import branch_status
from zbank.protocol.fold import Settled
from zbank.protocol.following import Follower, TakesOver
from zbank.protocol.machine import About, Effect, Sender, Step, Wanted
from zbank.protocol.messages import BRANCH, REPLICA, AckedBy, AnyMessage, GetAccount, Lead, StatusInfo, Txn
from zbank.protocol.records import Record


class BranchReplica(Follower[BranchState]):
    """The state machine of a branch's replica."""

    of_role: ClassVar[str] = BRANCH

    def _word(self) -> AckedBy | None:
        return self.state.acks

    def want(self, message: AnyMessage, wanted: Wanted) -> None:
        """Add the account that is asked for."""
        if isinstance(message, GetAccount):
            needs.want(self.state, message, wanted)

    def load(self, settled: Iterable[Settled], tombstones: Iterable[Txn], accounts: Iterable[Account]) -> None:
        """Take in the accounts that rows change, or that are asked for."""
        for account in accounts:
            self.state.book.accounts.setdefault(account.number, account)

    def touches(self, record: Record) -> Iterable[str]:
        """The accounts that `apply` of this record changes."""
        return needs.touched(self.state, record)

    def decide(self, sender: Sender, n: int, message: AnyMessage, now: Now) -> Step:
        """What follows from a message."""
        if isinstance(message, GetAccount):
            return Step(None, (Effect(sender.address, n, accounts.get_account(self.state, message)),))
        if isinstance(message, Lead):  # an operator wants it to be the branch (R2): it takes no row from here on
            raise TakesOver(message.epoch, message.by, f"{self._name} takes the place of branch {self.state.name}")
        return super().decide(sender, n, message, now)

    def status(self, about: About, now: Now) -> StatusInfo:
        """How this replica does."""
        return branch_status(self.state, about, REPLICA, self._name, self.alarms.values())
