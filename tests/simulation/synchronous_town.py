"""The bank of `synchronous`: two branches, their replicas, a coordinator, an operator; who is there, and who hears whom."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from random import Random

from tests.simulation.failover_actor import BOSS, DELHI, MUMBAI, Actor
from tests.simulation.synchronous_customers import Customers
from tests.simulation.synchronous_judge import Judge, Told
from tests.simulation.synchronous_lines import Lines
from tests.simulation.synchronous_network import Frame, Network
from tests.simulation.synchronous_process import CUSTOMER, Disk, Process, dialled_by
from tests.transport.actors import SetClock
from tests.unit.protocol_support import id_of
from zbank.apps import roles
from zbank.domain.legs import CASH, Leg
from zbank.protocol.following import TakesOver
from zbank.protocol.machine import Effect, Sender
from zbank.protocol.messages import (
    BRANCH,
    CLIENT,
    COORDINATOR,
    FEED,
    REPLICA,
    AckedBy,
    AnyMessage,
    Directory,
    Fault,
    NameAcks,
    Named,
    OpenAccount,
    Promoting,
    Register,
    Registered,
    RegisterReplica,
    ReplicaInfo,
    Rows,
    Transfer,
)

OFFICER = Sender(b"officer", CLIENT, "officer")
SILENT_US = 3_000_000  #: a connection that is not heard of for so long is over


class Town:
    """One seed."""

    def __init__(self, seed: int, folder: Path) -> None:
        self.random = random = Random(seed)
        self.folder = folder
        self.clock = SetClock()
        self.met: Counter[str] = Counter()
        self.network = Network(random)
        self.sites: dict[str, Process] = {}  #: by machine
        self.ports: dict[str, int] = {}
        self.wanted: dict[str, str] = {}  #: by branch: the synchronous replica that its config wants
        self.config: dict[str, str] = {}  #: where the branches are, by the config
        self.lines = Lines()
        self.cut_off: set[str] = set()  #: machines of branches that the coordinator does not reach
        self.is_calm = False  #: no faults any more
        self.is_quiet: set[str] = set()  #: branches that the operator leaves as they are
        self.answer: AnyMessage | None = None  #: to the officer
        self.promoting: dict[int, ReplicaInfo] = {}  #: by the operator's question: whom he wants promoted
        self._order = 0
        self._words_asked: dict[int, tuple[str, AckedBy | None]] = {}  #: by his question: for whom, and the word he knew
        self._last_word: dict[str, int] = {}  #: for whom: his last such question
        self._disks: dict[bytes, Disk] = {}
        self.judge = self.make_judge()
        self.customers = Customers(self)
        self.boss = self.start(BOSS, BOSS, COORDINATOR)  #: the coordinator by right
        self.judge.told[BOSS] = Told(self.boss.disk)
        for name in (MUMBAI, DELHI):
            branch = self.start(name, name, BRANCH)
            self.config[name] = branch.endpoint
            self.judge.told[name] = Told(branch.disk)
            self._open_accounts(branch)
        self.set_up_replicas()

    def make_judge(self) -> Judge:
        """Who looks at all of it."""
        return Judge(self)

    def set_up_replicas(self) -> None:
        """Mumbai has two, Delhi perhaps one; the config wants one as the synchronous one, or an operator names it."""
        random = self.random
        places = [("copy", MUMBAI), ("spare", MUMBAI), *([("far", DELHI)] if random.random() < 0.5 else [])]
        for key, of in places:
            self.start(key, key, REPLICA, of)
        for key, of in (places[0], *places[2:]):
            if random.random() < 0.6:
                self.wanted[of] = key
        self.begin()
        for key, of in (places[0], *places[2:]):
            if of not in self.wanted:
                self.give_word(of, self.sites[key])

    def begin(self) -> None:
        """All come to the coordinator."""
        for process in list(self.sites.values()):
            if process is not self.boss:
                process.restart()
                self.register(process)

    def start(self, key: str, name: str, role: str, of: str = "") -> Process:
        """A new machine."""
        self.ports[key] = 9_000 + len(self.ports)
        self.sites[key] = process = Process(self, key, name, role, of)
        return process

    def _open_accounts(self, branch: Process) -> None:
        for n, number in enumerate(("1", "2")):
            first = 90_000 + n + (10 if branch.name == MUMBAI else 0)
            legs = (Leg(branch.name, CASH, -1_000), Leg(branch.name, number, 1_000))
            opened, paid_in = OpenAccount(id_of(first), number, "", "", 0), Transfer(id_of(first + 100), legs, "INR")
            branch.engine.turn([(CUSTOMER, 0, opened), (CUSTOMER, 0, paid_in)], self.clock.now())

    @property
    def branches(self) -> list[str]:
        """Their names."""
        return list(self.config)

    # --- who is there --------------------------------------------------------------------------------------------------

    def disk(self, instance: bytes) -> Disk:
        """The disk of a store, as it was made."""
        return self._disks.setdefault(instance, Disk(instance))

    def doors(self, branch: str) -> list[Process]:
        """Who says that it is this branch; "" = the coordinator."""
        if not branch:
            return [process for process in self.sites.values() if process.role == COORDINATOR]
        return [process for process in self.sites.values() if (process.role, process.name) == (BRANCH, branch)]

    def serving(self, branch: str) -> Process | None:
        """Who is this branch by right; None while a replica does not know yet that it is."""
        return next((one for one in self.doors(branch) if one.disk is self.judge.told[branch].holder), None)

    def replicas(self, branch: str) -> list[Process]:
        """Its replicas."""
        return [process for process in self.sites.values() if (process.role, process.of) == (REPLICA, branch)]

    def at(self, endpoint: str) -> Process | None:
        """Who listens there."""
        return next((process for process in self.sites.values() if process.endpoint == endpoint), None)

    def directory(self) -> Directory | None:
        """As the coordinator would tell it now."""
        return self.boss.coordinator.directory.answer(self.clock.now()) if self.boss.is_up else None

    def talk(self, one: Process, other: Process) -> bool:
        """Both run, and hear each other."""
        awake = all(process.is_up and not process.is_paused and not process.is_lost for process in (one, other))
        return awake and self.network.is_open(one, other)

    # --- the network ---------------------------------------------------------------------------------------------------

    def started(self, actor: Actor) -> None:
        """Its connections are over."""
        assert isinstance(actor, Process)
        if actor.role == COORDINATOR:
            self.lines.end(actor)
        else:
            self.lines.hang_up(actor.key)

    def dialled(self, process: Process) -> Process | None:
        """Whom it takes for its coordinator: who is at the place where it tries."""
        return self.boss

    def publish(self, actor: Actor, message: Rows) -> None:
        """By way of the coordinator's machine."""
        assert isinstance(actor, Process)
        for replica in self.replicas(actor.name):
            if self.network.is_open(actor, self.boss) and self.network.is_open(self.boss, replica):
                frame = Frame(actor, replica, Sender("", FEED, ""), [(0, message)], replica.life)
                self.network.send(frame, self.network.feed_loss)

    def request(self, target: Process, sender: Sender, n: int, message: AnyMessage) -> None:
        """Of a customer."""
        self.network.send(Frame(None, target, sender, [(n, message)], target.life))

    def sent_by(self, actor: Actor, effects: list[Effect]) -> None:
        """Frames to actors go on their way, answers to customers arrive."""
        assert isinstance(actor, Process)
        frames: dict[object, list[tuple[int, AnyMessage]]] = {}
        for effect in effects:
            if actor.role != REPLICA:
                self.judge.leaves(actor, effect)
            frames.setdefault(effect.to, []).append((effect.n, effect.message))
        for to, envelopes in frames.items():
            if to == CUSTOMER.address:
                for n, message in envelopes:
                    self.customers.hear(actor, n, message)
            elif to == OFFICER.address:
                for n, message in envelopes:
                    self.hear(n, message)
            elif isinstance(to, bytes):
                self._send_back(actor, to, envelopes)
            elif isinstance(to, str):
                self._send_to(actor, to, envelopes)

    def _send_back(self, source: Process, route: bytes, envelopes: list[tuple[int, AnyMessage]]) -> None:
        """To who dialled, if that connection still stands."""
        target = self.sites.get(dialled_by(route))
        if target is not None and self.network.route(target, source) == route:
            self._send(Frame(source, target, Sender(source.name, source.role, source.name), envelopes, target.life))

    def _send_to(self, source: Process, name: str, envelopes: list[tuple[int, AnyMessage]]) -> None:
        """To an actor of this name."""
        sender = Sender(source.name, source.role, source.name)
        if source.role == COORDINATOR:
            target = self.lines.bound(source, name)
        elif name == BOSS:
            target = self.lines.calling[source.key] if source.key in self.lines.linked else None
        else:
            target = self.at(source.endpoints.get(name, ""))
        if target is None or target is source:
            return
        if source.role != COORDINATOR and (source.role, name) != (BRANCH, BOSS):
            sender = sender._replace(address=self.network.route(source, target))
        self._send(Frame(source, target, sender, envelopes, target.life))

    def _send(self, frame: Frame) -> None:
        lost = self.network.send(frame)
        if lost is not None and lost.source is not None and lost.source.role == COORDINATOR:  # connections lose nothing
            self.lines.hang_up(lost.target.key)

    def deliver(self) -> bool:
        """Something arrives, if anything can."""
        taken = self.network.take()
        if taken is None:
            return False
        target, frames = taken
        batch = []
        for frame in frames:
            if not self.arrives(frame):
                continue
            for n, message in frame.envelopes:
                if isinstance(message, Registered) and frame.source is not None:
                    self.lines.answered(target, frame.source)
                    target.learn(message)
                batch.append((frame.sender, n, message))
        if batch and target.is_up:
            target.take(batch)
        return True

    def arrives(self, frame: Frame) -> bool:
        """Not what came over a connection that is closed by now."""
        source, target = frame.source, frame.target
        is_of_branch = source is not None and target.role == REPLICA and frame.sender.role == BRANCH
        return not is_of_branch or source is self.at(target.endpoints.get(target.of, ""))

    def register(self, process: Process) -> None:
        """As the loop does after a connection to the coordinator was made."""
        boss = self.dialled(process)
        if process.role == COORDINATOR or boss is None or boss.role != COORDINATOR or not self.talk(process, boss):
            return
        self.lines.call(process, boss)
        message = process.registration()
        if isinstance(message, RegisterReplica):
            boss.take([(Sender(self.network.route(process, boss), REPLICA, process.name), 0, message)])
            return
        assert isinstance(message, Register)
        fault = boss.coordinator.directory.refuse(message)
        if fault is None:
            self.lines.bind(process, boss)
            boss.take([(Sender(process.name, BRANCH, process.name), 0, message)])
            return
        self.turn_away(process, boss, fault)

    def turn_away(self, process: Process, boss: Process, fault: Fault) -> None:
        """A branch is refused."""
        self.refused(process, fault)

    def refused(self, process: Process, fault: Fault) -> None:
        """A branch hears that: its process ends."""
        self.met[f"refused: {fault.code}"] += 1
        if fault.code == "superseded":
            self.lose(process)
        else:
            process.crash()

    # --- time ----------------------------------------------------------------------------------------------------------

    def pass_time(self, span_us: int) -> None:
        """All clocks go on; who is silent for too long is given up, who is not linked calls again."""
        self.clock.advance(span_us)
        for process in list(self.sites.values()):
            if process.is_up and not process.is_paused:
                process.tick()
        self.listen()
        for process in list(self.sites.values()):
            if process.key not in self.lines.linked:
                self.register(process)

    def listen(self) -> None:
        """Who is silent for too long is given up."""
        now_us = self.clock.now().mono_us
        for process in list(self.sites.values()):
            if process is self.boss or self.talk(process, self.boss):
                self.lines.heard_us[process.key] = now_us
            elif now_us - self.lines.heard_us.get(process.key, 0) > SILENT_US:
                self._unlink(process)

    def _unlink(self, process: Process) -> None:
        """Each takes the other for gone."""
        boss = self.dialled(process)
        self.lines.hang_up(process.key)
        if process.is_up and not process.is_paused:
            process.engine.machine.peer_down(BOSS, self.clock.now())
        if boss is not None and boss.is_up and not boss.is_paused and self.lines.unbind(process, boss):
            boss.engine.machine.peer_down(process.name, self.clock.now())

    # --- ends and beginnings ------------------------------------------------------------------------------------------

    def lose(self, process: Process) -> None:
        """The machine is no more, or its process has ended for good."""
        process.crash()
        process.is_lost = True
        del self.sites[process.key]
        self.cut_off.discard(process.key)
        self._unlink(process)

    def take_over(self, replica: Process, promotion: TakesOver) -> None:
        """A replica has heard that it is the branch. It may die before that stands in its file: it is told again."""
        replica.crash()
        if self.random.random() < 0.1:
            replica.restart()
            return
        for info in list(self.promoting.values()):
            if info.instance == replica.disk.instance:  # the operator was not told yet
                self._promoted(info)
        roles._take_over(replica.path, replica.store.identity, promotion)
        replica.become()
        replica.is_full = not self.is_calm and self.random.random() < 0.4
        self.met["took over"] += 1
        key = f"new{len(self.ports)}"
        self.start(key, key, REPLICA, replica.of)

    # --- the operator ----------------------------------------------------------------------------------------------

    def order(self) -> int:
        """The number of what the operator asks next."""
        self._order += 1
        self.answer = None
        return self._order

    def hear(self, n: int, message: AnyMessage) -> None:
        """The operator is answered."""
        self.answer = message
        info = self.promoting.pop(n, None)
        if info is not None and isinstance(message, Promoting):
            self._promoted(info)
        branch, before = self._words_asked.pop(n, ("", None))
        if self._last_word.get(branch) != n:  # he has asked for another one since
            return
        if isinstance(message, Named):
            self.judge.words[branch] = message.acks
            serving = self.serving(branch)
            self.met["words"] += 1
            is_away = branch != BOSS and (serving is None or not self.talk(serving, self.boss))
            self.met["words that the branch cannot hear yet"] += is_away
        elif isinstance(message, Fault):
            self.met["words refused"] += 1
            if before is not None:
                self.judge.words[branch] = before

    def _promoted(self, info: ReplicaInfo) -> None:
        self.promoting = {n: other for n, other in self.promoting.items() if other.of != info.of}
        self.judge.promoted(info)

    def give_word(self, branch: str, replica: Process | None) -> None:
        """The operator's word on the synchronous replica. Until he is answered he does not know which one holds."""
        if self.boss.is_paused or not self.boss.is_up:
            return
        name, instance = ("", b"") if replica is None else (replica.name, replica.disk.instance)
        n = self.order()
        self._words_asked[n] = branch, self.judge.words.pop(branch, None)
        self._last_word[branch] = n
        self.boss.take([(OFFICER, n, NameAcks(branch, name, instance))])
