"""Retiring and promoting the same branch: one of them at a time, and what the one leaves the other finds (docs/protocol.md)."""

from __future__ import annotations

import logging
from functools import partial
from pathlib import Path

import pytest
from msgspec.structs import replace

from tests.transport.actors import Desk, branch, pay
from tests.unit.protocol_support import (
    BOSS,
    CUSTOMER,
    SECOND_US,
    CoordinatorDesk,
    coordinator_desk,
    from_branch,
    id_of,
    of_kind,
    position,
    register,
    transfer,
    txn_of,
)
from tests.unit.test_reconciling import Promoted
from zbank.apps.branch import _tell_retired
from zbank.domain.legs import Leg
from zbank.protocol.coordinator_state import CoordinatorState
from zbank.protocol.directory import BACK_US
from zbank.protocol.machine import EPOCH_LEAP, Sender
from zbank.protocol.messages import (
    REPLICA,
    AccountInfo,
    Ack,
    AnyMessage,
    BranchRetired,
    ChangeAccount,
    Fault,
    GetAccount,
    GetRows,
    GetStatus,
    Lead,
    Outcome,
    Promote,
    Promoting,
    Registered,
    RegisterReplica,
    ReplicaInfo,
    Retire,
    RetireAnswer,
    RetireBranch,
    StatusInfo,
    Vote,
)
from zbank.protocol.records import BranchLeft, BranchPromoted
from zbank.storage.rows import rows_page

OPERATOR = Sender(b"operator", CUSTOMER.role, "ops")
ASK = RetireBranch("Pune")
CLOSED = RetireAnswer("ops")
COPY_INSTANCE = b"the copy's store"
COPY = ReplicaInfo("copy", "Pune", "tcp://10.0.0.9:9200", COPY_INSTANCE, 1, 5, 0, 0, True)
PROMOTE = Promote("Pune", "copy", COPY_INSTANCE)
FROM_COPY = Sender(b"copy", REPLICA, "copy")


def said(desk: Desk) -> str:
    """Why the branch does not close."""
    (answer,) = [e.message for e in desk.turn((BOSS, 0, Retire("ops", 1))) if isinstance(e.message, RetireAnswer)]
    assert desk.branch.retired is None
    assert answer.refusal is not None
    assert answer.refusal.code == "branch_not_empty"
    return answer.refusal.detail


def empty(desk: Desk, *numbers: str) -> None:
    """Pay out what is there, and close the accounts."""
    for n, number in enumerate(numbers):
        account = desk.ask(GetAccount(number))
        assert isinstance(account, AccountInfo)
        name = desk.identity.name
        if account.balance_minor:
            desk.ask(pay(500 + n, f"{name}/{number}", f"{name}/cash", account.balance_minor))
        closed = desk.ask(ChangeAccount(id_of(600 + n), number, "closed", -1))
        assert isinstance(closed, Outcome)
        assert closed.status == "committed"


# --- at the branch ----------------------------------------------------------------------------------------------------


def test_a_promoted_branch_is_not_closed_before_it_knows_what_was_decided(tmp_path: Path) -> None:
    mumbai = Promoted(tmp_path)
    mumbai.registered()
    assert "has just been promoted" in said(mumbai)
    mumbai.tell()
    assert "3 accounts that are not closed" in said(mumbai), "suspense is the bank's own"
    empty(mumbai, "1", "2", "3")
    (answer,) = [e.message for e in mumbai.turn((BOSS, 0, Retire("ops", 1))) if isinstance(e.message, RetireAnswer)]
    assert answer == CLOSED
    assert mumbai.restarted().branch.retired is not None


def test_with_money_in_suspense_it_stays_open(tmp_path: Path) -> None:
    mumbai = Promoted(tmp_path)
    mumbai.registered()
    mumbai.tell((3, pay(3, "Delhi/1", "Mumbai/9", 5_00)))
    empty(mumbai, "1", "2", "3")
    assert "Mumbai/suspense has 5.00 INR" in said(mumbai)
    mumbai.ask(pay(4, "Mumbai/suspense", "Mumbai/cash", 5_00))
    assert "the cash desk of Mumbai is not settled" in said(mumbai)


def test_its_word_comes_with_its_place_so_that_it_is_known_from_its_former_self(tmp_path: Path) -> None:
    mumbai = branch(tmp_path)
    effects = mumbai.turn((BOSS, 0, Retire("ops", 1)))
    assert [type(effect.message).__name__ for effect in effects] == ["Position", "RetireAnswer"]


def test_that_it_closed_stands_in_the_log_also_when_nobody_follows(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    mumbai = branch(tmp_path)
    mumbai.engine.on_rows = partial(_tell_retired, "Mumbai")
    assert mumbai.engine.followed_until_us == 0
    with caplog.at_level(logging.WARNING, "zbank"):
        mumbai.turn((BOSS, 0, Retire("ops", 1)))
        mumbai.turn((BOSS, 0, Retire("ops", 1)))
    assert [record.message[:24] for record in caplog.records] == ["branch Mumbai is retired"]


# --- at a replica -----------------------------------------------------------------------------------------------------


def test_a_replica_takes_the_end_of_its_branch_and_goes_on_answering(tmp_path: Path) -> None:
    mumbai = branch(tmp_path, "1")
    empty(mumbai, "1")
    mumbai.turn((BOSS, 0, Retire("ops", 1)))
    copy = Desk(REPLICA, "Mumbai", tmp_path, mumbai.clock)
    copy.turn((from_branch("Mumbai"), 0, rows_page(mumbai.store, GetRows(0, 1_000), mumbai.store.seq)))
    for desk in (copy, copy.restarted()):
        assert desk.branch.retired == mumbai.branch.retired
        assert desk.branch.closed_count == 1
        shown = [e.message for e in desk.turn((CUSTOMER, 7, GetAccount("1")), (CUSTOMER, 8, GetStatus()))]
        (account,) = [one for one in shown if isinstance(one, AccountInfo)]
        assert account.status == "closed"
        (status,) = [one for one in shown if isinstance(one, StatusInfo)]
        assert any("was retired by ops" in alarm for alarm in status.alarms)


# --- at the coordinator -----------------------------------------------------------------------------------------------


def town(*branches: str) -> CoordinatorDesk:
    """A coordinator that has heard of a replica of Pune."""
    desk = coordinator_desk().joined(branches or ("Delhi", "Mumbai", "Pune"))
    desk.clock.advance(BACK_US)
    desk.send(RegisterReplica(COPY), FROM_COPY)
    return desk


def promote(desk: CoordinatorDesk) -> AnyMessage:
    """What the operator is told."""
    return desk.ask(PROMOTE, OPERATOR)


def promoted(desk: CoordinatorDesk) -> None:
    """Pune is down, and its replica takes its place."""
    desk.down("Pune")
    effects = desk.send(PROMOTE, OPERATOR, 9)
    assert of_kind(Promoting, effects)
    assert isinstance(desk.last, BranchPromoted)


def came_back(desk: CoordinatorDesk) -> None:
    """The one that was promoted registers."""
    info = replace(register("Pune").info, endpoint=COPY.endpoint, instance=COPY_INSTANCE, epoch=3)
    desk.send(replace(register("Pune"), info=info), from_branch("Pune"))


def test_nobody_is_promoted_to_be_a_retired_branch() -> None:
    desk = town()
    desk.send(ASK, OPERATOR)
    desk.send(CLOSED, from_branch("Pune"))
    desk.down("Pune")
    for again in (desk, desk.restarted()):
        answer = promote(again)
        assert isinstance(answer, Fault)
        assert answer.code == "branch_retired"
    assert isinstance(desk.ask(RegisterReplica(COPY), FROM_COPY), Registered), "its replica stays what it is"
    assert desk.coordinator.directory.answer(desk.clock.now()).replicas[0].name == "copy"


def test_a_promoted_branch_retires_and_its_former_self_stays_out() -> None:
    desk = town()
    promoted(desk)
    came_back(desk)
    desk.send(ASK, OPERATOR)
    desk.turn([position("Pune", EPOCH_LEAP + 3), (from_branch("Pune"), 0, CLOSED)])
    assert isinstance(desk.last, BranchLeft)
    for state in (desk.state, desk.restarted().state):
        assert state.promotions == {}
        assert state.retired["Pune"].instance == COPY_INSTANCE
        assert state.retired["Pune"].endpoint == COPY.endpoint
    refusal = desk.coordinator.directory.refuse(register("Pune", epoch=9))
    assert refusal is not None
    assert refusal.code == "superseded"
    assert not isinstance(desk.ask(RegisterReplica(COPY), FROM_COPY), Lead)
    assert isinstance(desk.ask(ASK, OPERATOR), BranchRetired)


def test_what_the_former_one_said_of_its_end_is_void() -> None:
    """It closed, and died before that was recorded; the replica may not have the row."""
    desk = town()
    desk.send(transfer(1, (Leg("Mumbai", "1", -1), Leg("Pune", "1", 1))))
    desk.turn([(from_branch(name), 0, Vote(txn_of(1), id_of(1), "yes", 0, 1)) for name in ("Mumbai", "Pune")])
    desk.send(ASK, OPERATOR, 7)
    desk.send(CLOSED, from_branch("Pune"))  # its ack of the transfer is not there yet
    desk.down("Pune")
    effects = desk.send(PROMOTE, OPERATOR, 9)
    assert [(effect.n, type(effect.message)) for effect in effects] == [(7, Fault), (9, Promoting)]
    desk.send(CLOSED, from_branch("Pune"))  # of the former one, late
    came_back(desk)
    for name in ("Mumbai", "Pune"):
        desk.turn([position(name, EPOCH_LEAP + 3), (from_branch(name), 0, Ack(txn_of(1), id_of(1), 9))])
    desk.tick(10 * SECOND_US)
    assert "Pune" in desk.state.branches
    assert not any(isinstance(record, BranchLeft) for record in desk.records)
    desk.turn([position("Pune", EPOCH_LEAP + 3), (from_branch("Pune"), 0, CLOSED)])
    assert isinstance(desk.last, BranchLeft), "the new one has the row"


def test_a_promotion_and_an_end_are_kept_over_posting() -> None:
    desk = town("Delhi", "Pune")
    promoted(desk)
    desk.send(RetireBranch("Delhi"), OPERATOR)
    desk.send(CLOSED, from_branch("Delhi"))
    state, kept = desk.state, CoordinatorState("coordinator")
    kept.restore(state.posting().meta, state.seq, state.epoch, state.at_us, ())
    assert (kept.promotions, kept.former, kept.retired) == (state.promotions, state.former, state.retired)
    assert [act.act for act in kept.acts.acts][-2:] == ["branch_promoted", "branch_retired"]
