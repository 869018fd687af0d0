"""A branch is retired while others pay, and messages are lost, repeated and late, and everybody crashes: what must hold."""

from __future__ import annotations

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.unit.protocol_support import (
    BOSS,
    CUSTOMER,
    SECOND_US,
    BranchDesk,
    CoordinatorDesk,
    TestClock,
    branch_desk,
    check_books,
    coordinator_desk,
    from_branch,
    legs_of,
    register,
    transfer,
)
from zbank.domain.legs import CASH
from zbank.protocol.machine import Effect, Sender
from zbank.protocol.messages import ABORTED, COMMITTED, AnyMessage, Outcome, Register, RetireBranch

OPERATOR = Sender(b"operator", CUSTOMER.role, "ops")
ASK = RetireBranch("Pune")
ACTS = ("deliver", "deliver", "deliver", "deliver", "again", "lose", "pay", "pay", "settle", "retire", "tick", "crash")


class Town:
    """A coordinator, Mumbai and Pune, and all that is on its way between them."""

    def __init__(self, data: st.DataObject) -> None:
        self.data = data
        clock = TestClock()
        self.desks: dict[str, BranchDesk] = {
            "Mumbai": branch_desk("Mumbai", {"1": 100, "2": 0}, clock=clock),
            "Pune": branch_desk("Pune", {}, clock=clock),
        }
        self.office: CoordinatorDesk = coordinator_desk(clock=clock, configured=("Mumbai", "Pune"))
        self.flying: list[tuple[str, Effect]] = []  #: from whom, and what
        self.answers: dict[bytes, set[str]] = {}
        self.asked = 0
        self.epoch = 1
        for name in self.desks:
            self.register(name)

    def register(self, name: str) -> None:
        desk = self.desks[name]
        mark = desk.state.coordinators.get("coordinator")
        message: Register = register(
            name, epoch=desk.epoch, coordinator_epoch=mark.epoch if mark else 0, coordinator_number=mark.number if mark else 0
        )
        self.into_office(name, message)

    def into_office(self, name: str, message: AnyMessage) -> None:
        self.out("coordinator", self.office.send(message, from_branch(name)))

    def out(self, source: str, effects: list[Effect]) -> None:
        for effect in effects:
            if isinstance(effect.to, str):
                self.flying.append((source, effect))
            elif isinstance(effect.message, Outcome) and effect.message.status in (COMMITTED, ABORTED):
                self.answers.setdefault(effect.message.id, set()).add(effect.message.status)

    def deliver(self, place: int, *, keep: bool = False) -> None:
        source, effect = self.flying[place] if keep else self.flying.pop(place)
        if effect.to == "coordinator":
            self.into_office(source, effect.message)
        else:
            desk = self.desks[str(effect.to)]
            self.out(desk.state.name, desk.send(effect.message, BOSS))

    def step(self) -> None:
        act = self.data.draw(st.sampled_from(ACTS))
        if act in ("deliver", "again", "lose") and self.flying:
            place = self.data.draw(st.integers(0, len(self.flying) - 1))
            if act == "lose":
                self.flying.pop(place)
            else:
                self.deliver(place, keep=act == "again")
        elif act == "pay":
            self.asked += 1
            amount = self.data.draw(st.sampled_from((5, -5, 10)))
            legs = legs_of(Mumbai_1=-amount, Pune_cash=amount)
            self.out("coordinator", self.office.send(transfer(self.asked, legs), CUSTOMER, self.asked))
        elif act == "settle":  # the desk of Pune is carried over, so that it may close
            amount = -self.desks["Pune"].state.book.accounts[CASH].balance_minor
            if amount:
                self.asked += 1
                legs = legs_of(Mumbai_cash=-amount, Pune_cash=amount)
                self.out("coordinator", self.office.send(transfer(self.asked, legs), CUSTOMER, self.asked))
        elif act == "retire":
            self.out("coordinator", self.office.send(ASK, OPERATOR, 1_000))
        elif act == "tick":
            self.time(SECOND_US)
        elif act == "crash":
            self.crash(self.data.draw(st.sampled_from(("coordinator", "Mumbai", "Pune"))))
        self.check()

    def time(self, after_us: int) -> None:
        self.out("coordinator", self.office.tick(after_us))
        for name, desk in self.desks.items():
            self.out(name, desk.tick())

    def crash(self, name: str) -> None:
        if name == "coordinator":
            self.office = self.office.restarted()
            for branch in self.desks:
                self.register(branch)
        else:
            self.desks[name] = self.desks[name].restarted()
            self.register(name)

    def heal(self) -> None:
        for name in ("coordinator", "Mumbai"):
            self.crash(name)
        stopped = "Pune" in self.office.state.retired and self.data.draw(st.booleans())
        if not stopped:
            self.crash("Pune")
        for _ in range(12):
            while self.flying:
                if stopped and "Pune" in (self.flying[0][0], self.flying[0][1].to):
                    self.flying.pop(0)
                    continue
                self.deliver(0)
                self.check()
            self.time(SECOND_US)

    def check(self) -> None:
        for desk in self.desks.values():
            check_books(desk.state)
        pune = self.desks["Pune"].state
        if pune.retired is not None:
            assert not pune.prepared
            assert all(account.balance_minor == account.held_minor == 0 for account in pune.book.accounts.values())
        if "Pune" in self.office.state.retired:
            assert pune.retired is not None
            assert not self.office.coordinator._finisher.count_of("Pune")

    def rest(self) -> None:
        """All is over: nothing in doubt, no money lost or made, both sides agree, nobody was told two things."""
        states = [desk.state for desk in self.desks.values()]
        assert not any(state.prepared for state in states)
        assert not self.office.state.open
        assert sum(state.clearing_minor for state in states) == 0
        assert sum(account.balance_minor for state in states for account in state.book.accounts.values()) == 0
        assert ("Pune" in self.office.state.retired) == (self.desks["Pune"].state.retired is not None)
        for id, statuses in self.answers.items():
            assert len(statuses) == 1, id.hex()
        committed = {id for state in states for id, one in state.settled.items() if one.outcome == COMMITTED and one.txn}
        for id in committed:
            assert all(state.settled[id].outcome == COMMITTED for state in states), id.hex()


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(data=st.data())
def test_whatever_is_lost_repeated_or_late_no_money_is_lost(data: st.DataObject) -> None:
    town = Town(data)
    for _ in range(data.draw(st.integers(5, 60))):
        town.step()
    town.heal()
    town.rest()
