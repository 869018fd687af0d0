"""What the fuzzers found in actors, each as small as it comes: well-typed messages that did harm once."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.transport.actors import Desk, branch, pay
from tests.unit.protocol_support import (
    BOSS,
    CUSTOMER,
    SECOND_US,
    from_branch,
    id_of,
    prepare,
    register,
    txn_of,
)
from zbank.domain.legs import MAX_LEGS, Leg
from zbank.domain.refusal import Refusal
from zbank.protocol.codec import decode_batch, encode_batch
from zbank.protocol.machine import Effect
from zbank.protocol.messages import (
    ABORTED,
    BUSY,
    COMMITTED,
    COORDINATOR,
    KNOWN,
    REFUSED,
    YES,
    Ack,
    Commit,
    Fault,
    OpenAccount,
    Outcome,
    Prepare,
    Transfer,
    Txn,
    Vote,
)
from zbank.protocol.wire import MAX_COMMIT_NUMBER


def coordinator(folder: Path, *names: str) -> Desk:
    """A coordinator with these branches."""
    desk = Desk(COORDINATOR, "coordinator", folder)
    for name in names:
        desk.turn((from_branch(name), 0, register(name)))
    return desk


def said_to_customer(effects: list[Effect]) -> list[object]:
    """As it comes out at the other end."""
    mine = [(effect.n, effect.message) for effect in effects if effect.to == CUSTOMER.address]
    return [message for _, message in decode_batch(encode_batch(mine))]


def asked(desk: Desk) -> Txn:
    """A transfer from Mumbai to Delhi is begun; gives its txn."""
    effects = desk.turn((CUSTOMER, 7, pay(1, "Mumbai/1", "Delhi/1", 5)))
    (txn,) = {effect.message.txn for effect in effects if isinstance(effect.message, Prepare)}
    return txn


@pytest.mark.parametrize("number", [MAX_COMMIT_NUMBER, MAX_COMMIT_NUMBER - 1])
def test_no_decision_gets_a_number_that_no_branch_takes(tmp_path: Path, number: int) -> None:
    """Such a Commit was refused by its branch, with all that shared the frame, and sent again for ever."""
    desk = coordinator(tmp_path, "Delhi", "Mumbai")
    txn = asked(desk)
    desk.turn((from_branch("Delhi"), 0, Vote(txn, id_of(1), YES, 3, 1)))
    effects = desk.turn((from_branch("Mumbai"), 0, Vote(txn, id_of(1), YES, number, 1)))
    for effect in effects:
        decode_batch(encode_batch([(effect.n, effect.message)]))
    commits = [effect.message.number for effect in effects if isinstance(effect.message, Commit)]
    if number < MAX_COMMIT_NUMBER:
        assert commits == [number + 1] * 2
    else:
        (fault,) = said_to_customer(effects)
        assert isinstance(fault, Fault)
        assert (fault.code, commits) == ("branch_unavailable", [])
    desk.store.close()


def test_a_transfer_between_many_silent_branches_is_answered(tmp_path: Path) -> None:
    """The fault named them all, was longer than a client takes, and was lost with its frame."""
    names = [f"B{n:03}{'x' * 28}" for n in range(MAX_LEGS)]
    desk = coordinator(tmp_path, *names)
    legs = (Leg(names[0], "1", 1 - MAX_LEGS), *(Leg(name, "1", 1) for name in names[1:]))
    desk.turn((CUSTOMER, 7, Transfer(id_of(1), legs, "INR")))
    (fault,) = said_to_customer(desk.tick(5 * SECOND_US))
    assert isinstance(fault, Fault)
    assert "and 246 more in time" in fault.detail
    desk.store.close()


NONSENSE = (
    Outcome(id_of(2), COMMITTED, None, 1, 1, False, True),  # of another transfer
    Outcome(id_of(1), "frozen", None, 1, 1, False, True),
    Outcome(id_of(1), "pending", None, 0, 0, False, True),
    Outcome(id_of(1), ABORTED, None, 0, 1, False, True),
    Outcome(id_of(1), COMMITTED, Refusal("c", "d"), 1, 1, False, True),
)


@pytest.mark.parametrize("outcome", NONSENSE, ids=str)
def test_a_client_is_told_no_outcome_that_is_none(tmp_path: Path, outcome: Outcome) -> None:
    """A vote `known`, and the ack of an abort, bring outcomes that are handed on."""
    desk = coordinator(tmp_path, "Delhi", "Mumbai")
    txn = asked(desk)
    effects = desk.turn((from_branch("Mumbai"), 0, Vote(txn, id_of(1), KNOWN, 0, 1, outcome=outcome)))
    assert said_to_customer(effects) == []
    desk.turn((from_branch("Delhi"), 0, Vote(txn, id_of(1), REFUSED, 0, 1, refusal=Refusal("c", "d"))))
    effects = desk.turn((from_branch("Mumbai"), 0, Ack(txn, id_of(1), 1, outcome=outcome)))
    assert said_to_customer(effects) == []
    final = Outcome(id_of(1), ABORTED, Refusal("c", "d"), 0, 1, False, True)
    effects = desk.turn((from_branch("Mumbai"), 0, Ack(txn, id_of(1), 1, outcome=final)))
    assert said_to_customer(effects) == [final]
    desk.store.close()


def test_a_prepare_without_digest_is_not_voted_for(tmp_path: Path) -> None:
    """An empty digest would fit any content that is later asked for under the id."""
    desk = branch(tmp_path, "1")
    asked = pay(1, "Mumbai/1", "Delhi/1", 5)
    effects = desk.turn((BOSS, 0, Prepare(txn_of(1), asked, b"", "")))
    assert [effect.message.answer for effect in effects if isinstance(effect.message, Vote)] == [BUSY]
    desk.store.close()


def test_an_opening_under_the_id_of_a_committed_transfer_is_a_conflict(tmp_path: Path) -> None:
    """Even with the same digest, which a coordinator gives: the branch fell over the account that the id does not name."""
    from zbank.protocol.accounts import _digest

    desk = branch(tmp_path, "1")
    opening = OpenAccount(id_of(1), "", "Asha", "", 0)
    message = prepare(txn_of(1), pay(1, "Mumbai/1", "Delhi/1", 5))
    digest = _digest(opening.number, opening.owner, opening.currency, opening.overdraft_limit_minor)
    desk.turn((BOSS, 0, Prepare(message.txn, message.transfer, digest, "")))
    desk.turn((BOSS, 0, Commit(message.txn, id_of(1), 1)))
    for _ in range(2):
        answer = desk.ask(opening)
        assert isinstance(answer, Fault)
        assert answer.code == "idempotency_conflict"
        desk = desk.restarted()
    desk.store.close()
