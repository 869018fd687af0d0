"""What the tests of the store share: rows that chain, a small bank to post, and a disk that fails when told."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import apsw

from zbank.domain.account import OPEN, Account
from zbank.protocol.codec import chain_value
from zbank.protocol.fold import EntryRow, Posting, Row, Settled
from zbank.protocol.messages import Txn
from zbank.storage.sqlite import Identity, JournalStore

MUMBAI = Identity(cluster="demo", role="branch", name="Mumbai")
INSTANCE = bytes(range(16))
TABLES = ("actor", "posted", "journal", "ids", "accounts", "entries", "tombstones", "open_txns")


def open_store(path: Path, vfs: str = "", reserve_bytes: int = 0) -> JournalStore:
    """Mumbai's store, made when absent, without an office taken."""
    return JournalStore.open(path, MUMBAI, INSTANCE, vfs=vfs, reserve_bytes=reserve_bytes)


@contextmanager
def opened(path: Path, vfs: str = "", reserve_bytes: int = 0) -> Iterator[JournalStore]:
    """Mumbai's store in office, closed at the end whatever happens."""
    store = open_store(path, vfs, reserve_bytes)
    try:
        store.take_office()
        yield store
    finally:
        store.close()


def id_of(n: int) -> bytes:
    """The n-th id: 16 bytes, growing."""
    return n.to_bytes(16, "big")


def next_rows(store: JournalStore, count: int, body: bytes = b"body") -> list[Row]:
    """The next `count` rows after the store's last."""
    rows: list[Row] = []
    chain = store.chain
    for seq in range(store.seq + 1, store.seq + count + 1):
        parts = (store.epoch, seq, store.at_us + 1, "executed", id_of(seq), body)
        chain = chain_value(chain, *parts)
        rows.append(Row(seq, store.epoch, *parts[2:], chain))
    return rows


def account_of(number: str, balance_minor: int = 0) -> Account:
    """An open account in INR."""
    return Account(number, f"owner of {number}", "INR", OPEN, 0, balance_minor, 0, 0, 5)


def posting_of(seq: int, **lists: Any) -> Posting:
    """A posting as of row `seq` with only the lists that are given."""
    names = ("accounts", "entries", "settled", "tombstones", "opened", "closed", "ended")
    return Posting(seq, lists.pop("meta", b"meta"), **{name: lists.get(name, []) for name in names})


def tables(store: JournalStore) -> dict[str, list[tuple[Any, ...]]]:
    """Everything that the file holds."""
    return {name: store._connection.execute(f"SELECT * FROM {name}").fetchall() for name in TABLES}


class SmallBank:
    """A fold in miniature: each step is one row, and `posting` tells what changed since the posting before.

    Steps are local transfers, txns that open and close, voided txns, and endings, chosen by `seed`.
    """

    NUMBERS = tuple(f"{n}" for n in range(1000, 1012))

    def __init__(self, seed: int) -> None:
        self._chance = random.Random(seed)
        self.balances = dict.fromkeys(self.NUMBERS, 0)
        self.open: dict[bytes, int] = {}
        self._posted_open: set[bytes] = set()
        self._decided: list[bytes] = []
        self._clear()

    def _clear(self) -> None:
        self._touched: set[str] = set()
        self._entries: list[EntryRow] = []
        self._settled: list[Settled] = []
        self._tombstones: list[Txn] = []
        self._ended: list[tuple[bytes, int]] = []

    def apply(self, row: Row) -> None:
        """Fold one row."""
        assert row.id is not None
        kind = self._chance.choice(("transfer", "transfer", "open", "close", "void", "end"))
        txn = Txn("co-1", row.epoch, row.seq)
        if kind == "transfer":
            self._transfer(row, row.seq)
            self._settle(row.id, row, row.seq, None)
        elif kind == "open":
            self.open[row.id] = row.seq
        elif kind == "close" and self.open:
            id = self._chance.choice(sorted(self.open))
            source_seq = self.open.pop(id)
            self._transfer(row, source_seq)
            self._settle(id, row, source_seq, txn)
            self._decided.append(id)
        elif kind == "void":
            self._tombstones.append(txn)
        elif kind == "end" and self._decided:
            self._ended.append((self._decided.pop(), row.seq))

    def _transfer(self, row: Row, source_seq: int) -> None:
        amount_minor = self._chance.randint(1, 10**6)
        for leg, number in enumerate(self._chance.sample(self.NUMBERS, 2)):
            signed = amount_minor if leg else -amount_minor
            self.balances[number] += signed
            self._touched.add(number)
            self._entries.append(EntryRow(number, row.seq, leg, signed, self.balances[number], source_seq))

    def _settle(self, id: bytes, row: Row, source_seq: int, txn: Txn | None) -> None:
        self._settled.append(
            Settled(id, b"d" * 16, "caller", "committed", "", "", txn, row.seq, row.seq, source_seq, row.at_us)
        )

    def posting(self, seq: int) -> Posting:
        """What changed since the last posting, as of row `seq`."""
        posting = Posting(
            seq=seq,
            meta=f"state at {seq}".encode(),
            accounts=[account_of(number, self.balances[number]) for number in self._touched],
            entries=self._entries,
            settled=self._settled,
            tombstones=self._tombstones,
            opened=[(id, began) for id, began in self.open.items() if id not in self._posted_open],
            closed=[id for id in self._posted_open if id not in self.open],
            ended=self._ended,
        )
        self._posted_open = set(self.open)
        self._clear()
        return posting


class FailingDisk(apsw.VFS):
    """SQLite's own disk, but a chosen write to the WAL meets a full disk, or a chosen sync fails."""

    _names = itertools.count()

    def __init__(self) -> None:
        self.name = f"failing{next(self._names)}"
        self.full_after_writes: int | None = None  #: writes to the WAL that still succeed; None = all
        self.is_full_for_all = False  #: no file can be written
        self.write_error: type[apsw.Error] = apsw.FullError
        self.errno = 0
        self.fail_after_syncs: int | None = None  #: syncs of any file that still succeed; None = all
        super().__init__(self.name, base="")

    def xOpen(self, name: Any, flags: list[int]) -> apsw.VFSFile:
        return _FailingFile(self, name, flags)

    def xGetLastError(self) -> tuple[int, str | None]:
        return self.errno, None

    def heal(self) -> None:
        """From now on nothing fails."""
        self.full_after_writes = self.fail_after_syncs = None
        self.is_full_for_all = False


def _failure(error: apsw.Error, extended_result: int) -> apsw.Error:
    vars(error)["extendedresult"] = extended_result  # as the library does
    return error


class _FailingFile(apsw.VFSFile):
    def __init__(self, disk: FailingDisk, name: Any, flags: list[int]) -> None:
        self._disk = disk
        self._is_wal = bool(flags[0] & apsw.SQLITE_OPEN_WAL)
        super().__init__("", name, flags)

    def xWrite(self, data: Any, offset: int) -> None:
        if self._disk.is_full_for_all:
            raise apsw.FullError("the disk is full")
        if self._is_wal and self._disk.full_after_writes is not None:
            if self._disk.full_after_writes == 0:
                raise _failure(self._disk.write_error("the disk is full"), apsw.SQLITE_IOERR_WRITE)
            self._disk.full_after_writes -= 1
        super().xWrite(data, offset)

    def xSync(self, flags: int) -> None:
        if self._disk.fail_after_syncs is not None:
            if self._disk.fail_after_syncs == 0:
                raise _failure(apsw.IOError("the sync failed"), apsw.SQLITE_IOERR_FSYNC)
            self._disk.fail_after_syncs -= 1
        super().xSync(flags)
