"""A branch is closed for good: only an empty one, only once, whatever is lost, repeated or late (docs/protocol.md)."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from tests.unit.protocol_support import (
    BOSS,
    CUSTOMER,
    SECOND_US,
    BranchDesk,
    branch_desk,
    check_books,
    coordinator_desk,
    from_branch,
    from_coordinator,
    id_of,
    legs_of,
    of_kind,
    prepare,
    register,
    transfer,
    txn_of,
)
from zbank.domain.legs import CASH
from zbank.protocol.directory import MOMENT_US
from zbank.protocol.leaving import LEAVE_LIMIT_US
from zbank.protocol.machine import Effect, Sender
from zbank.protocol.messages import (
    COMMITTED,
    REFUSED,
    Abort,
    Ack,
    AnyMessage,
    BranchRetired,
    ChangeAccount,
    Commit,
    Directory,
    Fault,
    GetActs,
    GetDirectory,
    OpenAccount,
    Outcome,
    Prepare,
    Registered,
    Retire,
    RetireAnswer,
    RetireBranch,
    Vote,
)
from zbank.protocol.records import BranchJoined, BranchLeft, Retired

OPERATOR = Sender(b"operator", CUSTOMER.role, "ops")
ASK = RetireBranch("Pune")
CLOSED = RetireAnswer("ops")


def close(desk: BranchDesk, *numbers: str, first: int = 500) -> None:
    for n, number in enumerate(numbers):
        answer = desk.ask(ChangeAccount(id_of(first + n), number, "closed", -1))
        assert isinstance(answer, Outcome)
        assert answer.status == COMMITTED, answer


def refused(desk: BranchDesk, epoch: int = 1) -> str:
    """Why the branch does not close."""
    answer = desk.ask(Retire("ops", epoch), BOSS)
    assert isinstance(answer, RetireAnswer)
    assert answer.refusal is not None
    assert answer.refusal.code == "branch_not_empty"
    assert desk.state.retired is None
    return answer.refusal.detail


def told(effects: list[Effect]) -> AnyMessage:
    """What the operator is told."""
    (answer,) = [effect.message for effect in effects if effect.to == OPERATOR.address]
    return answer


def code_of(answer: AnyMessage) -> str:
    assert isinstance(answer, Fault), answer
    return answer.code


# --- at the branch ----------------------------------------------------------------------------------------------------


def test_only_an_empty_branch_closes() -> None:
    desk = branch_desk("Pune", {"1": 0, "2": 5_00})
    assert "2 accounts that are not closed" in refused(desk)
    close(desk, "1")
    assert "1 account that is not closed" in refused(desk)
    desk.ask(transfer(7, legs_of(Pune_2=-5_00, Pune_cash=5_00)))
    close(desk, "2", first=600)
    assert desk.ask(Retire("ops", 1), BOSS) == CLOSED
    assert isinstance(desk.last, Retired)
    assert all(account.balance_minor == 0 for account in desk.state.book.accounts.values())


def test_a_branch_without_any_account_closes() -> None:
    desk = branch_desk("Pune")
    assert desk.ask(Retire("ops", 1), BOSS) == CLOSED


def test_a_frozen_account_is_not_closed() -> None:
    desk = branch_desk("Pune", {"1": 0})
    desk.ask(ChangeAccount(id_of(3), "1", "frozen", -1))
    assert "1 account that is not closed" in refused(desk)


def test_what_other_branches_owe_has_to_be_settled_by_the_cash_desk() -> None:
    """Customers have nothing, but what they brought lies in the desk, and what they sent is owed to another branch."""
    desk = branch_desk("Pune", {"1": 30_00})
    asked = prepare(txn_of(1), transfer(8, legs_of(Pune_1=-30_00, Delhi_1=30_00)))
    desk.send(asked, BOSS)
    assert "1 transfers that are not decided" in refused(desk)
    desk.send(Commit(asked.txn, asked.transfer.id, 1), BOSS)
    close(desk, "1")
    assert "`zbank transfer OTHER/cash Pune/cash 30.00`" in refused(desk)
    asked = prepare(txn_of(2), transfer(9, legs_of(Delhi_cash=-30_00, Pune_cash=30_00)))
    desk.send(asked, BOSS)
    desk.send(Commit(asked.txn, asked.transfer.id, 2), BOSS)
    assert desk.state.book.accounts[CASH].balance_minor == 0
    assert desk.ask(Retire("ops", 1), BOSS) == CLOSED


def test_the_other_way_round_the_cash_desk_pays_out() -> None:
    desk = branch_desk("Pune", {"1": 0})
    asked = prepare(txn_of(1), transfer(8, legs_of(Delhi_1=-30_00, Pune_1=30_00)))
    desk.send(asked, BOSS)
    desk.send(Commit(asked.txn, asked.transfer.id, 1), BOSS)
    desk.ask(transfer(7, legs_of(Pune_1=-30_00, Pune_cash=30_00)))
    close(desk, "1")
    assert "`zbank transfer Pune/cash OTHER/cash 30.00`" in refused(desk)


def test_a_closed_branch_takes_nothing_on_and_knows_all_it_knew() -> None:
    desk = branch_desk("Pune", {"1": 5_00})
    before = desk.ask(transfer(7, legs_of(Pune_1=-5_00, Pune_cash=5_00)))
    assert isinstance(before, Outcome)
    voted = prepare(txn_of(1), transfer(8, legs_of(Pune_cash=-1, Delhi_1=1)))
    desk.send(voted, BOSS)
    desk.send(Abort(voted.txn, id_of(8)), BOSS)
    close(desk, "1")
    desk.ask(Retire("ops", 1), BOSS)
    desk = desk.restarted()
    assert desk.ask(transfer(7, legs_of(Pune_1=-5_00, Pune_cash=5_00))) == replace(before, replayed=True)
    for message in (
        OpenAccount(id_of(20), "", "", "", 0),
        transfer(21, legs_of(Pune_1=-1, Pune_cash=1)),
    ):
        answer = desk.ask(message)
        assert isinstance(answer, Outcome)
        assert answer.refusal is not None
        assert answer.refusal.code == "branch_retired"
    vote = desk.ask(prepare(txn_of(2), transfer(22, legs_of(Delhi_1=-1, Pune_cash=1))), BOSS)
    assert isinstance(vote, Vote)
    assert vote.answer == REFUSED
    assert not desk.state.prepared
    assert any("was retired by ops" in alarm for alarm in desk.status().alarms)
    check_books(desk.state)


def test_asked_again_it_says_the_same_and_it_tells_whom_it_meets() -> None:
    desk = branch_desk("Pune")
    desk.ask(Retire("ops", 1), BOSS)
    before = len(desk.lines)
    assert desk.ask(Retire("another", 1), BOSS) == CLOSED
    assert len(desk.lines) == before
    desk = desk.restarted()
    effects = desk.send(Registered("north", 1, ()), from_coordinator("north"))
    assert of_kind(RetireAnswer, effects) == [("north", CLOSED)]


def test_all_coordinators_that_it_knows_hear_of_it() -> None:
    desk = branch_desk("Pune")
    desk.send(Registered("north", 1, ()), from_coordinator("north"))
    assert {to for to, _ in of_kind(RetireAnswer, desk.send(Retire("ops", 1), BOSS))} == {"north", "coordinator"}


def test_a_wish_of_an_earlier_term_of_office_counts_for_nothing() -> None:
    desk = branch_desk("Pune")
    desk.send(Registered("coordinator", 3, ()), BOSS)
    assert desk.send(Retire("ops", 2), BOSS) == []
    assert desk.state.retired is None


def test_closed_accounts_are_counted_over_posting_and_restart() -> None:
    desk = branch_desk("Pune", {"1": 0, "2": 0, "3": 0})
    close(desk, "1", "3")
    assert (desk.state.closed_count, desk.restarted().state.closed_count) == (2, 2)


# --- at the coordinator -----------------------------------------------------------------------------------------------


def test_a_branch_leaves_the_directory() -> None:
    desk = coordinator_desk().joined()
    assert of_kind(Retire, desk.send(ASK, OPERATOR, 7)) == [("Pune", Retire("ops", 1))]
    effects = desk.send(CLOSED, from_branch("Pune"))
    assert isinstance(desk.last, BranchLeft)
    answer = told(effects)
    assert isinstance(answer, BranchRetired)
    assert (answer.info.name, answer.info.by, answer.info.endpoint) == ("Pune", "ops", "tcp://Pune:9100")
    assert answer.info == desk.state.retired["Pune"]
    assert {to for to, _ in of_kind(Registered, effects)} == {"Delhi", "Mumbai", "Pune"}
    assert all([info.name for info in one.branches] == ["Delhi", "Mumbai"] for _, one in of_kind(Registered, effects))
    for again in (desk, desk.restarted().joined(["Mumbai"])):
        directory = again.ask(GetDirectory())
        assert isinstance(directory, Directory)
        assert [info.name for info in directory.branches] == ["Delhi", "Mumbai"]
        assert directory.retired == (answer.info,)
        assert again.ask(ASK, OPERATOR) == answer, "asking again is safe"
        assert code_of(again.ask(transfer(1, legs_of(Mumbai_1=-1, Pune_1=1)))) == "branch_retired"
        assert code_of(again.ask(transfer(2, legs_of(Pune_1=-1, Pune_2=1)))) == "branch_retired"
    newest = desk.ask(GetActs(1))
    assert "act='branch_retired', by='ops', about='branch Pune'" in str(newest)


def test_it_comes_and_goes_in_the_acts() -> None:
    desk = coordinator_desk().joined(["Pune"])
    moved = register("Pune", epoch=2)
    desk.send(replace(moved, info=replace(moved.info, endpoint="tcp://other:9100")), from_branch("Pune"))
    desk.send(ASK, OPERATOR)
    desk.send(CLOSED, from_branch("Pune"))
    assert [act.act for act in desk.state.acts.acts] == ["branch_joined", "branch_moved", "branch_retired"]
    assert "tcp://other:9100, before at tcp://Pune:9100" in desk.state.acts.acts[1].about


@pytest.mark.parametrize(("name", "code"), [("Lima", "branch_not_found"), ("Delhi", "branch_unavailable")])
def test_only_a_branch_that_is_there(name: str, code: str) -> None:
    desk = coordinator_desk().joined(["Pune"])
    desk.clock.advance(MOMENT_US)
    assert code_of(desk.ask(RetireBranch(name), OPERATOR)) == code


def test_what_the_branch_says_against_it_is_told() -> None:
    desk = coordinator_desk().joined()
    branch = branch_desk("Pune", {"1": 1})
    ((_, asked),) = of_kind(Retire, desk.send(ASK, OPERATOR, 7))
    effects = desk.send(branch.ask(asked, BOSS), from_branch("Pune"))
    assert code_of(told(effects)) == "branch_not_empty"
    assert of_kind(Prepare, desk.send(transfer(1, legs_of(Mumbai_1=-1, Pune_1=1)))), "it goes on as before"


def test_what_is_under_way_ends_first_and_nothing_begins_meanwhile() -> None:
    desk = coordinator_desk().joined()
    paying = transfer(1, legs_of(Mumbai_1=-1, Pune_1=1))
    desk.send(paying)
    assert of_kind(Retire, desk.send(ASK, OPERATOR, 7)) == []
    assert code_of(desk.ask(transfer(2, paying.legs))) == "busy"
    assert of_kind(Prepare, desk.send(transfer(3, legs_of(Mumbai_1=-1, Delhi_1=1)))), "others go on"
    no = Vote(txn_of(1), id_of(1), "busy", 0, 1)
    desk.send(no, from_branch("Pune"))
    assert of_kind(Retire, desk.tick()) == [("Pune", Retire("ops", 1))]
    assert of_kind(Retire, desk.tick(SECOND_US)) == [("Pune", Retire("ops", 1))], "sent again"


def test_a_commit_that_is_not_acked_keeps_the_branch() -> None:
    desk = coordinator_desk().joined()
    desk.send(transfer(1, legs_of(Mumbai_1=-1, Pune_1=1)))
    desk.turn([(from_branch(name), 0, Vote(txn_of(1), id_of(1), "yes", 0, 1)) for name in ("Mumbai", "Pune")])
    assert of_kind(Retire, desk.send(ASK, OPERATOR, 7)) == []
    assert code_of(told(desk.tick(LEAVE_LIMIT_US))) == "branch_in_use"
    desk.send(CLOSED, from_branch("Pune"))  # by another coordinator's wish
    assert not any(isinstance(record, BranchLeft) for record in desk.records)
    desk.send(Ack(txn_of(1), id_of(1), 5), from_branch("Pune"))
    desk.tick()
    assert isinstance(desk.records[-1], BranchLeft) or isinstance(desk.records[-2], BranchLeft)


def test_after_a_restart_nothing_waits_for_a_branch_that_has_left() -> None:
    """Its acks were not recorded yet, since another branch's is missing; its process may be stopped for good."""
    desk = coordinator_desk().joined()
    for n, other in ((1, "Mumbai"), (2, "Delhi")):
        desk.send(transfer(n, legs_of(**{f"{other}_1": -1, "Pune_1": 1})))
        desk.turn([(from_branch(name), 0, Vote(txn_of(n), id_of(n), "yes", 0, 1)) for name in (other, "Pune")])
        desk.send(Ack(txn_of(n), id_of(n), 5), from_branch("Pune"))
    desk.send(Ack(txn_of(2), id_of(2), 5), from_branch("Delhi"))
    for name in ("Pune", "Delhi"):
        desk.send(RetireBranch(name), OPERATOR)
        desk.send(CLOSED, from_branch(name))
    assert len(desk.state.open) == 2
    desk = desk.restarted()
    assert of_kind(Commit, desk.send(register("Mumbai", epoch=2), from_branch("Mumbai")))
    desk.send(Ack(txn_of(1), id_of(1), 5), from_branch("Mumbai"))
    desk.tick()
    assert not desk.state.open
    assert desk.status().in_flight == 0


def test_who_hears_nothing_in_time_is_told_so_and_a_late_answer_counts() -> None:
    desk = coordinator_desk().joined()
    desk.send(ASK, OPERATOR, 7)
    answer = told(desk.tick(LEAVE_LIMIT_US))
    assert code_of(answer) == "branch_unavailable"
    assert "not known whether it is retired" in str(answer)
    desk.send(CLOSED, from_branch("Pune"))
    assert isinstance(desk.last, BranchLeft)


def test_a_crash_between_the_two_records_is_made_up_for_when_the_branch_registers() -> None:
    desk = coordinator_desk().joined()
    ((_, asked),) = of_kind(Retire, desk.send(ASK, OPERATOR, 7))
    branch = branch_desk("Pune")
    branch.send(asked, BOSS)  # and its answer is lost
    desk = desk.restarted()
    ((_, registered),) = of_kind(Registered, desk.send(register("Pune", epoch=2), from_branch("Pune")))
    ((_, news),) = of_kind(RetireAnswer, branch.restarted().send(registered, BOSS))
    desk.send(news, from_branch("Pune"))
    assert desk.state.retired["Pune"].by == "ops"


def test_a_full_disk_at_the_coordinator_forgets_nothing() -> None:
    """T2: the record is rolled back; the branch, which said it once, does not have to say it again."""
    desk = coordinator_desk().joined()
    desk.send(ASK, OPERATOR, 7)
    desk.decide([(from_branch("Pune"), 0, CLOSED)])
    desk.roll_back()
    assert "Pune" in desk.state.branches
    desk.tick()
    assert "Pune" in desk.state.retired


def test_its_name_is_not_used_again_and_its_own_process_may_answer_questions() -> None:
    desk = coordinator_desk().joined()
    desk.send(ASK, OPERATOR)
    desk.send(CLOSED, from_branch("Pune"))
    again = register("Pune", epoch=2)
    refuse = desk.coordinator.directory.refuse
    assert refuse(again) is None
    other = refuse(replace(again, info=replace(again.info, instance=b"another instance")))
    assert other is not None
    assert (other.code, "another one" in other.detail) == ("branch_retired", True)
    effects = desk.send(again, from_branch("Pune"))
    assert [type(effect.message) for effect in effects] == [Registered, Retire]
    assert not isinstance(desk.last, BranchJoined)
    desk.send(CLOSED, from_branch("Pune"))
    assert sum(isinstance(record, BranchLeft) for record in desk.records) == 1


def test_an_old_copy_that_does_not_know_of_its_end_is_an_alarm() -> None:
    desk = coordinator_desk().joined()
    desk.send(ASK, OPERATOR)
    desk.send(CLOSED, from_branch("Pune"))
    old = branch_desk("Pune", {"1": 5})
    ((_, asked),) = of_kind(Retire, desk.send(register("Pune", epoch=9), from_branch("Pune")))
    desk.send(old.ask(asked, BOSS), from_branch("Pune"))
    assert any("old copy" in alarm for alarm in desk.status().alarms)
