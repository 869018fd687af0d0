"""The small bank of `failover`: its frames, what happens to it, and what must hold."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from random import Random

from tests.simulation.failover_actor import BOSS, COPY, DELHI, MUMBAI, Actor
from tests.simulation.failover_books import Breach, check_books, judge_rest, record_of
from tests.transport.actors import SetClock
from tests.unit.protocol_support import id_of
from zbank.apps import roles
from zbank.domain.legs import CASH, Leg
from zbank.protocol.coordinator import Coordinator
from zbank.protocol.coordinator_state import CoordinatorState
from zbank.protocol.directory import BACK_US
from zbank.protocol.fold import Row
from zbank.protocol.following import TakesOver
from zbank.protocol.machine import Effect, Sender
from zbank.protocol.messages import (
    BRANCH,
    CLIENT,
    COMMITTED,
    COORDINATOR,
    FEED,
    REPLICA,
    AnyMessage,
    OpenAccount,
    Outcome,
    Promote,
    Promoting,
    Registered,
    RegisterReplica,
    Rows,
    Transfer,
)
from zbank.protocol.records import Committed, Decided, Executed, Redelivered
from zbank.storage import decisions

OFFICER = Sender(b"officer", CLIENT, "officer")
CUSTOMER = Sender(b"customer", CLIENT, "")
STEPS = 260
REST_TICKS = 60

Frame = tuple[str, str, list[tuple[int, AnyMessage]]]  #: (from, to, envelopes)


class World:
    """One seed."""

    def __init__(self, seed: int, folder: Path) -> None:
        self.random = Random(seed)
        self.folder = folder
        self.clock = SetClock()
        self.frames: list[Frame] = []
        self.met: Counter[str] = Counter()
        self.loss = self.random.choice((0.0, 0.02, 0.1))
        self.feed_loss = self.random.choice((0.0, 0.1, 0.5, 1.0))
        self.told: dict[bytes, str] = {}
        self.wishes: dict[bytes, Transfer] = {}
        self.actors: dict[str, Actor] = {}
        self.held: set[str] = set()  #: frames from and to them wait
        self.late: list[Frame] = []  #: of the lost branch: they come when another one has its place
        self.is_open = True  #: the branch serves
        decisions.LOOK_ROWS = self.random.choice((2, 20, 2_000))
        self.linked: set[str] = set()  #: who has heard Registered since it started: the others call again
        self.answer: AnyMessage | None = None  #: to the officer
        self.lost_rows: list[Row] = []  #: the journal of the branch that was lost
        self.lost_path = folder / f"{MUMBAI}.db"
        for name, role in ((BOSS, COORDINATOR), (MUMBAI, BRANCH), (DELHI, BRANCH)):
            self.actors[name] = Actor(self, name, role, name)
        self.actors[COPY] = Actor(self, COPY, REPLICA, COPY, of=MUMBAI)
        self.poor = self.random.random() < 0.5
        for name in (MUMBAI, DELHI):
            self._open_accounts(self.actors[name])
            self.register(name)
        self.register(COPY)

    def _open_accounts(self, branch: Actor) -> None:
        for n, number in enumerate(("1", "2")):
            amount_minor = 500 if self.poor else 100_000
            legs = (Leg(branch.name, CASH, -amount_minor), Leg(branch.name, number, amount_minor))
            first = 90_000 + n + (10 if branch.name == MUMBAI else 0)
            envelopes: list[tuple[int, AnyMessage]] = [
                (0, OpenAccount(id_of(first), number, "", "", 0)),
                (0, Transfer(id_of(first + 100), legs, "INR")),
            ]
            branch.engine.turn([(CUSTOMER, n, message) for n, message in envelopes], self.clock.now())

    # --- the network -----------------------------------------------------------------------------------------------

    def sent_by(self, actor: Actor, effects: list[Effect]) -> None:
        """Frames to actors go on their way, answers to customers arrive."""
        frames: dict[object, list[tuple[int, AnyMessage]]] = {}
        for effect in effects:
            frames.setdefault(effect.to, []).append((effect.n, effect.message))
        for to, envelopes in frames.items():
            if to == CUSTOMER.address:
                for _, message in envelopes:
                    self._hear(message)
            elif to == b"copy":
                self.send(actor.name, COPY, envelopes)
            elif isinstance(to, str):
                self.send(actor.name, to, envelopes)
            elif to == OFFICER.address:
                self.answer = envelopes[0][1]

    def send(self, source: str, to: str, envelopes: list[tuple[int, AnyMessage]]) -> None:
        """Lose it, send it twice, or once; it comes when chance wants."""
        loss = self.feed_loss if source == FEED else self.loss
        if self.random.random() < loss:
            return
        self.frames.append((source, to, envelopes))
        if self.random.random() < loss:
            self.frames.append((source, to, envelopes))

    def _hear(self, message: AnyMessage) -> None:
        if isinstance(message, Outcome) and message.id in self.wishes:
            self.told.setdefault(message.id, message.status)

    def deliver(self, frame: Frame) -> None:
        """A frame arrives, if there is anybody."""
        source, to, envelopes = frame
        actor = self.actors.get(to)
        if actor is None:
            return
        if source == FEED:
            sender = Sender("", FEED, "")
        elif source == COPY:
            sender = Sender(b"copy", REPLICA, COPY)
        elif source == BOSS:
            sender = Sender(BOSS, COORDINATOR, BOSS)
        else:
            sender = Sender(source, BRANCH, source)
        if to == COPY and source in (MUMBAI, DELHI):
            sender = Sender(source, BRANCH, source)
        if any(isinstance(message, Registered) for _, message in envelopes):
            self.linked.add(to)
        try:
            actor.turn(sender, envelopes)
        except TakesOver as promotion:
            self._take_over(promotion)

    def started(self, actor: Actor) -> None:
        """Who is just there has to call the coordinator."""
        self.linked.discard(actor.name)

    def publish(self, actor: Actor, message: Rows) -> None:
        """The replica hears it, if the feed lets it through."""
        if actor.name == MUMBAI:
            self.send(FEED, COPY, [(0, message)])

    def register(self, name: str) -> None:
        """As the loop does after a connection was made."""
        branch, boss = self.actors.get(name), self.actors[BOSS]
        if branch is None:
            return
        message = branch.registration()
        if isinstance(message, RegisterReplica):
            boss.turn(Sender(b"copy", REPLICA, COPY), [(0, message)])
            return
        machine = boss.engine.machine
        assert isinstance(machine, Coordinator)
        fault = machine.directory.refuse(message)
        if fault is None:
            boss.turn(Sender(name, BRANCH, name), [(0, message)])
        else:
            self.met[f"refused {fault.code}"] += 1

    # --- what happens ------------------------------------------------------------------------------------------------

    def wish(self) -> None:
        """A payment, within Mumbai or between the two."""
        n = len(self.wishes) + 1
        pairs = (("Mumbai/1", "Delhi/1"), ("Delhi/1", "Mumbai/2"), ("Mumbai/2", "Delhi/2"), ("Mumbai/1", "Mumbai/2"))
        source, target = self.random.choice(pairs)
        amount_minor = self.random.randint(1, 480 if self.poor else 200)
        (giver, given), (taker, taken) = source.split("/"), target.split("/")
        transfer = Transfer(id_of(n), (Leg(giver, given, -amount_minor), Leg(taker, taken, amount_minor)), "INR")
        self.wishes[transfer.id] = transfer
        self.ask(transfer)

    def ask(self, transfer: Transfer) -> None:
        """Send it (again) to whom it concerns."""
        is_local = len({leg.branch for leg in transfer.legs}) == 1
        asked = self.actors.get(MUMBAI if is_local else BOSS)
        if asked is not None:
            asked.turn(CUSTOMER, [(1, transfer)])

    def step(self) -> None:
        """Something."""
        what = self.random.random()
        ready = [place for place, frame in enumerate(self.frames) if not self.held & set(frame[:2])]
        if what < 0.6 and ready:
            place = ready[0] if self.random.random() < 0.7 else self.random.choice(ready)
            self.deliver(self.frames.pop(place))
        elif what < 0.75:
            self.wish()
        elif what < 0.97:
            self.pass_time(self.random.choice((10_000, 100_000, 700_000)))
        else:
            name = self.random.choice((DELHI, BOSS, COPY))
            self.restart(name)
        self.check()

    def pass_time(self, span_us: int) -> None:
        """All clocks go on; who is not linked calls again."""
        self.clock.advance(span_us)
        for actor in list(self.actors.values()):
            actor.tick()
        for name in (MUMBAI, DELHI, COPY):
            if name not in self.linked:
                self.register(name)

    def restart(self, name: str) -> None:
        """Killed and started again."""
        actor = self.actors.get(name)
        if actor is not None:
            actor.close()
            actor.open()
            for one in (MUMBAI, DELHI, COPY) if name == BOSS else (name,):
                self.register(one)

    def lose_branch(self) -> None:
        """Its machine is gone; what it sent is still on its way."""
        old = self.actors.pop(MUMBAI)
        self.lost_rows = old.journal()
        old.close()
        self.actors[BOSS].engine.machine.peer_down(MUMBAI, self.clock.now())
        self.late = [frame for frame in self.frames if frame[:2] == (MUMBAI, BOSS)]
        self.frames = [frame for frame in self.frames if frame[:2] != (MUMBAI, BOSS)]
        self.is_open = False
        self.met["rows lost"] += len(self.lost_rows) - self.actors[COPY].store.seq

    def promote(self) -> None:
        """An operator's word, as soon as the replica is heard of; the branch is known to be gone."""
        copy, boss = self.actors[COPY], self.actors[BOSS]
        machine = boss.engine.machine
        assert isinstance(machine, Coordinator)
        machine.directory.begun_us = self.clock.now().mono_us - BACK_US
        self.register(COPY)
        boss.turn(OFFICER, [(1, Promote(MUMBAI, COPY, copy.store.instance))])
        if not isinstance(self.answer, Promoting):
            raise Breach(f"not promoted: {self.answer}")

    def _take_over(self, promotion: TakesOver) -> None:
        copy = self.actors.pop(COPY)
        copy.close()
        roles._take_over(copy.path, copy.store.identity, promotion)
        self.actors[MUMBAI] = Actor(self, MUMBAI, BRANCH, copy.path.stem)
        self.register(MUMBAI)

    # --- what must hold ----------------------------------------------------------------------------------------------

    def check(self) -> None:
        """At every moment."""
        for actor in self.actors.values():
            check_books(actor)
        copy, branch = self.actors.get(COPY), self.actors.get(MUMBAI)
        if branch is not None and not self.is_open and branch.engine.machine.fold.promotion is None:  # type: ignore[attr-defined]
            self.is_open = True
            self._check_opening(branch)
        if copy is not None and branch is not None and copy.store.seq:
            there = branch.store.row(copy.store.seq)
            if there is None or there.chain != copy.store.chain:
                raise Breach("the replica is no prefix of its branch")

    def _check_opening(self, branch: Actor) -> None:
        """The moment when a promoted branch serves again: what was told as applied at it is there."""
        boss = self.actors[BOSS].engine.machine.fold
        assert isinstance(boss, CoordinatorState)
        decided = {r.id for r in map(record_of, self.actors[BOSS].journal()) if isinstance(r, Decided)}
        done = {r.id for r in map(record_of, branch.journal()) if isinstance(r, Committed | Redelivered)}
        missing = decided - done - set(boss.open)
        if missing:
            raise Breach(f"the branch opens, and lacks {len(missing)} transfers that it had applied before")
        self.met["opened again"] += 1

    def hear_late(self) -> None:
        """What the lost branch sent comes after another one has its place."""
        for frame in self.late:
            self.deliver(frame)
        self.late = []

    def reconcile(self) -> None:
        """The promoted branch and the coordinator alone, in no time; the others, and what is late, come after."""
        self.held = {DELHI}
        self.register(COPY)
        for _ in range(2_000):
            ready = [place for place, frame in enumerate(self.frames) if not self.held & set(frame[:2])]
            if not ready or self.is_open:
                return
            self.deliver(self.frames.pop(ready[0]))
            self.check()

    def fall_silent(self) -> None:
        """The coordinator is not to be heard, when its replica has just been told to lead: branches ask each other."""
        self.register(COPY)
        for frame in [one for one in self.frames if DELHI not in one[:2]]:
            self.frames.remove(frame)
            self.deliver(frame)
        self.held = {BOSS}
        delhi = self.actors[DELHI].engine.machine
        delhi.peer_down(BOSS, self.clock.now())
        self.met["the coordinator falls silent"] += 1
        for _ in range(40):
            self.clock.advance(400_000)
            self.actors[DELHI].tick()
            for frame in [one for one in self.frames if not self.held & set(one[:2])]:
                self.frames.remove(frame)
                self.deliver(frame)
        self.linked.discard(DELHI)

    def settle(self) -> None:
        """No faults any more: all comes to rest."""
        self.loss = self.feed_loss = 0.0
        self.held = set()
        for _ in range(REST_TICKS):
            while self.frames:
                self.deliver(self.frames.pop(0))
            self.pass_time(700_000)
            self.check()
        for transfer in self.wishes.values():
            if transfer.id not in self.told:
                self.ask(transfer)
        for _ in range(REST_TICKS // 2):
            while self.frames:
                self.deliver(self.frames.pop(0))
            self.pass_time(700_000)

    def judge(self) -> None:
        """At rest."""
        decided = judge_rest([self.actors[name] for name in (MUMBAI, DELHI)], self.actors[BOSS])
        for name in (MUMBAI, DELHI):
            self.met[f"redelivered at {name}"] += sum(row.kind == "redelivered" for row in self.actors[name].journal())
        self._judge_told(decided)

    def _judge_told(self, decided: dict[bytes, Decided]) -> None:
        executed = {r.id for r in map(record_of, self.actors[MUMBAI].journal()) if isinstance(r, Executed)}
        lost = {record.id for row in self.lost_rows if isinstance(record := record_of(row), Executed)}
        for id, status in self.told.items():
            is_done = id in decided or id in executed
            if status == COMMITTED and not is_done and id not in lost:
                raise Breach(f"{id.hex()} was told committed, and is not done")
            if status == "aborted" and id in decided:
                raise Breach(f"{id.hex()} was told aborted, and is decided")

