"""An actor of the small bank in `failover`: the real engine and store, on frames that the world carries."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from tests.transport.actors import SetClock
from zbank.domain.legs import CASH, CLEARING, SYSTEM_NUMBERS
from zbank.protocol.branch_state import BranchState
from zbank.protocol.coordinator import Coordinator
from zbank.protocol.coordinator_state import CoordinatorState
from zbank.protocol.fold import Row
from zbank.protocol.machine import Effect, Machine, Sender
from zbank.protocol.messages import BRANCH, COORDINATOR, FEED, REPLICA, AnyMessage, RowInfo, Rows
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
    linked: set[str]

    def send(self, source: str, to: str, envelopes: list[tuple[int, AnyMessage]]) -> None:
        """A frame on its way."""

    def sent_by(self, actor: Actor, effects: list[Effect]) -> None:
        """What an actor's turn gave."""


class Actor:
    """One actor's life on one file."""

    def __init__(self, world: Carrier, name: str, role: str, file: str) -> None:
        self.world = world
        self.name = name  #: as the network knows it
        self.role = role
        self.path = world.folder / f"{file}.db"
        self.open()

    def open(self) -> None:
        """Start (again)."""
        owner = MUMBAI if self.name == COPY else self.name
        identity = Identity("demo", self.role, owner)
        self.store = JournalStore.open(self.path, identity, self.path.stem.encode().ljust(16)[:16], reserve_bytes=0)
        self.engine = Engine(self.store, self._build, self.world.clock)
        self.world.linked.discard(self.name)
        if self.role == BRANCH:
            self.engine.publish, self.engine.followed_until_us = self._publish, FAR_US

    def _build(self, thrown_away: Machine | None) -> Machine:
        store = self.store
        if self.role == COORDINATOR:
            decisions = CoordinatorState(BOSS)
            decisions.restore(store.meta, store.watermark, store.epoch, store.at_us, store.open_rows())
            return Coordinator(decisions)
        state = BranchState(store.identity.name, "INR")
        system = store.load_accounts(sorted(SYSTEM_NUMBERS))
        state.restore(store.meta, store.watermark, store.epoch, store.at_us, store.open_rows(), system, store.count_closed())
        if self.role == REPLICA:
            return BranchReplica(COPY, "tcp://10.0.0.1:9200", store.instance, state, store.chain)
        return Participant(state, (CASH, CLEARING))

    def _publish(self, rows: Sequence[Row], before: bytes) -> None:
        infos = tuple(RowInfo(row.epoch, row.at_us, row.kind, row.id, row.body) for row in rows)
        if self.name == MUMBAI:
            message = Rows(rows[0].seq - 1, before, infos, rows[-1].epoch, rows[-1].seq)
            self.world.send(FEED, COPY, [(0, message)])

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
