"""A branch alone: local transfers, their refusals, ids, cancels (PROTOCOL P1, P6, P7, T1, C1)."""

from __future__ import annotations

import pytest

from tests.unit.protocol_support import (
    BOSS,
    CUSTOMER,
    BranchDesk,
    branch_desk,
    check_books,
    id_of,
    legs_of,
    prepare,
    transfer,
    txn_of,
)
from zbank.domain.legs import MAX_MINOR, Leg
from zbank.protocol.machine import CONFLICTING_ID, Effect, Sender
from zbank.protocol.messages import (
    ABORTED,
    COMMITTED,
    PENDING,
    Ack,
    AnyMessage,
    Cancel,
    ChangeAccount,
    Commit,
    Fault,
    Forward,
    GetDirectory,
    Outcome,
    Prepare,
    StatusInfo,
    StillPending,
    Transfer,
    Vote,
)
from zbank.protocol.records import Executed, Refused

OTHER = Sender(b"other", "client", "somebody else")


def mumbai() -> BranchDesk:
    return branch_desk("Mumbai", {"1001": 100, "1002": 50, "1003": 0})


def outcome(message: AnyMessage) -> Outcome:
    assert isinstance(message, Outcome)
    return message


def refused_with(message: AnyMessage) -> str:
    answer = outcome(message)
    assert answer.status == ABORTED
    assert answer.refusal is not None
    return answer.refusal.code


def test_a_local_transfer_is_one_record() -> None:
    """P1: all legs at one branch: executed there, in one record, with no coordinator."""
    desk = mumbai()
    before = len(desk.lines)
    done = outcome(desk.ask(transfer(1, legs_of(Mumbai_1001=-30, Mumbai_1002=30))))
    assert (done.status, done.refusal, done.replayed, done.applied) == (COMMITTED, None, False, True)
    assert done.at_us == desk.clock.now().wall_us
    assert [type(record) for record in desk.records[before:]] == [Executed]
    assert (desk.balance("1001"), desk.balance("1002"), desk.balance("clearing")) == (70, 80, 0)
    check_books(desk.state)


def test_two_withdrawals_of_80_from_100_in_one_batch() -> None:
    """T1: decide, apply, next: the second withdrawal sees the first, though nothing is forced between them."""
    desk = mumbai()
    batch = [(CUSTOMER, n, transfer(n, legs_of(Mumbai_1001=-80, Mumbai_cash=80))) for n in (1, 2)]
    first, second = desk.turn(batch)
    assert outcome(first.message).status == COMMITTED
    assert refused_with(second.message) == "insufficient_funds"
    assert (first.n, second.n) == (1, 2)
    assert desk.balance("1001") == 20


def test_duplicates_in_one_batch_execute_once() -> None:
    """T1, P7: the second of two equal requests in a batch is answered from what the first did."""
    desk = mumbai()
    message = transfer(1, legs_of(Mumbai_1001=-30, Mumbai_1002=30))
    first, second = (outcome(effect.message) for effect in desk.turn([(CUSTOMER, 1, message), (CUSTOMER, 2, message)]))
    assert (first.replayed, second.replayed) == (False, True)
    assert desk.balance("1001") == 70


@pytest.mark.parametrize(
    ("legs", "code"),
    [
        (legs_of(Mumbai_1001=-101, Mumbai_1002=101), "insufficient_funds"),
        (legs_of(Mumbai_1003=-1, Mumbai_1002=1), "insufficient_funds"),
        (legs_of(Mumbai_1001=-1, Mumbai_9999=1), "account_not_found"),
        (legs_of(Mumbai_9999=-1, Mumbai_1001=1), "account_not_found"),
        (legs_of(Mumbai_1001=-1, Mumbai_frozen=1), "account_frozen"),
        (legs_of(Mumbai_frozen=-1, Mumbai_1001=1), "account_frozen"),
        (legs_of(Mumbai_1001=-1, Mumbai_closed=1), "account_closed"),
        (legs_of(Mumbai_cash=-MAX_MINOR, Mumbai_1002=MAX_MINOR), "limit_exceeded"),
    ],
)
def test_a_refusal_is_recorded_and_stands(legs: tuple[Leg, ...], code: str) -> None:
    """P1, P6: a business no is an outcome: recorded, told, and told again when it could be done later."""
    desk = branch_desk("Mumbai", {"1001": 100, "1002": 50, "1003": 0, "frozen": 5, "closed": 0})
    desk.ask(ChangeAccount(id_of(50), "frozen", "frozen", -1))
    desk.ask(ChangeAccount(id_of(51), "closed", "closed", -1))
    balances = {number: account.balance_minor for number, account in desk.state.book.accounts.items()}
    assert refused_with(desk.ask(transfer(1, legs))) == code
    assert isinstance(desk.last, Refused)
    assert {number: account.balance_minor for number, account in desk.state.book.accounts.items()} == balances
    desk.ask(ChangeAccount(id_of(52), "frozen", "open", -1))
    desk.ask(transfer(2, legs_of(Mumbai_cash=-500, Mumbai_1001=500)))
    again = outcome(desk.ask(transfer(1, legs)))
    assert refused_with(again) == code
    assert again.replayed


def test_a_transfer_in_another_currency_is_refused() -> None:
    """P1: currency_mismatch is an outcome like every refusal."""
    desk = mumbai()
    answer = desk.ask(transfer(1, legs_of(Mumbai_1001=-1, Mumbai_1002=1), currency="EUR"))
    assert refused_with(answer) == "currency_mismatch"
    assert desk.balance("1001") == 100


@pytest.mark.parametrize(
    ("legs", "code"),
    [
        ((), "malformed"),
        (legs_of(Mumbai_1001=-1), "malformed"),
        ((Leg("Mumbai", "1001", -1), Leg("Mumbai", "1001", 1)), "malformed"),
        (legs_of(Mumbai_1001=-1, Mumbai_clearing=1), "malformed"),
        (legs_of(Mumbai_1001=-1, Delhi_suspense=1), "malformed"),
        (legs_of(Mumbai_1001=0, Mumbai_1002=0), "invalid_amount"),
        (legs_of(Mumbai_1001=-1, Mumbai_1002=2), "invalid_amount"),
        (legs_of(Mumbai_1001=-1, Delhi_1001=1), "not_here"),
        (legs_of(Delhi_1001=-1, Delhi_1002=1), "not_here"),
    ],
)
def test_what_is_no_transfer_is_no_outcome(legs: tuple[Leg, ...], code: str) -> None:
    """P6: a malformed request, or one for elsewhere, is a fault and leaves no record: the id stays free."""
    desk = mumbai()
    before = len(desk.lines)
    answer = desk.ask(transfer(1, legs))
    assert isinstance(answer, Fault)
    assert answer.code == code
    assert len(desk.lines) == before
    done = desk.ask(transfer(1, legs_of(Mumbai_1001=-1, Mumbai_1002=1)))
    assert outcome(done).status == COMMITTED


def test_several_legs_on_one_account_count_as_their_net() -> None:
    """P4: what an account has to bear is the sum of its legs, in whatever order they stand."""
    desk = mumbai()
    give_and_take = (Leg("Mumbai", "1003", -200), Leg("Mumbai", "1003", 150), Leg("Mumbai", "1001", 50))
    assert refused_with(desk.ask(transfer(1, give_and_take))) == "insufficient_funds"
    net_20 = (Leg("Mumbai", "1001", -300), Leg("Mumbai", "1001", 280), Leg("Mumbai", "1002", 20))
    assert outcome(desk.ask(transfer(2, net_20))).status == COMMITTED
    assert (desk.balance("1001"), desk.balance("1002")) == (80, 70)


def test_the_overdraft_limit_can_be_used() -> None:
    """P1: an account goes as far below zero as its limit, and not one minor unit further."""
    desk = branch_desk("Mumbai", {"1001": 100, "1002": 0}, overdraft_limits={"1001": 40})
    assert refused_with(desk.ask(transfer(1, legs_of(Mumbai_1001=-141, Mumbai_1002=141)))) == "insufficient_funds"
    assert outcome(desk.ask(transfer(2, legs_of(Mumbai_1001=-140, Mumbai_1002=140)))).status == COMMITTED
    assert desk.balance("1001") == -40


def test_same_id_same_content_is_told_again() -> None:
    """P7: also after a restart, also with the legs in another order; the money moves once."""
    desk = mumbai()
    message = transfer(1, legs_of(Mumbai_1001=-30, Mumbai_1002=30), memo="rent")
    first = outcome(desk.ask(message))
    desk = desk.restarted()
    reordered = Transfer(message.id, message.legs[::-1], message.currency, message.memo)
    for repeat in (message, reordered):
        again = outcome(desk.ask(repeat))
        assert (again.status, again.number, again.at_us) == (first.status, first.number, first.at_us)
        assert again.replayed
    assert desk.balance("1001") == 70


@pytest.mark.parametrize(
    ("message", "sender"),
    [
        (transfer(1, legs_of(Mumbai_1001=-31, Mumbai_1002=31)), CUSTOMER),
        (transfer(1, legs_of(Mumbai_1001=-30, Mumbai_1002=30), memo="other"), CUSTOMER),
        (transfer(1, legs_of(Mumbai_1001=-30, Mumbai_1002=30)), OTHER),
        (Cancel(id_of(1)), OTHER),
        (ChangeAccount(id_of(1), "1001", "frozen", -1), CUSTOMER),
    ],
)
@pytest.mark.parametrize("amount_minor", [30, 300], ids=["committed", "aborted"])
def test_an_id_that_stands_for_something_else(message: AnyMessage, sender: Sender, amount_minor: int) -> None:
    """P7, T6: other content or another caller: a conflict that tells nothing of what the id stands for."""
    desk = mumbai()
    own = transfer(1, legs_of(Mumbai_1001=-amount_minor, Mumbai_1002=amount_minor), memo="" if sender is OTHER else "x")
    desk.ask(own)
    before = len(desk.lines)
    assert desk.ask(message, sender) == CONFLICTING_ID
    assert len(desk.lines) == before


def test_a_prepared_id_cannot_be_used_locally() -> None:
    """P7: an id that is promised to a coordinator's txn stands for that."""
    desk = mumbai()
    abroad = transfer(1, legs_of(Mumbai_1001=-30, Delhi_1001=30))
    desk.ask(prepare(txn_of(1), abroad), BOSS)
    assert desk.ask(transfer(1, legs_of(Mumbai_1001=-1, Mumbai_1002=1))) == CONFLICTING_ID
    assert desk.ask(ChangeAccount(id_of(1), "1002", "frozen", -1)) == CONFLICTING_ID


def test_a_cancelled_id_never_executes() -> None:
    """P6: `cancel` puts the tombstone; the transfer that comes after it is told so, whatever it says."""
    desk = mumbai()
    assert refused_with(desk.ask(Cancel(id_of(1)))) == "cancelled"
    desk = desk.restarted()
    answer = desk.ask(transfer(1, legs_of(Mumbai_1001=-30, Mumbai_1002=30)))
    assert refused_with(answer) == "cancelled"
    assert desk.balance("1001") == 100
    assert refused_with(desk.ask(Cancel(id_of(1)))) == "cancelled"


def test_a_cancel_also_stops_a_prepare_that_comes_later() -> None:
    """P6: the same for two-phase commit: the vote is that the id is known, and how it ended."""
    desk = mumbai()
    desk.ask(Cancel(id_of(1)))
    vote = desk.ask(prepare(txn_of(1), transfer(1, legs_of(Mumbai_1001=-30, Delhi_1001=30))), BOSS)
    assert isinstance(vote, Vote)
    assert vote.answer == "known"
    assert vote.outcome is not None
    assert refused_with(vote.outcome) == "cancelled"
    assert desk.held("1001") == 0


def test_what_is_done_or_promised_cannot_be_cancelled() -> None:
    """P6: a cancel of an executed id is told what became of it; of a prepared one, that it is pending."""
    desk = mumbai()
    desk.ask(transfer(1, legs_of(Mumbai_1001=-30, Mumbai_1002=30)))
    assert outcome(desk.ask(Cancel(id_of(1)))).status == COMMITTED
    desk.ask(prepare(txn_of(1), transfer(2, legs_of(Mumbai_1001=-30, Delhi_1001=30))), BOSS)
    assert outcome(desk.ask(Cancel(id_of(2)))).status == PENDING
    assert desk.held("1001") == 30


def test_a_forwarded_transfer_counts_as_its_callers() -> None:
    """P1, T6: a coordinator passes a local transfer on in the caller's name, and answers go back through it."""
    desk = mumbai()
    message = transfer(1, legs_of(Mumbai_1001=-30, Mumbai_1002=30))
    (effect,) = desk.send(Forward("somebody else", message), BOSS, 12)
    assert (effect.to, effect.n, outcome(effect.message).status) == (BOSS.address, 12, COMMITTED)
    assert outcome(desk.ask(message, OTHER)).replayed
    assert desk.ask(message) == CONFLICTING_ID


def test_local_records_carry_the_commit_number() -> None:
    """C1: a local transfer carries the branch's commit number and does not raise it."""
    desk = mumbai()
    desk.ask(prepare(txn_of(1), transfer(1, legs_of(Mumbai_1001=-30, Delhi_1001=30))), BOSS)
    desk.send(Commit(txn_of(1), id_of(1), 41), BOSS)
    done = outcome(desk.ask(transfer(2, legs_of(Mumbai_1001=-1, Mumbai_1002=1))))
    assert done.number == 41
    assert isinstance(desk.last, Executed)
    assert desk.last.number == 41
    assert desk.state.number == 41


def test_declined_work_gets_an_answer_that_is_no_outcome() -> None:
    """P6, T2: with no room on the disk, requests get the fault, Prepare a vote that binds nobody, news nothing."""
    desk = mumbai()
    fault = Fault(code="storage_full", detail="no room")
    asked: Prepare = prepare(txn_of(1), transfer(1, legs_of(Mumbai_1001=-30, Delhi_1001=30)))
    decline = desk.machine.decline
    for request in (asked.transfer, Cancel(id_of(1)), Forward("", asked.transfer)):
        assert list(decline(CUSTOMER, 4, request, fault)) == [Effect(CUSTOMER.address, 4, fault)]
    (declined,) = decline(BOSS, 0, asked, fault)
    assert isinstance(declined.message, Vote)
    assert declined.message.answer == "storage_full"
    (declined,) = decline(BOSS, 0, asked, Fault(code="busy", detail="too much"))
    assert isinstance(declined.message, Vote)
    assert declined.message.answer == "busy"
    assert not decline(BOSS, 0, Commit(txn_of(1), id_of(1), 1), fault)


def test_requests_for_other_actors() -> None:
    """A branch says that it does not serve a coordinator's request; news for others it drops."""
    desk = mumbai()
    answer = desk.ask(GetDirectory())
    assert isinstance(answer, Fault)
    assert answer.code == "not_for_me"
    for news in (Ack(txn_of(1), id_of(1), 3), StillPending(txn_of(1), id_of(1))):
        assert desk.send(news, BOSS) == []


def test_status_tells_the_books() -> None:
    """The status is what the fold says."""
    desk = mumbai()
    desk.ask(prepare(txn_of(1), transfer(1, legs_of(Mumbai_1001=-30, Delhi_1001=30))), BOSS)
    desk.send(Commit(txn_of(1), id_of(1), 41), BOSS)
    desk.ask(prepare(txn_of(2), transfer(2, legs_of(Mumbai_1001=-30, Delhi_1001=30))), BOSS)
    status = desk.status()
    assert isinstance(status, StatusInfo)
    assert (status.accounts, status.total_minor, status.clearing_minor, status.number) == (5, 0, 30, 41)
    assert (status.in_flight, status.in_doubt) == (1, ())
    assert (status.seq, status.epoch, status.unposted) == (len(desk.lines), 1, len(desk.lines))
