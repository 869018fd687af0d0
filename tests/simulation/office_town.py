"""The bank of `office`: its coordinator has replicas, of which one takes its place. Branches look for it at several places."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from tests.simulation.failover_actor import BOSS, Actor
from tests.simulation.failover_books import Breach
from tests.simulation.office_clerk import CLERK, Clerk
from tests.simulation.office_judge import OfficeJudge
from tests.simulation.synchronous_fate import Fate
from tests.simulation.synchronous_judge import Judge
from tests.simulation.synchronous_network import Frame
from tests.simulation.synchronous_process import Process
from tests.simulation.synchronous_town import OFFICER, SILENT_US
from zbank.apps import roles
from zbank.protocol.following import TakesOver
from zbank.protocol.machine import Effect
from zbank.protocol.messages import (
    BRANCH,
    COORDINATOR,
    OUT_OF_OFFICE,
    REPLICA,
    AnyMessage,
    Fault,
    NameAcks,
    Named,
    Promote,
    Promoting,
    Registered,
    Rows,
)
from zbank.transport.links import TRY_US

STANDBY, SECOND = "standby", "second"
ANSWER_STEPS = 12  #: so long the operator waits for an answer


class Try(NamedTuple):
    """Where a process tries to find the coordinator, and since when."""

    place: str
    since_us: int


class Office(Fate):
    """One seed."""

    def __init__(self, seed: int, folder: Path) -> None:
        self.places = [BOSS, STANDBY, SECOND]  #: machines where it may be, as all are told by their config
        self.held: set[str] = set()  #: machines that stay as they are: nobody mends them
        self.usurper: Process | None = None  #: a replica that leads though another one was named: an operator's mistake
        self.replaced: set[bytes] = set()  #: replicas that the operator must never promote: he has named others, or may have
        self._before: set[bytes] = set()  #: the same before his last word
        self._named = b""  #: by his last word
        self._ever_named: set[bytes] = set()
        self._tries: dict[str, Try] = {}
        self.clerk = Clerk(self)
        super().__init__(seed, folder)

    def make_judge(self) -> Judge:
        self.office = OfficeJudge(self)
        return self.office

    def set_up_replicas(self) -> None:
        """The coordinator has one that its config wants, and perhaps a second one; the branches have some, or none."""
        self.start(STANDBY, STANDBY, REPLICA, BOSS)
        if self.random.random() < 0.6:
            self.start(SECOND, SECOND, REPLICA, BOSS)
        self.wanted[BOSS] = STANDBY
        self._ever_named.add(self.sites[STANDBY].disk.instance)
        self.boss.restart()
        if self.random.random() < 0.4:
            super().set_up_replicas()
        else:
            self.begin()

    def begin(self) -> None:
        super().begin()
        for _ in range(8):
            self.flush()
            self.pass_time(100_000)

    # --- where the coordinator is --------------------------------------------------------------------------------------

    def dialled(self, process: Process) -> Process | None:
        tried = self._tries.get(process.key)
        found = None if tried is None else self.sites.get(tried.place)
        return None if found is self.usurper and process.role == REPLICA and not self.is_found_out else found

    def started(self, actor: Actor) -> None:
        super().started(actor)
        assert isinstance(actor, Process)
        if actor.role == COORDINATOR:
            self._tries.pop(actor.key, None)
            self.office.took_office(actor)
        else:
            self._try_at(actor, next(place for place in self.places if place != actor.key))

    def _try_at(self, process: Process, place: str) -> None:
        now_us = self.clock.now().mono_us
        self._tries[process.key] = Try(place, now_us)
        self.lines.heard_us[process.key] = now_us

    def arrives(self, frame: Frame) -> bool:
        source, target = frame.source, frame.target
        is_early = target is self.usurper and not self.is_found_out and (source is None or source.role == REPLICA)
        if is_early or not super().arrives(frame):
            return False
        if source is None or frame.sender.role != COORDINATOR:
            return True
        if self.lines.calling.get(target.key) is not source:
            return False
        self.lines.heard_us[target.key] = self.clock.now().mono_us
        messages = [message for _, message in frame.envelopes]
        if any(isinstance(message, Rows | Registered) for message in messages):
            self.office.rows_us[target.key] = target.life, self.clock.now().mono_us
        for message in messages:
            if isinstance(message, Registered) and not target.is_full and not target.dies:
                self.office.heard_word(target, message)
            if isinstance(message, Fault) and message.code == "hello_first":
                self.lines.hang_up(target.key)  # what was sent before is heard before, so no late answer counts
            elif isinstance(message, Fault) and message.code == OUT_OF_OFFICE:
                self.lines.refused(target.key)
            elif isinstance(message, Fault) and message.code in ("superseded", "fence_lost"):
                self.refused(target, message)
                return False
        return True

    def turn_away(self, process: Process, boss: Process, fault: Fault) -> None:
        """Also that waits for the coordinator's replica."""
        boss.say(Effect(self.network.route(process, boss), 0, fault))

    def listen(self) -> None:
        """As `Link` does where there are several places, and `Peers` at the other end."""
        now_us = self.clock.now().mono_us
        for process in [one for one in self.sites.values() if one.role != COORDINATOR]:
            there, tried = self.dialled(process), self._tries[process.key]
            boss = there if there is not None and there.role == COORDINATOR and self.talk(process, there) else None
            if boss is not None and process.role == BRANCH and self.lines.bound(boss, process.name) is not process:
                self.lines.refused(process.key)  # it is not known there any more, and is told so
            is_linked = process.key in self.lines.linked
            if is_linked:
                self._tries[process.key] = tried._replace(since_us=now_us)
            if boss is not None and not boss.engine.has_stopped:
                self.lines.heard_us[process.key] = now_us  # it answers heartbeats
            limit_us = TRY_US // 2 if there is not None and there.role == REPLICA else TRY_US
            useless = not is_linked and now_us - tried.since_us > limit_us
            if useless or now_us - self.lines.heard_us[process.key] > SILENT_US:
                self._look_elsewhere(process)
        for boss in self.doors(""):
            for process in self.lines.all_bound(boss) if boss.is_up and not boss.is_paused else ():
                key = f"{boss.key}<{process.key}"
                if self.lines.calling.get(process.key) is boss and self.talk(process, boss):
                    self.lines.heard_us[key] = now_us
                elif now_us - self.lines.heard_us.get(key, 0) > SILENT_US:
                    self.lines.unbind(process, boss)
                    boss.engine.machine.peer_down(process.name, self.clock.now())

    def _look_elsewhere(self, process: Process) -> None:
        if process.is_up and not process.is_paused:
            if process.key in self.lines.linked:
                process.engine.machine.peer_down(BOSS, self.clock.now())
            self.lines.hang_up(process.key)
            places = [place for place in self.places if place != process.key]
            now_at = self._tries[process.key].place
            self._try_at(process, places[(places.index(now_at) + 1) % len(places)] if now_at in places else places[0])

    # --- who is told -------------------------------------------------------------------------------------------------

    def sent_by(self, actor: Actor, effects: list[Effect]) -> None:
        super().sent_by(actor, effects)
        assert isinstance(actor, Process)
        for effect in effects:
            if effect.to == CLERK.address:
                self.clerk.hear(actor, effect.n, effect.message)

    def hear(self, n: int, message: AnyMessage) -> None:
        """Also which replica of the coordinator must not be promoted any more."""
        is_last = self._last_word.get(BOSS) == n and n in self._words_asked
        super().hear(n, message)
        if is_last and isinstance(message, Named):
            self.replaced.discard(self._named)
        elif is_last and isinstance(message, Fault):
            self.replaced = self._before

    def give_word(self, branch: str, replica: Process | None) -> None:
        if branch == BOSS and self.boss.is_up and not self.boss.is_paused:
            self._before = set(self.replaced)
            self._named = b"" if replica is None else replica.disk.instance
            self.replaced |= self._ever_named - {self._named}
            self._ever_named.add(self._named)
        super().give_word(branch, replica)

    # --- who takes its place -----------------------------------------------------------------------------------------

    def ask_to_lead(self, replica: Process) -> bool:
        """The operator asks a replica of the coordinator. It goes on for a moment before it does."""
        self.order()
        replica.take([(OFFICER, self._order, Promote(BOSS, replica.name, replica.disk.instance))])
        if isinstance(self.answer, Promoting):
            self.office.agreed(replica)
            if self.random.random() < 0.4:  # just now it could be heard again
                self.network.cuts = {ends for ends in self.network.cuts if replica.key not in ends}
            for _ in range(self.random.randint(0, 8)):
                self.deliver()
            if replica.is_up:
                replica.tick()
            return self.boss is replica
        if isinstance(self.answer, Fault):
            self.met[f"does not lead: {self.answer.code}"] += 1
        return False

    def take_over(self, replica: Process, promotion: TakesOver) -> None:
        if replica.of != BOSS:
            super().take_over(replica, promotion)
            return
        replica.crash()
        if self.random.random() < 0.1:
            replica.restart()
            return
        if replica.disk.instance in self.replaced:
            self._usurp(replica, promotion)
            return
        self.office.succeeds(replica)
        self._last_word.clear()  # who was not answered by now does not know
        roles._take_over(replica.path, replica.store.identity, promotion)
        self.boss = replica
        replica.become()
        replica.is_full = not self.is_calm and self.random.random() < 0.2

    def _usurp(self, replica: Process, promotion: TakesOver) -> None:
        """It leads, and should not. Branches find it, and once they have, all others."""
        self.usurper = replica
        roles._take_over(replica.path, replica.store.identity, promotion)
        replica.become()

    def doors(self, branch: str) -> list[Process]:
        return [process for process in super().doors(branch) if process is not self.usurper or self.is_found_out]

    @property
    def is_found_out(self) -> bool:
        """A branch has told the usurper that it is none."""
        usurper = self.usurper
        return usurper is not None and usurper.is_up and usurper.coordinator.closed is not None

    def wait_for_answer(self) -> None:
        """The answer waits for the coordinator's replica."""
        for _ in range(ANSWER_STEPS):
            while self.answer is None and self.deliver():
                pass
            if self.answer is not None:
                return
            self.pass_time(100_000)

    # --- what becomes of the former one ------------------------------------------------------------------------------

    def take_away(self, boss: Process, what: str) -> None:
        """The coordinator is `lost`, `killed`, `asleep`, or `cut off` from its replicas, and perhaps from others."""
        if what in ("lost", "killed"):
            boss.crash()
            boss.is_lost = True
        elif what == "asleep":
            boss.is_paused = True
        self.held.add(boss.key)
        self.cut_off.add(boss.key)
        for other in self.sites.values() if what == "cut off" else ():
            if other is not boss and self.random.random() < (0.8 if other.of == BOSS else 0.4):
                self.network.cut(other, boss, both_ways=self.random.random() < 0.7)

    def ask_to_go_on_alone(self, old: Process) -> None:
        """An operator says `none` to a former coordinator: it refuses that while no branch is there who would tell it."""
        is_awake = old.key in self.sites and old.is_up and not old.is_paused
        if is_awake and not self.lines.all_bound(old) and not any(frame.target is old for frame in self.network.frames):
            if self.say_none(old):
                raise Breach(f"{old.key} leads no more, and goes on alone")
            self.met["does not go on alone"] += isinstance(self.answer, Fault)

    def say_none(self, old: Process) -> bool:
        """An operator says `none` to the former coordinator, whom he alone may reach; True when it takes that."""
        old.take([(OFFICER, self.order(), NameAcks(BOSS, "", b""))])
        return isinstance(self.answer, Named)

    def bring_back(self, boss: Process) -> None:
        """It wakes up, or is started again; all hear it."""
        if boss.key in self.sites:
            boss.is_lost = False
            self.held.discard(boss.key)
            self.rejoin(boss)
            self.mend(boss)

    def lose(self, process: Process) -> None:
        super().lose(process)
        self.held.discard(process.key)

    def mend(self, process: Process) -> None:
        if process.key not in self.held:
            super().mend(process)

    def repair(self, old: Process) -> None:
        """The former coordinator's machine, with nothing on its disk: a replica of its successor, at the same place."""
        if old.key not in self.sites:
            return
        self.lose(old)
        key = f"again{len(self.ports)}"
        self.places = [key if place == old.key else place for place in self.places]
        self.register(self.start(key, key, REPLICA, BOSS))
        self.met["a former coordinator's machine follows"] += 1

    def rest(self) -> None:
        """A moment in which all goes well."""
        for _ in range(8):
            self.flush()
            self.pass_time(100_000)
            self.judge.look()

    def operate(self, branch: str) -> None:
        """Also about the coordinator's own replicas."""
        if branch != BOSS:
            super().operate(branch)
            return
        replicas = self.replicas(BOSS)
        if self.boss.key in self.held or not replicas:
            return
        if self.random.random() < 0.1:
            self.met["a replica of the coordinator begins anew"] += 1
            self.random.choice(replicas).begin_anew()
            return
        for _ in range(self.random.choice((1, 1, 2))):
            self.give_word(BOSS, self.random.choice([None, *replicas, *replicas, *replicas]))

    def make_ready(self, branch: str) -> None:
        super().make_ready(branch)
        for process in self.replicas(BOSS):
            self.mend(process)
            self.rejoin(process)
        if self.boss.is_up:
            self.name_who_is_there()

    def step(self) -> None:
        if self.random.random() < 0.04:
            self.clerk.work()
        super().step()

    @property
    def is_level(self) -> bool:
        linked = [one.key in self.lines.linked for one in self.sites.values() if one.role != COORDINATOR]
        return super().is_level and all(linked)

    def settle(self) -> None:
        for key in list(self.held):
            self.bring_back(self.sites[key])
        super().settle()
