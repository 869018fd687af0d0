"""Two coordinators and one id: home arbitrates, and both tell the same (PROTOCOL P2, P3, P6, P7).

Real state machines, messages delivered by hand; every interleaving that matters has its own test.
"""

from __future__ import annotations

import pytest

from tests.unit.protocol_support import (
    BRANCHES,
    CUSTOMER,
    SECOND_US,
    BranchDesk,
    CoordinatorDesk,
    Desk,
    TestClock,
    branch_desk,
    check_books,
    coordinator_desk,
    id_of,
    legs_of,
    transfer,
)
from zbank.domain.legs import home_branch
from zbank.protocol.machine import Effect, Sender
from zbank.protocol.messages import (
    ABORTED,
    BRANCH,
    COMMITTED,
    COORDINATOR,
    AnyMessage,
    Cancel,
    ChangeAccount,
    Fault,
    Outcome,
    Prepare,
    Registered,
)

FIRST, SECOND = "coordinator", "second"
PAYING = transfer(1, legs_of(Mumbai_1001=-80, Delhi_1001=80))  # home is Mumbai
HOME, AWAY = "Mumbai", "Delhi"


class Bank:
    """Branches, two coordinators, and messages that wait until the test lets them go."""

    def __init__(self) -> None:
        clock = TestClock()
        self.clock = clock
        self.branches: dict[str, BranchDesk] = {name: branch_desk(name, {"1001": 100}, clock=clock) for name in BRANCHES}
        self.coordinators: dict[str, CoordinatorDesk] = {
            name: coordinator_desk(name, clock=clock).joined() for name in (FIRST, SECOND)
        }
        self.waiting: list[tuple[str, Effect]] = []  #: (from, what)
        self.told: dict[str, list[AnyMessage]] = {FIRST: [], SECOND: []}
        for branch in self.branches.values():
            for name in self.coordinators:
                branch.send(Registered(name, 1, ()), Sender(name, COORDINATOR, name))

    def ask(self, coordinator: str) -> None:
        """A customer asks this coordinator for the transfer."""
        self._collect(coordinator, self.coordinators[coordinator].send(PAYING, CUSTOMER, 5))

    def _collect(self, name: str, effects: list[Effect]) -> None:
        for effect in effects:
            if isinstance(effect.to, bytes):
                self.told[name].append(effect.message)
            else:
                self.waiting.append((name, effect))

    def deliver(self, source: str, to: str) -> int:
        """Let all that waits from `source` for `to` arrive; gives how many those were."""
        chosen = [item for item in self.waiting if (item[0], item[1].to) == (source, to)]
        self.waiting = [item for item in self.waiting if item not in chosen]
        if to not in self.branches | self.coordinators:
            return 0  # it is dead
        role = BRANCH if source in self.branches else COORDINATOR
        desk: Desk = self.branches[to] if to in self.branches else self.coordinators[to]
        self._collect(to, desk.turn([(Sender(source, role, source), e.n, e.message) for _, e in chosen]))
        return len(chosen)

    def deliver_all(self) -> None:
        """Until nothing waits."""
        while self.waiting:
            source, effect = self.waiting[0]
            assert isinstance(effect.to, str)
            self.deliver(source, effect.to)

    def tick(self, duration_us: int) -> None:
        """Time passes for all."""
        self.clock.advance(duration_us)
        for name, desk in (self.branches | self.coordinators).items():
            self._collect(name, desk.tick())

    def settle(self) -> None:
        """Time passes until all is quiet."""
        for _ in range(80):
            self.deliver_all()
            self.tick(SECOND_US // 10)
        self.deliver_all()

    def outcomes(self) -> list[tuple[str, str]]:
        """Status and refusal code of everything that was told; faults by their code."""
        found = []
        for message in (*self.told[FIRST], *self.told[SECOND]):
            if isinstance(message, Fault):
                found.append(("fault", message.code))
            else:
                assert isinstance(message, Outcome)
                found.append((message.status, message.refusal.code if message.refusal else ""))
        return found

    def check(self, home_minor: int, away_minor: int) -> None:
        """The balances at both ends, and that nothing is left open."""
        assert (self.branches[HOME].balance("1001"), self.branches[AWAY].balance("1001")) == (home_minor, away_minor)
        assert sum(branch.balance("clearing") for branch in self.branches.values()) == 0
        for branch in self.branches.values():
            assert branch.state.prepared == {}
            check_books(branch.state)
        assert all(coordinator.state.open == {} for coordinator in self.coordinators.values())


def test_home_is_the_branch_of_the_first_debit() -> None:
    """P2: by account name, whatever the order of the legs, and the same for everybody."""
    legs = legs_of(Pune_1=-5, Delhi_9=15, Mumbai_2=-5, Mumbai_1=-5)
    assert home_branch(legs) == home_branch(legs[::-1]) == "Mumbai"
    assert home_branch(PAYING.legs) == HOME


@pytest.mark.parametrize("order", [(FIRST, SECOND), (SECOND, FIRST)])
def test_both_asked_at_once(order: tuple[str, str]) -> None:
    """P3: the one that home heard first commits; the other lets go, asks home again, and tells the same."""
    bank = Bank()
    bank.ask(FIRST)
    bank.ask(SECOND)
    for name in order:
        bank.deliver(name, HOME)
    bank.settle()
    assert bank.outcomes() == [(COMMITTED, "")] * 2
    bank.check(20, 180)


def test_each_was_first_at_one_branch() -> None:
    """P2, P3: no deadlock: home has the say, the other gives way at both."""
    bank = Bank()
    bank.ask(FIRST)
    bank.ask(SECOND)
    bank.deliver(FIRST, HOME)
    bank.deliver(SECOND, AWAY)
    bank.deliver(FIRST, AWAY)
    bank.deliver(SECOND, HOME)
    bank.settle()
    assert bank.outcomes() == [(COMMITTED, "")] * 2
    bank.check(20, 180)
    assert [name for name, desk in bank.coordinators.items() if desk.state.settled] == [FIRST]


def test_the_money_moves_once_when_the_second_asks_after_the_first_is_done() -> None:
    """P7: home knows the id, whoever asks."""
    bank = Bank()
    bank.ask(FIRST)
    bank.settle()
    bank.ask(SECOND)
    bank.settle()
    assert bank.outcomes() == [(COMMITTED, "")] * 2
    (first,), (second,) = bank.told[FIRST], bank.told[SECOND]
    assert isinstance(first, Outcome)
    assert isinstance(second, Outcome)
    assert (first.number, first.replayed, second.number, second.replayed) == (1, False, 1, True)
    bank.check(20, 180)


def test_a_refusal_told_by_one_is_told_by_the_other() -> None:
    """P6: Delhi refuses the first; then it could; the late request through the second is still told aborted."""
    bank = Bank()
    bank.branches[AWAY].ask(ChangeAccount(id_of(70), "1001", "frozen", -1))
    bank.ask(FIRST)
    bank.settle()
    bank.branches[AWAY].ask(ChangeAccount(id_of(71), "1001", "open", -1))
    bank.ask(SECOND)
    bank.settle()
    assert bank.outcomes() == [(ABORTED, "account_frozen")] * 2
    bank.check(100, 100)


def test_a_refusal_waits_for_the_other_coordinators_txn_at_home() -> None:
    """P6: refused by Delhi, the first cannot settle an id that the second holds at home; that one commits, both tell so."""
    bank = Bank()
    bank.ask(SECOND)
    bank.deliver(SECOND, HOME)
    bank.branches[AWAY].ask(ChangeAccount(id_of(70), "1001", "frozen", -1))
    bank.ask(FIRST)
    bank.deliver(FIRST, AWAY)
    bank.deliver(AWAY, FIRST)
    bank.deliver(FIRST, HOME)
    bank.branches[AWAY].ask(ChangeAccount(id_of(71), "1001", "open", -1))
    assert bank.told == {FIRST: [], SECOND: []}
    bank.settle()
    assert bank.outcomes() == [(COMMITTED, "")] * 2
    bank.check(20, 180)


def test_one_that_dies_holding_the_id_at_home_delays_and_does_not_decide() -> None:
    """P3, P8: the other has no outcome by its deadline; when the dead one is back it says abort, and the id is free."""
    bank = Bank()
    bank.ask(FIRST)
    bank.deliver(FIRST, HOME)
    dead = bank.coordinators.pop(FIRST)
    bank.ask(SECOND)
    bank.settle()
    assert bank.outcomes() == [("fault", "branch_unavailable")]
    assert bank.branches[HOME].held("1001") == 80
    bank.coordinators[FIRST] = dead.restarted().joined()
    bank.settle()
    assert bank.branches[HOME].held("1001") == 0
    bank.ask(SECOND)
    bank.settle()
    assert bank.outcomes()[-1] == (COMMITTED, "")
    bank.check(20, 180)


def test_a_cancel_at_home_is_told_by_both() -> None:
    """P6: whoever is asked after it."""
    bank = Bank()
    bank.branches[HOME].ask(Cancel(PAYING.id))
    for name in (FIRST, SECOND):
        bank.ask(name)
    bank.settle()
    assert bank.outcomes() == [(ABORTED, "cancelled")] * 2
    bank.check(100, 100)


def test_a_cancel_away_from_home_is_settled_by_home() -> None:
    """P2, P6: Delhi's tombstone stops this transfer, and home's makes it final for both coordinators."""
    bank = Bank()
    bank.branches[AWAY].ask(Cancel(PAYING.id))
    bank.ask(FIRST)
    bank.settle()
    bank.ask(SECOND)
    bank.settle()
    assert bank.outcomes() == [(ABORTED, "cancelled")] * 2
    assert PAYING.id in bank.branches[HOME].state.settled
    bank.check(100, 100)


def test_commit_numbers_of_both_follow_each_other_through_the_branches() -> None:
    """C1: the second's number is above what the first's commit raised the branches to."""
    bank = Bank()
    bank.ask(FIRST)
    bank.settle()
    second = transfer(2, legs_of(Mumbai_1001=-5, Delhi_1001=5))
    bank._collect(SECOND, bank.coordinators[SECOND].send(second, CUSTOMER, 5))
    bank.settle()
    (told,) = bank.told[SECOND]
    assert isinstance(told, Outcome)
    assert told.number == 2


def test_prepares_of_both_name_their_own_txns() -> None:
    """P3: txns are never the same, whatever the numbers are."""
    bank = Bank()
    bank.ask(FIRST)
    bank.ask(SECOND)
    asked = [effect.message.txn for _, effect in bank.waiting if isinstance(effect.message, Prepare)]
    assert [str(txn) for txn in asked] == ["coordinator-1-1"] * 2 + ["second-1-1"] * 2
