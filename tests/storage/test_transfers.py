"""Lists of transfers: by looking through the journal, and by the index of an account's entries."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from tests.transport.actors import Desk, branch, pay
from tests.unit.protocol_support import BOSS, CUSTOMER, id_of, prepare, txn_of
from zbank.domain.legs import CASH, Leg, home_branch
from zbank.domain.refusal import MAX_DETAIL_CHARS, Refusal
from zbank.protocol.codec import MAX_FRAME_BYTES, decode_record, encode_batch
from zbank.protocol.messages import (
    ABORTED,
    COMMITTED,
    FAR_US,
    PENDING,
    Abort,
    Cancel,
    ChangeAccount,
    Commit,
    Fault,
    ListTransfers,
    Prepare,
    Transfer,
    TransferInfo,
    TransferListed,
    TransfersPage,
)
from zbank.protocol.records import Aborted, Committed, Executed, Prepared, Refused
from zbank.storage import transfers as transfers_module

ALL = ListTransfers("", "", False, 0, FAR_US, "", 1000)
NO = Refusal("account_frozen", "Delhi/9 is frozen")


@pytest.fixture
def mumbai(tmp_path: Path) -> Iterator[Desk]:
    """A branch with accounts 1 and 2, 100.00 on each: two deposits are listed."""
    desk = branch(tmp_path, "1", "2")
    yield desk
    desk.store.close()


def page(desk: Desk, message: ListTransfers) -> TransfersPage:
    answer = desk.ask(message)
    desk.engine.maintain()
    assert isinstance(answer, TransfersPage), answer
    return answer


def walk(desk: Desk, message: ListTransfers, *, most_pages: int = 500) -> list[TransferListed]:
    """All pages together."""
    found: list[TransferListed] = []
    for _ in range(most_pages):
        one = page(desk, message)
        assert len(one.transfers) <= message.limit
        found += one.transfers
        if not one.cursor:
            return found
        assert len(one.cursor) <= 64
        message = replace(message, cursor=one.cursor)
    raise AssertionError("the pages never end")


def ids(found: list[TransferListed]) -> list[int]:
    return [int.from_bytes(one.info.id, "big") for one in found]


def out(n: int, amount_minor: int = 1_00) -> Prepare:
    return prepare(txn_of(n), replace(pay(n, "Mumbai/1", "Delhi/9", amount_minor), memo="rent"))


def commit(n: int) -> Commit:
    return Commit(txn_of(n), id_of(n), n)


def refuse(asked: Prepare, refusal: Refusal = NO) -> Abort:
    return Abort(asked.txn, asked.transfer.id, refusal, asked.digest, asked.caller)


def test_every_status(mumbai: Desk) -> None:
    """Newest first; what has no content is not listed: a cancel, an account request, an id that was settled unseen."""
    mumbai.ask(pay(1, "Mumbai/1", "Mumbai/2", 1_00))
    mumbai.ask(pay(2, "Mumbai/1", "Mumbai/2", 900_00))
    mumbai.turn(*((BOSS, 0, out(n)) for n in (3, 4, 5, 6)), (BOSS, 0, out(7, 900_00)))
    mumbai.turn((BOSS, 0, commit(3)), (BOSS, 0, refuse(out(4))), (BOSS, 0, Abort(txn_of(5), id_of(5))))
    mumbai.ask(Cancel(id_of(20)))
    mumbai.ask(ChangeAccount(id_of(21), "1", "", 5))
    mumbai.turn((BOSS, 0, refuse(out(22))))
    found = {one.info.id: one.info for one in walk(mumbai, ALL)}
    assert [ids(walk(mumbai, replace(ALL, status=status))) for status in ("", COMMITTED, ABORTED, PENDING)] == [
        [4, 3, 7, 6, 2, 1, 70_001, 70_000],
        [3, 1, 70_001, 70_000],
        [4, 7, 2],
        [6],
    ]
    done, refused, open_one = found[id_of(3)], found[id_of(4)], found[id_of(6)]
    assert (done.status, done.number, done.txn, done.memo, done.refusal) == (COMMITTED, 3, txn_of(3), "rent", None)
    assert (refused.status, refused.number, refused.refusal, refused.legs) == (ABORTED, 0, NO, out(4).transfer.legs)
    assert (open_one.status, open_one.txn, open_one.at_us > 0) == (PENDING, txn_of(6), True)
    assert found[id_of(7)].refusal is not None
    assert all(info.legs and info.currency == "INR" for info in found.values())


def test_an_id_that_is_prepared_again_is_listed_once(mumbai: Desk) -> None:
    """Its first txn was voided, the second is open, then it commits."""
    first, second = out(3), prepare(txn_of(8), out(3).transfer)
    mumbai.turn((BOSS, 0, first))
    mumbai.turn((BOSS, 0, Abort(first.txn, id_of(3))), (BOSS, 0, second))
    assert [(one.info.id, one.info.txn) for one in page(mumbai, replace(ALL, status=PENDING)).transfers] == [
        (id_of(3), second.txn)
    ]
    mumbai.turn((BOSS, 0, Commit(second.txn, id_of(3), 5)))
    assert ids(walk(mumbai, ALL)).count(3) == 1


def brute_force(desk: Desk) -> list[TransferInfo]:
    """What the journal's rows say, one by one, by another way than the store's: newest first."""
    found: dict[bytes, tuple[int, TransferInfo]] = {}
    begun: dict[bytes, Prepared] = {}

    def info(
        id: bytes, status: str, record: Executed | Prepared | Refused, seq: int, at_us: int, **more: object
    ) -> None:
        content = record.content
        if content is None:
            return
        plain = TransferInfo(
            id, status, None, content.legs, content.currency, content.memo, content.effective_on, 0, at_us, None, (), ()
        )
        found[id] = seq, replace(plain, **more)

    for row in desk.store.journal():
        record = decode_record(row.body)
        match record:
            case Executed():
                info(record.id, COMMITTED, record, row.seq, row.at_us, number=record.number)
            case Refused():
                info(record.id, ABORTED, record, row.seq, row.at_us, refusal=record.refusal)
            case Prepared():
                begun[record.id] = record
                info(record.id, PENDING, record, row.seq, row.at_us, txn=record.txn)
            case Committed():
                info(record.id, COMMITTED, begun[record.id], row.seq, row.at_us, txn=record.txn, number=record.number)
            case Aborted():
                before = begun.pop(record.id, None)
                if before is not None and before.txn != record.txn:
                    begun[record.id] = before
                elif before is not None:
                    del found[record.id]
                    if record.refusal:
                        info(record.id, ABORTED, before, row.seq, row.at_us, txn=record.txn, refusal=record.refusal)
    return [one for _, one in sorted(found.values(), key=lambda entry: -entry[0])]


class Work:
    """Two branches between which anything happens, at random."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.chance = random.Random(seed)
        self.desks = {name: branch(folder, "1", "2", name=name) for name in ("Delhi", "Mumbai")}
        self.asked: list[Prepare] = []

    def close(self) -> None:
        for desk in self.desks.values():
            desk.store.close()

    def play(self, steps: int) -> None:
        """So many things, each followed by some time, or none."""
        for n in range(1, steps + 1):
            self._step(n)
            if self.chance.random() < 0.6:
                pause_us = self.chance.randint(1, 3)
                for desk in self.desks.values():
                    desk.clock.advance(pause_us)

    def _step(self, n: int) -> None:
        chance = self.chance
        act = chance.random()
        name = chance.choice(sorted(self.desks))
        other = "Mumbai" if name == "Delhi" else "Delhi"
        amount_minor = chance.choice((1, 1, 2, 500_00))
        if act < 0.35:
            self.desks[name].ask(pay(n, f"{name}/{chance.choice('12')}", f"{name}/{CASH}", amount_minor))
        elif act < 0.65:
            # Several legs on one account: its transfer is one all the same.
            legs = (
                Leg(name, "1", -amount_minor),
                Leg(name, "1", -1),
                Leg(name, "2", -1),
                Leg(other, "1", 1),
                Leg(other, "1", amount_minor + 1),
            )
            asked = prepare(txn_of(n), Transfer(id_of(n), legs, "INR"))
            votes = [self._tell(one, asked) for one in (name, other)]
            if votes == ["yes", "yes"]:
                self.asked.append(asked)
            elif votes == ["refused", "yes"]:
                self._tell(other, Abort(asked.txn, asked.transfer.id))
        elif act < 0.95 and self.asked:
            asked = self.asked.pop(chance.randrange(len(self.asked)))
            decision: Commit | Abort = Commit(asked.txn, asked.transfer.id, n)
            if chance.random() < 0.4:
                decision = refuse(asked)
            home = home_branch(asked.transfer.legs)
            for one in self.desks:
                plain = isinstance(decision, Abort) and one != home
                self._tell(one, Abort(asked.txn, asked.transfer.id) if plain else decision)
        else:
            self.desks[name].ask(Cancel(id_of(n)))

    def _tell(self, name: str, message: Prepare | Commit | Abort) -> str:
        answers = [effect.message for effect in self.desks[name].turn((BOSS, 0, message))]
        return str(getattr(answers[-1], "answer", ""))


@pytest.mark.parametrize("seed", range(6))
def test_lists_are_what_the_journals_rows_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    """For every filter, with any limit, and when a page looks through few rows only."""
    work = Work(tmp_path, seed)
    try:
        work.play(120)
        chance = work.chance
        for name, desk in work.desks.items():
            every = brute_force(desk)
            times_us = sorted({info.at_us for info in every})
            for _ in range(60):
                monkeypatch.setattr(transfers_module, "SCAN_ROWS", chance.choice((1, 3, 20, 2_000)))
                number, status = (
                    chance.choice(("", "", "1", "2", CASH)),
                    chance.choice(("", COMMITTED, ABORTED, PENDING)),
                )
                from_us = chance.choice((0, *times_us)) + chance.choice((0, 0, 1))
                until_us = chance.choice((FAR_US, *times_us))
                is_home = chance.random() < 0.5
                asked = ListTransfers(number, status, is_home, from_us, until_us, "", chance.choice((1, 2, 7, 1000)))
                found = [one.info for one in walk(desk, asked)]
                wanted = status or (COMMITTED if number else "")
                assert found == [
                    info
                    for info in every
                    if wanted in ("", info.status)
                    and from_us <= info.at_us < until_us
                    and (not is_home or home_branch(info.legs) == name)
                    and (not number or any(leg.account == f"{name}/{number}" for leg in info.legs))
                ]
    finally:
        work.close()


@pytest.mark.parametrize("seed", range(6))
def test_each_transfer_is_listed_by_one_home(tmp_path: Path, seed: int) -> None:
    """P2: over all branches, once each; and every one that any branch lists is among them."""
    work = Work(tmp_path, seed)
    try:
        work.play(80)
        at_home = [id for desk in work.desks.values() for id in ids(walk(desk, replace(ALL, is_home=True, limit=7)))]
        at_home = [id for id in at_home if id < 70_000]  # not the deposits at the start, which both branches have
        anywhere = {id for desk in work.desks.values() for id in ids(walk(desk, ALL)) if id < 70_000}
        assert len(at_home) == len(set(at_home))
        assert set(at_home) == anywhere
    finally:
        work.close()


@pytest.mark.parametrize("limit", [1, 2, 3, 4, 5, 1000])
def test_several_legs_on_one_account_are_one_transfer(mumbai: Desk, limit: int) -> None:
    """Wherever a page ends among its entries."""
    for n in range(4):
        legs = (*(Leg("Mumbai", "1", -1) for _ in range(3)), Leg("Mumbai", "2", 3))
        mumbai.ask(Transfer(id_of(n), legs, "INR"))
    found = walk(mumbai, ListTransfers("1", "", False, 0, FAR_US, "", limit))
    assert ids(found) == [3, 2, 1, 0, 70_000]


def test_a_line_has_the_cursor_of_a_page_after_it(mumbai: Desk) -> None:
    """By the journal and by the account's index: what the merge of all branches' lists stands on."""
    for n in range(6):
        mumbai.ask(pay(n, "Mumbai/1", "Mumbai/2", 1))
    for number in ("", "1"):
        every = walk(mumbai, replace(ALL, number=number))
        for place, one in enumerate(every):
            after = walk(mumbai, replace(ALL, number=number, cursor=one.cursor, limit=2))
            assert after == every[place + 1 :]


def test_new_transfers_do_not_disturb_a_reader(mumbai: Desk) -> None:
    for n in range(6):
        mumbai.ask(pay(n, "Mumbai/1", "Mumbai/2", 1))
    first = page(mumbai, replace(ALL, limit=3))
    mumbai.ask(pay(9, "Mumbai/1", "Mumbai/2", 1))
    rest = walk(mumbai, replace(ALL, limit=3, cursor=first.cursor))
    assert ids([*first.transfers, *rest]) == [5, 4, 3, 2, 1, 0, 70_001, 70_000]


def test_a_long_search_goes_on_page_by_page(mumbai: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """One answer costs so many rows and no more; a page may be empty and not the last."""
    monkeypatch.setattr(transfers_module, "SCAN_ROWS", 5)
    for n in range(12):
        mumbai.ask(pay(n, "Mumbai/1", "Mumbai/2", 1))
    first = page(mumbai, replace(ALL, status=ABORTED))
    assert first == TransfersPage((), str(mumbai.store.seq - 4))
    assert walk(mumbai, replace(ALL, status=ABORTED)) == []
    assert ids(walk(mumbai, replace(ALL, status=COMMITTED))) == [*range(11, -1, -1), 70_001, 70_000]


@pytest.mark.parametrize("cursor", ["x", "0", "-1", "1-2", "1.", " 1", "\uff11", "9" * 30, "\0"])
def test_a_cursor_not_from_here(mumbai: Desk, cursor: str) -> None:
    answer = mumbai.ask(replace(ALL, cursor=cursor))
    assert isinstance(answer, Fault)
    assert (answer.code, "no cursor of a page of transfers" in answer.detail) == ("malformed", True)


@pytest.mark.parametrize("cursor", ["x", "7", "0-1", "1-2-3", "\0"])
def test_a_cursor_not_of_an_account(mumbai: Desk, cursor: str) -> None:
    answer = mumbai.ask(replace(ALL, number="1", cursor=cursor))
    assert isinstance(answer, Fault)
    assert answer.code == "malformed"


def test_a_cursor_beyond_the_end_is_the_newest(mumbai: Desk) -> None:
    assert page(mumbai, replace(ALL, cursor="9" * 18)) == page(mumbai, ALL)
    assert page(mumbai, replace(ALL, cursor="1")) == TransfersPage((), "")


def test_a_status_that_is_none(mumbai: Desk) -> None:
    answer = mumbai.ask(replace(ALL, status="unknown"))
    assert isinstance(answer, Fault)
    assert answer.code == "malformed"


def test_an_account_without_transfers(mumbai: Desk) -> None:
    for status in ("", COMMITTED, ABORTED, PENDING):
        assert walk(mumbai, replace(ALL, number="none", status=status)) == []


def test_a_page_fits_a_frame(mumbai: Desk) -> None:
    """Whatever its transfers hold: as many as fit, at least one, none left out; and reasons count too, which often
    stand in another row than the content."""
    legs = (Leg("Mumbai", "1", -255), *(Leg("Delhi", f"{'9' * 30}{n:04}", 1) for n in range(255)))
    long = Refusal("account_frozen", "\N{GRINNING FACE}" * MAX_DETAIL_CHARS)
    for n in range(120):
        asked = prepare(txn_of(n), Transfer(id_of(n), legs, "INR", "\N{GRINNING FACE}" * 140))
        mumbai.turn((BOSS, 0, asked), (BOSS, 0, refuse(asked, long)))
    for n in range(1_000, 1_700):
        mumbai.turn((BOSS, 0, out(n, 1)), (BOSS, 0, refuse(out(n, 1), long)))
    message, found = ALL, 0
    while True:
        one = page(mumbai, message)
        assert len(encode_batch([(1, one)])) <= MAX_FRAME_BYTES
        found += len(one.transfers)
        if not one.cursor:
            break
        assert one.transfers
        message = replace(message, cursor=one.cursor)
    assert found == 120 + 700 + 2


def test_a_list_is_of_what_is_forced(mumbai: Desk) -> None:
    """A turn's reads are answered after its force, and see all of the batch."""
    effects = mumbai.turn((CUSTOMER, 1, ALL), (CUSTOMER, 2, pay(1, "Mumbai/1", "Mumbai/2", 1)))
    told = {effect.n: effect.message for effect in effects}
    listed = told[1]
    assert isinstance(listed, TransfersPage)
    assert listed.transfers[0].info.id == id_of(1)
