"""An actor of the small bank in `failover`: the real engine and store, on frames that the world carries."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Protocol

from tests.transport.actors import SetClock
from zbank.domain.legs import CASH, CLEARING, SYSTEM_NUMBERS
from zbank.protocol.branch_meta import CoordinatorMark
from zbank.protocol.branch_state import BranchState
from zbank.protocol.coordinator import Coordinator
from zbank.protocol.coordinator_replica import CoordinatorReplica
from zbank.protocol.coordinator_state import CoordinatorState
from zbank.protocol.fold import Row
from zbank.protocol.following import Follower
from zbank.protocol.machine import Effect, Machine, Sender
from zbank.protocol.messages import (
    BRANCH,
    REPLICA,
    AnyMessage,
    BranchInfo,
    Register,
    RegisterReplica,
    RowInfo,
    Rows,
)
from zbank.protocol.participant import Participant
from zbank.protocol.replica import BranchReplica
from zbank.storage.sqlite import Identity, JournalStore
from zbank.transport.engine import Engine

MUMBAI, DELHI, BOSS, COPY = "Mumbai", "Delhi", "coordinator", "copy"
FAR_US = 2**62


class Carrier(Protocol):
    """The world, as its actors need it."""

    clock: SetClock
    folder: Path

    def started(self, actor: Actor) -> None:
        """An actor has begun a life: nobody has heard of it yet."""

    def publish(self, actor: Actor, message: Rows) -> None:
        """Rows that a branch gives to the feed."""

    def sent_by(self, actor: Actor, effects: list[Effect]) -> None:
        """What an actor's turn gave."""


class Actor:
    """One actor's life on one file."""

    engine_type: ClassVar[type[Engine]] = Engine

    def __init__(self, world: Carrier, name: str, role: str, file: str, of: str = "") -> None:
        self.world = world
        self.name = name  #: as the network knows it
        self.role = role
        self.of = of or name  #: whose journal is in the file
        self.path = world.folder / f"{file}.db"
        self.open()

    @property
    def endpoint(self) -> str:
        """Where it listens."""
        return f"tcp://10.0.0.1:{9200 if self.role == REPLICA else len(self.name) * 100}"

    @property
    def wanted_acks(self) -> str:
        """The synchronous replica that its config wants."""
        return ""

    def open(self) -> None:
        """Start (again)."""
        self.store = self.open_store(Identity("demo", self.role, self.of), self.path.stem.encode().ljust(16)[:16])
        self.engine = self.engine_type(self.store, self._build, self.world.clock)
        self.world.started(self)
        if self.role == BRANCH:
            self.engine.publish, self.engine.followed_until_us = self._publish, FAR_US

    def open_store(self, identity: Identity, instance: bytes) -> JournalStore:
        """The file, which is made with this instance id when there is none."""
        return JournalStore.open(self.path, identity, instance, reserve_bytes=0)

    def _build(self, thrown_away: Machine | None) -> Machine:
        store = self.store
        former = thrown_away if isinstance(thrown_away, Follower) else None
        if store.identity.name == BOSS:
            decisions = CoordinatorState(BOSS)
            decisions.restore(store.meta, store.watermark, store.epoch, store.at_us, store.open_rows())
            if self.role == REPLICA:
                return CoordinatorReplica(self.name, self.endpoint, store.instance, decisions, store.chain, former)
            return self.deciding(decisions, thrown_away if isinstance(thrown_away, Coordinator) else None)
        state = BranchState(store.identity.name, "INR")
        system = store.load_accounts(sorted(SYSTEM_NUMBERS))
        state.restore(store.meta, store.watermark, store.epoch, store.at_us, store.open_rows(), system, store.count_closed())
        if self.role == REPLICA:
            return BranchReplica(self.name, self.endpoint, store.instance, state, store.chain, former)
        return self.participant(state, thrown_away if isinstance(thrown_away, Participant) else None)

    def deciding(self, state: CoordinatorState, before: Coordinator | None) -> Coordinator:
        """A coordinator's state machine."""
        return Coordinator(state, before=before, wanted_acks=self.wanted_acks)

    def participant(self, state: BranchState, before: Participant | None) -> Participant:
        """A branch's state machine."""
        return Participant(state, (CASH, CLEARING), 1, self.wanted_acks, before)

    def registration(self) -> Register | RegisterReplica:
        """What it says to the coordinator after a connection was made."""
        machine, store = self.engine.machine, self.store
        if isinstance(machine, Follower):
            return RegisterReplica(machine.info(self.world.clock.now()))
        state = machine.fold
        assert isinstance(state, BranchState)
        mark = state.coordinators.get(BOSS, CoordinatorMark(0, 0))
        info = BranchInfo(self.name, self.endpoint, "INR", store.instance, store.epoch, True, state.acks)
        return Register(info, mark.epoch, mark.number, self.wanted_acks, mark.word)

    def _publish(self, rows: Sequence[Row], before: bytes) -> None:
        infos = tuple(RowInfo(row.epoch, row.at_us, row.kind, row.id, row.body) for row in rows)
        self.world.publish(self, Rows(rows[0].seq - 1, before, infos, rows[-1].epoch, rows[-1].seq))

    def turn(self, sender: Sender, envelopes: list[tuple[int, AnyMessage]]) -> None:
        """Take in a frame, and send what follows."""
        batch = [(sender, n, message) for n, message in envelopes]
        self.world.sent_by(self, self.engine.turn(batch, self.world.clock.now()))

    def tick(self) -> None:
        """Time has passed."""
        self.world.sent_by(self, self.engine.tick(self.world.clock.now()))
        self.engine.maintain(idle=True)

    def journal(self) -> list[Row]:
        """Every row."""
        return self.store.pages.journal(0, self.store.seq)

    def close(self) -> None:
        """Like kill -9, as far as what was forced goes."""
        self.store.close()
