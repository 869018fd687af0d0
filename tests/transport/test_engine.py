"""The turn of an actor over a real store: PROTOCOL T1 to T4, and what a full disk makes of it."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.transport.actors import Desk, branch, pay
from tests.unit.protocol_support import BOSS, CUSTOMER, from_branch, id_of, prepare, register, txn_of, yes
from zbank.domain.legs import CASH
from zbank.errors import FenceLost, StorageFull, StoreError
from zbank.protocol.machine import Effect
from zbank.protocol.messages import (
    BRANCH,
    COORDINATOR,
    AccountInfo,
    AccountsPage,
    Ack,
    AnyMessage,
    Commit,
    EntriesPage,
    Fault,
    GetAccount,
    GetEntries,
    GetStatus,
    GetTransfer,
    ListAccounts,
    Outcome,
    Position,
    Prepare,
    StatusInfo,
    TransferInfo,
    Vote,
)
from zbank.transport import engine as engine_module

FULL = "the disk is full"


@pytest.fixture
def mumbai(tmp_path: Path) -> Iterator[Desk]:
    """A branch with accounts 1 and 2, 100.00 on each, nothing counted yet."""
    desk = branch(tmp_path, "1", "2")
    desk.store.forces.clear()
    yield desk
    desk.store.close()


@pytest.fixture
def coordinator(tmp_path: Path) -> Iterator[Desk]:
    """A coordinator with Mumbai and Delhi."""
    desk = Desk(COORDINATOR, "coordinator", tmp_path)
    for name in ("Mumbai", "Delhi"):
        desk.turn((from_branch(name), 0, register(name)))
    yield desk
    desk.store.close()


def messages(effects: list[Effect]) -> list[AnyMessage]:
    return [effect.message for effect in effects]


def statuses(effects: list[Effect]) -> list[str]:
    return [message.status for message in messages(effects) if isinstance(message, Outcome)]


def out(n: int, amount_minor: int = 10_00) -> Prepare:
    """Prepare of a payment from Mumbai/1 to Delhi/9."""
    return prepare(txn_of(n), pay(n, "Mumbai/1", "Delhi/9", amount_minor))


def commit(message: Prepare, number: int = 1) -> Commit:
    return Commit(message.txn, message.transfer.id, number)


def balances(desk: Desk) -> dict[str, tuple[int, int]]:
    """Balance and hold of every account, from the tables."""
    page = desk.ask(ListAccounts("", 1000))
    assert isinstance(page, AccountsPage)
    return {info.number: (info.balance_minor, info.held_minor) for info in page.accounts}


# --- T1: decide, apply, next; one force; then the effects --------------------------------------------------------------


def test_a_batch_is_forced_once_and_each_message_sees_those_before(mumbai: Desk) -> None:
    """T1: of two withdrawals of 80 from 100 in one batch the second is refused; a repeat in the batch is known."""
    first, second = (pay(n, "Mumbai/1", f"Mumbai/{CASH}", 80_00) for n in (1, 2))
    effects = mumbai.turn(*((CUSTOMER, n, message) for n, message in enumerate((first, second, first))))
    assert statuses(effects) == ["committed", "aborted", "committed"]
    assert [message.replayed for message in messages(effects) if isinstance(message, Outcome)] == [False, False, True]
    assert [effect.n for effect in effects] == [0, 1, 2]
    assert [len(rows) for rows in mumbai.store.forces] == [2]
    assert mumbai.store.seq == mumbai.branch.seq


def test_reads_are_answered_after_the_force_and_see_all_of_the_batch(mumbai: Desk) -> None:
    asked: tuple[AnyMessage, ...] = (
        ListAccounts("", 100),
        GetEntries("2", True, "", 10),
        GetTransfer(id_of(1)),
        GetStatus(),
        pay(1, "Mumbai/1", "Mumbai/2", 5_00),
        GetAccount("2"),
    )
    effects = mumbai.turn(*((CUSTOMER, n, message) for n, message in enumerate(asked)))
    found = {effect.n: effect.message for effect in effects}
    accounts, entries, shown, status, paid, account = (found[n] for n in range(len(asked)))
    assert isinstance(accounts, AccountsPage)
    assert {info.number: info.balance_minor for info in accounts.accounts}["2"] == 105_00
    assert isinstance(entries, EntriesPage)
    assert (entries.entries[0].id, entries.entries[0].balance_minor) == (id_of(1), 105_00)
    assert isinstance(shown, TransferInfo)
    assert shown.status == "committed"
    assert isinstance(status, StatusInfo)
    assert (status.seq, status.total_minor) == (mumbai.store.seq, 0)
    assert isinstance(paid, Outcome)
    assert isinstance(account, AccountInfo)
    assert account.balance_minor == 105_00


def test_a_batch_of_pages_is_bounded_and_the_rest_told_to_come_again(
    mumbai: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A small frame may ask for millions of rows: some are read, busy is told to the rest; work is done all the same."""
    monkeypatch.setattr(engine_module, "MAX_DRAIN_READ_ROWS", 40)
    pages = [(CUSTOMER, n, ListAccounts("", 1000)) for n in range(6)]
    answers = messages(mumbai.turn(*pages, (CUSTOMER, 6, pay(1, "Mumbai/1", "Mumbai/2", 1))))
    assert [type(answer) for answer in answers] == [Outcome] + [AccountsPage] * 3 + [Fault] * 3
    assert {answer.code for answer in answers if isinstance(answer, Fault)} == {"busy"}
    mumbai.engine.maintain()
    assert [type(answer) for answer in messages(mumbai.turn(*pages[:3]))] == [AccountsPage] * 3


def test_positions_stand_before_votes_and_acks(mumbai: Desk) -> None:
    """P11: where the journal stands after the force goes ahead of them, once a batch, to their coordinator alone."""
    asked = [out(1), out(2)]
    effects = mumbai.turn((CUSTOMER, 5, pay(3, "Mumbai/2", "Mumbai/1", 1)), *((BOSS, 0, message) for message in asked))
    assert effects[0].to == BOSS.address
    position = effects[0].message
    assert isinstance(position, Position)
    assert (position.epoch, position.seq, position.chain) == (1, mumbai.store.seq, mumbai.store.chain)
    votes = [message for message in messages(effects) if isinstance(message, Vote)]
    assert [vote.answer for vote in votes] == ["yes", "yes"]
    assert [vote.seq for vote in votes] == [position.seq - 1, position.seq]
    effects = mumbai.turn((BOSS, 0, commit(asked[0])))
    assert [type(message) for message in messages(effects)] == [Position, Ack]
    assert Position not in map(type, messages(mumbai.turn((CUSTOMER, 1, GetStatus()))))


# --- T2: a commit that fails -------------------------------------------------------------------------------------------


def test_a_full_disk_drops_the_batch_and_rebuilds_the_state(mumbai: Desk, caplog: pytest.LogCaptureFixture) -> None:
    """T2: no effect of the batch leaves, memory is what the store says, and work goes on when there is room."""
    held = out(1)
    mumbai.turn((BOSS, 0, held))
    before = balances(mumbai)
    seq = mumbai.store.seq
    mumbai.store.failures.append(StorageFull(FULL))
    asked: tuple[AnyMessage, ...] = (
        pay(2, "Mumbai/1", "Mumbai/2", 80_00),
        GetAccount("1"),
        ListAccounts("", 10),
        GetStatus(),
    )
    batch = [(CUSTOMER, n, message) for n, message in enumerate(asked)]
    with caplog.at_level(logging.CRITICAL, "zbank"):
        effects = mumbai.turn(*batch, (BOSS, 0, out(3)), (BOSS, 0, commit(held)))
    told = {effect.n: effect.message for effect in effects if effect.to == CUSTOMER.address}
    assert sorted(told) == [0, 1, 2, 3]
    assert [type(told[n]) for n in range(4)] == [Fault, AccountInfo, AccountsPage, StatusInfo]
    assert {message.code for message in told.values() if isinstance(message, Fault)} == {"storage_full"}
    to_coordinator = [effect.message for effect in effects if effect.to == BOSS.address]
    assert [(type(message), getattr(message, "answer", "")) for message in to_coordinator] == [(Vote, "storage_full")]
    assert mumbai.store.seq == mumbai.branch.seq == seq
    assert list(mumbai.branch.prepared) == [held.transfer.id]
    assert balances(mumbai) == before
    assert "storage_full" in mumbai.engine.machine.alarms

    mumbai.tick()
    assert mumbai.engine.machine.alarms == {}
    assert statuses(mumbai.turn(*batch)) == ["committed"]
    assert [type(message) for message in messages(mumbai.turn((BOSS, 0, commit(held))))] == [Position, Ack]
    assert mumbai.branch.clearing_minor == 10_00


@pytest.mark.parametrize("error", [StoreError("the sync failed"), FenceLost("another process")])
def test_any_other_failure_of_the_force_ends_the_process(mumbai: Desk, error: StoreError) -> None:
    """T2: what the file holds is not known, so nothing may be answered: the error leaves the engine."""
    mumbai.store.failures.append(error)
    with pytest.raises(type(error)):
        mumbai.turn((CUSTOMER, 0, pay(1, "Mumbai/1", "Mumbai/2", 1)))
    mumbai.store.failures.append(error)
    with pytest.raises(type(error)):
        mumbai.engine.post()


def test_without_room_new_work_is_declined_and_promises_are_kept(
    mumbai: Desk, caplog: pytest.LogCaptureFixture
) -> None:
    """The reserve is for finishing what is prepared; nothing new begins until there is room again."""
    held, dropped = out(1), out(2)
    mumbai.turn((BOSS, 0, held), (BOSS, 0, dropped))
    mumbai.store.room = False
    with caplog.at_level(logging.CRITICAL, "zbank"):
        mumbai.tick()
    effects = mumbai.turn(
        (CUSTOMER, 1, pay(3, "Mumbai/1", "Mumbai/2", 1)),
        (BOSS, 0, out(4)),
        (BOSS, 0, commit(held)),
        (CUSTOMER, 2, GetAccount("1")),
    )
    told = messages(effects)
    assert [type(message) for message in told] == [Position, Fault, Vote, Ack, AccountInfo]
    assert isinstance(told[1], Fault)
    assert isinstance(told[2], Vote)
    assert (told[1].code, told[2].answer) == ("storage_full", "storage_full")
    assert mumbai.branch.clearing_minor == 10_00
    mumbai.store.room = True
    mumbai.tick()
    assert statuses(mumbai.turn((CUSTOMER, 1, pay(3, "Mumbai/1", "Mumbai/2", 1)))) == ["committed"]


def test_a_full_disk_at_the_decision(coordinator: Desk, caplog: pytest.LogCaptureFixture) -> None:
    """No commit leaves and no outcome is told; the same id is tried again under a txn number never used before."""
    paid = pay(1, "Mumbai/1", "Delhi/9", 5_00)
    (first, _) = (
        message for message in messages(coordinator.turn((CUSTOMER, 4, paid))) if isinstance(message, Prepare)
    )
    coordinator.store.failures.append(StorageFull(FULL))
    with caplog.at_level(logging.CRITICAL, "zbank"):
        effects = coordinator.turn(yes(first, "Mumbai"), yes(first, "Delhi"), (CUSTOMER, 5, GetStatus()))
    assert [(effect.n, type(effect.message)) for effect in effects] == [(5, StatusInfo)]
    coordinator.tick()
    again = messages(coordinator.turn((CUSTOMER, 4, paid)))
    assert [type(message) for message in again] == [Prepare, Prepare], "the branches are still there"
    second = again[0]
    assert isinstance(second, Prepare)
    assert second.txn > first.txn
    decided = coordinator.turn(yes(second, "Mumbai"), yes(second, "Delhi"))
    assert [type(message) for message in messages(decided)] == [Commit, Commit]


def test_a_full_disk_while_ending_sends_the_commit_again(
    coordinator: Desk, caplog: pytest.LogCaptureFixture
) -> None:
    """The record that a txn is over may be lost; then its commit is sent once more, and acked once more."""
    (asked, _) = messages(coordinator.turn((CUSTOMER, 4, pay(1, "Mumbai/1", "Delhi/9", 5_00))))
    assert isinstance(asked, Prepare)
    coordinator.turn(yes(asked, "Mumbai"), yes(asked, "Delhi"))
    acks = [(from_branch(name), 0, Ack(asked.txn, asked.transfer.id, 9)) for name in ("Mumbai", "Delhi")]
    assert statuses(coordinator.turn(*acks)) == ["committed"]
    coordinator.store.failures.append(StorageFull(FULL))
    with caplog.at_level(logging.CRITICAL, "zbank"):
        assert coordinator.tick() == []
    sent = [effect.to for effect in coordinator.tick() if isinstance(effect.message, Commit)]
    assert sorted(map(str, sent)) == ["Delhi", "Mumbai"]
    assert coordinator.turn(*acks) == []
    coordinator.tick()
    status = coordinator.ask(GetStatus())
    assert isinstance(status, StatusInfo)
    assert status.in_flight == 0


# --- T3 ----------------------------------------------------------------------------------------------------------------


def test_what_a_batch_needs_is_loaded_with_one_query_a_kind(tmp_path: Path) -> None:
    """T3, with nothing in memory: 40 transfers between 80 accounts."""
    numbers = [str(n) for n in range(80)]
    before = branch(tmp_path, *numbers)
    before.engine.close()
    desk = Desk(BRANCH, "Mumbai", tmp_path)
    try:
        desk.store.queries.clear()
        batch = [pay(n, f"Mumbai/{numbers[2 * n]}", f"Mumbai/{numbers[2 * n + 1]}", 1_00) for n in range(40)]
        effects = desk.turn(*((CUSTOMER, n, message) for n, message in enumerate(batch)))
        assert statuses(effects) == ["committed"] * 40
        assert sorted(desk.store.queries) == ["accounts", "ids"]
    finally:
        desk.store.close()
