"""What the messages of a batch need from the store before a branch decides them (PROTOCOL T3)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from zbank.domain.book import branch_movements
from zbank.domain.legs import SUSPENSE
from zbank.protocol.branch_state import BranchState, redelivered_movements
from zbank.protocol.machine import Wanted
from zbank.protocol.messages import (
    COMMITTED,
    Abort,
    AnyMessage,
    Cancel,
    ChangeAccount,
    Commit,
    Forward,
    GetAccount,
    Inquiry,
    OpenAccount,
    Prepare,
    Redeliver,
    Transfer,
)
from zbank.protocol.records import Aborted, AccountChanged, Committed, Executed, Prepared, Record, Redelivered


def want(state: BranchState, message: AnyMessage, wanted: Wanted) -> None:
    """Add the ids, txns and accounts that the decision of this message looks at and that are not in memory."""
    add = _WANT.get(type(message))
    if add is not None:
        add(state, message, wanted)


def touched(state: BranchState, record: Record) -> list[str]:
    """The accounts that applying this record changes; for replay, where they may have to be loaded first."""
    match record:
        case Executed() | Prepared():
            return [number for number, _ in branch_movements(record.content.legs, state.name)]
        case Committed() | Aborted():
            return _held(state, record.id)
        case AccountChanged():
            return [record.number]
        case Redelivered():
            return [number for number, _ in redelivered_movements(record, state.name)] + _held(state, record.id)
    return []


def _held(state: BranchState, id: bytes) -> list[str]:
    """The accounts on which something is promised for this id."""
    held = state.prepared.get(id)
    return [] if held is None else [number for number, _ in held.movements]


def _id(state: BranchState, id: bytes, wanted: Wanted) -> None:
    if id not in state.settled:
        wanted.ids.add(id)


def _accounts(state: BranchState, numbers: Iterable[str], wanted: Wanted) -> None:
    known = state.book.accounts
    for number in numbers:
        if number not in known:
            wanted.numbers.add(number)


def _transfer(state: BranchState, message: Transfer, wanted: Wanted) -> None:
    _id(state, message.id, wanted)
    _accounts(state, [leg.number for leg in message.legs if leg.branch == state.name], wanted)


def _forward(state: BranchState, message: Forward, wanted: Wanted) -> None:
    _transfer(state, message.transfer, wanted)


def _prepare(state: BranchState, message: Prepare, wanted: Wanted) -> None:
    _id(state, message.transfer.id, wanted)
    wanted.txns.add(message.txn)
    _accounts(state, [number for number, _ in branch_movements(message.transfer.legs, state.name)], wanted)


def _txn(state: BranchState, message: Commit | Abort | Inquiry, wanted: Wanted) -> None:
    prepared = state.prepared.get(message.id)
    if prepared is not None and prepared.txn == message.txn:
        _accounts(state, [number for number, _ in prepared.movements], wanted)
    else:
        _id(state, message.id, wanted)
        wanted.txns.add(message.txn)


def _cancel(state: BranchState, message: Cancel, wanted: Wanted) -> None:
    _id(state, message.id, wanted)


def _account_request(state: BranchState, message: OpenAccount | ChangeAccount, wanted: Wanted) -> None:
    _id(state, message.id, wanted)
    _accounts(state, [message.number], wanted)
    settled = state.settled.get(message.id)
    if settled is not None and settled.outcome == COMMITTED:  # a repeated opening shows its account
        _accounts(state, [settled.detail], wanted)


def _redeliver(state: BranchState, message: Redeliver, wanted: Wanted) -> None:
    _id(state, message.id, wanted)
    moved = [number for number, _ in branch_movements(message.legs, state.name)]
    _accounts(state, [SUSPENSE, *moved, *_held(state, message.id)], wanted)


def _account(state: BranchState, message: GetAccount, wanted: Wanted) -> None:
    _accounts(state, [message.number], wanted)


_WANT: dict[type[AnyMessage], Callable[[BranchState, Any, Wanted], None]] = {
    Transfer: _transfer,
    Forward: _forward,
    Prepare: _prepare,
    Commit: _txn,
    Abort: _txn,
    Inquiry: _txn,
    Cancel: _cancel,
    OpenAccount: _account_request,
    ChangeAccount: _account_request,
    GetAccount: _account,
    Redeliver: _redeliver,
}
