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
    BranchJoined,
    BranchLeft,
    Committed,
    CoordinatorSeen,
    Decided,
    Ended,
    Executed,
    Prepared,
    Refused,
    Retired,
)

Owner = tuple[bytes, str]  #: digest of the content and caller: what and whose an id is (T6)


class Promise(NamedTuple):
    """A prepared txn."""

    txn: Txn
    sides: dict[str, int]  #: by account: the net that commit will post
    owner: Owner


Shown = tuple[int, int, int, str]  #: balance, held, limit, status


class Line:
    """An account, in minor units."""

    __slots__ = ("balance", "held", "incoming", "limit", "status")

    def __init__(self, limit: int) -> None:
        self.balance = self.held = self.incoming = 0
        self.limit = limit
        self.status = "open"

    @property
    def shown(self) -> Shown:
        """What a customer sees of it."""
        return self.balance, self.held, self.limit, self.status


class Ledger:
    """One branch's books as its forced records have them."""

    def __init__(self, branch: str) -> None:
        self.branch = branch
        self.lines: dict[str, Line] = {}
        self.promises: dict[bytes, Promise] = {}
        self.outcomes: dict[bytes, str] = {}
        self.owners: dict[bytes, Owner] = {}  #: of all that is in `outcomes`
        self.callers: dict[bytes, set[str]] = defaultdict(set)  #: by id: in whose names it ever was in use here
        self.void: set[Txn] = set()
        self.is_retired = False
        self.posted: dict[bytes, dict[str, int]] = defaultdict(dict)  #: by transfer: what it posted to which account
        self.number = 0  #: the highest commit number applied (C1)
        self.terms: dict[str, tuple[int, int]] = {}  #: by coordinator: highest epoch and commit number seen (P11)
        self.touched: dict[str, set[Shown]] = defaultdict(
            set
        )  #: accounts changed in this turn, and what they showed in it

    def enter(self, record: AnyRecord) -> None:
        """One more forced record. Raises AssertionError when it cannot follow those before."""
        self._enter(record)
        for number, shown in self.touched.items():
            shown.add(self.lines[number].shown)

    def may_show(self, number: str) -> set[Shown]:
        """What the account may be shown as in this turn: as it is, or as it was between two of the turn's requests."""
        return self.touched.get(number, set()) | {self.lines[number].shown}

    def _touch(self, number: str) -> Line:
        line = self.lines[number]
        self.touched[number].add(line.shown)
        return line

    def _enter(self, record: AnyRecord) -> None:
        changes = AccountOpened | AccountChanged | Executed | Prepared | Committed
        assert not (self.is_retired and isinstance(record, changes)), f"{self.branch} is retired, and goes on: {record}"
        match record:
            case AccountOpened():
                assert record.number not in self.lines, f"{record.number} is opened twice"
                self.lines[record.number] = Line(record.overdraft_limit_minor)
                self._settle(record.id, COMMITTED, (record.digest, record.caller))
            case AccountChanged():
                line = self._touch(record.number)
                line.limit, line.status = record.overdraft_limit_minor, record.status
                self._settle(record.id, COMMITTED, (record.digest, record.caller))
            case Executed():
                self._post(record.id, self._sides(record.content.legs))
                self._settle(record.id, COMMITTED, (record.content.digest, record.content.caller))
            case Refused():
                self._settle(record.id, ABORTED, (record.digest, record.caller))
            case Prepared():
                self._prepare(record)
            case Committed():
                promise = self._free(record.id, record.txn)
                self._post(record.id, promise.sides)
                self._settle(record.id, COMMITTED, promise.owner)
                self.number = max(self.number, record.number)
                epoch, number = self.terms[record.txn.coordinator]
                self.terms[record.txn.coordinator] = epoch, max(number, record.number)
            case CoordinatorSeen():
                epoch, number = self.terms.get(record.name, (0, 0))
                self.terms[record.name] = max(epoch, record.epoch), number
            case Aborted():
                self.void.add(record.txn)
                held = self.promises.get(record.id)
                if held is not None and held.txn == record.txn:
                    self._free(record.id, record.txn)
                if record.refusal is not None:
                    self._settle(record.id, ABORTED, (record.digest, record.caller))
            case Retired():
                assert not self.promises, f"{self.branch} retires with promises"
                assert not any(line.balance for line in self.lines.values()), f"{self.branch} retires with money"
                self.is_retired = True

    def _prepare(self, record: Prepared) -> None:
        assert record.txn not in self.void, f"{record.txn} is void at {self.branch} and prepares"
        epoch, number = self.terms.get(record.txn.coordinator, (0, 0))
        assert record.txn.epoch >= epoch, f"{self.branch} has met epoch {epoch} and prepares {record.txn}"
        self.terms[record.txn.coordinator] = record.txn.epoch, number
        assert record.id not in self.promises, f"{record.id.hex()} is prepared twice at {self.branch}"
        assert record.id not in self.outcomes, f"{record.id.hex()} is settled at {self.branch} and prepares"
        content = record.content
        self.promises[record.id] = Promise(record.txn, self._sides(content.legs), (content.digest, content.caller))
        self.callers[record.id].add(content.caller)
        self._hold(record.id, 1)

    def _free(self, id: bytes, txn: Txn) -> Promise:
        assert id in self.promises, f"{self.branch} ends {txn}, which it has not prepared"
        self._hold(id, -1)
        promise = self.promises.pop(id)
        assert promise.txn == txn, f"{self.branch} ends {txn} of {id.hex()}, where {promise.txn} is prepared"
        return promise

    def _hold(self, id: bytes, sign: int) -> None:
        for number, amount in self.promises[id].sides.items():
            line = self._touch(number)
            if amount < 0:
                line.held -= sign * amount
            else:
                line.incoming += sign * amount

    def _sides(self, legs: tuple[Leg, ...]) -> dict[str, int]:
        assert sum(leg.amount_minor for leg in legs) == 0, f"{legs} do not sum to zero"
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
        for number, amount in sides.items():
            self._touch(number).balance += amount
        self.posted[id] = sides

    def _settle(self, id: bytes, outcome: str, owner: Owner) -> None:
        if id:
            assert id not in self.outcomes, f"{self.branch} settles {id.hex()} a second time, as {outcome}"
            self.outcomes[id] = outcome
            self.owners[id] = owner
            self.callers[id].add(owner[1])

    def overdrawn(self) -> Iterator[str]:
        """Accounts touched lately that are below what they may be, promises counted."""
        for number in self.touched:
            line = self.lines[number]
            if number not in (CASH, CLEARING) and line.balance - line.held < -line.limit:
                yield f"{self.branch}/{number} has {line.balance}, {line.held} of it held, and a limit of {line.limit}"


class Office:
    """One coordinator's decisions as its forced records have them."""

    def __init__(self, coordinator: str) -> None:
        self.coordinator = coordinator
        self.open: dict[bytes, Txn] = {}  #: decided, and not every branch is known to have applied it
        self.numbers: dict[bytes, int] = {}  #: of all decisions, by transfer
        self.branches: dict[str, BranchJoined] = {}
        self.retired: set[str] = set()

    def enter(self, record: AnyRecord) -> None:
        """One more forced record. Raises AssertionError when it cannot follow those before."""
        match record:
            case Decided():
                assert record.id not in self.numbers, f"{self.coordinator} decides {record.id.hex()} twice"
                above = max(self.numbers.values(), default=0)
                assert record.number > above, f"{self.coordinator} gives number {record.number} after {above}"
                self.open[record.id] = record.txn
                self.numbers[record.id] = record.number
            case Ended():
                for ending in record.endings:
                    assert ending.id in self.open, f"{self.coordinator} ends {ending.id.hex()}, which is not open"
                    del self.open[ending.id]
            case BranchJoined():
                assert record.name not in self.retired, f"{record.name} was retired, and is back"
                self.branches[record.name] = record
            case BranchLeft():
                del self.branches[record.name]
                self.retired.add(record.name)
