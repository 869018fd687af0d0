"""A branch told of decisions, asked about them, or in doubt of them (PROTOCOL P4, P6, P8, P9)."""

from __future__ import annotations

import pytest

from tests.unit.protocol_support import (
    BOSS,
    SECOND_US,
    BranchDesk,
    branch_desk,
    check_books,
    from_branch,
    from_coordinator,
    id_of,
    legs_of,
    of_kind,
    prepare,
    transfer,
    txn_of,
)
from zbank.domain.legs import Leg, content_digest
from zbank.domain.refusal import Refusal
from zbank.protocol.machine import Effect
from zbank.protocol.messages import (
    ABORTED,
    COMMITTED,
    Abort,
    Ack,
    Cancel,
    Commit,
    Inquiry,
    Outcome,
    Prepare,
    Registered,
    StatusInfo,
    StillPending,
    Transfer,
    Vote,
)
from zbank.protocol.records import Aborted, Committed, CoordinatorSeen

DELHI = from_branch("Delhi")
REFUSAL = Refusal("account_frozen", "Delhi/1001 is frozen")
PAYING = transfer(1, legs_of(Mumbai_1001=-30, Delhi_1001=30))
DIGEST = content_digest(PAYING.legs, "INR", "", "")
TXN = txn_of(1)
COMMIT = Commit(TXN, id_of(1), 8)
ABORT = Abort(TXN, id_of(1))
ABORT_FINALLY = Abort(TXN, id_of(1), REFUSAL, DIGEST, "")


def mumbai(*, is_prepared: bool = True) -> BranchDesk:
    desk = branch_desk("Mumbai", {"1001": 100, "1002": 50})
    if is_prepared:
        assert vote(desk, prepare(TXN, PAYING)).answer == "yes"
    return desk


def vote(desk: BranchDesk, message: Prepare) -> Vote:
    answer = desk.ask(message, BOSS)
    assert isinstance(answer, Vote)
    return answer


def ack(desk: BranchDesk, message: Commit | Abort) -> Ack:
    answer = desk.ask(message, BOSS)
    assert isinstance(answer, Ack)
    assert (answer.txn, answer.id) == (message.txn, message.id)
    return answer


def test_a_commit_posts_what_was_prepared() -> None:
    """P5, C1: posted against clearing, the hold gone, the number raised, the id settled for good, in one record."""
    desk = mumbai()
    assert ack(desk, COMMIT).seq == len(desk.lines)
    assert isinstance(desk.last, Committed)
    assert (desk.balance("1001"), desk.held("1001"), desk.balance("clearing")) == (70, 0, 30)
    assert desk.state.number == 8
    assert desk.state.coordinators["coordinator"].number == 8
    settled = desk.state.settled[id_of(1)]
    assert (settled.outcome, settled.txn, settled.number, settled.digest) == (COMMITTED, TXN, 8, DIGEST)
    check_books(desk.state)


def test_a_lower_number_does_not_lower_the_clock() -> None:
    """C1: applying raises L to N, never down to it."""
    desk = mumbai()
    vote(desk, prepare(txn_of(2), transfer(2, legs_of(Mumbai_1001=-5, Delhi_1001=5))))
    ack(desk, COMMIT)
    ack(desk, Commit(txn_of(2), id_of(2), 3))
    assert desk.state.number == 8


@pytest.mark.parametrize("message", [COMMIT, ABORT, ABORT_FINALLY])
def test_repeats_are_acked_and_change_nothing(message: Commit | Abort) -> None:
    """P9: every decision may come again, also after a restart, and gets its ack."""
    desk = mumbai()
    first = ack(desk, message)
    before = list(desk.lines)
    balances = (desk.balance("1001"), desk.held("1001"))
    for again in (ack(desk, message), ack(desk.restarted(), message)):
        assert (again.outcome is None) == (first.outcome is None)
        assert again.other is None
    assert desk.lines == before
    assert (desk.balance("1001"), desk.held("1001")) == balances


def test_an_abort_gives_the_hold_back() -> None:
    """P4, P9: the hold is released and the txn void; without a refusal the id may come again."""
    desk = mumbai()
    assert ack(desk, ABORT).seq == len(desk.lines)
    assert isinstance(desk.last, Aborted)
    assert (desk.balance("1001"), desk.held("1001")) == (100, 0)
    assert TXN in desk.state.tombstones
    assert id_of(1) not in desk.state.settled
    check_books(desk.state)


def test_an_abort_with_a_refusal_settles_the_id() -> None:
    """P6: the tombstone is forced with the release; its ack carries what may now be told."""
    desk = mumbai()
    told = ack(desk, ABORT_FINALLY).outcome
    assert told is not None
    assert (told.status, told.refusal, told.replayed) == (ABORTED, REFUSAL, False)
    assert desk.held("1001") == 0
    again = vote(desk.restarted(), prepare(txn_of(2), PAYING))
    assert again.answer == "known"
    assert again.outcome is not None
    assert again.outcome.refusal == REFUSAL


def test_an_abort_before_its_prepare() -> None:
    """P9: no order is assumed: the Prepare that comes late holds nothing."""
    desk = mumbai(is_prepared=False)
    ack(desk, ABORT)
    assert vote(desk, prepare(TXN, PAYING)).answer == "void"
    desk = mumbai(is_prepared=False)
    ack(desk, ABORT_FINALLY)
    assert vote(desk, prepare(TXN, PAYING)).answer == "known"
    assert desk.held("1001") == 0


@pytest.mark.parametrize("message", [ABORT, ABORT_FINALLY])
def test_a_late_abort_after_the_commit_changes_nothing(message: Abort) -> None:
    """P9: it is answered with what the id is: committed."""
    desk = mumbai()
    ack(desk, COMMIT)
    before = list(desk.lines)
    told = ack(desk, message).outcome
    assert told is not None
    assert told.status == COMMITTED
    assert desk.lines == before
    assert desk.balance("1001") == 70


def test_a_late_abort_of_an_earlier_txn_leaves_the_later_one_alone() -> None:
    """P3, P9: the id is prepared under another txn by now."""
    desk = mumbai()
    ack(desk, ABORT)
    assert vote(desk, prepare(txn_of(2), PAYING)).answer == "yes"
    ack(desk, ABORT)
    ack(desk, Abort(txn_of(7), id_of(1)))
    assert desk.held("1001") == 30
    ack(desk, Commit(txn_of(2), id_of(1), 9))
    assert desk.balance("1001") == 70


def test_a_final_abort_does_not_settle_an_id_that_another_txn_holds() -> None:
    """P6: the other coordinator's txn may commit yet: the ack says who holds the id, and nothing is recorded."""
    desk = mumbai()
    before = list(desk.lines)
    abort = Abort(txn_of(3, 1, "second"), id_of(1), REFUSAL, DIGEST, "")
    answer = desk.ask(abort, from_coordinator("second"))
    assert isinstance(answer, Ack)
    assert (answer.outcome, answer.other) == (None, TXN)
    assert desk.lines == before
    assert desk.held("1001") == 30


def test_a_final_abort_of_an_id_with_other_content_reveals_nothing() -> None:
    """T6: neither the outcome nor the txn of somebody else's id is told."""
    desk = mumbai()
    ack(desk, COMMIT)
    answer = ack(desk, Abort(txn_of(2), id_of(1), REFUSAL, b"other digest....", ""))
    assert (answer.outcome, answer.other) == (None, None)


def test_a_commit_of_what_is_not_prepared_raises_an_alarm() -> None:
    """P12 in short: nothing is posted, nothing is acked, an operator is called; a wrong txn of a known id likewise."""
    for commit in (COMMIT, Commit(txn_of(2), id_of(1), 8)):
        desk = mumbai(is_prepared=commit is not COMMIT)
        before = list(desk.lines)
        assert desk.send(commit, BOSS) == []
        assert desk.lines == before
        status = desk.status()
        assert isinstance(status, StatusInfo)
        assert any("needs an operator" in alarm for alarm in status.alarms)


def test_a_peer_in_doubt_is_told_the_commit() -> None:
    """P8: a participant that committed settles it."""
    desk = mumbai()
    ack(desk, COMMIT)
    assert desk.restarted().ask(Inquiry(TXN, id_of(1)), DELHI) == COMMIT


def test_a_peer_in_doubt_is_told_the_abort() -> None:
    """P8: so does one that aborted."""
    desk = mumbai()
    ack(desk, ABORT)
    before = list(desk.lines)
    assert desk.ask(Inquiry(TXN, id_of(1)), DELHI) == ABORT
    assert desk.lines == before


def test_all_prepared_wait() -> None:
    """P8: a participant that is in doubt itself can say nothing."""
    desk = mumbai()
    assert desk.ask(Inquiry(TXN, id_of(1)), DELHI) == StillPending(TXN, id_of(1))
    assert desk.held("1001") == 30


def test_a_branch_that_never_voted_forces_a_tombstone_and_answers_abort() -> None:
    """P8: after that answer this txn can never get its yes here, so the abort is true."""
    desk = mumbai(is_prepared=False)
    desk.send(Registered("coordinator", 1, ()), BOSS)
    assert desk.ask(Inquiry(TXN, id_of(1)), DELHI) == ABORT
    assert isinstance(desk.last, Aborted)
    assert desk.last.refusal is None
    assert vote(desk.restarted(), prepare(TXN, PAYING)).answer == "void"
    assert vote(desk, prepare(txn_of(2), PAYING)).answer == "yes"


@pytest.mark.parametrize("epoch", [0, 1])
def test_a_branch_that_has_not_met_the_coordinator_in_this_term_cannot_say_that_it_never_voted(epoch: int) -> None:
    """P8, P11: it may stand in, with other data, for the branch that did vote."""
    desk = mumbai(is_prepared=False)
    if epoch:
        desk.send(Registered("coordinator", epoch, ()), BOSS)
    before = list(desk.lines)
    later = txn_of(1, epoch + 1)
    assert desk.ask(Inquiry(later, id_of(1)), DELHI) == StillPending(later, id_of(1))
    assert desk.lines == before


@pytest.mark.parametrize("message", [COMMIT, ABORT])
def test_only_participants_pass_decisions_on(message: Commit | Abort) -> None:
    """P8: a branch that has no part in the txn has nothing to say about it, and nobody about what is not prepared."""
    for desk, sender in ((mumbai(), from_branch("Pune")), (mumbai(is_prepared=False), DELHI)):
        before = list(desk.lines)
        assert desk.send(message, sender) == []
        assert desk.lines == before
        status = desk.status()
        assert isinstance(status, StatusInfo)
        assert status.alarms == ()


@pytest.mark.parametrize("legs", [legs_of(Mumbai_1001=-30, Delhi_1001=31), legs_of(Pune_1001=-30, Delhi_1001=30)])
def test_a_prepare_that_no_coordinator_can_have_sent(legs: tuple[Leg, ...]) -> None:
    """P4: never a yes, never an outcome: unbalanced legs, or none of this branch; an operator is told."""
    desk = mumbai(is_prepared=False)
    before = list(desk.lines)
    assert vote(desk, prepare(TXN, transfer(1, legs))).answer == "busy"
    assert desk.lines == before
    status = desk.status()
    assert isinstance(status, StatusInfo)
    assert len(status.alarms) == 1


def test_an_inquiry_about_an_earlier_txn_of_a_prepared_id() -> None:
    """P8: another txn holds the id here, so the one asked about never can: abort, and the holder keeps its hold."""
    desk = mumbai()
    desk.send(Registered("second", 1, ()), from_coordinator("second"))
    early = txn_of(9, 1, "second")
    assert desk.ask(Inquiry(early, id_of(1)), DELHI) == Abort(early, id_of(1))
    assert desk.held("1001") == 30
    assert ack(desk, COMMIT)


def test_an_inquiry_about_another_txn_of_a_settled_id() -> None:
    """P8, P9: an id settled under one txn cannot be so under another."""
    desk = mumbai()
    ack(desk, COMMIT)
    other = txn_of(9, 1, "second")
    assert desk.ask(Inquiry(other, id_of(1)), DELHI) == Abort(other, id_of(1))


def test_a_decision_from_a_peer_settles_without_an_ack() -> None:
    """P8: a participant that passes a decision on waits for no ack; the coordinator still gets its own later."""
    for message in (COMMIT, ABORT):
        desk = mumbai()
        assert desk.send(message, DELHI) == []
        assert not desk.state.prepared
        assert isinstance(desk.ask(message, BOSS), Ack)


def test_a_restarted_coordinator_is_asked_at_once() -> None:
    """P8, P11: its greeting is recorded when the epoch is new, and everything it left in doubt is asked about."""
    desk = mumbai()
    vote(desk, prepare(txn_of(2), transfer(2, legs_of(Mumbai_1001=-5, Delhi_1001=5))))
    effects = desk.send(Registered("coordinator", 2, ()), BOSS)
    assert desk.last == CoordinatorSeen("coordinator", 2)
    assert of_kind(Inquiry, effects) == [
        ("coordinator", Inquiry(TXN, id_of(1))),
        ("coordinator", Inquiry(txn_of(2), id_of(2))),
    ]
    before = list(desk.lines)
    for epoch in (2, 1):  # a change of the directory, and a late message
        assert desk.send(Registered("coordinator", epoch, ()), BOSS) == []
    desk.down("coordinator")
    assert len(desk.send(Registered("coordinator", 2, ()), BOSS)) == 2
    assert desk.lines == before
    assert desk.send(Registered("second", 1, ()), from_coordinator("second")) == []


def test_what_is_in_doubt_is_shown_and_asked_about() -> None:
    """P8: after the inquiry time, for ever, and visible to operators."""
    desk = mumbai()
    assert desk.tick() == []
    asked = [effects for _ in range(30) if (effects := desk.tick(SECOND_US))]
    assert len(asked) == 29
    assert asked[0] == [Effect("coordinator", 0, Inquiry(TXN, id_of(1)))]
    status = desk.status()
    assert isinstance(status, StatusInfo)
    assert [(doubt.txn, doubt.age_us) for doubt in status.in_doubt] == [(TXN, 30 * SECOND_US)]


def test_several_branches_and_several_legs_each() -> None:
    """P1–P5 for N legs: a branch posts all its legs and one clearing movement for their sum."""
    desk = mumbai(is_prepared=False)
    legs = legs_of(Mumbai_1001=-70, Mumbai_1002=-30, Delhi_1001=40, Delhi_1002=25, Pune_1001=35)
    message: Transfer = transfer(5, legs)
    assert vote(desk, prepare(txn_of(5), message)).answer == "yes"
    ack(desk, Commit(txn_of(5), id_of(5), 1))
    assert (desk.balance("1001"), desk.balance("1002"), desk.balance("clearing")) == (30, 20, 100)
    entries = desk.state.posting().entries
    assert [(e.number, e.amount_minor) for e in entries if e.seq == len(desk.lines)] == [
        ("1001", -70),
        ("1002", -30),
        ("clearing", 100),
    ]
    check_books(desk.state)


def test_the_outcome_of_a_finished_txn_is_replayed_to_a_customer_of_home() -> None:
    """P6, P7: what was settled by two-phase commit is told by `cancel` too."""
    desk = mumbai()
    ack(desk, ABORT_FINALLY)
    told = desk.ask(Cancel(id_of(1)))
    assert isinstance(told, Outcome)
    assert (told.status, told.refusal, told.replayed) == (ABORTED, REFUSAL, True)
