"""What the Python client gives back: plain frozen values with decimal text, and the JSON objects of DESIGN §7."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any, NamedTuple

from msgspec import Struct

from zbank.clock import format_time
from zbank.domain.account import CLOSED
from zbank.domain.legs import Leg
from zbank.domain.money import AmountInput, currency, format_amount
from zbank.domain.refusal import Refusal
from zbank.ids import format_id
from zbank.protocol.messages import (
    NEVER_US,
    AccountInfo,
    EntriesPage,
    EntryInfo,
    ParticipantInfo,
    Phase,
    TransferInfo,
    TransferListed,
)

Json = dict[str, Any]


def amount_text(amount_minor: int, code: str) -> str:
    """Decimal text of minor units of the currency `code`."""
    return format_amount(amount_minor, currency(code))


class TransferRequest(NamedTuple):
    """One line of `Client.transfer_many`: either source, destination and amount, or legs."""

    source: str = ""  #: `Branch/number` that gives
    destination: str = ""  #: `Branch/number` that gets
    amount: AmountInput = ""  #: decimal text, int of whole units or Decimal
    id: bytes | str | None = None  #: 16 bytes, UUID text or a text key of yours; None = a fresh one
    memo: str = ""
    currency: str | None = None  #: None = that of the source's branch
    effective_on: date | str | None = None
    legs: Sequence[tuple[str, AmountInput]] | None = None  #: (account, signed amount), in place of the first three


class TransferResult(Struct, frozen=True, gc=False):
    """What became of one transfer."""

    id: str
    status: str  #: "committed", "aborted", "pending" or "unknown"
    refusal: Refusal | None = None  #: why it was aborted
    legs: tuple[Leg, ...] = ()
    currency: str = ""
    number: int = 0  #: commit number; 0 unless committed
    at_us: int = 0  #: when it became final; 0 = not told
    replayed: bool = False  #: answered from the record: an earlier request had done it
    applied: bool = False  #: every branch has applied it; False with "committed" = still being applied
    reason: str = ""  #: why it is unknown or pending, and what to do; "" else
    positions: Mapping[str, int] = {}  #: by branch, as far as known: a replica that has come so far shows it

    def to_json(self) -> Json:
        """The Transfer object of DESIGN §7."""
        plain = _transfer_json(self.id, self.status, self.refusal, self.legs, self.currency, self.at_us, self.reason)
        return plain | {"positions": dict(self.positions)}


def lag_seconds(lag_us: int) -> float | None:
    """How long ago a replica was level with its branch; None = it never was."""
    return None if lag_us >= NEVER_US else lag_us / 1e6


class AsOf(Struct, frozen=True):
    """Where the replica stood that gave an answer."""

    position: int  #: row of its branch's journal
    behind: int  #: rows that the branch was known to have more
    lag_us: int  #: it showed everything that the branch had so long ago

    def to_json(self) -> Json:
        """Seconds; null while the replica was never level with its branch."""
        return {"position": self.position, "behind": self.behind, "lag_s": lag_seconds(self.lag_us)}


class AccountView(Struct, frozen=True):
    """An account as it stands."""

    branch: str
    number: str
    owner: str
    currency: str
    status: str  #: "open", "frozen" or "closed"
    balance_minor: int
    held_minor: int
    overdraft_limit_minor: int
    opened_at_us: int
    replayed: bool = False  #: answer of `open_account`: an earlier request had opened it
    as_of: AsOf | None = None  #: from a replica, as it stood then; None = from the branch itself

    @property
    def account(self) -> str:
        """`Branch/number`."""
        return f"{self.branch}/{self.number}"

    @property
    def available_minor(self) -> int:
        """Balance - held + overdraft limit; nothing of a closed account."""
        if self.status == CLOSED:
            return 0
        return self.balance_minor - self.held_minor + self.overdraft_limit_minor

    @property
    def balance(self) -> str:
        """Decimal text."""
        return amount_text(self.balance_minor, self.currency)

    @property
    def held(self) -> str:
        """Decimal text."""
        return amount_text(self.held_minor, self.currency)

    @property
    def available(self) -> str:
        """Decimal text."""
        return amount_text(self.available_minor, self.currency)

    @property
    def overdraft_limit(self) -> str:
        """Decimal text."""
        return amount_text(self.overdraft_limit_minor, self.currency)

    def to_json(self) -> Json:
        """The Account object of DESIGN §7."""
        return {
            "account": self.account,
            "branch": self.branch,
            "number": self.number,
            "owner": self.owner,
            "currency": self.currency,
            "status": self.status,
            "balance": self.balance,
            "held": self.held,
            "available": self.available,
            "overdraft_limit": self.overdraft_limit,
            **({} if self.as_of is None else {"as_of": self.as_of.to_json()}),
        }


class EntryView(Struct, frozen=True):
    """One line of a statement."""

    id: str  #: the transfer
    at_us: int
    effective_on: str  #: "YYYY-MM-DD", or ""
    amount: str  #: signed decimal text: + credits, - debits
    balance: str  #: after this entry
    currency: str
    memo: str
    counterparties: tuple[str, ...]  #: the other accounts of the transfer
    seq: int  #: of the branch's journal row that posted it

    def to_json(self) -> Json:
        """One entry."""
        return {
            "id": self.id,
            "at": format_time(self.at_us),
            "effective_on": self.effective_on or None,
            "amount": self.amount,
            "balance": self.balance,
            "currency": self.currency,
            "memo": self.memo,
            "counterparties": list(self.counterparties),
        }


class StatementPage(Struct, frozen=True):
    """A page of an account's entries, and the account as it stood at that moment."""

    account: AccountView
    entries: list[EntryView]
    cursor: str  #: of the next page; "" = this was the last

    def to_json(self) -> Json:
        """Account, entries and the cursor of the next page (null after the last)."""
        return {
            "account": self.account.to_json(),
            "entries": [entry.to_json() for entry in self.entries],
            "cursor": self.cursor or None,
        }


class TransferView(Struct, frozen=True):
    """All that the actors know of one id, joined."""

    id: str
    status: str  #: "committed", "aborted", "pending" or "unknown"
    refusal: Refusal | None
    legs: tuple[Leg, ...]
    currency: str  #: "" when nobody knows the transfer
    memo: str
    effective_on: str
    number: int  #: commit number; 0 = none
    at_us: int  #: 0 = not known
    txn: str  #: the 2PC attempt that settled it or is at work; "" = none
    participants: tuple[ParticipantInfo, ...]
    timeline: tuple[Phase, ...]
    reason: str = ""  #: why more is not known (who did not answer); "" else

    def to_json(self) -> Json:
        """The Transfer object of DESIGN §7, with participants and timeline."""
        plain = _transfer_json(self.id, self.status, self.refusal, self.legs, self.currency, self.at_us, self.reason)
        plain["memo"] = self.memo
        plain["effective_on"] = self.effective_on or None
        plain["txn"] = self.txn or None
        plain["participants"] = [_participant_json(participant) for participant in self.participants]
        plain["timeline"] = [
            {"phase": bar.phase, "actor": bar.actor, "start_ms": bar.start_us / 1000, "end_ms": bar.end_us / 1000}
            for bar in self.timeline
        ]
        return plain


class TransferList(Struct, frozen=True):
    """A page of transfers, newest first."""

    transfers: list[TransferView]
    cursor: str  #: of the next page; "" = this was the last
    missing: list[ActorDown]  #: branches that did not answer: what they know stands in a later page, when they do

    def to_json(self) -> Json:
        """Transfers and the cursor of the next page (null after the last)."""
        return {
            "transfers": [transfer.to_json() for transfer in self.transfers],
            "cursor": self.cursor or None,
            "missing": [down.to_json() for down in self.missing],
        }


class AccountList(Struct, frozen=True):
    """A page of accounts, by branch and number."""

    accounts: list[AccountView]
    cursor: str  #: of the next page; "" = this was the last
    missing: list[ActorDown]  #: branches that did not answer: their accounts are left out

    def to_json(self) -> Json:
        """Accounts and the cursor of the next page (null after the last)."""
        return {
            "accounts": [account.to_json() for account in self.accounts],
            "cursor": self.cursor or None,
            "missing": [down.to_json() for down in self.missing],
        }


class ActorDown(Struct, frozen=True):
    """An actor of the cluster that did not answer."""

    role: str
    name: str  #: "" = not known
    endpoint: str
    reason: str

    def to_json(self) -> Json:
        """As the fields stand."""
        return {"role": self.role, "name": self.name, "endpoint": self.endpoint, "up": False, "reason": self.reason}


def account_view(
    branch: str, info: AccountInfo, *, replayed: bool = False, as_of: AsOf | None = None
) -> AccountView:
    """The account of a branch's answer, or of a replica's."""
    return AccountView(
        branch,
        info.number,
        info.owner,
        info.currency,
        info.status,
        info.balance_minor,
        info.held_minor,
        info.overdraft_limit_minor,
        info.opened_at_us,
        replayed,
        as_of,
    )


def statement_page(branch: str, page: EntriesPage, as_of: AsOf | None = None) -> StatementPage:
    """The statement of a branch's answer, or of a replica's."""
    code = page.account.currency
    entries = [_entry_view(entry, code) for entry in page.entries]
    return StatementPage(account_view(branch, page.account, as_of=as_of), entries, page.cursor)


def transfer_view(info: TransferInfo, participants: tuple[ParticipantInfo, ...], at_us: int, reason: str) -> TransferView:
    """The transfer of an actor's answer, with what the others added to it."""
    return TransferView(
        format_id(info.id),
        info.status,
        info.refusal,
        info.legs,
        info.currency,
        info.memo,
        info.effective_on,
        info.number,
        at_us,
        "" if info.txn is None else str(info.txn),
        participants,
        info.timeline,
        reason,
    )


def listed_view(listed: TransferListed) -> TransferView:
    """One line of a list of transfers."""
    return transfer_view(listed.info, (), listed.info.at_us, "")


def _entry_view(entry: EntryInfo, code: str) -> EntryView:
    return EntryView(
        format_id(entry.id),
        entry.at_us,
        entry.effective_on,
        amount_text(entry.amount_minor, code),
        amount_text(entry.balance_minor, code),
        code,
        entry.memo,
        entry.counterparties,
        entry.seq,
    )


def _transfer_json(
    id: str, status: str, refusal: Refusal | None, legs: tuple[Leg, ...], code: str, at_us: int, reason: str
) -> Json:
    source = destination = amount = None
    if len(legs) == 2:
        debit, credit = sorted(legs, key=lambda leg: leg.amount_minor)
        source, destination, amount = debit.account, credit.account, amount_text(credit.amount_minor, code)
    return {
        "id": id,
        "status": status,
        "from": source,
        "to": destination,
        "amount": amount,
        "currency": code or None,
        "legs": [{"account": leg.account, "amount": amount_text(leg.amount_minor, code)} for leg in legs],
        "refusal": None if refusal is None else {"code": refusal.code, "detail": refusal.detail},
        "reason": reason or None,
        "participants": [],
        "timeline": [],
        "created_at": format_time(at_us) if at_us else None,
    }


def _participant_json(participant: ParticipantInfo) -> Json:
    return {
        "branch": participant.branch,
        "state": participant.state,
        "vote": participant.vote or None,
        "prepare_ms": None if participant.prepare_us < 0 else participant.prepare_us / 1000,
        "apply_ms": None if participant.apply_us < 0 else participant.apply_us / 1000,
    }
