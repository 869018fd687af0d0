"""A branch asked to prepare: its votes, and what a yes promises (PROTOCOL P3, P4)."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.unit.protocol_support import (
    BOSS,
    CUSTOMER,
    BranchDesk,
    branch_desk,
    check_books,
    from_coordinator,
    id_of,
    legs_of,
    prepare,
    transfer,
    txn_of,
)
from zbank.domain.legs import MAX_MINOR, Leg
from zbank.protocol import participant
from zbank.protocol.machine import Sender
from zbank.protocol.messages import (
    ABORTED,
    COMMITTED,
    Abort,
    Ack,
    ChangeAccount,
    Commit,
    Outcome,
    Prepare,
    Registered,
    Transfer,
    Vote,
)
from zbank.protocol.records import Prepared, Refused

SECOND = from_coordinator("second")


def mumbai() -> BranchDesk:
    return branch_desk("Mumbai", {"1001": 100, "1002": 50})


def vote_of(desk: BranchDesk, message: Prepare, sender: Sender = BOSS) -> Vote:
    vote = desk.ask(message, sender)
    assert isinstance(vote, Vote)
    assert (vote.txn, vote.id) == (message.txn, message.transfer.id)
    return vote


def paying(n: int, amount_minor: int = 30) -> Transfer:
    """Mumbai pays Delhi: Mumbai is the home branch."""
    return transfer(n, legs_of(Mumbai_1001=-amount_minor, Delhi_1001=amount_minor))


def paid(n: int, amount_minor: int = 30) -> Transfer:
    """Delhi pays Mumbai: Mumbai is not the home branch."""
    return transfer(n, legs_of(Delhi_1001=-amount_minor, Mumbai_1001=amount_minor))


def test_yes_is_recorded_with_its_holds() -> None:
    """P3, P4: a yes is one forced record; the debit is held, the counter leg on clearing promised, no balance moves."""
    desk = mumbai()
    vote = vote_of(desk, prepare(txn_of(1), paying(1)))
    assert (vote.answer, vote.seq, vote.refusal, vote.outcome) == ("yes", len(desk.lines), None, None)
    assert isinstance(desk.last, Prepared)
    assert desk.last.content.legs == paying(1).legs
    assert (desk.balance("1001"), desk.held("1001"), desk.state.book.accounts["1001"].available_minor) == (100, 30, 70)
    assert desk.state.book.accounts["clearing"].incoming_minor == 30
    check_books(desk.state)


def test_yes_carries_the_commit_number() -> None:
    """C1: a vote carries the branch's number, raised by every commit applied here."""
    desk = mumbai()
    vote_of(desk, prepare(txn_of(1), paying(1)))
    desk.ask(Commit(txn_of(1), id_of(1), 17), BOSS)
    assert vote_of(desk, prepare(txn_of(2), paying(2))).number == 17


def test_a_repeated_prepare_gets_the_same_yes() -> None:
    """P9: the repeat holds nothing more; also after a restart, and after more was recorded."""
    desk = mumbai()
    first = vote_of(desk, prepare(txn_of(1), paying(1)))
    desk.ask(transfer(5, legs_of(Mumbai_1002=-1, Mumbai_1001=1)))
    assert vote_of(desk, prepare(txn_of(1), paying(1))) == first
    assert vote_of(desk.restarted(), prepare(txn_of(1), paying(1))) == first
    assert desk.held("1001") == 30


def test_a_refusal_at_home_is_final() -> None:
    """P6: home's own refusal forces the id's tombstone with it: no later attempt can execute it."""
    desk = mumbai()
    vote = vote_of(desk, prepare(txn_of(1), paying(1, 101)))
    assert (vote.answer, vote.final, vote.seq) == ("refused", True, len(desk.lines))
    assert vote.refusal is not None
    assert vote.refusal.code == "insufficient_funds"
    assert isinstance(desk.last, Refused)
    desk.ask(transfer(5, legs_of(Mumbai_cash=-500, Mumbai_1001=500)))
    again = vote_of(desk, prepare(txn_of(2), paying(1, 101)))
    assert again.answer == "known"
    assert again.outcome is not None
    assert (again.outcome.status, again.outcome.refusal) == (ABORTED, vote.refusal)


def test_a_refusal_elsewhere_settles_nothing() -> None:
    """P2, P6: a branch that is not home refuses this txn only; home decides about the id."""
    desk = mumbai()
    before = len(desk.lines)
    desk.ask(ChangeAccount(id_of(50), "1001", "frozen", -1))
    vote = vote_of(desk, prepare(txn_of(1), paid(1)))
    assert (vote.answer, vote.final) == ("refused", False)
    assert vote.refusal is not None
    assert vote.refusal.code == "account_frozen"
    assert len(desk.lines) == before + 1  # the freezing
    desk.ask(ChangeAccount(id_of(51), "1001", "open", -1))
    assert vote_of(desk, prepare(txn_of(2), paid(1))).answer == "yes"


@pytest.mark.parametrize(
    ("message", "code"),
    [
        (transfer(1, legs_of(Mumbai_9999=-1, Delhi_1001=1)), "account_not_found"),
        (transfer(1, legs_of(Mumbai_1001=-1, Delhi_1001=1), currency="EUR"), "currency_mismatch"),
        (transfer(1, legs_of(Mumbai_frozen=-1, Delhi_1001=1)), "account_frozen"),
        (transfer(1, legs_of(Mumbai_closed=-1, Delhi_1001=1)), "account_closed"),
        (transfer(1, legs_of(Delhi_1001=-MAX_MINOR, Mumbai_1001=MAX_MINOR)), "limit_exceeded"),
    ],
)
def test_all_that_could_stop_the_commit_is_checked_now(message: Transfer, code: str) -> None:
    """P4: funds, limits, status, currency, overflow."""
    desk = branch_desk("Mumbai", {"1001": 100, "frozen": 5, "closed": 0})
    desk.ask(ChangeAccount(id_of(50), "frozen", "frozen", -1))
    desk.ask(ChangeAccount(id_of(51), "closed", "closed", -1))
    vote = vote_of(desk, prepare(txn_of(1), message))
    assert vote.refusal is not None
    assert vote.refusal.code == code


def test_prepared_debits_are_not_available() -> None:
    """P4: what one txn was promised, neither another txn nor a local transfer gets."""
    desk = mumbai()
    assert vote_of(desk, prepare(txn_of(1), paying(1, 60))).answer == "yes"
    assert vote_of(desk, prepare(txn_of(2), paying(2, 41))).answer == "refused"
    local = desk.ask(transfer(3, legs_of(Mumbai_1001=-41, Mumbai_1002=41)))
    assert isinstance(local, Outcome)
    assert local.status == ABORTED
    assert vote_of(desk, prepare(txn_of(4), paying(4, 40))).answer == "yes"


def test_two_prepares_of_80_from_100_in_one_batch() -> None:
    """T1 for votes: the second of a batch sees the first's hold."""
    desk = mumbai()
    batch = [(BOSS, 0, prepare(txn_of(n), paying(n, 80))) for n in (1, 2)]
    answers = [effect.message.answer for effect in desk.turn(batch) if isinstance(effect.message, Vote)]
    assert answers == ["yes", "refused"]


def test_prepared_credits_count_against_overflow_but_are_not_available() -> None:
    """P4: two promised credits that would not both fit are not both promised; money promised is not money yet."""
    desk = branch_desk("Mumbai", {"1001": 100})
    room_minor = MAX_MINOR - 100
    assert vote_of(desk, prepare(txn_of(1), paid(1, room_minor))).answer == "yes"
    second = vote_of(desk, prepare(txn_of(2), paid(2, 1)))
    assert second.refusal is not None
    assert second.refusal.code == "limit_exceeded"
    local = desk.ask(transfer(3, legs_of(Mumbai_1001=-101, Mumbai_cash=101)))
    assert isinstance(local, Outcome)
    assert local.status == ABORTED
    desk.ask(Abort(txn_of(1), id_of(1)), BOSS)
    assert vote_of(desk, prepare(txn_of(4), paid(4, 1))).answer == "yes"


def test_several_legs_on_one_account_hold_their_net() -> None:
    """P4: 300 out and 280 in of one txn is a hold of 20; posted it is both entries."""
    desk = mumbai()
    legs = (Leg("Mumbai", "1001", -300), Leg("Mumbai", "1001", 280), Leg("Delhi", "1001", 20))
    assert vote_of(desk, prepare(txn_of(1), transfer(1, legs))).answer == "yes"
    assert desk.held("1001") == 20
    desk.ask(Commit(txn_of(1), id_of(1), 1), BOSS)
    assert (desk.balance("1001"), desk.held("1001"), desk.balance("clearing")) == (80, 0, 20)
    check_books(desk.state)


def test_legs_that_cancel_within_the_branch_need_no_clearing() -> None:
    """DESIGN §2: where the legs of a branch sum to zero, nothing goes through clearing."""
    desk = mumbai()
    legs = legs_of(Mumbai_1001=-30, Mumbai_1002=30, Delhi_1001=-5, Pune_1001=5)
    vote_of(desk, prepare(txn_of(1), transfer(1, legs)))
    desk.ask(Commit(txn_of(1), id_of(1), 1), BOSS)
    assert (desk.balance("1001"), desk.balance("1002"), desk.balance("clearing")) == (70, 80, 0)


def change(status: str = "", limit_minor: int = -1) -> Callable[[BranchDesk], Outcome]:
    def act(desk: BranchDesk) -> Outcome:
        answer = desk.ask(ChangeAccount(id_of(70), "1001", status, limit_minor))
        assert isinstance(answer, Outcome)
        return answer

    return act


@pytest.mark.parametrize(
    ("act", "status"),
    [
        (change(status="frozen"), COMMITTED),
        (change(limit_minor=40), COMMITTED),
        (change(limit_minor=29), ABORTED),
        (change(status="closed"), ABORTED),
    ],
)
def test_a_yes_stays_valid(act: Callable[[BranchDesk], Outcome], status: str) -> None:
    """P4: a freeze is for later decisions, a limit is not lowered below what is held, a prepared account stays open."""
    desk = branch_desk("Mumbai", {"1001": 100}, overdraft_limits={"1001": 100})
    vote_of(desk, prepare(txn_of(1), paying(1, 130)))
    assert act(desk).status == status
    assert isinstance(desk.ask(Commit(txn_of(1), id_of(1), 1), BOSS), Ack)
    assert desk.balance("1001") == -30
    check_books(desk.state)


def test_an_account_with_a_prepared_credit_cannot_close() -> None:
    """P4: money is on its way to it."""
    desk = branch_desk("Mumbai", {"1001": 0})
    vote_of(desk, prepare(txn_of(1), paid(1)))
    assert change(status="closed")(desk).status == ABORTED
    desk.ask(Commit(txn_of(1), id_of(1), 1), BOSS)
    assert desk.balance("1001") == 30


def test_a_prepared_hold_never_expires() -> None:
    """P4: however much time passes, by either clock, the hold stays until the decision."""
    desk = mumbai()
    vote_of(desk, prepare(txn_of(1), paying(1)))
    for _ in range(5):
        desk.tick(10**12)
    desk = desk.restarted()
    assert desk.held("1001") == 30
    assert isinstance(desk.ask(Commit(txn_of(1), id_of(1), 1), BOSS), Ack)
    assert desk.balance("1001") == 70


def test_occupied_by_another_txn_is_no_refusal() -> None:
    """P3: the vote names the txn that holds the id here, and nothing is recorded."""
    desk = mumbai()
    vote_of(desk, prepare(txn_of(1), paying(1)))
    before = len(desk.lines)
    own = vote_of(desk, prepare(txn_of(2), paying(1)))
    other = vote_of(desk, prepare(txn_of(1, 1, "second"), paying(1)), SECOND)
    for vote in (own, other):
        assert (vote.answer, vote.other, vote.refusal) == ("occupied", txn_of(1), None)
    assert len(desk.lines) == before


def test_known_tells_the_outcome() -> None:
    """P3: an id that is settled is never prepared again, and the vote says how it ended."""
    desk = mumbai()
    vote_of(desk, prepare(txn_of(1), paying(1)))
    desk.ask(Commit(txn_of(1), id_of(1), 5), BOSS)
    known = vote_of(desk.restarted(), prepare(txn_of(1, 1, "second"), paying(1)), SECOND)
    assert known.answer == "known"
    assert known.outcome is not None
    assert (known.outcome.status, known.outcome.number) == (COMMITTED, 5)
    assert not known.outcome.applied, "one branch cannot know that every branch has applied it (P10)"


@pytest.mark.parametrize("is_settled", [True, False])
def test_conflict_reveals_nothing(is_settled: bool) -> None:
    """P7, T6: the id of other content or another caller: no outcome, no txn is told."""
    desk = mumbai()
    vote_of(desk, prepare(txn_of(1), paying(1)))
    if is_settled:
        desk.ask(Commit(txn_of(1), id_of(1), 5), BOSS)
    for message in (prepare(txn_of(2), paying(1, 31)), prepare(txn_of(3), paying(1), caller="somebody else")):
        vote = vote_of(desk, message)
        assert (vote.answer, vote.outcome, vote.other, vote.refusal) == ("conflict", None, None, None)


def test_a_voided_txn_never_prepares() -> None:
    """P9: a Prepare that comes after its Abort is answered void, also after a restart; the id may come back."""
    desk = mumbai()
    desk.ask(Abort(txn_of(1), id_of(1)), BOSS)
    desk = desk.restarted()
    assert vote_of(desk, prepare(txn_of(1), paying(1))).answer == "void"
    assert desk.held("1001") == 0
    assert vote_of(desk, prepare(txn_of(2), paying(1))).answer == "yes"


def test_lower_epochs_are_refused() -> None:
    """P11: once a newer epoch of a coordinator is known, Prepares of older ones are stale; others' epochs do not count."""
    desk = mumbai()
    desk.send(Registered("coordinator", 4, ()), BOSS)
    desk = desk.restarted()
    assert vote_of(desk, prepare(txn_of(1, epoch=3), paying(1))).answer == "stale"
    assert vote_of(desk, prepare(txn_of(1, epoch=1, coordinator="second"), paying(2)), SECOND).answer == "yes"
    assert vote_of(desk, prepare(txn_of(1, epoch=4), paying(1))).answer == "yes"


def test_a_prepare_of_a_newer_epoch_ends_the_older_ones() -> None:
    """P11: a yes vote is news of the epoch too, before any Registered came."""
    desk = mumbai()
    vote_of(desk, prepare(txn_of(1, epoch=6), paying(1)))
    assert vote_of(desk, prepare(txn_of(9, epoch=5), paying(2))).answer == "stale"


def test_a_coordinator_cannot_speak_for_another() -> None:
    """P11: a txn belongs to who sends it."""
    desk = mumbai()
    assert vote_of(desk, prepare(txn_of(1), paying(1)), SECOND).answer == "stale"
    assert desk.held("1001") == 0


def test_above_the_cap_new_prepares_are_busy(monkeypatch: pytest.MonkeyPatch) -> None:
    """P4: the cap refuses new prepares as busy, not as outcomes; repeats and decisions go on."""
    monkeypatch.setattr(participant, "MAX_PREPARED", 2)
    desk = mumbai()
    for n in (1, 2):
        assert vote_of(desk, prepare(txn_of(n), paying(n, 10))).answer == "yes"
    before = len(desk.lines)
    assert vote_of(desk, prepare(txn_of(3), paying(3, 10))).answer == "busy"
    assert vote_of(desk, prepare(txn_of(3), paying(3, 500))).answer == "busy"
    assert len(desk.lines) == before
    assert vote_of(desk, prepare(txn_of(2), paying(2, 10))).answer == "yes"
    desk.ask(Commit(txn_of(1), id_of(1), 1), BOSS)
    assert vote_of(desk, prepare(txn_of(3), paying(3, 10))).answer == "yes"


def test_a_local_id_of_the_same_content_is_impossible() -> None:
    """P1, P7: an id used locally is a conflict for a txn, whose content is another one."""
    desk = mumbai()
    desk.ask(transfer(1, legs_of(Mumbai_1001=-30, Mumbai_1002=30)), CUSTOMER)
    assert vote_of(desk, prepare(txn_of(1), paying(1))).answer == "conflict"
