"""The real state machines joined over a network in memory that loses, repeats and reorders, with crashes: all by one seed.

The forerunner of the simulator: no store, no sockets; each actor is a `Desk`, whose journal is a list.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import NamedTuple

from tests.unit.cluster_verdicts import Verdicts
from tests.unit.protocol_support import (
    BRANCHES,
    SECOND_US,
    BranchDesk,
    Desk,
    Incoming,
    TestClock,
    branch_desk,
    check_books,
    coordinator_desk,
    from_branch,
    id_of,
    register,
)
from zbank.domain.legs import CLEARING, Leg, branches_of, home_branch
from zbank.protocol.branch_state import CoordinatorMark
from zbank.protocol.machine import Effect, Sender
from zbank.protocol.messages import (
    BRANCH,
    CLIENT,
    COORDINATOR,
    AnyMessage,
    Cancel,
    ChangeAccount,
    Fault,
    Outcome,
    Transfer,
)

COORDINATORS = ("coordinator", "second")
NUMBERS = ("1001", "1002", "1003")
START_MINOR = 100
CUSTOMERS = Sender(b"customers", CLIENT, "")
NO_ROOM = Fault(code="storage_full", detail="no room")
MAX_IN_NETWORK = 150
MAX_DELAY_US = 12 * SECOND_US
HEAL_LIMIT_US = 60 * SECOND_US

FORCED, LOST, UNSENT, FULL = "forced", "crash before the force", "crash after the force", "disk full at the force"


class Flight(NamedTuple):
    """A message on its way to an actor."""

    to: str
    incoming: Incoming
    due_us: int  #: monotonic: not there before


class MemoryCluster:
    """Three branches, two coordinators, customers that ask again until they are told."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.clock = TestClock()
        self.branches = {name: self._branch(name) for name in BRANCHES}
        self.coordinators = {name: coordinator_desk(name, clock=self.clock) for name in COORDINATORS}
        self.verdicts = Verdicts()
        self.transfers: dict[bytes, Transfer] = {}
        self._asked: dict[int, bytes] = {}  #: by envelope number, the id that was asked for
        self._network: list[Flight] = []
        self._down: set[str] = set()
        self._paused: set[str] = set()  #: alive, but their loop does not turn
        self._links: set[tuple[str, str]] = set()  #: (branch, coordinator) that hear each other
        for branch in self.branches:
            for coordinator in self.coordinators:
                self._link(branch, coordinator)

    def _branch(self, name: str) -> BranchDesk:
        return branch_desk(name, dict.fromkeys(NUMBERS, START_MINOR), clock=self.clock)

    def desk(self, name: str) -> Desk:
        """The actor of that name."""
        return self.branches.get(name) or self.coordinators[name]

    # --- an actor's turn -------------------------------------------------------------------------------------------

    def _turn(self, name: str, batch: list[Incoming], fate: str = FORCED) -> None:
        desk = self.desk(name)
        effects = desk.decide(batch)
        if fate == FULL:
            desk.roll_back()
            effects = [e for incoming in batch for e in desk.machine.decline(*incoming, NO_ROOM)]
        elif fate == LOST:
            self._crash(name)
            return
        self._forced(name, desk)
        if fate == UNSENT:
            self._crash(name)
            return
        self._post(name, effects)

    def _forced(self, name: str, desk: Desk) -> None:
        for line in desk.force():
            self.verdicts.judge(name, line.record)
        if isinstance(desk, BranchDesk):
            check_books(desk.state)

    def _post(self, name: str, effects: list[Effect]) -> None:
        sender = Sender(name, BRANCH if name in self.branches else COORDINATOR, name)
        for effect in effects:
            if isinstance(effect.to, bytes):
                self._told(effect.n, effect.message)
            else:
                self._launch(effect.to, (sender, effect.n, effect.message))

    def _launch(self, to: str, incoming: Incoming) -> None:
        slow = self.chance.random() < 0.25
        due_us = self.clock.now().mono_us + (self.chance.randint(0, MAX_DELAY_US) if slow else 0)
        self._network.append(Flight(to, incoming, due_us))

    def _tick(self, name: str) -> None:
        if name not in self._down | self._paused:
            desk = self.desk(name)
            seen = len(desk.lines)
            effects = desk.tick()
            for line in desk.lines[seen:]:
                self.verdicts.judge(name, line.record)
            self._post(name, effects)

    # --- faults ----------------------------------------------------------------------------------------------------

    def _crash(self, name: str) -> None:
        self._down.add(name)
        self._paused.discard(name)
        self._silence(name)

    def _silence(self, name: str) -> None:
        """Its peers hear nothing of it any more."""
        for branch, coordinator in list(self._links):
            if name in (branch, coordinator):
                self._cut(branch, coordinator)

    def _restart(self, name: str) -> None:
        self._down.discard(name)
        if name in self.branches:
            self.branches[name] = self.branches[name].restarted()
        else:
            self.coordinators[name] = self.coordinators[name].restarted()

    def _cut(self, branch: str, coordinator: str) -> None:
        self._links.discard((branch, coordinator))
        self.branches[branch].machine.peer_down(coordinator)
        self.coordinators[coordinator].machine.peer_down(branch)

    def _link(self, branch: str, coordinator: str) -> None:
        if {branch, coordinator} & (self._down | self._paused) or (branch, coordinator) in self._links:
            return
        state = self.branches[branch].state
        mark = state.coordinators.get(coordinator, CoordinatorMark(0, 0))
        joining = register(
            branch, epoch=state.epoch, coordinator_epoch=mark.epoch, coordinator_number=mark.number
        )
        assert self.coordinators[coordinator].coordinator.directory.refuse(joining) is None
        self._links.add((branch, coordinator))
        self._turn(coordinator, [(from_branch(branch), 0, joining)])

    # --- customers -------------------------------------------------------------------------------------------------

    def _new_transfer(self) -> Transfer:
        chance = self.chance
        places = [(branch, number) for branch in chance.sample(BRANCHES, chance.choice((1, 2, 2, 3))) for number in NUMBERS]
        amounts = [chance.randint(1, 80) for _ in range(chance.choice((1, 1, 2, 3)))]
        legs: list[Leg] = []
        for amount_minor, (branch, number) in zip(amounts, chance.sample(places, len(amounts)), strict=False):
            legs.append(Leg(branch, number, chance.choice((-1, 1, -1)) * amount_minor))
        rest = [place for place in places if place not in {(leg.branch, leg.number) for leg in legs}]
        total = sum(leg.amount_minor for leg in legs)
        if total:
            legs.append(Leg(*(chance.choice(rest) if rest else (BRANCHES[0], "1001")), -total))
        return Transfer(id_of(len(self.transfers) + 1), tuple(legs), "INR")

    def _ask(self, message: Transfer | Cancel | ChangeAccount, door: str) -> None:
        n = len(self._asked) + 1
        self._asked[n] = message.id
        self._launch(door, (CUSTOMERS, n, message))

    def _ask_for(self, id: bytes) -> None:
        """Ask for a transfer at one of the doors that can do it."""
        message = self.transfers[id]
        branches = branches_of(message.legs)
        doors = [*COORDINATORS, *(branches if len(branches) == 1 else ())]
        for door in self.chance.sample(doors, self.chance.choice((1, 2))):
            self._ask(message, door)

    def _told(self, n: int, message: AnyMessage) -> None:
        assert isinstance(message, Outcome | Fault), f"customers cannot use {message}"
        if isinstance(message, Outcome):
            assert message.id == self._asked[n], f"asked for {self._asked[n]!r}, told of {message.id!r}"
            self.verdicts.told(message)

    # --- a run -----------------------------------------------------------------------------------------------------

    def step(self) -> None:
        """One thing happens, chosen by chance."""
        acts: dict[Callable[[], None], int] = {
            self._deliver_some: 60,
            self._time_passes: 14,
            self._customer_acts: 9,
            self._network_fails: 8,
            self._link_some: 8,
            self._actor_fails: 4,
        }
        (act,) = self.chance.choices(list(acts), list(acts.values()))
        act()

    def _deliver_some(self) -> None:
        now_us = self.clock.now().mono_us
        there = [flight for flight in self._network if flight.due_us <= now_us and flight.to not in self._paused]
        if not there:
            return
        to = self.chance.choice(there).to
        there = [flight for flight in there if flight.to == to]
        chosen = self.chance.sample(there, min(len(there), self.chance.choice((1, 1, 2, 4, 7))))
        for flight in chosen:
            self._network.remove(flight)
        if to not in self._down:
            (fate,) = self.chance.choices((FORCED, LOST, UNSENT, FULL), (100, 1, 1, 1))
            self._turn(to, [flight.incoming for flight in chosen], fate)

    def _time_passes(self) -> None:
        self.clock.advance(self.chance.choice((10, 50, 200, 500, 3000)) * 1000)
        for name in (*self.branches, *self.coordinators):
            if self.chance.random() < 0.6:
                self._tick(name)

    def _customer_acts(self) -> None:
        chance = self.chance
        act = chance.random()
        if act < 0.45 or not self.transfers:
            message = self._new_transfer()
            if len(message.legs) > 1:
                self.transfers[message.id] = message
                self._ask_for(message.id)
        elif act < 0.88:
            self._ask_for(chance.choice(list(self.transfers)[-6:]))
        elif act < 0.92:
            message = self.transfers[chance.choice(list(self.transfers)[-6:])]
            self._ask(Cancel(message.id), home_branch(message.legs))
        else:
            change = ChangeAccount(
                id_of(10**6 + len(self._asked)), chance.choice(NUMBERS), chance.choice(("open", "open", "frozen")), -1
            )
            self._ask(change, chance.choice(BRANCHES))

    def _network_fails(self) -> None:
        if self._network:
            place = self.chance.randrange(len(self._network))
            if self.chance.random() < 0.5 or len(self._network) > MAX_IN_NETWORK:
                del self._network[place]
            else:
                self._network.append(self._network[place])

    def _link_some(self) -> None:
        self._link(self.chance.choice(BRANCHES), self.chance.choice(COORDINATORS))

    def _actor_fails(self) -> None:
        act = self.chance.random()
        name = self.chance.choice([*self.branches, *self.coordinators])
        if name in self._down:
            self._restart(name)
        elif name in self._paused:
            self._paused.discard(name)
        elif act < 0.2:
            self._crash(name)
        elif act < 0.4:
            self._paused.add(name)
            self._silence(name)
        elif act < 0.6 and self._links:
            self._cut(*self.chance.choice(sorted(self._links)))
        elif self._down:
            self._restart(self.chance.choice(sorted(self._down)))

    # --- the end ---------------------------------------------------------------------------------------------------

    def heal(self) -> None:
        """No faults from here on; customers ask until they are told, and everything must come to rest."""
        self._paused.clear()
        for name in sorted(self._down):
            self._restart(name)
        for branch in BRANCHES:
            for number in NUMBERS:
                self._ask(ChangeAccount(id_of(10**6 + len(self._asked)), number, "open", -1), branch)
        start_us = self.clock.now().mono_us
        while not self._at_rest():
            waited_us = self.clock.now().mono_us - start_us
            assert waited_us < HEAL_LIMIT_US, f"not at rest: {self._unrest()}"
            if waited_us % SECOND_US == 0:
                for id in self.verdicts.untold(self.transfers):
                    self._ask_for(id)
            for branch in self.branches:
                for coordinator in self.coordinators:
                    self._link(branch, coordinator)
            self._deliver_all()
            self.clock.advance(100_000)
            for name in (*self.branches, *self.coordinators):
                self._tick(name)

    def _deliver_all(self) -> None:
        flights, self._network = self._network, []
        for name in (*self.branches, *self.coordinators):
            batch = [flight.incoming for flight in flights if flight.to == name]
            if batch:
                self._turn(name, batch)

    def _at_rest(self) -> bool:
        return not self._unrest()

    def _unrest(self) -> list[str]:
        found = [f"{len(self._network)} messages on their way"] if self._network else []
        found += [f"{id.hex()} was not told" for id in self.verdicts.untold(self.transfers)]
        for name, branch in self.branches.items():
            found += [f"{name} is in doubt of {held.txn}" for held in branch.state.prepared.values()]
        for name, coordinator in self.coordinators.items():
            found += [f"{name} is not done with {id.hex()}" for id in coordinator.state.open]
        return found

    def check_end(self) -> None:
        """Balances are what the told outcomes say, clearing cancels, and each journal gives the state that is there."""
        balances = {(branch, number): START_MINOR for branch in BRANCHES for number in NUMBERS}
        for id, message in self.transfers.items():
            if self.verdicts.is_committed(id):
                for leg in message.legs:
                    balances[leg.branch, leg.number] += leg.amount_minor
        assert balances == {(b, n): self.branches[b].balance(n) for b in BRANCHES for n in NUMBERS}
        assert sum(branch.balance(CLEARING) for branch in self.branches.values()) == 0
        for branch in self.branches.values():
            again = branch.restarted().state
            assert again.book.accounts == branch.state.book.accounts
            assert again.settled == branch.state.settled
            assert again.tombstones == branch.state.tombstones
