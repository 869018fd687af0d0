"""A synchronous replica that lies, is full, was put back, or is it no more; and what waits for it (PROTOCOL R3)."""

from __future__ import annotations

import shutil

import pytest

from tests.transport.actors import INSTANCE, pay
from tests.transport.test_synchronous import ANOTHER, THE_ONE, Pair, pair, status, told
from tests.unit.protocol_support import BOSS, CUSTOMER, SECOND_US, from_branch, id_of, prepare, txn_of
from zbank.errors import StorageFull
from zbank.protocol import gate
from zbank.protocol.following import ANSWER_LIMIT_US, ASK_EVERY_US
from zbank.protocol.gate import SILENT_US
from zbank.protocol.messages import (
    AckedBy,
    Fault,
    GetAccount,
    GetEntries,
    GetRows,
    Held,
    Inquiry,
    Outcome,
    Rows,
    Vote,
)

OTHER = bytes(range(1, 17))  #: instance of another replica's store


__all__ = ["pair"]


def fault_of(pair: Pair) -> str:
    """The code by which a payment is refused at once; "" = it waits, or is done."""
    faults = [effect.message.code for effect in pair.pay() if isinstance(effect.message, Fault)]
    return "".join(faults)


def test_a_row_that_is_not_here_yet_is_not_acknowledged_by_no_chain_value(pair: Pair) -> None:
    assert pair.pay() == []
    pair.on_the_way.clear()
    seq = pair.branch.store.seq
    pair.send(GetRows(seq, 10, Held(INSTANCE, seq + 1_000_000, b"")), THE_ONE)
    assert pair.pay() == []
    assert pair.left == []


def test_a_replica_whose_disk_is_full_stops_its_branch(pair: Pair) -> None:
    """It is there and asks, again and again, for the rows that it cannot take."""
    pair.replica.store.failures += [StorageFull("no room")] * 1000
    assert pair.pay() == []
    for _ in range(SILENT_US // ANSWER_LIMIT_US + 2):
        pair.tick(ANSWER_LIMIT_US + 1)
    assert pair.left == []
    assert status(pair).stopped
    assert "stopped" in status(pair).alarms[0]
    assert fault_of(pair) == "branch_unavailable"
    pair.replica.store.failures.clear()
    pair.left.clear()
    (effect,) = pair.tick(ANSWER_LIMIT_US + 1)
    assert isinstance(effect.message, Outcome)
    assert not status(pair).stopped


def test_a_word_is_followed_in_time_that_a_full_disk_kept_from_the_journal(pair: Pair) -> None:
    """The coordinator has said it, and the replica that is gone for good can have nobody reminded of it."""
    assert pair.pay() == []
    pair.on_the_way.clear()
    pair.branch.store.failures.append(StorageFull("no room"))
    assert pair.send(told(AckedBy("", b"", 9)), BOSS) == []
    assert pair.sort(pair.branch.tick(0)) == []
    (effect,) = pair.sort(pair.branch.tick(0))
    assert isinstance(effect.message, Outcome)


def test_an_idle_branch_has_not_stopped(pair: Pair) -> None:
    for _ in range(20):
        pair.tick(SECOND_US)
        assert not status(pair).stopped


def test_who_is_synchronous_no_more_and_cannot_know_it_yet_asks_as_often_as_any_other(pair: Pair) -> None:
    before = pair.branch.store.seq
    chain = pair.branch.store.chain
    pair.send(told(AckedBy("another", OTHER, 9)), BOSS)
    pair.on_the_way.clear()
    pair.sort(pair.branch.tick(0))
    pair.on_the_way.clear()  # lost
    pair.branch.turn((ANOTHER, 1, GetRows(before, 10, Held(OTHER, before, chain))))  # it lacks the row that names it
    asked = 0
    for _ in range(10):
        pair.replica.clock.advance(ASK_EVERY_US)
        effects = pair.replica.tick(ANSWER_LIMIT_US)
        for _ in range(50):
            messages = [effect.message for effect in effects if isinstance(effect.message, GetRows)]
            asked += len(messages)
            effects = []
            for message in messages:
                answers = pair.branch.turn((THE_ONE, 1, message))
                rows = [answer.message for answer in answers if isinstance(answer.message, Rows)]
                effects += [one for row in rows for one in pair.replica.turn((from_branch("Mumbai"), 0, row))]
    assert 0 < asked <= 20


def test_what_waits_is_bounded_and_is_asked_for_again(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the replica is away others go on asking, each second, for hours."""
    monkeypatch.setattr(gate, "MAX_WAITING", 100)
    pair.pay()
    pair.on_the_way.clear()
    pair.branch.tick(SILENT_US + 1)
    for _ in range(1_000):
        assert pair.send(Inquiry(txn_of(5), id_of(5)), from_branch("Delhi")) == []
    left = pair.tick(SECOND_US)
    assert isinstance(left[0].message, Outcome)
    assert 100 < len(left) <= 203
    pair.send(Inquiry(txn_of(5), id_of(5)), from_branch("Delhi"))
    assert len(pair.exchange()) + len(pair.left) > len(left)


def test_a_page_that_waits_counts_by_its_rows(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate, "MAX_WAITING", 1_000)
    for _ in range(50):
        pair.pay()
        pair.exchange()
    pair.pay()
    pair.on_the_way.clear()
    for _ in range(30):
        sent = pair.send(GetEntries("1", True, "", 1_000))
    (effect,) = sent
    assert isinstance(effect.message, Fault)
    assert effect.message.code == "busy"
    assert len(pair.tick(SECOND_US)) < 30


def test_a_full_disk_here_is_told_also_while_the_replica_is_away(pair: Pair) -> None:
    pair.pay()
    pair.on_the_way.clear()
    pair.branch.tick(SILENT_US + 1)
    pair.branch.store.failures.append(StorageFull("no room"))
    vote = prepare(txn_of(5), pay(5, "Mumbai/1", "Delhi/1", 1))
    record = Inquiry(txn_of(6), id_of(6))  # voids a txn, which needs room
    pair.send(told(AckedBy("replica", INSTANCE, 7)), BOSS)
    answers = pair.branch.turn((from_branch("Delhi"), 0, record), (CUSTOMER, 1, GetAccount("1")), (BOSS, 0, vote))
    assert [type(answer.message) for answer in answers] == [Fault, Vote]


def test_a_replica_that_was_put_back_lets_nothing_out_before_it_has_come_so_far_again(pair: Pair) -> None:
    pair.replica.store.close()
    copy = pair.replica.path.with_suffix(".copy")
    shutil.copy(pair.replica.path, copy)
    pair.replica = pair.replica.restarted()
    for _ in range(3):
        pair.pay()
        pair.exchange()
    pair.replica.store.close()
    shutil.copy(copy, pair.replica.path)
    pair.replica = pair.replica.restarted()
    asked = [effect.message for effect in pair.replica.tick(ANSWER_LIMIT_US) if isinstance(effect.message, GetRows)]
    pair.on_the_way.clear()
    pair.send(asked[0], THE_ONE)
    assert pair.replica.store.seq < pair.branch.store.seq
    assert pair.send(GetAccount("1")) == []
    pair.exchange()
    assert pair.replica.store.seq == pair.branch.store.seq
    assert len(pair.left) == 4
