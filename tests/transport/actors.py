"""Actors as the apps wire them, on real stores, with a clock that is set and a disk that fails when told."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from threading import RLock
from typing import Any

from tests.unit.protocol_support import CUSTOMER, SECOND_US, TestClock, id_of
from zbank.clock import Clock
from zbank.config import COORDINATOR_NAME, STANDBY_NAME
from zbank.domain.account import Account
from zbank.domain.legs import CASH, CLEARING, SYSTEM_NUMBERS, Leg
from zbank.errors import StoreError
from zbank.protocol.branch_state import BranchState
from zbank.protocol.coordinator import Coordinator
from zbank.protocol.coordinator_replica import CoordinatorReplica
from zbank.protocol.coordinator_state import CoordinatorState
from zbank.protocol.fold import Posting, Row
from zbank.protocol.following import Follower
from zbank.protocol.machine import Effect, Machine
from zbank.protocol.messages import BRANCH, COORDINATOR, REPLICA, AnyMessage, OpenAccount, Outcome, Transfer
from zbank.protocol.participant import Participant
from zbank.protocol.replica import BranchReplica
from zbank.storage.sqlite import Identity, JournalStore
from zbank.transport.engine import Engine, Incoming

INSTANCE = bytes(range(16))


class SetClock(TestClock, Clock):
    """The test's clock where a Clock is asked for."""


class WatchedStore(JournalStore):
    """A real store that counts what is asked of it, and fails when told."""

    def __init__(self, *parts: Any) -> None:
        super().__init__(*parts)
        self.forces: list[list[Row]] = []  #: the rows of each commit that was asked for
        self.failures: list[StoreError] = []  #: of the next commits, in order
        self.queries: list[str] = []  #: what was loaded
        self.room = True

    def append(self, rows: Sequence[Row]) -> None:
        self.forces.append(list(rows))
        if self.failures:
            raise self.failures.pop(0)
        super().append(rows)

    def post(self, posting: Posting) -> None:
        if self.failures:
            raise self.failures.pop(0)
        super().post(posting)

    def load_accounts(self, numbers: Any) -> list[Account]:
        self.queries.append("accounts")
        return super().load_accounts(numbers)

    def load_settled(self, ids: Any) -> Any:
        self.queries.append("ids")
        return super().load_settled(ids)

    def has_room(self) -> bool:
        return self.room

    def journal(self) -> list[Row]:
        """Every row from the first."""
        rows = [self.row(seq) for seq in range(1, self.seq + 1)]
        return [row for row in rows if row is not None]


class Desk:
    """An actor: engine, store and clock."""

    def __init__(
        self, role: str, name: str, folder: Path, clock: SetClock | None = None, wanted_acks: str = "", file: str = ""
    ) -> None:
        """`wanted_acks`: by the config. A replica named `coordinator` follows the coordinator. `file`: name of its data file,
        where that is not the usual one."""
        self.wanted_acks = wanted_acks
        self.can_lead = True  #: of a replica of the coordinator: as it is built next
        self.clock = clock or SetClock()
        self.lock = RLock()  #: a turn after the other, also where a server's thread is given what came twice
        self.identity = Identity(cluster="demo", role=role, name=name)
        self.path = folder / f"{file or f'{name}-replica' if role == REPLICA else file or name}.db"
        self.store = WatchedStore.open(self.path, self.identity, INSTANCE, reserve_bytes=0)
        try:
            self.engine = Engine(self.store, self._build, self.clock)
        except BaseException:
            self.store.close()
            raise

    def _build(self, thrown_away: Machine | None) -> Machine:
        store = self.store
        if self.identity.role == COORDINATOR:
            decisions = CoordinatorState(self.identity.name)
            decisions.restore(store.meta, store.watermark, store.epoch, store.at_us, store.open_rows())
            before = thrown_away if isinstance(thrown_away, Coordinator) else None
            known = ("Delhi", "Mumbai", "Pune")
            return Coordinator(decisions, before=before, configured=known, wanted_acks=self.wanted_acks)
        former = thrown_away if isinstance(thrown_away, Follower) else None
        if self.identity == Identity(cluster="demo", role=REPLICA, name=COORDINATOR_NAME):
            told = CoordinatorState(self.identity.name)
            told.restore(store.meta, store.watermark, store.epoch, store.at_us, store.open_rows())
            where = STANDBY_NAME, "tcp://127.0.0.1:9010", INSTANCE
            return CoordinatorReplica(*where, told, store.chain, former, can_lead=self.can_lead)
        state = BranchState(self.identity.name, "INR")
        system = store.load_accounts(sorted(SYSTEM_NUMBERS))
        state.restore(store.meta, store.watermark, store.epoch, store.at_us, store.open_rows(), system, store.count_closed())
        if self.identity.role == REPLICA:
            return BranchReplica("replica", "tcp://127.0.0.1:9200", INSTANCE, state, store.chain, former)
        last = thrown_away if isinstance(thrown_away, Participant) else None
        return Participant(state, (CASH, CLEARING), 1, self.wanted_acks, last)

    def turn(self, *batch: Incoming) -> list[Effect]:
        """One turn at the clock's time."""
        with self.lock:
            return self.engine.turn(batch, self.clock.now())

    def ask(self, message: AnyMessage) -> AnyMessage:
        """A customer's turn of one message; gives the one answer."""
        (effect,) = self.turn((CUSTOMER, 7, message))
        assert (effect.to, effect.n) == (CUSTOMER.address, 7)
        return effect.message

    def tick(self, after_us: int = 2 * SECOND_US) -> list[Effect]:
        """Let time pass; the engine sees it."""
        return self.engine.tick(self.clock.advance(after_us))

    def restarted(self, wanted_acks: str = "") -> Desk:
        """The same actor after a crash now: nothing is posted that was not."""
        self.store.close()
        return Desk(self.identity.role, self.identity.name, self.path.parent, self.clock, wanted_acks, self.path.stem)

    @property
    def coordinator(self) -> CoordinatorState:
        """The state of a coordinator, as it has it or as its replica has it."""
        fold = self.engine.machine.fold
        assert isinstance(fold, CoordinatorState)
        return fold

    @property
    def branch(self) -> BranchState:
        """The state of a branch."""
        fold = self.engine.machine.fold
        assert isinstance(fold, BranchState)
        return fold


def branch(
    folder: Path, *numbers: str, name: str = "Mumbai", balance_minor: int = 100_00, clock: SetClock | None = None
) -> Desk:
    """A branch with these accounts, each with the balance."""
    desk = Desk(BRANCH, name, folder, clock)
    for count, number in enumerate(numbers):
        desk.ask(OpenAccount(id_of(80_000 + count), number, "", "", 0))
        paid_in = desk.ask(pay(70_000 + count, f"{name}/{CASH}", f"{name}/{number}", balance_minor))
        assert isinstance(paid_in, Outcome)
    return desk


def pay(n: int, source: str, destination: str, amount_minor: int) -> Transfer:
    """The n-th transfer."""
    (giver, given), (taker, taken) = source.split("/"), destination.split("/")
    legs = (Leg(giver, given, -amount_minor), Leg(taker, taken, amount_minor))
    return Transfer(id_of(n), legs, "INR")
