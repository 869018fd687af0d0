"""The state of a branch: the fold of its journal. `apply` is the only way it changes (DESIGN §1)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import msgspec

from zbank.domain.account import CLOSED, OPEN, Account
from zbank.domain.book import Book, Movement, branch_movements, net
from zbank.domain.legs import CLEARING, SUSPENSE, SYSTEM_NUMBERS
from zbank.errors import CorruptStore, ForeignStore
from zbank.protocol.branch_meta import BranchMeta, CoordinatorMark, PreparedTxn, Promotion, Retirement
from zbank.protocol.codec import decode_meta, decode_record
from zbank.protocol.fold import EntryRow, Posting, Row, Settled
from zbank.protocol.messages import ABORTED, COMMITTED, AckedBy, Txn
from zbank.protocol.records import (
    Aborted,
    AccountChanged,
    AccountOpened,
    AcksBy,
    Committed,
    Content,
    CoordinatorSeen,
    Executed,
    Prepared,
    Promoted,
    Reconciled,
    Record,
    Redelivered,
    Refused,
    Retired,
    Started,
)

FIRST_NUMBER = 1001
GIVEN_DIGITS = 17  #: numbers that a branch gives have at most so many; longer ones are of people's own choosing
ACCOUNTS_IN_MEMORY = 50_000
SETTLED_IN_MEMORY = 50_000


_encode_meta = msgspec.msgpack.Encoder().encode
_META = msgspec.msgpack.Decoder(BranchMeta)


class BranchState:
    """Accounts, promises and settled ids of one branch. What is not posted yet is pinned in memory (PROTOCOL T4)."""

    def __init__(self, name: str, currency: str) -> None:
        self.name = name
        self.book = Book(name, currency)
        self.epoch = 0
        self.seq = 0
        self.at_us = 0
        self.number = 0  #: Lamport clock of commits (C1)
        self.next_number = FIRST_NUMBER
        self.account_count = 0
        self.closed_count = 0  #: of these, closed ones
        self.retired: Retirement | None = None
        self.clearing_minor = 0
        self.customers_minor = 0  #: sum of all balances but the bank's own accounts
        self.total_minor = 0  #: sum of all balances: zero at every moment
        self.coordinators: dict[str, CoordinatorMark] = {}
        self.promotion: Promotion | None = None  #: not None = serves nobody
        self.acks: AckedBy | None = None  #: the last word on who holds its rows before anything leaves; None = never one
        self.suspense_minor = 0
        self.system: set[str] = set()  #: the bank's own accounts that there are
        self.prepared: dict[bytes, PreparedTxn] = {}
        self.settled: dict[bytes, Settled] = {}
        self.tombstones: set[Txn] = set()
        self._posted_seq = 0
        self._forget_changes()

    def restore(
        self,
        meta: bytes,
        watermark: int,
        epoch: int,
        at_us: int,
        open_rows: Iterable[Row],
        system: Iterable[Account],
        closed_count: int = 0,
    ) -> None:
        """Take the state as of the watermark; the tail is then applied row by row.

        `system`: the bank's own accounts that there are; `closed_count`: how many of all are closed.

        Raises ForeignStore when the data is in another currency, CorruptStore when it is damaged.
        """
        self._posted_seq = self.seq = watermark
        self.epoch = epoch
        self.at_us = at_us
        self.closed_count = closed_count
        for account in system:
            self.system.add(account.number)
            self.customers_minor -= account.balance_minor  # all balances sum to zero
            if account.number == CLEARING:
                self.clearing_minor = account.balance_minor
            elif account.number == SUSPENSE:
                self.suspense_minor = account.balance_minor
        if not meta and not watermark:  # nothing was ever posted
            return
        kept = decode_meta(_META, meta)
        self._check_currency(kept.currency)
        self.number = kept.number
        self.next_number = kept.next_number
        self.account_count = kept.account_count
        self.coordinators = kept.coordinators
        self.promotion = kept.promotion
        self.retired = kept.retired
        self.acks = kept.acks
        for row in open_rows:
            record = decode_record(row.body)
            if not isinstance(record, Prepared):
                raise CorruptStore(f"row {row.seq} of the journal stands as open and is {row.kind}: restore a backup")
            self._remember(record, row.seq)

    def _check_currency(self, code: str) -> None:
        if code != self.book.currency_code:
            raise ForeignStore(
                f"the data of branch {self.name} is in {code}, its configuration says {self.book.currency_code}: "
                "set currency back, or start with another data directory"
            )

    # --- apply -----------------------------------------------------------------------------------------------------

    def apply(self, seq: int, epoch: int, at_us: int, record: Record) -> None:
        """Fold one record. Raises ForeignStore when it is one of a branch in another currency."""
        self.seq = seq
        self.epoch = epoch
        self.at_us = at_us
        _APPLY[type(record)](self, record)

    def _started(self, record: Started) -> None:
        pass  # the row's epoch says it all

    def _account_opened(self, record: AccountOpened) -> None:
        self._check_currency(record.currency)  # of a replayed row: nothing may have been posted yet
        self.book.accounts[record.number] = Account(
            number=record.number,
            owner=record.owner,
            currency=record.currency,
            status=OPEN,
            overdraft_limit_minor=record.overdraft_limit_minor,
            balance_minor=0,
            held_minor=0,
            incoming_minor=0,
            opened_at_us=self.at_us,
        )
        self._changed.add(record.number)
        self.account_count += 1
        if record.number in SYSTEM_NUMBERS:
            self.system.add(record.number)
        if record.number.isdecimal() and len(record.number) <= GIVEN_DIGITS:
            self.next_number = max(self.next_number, int(record.number) + 1)
        if record.id:
            self._settle(record.id, record.digest, record.caller, COMMITTED, detail=record.number)

    def _account_changed(self, record: AccountChanged) -> None:
        account = self.book.accounts[record.number]
        self.closed_count += (record.status == CLOSED) - (account.status == CLOSED)
        account.status = record.status
        account.overdraft_limit_minor = record.overdraft_limit_minor
        self._changed.add(record.number)
        self._settle(record.id, record.digest, record.caller, COMMITTED, detail=record.number)

    def _executed(self, record: Executed) -> None:
        content = record.content
        self._post(branch_movements(content.legs, self.name), self.seq)
        self._settle(record.id, content.digest, content.caller, COMMITTED, number=record.number)

    def _refused(self, record: Refused) -> None:
        refusal = record.refusal
        self._settle(record.id, record.digest, record.caller, ABORTED, code=refusal.code, detail=refusal.detail)

    def _prepared(self, record: Prepared) -> None:
        txn = self._remember(record, self.seq)
        self.book.hold(txn.amounts)
        self._changed.update(txn.amounts)
        self._opened[record.id] = self.seq
        self._see(record.txn.coordinator, record.txn.epoch, 0)

    def _committed(self, record: Committed) -> None:
        held = self._finish(record.id, record.txn)
        self._post(held.movements, held.seq)
        self._commit_of(record.id, record.txn, record.number, held.content, held.seq)

    def _commit_of(self, id: bytes, txn: Txn, number: int, content: Content, source_seq: int) -> None:
        self.number = max(self.number, number)
        self._see(txn.coordinator, 0, number)
        self._settle(id, content.digest, content.caller, COMMITTED, txn=txn, number=number, source_seq=source_seq)

    def _aborted(self, record: Aborted) -> None:
        if record.txn not in self.tombstones:
            self.tombstones.add(record.txn)
            self._new_tombstones.append(record.txn)
        held = self.prepared.get(record.id)
        source_seq = self.seq
        if held is not None and held.txn == record.txn:
            source_seq = held.seq
            self._finish(record.id, record.txn)
        if record.refusal is not None:
            refusal = record.refusal
            self._settle(
                record.id,
                record.digest,
                record.caller,
                ABORTED,
                code=refusal.code,
                detail=refusal.detail,
                txn=record.txn,
                source_seq=source_seq,
            )

    def _coordinator_seen(self, record: CoordinatorSeen) -> None:
        self._see(record.name, record.epoch, 0)
        mark = self.coordinators[record.name]
        mark.word = max(mark.word, record.word)

    def _promoted(self, record: Promoted) -> None:
        unfinished = self.promotion  # of who was promoted before and is lost: what it had not been told is asked for anew
        self.promotion = Promotion(self.seq - 1 if unfinished is None else unfinished.seq, [])
        # Who acknowledged did so for its former self: it stands alone until another one is named.
        self.acks = AckedBy("", b"", 0 if self.acks is None else self.acks.generation)

    def _redelivered(self, record: Redelivered) -> None:
        held = self.prepared.get(record.id)
        if held is not None:  # by this txn, or by one that was given up before it
            self._finish(record.id, held.txn)
        self._post(redelivered_movements(record, self.name), self.seq)
        self._commit_of(record.id, record.txn, record.number, record.content, self.seq)

    def _reconciled(self, record: Reconciled) -> None:
        assert self.promotion is not None
        self.promotion.reconciled.append(record.coordinator)
        if record.is_last:
            self.promotion = None

    def _retired(self, record: Retired) -> None:
        self.retired = Retirement(record.by, self.at_us)

    def _acks_by(self, record: AcksBy) -> None:
        self.acks = record.acks

    def _remember(self, record: Prepared, seq: int) -> PreparedTxn:
        movements = branch_movements(record.content.legs, self.name)
        txn = PreparedTxn(
            id=record.id, txn=record.txn, content=record.content, movements=movements, amounts=net(movements), seq=seq
        )
        self.prepared[record.id] = txn
        return txn

    def _finish(self, id: bytes, txn: Txn) -> PreparedTxn:
        prepared = self.prepared.pop(id)
        assert prepared.txn == txn, f"{txn} ends what {prepared.txn} prepared"
        self.book.release(prepared.amounts)
        self._changed.update(prepared.amounts)
        if self._opened.pop(id, None) is None:
            self._closed.append(id)
        return prepared

    def _post(self, movements: list[Movement], source_seq: int) -> None:
        seq = self.seq
        for leg, (number, amount_minor, balance_minor) in enumerate(self.book.post(movements)):
            self.total_minor += amount_minor
            self._entries.append(EntryRow(number, seq, leg, amount_minor, balance_minor, source_seq))
            self._changed.add(number)
            if number == CLEARING:
                self.clearing_minor = balance_minor
            elif number == SUSPENSE:
                self.suspense_minor = balance_minor
            elif number not in SYSTEM_NUMBERS:
                self.customers_minor += amount_minor

    def _settle(
        self,
        id: bytes,
        digest: bytes,
        caller: str,
        outcome: str,
        *,
        code: str = "",
        detail: str = "",
        txn: Txn | None = None,
        number: int = 0,
        source_seq: int = 0,
    ) -> None:
        settled = Settled(
            id=id,
            digest=digest,
            caller=caller,
            outcome=outcome,
            code=code,
            detail=detail,
            txn=txn,
            number=number,
            seq=self.seq,
            source_seq=source_seq or self.seq,
            at_us=self.at_us,
        )
        self.settled[id] = settled
        self._new_settled.append(settled)

    def _see(self, name: str, epoch: int, number: int) -> None:
        mark = self.coordinators.get(name)
        if mark is None:
            self.coordinators[name] = CoordinatorMark(epoch=epoch, number=number)
            return
        mark.epoch = max(mark.epoch, epoch)
        mark.number = max(mark.number, number)

    # --- posting ---------------------------------------------------------------------------------------------------

    @property
    def unposted(self) -> int:
        """Rows applied since the last posting."""
        return self.seq - self._posted_seq

    def posting(self) -> Posting:
        """All that changed since the last posting (PROTOCOL T4)."""
        meta = BranchMeta(
            currency=self.book.currency_code,
            number=self.number,
            next_number=self.next_number,
            account_count=self.account_count,
            coordinators=self.coordinators,
            promotion=self.promotion,
            retired=self.retired,
            acks=self.acks,
        )
        return Posting(
            seq=self.seq,
            meta=_encode_meta(meta),
            accounts=[self.book.accounts[number] for number in sorted(self._changed)],
            entries=sorted(self._entries),
            settled=self._new_settled,
            tombstones=self._new_tombstones,
            opened=list(self._opened.items()),
            closed=self._closed,
            ended=[],
        )

    def posted(self) -> None:
        """The last posting is in the store."""
        self._posted_seq = self.seq
        self._forget_changes()
        self.settled.clear()
        self.tombstones.clear()

    def trim(self) -> None:
        """Keep what was only read within bounds; what is not posted yet stays."""
        self.book.trim(ACCOUNTS_IN_MEMORY, self._changed)
        if len(self.settled) > SETTLED_IN_MEMORY + len(self._new_settled):
            self.settled = {settled.id: settled for settled in self._new_settled}

    def _forget_changes(self) -> None:
        self._changed: set[str] = set()
        self._entries: list[EntryRow] = []
        self._new_settled: list[Settled] = []
        self._new_tombstones: list[Txn] = []
        self._opened: dict[bytes, int] = {}
        self._closed: list[bytes] = []


_APPLY: dict[type[Record], Callable[[BranchState, Any], None]] = {
    Started: BranchState._started,
    AccountOpened: BranchState._account_opened,
    AccountChanged: BranchState._account_changed,
    Executed: BranchState._executed,
    Refused: BranchState._refused,
    Prepared: BranchState._prepared,
    Committed: BranchState._committed,
    Aborted: BranchState._aborted,
    CoordinatorSeen: BranchState._coordinator_seen,
    Promoted: BranchState._promoted,
    Redelivered: BranchState._redelivered,
    Reconciled: BranchState._reconciled,
    Retired: BranchState._retired,
    AcksBy: BranchState._acks_by,
}


def redelivered_movements(record: Redelivered, branch: str) -> list[Movement]:
    """What a redelivered commit moves at a branch: an account that cannot bear its leg leaves it to `suspense`."""
    return [
        (SUSPENSE if number in record.suspended else number, amount_minor)
        for number, amount_minor in branch_movements(record.content.legs, branch)
    ]
