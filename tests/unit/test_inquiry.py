"""A branch in doubt: whom it asks, when, and that it never stops (PROTOCOL P8)."""

from __future__ import annotations

import pytest

from tests.unit.protocol_support import (
    BOSS,
    SECOND_US,
    BranchDesk,
    branch_desk,
    from_coordinator,
    id_of,
    legs_of,
    prepare,
    transfer,
    txn_of,
)
from zbank.errors import InvalidInput
from zbank.protocol import inquiry
from zbank.protocol.inquiry import ASK_OTHERS_AFTER_US, INQUIRE_AFTER_US, INQUIRE_EVERY_US
from zbank.protocol.machine import Effect
from zbank.protocol.messages import (
    Commit,
    Fault,
    Inquired,
    InquireNow,
    Inquiry,
    Registered,
    StatusInfo,
    Txn,
    parse_txn,
)

TXN = txn_of(1)
ASK = Inquiry(TXN, id_of(1))
THREE = transfer(1, legs_of(Mumbai_1001=-30, Delhi_1001=20, Pune_1001=10))


def in_doubt(*, is_registered: bool = True) -> BranchDesk:
    """Mumbai has just voted yes."""
    desk = branch_desk("Mumbai", {"1001": 1000})
    if is_registered:
        desk.send(Registered("coordinator", 1, ()), BOSS)
    desk.send(prepare(TXN, THREE), BOSS)
    assert desk.tick() == []
    return desk


def asked(effects: list[Effect]) -> list[tuple[str | bytes, Inquiry]]:
    found = []
    for effect in effects:
        assert isinstance(effect.message, Inquiry)
        found.append((effect.to, effect.message))
    return found


def test_the_coordinator_is_asked_after_the_inquiry_time() -> None:
    """Not before: a decision is on its way as a rule."""
    assert in_doubt().tick(INQUIRE_AFTER_US - 1) == []
    assert asked(in_doubt().tick(INQUIRE_AFTER_US)) == [("coordinator", ASK)]


def test_it_is_asked_for_ever_at_a_steady_pace() -> None:
    """Once an interval, however often the loop ticks; while the coordinator is there nobody else is asked."""
    desk = in_doubt()
    desk.tick(INQUIRE_AFTER_US)
    rounds = [asked(desk.tick(INQUIRE_EVERY_US // 10)) for _ in range(300)]
    assert [questions for questions in rounds if questions] == [[("coordinator", ASK)]] * 30


def test_the_others_are_asked_when_the_coordinator_is_away() -> None:
    """All other participants, and the coordinator still."""
    desk = in_doubt()
    desk.down("coordinator")
    assert asked(desk.tick(ASK_OTHERS_AFTER_US - 1)) == [("coordinator", ASK)]
    assert asked(desk.tick(INQUIRE_EVERY_US)) == [("coordinator", ASK), ("Delhi", ASK), ("Pune", ASK)]
    desk.send(Registered("coordinator", 2, ()), BOSS)
    assert asked(desk.tick(INQUIRE_EVERY_US)) == [("coordinator", ASK)]


def test_a_coordinator_that_was_not_there_since_the_start_is_away() -> None:
    """A branch that restarts while its coordinator is gone asks the others too."""
    desk = in_doubt().restarted()
    desk.tick()
    assert asked(desk.tick(ASK_OTHERS_AFTER_US)) == [("coordinator", ASK), ("Delhi", ASK), ("Pune", ASK)]


def test_another_coordinator_being_there_does_not_count() -> None:
    """Each txn is its own coordinator's."""
    desk = in_doubt()
    desk.down("coordinator")
    desk.send(Registered("second", 1, ()), from_coordinator("second"))
    assert len(desk.tick(ASK_OTHERS_AFTER_US)) == 3


def test_what_is_decided_is_asked_about_no_more() -> None:
    """Nothing is in doubt, nothing is asked."""
    desk = in_doubt()
    desk.tick(INQUIRE_AFTER_US)
    desk.send(Commit(TXN, id_of(1), 1), BOSS)
    assert desk.tick(INQUIRE_EVERY_US) == []


def test_each_txn_has_its_own_age() -> None:
    """A fresh yes vote is not in doubt because an old one is."""
    desk = in_doubt()
    desk.tick(INQUIRE_AFTER_US)
    desk.send(prepare(txn_of(2), transfer(2, THREE.legs)), BOSS)
    desk.tick()
    assert asked(desk.tick(INQUIRE_EVERY_US)) == [("coordinator", ASK)]
    assert len(desk.tick(INQUIRE_AFTER_US)) == 2
    status = desk.status()
    assert isinstance(status, StatusInfo)
    assert [doubt.age_us for doubt in status.in_doubt] == [
        2 * INQUIRE_AFTER_US + INQUIRE_EVERY_US,
        INQUIRE_AFTER_US + INQUIRE_EVERY_US,
    ]


def test_inquiries_and_what_is_shown_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every queue has a bound; the oldest come first."""
    monkeypatch.setattr(inquiry, "MAX_INQUIRIES_A_ROUND", 3)
    monkeypatch.setattr(inquiry, "MAX_IN_DOUBT_TOLD", 2)
    desk = in_doubt()
    for n in range(2, 8):
        desk.send(prepare(txn_of(n), transfer(n, THREE.legs)), BOSS)
    desk.tick()
    assert [question.txn.n for _, question in asked(desk.tick(INQUIRE_AFTER_US))] == [1, 2, 3]
    status = desk.status()
    assert isinstance(status, StatusInfo)
    assert [doubt.txn.n for doubt in status.in_doubt] == [1, 2]
    assert status.in_flight == 7


def test_jumps_of_the_wall_clock_do_not_age_anything() -> None:
    """K1: timers are monotonic."""
    desk = in_doubt()
    desk.clock.advance(0, wall_us=3600 * SECOND_US)
    assert desk.tick(1) == []


def test_asked_by_hand_it_asks_at_once() -> None:
    """P8, out of turn: the coordinator, and while that is away the others too; nothing is written down."""
    desk = in_doubt()
    rows = len(desk.lines)
    *asks, told = desk.send(InquireNow(TXN, id_of(1)))
    assert asked(asks) == [("coordinator", ASK)]
    assert told.message == Inquired(id_of(1), ("coordinator",))
    desk.down("coordinator")
    *asks, told = desk.send(InquireNow(TXN, id_of(1)))
    assert [to for to, _ in asked(asks)] == ["coordinator", "Delhi", "Pune"]
    assert told.message == Inquired(id_of(1), ("coordinator", "Delhi", "Pune"))
    assert len(desk.lines) == rows


@pytest.mark.parametrize("message", [InquireNow(txn_of(2), id_of(1)), InquireNow(TXN, id_of(2))])
def test_asked_by_hand_about_what_it_does_not_hold(message: InquireNow) -> None:
    (told,) = in_doubt().send(message)
    assert isinstance(told.message, Fault)
    assert told.message.code == "not_in_doubt"


def test_a_txn_as_text_and_back() -> None:
    for txn in (TXN, Txn("co-ordinator-2", 3, 17), Txn("c", 0, 0)):
        assert parse_txn(str(txn)) == txn


@pytest.mark.parametrize("text", ["", "c", "c-1", "-1-2", "c-1-x", "c--1-2-", "c-1-" + "9" * 19, "c" * 65 + "-1-1", "c-²-1"])
def test_what_is_no_txn(text: str) -> None:
    with pytest.raises(InvalidInput, match="no two-phase commit"):
        parse_txn(text)
