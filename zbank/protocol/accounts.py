"""Opening, changing and looking at accounts of a branch: what is recorded and what is answered."""

from __future__ import annotations

from hashlib import sha256

from msgspec import msgpack

from zbank.domain.account import STATUSES, Account, check_account_number
from zbank.domain.legs import MAX_MINOR, SYSTEM_NUMBERS
from zbank.domain.refusal import ACCOUNT_EXISTS, CURRENCY_MISMATCH, LIMIT_EXCEEDED, SYSTEM_ACCOUNT, Refusal
from zbank.errors import InvalidInput
from zbank.protocol import retiring
from zbank.protocol.branch_state import GIVEN_DIGITS, BranchState
from zbank.protocol.machine import CONFLICTING_ID, fault_of
from zbank.protocol.messages import (
    ABORTED,
    COMMITTED,
    AccountInfo,
    AnyMessage,
    ChangeAccount,
    Fault,
    GetAccount,
    OpenAccount,
    Opened,
    Outcome,
)
from zbank.protocol.outcomes import replay
from zbank.protocol.records import AccountChanged, AccountOpened, Record, Refused

Answered = tuple[Record | None, AnyMessage]

_encode = msgpack.Encoder().encode


def open_account(state: BranchState, caller: str, message: OpenAccount, at_us: int) -> Answered:
    """Open an account under the number asked for, or the next free one."""
    digest = _digest(message.number, message.owner, message.currency, message.overdraft_limit_minor)
    replayed = _replay(state, message.id, digest, caller)
    if replayed is not None:
        return None, _with_account(state, replayed)
    number = message.number or str(state.next_number)
    currency = message.currency or state.book.currency_code
    try:
        check_account_number(number)
    except InvalidInput as error:
        return None, fault_of(error)
    name = f"{state.name}/{number}"
    refusal = retiring.refusal(state)
    if refusal is not None:
        pass
    elif number in SYSTEM_NUMBERS:
        refusal = Refusal(SYSTEM_ACCOUNT, f"{name} is a name the bank keeps for itself")
    elif not message.number and len(number) > GIVEN_DIGITS:
        refusal = Refusal(LIMIT_EXCEEDED, f"{state.name} has no more numbers to give: choose one")
    elif number in state.book.accounts:
        refusal = Refusal(ACCOUNT_EXISTS, f"there is an account {name} already")
    elif currency != state.book.currency_code:
        detail = f"{state.name} keeps accounts in {state.book.currency_code}, not in {currency}"
        refusal = Refusal(CURRENCY_MISMATCH, detail)
    if refusal is not None:
        return _refused(message.id, digest, caller, refusal, at_us)
    record = AccountOpened(
        id=message.id,
        digest=digest,
        caller=caller,
        number=number,
        owner=message.owner,
        currency=currency,
        overdraft_limit_minor=message.overdraft_limit_minor,
    )
    limit_minor = message.overdraft_limit_minor
    info = AccountInfo(number, message.owner, currency, "open", 0, 0, limit_minor, at_us)
    return record, Opened(message.id, info, False)


def change_account(state: BranchState, caller: str, message: ChangeAccount, at_us: int) -> Answered:
    """Set status and overdraft limit; what yes votes promised stays possible (PROTOCOL P4)."""
    digest = _digest(message.number, message.status, message.overdraft_limit_minor)
    replayed = _replay(state, message.id, digest, caller)
    if replayed is not None:
        return None, replayed
    if message.status not in (*STATUSES, "") or message.overdraft_limit_minor > MAX_MINOR:
        detail = f"an account's status is one of {', '.join(STATUSES)}, not {message.status!r}"
        return None, Fault(code="malformed", detail=detail)
    account = state.book.accounts.get(message.number)
    status, limit_minor = message.status, message.overdraft_limit_minor
    if account is not None:
        status = status or account.status
        limit_minor = account.overdraft_limit_minor if limit_minor < 0 else limit_minor
    refusal = state.book.check_change(message.number, status, limit_minor)
    if refusal is not None:
        return _refused(message.id, digest, caller, refusal, at_us)
    record = AccountChanged(message.id, digest, caller, message.number, status, limit_minor)
    return record, Outcome(message.id, COMMITTED, None, 0, at_us, False, True)


def get_account(state: BranchState, message: GetAccount) -> AnyMessage:
    """An account as it stands, the batch so far included."""
    account = state.book.accounts.get(message.number)
    if account is None:
        refusal = state.book.not_found(message.number)
        return Fault(code=refusal.code, detail=refusal.detail)
    return account_info(account)


def account_info(account: Account) -> AccountInfo:
    """The wire form of an account."""
    return AccountInfo(
        number=account.number,
        owner=account.owner,
        currency=account.currency,
        status=account.status,
        balance_minor=account.balance_minor,
        held_minor=account.held_minor,
        overdraft_limit_minor=account.overdraft_limit_minor,
        opened_at_us=account.opened_at_us,
    )


def _digest(*content: str | int) -> bytes:
    return sha256(_encode(content)).digest()[:16]


def _replay(state: BranchState, id: bytes, digest: bytes, caller: str) -> Outcome | Fault | None:
    """The answer to an id that stands for something already; None for a fresh one."""
    settled = state.settled.get(id)
    if settled is None:
        return CONFLICTING_ID if id in state.prepared else None
    return replay(settled, digest, caller)


def _with_account(state: BranchState, replayed: Outcome | Fault) -> AnyMessage:
    """A repeated opening shows its account, as it stands now."""
    if isinstance(replayed, Fault) or replayed.status != COMMITTED:
        return replayed
    account = state.book.accounts.get(state.settled[replayed.id].detail)
    if account is None:  # what was committed under this id was no opening
        return CONFLICTING_ID
    return Opened(replayed.id, account_info(account), True)


def _refused(id: bytes, digest: bytes, caller: str, refusal: Refusal, at_us: int) -> Answered:
    return Refused(id, digest, caller, refusal), Outcome(id, ABORTED, refusal, 0, at_us, False, True)
