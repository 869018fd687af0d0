"""Time on rows: never back, and a jump forward is noticed (PROTOCOL K1); and what all machines answer alike."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tests.unit.protocol_support import CUSTOMER, SECOND_US, branch_desk, id_of, legs_of, transfer
from zbank.clock import Now
from zbank.errors import BadFrame
from zbank.protocol.branch_state import BranchState
from zbank.protocol.machine import JUMP_LIMIT_US, NOTHING, Timekeeper, fault_of, not_for_me
from zbank.protocol.messages import Ack, Fault, GetDirectory, Outcome, StatusInfo, Txn
from zbank.protocol.participant import Participant

STEPS = st.lists(st.tuples(st.integers(0, 10 * SECOND_US), st.integers(-10 * SECOND_US, 10 * SECOND_US)), max_size=50)


@given(start_us=st.integers(0, 10**15), steps=STEPS)
def test_labels_never_go_back(start_us: int, steps: list[tuple[int, int]]) -> None:
    """K1: whatever the wall clock does, a row is not older than the row before it, nor than the last of the journal."""
    keeper = Timekeeper(start_us)
    wall_us = mono_us = 10**15 // 2
    labels = [start_us]
    for mono_step_us, wall_step_us in steps:
        mono_us += mono_step_us
        wall_us += wall_step_us
        labels.append(keeper.read(Now(wall_us, mono_us)))
        assert labels[-1] >= wall_us
    assert labels == sorted(labels)
    assert set(labels) - {start_us} <= {keeper.last_us, *labels}


def test_the_label_is_the_wall_clock() -> None:
    """K1: as long as it goes forward."""
    keeper = Timekeeper(5)
    assert [keeper.read(Now(at_us, at_us)) for at_us in (10, 20, 30)] == [10, 20, 30]
    assert not keeper.jumped


def test_a_jump_forward_is_noticed() -> None:
    """K1: against the monotonic clock; the limit itself is no jump, and a pause of both clocks is none."""
    keeper = Timekeeper(0)
    keeper.read(Now(1000, 1000))
    keeper.read(Now(1000 + 3600 * SECOND_US, 1000 + 3600 * SECOND_US))
    keeper.read(Now(2000 + 3600 * SECOND_US + JUMP_LIMIT_US, 2000 + 3600 * SECOND_US))
    assert not keeper.jumped
    keeper.read(Now(2001 + 3600 * SECOND_US + JUMP_LIMIT_US, 2000 + 3600 * SECOND_US))
    assert keeper.jumped


def test_a_step_back_is_no_jump_but_its_way_forward_again_is() -> None:
    """K1: labels wait for the wall clock to come back up; what was set back by a day and then forward jumped."""
    keeper = Timekeeper(0)
    keeper.read(Now(10**12, 0))
    assert keeper.read(Now(10**12 - 20 * SECOND_US, SECOND_US)) == 10**12
    assert not keeper.jumped
    assert keeper.read(Now(10**12 + 2 * SECOND_US, 2 * SECOND_US)) == 10**12 + 2 * SECOND_US
    assert keeper.jumped


def test_an_actor_raises_an_alarm_for_a_jump_and_works_on() -> None:
    """K1: the rows carry the later time; nothing else goes by the wall clock."""
    desk = branch_desk("Mumbai", {"1001": 100})
    desk.clock.advance(SECOND_US, wall_us=3600 * SECOND_US)
    done = desk.ask(transfer(1, legs_of(Mumbai_1001=-1, Mumbai_cash=1)))
    assert isinstance(done, Outcome)
    assert done.at_us == desk.clock.now().wall_us == desk.lines[-1].at_us
    status = desk.status()
    assert isinstance(status, StatusInfo)
    assert any("clock jumped forward" in alarm for alarm in status.alarms)


def test_rows_after_a_restart_are_not_older_than_those_before() -> None:
    """K1: the wall clock was set back while the branch was down; the restored state knows the last row's time."""
    state = BranchState("Mumbai", "INR")
    state.restore(b"", 0, 1, 10**12, [], [])
    branch = Participant(state, ())
    assert branch.label_us(Now(10**12 - 3600 * SECOND_US, 5)) == 10**12


def test_a_request_at_the_wrong_door_is_answered_and_news_are_dropped() -> None:
    """Only who waits gets an answer."""
    (effect,) = not_for_me("branch", CUSTOMER, 4, GetDirectory()).effects
    assert (effect.to, effect.n) == (CUSTOMER.address, 4)
    assert isinstance(effect.message, Fault)
    assert effect.message.detail == "a branch does not take GetDirectory"
    assert not_for_me("branch", CUSTOMER, 4, Ack(Txn("a", 1, 1), id_of(1), 1)) == NOTHING


def test_a_fault_fits_the_wire() -> None:
    """However long the sentence of an error is."""
    fault = fault_of(BadFrame("x" * 1000))
    assert (fault.code, len(fault.detail)) == ("bad_frame", 500)
