"""A coordinator's directory, what it refuses to begin, and what it passes on (PROTOCOL P1, P11)."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from tests.unit.protocol_support import (
    BRANCHES,
    CUSTOMER,
    SECOND_US,
    coordinator_desk,
    from_branch,
    id_of,
    legs_of,
    of_kind,
    prepare,
    register,
    transfer,
    txn_of,
    yes,
)
from zbank.domain.legs import Leg
from zbank.protocol import attempts, forwarding
from zbank.protocol.codec import encode_frames
from zbank.protocol.directory import MOMENT_US
from zbank.protocol.machine import EPOCH_LEAP, Effect, Sender
from zbank.protocol.messages import (
    COMMITTED,
    AnyMessage,
    Commit,
    Directory,
    Fault,
    Forward,
    GetAccount,
    GetDirectory,
    Inquiry,
    NameAcks,
    Outcome,
    Prepare,
    Registered,
    StatusInfo,
    StillPending,
    Txn,
)
from zbank.protocol.records import BranchJoined, Promoted, Started

PAYING = transfer(1, legs_of(Mumbai_1001=-30, Delhi_1001=30))
LOCAL = transfer(2, legs_of(Mumbai_1001=-30, Mumbai_1002=30))
DONE = Outcome(id_of(2), COMMITTED, None, 0, 5, False, True)


def code_of(answer: AnyMessage) -> str:
    assert isinstance(answer, Fault)
    return answer.code


def directory(answer: AnyMessage) -> dict[str, bool]:
    """By branch, whether it is up."""
    assert isinstance(answer, Directory)
    return {info.name: info.up for info in answer.branches}


def test_a_new_branch_is_recorded_and_all_hear_of_it() -> None:
    """DESIGN §5: the directory is kept; a branch that comes back unchanged is not recorded again."""
    desk = coordinator_desk()
    desk.send(register("Delhi"), from_branch("Delhi"))
    effects = desk.send(register("Mumbai"), from_branch("Mumbai"))
    assert isinstance(desk.last, BranchJoined)
    heard = of_kind(Registered, effects)
    assert [to for to, _ in heard] == ["Mumbai", "Delhi"]
    for _, registered in heard:
        assert [info.name for info in registered.branches] == ["Delhi", "Mumbai"]
        assert (registered.coordinator, registered.epoch) == ("coordinator", 1)
    before = len(desk.lines)
    effects = desk.send(register("Mumbai", epoch=2), from_branch("Mumbai"))
    assert [to for to, _ in of_kind(Registered, effects)] == ["Mumbai"]
    assert len(desk.lines) == before


def test_the_directory_outlives_a_restart() -> None:
    """The branches are known, and none is up until it registers."""
    desk = coordinator_desk().joined().restarted()
    assert directory(desk.ask(GetDirectory())) == dict.fromkeys(BRANCHES, False)
    desk.joined(["Pune"])
    assert directory(desk.ask(GetDirectory())) == {"Delhi": False, "Mumbai": False, "Pune": True}
    desk.down("Pune")
    assert directory(desk.ask(GetDirectory()))["Pune"] is False


def test_a_transfer_with_a_branch_that_is_away() -> None:
    """P6: said at once, and no outcome; nothing was sent to anybody."""
    desk = coordinator_desk().joined()
    desk.down("Delhi", MOMENT_US)
    assert code_of(desk.ask(PAYING)) == "branch_unavailable"
    assert of_kind(Prepare, desk.tick(SECOND_US)) == []
    nobody_came = coordinator_desk()
    nobody_came.clock.advance(MOMENT_US)
    assert code_of(nobody_came.ask(PAYING)) == "branch_unavailable"


def test_who_wants_a_branch_that_has_just_been_lost_is_asked_for_a_moments_patience() -> None:
    """A connection is soon made again, as when keys are rotated; and all call again when the coordinator was restarted."""
    desk = coordinator_desk().joined()
    desk.down("Delhi", MOMENT_US - 1)
    desk.roll_back()
    restarted = coordinator_desk().joined().restarted().joined(["Mumbai"])
    for one in (desk, restarted, coordinator_desk()):
        answer = one.ask(PAYING)
        assert isinstance(answer, Fault)
        assert (answer.code, answer.retry_after_ms > 0) == ("busy", True)
        one.joined()
        assert of_kind(Prepare, one.send(PAYING))


def test_a_transfer_with_an_unknown_branch() -> None:
    """The known ones are named."""
    desk = coordinator_desk(configured=()).joined(["Mumbai"])
    answer = desk.ask(PAYING)
    assert isinstance(answer, Fault)
    assert (answer.code, answer.detail) == ("branch_not_found", "there is no branch Delhi; known are Mumbai")


@pytest.mark.parametrize(
    ("legs", "code"),
    [
        ((), "malformed"),
        ((Leg("Mumbai", "1001", -1), Leg("Mumbai", "1001", 1)), "malformed"),
        (legs_of(Mumbai_1001=-1, Delhi_clearing=1), "malformed"),
        (legs_of(Mumbai_1001=-1, Delhi_1001=2), "invalid_amount"),
    ],
)
def test_what_is_no_transfer_is_no_outcome(legs: tuple[Leg, ...], code: str) -> None:
    """P6: a fault, and nothing begins."""
    desk = coordinator_desk().joined()
    assert code_of(desk.ask(transfer(1, legs))) == code


def test_above_the_cap_new_transfers_are_busy(monkeypatch: pytest.MonkeyPatch) -> None:
    """P6: busy is no outcome and says when to come back; who asks for a running one joins it all the same."""
    monkeypatch.setattr(attempts, "MAX_IN_FLIGHT", 1)
    desk = coordinator_desk().joined()
    desk.send(PAYING)
    answer = desk.ask(transfer(3, PAYING.legs))
    assert isinstance(answer, Fault)
    assert answer.code == "busy"
    assert answer.retry_after_ms > 0
    assert desk.send(PAYING, CUSTOMER, 8) == []


def test_a_local_transfer_is_passed_on_and_not_recorded() -> None:
    """P1: to its branch, in the caller's name; the answer finds the asker; only that branch's, about that id."""
    desk = coordinator_desk().joined()
    before = len(desk.lines)
    caller = Sender(b"line", CUSTOMER.role, "somebody")
    (passed,) = desk.send(LOCAL, caller, 5)
    assert (passed.to, passed.message) == ("Mumbai", Forward("somebody", LOCAL))
    assert desk.send(DONE, from_branch("Delhi"), passed.n) == []
    assert desk.send(replace(DONE, id=id_of(3)), from_branch("Mumbai"), passed.n) == []
    assert desk.send(DONE, from_branch("Mumbai"), passed.n) == [Effect(b"line", 5, DONE)]
    assert desk.send(DONE, from_branch("Mumbai"), passed.n) == []
    assert len(desk.lines) == before


def test_a_late_answer_to_an_earlier_office_is_nobodys() -> None:
    """P1: the numbers under which requests are passed on are not used again after a restart or a full disk."""
    desk = coordinator_desk().joined()
    (passed,) = desk.send(LOCAL, CUSTOMER, 5)
    desk.roll_back()
    (second,) = desk.send(transfer(3, LOCAL.legs), CUSTOMER, 6)
    assert desk.send(DONE, from_branch("Mumbai"), passed.n) == [Effect(CUSTOMER.address, 5, DONE)]
    desk = desk.restarted().joined()
    (third,) = desk.send(transfer(4, LOCAL.legs), CUSTOMER, 7)
    assert desk.send(DONE, from_branch("Mumbai"), second.n) == []
    assert len({passed.n, second.n, third.n}) == 3


def test_what_is_passed_on_is_bounded_and_forgotten_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """P6: above the bound busy; what was never answered makes room."""
    monkeypatch.setattr(forwarding, "MAX_FORWARDS", 1)
    desk = coordinator_desk().joined()
    desk.send(LOCAL, CUSTOMER, 5)
    assert code_of(desk.ask(transfer(3, LOCAL.legs))) == "busy"
    desk.tick(forwarding.FORWARD_LIMIT_US)
    (passed,) = desk.send(transfer(3, LOCAL.legs), CUSTOMER, 6)
    assert passed.to == "Mumbai"


def test_a_local_transfer_for_a_branch_that_is_away() -> None:
    """P1: the branch is asked for nothing."""
    desk = coordinator_desk().joined(["Delhi"])
    assert code_of(desk.ask(LOCAL)) == "busy"
    desk.clock.advance(MOMENT_US)
    assert code_of(desk.ask(LOCAL)) == "branch_unavailable"


@pytest.mark.parametrize(("epoch", "number"), [(2, 0), (0, 1)])
def test_a_coordinator_that_is_behind_refuses_service(epoch: int, number: int) -> None:
    """P11: a branch knows more of this coordinator than its own data: it was restored from an old copy."""
    desk = coordinator_desk()
    behind = register("Mumbai", coordinator_epoch=epoch, coordinator_number=number)
    desk.send(behind, from_branch("Mumbai"))
    desk.joined(["Delhi"])
    for message in (PAYING, LOCAL):
        assert code_of(desk.ask(message)) == "out_of_office"
    txn = txn_of(1)
    answer = desk.ask(Inquiry(txn, id_of(1)), from_branch("Mumbai"))
    assert answer == StillPending(txn, id_of(1)), "what was decided after the copy is not known here: no abort"
    status = desk.status()
    assert isinstance(status, StatusInfo)
    assert any("restored from an old copy" in alarm for alarm in status.alarms)
    desk.roll_back()
    assert code_of(desk.ask(PAYING)) == "out_of_office"


@pytest.mark.parametrize(
    ("epoch", "number", "serves"),
    [
        (1, 1, True),
        (1, 2, False),  # the former one's second commit: it has the first one alone
        (2, 1, False),  # it was started again
        (999_999, 1, False),
        (1_000_001, 1, True),
        (1_000_001, 2, True),  # its own
    ],
)
def test_a_promoted_coordinator_whose_former_one_went_on_without_it_refuses_service(
    epoch: int, number: int, serves: bool
) -> None:
    """P11, R3: a branch knows more of the former one than was taken over, also when there were further commits since."""
    desk = coordinator_desk().joined(["Delhi", "Pune"])

    def commit(n: int) -> None:
        message = transfer(n, legs_of(Delhi_1001=-30, Pune_1001=30))
        ((_, asked), _) = of_kind(Prepare, desk.send(message))
        desk.turn([yes(asked, "Delhi"), yes(asked, "Pune")])

    commit(7)
    desk.epoch = 1_000_001
    desk.record(Promoted("asha", 1))
    commit(8)
    commit(9)
    desk.send(register("Mumbai", coordinator_epoch=epoch, coordinator_number=number), from_branch("Mumbai"))
    assert bool(of_kind(Prepare, desk.send(PAYING))) is serves


def test_of_two_that_lead_the_one_by_the_later_word_has_the_later_epoch_and_neither_serves_who_met_the_other() -> None:
    """R3: one was replaced, and promoted by mistake; what it has decided the other cannot know, nor it what that has."""
    for own, others in ((3, 5), (5, 3)):
        desk = coordinator_desk().joined(["Delhi", "Pune"])
        desk.epoch = own * EPOCH_LEAP + 1
        desk.record(Promoted("asha", 1))
        desk.send(register("Mumbai", coordinator_epoch=others * EPOCH_LEAP + 1), from_branch("Mumbai"))
        assert code_of(desk.ask(PAYING)) == "out_of_office"
        txn = Txn("coordinator", others * EPOCH_LEAP + 1, 4)
        assert desk.ask(Inquiry(txn, id_of(1)), from_branch("Mumbai")) == StillPending(txn, id_of(1))


def test_a_request_is_handed_on_in_a_high_epoch_too() -> None:
    """After promotions epochs are high; an envelope's number is not."""
    desk = coordinator_desk().joined()
    desk.record(Started("0"))
    desk.epoch = 10**10
    desk.record(Started("0"))
    (passed,) = desk.send(LOCAL, CUSTOMER, 5)
    encode_frames([(passed.n, passed.message)])
    assert [effect.n for effect in desk.send(DONE, from_branch("Mumbai"), passed.n)] == [5]


def test_a_coordinator_that_is_behind_takes_no_branch_in_and_sends_none_what_it_decided() -> None:
    """P11: another one may have taken its place before that decision was known, and have aborted it."""
    desk = coordinator_desk().joined()
    ((_, asked), _) = of_kind(Prepare, desk.send(PAYING))
    desk.turn([yes(asked, "Mumbai"), yes(asked, "Delhi")])
    behind = register("Pune", coordinator_epoch=99)
    assert code_of(desk.ask(behind, from_branch("Pune"))) == "out_of_office"
    assert code_of(desk.ask(register("Mumbai"), from_branch("Mumbai"))) == "out_of_office"
    assert desk.ask(Inquiry(asked.txn, PAYING.id), from_branch("Mumbai")) == StillPending(asked.txn, PAYING.id)
    later = [effect for _ in range(10) for effect in desk.tick(SECOND_US)]
    assert not of_kind(Commit, later)
    assert not of_kind(Outcome, later)
    assert desk.coordinator.closed is not None


@pytest.mark.parametrize(("word", "serves"), [(0, True), (1, True), (2, False), (9, False)])
def test_a_promoted_coordinator_in_whose_place_another_was_named_refuses_service(word: int, serves: bool) -> None:
    """R3: it took over row 1, and does not know that it was the synchronous replica no more; a branch does. It is not taken
    in, so that it still knows after a restart."""
    desk = coordinator_desk()
    desk.epoch = 1_000_001
    desk.record(Promoted("asha", 1))
    knows = replace(register("Mumbai", coordinator_epoch=1, coordinator_number=0), coordinator_word=word)
    for _ in range(2):
        answers = desk.send(knows, from_branch("Mumbai"))
        assert bool(of_kind(Registered, answers)) is serves
        desk.joined(["Delhi"])
        assert bool(of_kind(Prepare, desk.send(PAYING))) is serves
        desk = desk.restarted()


def test_all_branches_hear_of_the_coordinators_word_on_its_own_replica() -> None:
    desk = coordinator_desk().joined()
    told = of_kind(Registered, desk.send(NameAcks("coordinator", "", b""), CUSTOMER))
    assert [one.word for _, one in told] == [desk.state.seq] * 3


def test_a_coordinator_that_finds_itself_behind_decides_nothing_more() -> None:
    """P11: not even what it was collecting votes for already."""
    desk = coordinator_desk().joined()
    desk.send(PAYING)
    asked = prepare(txn_of(1), PAYING)
    desk.send(register("Pune", coordinator_epoch=99, coordinator_number=0), from_branch("Pune"))
    assert not desk.turn([yes(asked, "Mumbai"), yes(asked, "Delhi")])


def test_a_coordinator_that_branches_know_less_of_serves() -> None:
    """P11: the usual case after a restart: equal or lower."""
    desk = coordinator_desk().joined()
    desk.send(PAYING)
    asked = prepare(txn_of(1), PAYING)
    desk.turn([yes(asked, "Mumbai", number=3), yes(asked, "Delhi")])
    desk = desk.restarted()
    desk.send(register("Mumbai", coordinator_epoch=1, coordinator_number=4), from_branch("Mumbai"))
    desk.joined(["Delhi", "Pune"])
    assert of_kind(Prepare, desk.send(transfer(9, PAYING.legs)))


def test_a_branch_with_other_data_is_refused() -> None:
    """The instance id tells; the data directory is named as what to look at."""
    desk = coordinator_desk().joined()
    foreign = register("Mumbai", epoch=9)
    foreign = replace(foreign, info=replace(foreign.info, instance=b"another instance"))
    refused = desk.coordinator.directory.refuse(foreign)
    assert refused is not None
    assert refused.code == "foreign_store"
    assert "data directory" in refused.detail


def test_an_older_process_of_a_branch_is_refused() -> None:
    """P11: a branch epoch that is over; the same and newer ones may register."""
    desk = coordinator_desk()
    desk.send(register("Mumbai", epoch=5), from_branch("Mumbai"))
    refuse = desk.coordinator.directory.refuse
    assert [getattr(refuse(register("Mumbai", epoch=epoch)), "code", "") for epoch in (4, 5, 6)] == ["fence_lost", "", ""]


def test_requests_for_branches() -> None:
    """A coordinator has no accounts, and says so."""
    desk = coordinator_desk()
    assert code_of(desk.ask(GetAccount("1001"))) == "not_for_me"
