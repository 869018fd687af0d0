"""A second, simpler fold of a branch's journal, written apart from the first: what every branch is compared with."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import NamedTuple

from zbank.domain.legs import CASH, CLEARING, Leg
from zbank.protocol.messages import ABORTED, COMMITTED, Txn
from zbank.protocol.records import (
    Aborted,
    AccountChanged,
    AccountOpened,
    AnyRecord,
    Committed,
    CoordinatorSeen,
    Executed,
    Prepared,
    Refused,
)


class Promise(NamedTuple):
    """A prepared txn."""

    txn: Txn
    sides: dict[str, int]  #: by account: the net that commit will post


class Line:
    """An account, in minor units."""

    __slots__ = ("balance", "held", "incoming", "limit", "status")

    def __init__(self, limit: int) -> None:
        self.balance = self.held = self.incoming = 0
        self.limit = limit
        self.status = "open"


class Ledger:
    """One branch's books as its forced records have them."""

    def __init__(self, branch: str) -> None:
        self.branch = branch
        self.lines: dict[str, Line] = {}
        self.promises: dict[bytes, Promise] = {}
        self.outcomes: dict[bytes, str] = {}
        self.void: set[Txn] = set()
        self.posted: dict[bytes, dict[str, int]] = defaultdict(dict)  #: by transfer: what it posted to which account
        self.number = 0  #: the highest commit number applied (C1)
        self.terms: dict[str, tuple[int, int]] = {}  #: by coordinator: highest epoch and commit number seen (P11)
        self.touched: set[str] = set()  #: accounts changed since this was last cleared

    def enter(self, record: AnyRecord) -> None:
        """One more forced record. Raises AssertionError when it cannot follow those before."""
        match record:
            case AccountOpened():
                assert record.number not in self.lines, f"{record.number} is opened twice"
                self.lines[record.number] = Line(record.overdraft_limit_minor)
                self._settle(record.id, COMMITTED)
            case AccountChanged():
                line = self.lines[record.number]
                line.limit, line.status = record.overdraft_limit_minor, record.status
                self.touched.add(record.number)
                self._settle(record.id, COMMITTED)
            case Executed():
                self._post(record.id, self._sides(record.content.legs))
                self._settle(record.id, COMMITTED)
            case Refused():
                self._settle(record.id, ABORTED)
            case Prepared():
                self._prepare(record)
            case Committed():
                self._post(record.id, self._free(record.id, record.txn).sides)
                self._settle(record.id, COMMITTED)
                self.number = max(self.number, record.number)
                epoch, number = self.terms[record.txn.coordinator]
                self.terms[record.txn.coordinator] = epoch, max(number, record.number)
            case CoordinatorSeen():
                epoch, number = self.terms.get(record.name, (0, 0))
                self.terms[record.name] = max(epoch, record.epoch), number
            case Aborted():
                self.void.add(record.txn)
                promise = self.promises.get(record.id)
                if promise is not None and promise.txn == record.txn:
                    self._free(record.id, record.txn)
                if record.refusal is not None:
                    self._settle(record.id, ABORTED)

    def _prepare(self, record: Prepared) -> None:
        assert record.txn not in self.void, f"{record.txn} is void at {self.branch} and prepares"
        epoch, number = self.terms.get(record.txn.coordinator, (0, 0))
        assert record.txn.epoch >= epoch, f"{self.branch} has met epoch {epoch} and prepares {record.txn}"
        self.terms[record.txn.coordinator] = record.txn.epoch, number
        assert record.id not in self.promises, f"{record.id.hex()} is prepared twice at {self.branch}"
        assert record.id not in self.outcomes, f"{record.id.hex()} is settled at {self.branch} and prepares"
        self.promises[record.id] = Promise(record.txn, self._sides(record.content.legs))
        self._hold(record.id, 1)

    def _free(self, id: bytes, txn: Txn) -> Promise:
        assert id in self.promises, f"{self.branch} ends {txn}, which it has not prepared"
        self._hold(id, -1)
        promise = self.promises.pop(id)
        assert promise.txn == txn, f"{self.branch} ends {txn} of {id.hex()}, where {promise.txn} is prepared"
        return promise

    def _hold(self, id: bytes, sign: int) -> None:
        for number, amount in self.promises[id].sides.items():
            line = self.lines[number]
            if amount < 0:
                line.held -= sign * amount
            else:
                line.incoming += sign * amount
            self.touched.add(number)

    def _sides(self, legs: tuple[Leg, ...]) -> dict[str, int]:
        sides: dict[str, int] = defaultdict(int)
        for leg in legs:
            if leg.branch == self.branch:
                sides[leg.number] += leg.amount_minor
        rest = -sum(sides.values())
        if rest:
            sides[CLEARING] += rest
        return dict(sides)

    def _post(self, id: bytes, sides: dict[str, int]) -> None:
        assert id not in self.posted, f"{self.branch} executes {id.hex()} twice"
        assert sum(sides.values()) == 0, f"{id.hex()} unbalances {self.branch}"
        for number, amount in sides.items():
            self.lines[number].balance += amount
            self.touched.add(number)
        self.posted[id] = sides

    def _settle(self, id: bytes, outcome: str) -> None:
        if id:
            assert id not in self.outcomes, f"{self.branch} settles {id.hex()} a second time, as {outcome}"
            self.outcomes[id] = outcome

    def overdrawn(self) -> Iterator[str]:
        """Accounts touched lately that are below what they may be, promises counted."""
        for number in self.touched:
            line = self.lines[number]
            if number not in (CASH, CLEARING) and line.balance - line.held < -line.limit:
                yield f"{self.branch}/{number} has {line.balance}, {line.held} of it held, and a limit of {line.limit}"
