"""A coordinator whose transfer does not commit: refusals, occupied ids, deadlines (PROTOCOL P3, P6)."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.protocol_support import (
    CUSTOMER,
    SECOND_US,
    CoordinatorDesk,
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
from zbank.domain.legs import content_digest
from zbank.domain.refusal import Refusal
from zbank.errors import FenceLost
from zbank.protocol.attempts import RETRY_US, VOTE_LIMIT_US
from zbank.protocol.machine import CONFLICTING_ID, Effect
from zbank.protocol.messages import (
    ABORTED,
    COMMITTED,
    Abort,
    Ack,
    AnyMessage,
    Commit,
    Fault,
    Inquiry,
    Outcome,
    Prepare,
    Txn,
    Vote,
)

PAYING = transfer(1, legs_of(Mumbai_1001=-30, Delhi_1001=30, Pune_1001=-5, Pune_1002=5))
HOME, AWAY, THIRD = "Mumbai", "Delhi", "Pune"
PREPARE = prepare(txn_of(1), PAYING)
REFUSAL = Refusal("account_frozen", "Delhi/1001 is frozen")
DIGEST = content_digest(PAYING.legs, "INR", "", "")
FINAL_ABORT = Abort(txn_of(1), id_of(1), REFUSAL, DIGEST, "")
SETTLED = Outcome(id_of(1), ABORTED, REFUSAL, 0, 77, False, True)
DONE = Outcome(id_of(1), COMMITTED, None, 6, 77, True, True)
FOREIGN = txn_of(4, 2, "second")


def begun() -> CoordinatorDesk:
    desk = coordinator_desk().joined()
    desk.send(PAYING, CUSTOMER, 5)
    return desk


def votes(desk: CoordinatorDesk, branch: str, answer: str, txn: Txn = PREPARE.txn, **more: Any) -> list[Effect]:
    """A vote of another kind than yes comes in."""
    vote = Vote(txn, id_of(1), answer, 0, 9, **more)
    return desk.send(vote, from_branch(branch))


def acks(desk: CoordinatorDesk, branch: str, txn: Txn = PREPARE.txn, **more: Any) -> list[Effect]:
    ack = Ack(txn, id_of(1), 12, **more)
    return desk.send(ack, from_branch(branch))


def told(effects: list[Effect]) -> list[AnyMessage]:
    """What the customer is answered to request 5."""
    answers = [effect for effect in effects if isinstance(effect.to, bytes)]
    assert all((effect.to, effect.n) == (CUSTOMER.address, 5) for effect in answers)
    return [effect.message for effect in answers]


def fault_code(effects: list[Effect]) -> str:
    (answer,) = told(effects)
    assert isinstance(answer, Fault)
    return answer.code


def test_aborted_is_told_only_when_home_has_the_tombstone() -> None:
    """P6: a refusal from elsewhere goes to home with the Abort; home's ack, not the vote, tells the customer."""
    desk = begun()
    effects = votes(desk, AWAY, "refused", refusal=REFUSAL)
    assert effects == [
        Effect(AWAY, 0, Abort(txn_of(1), id_of(1))),
        Effect(THIRD, 0, Abort(txn_of(1), id_of(1))),
        Effect(HOME, 0, FINAL_ABORT),
    ]
    assert acks(desk, AWAY) == []
    assert acks(desk, THIRD, outcome=SETTLED) == []
    assert told(desk.tick(SECOND_US)) == []
    assert told(acks(desk, HOME, outcome=SETTLED)) == [SETTLED]
    assert acks(desk, HOME, outcome=SETTLED) == []


def test_the_tombstone_is_asked_for_until_it_is_acked() -> None:
    """P6: the Abort to home is repeated, also when home comes back, and when home inquires."""
    desk = begun()
    votes(desk, AWAY, "refused", refusal=REFUSAL)
    assert desk.tick(SECOND_US) == [Effect(HOME, 0, FINAL_ABORT)]
    assert of_kind(Abort, desk.send(register(HOME), from_branch(HOME))) == [(HOME, FINAL_ABORT)]
    assert desk.send(Inquiry(txn_of(1), id_of(1)), from_branch(HOME)) == [Effect(HOME, 0, FINAL_ABORT)]
    away = desk.send(Inquiry(txn_of(1), id_of(1)), from_branch(AWAY))
    assert away == [Effect(AWAY, 0, Abort(txn_of(1), id_of(1)))]


def test_without_the_tombstone_nothing_is_told_as_final() -> None:
    """P6: past the deadline the answer is that it is not known."""
    desk = begun()
    votes(desk, AWAY, "refused", refusal=REFUSAL)
    assert fault_code(desk.tick(VOTE_LIMIT_US)) == "branch_unavailable"


def test_homes_own_refusal_is_told_at_once() -> None:
    """P6: its tombstone rides on the vote."""
    desk = begun()
    effects = votes(desk, HOME, "refused", refusal=REFUSAL, final=True)
    assert of_kind(Abort, effects) == [(AWAY, Abort(txn_of(1), id_of(1))), (THIRD, Abort(txn_of(1), id_of(1)))]
    (answer,) = told(effects)
    assert isinstance(answer, Outcome)
    assert (answer.status, answer.refusal) == (ABORTED, REFUSAL)


def test_a_refusal_that_only_claims_to_be_final_goes_to_home() -> None:
    """P2, P6: only home can settle the id."""
    desk = begun()
    assert told(votes(desk, AWAY, "refused", refusal=REFUSAL, final=True)) == []
    desk = begun()
    effects = votes(desk, HOME, "refused", refusal=REFUSAL, final=False)
    assert told(effects) == []
    assert (HOME, FINAL_ABORT) in of_kind(Abort, effects)


def test_the_same_request_joins_while_the_abort_is_on_its_way() -> None:
    """P7: both are told when home has acked."""
    desk = begun()
    votes(desk, AWAY, "refused", refusal=REFUSAL)
    assert desk.send(PAYING, CUSTOMER, 6) == []
    effects = acks(desk, HOME, outcome=SETTLED)
    assert [effect.n for effect in effects] == [5, 6]


def test_votes_after_the_refusal_change_nothing() -> None:
    """P9: the yes votes that come late do not commit."""
    desk = begun()
    votes(desk, AWAY, "refused", refusal=REFUSAL)
    before = len(desk.lines)
    assert desk.turn([yes(PREPARE, branch) for branch in (HOME, AWAY, THIRD)]) == []
    assert len(desk.lines) == before


def test_a_late_refusal_after_the_decision_changes_nothing() -> None:
    """P9: a repeat of a Prepare may have been refused before another was answered yes."""
    desk = begun()
    desk.turn([yes(PREPARE, branch) for branch in (HOME, AWAY, THIRD)])
    assert votes(desk, AWAY, "refused", refusal=REFUSAL) == []
    assert of_kind(Commit, desk.tick(SECOND_US))


def test_home_knows_better_than_the_refusal() -> None:
    """P6: another coordinator committed the id meanwhile: what home says is told."""
    desk = begun()
    votes(desk, AWAY, "refused", refusal=REFUSAL)
    assert told(acks(desk, HOME, outcome=DONE)) == [DONE]


def test_home_says_that_the_id_stands_for_something_else() -> None:
    """P7, T6: neither outcome nor txn in the ack: a conflict."""
    desk = begun()
    votes(desk, AWAY, "refused", refusal=REFUSAL)
    assert told(acks(desk, HOME)) == [CONFLICTING_ID]


@pytest.mark.parametrize(("other", "is_mine"), [(txn_of(7, 0), True), (FOREIGN, False)])
def test_the_tombstone_waits_for_a_txn_that_holds_the_id_at_home(other: Txn, is_mine: bool) -> None:
    """P3, P6: a dead txn of mine is voided and the Abort repeated; another coordinator's is left to end."""
    desk = begun()
    votes(desk, AWAY, "refused", refusal=REFUSAL)
    effects = acks(desk, HOME, other=other)
    assert effects == ([Effect(HOME, 0, Abort(other, id_of(1))), Effect(HOME, 0, FINAL_ABORT)] if is_mine else [])
    assert desk.tick(SECOND_US) == [Effect(HOME, 0, FINAL_ABORT)]
    assert told(acks(desk, HOME, outcome=SETTLED)) == [SETTLED]


def test_an_id_known_at_home_is_told() -> None:
    """P3, P7: however it ended; the others that may have prepared are let go."""
    for outcome in (DONE, SETTLED):
        desk = begun()
        effects = votes(desk, HOME, "known", outcome=outcome)
        assert told(effects) == [outcome]
        assert {to for to, _ in of_kind(Abort, effects)} == {HOME, AWAY, THIRD}


def test_committed_elsewhere_is_told_at_once() -> None:
    """P3: a branch applies only what was decided."""
    desk = begun()
    assert told(votes(desk, AWAY, "known", outcome=DONE)) == [DONE]


def test_aborted_elsewhere_still_needs_homes_tombstone() -> None:
    """P2, P6: a cancel at a branch that is not home does not settle the id."""
    desk = begun()
    effects = votes(desk, AWAY, "known", outcome=SETTLED)
    assert told(effects) == []
    assert (HOME, FINAL_ABORT) in of_kind(Abort, effects)
    assert told(acks(desk, HOME, outcome=SETTLED)) == [SETTLED]


def test_a_conflict_is_told_and_lets_go() -> None:
    """P7: not an outcome; nothing stays prepared for it."""
    desk = begun()
    desk.turn([yes(PREPARE, HOME)])
    effects = votes(desk, AWAY, "conflict")
    assert told(effects) == [CONFLICTING_ID]
    assert {to for to, _ in of_kind(Abort, effects)} == {HOME, AWAY, THIRD}


def test_occupied_by_a_dead_txn_of_mine() -> None:
    """P3: it is voided and the Prepare sent again, at any branch; older epochs are dead too."""
    for branch in (HOME, AWAY):
        for dead in (txn_of(9, 0), txn_of(3, 1)):
            desk = coordinator_desk().joined()
            desk.send(PAYING, CUSTOMER, 5)
            effects = votes(desk, branch, "occupied", other=dead)
            assert effects == [Effect(branch, 0, Abort(dead, id_of(1))), Effect(branch, 0, PREPARE)]


def test_occupied_elsewhere_is_asked_again_until_the_deadline() -> None:
    """P3: the other coordinator's txn may end in time; at the end there is no outcome."""
    desk = begun()
    desk.turn([yes(PREPARE, HOME), yes(PREPARE, THIRD)])
    assert votes(desk, AWAY, "occupied", other=FOREIGN) == []
    assert desk.tick(SECOND_US) == [Effect(AWAY, 0, PREPARE)]
    assert votes(desk, AWAY, "occupied", other=FOREIGN) == []
    effects = desk.tick(VOTE_LIMIT_US)
    assert fault_code(effects) == "branch_unavailable"
    assert {to for to, _ in of_kind(Abort, effects)} == {HOME, AWAY, THIRD}


def test_occupied_at_home_aborts_this_txn_and_asks_home_first() -> None:
    """P3: another coordinator is at it: let go everywhere without an outcome, then ask home alone under a new txn."""
    desk = begun()
    desk.turn([yes(PREPARE, AWAY)])
    effects = votes(desk, HOME, "occupied", other=FOREIGN)
    assert effects == [Effect(branch, 0, Abort(txn_of(1), id_of(1))) for branch in (AWAY, HOME, THIRD)]
    again = prepare(txn_of(2), PAYING)
    assert desk.tick(RETRY_US) == [Effect(HOME, 0, again)]
    assert of_kind(Prepare, desk.turn([yes(again, HOME)])) == [(AWAY, again), (THIRD, again)]
    before = len(desk.lines)
    desk.turn([yes(PREPARE, AWAY), yes(PREPARE, THIRD), yes(again, THIRD)])
    assert len(desk.lines) == before  # the yes to the first txn counts no more
    desk.turn([yes(again, AWAY)])
    assert len(desk.lines) == before + 1


def test_occupied_at_home_until_it_is_known() -> None:
    """P3: asked there again, the other coordinator's outcome is told."""
    desk = begun()
    votes(desk, HOME, "occupied", other=FOREIGN)
    desk.tick(RETRY_US)
    assert told(votes(desk, HOME, "known", txn=txn_of(2), outcome=DONE)) == [DONE]


@pytest.mark.parametrize("branch", [HOME, AWAY])
def test_a_void_txn_is_followed_by_the_next(branch: str) -> None:
    """P8, P9: a participant in doubt had it voided; the id is free, so the transfer goes on under a new txn."""
    desk = begun()
    others = [name for name in (HOME, AWAY, THIRD) if name != branch]
    desk.turn([yes(PREPARE, name) for name in others])
    votes(desk, branch, "void")
    again = prepare(txn_of(2), PAYING)
    assert desk.send(Inquiry(txn_of(1), id_of(1)), from_branch(THIRD)) == [
        Effect(THIRD, 0, Abort(txn_of(1), id_of(1)))
    ]
    assert desk.tick(RETRY_US) == [Effect(HOME, 0, again)]
    desk.turn([yes(again, HOME)])
    desk.turn([yes(again, AWAY), yes(again, THIRD)])
    assert desk.state.settled[id_of(1)].txn == txn_of(2)


@pytest.mark.parametrize(("answer", "code"), [("busy", "busy"), ("storage_full", "storage_full")])
def test_busy_and_full_are_no_outcomes(answer: str, code: str) -> None:
    """P6: the same id may be sent again, and is tried under a new txn."""
    desk = begun()
    effects = votes(desk, AWAY, answer)
    assert fault_code(effects) == code
    assert {to for to, _ in of_kind(Abort, effects)} == {HOME, AWAY, THIRD}
    assert len(of_kind(Prepare, desk.send(PAYING, CUSTOMER, 5))) == 3


def test_votes_that_do_not_come_are_no_outcome() -> None:
    """P6: at the deadline all are let go, and who is missing is named."""
    desk = begun()
    desk.turn([yes(PREPARE, HOME)])
    assert told(desk.tick(VOTE_LIMIT_US - 1)) == []
    effects = desk.tick(1)
    (answer,) = told(effects)
    assert isinstance(answer, Fault)
    assert answer.code == "branch_unavailable"
    assert "Delhi, Pune" in answer.detail
    assert {to for to, _ in of_kind(Abort, effects)} == {HOME, AWAY, THIRD}
    before = len(desk.lines)
    desk.turn([yes(PREPARE, branch) for branch in (HOME, AWAY, THIRD)])
    assert len(desk.lines) == before


def test_a_late_request_after_aborted_was_told_is_told_the_same() -> None:
    """P6: nothing is remembered here, but home is asked and has the tombstone, so no yes of others can commit it."""
    desk = begun()
    votes(desk, HOME, "refused", refusal=REFUSAL, final=True)
    desk = desk.restarted().joined()
    desk.send(PAYING, CUSTOMER, 5)
    again = prepare(txn_of(1, 2), PAYING)
    before = len(desk.lines)
    desk.turn([yes(again, AWAY), yes(again, THIRD)])
    assert told(votes(desk, HOME, "known", txn=txn_of(1, 2), outcome=SETTLED)) == [SETTLED]
    assert len(desk.lines) == before


def test_a_stale_vote_ends_this_office() -> None:
    """P11: a branch that knows a newer epoch of me: I am no longer in office, and answer nothing more."""
    desk = begun()
    with pytest.raises(FenceLost, match="Delhi knows a newer epoch of coordinator coordinator"):
        votes(desk, AWAY, "stale")


def test_a_stale_vote_for_an_earlier_office_is_late_news() -> None:
    """P11: the Prepare was my predecessor's."""
    desk = begun().restarted().joined()
    assert votes(desk, AWAY, "stale") == []
