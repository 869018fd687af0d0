"""Before and after a drill: who is there, what money is there, and whether the books are exact."""

from __future__ import annotations

import time
from collections.abc import Callable

from msgspec import Struct

from zbank import Client
from zbank.apps.drills.control import DrillFault
from zbank.apps.drills.script import COORDINATOR, LOCAL, OTHER_CONTENT, SECOND, Drill
from zbank.config import parse_endpoint
from zbank.domain.legs import Leg
from zbank.domain.money import Currency, currency, format_amount
from zbank.errors import ZbankError
from zbank.ids import new_id
from zbank.protocol.messages import BranchInfo, StatusInfo, Transfer

USUAL_WHOLE = 10  #: of the transfer, in whole units of the currency
LOCAL_WHOLE = 1
PAYER, RECEIVER = "1001", "1002"
REST_LIMIT_S = 30.0
ASK_EVERY_S = 0.1


class Line(Struct, frozen=True):
    """One account before and after."""

    account: str
    before: str
    after: str
    should_be: str


class Accounts(Struct, frozen=True):
    """What the final check found."""

    currency: str
    lines: tuple[Line, ...]
    clearing: tuple[tuple[str, str], ...]  #: balance of `clearing` by branch
    clearing_sum: str  #: of all branches of this currency: the money on its way
    in_flight: int
    in_doubt: int
    zero: str  #: how no money at all is written

    @property
    def on_its_way(self) -> bool:
        """Some money has left a branch and not arrived at another."""
        return self.clearing_sum != self.zero

    @property
    def exact(self) -> bool:
        """Everything is as it must be, to the last minor unit."""
        right = all(line.after == line.should_be for line in self.lines)
        return right and not self.on_its_way and not self.in_flight and not self.in_doubt


class Scene:
    """The two branches and the accounts that a drill plays with, and the transfers of the play."""

    def __init__(self, bank: Client, drill: Drill) -> None:
        """Raises DrillFault when the bank has not what a drill needs, or not the money."""
        self._bank = bank
        self._drill = drill
        self.home, self.other = _two_branches(bank)
        self.money: Currency = currency(self.home.currency)
        self.names = {COORDINATOR: COORDINATOR, "home": self.home.name, "other": self.other.name}
        self.payer, self.payee = f"{self.home.name}/{PAYER}", f"{self.other.name}/{drill.payee}"
        self.usual_minor = USUAL_WHOLE * 10**self.money.exponent
        self._watched = [self.payer, f"{self.other.name}/{PAYER}", f"{self.other.name}/{RECEIVER}"]
        self._before = {account: self._balance(account) for account in self._watched}
        self._local_minor = LOCAL_WHOLE * 10**self.money.exponent
        self.amount_minor = self.usual_minor
        if drill.too_much:
            self.amount_minor += bank.account(self.payer).available_minor
        else:
            self._check_money(self.payer, max(drill.moved, 1) * self.usual_minor)
        self._check_money(f"{self.other.name}/{RECEIVER}", drill.moved_locally * self._local_minor)
        self._ids = {what: new_id() for what in ("first", SECOND, LOCAL)}

    def _check_money(self, account: str, needed_minor: int) -> None:
        available_minor = self._bank.account(account).available_minor
        if available_minor < needed_minor:
            raise DrillFault(
                f"{account} has {self.text(available_minor)} {self.money.code} left, this drill needs "
                f"{self.text(needed_minor)}: pay some in with: zbank deposit {account} 1000"
            )

    def text(self, minor: int) -> str:
        """Decimal text."""
        return format_amount(minor, self.money)

    def id_of(self, what: str) -> bytes:
        """The id of a transfer of the play; another content has the first one's."""
        return self._ids.get(what, self._ids["first"])

    def endpoint_of(self, what: str, coordinator: str) -> str:
        """Whom to ask: a branch for what is local to it."""
        return self.other.endpoint if what == LOCAL else coordinator

    def transfer(self, what: str) -> Transfer:
        """A transfer of the play; the same each time."""
        memo = f"drill {self._drill.name}"
        if what == LOCAL:
            minor = self._local_minor
            sides = (Leg(self.other.name, RECEIVER, -minor), Leg(self.other.name, PAYER, minor))
        else:
            minor = {SECOND: self.usual_minor, OTHER_CONTENT: 2 * self.amount_minor}.get(what, self.amount_minor)
            sides = (Leg(self.home.name, PAYER, -minor), Leg(self.other.name, self._drill.payee, minor))
        return Transfer(self.id_of(what), sides, self.money.code, memo)

    def _balance(self, account: str) -> int:
        return self._bank.account(account).balance_minor

    def wait_for_rest(self, turn: Callable[[], object]) -> None:
        """Until no actor has anything in flight; `turn` is called meanwhile. Goes on after the limit: the books will tell."""
        end_s = time.monotonic() + REST_LIMIT_S
        while time.monotonic() < end_s:
            actors = [actor for actor in self._bank.status() if isinstance(actor, StatusInfo)]
            if len(actors) >= len(self.names) and not any(actor.in_flight for actor in actors):
                return
            turn()
            time.sleep(ASK_EVERY_S)

    def accounts(self) -> Accounts:
        """The books now, and what they should be."""
        drill = self._drill
        moved_minor = drill.moved * self.usual_minor
        local_minor = drill.moved_locally * self._local_minor
        changes = dict(zip(self._watched, (-moved_minor, local_minor, moved_minor - local_minor), strict=True))
        lines = tuple(
            Line(
                account,
                self.text(before),
                self.text(self._balance(account)),
                self.text(before + changes[account]),
            )
            for account, before in self._before.items()
        )
        actors = [actor for actor in self._bank.status() if isinstance(actor, StatusInfo)]
        same_money = {info.name for info in self._bank.branches() if info.currency == self.money.code}
        clearing = {actor.name: actor.clearing_minor for actor in actors if actor.name in same_money}
        return Accounts(
            self.money.code,
            lines,
            tuple((name, self.text(minor)) for name, minor in sorted(clearing.items())),
            self.text(sum(clearing.values())),
            sum(actor.in_flight for actor in actors),
            sum(len(actor.in_doubt) for actor in actors),
            self.text(0),
        )

    def outcome(self) -> str:
        """What the bank says of the transfer that the drill is about."""
        return self._bank.show(self.id_of("first")).status


def _two_branches(bank: Client) -> tuple[BranchInfo, BranchInfo]:
    """The first two branches, by address, that are there, have the accounts and one currency."""
    found: list[BranchInfo] = []
    for info in sorted(bank.branches(), key=lambda info: parse_endpoint(info.endpoint)):
        if info.up and (not found or found[0].currency == info.currency) and _has_accounts(bank, info.name):
            found.append(info)
        if len(found) == 2:
            return found[0], found[1]
    raise DrillFault(
        f"a drill needs two branches of one currency with the accounts {PAYER} and {RECEIVER} that are connected: "
        "the demo cluster has them (see: zbank status, zbank accounts)"
    )


def _has_accounts(bank: Client, branch: str) -> bool:
    try:
        return all(bank.account(f"{branch}/{number}").status == "open" for number in (PAYER, RECEIVER))
    except ZbankError:
        return False
