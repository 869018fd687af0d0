"""PROTOCOL T4 over a real store: whenever it is posted and whenever it is restarted, the state is the fold of the journal."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.storage.support import tables
from tests.transport.actors import INSTANCE, Desk, WatchedStore, branch, pay
from tests.unit.protocol_support import BOSS, CUSTOMER, from_branch, id_of, prepare, register, txn_of, yes
from zbank.apps import branch as branch_app
from zbank.clock import Clock
from zbank.domain.legs import CASH, CLEARING
from zbank.domain.refusal import INSUFFICIENT_FUNDS, Refusal
from zbank.errors import CorruptStore, StorageFull
from zbank.protocol.branch_state import BranchState
from zbank.protocol.codec import decode_record
from zbank.protocol.coordinator_state import CoordinatorState
from zbank.protocol.machine import Effect, Machine
from zbank.protocol.messages import (
    BRANCH,
    COORDINATOR,
    Abort,
    Ack,
    Cancel,
    ChangeAccount,
    Commit,
    Forward,
    OpenAccount,
    Prepare,
    Registered,
    Retire,
    RetireAnswer,
    RetireBranch,
)
from zbank.protocol.participant import Participant
from zbank.storage.sqlite import Identity
from zbank.transport import engine as engine_module
from zbank.transport.engine import Engine, Incoming

NUMBERS = ("1", "2", "3", "4")
FOLDED = ("journal", "ids", "accounts", "entries", "tombstones", "open_txns", "posted")


class BranchWork:
    """Everything that can come to a branch, at random."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.n = 0
        self.asked: list[Prepare] = []

    def next(self) -> Incoming:
        """The next message."""
        self.n += 1
        n, chance = self.n, self.chance
        source, other = chance.sample(NUMBERS, 2)
        local = pay(chance.choice((n, n, n, max(1, n - 3))), f"Mumbai/{source}", f"Mumbai/{other}", chance.randint(1, 90_00))
        away = pay(10_000 + n, f"Mumbai/{source}", "Delhi/9", chance.randint(1, 90_00))
        if chance.random() < 0.4:
            away = pay(10_000 + n, "Delhi/9", f"Mumbai/{source}", chance.randint(1, 90_00))
        asked = chance.choice(self.asked) if self.asked else None
        kind = chance.choices(("local", "prepare", "finish", "other"), (5, 4, 4, 2))[0]
        if kind == "prepare":
            self.asked.append(prepare(txn_of(n), away))
            return BOSS, 0, self.asked[-1]
        if kind == "finish" and asked is not None:
            self.asked.remove(asked)
            txn, id = asked.txn, asked.transfer.id
            refusal = Refusal(INSUFFICIENT_FUNDS, "elsewhere")
            ends = (Commit(txn, id, n), Commit(txn, id, n), Abort(txn, id), Abort(txn, id, refusal, asked.digest, ""))
            return BOSS, 0, chance.choice(ends)
        others = (
            (CUSTOMER, 1, OpenAccount(id_of(20_000 + n), "", "new", "", 0)),
            (CUSTOMER, 1, ChangeAccount(id_of(30_000 + n), source, "open", chance.choice((-1, 0, 50_00)))),
            (CUSTOMER, 1, Cancel(id_of(40_000 + n))),
            (BOSS, 1, Forward("", local)),
            (BOSS, 0, Registered(BOSS.caller, 1 + n // 50, ())),
        )
        return chance.choice(others) if kind == "other" else (CUSTOMER, 1, local)


def as_tables(desk: Desk) -> dict[str, Any]:
    """What the file holds when all is posted."""
    desk.engine.post()
    found = tables(desk.store)
    return {name: sorted(found[name]) for name in FOLDED}


def folded_at_once(desk: Desk, folder: Path, state: BranchState | CoordinatorState) -> dict[str, Any]:
    """The tables after folding the whole journal from its first record, posted once."""
    store = WatchedStore.open(folder / "again" / desk.path.name, desk.identity, INSTANCE, reserve_bytes=0)
    try:
        rows = desk.store.journal()
        for row in rows:
            state.apply(row.seq, row.epoch, row.at_us, decode_record(row.body))
        store.append(rows)
        store.post(state.posting())
        found = tables(store)
        return {name: sorted(found[name]) for name in FOLDED}
    finally:
        store.close()


@pytest.mark.parametrize("seed", range(6))
def test_a_branch_is_the_fold_of_its_journal_whenever_it_is_posted_or_restarted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    monkeypatch.setattr(engine_module, "POST_EVERY_ROWS", 16)
    work = BranchWork(seed)
    desk = branch(tmp_path, *NUMBERS)
    watermarks = set()
    try:
        for _ in range(60):
            desk.turn(*(work.next() for _ in range(work.chance.choice((1, 3, 12)))))
            if work.chance.random() < 0.1:  # a rolled back batch leaves no trace
                desk.store.failures.append(StorageFull("full"))
                desk.turn(*(BranchWork(seed + 1).next() for _ in range(5)))
                desk.tick()
            desk.engine.maintain()
            watermarks.add(desk.store.watermark)
            if work.chance.random() < 0.15:
                desk = desk.restarted()
        assert len(watermarks) > 5
        assert desk.branch.total_minor == 0
        desk.engine.post()
        assert as_tables(desk) == folded_at_once(desk, tmp_path, BranchState("Mumbai", "INR"))
        assert desk.store.verify() == desk.store.seq
    finally:
        desk.store.close()


@pytest.mark.parametrize("seed", range(4))
def test_a_coordinator_is_the_fold_of_its_journal_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    monkeypatch.setattr(engine_module, "POST_EVERY_ROWS", 8)
    chance = random.Random(seed)
    desk = Desk(COORDINATOR, "coordinator", tmp_path)
    try:
        for n in range(80):
            for name in ("Mumbai", "Delhi"):
                if chance.random() < 0.1 or n == 0:
                    desk.turn((from_branch(name), 0, register(name, epoch=1 + n)))
            asked = [effect.message for effect in desk.turn((CUSTOMER, n, pay(n, "Mumbai/1", "Delhi/1", 1)))]
            for message in asked[:1]:
                assert isinstance(message, Prepare)
                desk.turn(yes(message, "Mumbai"), yes(message, "Delhi", number=n))
                ackers = chance.choice((("Mumbai", "Delhi"), ("Mumbai", "Delhi"), ("Delhi",)))
                desk.turn(*((from_branch(name), 0, Ack(message.txn, message.transfer.id, 9)) for name in ackers))
            desk.tick(200_000)
            desk.engine.maintain()
            if chance.random() < 0.15:
                desk = desk.restarted()
                for name in ("Mumbai", "Delhi"):
                    desk.turn((from_branch(name), 0, register(name, epoch=1 + n)))
        found = as_tables(desk)
        assert found["open_txns"]
        assert sum(row[-1] is not None for row in found["ids"]) > 20, "ended"
        assert found == folded_at_once(desk, tmp_path, CoordinatorState("coordinator"))
    finally:
        desk.store.close()


def test_each_start_is_a_new_epoch_and_forgets_nothing(tmp_path: Path) -> None:
    desk = branch(tmp_path, "1", "2")
    paid = pay(1, "Mumbai/1", "Mumbai/2", 1_00)
    held = prepare(txn_of(2), pay(2, "Mumbai/1", "Delhi/1", 50_00))
    first = desk.ask(paid)
    desk.turn((BOSS, 0, held))
    for epoch in (2, 3):
        desk = desk.restarted()
        assert desk.branch.epoch == desk.store.epoch == epoch
        again = desk.ask(paid)
        assert (again.number, again.at_us, again.replayed) == (first.number, first.at_us, True)  # type: ignore[union-attr]
        assert desk.branch.book.accounts["1"].held_minor == 50_00
        assert [txn.seq for txn in desk.branch.prepared.values()] == [9]
    desk.store.close()


def test_tables_that_the_journal_does_not_follow_from_are_damage(tmp_path: Path) -> None:
    desk = branch(tmp_path, "1", "2")
    desk.turn((BOSS, 0, prepare(txn_of(1), pay(1, "Mumbai/1", "Delhi/1", 5))))
    desk.engine.post()
    desk.turn((BOSS, 0, Commit(txn_of(1), id_of(1), 1)))
    desk.store._connection.execute("DELETE FROM open_txns")
    with pytest.raises(CorruptStore, match="does not follow from the tables"):
        desk.restarted()


def test_the_demo_accounts_come_all_or_none(tmp_path: Path) -> None:
    """A crash in the middle of the preload must not leave a branch that counts as filled and lacks an account."""
    identity = Identity(cluster="demo", role=BRANCH, name="Mumbai")
    store = WatchedStore.open(tmp_path / "a.db", identity, INSTANCE, reserve_bytes=0)
    try:
        engine = Engine(store, _branch_builder(store), Clock())
        store.forces.clear()
        branch_app.preload(engine, Clock(), "Mumbai", "INR")
        assert [len(rows) for rows in store.forces] == [4]
        assert {n: a.balance_minor for n, a in engine.machine.fold.book.accounts.items()} == {  # type: ignore[attr-defined]
            CASH: -1_500_000,
            CLEARING: 0,
            "1001": 1_000_000,
            "1002": 500_000,
        }
        branch_app.preload(engine, Clock(), "Mumbai", "INR")
        assert len(store.forces) == 1
    finally:
        store.close()


def _branch_builder(store: WatchedStore) -> Callable[[Machine | None], Machine]:
    def build(_thrown_away: Machine | None) -> Machine:
        return Participant(BranchState("Mumbai", "INR"), (CASH, CLEARING))

    return build


def test_closed_accounts_are_counted_from_the_tables_and_from_the_tail(tmp_path: Path) -> None:
    """A branch may be retired once all are closed, whenever that was and however often it was started since."""
    desk = branch(tmp_path)
    for n in (1, 2, 3):
        desk.ask(OpenAccount(id_of(10 + n), str(n), "", "", 0))
    desk.ask(ChangeAccount(id_of(1), "1", "closed", -1))
    desk.engine.post()
    desk.ask(ChangeAccount(id_of(2), "2", "closed", -1))
    desk = desk.restarted()
    assert desk.branch.closed_count == 2
    (_, effect) = desk.turn((BOSS, 0, Retire("ops", 1)))  # its position goes ahead
    assert "1 account that is not closed" in str(effect.message)
    desk.ask(ChangeAccount(id_of(3), "3", "closed", -1))
    desk.engine.post()
    desk = desk.restarted()
    assert desk.turn((BOSS, 0, Retire("ops", 1)))[1:] == [Effect("coordinator", 0, RetireAnswer("ops"))]
    for posted in (False, True):
        if posted:
            desk.engine.post()
        desk = desk.restarted()
        assert desk.branch.retired is not None
    desk.store.close()


def test_a_coordinator_remembers_who_has_left(tmp_path: Path) -> None:
    desk = Desk(COORDINATOR, "coordinator", tmp_path)
    desk.turn((from_branch("Pune"), 0, register("Pune")))
    desk.turn((CUSTOMER, 7, RetireBranch("Pune")))
    desk.turn((from_branch("Pune"), 0, RetireAnswer("ops")))
    for posted in (False, True):
        if posted:
            desk.engine.post()
        desk = desk.restarted()
        state = desk.engine.machine.fold
        assert isinstance(state, CoordinatorState)
        assert (list(state.branches), list(state.retired)) == ([], ["Pune"])
        assert state.acts.acts[-1].act == "branch_retired"
    desk.store.close()
