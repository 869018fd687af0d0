"""A coordinator, its synchronous replica and two branches over real stores; the test carries what they say."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.transport.actors import INSTANCE, Desk, branch, pay
from tests.unit.protocol_support import BOSS, CUSTOMER, SECOND_US, from_branch, id_of
from zbank.apps import roles
from zbank.config import COORDINATOR_NAME, STANDBY_NAME
from zbank.protocol.branch_meta import CoordinatorMark
from zbank.protocol.following import ASK_EVERY_US, Follower, TakesOver
from zbank.protocol.machine import Effect, Sender
from zbank.protocol.messages import (
    CLIENT,
    COORDINATOR,
    REPLICA,
    AnyMessage,
    BranchInfo,
    GetRows,
    Promote,
    Promoting,
    Register,
    RegisterReplica,
)

THE_STANDBY = Sender(b"standby", REPLICA, STANDBY_NAME)
ASHA = Sender(b"operator", CLIENT, "asha")
BOTH = ("Mumbai", "Delhi")
PROMOTE = Promote(COORDINATOR_NAME, STANDBY_NAME, INSTANCE)


class Office:
    """`left`: all that left the coordinator to others than its replica. Nothing arrives by itself."""

    def __init__(self, folder: Path, wanted_acks: str = STANDBY_NAME) -> None:
        self.coordinator = Desk(COORDINATOR, COORDINATOR_NAME, folder, wanted_acks=wanted_acks)
        self.clock = self.coordinator.clock
        self.standby = Desk(REPLICA, COORDINATOR_NAME, folder, self.clock)
        self.branches = {name: branch(folder, "1", "2", name=name, clock=self.clock) for name in BOTH}
        self.zombie: Desk | None = None
        self.left: list[Effect] = []
        self.on_the_way: list[Effect] = []  #: to the replica
        self.count = 0

    def send(self, message: AnyMessage, sender: Sender = CUSTOMER) -> list[Effect]:
        """A turn of the coordinator; gives what left at once."""
        self.count += 1
        return self.sort(self.coordinator.turn((sender, self.count, message)))

    def sort(self, effects: list[Effect]) -> list[Effect]:
        """Tell apart what is for the replica."""
        rest = [effect for effect in effects if effect.to != THE_STANDBY.address]
        self.on_the_way += [effect for effect in effects if effect.to == THE_STANDBY.address]
        self.left += rest
        return rest

    def exchange(self) -> list[Effect]:
        """Let rows and acknowledgements go to and fro until nothing moves any more; gives what left by that."""
        before = len(self.left)
        while self.on_the_way:
            for said in self.replica_hears():
                self.send(said, THE_STANDBY)
        return self.left[before:]

    def replica_hears(self) -> list[AnyMessage]:
        """The replica takes what is on the way; gives what it says to the coordinator, which has not heard it."""
        answers, self.on_the_way = self.on_the_way, []
        effects = [effect for answer in answers for effect in self.standby.turn((BOSS, 0, answer.message))]
        return [effect.message for effect in effects if effect.to == COORDINATOR_NAME]

    def tick(self, after_us: int = ASK_EVERY_US) -> list[Effect]:
        """Time passes at both; then they talk. Gives what left."""
        before = len(self.left)
        for effect in self.standby.tick(after_us):
            if isinstance(effect.message, GetRows | RegisterReplica):
                self.send(effect.message, THE_STANDBY)
        self.sort(self.coordinator.tick(0))
        self.exchange()
        return self.left[before:]

    def alone(self, after_us: int = ASK_EVERY_US) -> list[Effect]:
        """Time passes at the coordinator, which does not reach its replica."""
        return self.sort(self.coordinator.tick(after_us))

    def join_standby(self) -> list[Effect]:
        """The replica registers, becomes the synchronous one and has all rows; gives what left to others by that."""
        before = len(self.left)
        self.send(self.standby_registration(), THE_STANDBY)
        self.exchange()
        for _ in range(4):
            self.tick()
        return self.left[before:]

    def standby_registration(self) -> RegisterReplica:
        """What the replica says of where it stands."""
        machine = self.standby.engine.machine
        assert isinstance(machine, Follower)
        return RegisterReplica(machine.info(self.clock.now()))

    def register(self, name: str) -> list[Effect]:
        """A branch comes to the coordinator, and hears what leaves it at once."""
        return self.hear(self.send(self.registration(name), from_branch(name)))

    def registration(self, name: str) -> Register:
        """What a branch says to join."""
        desk = self.branches[name]
        info = BranchInfo(name, f"tcp://{name}:9100", "INR", name.ljust(16).encode(), desk.store.epoch, True)
        mark = desk.branch.coordinators.get(COORDINATOR_NAME, CoordinatorMark(0, 0))
        return Register(info, mark.epoch, mark.number, "", mark.word)

    def hear(self, effects: list[Effect]) -> list[Effect]:
        """Branches take what is for them; their answers go to the coordinator. Gives what left that by it."""
        before = len(self.left)
        for effect in effects:
            if isinstance(effect.to, str) and effect.to in self.branches:
                for answer in self.branches[effect.to].turn((BOSS, 0, effect.message)):
                    if answer.to == COORDINATOR_NAME:
                        self.send(answer.message, from_branch(effect.to))
        return self.left[before:]

    def until_told(self, effects: list[Effect]) -> list[Effect]:
        """Go on until nothing moves any more between all of them; gives what left to clients."""
        told: list[Effect] = []
        while effects:
            told += [effect for effect in effects if isinstance(effect.to, bytes)]
            effects = [*self.hear(effects), *self.exchange()]
        return told

    def pay(self, n: int) -> list[Effect]:
        """The n-th payment from branch to branch; gives what left at once."""
        return self.send(pay(n, "Mumbai/1", "Delhi/1", 10))

    def decide(self, n: int) -> None:
        """The n-th payment is decided: forced at the coordinator, and nothing of it has left."""
        self.tick()
        self.hear(self.pay(n))
        assert id_of(n) in self.coordinator.coordinator.open

    def promote(self) -> None:
        """The coordinator is not heard any more, and an operator asks the replica to lead. `zombie` is the old one then."""
        for after_us in (0, 4 * SECOND_US):  # it may just have been started
            self.standby.tick(after_us)
        assert isinstance(self.ask_standby(PROMOTE), Promoting)
        with pytest.raises(TakesOver) as takes_over:
            self.standby.tick(0)
        path, identity = self.standby.path, self.standby.identity
        self.standby.store.close()
        roles._take_over(path, identity, takes_over.value)
        self.zombie = self.coordinator
        self.coordinator = Desk(COORDINATOR, COORDINATOR_NAME, path.parent, self.clock, STANDBY_NAME, path.stem)

    def ask_standby(self, message: AnyMessage, sender: Sender = ASHA) -> AnyMessage:
        """What the replica answers to whom asks it."""
        (answer,) = (effect.message for effect in self.standby.turn((sender, 1, message)) if effect.n)
        return answer

    def close(self) -> None:
        """Close all stores."""
        for desk in (self.coordinator, self.standby, self.zombie, *self.branches.values()):
            if desk is not None:
                desk.store.close()


def opened(folder: Path) -> Office:
    """Two branches, and a replica that has all."""
    office = Office(folder)
    office.join_standby()
    for name in office.branches:
        office.register(name)
        office.until_told(office.tick())
    office.left.clear()
    return office


@pytest.fixture
def office(tmp_path: Path) -> Iterator[Office]:
    """The same."""
    with closing(opened(tmp_path)) as found:
        yield found
