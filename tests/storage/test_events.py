"""What an actor tells of its journal: every forced row that is about a transfer, for good, and nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from tests.transport.actors import Desk, branch, pay
from tests.unit.protocol_support import BOSS, CUSTOMER, from_branch, id_of, prepare, register, txn_of, yes
from zbank.domain.legs import Leg
from zbank.domain.refusal import Refusal
from zbank.errors import StorageFull
from zbank.protocol.codec import MAX_FRAME_BYTES, encode_batch
from zbank.protocol.messages import (
    ABORTED,
    APPLIED,
    BEGIN,
    COMMITTED,
    COORDINATOR,
    DECISION,
    RELEASED,
    VOTE,
    Abort,
    Cancel,
    ChangeAccount,
    Commit,
    Event,
    EventsPage,
    GetEvents,
    MakeToken,
    Prepare,
    Registered,
    Transfer,
)
from zbank.storage import events as events_module

NO = Refusal("account_frozen", "Delhi/9 is frozen")


@pytest.fixture
def mumbai(tmp_path: Path) -> Iterator[Desk]:
    """A branch with accounts 1 and 2, 100.00 on each."""
    desk = branch(tmp_path, "1", "2")
    yield desk
    desk.store.close()


def page(desk: Desk, after: int, limit: int = 1000) -> EventsPage:
    answer = desk.ask(GetEvents(after, limit))
    assert isinstance(answer, EventsPage)
    return answer


def since(desk: Desk, after: int) -> list[Event]:
    """All events after a row, page by page, two rows at a time."""
    found: list[Event] = []
    is_last = False
    while not is_last:
        one = page(desk, after, 2)
        assert one.seq > after or one.is_last
        found += one.events
        after, is_last = one.seq, one.is_last
    return found


def kinds(found: list[Event]) -> list[tuple[str, str]]:
    return [(event.kind, event.vote) for event in found]


def out(n: int, amount_minor: int = 10_00) -> Prepare:
    return prepare(txn_of(n), pay(n, "Mumbai/1", "Delhi/9", amount_minor))


def into(n: int) -> Prepare:
    return prepare(txn_of(n), pay(n, "Delhi/9", "Mumbai/1", 10_00))


def test_a_local_transfer(mumbai: Desk) -> None:
    """Committed or aborted, with all of its content."""
    start = mumbai.store.seq
    done = replace(pay(1, "Mumbai/1", "Mumbai/2", 10_00), memo="rent")
    mumbai.ask(done)
    mumbai.ask(pay(2, "Mumbai/1", "Mumbai/2", 900_00))
    committed, aborted = since(mumbai, start)
    row = mumbai.store.row(start + 1)
    assert row is not None
    assert committed == Event(
        start + 1, row.at_us, COMMITTED, id_of(1), number=0, legs=done.legs, currency="INR", memo="rent"
    )
    assert (aborted.seq, aborted.kind, aborted.id, len(aborted.legs)) == (start + 2, ABORTED, id_of(2), 2)
    assert aborted.refusal is not None
    assert aborted.refusal.code == "insufficient_funds"


def test_the_life_of_a_txn_at_its_home(mumbai: Desk) -> None:
    """Its beginning is told by the branch that arbitrates the id (P2), together with its vote."""
    start = mumbai.store.seq
    mumbai.turn((BOSS, 0, out(1)), (BOSS, 0, out(2)), (BOSS, 0, out(3, 900_00)))
    mumbai.turn((BOSS, 0, Commit(txn_of(1), id_of(1), 7)), (BOSS, 0, Abort(txn_of(2), id_of(2), NO, out(2).digest, "")))
    found = since(mumbai, start)
    assert kinds(found) == [
        (BEGIN, ""),
        (VOTE, "yes"),
        (BEGIN, ""),
        (VOTE, "yes"),
        (VOTE, "refused"),
        (ABORTED, ""),
        (APPLIED, ""),
        (ABORTED, ""),
    ]
    assert [event.seq - start for event in found] == [1, 1, 2, 2, 3, 3, 4, 5]
    assert (found[6].txn, found[6].number) == (txn_of(1), 7)
    assert (found[7].txn, found[7].refusal) == (txn_of(2), NO)
    assert all(event.legs == out(1).transfer.legs for event in found[:2])


def test_a_txn_elsewhere_than_at_home(mumbai: Desk) -> None:
    """Only the vote; a txn that is given up releases what it held, and the id may come back."""
    start = mumbai.store.seq
    mumbai.turn((BOSS, 0, into(1)))
    mumbai.turn((BOSS, 0, Abort(txn_of(1), id_of(1))))
    assert kinds(since(mumbai, start)) == [(VOTE, "yes"), (RELEASED, "")]


def test_rows_about_no_transfer_tell_nothing(mumbai: Desk) -> None:
    """And yet the position moves past them."""
    start = mumbai.store.seq
    mumbai.ask(ChangeAccount(id_of(1), "1", "", 5))
    mumbai.ask(ChangeAccount(id_of(2), "nobody", "", 5))
    mumbai.ask(Cancel(id_of(3)))
    mumbai.turn((BOSS, 0, Registered("coordinator", 4, ())))
    assert mumbai.store.seq == start + 4
    assert page(mumbai, start) == EventsPage((), start + 4, True)
    assert [event.kind for event in since(mumbai, 0)] == [COMMITTED, COMMITTED]


def test_a_coordinator_tells_its_decisions(tmp_path: Path) -> None:
    desk = Desk(COORDINATOR, "coordinator", tmp_path)
    try:
        for name in ("Mumbai", "Delhi"):
            desk.turn((from_branch(name), 0, register(name)))
        desk.ask(MakeToken(id_of(9), "ops", "asha", "teller", (), bytes(32), 0))
        start = desk.store.seq
        paid = replace(pay(1, "Mumbai/1", "Delhi/9", 5_00), memo="rent")
        asked = [effect.message for effect in desk.turn((CUSTOMER, 4, paid))]
        assert isinstance(asked[0], Prepare)
        desk.turn(yes(asked[0], "Mumbai"), yes(asked[0], "Delhi"))
        row = desk.store.row(start + 1)
        assert row is not None
        decision = Event(
            start + 1,
            row.at_us,
            DECISION,
            id_of(1),
            asked[0].txn,
            number=1,
            legs=paid.legs,
            currency="INR",
            memo="rent",
        )
        assert since(desk, 0) == [decision]
    finally:
        desk.store.close()


def test_from_now_on(mumbai: Desk) -> None:
    """-1 asks where the journal stands; what comes later is told from there."""
    now = page(mumbai, -1)
    assert now == EventsPage((), mumbai.store.seq, True)
    mumbai.ask(pay(1, "Mumbai/1", "Mumbai/2", 1))
    assert [event.id for event in since(mumbai, now.seq)] == [id_of(1)]


def test_a_position_beyond_the_end_is_taken_back_to_it(mumbai: Desk) -> None:
    """After the return of an older copy of the data: else all that is written until then would never be told."""
    beyond = page(mumbai, mumbai.store.seq + 100)
    assert beyond == EventsPage((), mumbai.store.seq, True)
    mumbai.ask(pay(1, "Mumbai/1", "Mumbai/2", 1))
    assert [event.id for event in since(mumbai, beyond.seq)] == [id_of(1)]
    assert page(mumbai, mumbai.store.seq) == EventsPage((), mumbai.store.seq, True)


def test_asking_again_tells_the_same(mumbai: Desk) -> None:
    """Also after a restart, and whatever has come since."""
    for n in range(5):
        mumbai.ask(pay(n, "Mumbai/1", "Mumbai/2", 1))
    before = [page(mumbai, after, 3) for after in range(mumbai.store.seq - 3)]
    mumbai.ask(pay(9, "Mumbai/1", "Mumbai/2", 1))
    again = mumbai.restarted()
    try:
        assert [page(again, after, 3) for after in range(len(before))] == before
    finally:
        again.store.close()


def test_a_page_is_bounded_in_rows_and_in_bytes(mumbai: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """A row is told whole or not at all, and at least one row is told, however long it is."""
    start = mumbai.store.seq
    mumbai.turn(*((BOSS, 0, out(n, 1)) for n in range(10)))
    assert len(page(mumbai, start, 3).events) == 6
    for room_bytes, events in ((0, 2), (2_000, 8), (10**6, 20)):
        monkeypatch.setattr(events_module, "PAGE_BYTES", room_bytes)
        one = page(mumbai, start)
        assert len(one.events) == events
        assert (one.seq, one.is_last) == (start + events // 2, events == 20)
        assert [event.seq for event in since(mumbai, start)] == [start + 1 + n // 2 for n in range(20)]


def test_the_largest_events_fit_a_page(mumbai: Desk) -> None:
    """1,000 rows of 256 legs each would be 10 MB: the frame's limit holds, and nothing is left out."""
    start = mumbai.store.seq
    for n in range(60):
        legs = (Leg("Mumbai", "1", -255), *(Leg("Delhi", f"{'9' * 30}{leg:04}", 1) for leg in range(255)))
        mumbai.turn((BOSS, 0, prepare(txn_of(n), Transfer(id_of(n), legs, "INR", "\N{SNOWMAN}" * 140))))
    after, found = start, 0
    while after < mumbai.store.seq:
        one = page(mumbai, after)
        assert len(encode_batch([(1, one)])) <= MAX_FRAME_BYTES
        after, found = one.seq, found + len(one.events)
    assert found == 120


def test_telling_events_posts_nothing(mumbai: Desk) -> None:
    """A dashboard that asks ten times a second must not make a branch write its tables ten times a second."""
    mumbai.ask(pay(1, "Mumbai/1", "Mumbai/2", 1))
    watermark, unposted = mumbai.store.watermark, mumbai.branch.unposted
    assert since(mumbai, 0)
    assert (mumbai.store.watermark, mumbai.branch.unposted) == (watermark, unposted)
    assert unposted > 0


def test_what_a_full_disk_refused_is_not_told(mumbai: Desk, caplog: pytest.LogCaptureFixture) -> None:
    """T2: the batch is dropped; the events of the same batch's asker end before it."""
    start = mumbai.store.seq
    mumbai.store.failures.append(StorageFull("the disk is full"))
    effects = mumbai.turn((CUSTOMER, 1, pay(1, "Mumbai/1", "Mumbai/2", 1)), (CUSTOMER, 2, GetEvents(start, 10)))
    told = {effect.n: effect.message for effect in effects}
    assert told[2] == EventsPage((), start, True)
