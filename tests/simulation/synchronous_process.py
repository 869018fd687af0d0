"""A process of the bank in `synchronous`: the real engine and store, a disk that can be full, and deaths at a force.

Beside each store its `Disk` stands as a witness: the rows that were forced there, whatever becomes of the process or the file.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tests.simulation.failover_actor import Actor
from zbank.apps.serving import role_named
from zbank.clock import Now
from zbank.domain.legs import CASH, CLEARING
from zbank.errors import FenceLost, StorageFull
from zbank.protocol.branch_state import BranchState
from zbank.protocol.coordinator import Coordinator
from zbank.protocol.coordinator_state import CoordinatorState
from zbank.protocol.fold import Posting, Row
from zbank.protocol.following import TakesOver
from zbank.protocol.machine import Address, Effect, Machine, Sender, Step
from zbank.protocol.messages import BRANCH, CLIENT, COORDINATOR, AnyMessage, Position, Registered
from zbank.protocol.participant import Participant
from zbank.storage.sqlite import Identity, JournalStore
from zbank.transport.engine import Engine, Incoming
from zbank.transport.looks import AnyRead

if TYPE_CHECKING:
    from tests.simulation.synchronous_town import Town

CUSTOMER = Sender(b"customer", CLIENT, "")
BEFORE, AFTER = "before", "after"  #: a force: when a process dies


def dialled_by(route: Address) -> str:
    """The machine that has made this connection; "" when that is none."""
    return route.decode().partition(">")[0] if isinstance(route, bytes) else ""


class Killed(BaseException):
    """The process is no more; nothing in it has a last word."""


class Disk:
    """What was forced to one store's disk."""

    def __init__(self, instance: bytes) -> None:
        self.instance = instance
        self.rows: list[Row] = []
        self.is_gone = False  #: nobody has it any more

    @property
    def seq(self) -> int:
        """The last row."""
        return len(self.rows)

    def chain(self, seq: int) -> bytes:
        """The chain value of a row: whoever has the same has the same rows up to it."""
        return self.rows[seq - 1].chain if seq else b""

    def has(self, seq: int, chain: bytes) -> bool:
        """Is this very row there?"""
        return seq <= len(self.rows) and self.chain(seq) == chain

    def is_prefix_of(self, other: Disk) -> bool:
        """The other one has all that is here."""
        return other.has(self.seq, self.chain(self.seq))


class WitnessedStore(JournalStore):
    """The real store; its process may have no room, or die, at a force."""

    process: Process

    def append(self, rows: Sequence[Row]) -> None:
        self.process.may_write(BEFORE)
        super().append(rows)
        self.process.disk.rows.extend(rows)
        self.process.may_write(AFTER)

    def post(self, posting: Posting) -> None:
        self.process.may_write("")
        super().post(posting)

    def has_room(self) -> bool:
        return not self.process.is_full


class Noted(Machine):
    """A real state machine; what its decisions want to send is noted: it stands on the rows of this turn."""

    process: Process

    def decide(self, sender: Sender, n: int, message: AnyMessage, now: Now) -> Step:
        return self.process.noted(super().decide(sender, n, message, now))  # type: ignore[safe-super]

    def tick(self, now: Now) -> Step:
        return self.process.noted(super().tick(now))  # type: ignore[safe-super]


class NotedParticipant(Noted, Participant):
    """Of a branch."""


class NotedCoordinator(Noted, Coordinator):
    """Of a coordinator."""


class NotedEngine(Engine):
    """The real engine; what a coordinator reads for somebody is noted, too."""

    process: Process

    def _read(self, sender: Sender, n: int, message: AnyRead, now: Now) -> list[Effect]:
        effects = super()._read(sender, n, message, now)
        if self.machine.role == COORDINATOR:
            self.process.noted(Step(None, effects))
        return effects


class Process(Actor):
    """A machine with one data file, and the process on it: a coordinator, a branch, or a replica that may become one."""

    engine_type = NotedEngine

    def __init__(self, town: Town, key: str, name: str, role: str, of: str = "") -> None:
        self.town = town
        self.key = key  #: the machine
        self.life = 0  #: the how many-th process on it
        self.is_up = False
        self.is_paused = False
        self.is_lost = False  #: the machine is no more
        self.is_full = False  #: its disk
        self.dies = ""  #: at the next force
        self.disk = Disk(b"")
        self.endpoints: dict[str, str] = {}  #: of branches, as it knows them
        self._fresh: list[Effect] = []
        self._stands: dict[int, tuple[Effect, int]] = {}  #: by identity: what may leave later, and the row that it stands on
        self._file = 0
        super().__init__(town, name, role, key, of)

    @property
    def endpoint(self) -> str:
        return f"tcp://10.0.0.1:{self.town.ports[self.key]}"

    @property
    def wanted_acks(self) -> str:
        wanted = self.town.wanted.get(self.name, "")
        return "" if wanted == self.key else wanted  # it is this very process

    # --- lives ---------------------------------------------------------------------------------------------------------

    def open(self) -> None:
        self.life += 1
        self.endpoints = dict(self.town.config)
        self.dies = ""
        self._stands.clear()
        try:
            super().open()
        except (StorageFull, Killed):
            self.store.close()
            return
        assert isinstance(self.engine, NotedEngine)
        self.engine.process = self
        self.is_up = True

    def open_store(self, identity: Identity, instance: bytes) -> JournalStore:
        store = WitnessedStore.open(self.path, identity, instance, reserve_bytes=0)
        store.process = self
        self.disk = self.town.disk(store.instance)
        self.disk.rows += store.pages.journal(self.disk.seq, store.seq)  # what another process wrote
        return store

    def participant(self, state: BranchState, before: Participant | None) -> Participant:
        machine = NotedParticipant(state, (CASH, CLEARING), 1, self.town.wanted.get(self.name, ""), before)
        machine.process = self
        return machine

    def deciding(self, state: CoordinatorState, before: Coordinator | None) -> Coordinator:
        machine = NotedCoordinator(state, before=before, wanted_acks=self.wanted_acks)
        machine.process = self
        return machine

    @property
    def coordinator(self) -> Coordinator:
        """Its state machine, as it is or as it was when it died."""
        machine = self.engine.machine
        assert isinstance(machine, Coordinator)
        return machine

    def crash(self) -> None:
        """Like kill -9."""
        if self.is_up:
            self.close()
            self.is_up = False

    def restart(self) -> None:
        """End it, if it runs, and start it again."""
        self.crash()
        self.is_paused = False
        if not self.is_lost:
            self.open()

    def begin_anew(self) -> None:
        """Its data is deleted; it begins with nothing, under the same name."""
        self.crash()
        self.disk.is_gone = True
        self._file += 1
        self.path = self.path.with_name(f"{self.key}{self._file}.db")
        self.restart()

    def become(self) -> None:
        """Its file is that of whom it followed from here on."""
        self.name, self.role = self.of, role_named(self.of)
        self.restart()

    def save(self, folder: Path) -> int:
        """Copy the file as it stands; gives the last row in the copy."""
        for end in ("", "-wal"):
            shutil.copy(f"{self.path}{end}", folder)
        return self.disk.seq

    def restore(self, folder: Path, seq: int) -> None:
        """An old copy takes the file's place: an operator's mistake."""
        self.crash()
        for end in ("", "-wal"):
            shutil.copy(folder / f"{self.path.name}{end}", f"{self.path}{end}")
        self.disk.rows = self.disk.rows[:seq]
        self.restart()

    # --- turns ---------------------------------------------------------------------------------------------------------

    def may_write(self, when: str) -> None:
        """A force is to come, or is over."""
        if self.is_full and when != AFTER:
            raise StorageFull("the disk is full")
        if when and self.dies == when:
            raise Killed

    def noted(self, step: Step) -> Step:
        """Remember what a decision of this turn wants to send."""
        self._fresh.extend(step.effects)
        return step

    def take(self, batch: list[Incoming]) -> None:
        """One turn for all of these."""
        town = self.town
        asked = town.judge.asked(self)
        self._fresh.clear()
        try:
            effects = self.engine.turn(batch, town.clock.now())
        except (Killed, FenceLost) as error:
            self._die(error)
            return
        except TakesOver as promotion:
            town.take_over(self, promotion)
            return
        self._stand(batch)
        town.judge.answered(self, batch, effects, stops=asked)
        town.sent_by(self, effects)

    def turn(self, sender: Sender, envelopes: list[tuple[int, AnyMessage]]) -> None:
        self.take([(sender, n, message) for n, message in envelopes])

    def tick(self) -> None:
        self._fresh.clear()
        try:
            effects = self.engine.tick(self.town.clock.now())
        except (Killed, FenceLost) as error:
            self._die(error)
            return
        except TakesOver as promotion:
            self.town.take_over(self, promotion)
            return
        self._stand([])
        self.town.judge.ticked(self)
        self.town.sent_by(self, effects)
        self.engine.maintain(idle=True)

    def say(self, effect: Effect) -> None:
        """Something without a turn, as the loop does."""
        self._fresh = [effect]
        effects = self.engine.said([effect], self.town.clock.now())
        self._stand([])
        self.town.sent_by(self, effects)

    def _die(self, why: BaseException) -> None:
        self.crash()
        self.town.met["has lost its office"] += isinstance(why, FenceLost)

    def _stand(self, batch: list[Incoming]) -> None:
        """What was decided now stands on all that is forced by now."""
        seq = self.store.seq
        self.town.judge.decided(self, self._fresh)
        for effect in self._fresh:
            self._stands[id(effect)] = (effect, seq)
        for sender, n, _ in batch:
            if sender.address == CUSTOMER.address:
                self.town.customers.stands[n] = seq

    def row_of(self, effect: Effect) -> int:
        """The row that something stands on which leaves now. What was never seen before was made in this very turn."""
        if isinstance(effect.message, Position):
            return effect.message.seq
        if effect.to == CUSTOMER.address and self.role == BRANCH:  # reads among them, which no decision has made
            return self.town.customers.stands[effect.n]
        known = self._stands.pop(id(effect), None)
        return self.store.seq if known is None else known[1]

    def learn(self, message: Registered) -> None:
        """Where everybody is."""
        self.endpoints = {**self.endpoints, **{info.name: info.endpoint for info in message.branches}}
