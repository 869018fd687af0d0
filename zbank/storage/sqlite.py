"""The journal store on SQLite: everything an actor must not forget is in this one file.

One connection writes. Every commit is forced to disk (WAL, synchronous=FULL) and carries the fence (PROTOCOL R5): it
counts only while this process is the last that took office and the journal stands where this process left it.
What a failed commit means is decided in one place, `_give_up`.
"""

from __future__ import annotations

import errno
from array import array
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from typing import Any, NoReturn, Self

import apsw
from msgspec.structs import astuple, replace

from zbank.domain.account import Account
from zbank.errors import CorruptStore, FenceLost, StorageFull, StoreError
from zbank.protocol.codec import GENESIS
from zbank.protocol.fold import Posting, Row, Settled
from zbank.protocol.messages import Txn
from zbank.storage import audit, sql
from zbank.storage.disk import NO_ROOM_ERRORS, DiskReserve, StoreLock
from zbank.storage.opening import Identity, close_untouched, open_database
from zbank.storage.pages import Pages

__all__ = ["Identity", "JournalStore"]

RESERVE_BYTES = 32 << 20  #: of disk, for finishing what is promised when it is full; more than a usual WAL
CHECKPOINT_PAGES = 4000  #: of 4 KiB in the WAL, after which they are written into the database
CHUNK_ROWS = 5000  #: of the journal, read at once: no reader holds the WAL for longer


class JournalStore:
    """Journal, ids and posted tables of one actor. Not thread-safe: it belongs to the actor's loop.

    After StorageFull it can be used on, and nothing of the batch is in it. After any other StoreError it is done with.
    """

    @classmethod
    def open(
        cls,
        path: Path,
        identity: Identity,
        new_instance: bytes,
        *,
        reserve_bytes: int = RESERVE_BYTES,
        vfs: str = "",
    ) -> Self:
        """The store in file `path`; file and directory are made when absent, then with the instance id `new_instance`
        (16 random bytes).

        `vfs` names a registered SQLite VFS, for simulated disks: then no lock and no reserve stand beside the file.
        Raises ForeignStore, CorruptStore, StorageFull; StoreError when it is in use or cannot be used.
        """
        if vfs:
            return cls(open_database(path, identity, new_instance, vfs), path, identity, None, None)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            lock = StoreLock(path)
        except OSError as error:
            fault = StorageFull if error.errno in NO_ROOM_ERRORS else StoreError
            raise fault(f"the data directory {path.parent} cannot be used: {error.strerror}") from error
        try:
            connection = open_database(path, identity, new_instance, vfs)
            try:
                return cls(connection, path, identity, lock, DiskReserve(path, reserve_bytes))
            except BaseException:
                close_untouched(connection)
                raise
        except BaseException:
            lock.release()
            raise

    def __init__(
        self,
        connection: apsw.Connection,
        path: Path,
        identity: Identity,
        lock: StoreLock | None,
        reserve: DiskReserve | None,
    ) -> None:
        """Use `open`."""
        self.path = path
        self.identity = identity
        self._connection = connection
        self._cursor = connection.cursor()
        self._lock = lock
        self._reserve = reserve
        self._usable = True
        self._wal_pages = 0
        self._checkpoint_at_pages = CHECKPOINT_PAGES
        connection.set_wal_hook(self._on_commit)
        self.instance: bytes  #: 16 random bytes, made with the file
        self.epoch: int  #: of the last office taken
        self.seq: int  #: of the last row, 0 when there is none
        self.chain: bytes  #: of the last row, GENESIS when there is none
        self.watermark: int  #: the row that the posted tables stand at
        self.meta: bytes  #: the actor's small state as posted, b"" at first
        self.pages = Pages(self._read)  #: what people read
        self._data_version = self._read(sql.DATA_VERSION)  # changes when another connection writes
        ((*_, self.instance, self.epoch, self.seq, self.chain),) = self._read(sql.ACTORS)
        ((self.watermark, self.meta),) = self._read(sql.POSTED)
        rows = self._rows(sql.LAST_ROW)
        last = rows[0] if rows else Row(0, 0, 0, "", None, b"", GENESIS)
        self.at_us: int = last.at_us  #: of the last row, 0 when there is none
        if (last.seq, last.chain) != (self.seq, self.chain) or self.watermark > self.seq:
            raise CorruptStore(
                f"{path}: the journal ends at row {last.seq}, not as recorded at row {self.seq}: restore a backup"
            )
        # What the WAL brought from an earlier process is written and forced anew: that process may have died of a
        # failed sync, after which the system's memory shows pages that the disk does not have.
        self._checkpoint(apsw.SQLITE_CHECKPOINT_TRUNCATE)

    # --- writing ------------------------------------------------------------------------------------------------------

    def take_office(self) -> int:
        """Begin the next epoch, forced; from here on every older process fails at its next commit. Returns the epoch.

        Raises as `append` does.
        """
        self._commit(self.epoch + 1, self.seq, self.chain, ())
        return self.epoch

    def become(self, role: str, row: Row) -> None:
        """A replica's store is that of whom it followed, a `role`, from this row on: both in one commit. Raises as `append`
        does."""
        self._commit(row.epoch, row.seq, row.chain, ((sql.APPEND, (row,)), (sql.SET_ROLE, [(role,)])))
        self.at_us = row.at_us
        self.identity = replace(self.identity, role=role)

    def append(self, rows: Sequence[Row]) -> None:
        """Write the rows in one commit and force it.

        Raises StorageFull after a verified rollback: nothing of the batch is in the file. Raises FenceLost when
        another process has taken office, StoreError for all else: what the file holds is not known, the process exits.
        """
        if not rows:
            return
        last = rows[-1]
        if rows[0].seq != self.seq + 1 or last.seq != self.seq + len(rows):
            raise ValueError(f"rows {rows[0].seq} to {last.seq} do not follow row {self.seq}")
        self._commit(last.epoch, last.seq, last.chain, ((sql.APPEND, rows),))  # a replica's epochs are its branch's
        self.at_us = last.at_us
        # Not after posting: two short stalls, with the batch between them, are better than a long one.
        if self._wal_pages >= self._checkpoint_at_pages:
            self._checkpoint(apsw.SQLITE_CHECKPOINT_PASSIVE)

    def post(self, posting: Posting) -> None:
        """Write what the fold changed up to the last row, in one commit with the watermark. Raises as `append` does."""
        if posting.seq != self.seq:
            raise ValueError(f"posting is as of row {posting.seq}, the journal ends at row {self.seq}")
        # In key order: neighbours share pages.
        writes: tuple[tuple[str, Sequence[tuple[Any, ...]]], ...] = (
            (sql.PUT_ACCOUNT, list(map(astuple, sorted(posting.accounts, key=attrgetter("number"))))),
            (sql.ADD_ENTRY, sorted(posting.entries)),
            (sql.ADD_SETTLED, sorted(map(sql.settled_columns, posting.settled), key=lambda columns: columns[0])),
            (sql.ADD_TOMBSTONE, sorted((txn.coordinator, txn.epoch, txn.n) for txn in posting.tombstones)),
            (sql.DROP_OPEN, [(id,) for id in sorted(posting.closed)]),
            (sql.PUT_OPEN, sorted(posting.opened)),
            (sql.SET_ENDED, [(seq, id) for id, seq in sorted(posting.ended)]),
            (sql.SET_POSTED, [(posting.seq, posting.meta)]),
        )
        self._commit(self.epoch, self.seq, self.chain, writes)
        self.watermark, self.meta = posting.seq, posting.meta

    def _commit(
        self, epoch: int, seq: int, chain: bytes, writes: Iterable[tuple[str, Sequence[tuple[Any, ...]]]]
    ) -> None:
        if not self._usable:
            raise StoreError(f"{self.path} failed before: stop this process and start it again")
        execute, executemany = self._cursor.execute, self._cursor.executemany
        try:
            execute("BEGIN IMMEDIATE")
            execute(sql.FENCE, (epoch, seq, chain, self.identity.name, self.epoch, self.seq))
            if self._connection.changes() != 1:
                raise self._fence_lost()
            for statement, rows in writes:
                if rows:
                    executemany(statement, rows)
            execute("COMMIT")
        except BaseException as error:
            self._give_up(error)
        self.epoch, self.seq, self.chain = epoch, seq, chain

    def _give_up(self, error: BaseException) -> NoReturn:
        """A commit failed. A full disk is survived when the file shows that nothing of it happened; nothing else is.

        A disk that fills while the WAL is written leaves no whole commit frame behind. That is not so when the sync
        fails or the WAL's index cannot grow: the commit may stand in the WAL, for the next start to find.
        """
        if self._is_full(error) and self._is_rolled_back():
            self._give_back_reserve()
            self._checkpoint(apsw.SQLITE_CHECKPOINT_TRUNCATE)
            raise StorageFull(
                f"the disk of {self.path} is full: nothing was written; free some room, work goes on by itself"
            ) from error
        self._usable = False
        with suppress(apsw.Error):
            if self._connection.in_transaction:
                self._cursor.execute("ROLLBACK")
        if isinstance(error, StoreError) or not isinstance(error, Exception):
            raise error
        raise StoreError(
            f"writing to {self.path} failed ({error}): what it holds is read again at the next start"
        ) from error

    def _is_full(self, error: BaseException) -> bool:
        if isinstance(error, apsw.FullError):
            return True
        if not isinstance(error, apsw.IOError) or getattr(error, "extendedresult", 0) != apsw.SQLITE_IOERR_WRITE:
            return False
        return self._connection.system_errno in (errno.ENOSPC, errno.EDQUOT)

    def _is_rolled_back(self) -> bool:
        try:
            if self._connection.in_transaction:
                self._cursor.execute("ROLLBACK")
            found = self._cursor.execute(sql.POSITION).fetchall()
        except apsw.Error:
            return False
        return found == [(self.epoch, self.seq, self.chain, self.seq or None, self.watermark)]

    def _on_commit(self, _connection: apsw.Connection, _database: str, pages: int) -> int:
        self._wal_pages = pages
        if pages < CHECKPOINT_PAGES:  # the WAL began anew
            self._checkpoint_at_pages = CHECKPOINT_PAGES
        return apsw.SQLITE_OK

    def _checkpoint(self, mode: int) -> None:
        """Write the WAL's pages into the database. What a full disk or a reader hinders is tried again later."""
        self._checkpoint_at_pages = self._wal_pages + CHECKPOINT_PAGES
        try:
            try:
                self._connection.wal_checkpoint(mode=mode)
            except apsw.FullError:
                self._give_back_reserve()
                self._connection.wal_checkpoint(mode=mode)
        except (apsw.FullError, apsw.BusyError):
            pass
        except apsw.Error as error:
            self._usable = False
            raise StoreError(f"writing to {self.path} failed ({error}): it is read again at the next start") from error

    def _give_back_reserve(self) -> None:
        if self._reserve is not None:
            self._reserve.give_back()

    # --- reading for the fold -----------------------------------------------------------------------------------------

    def replay(self) -> Iterator[Row]:
        """The rows after the watermark, in order. Raises CorruptStore at the first that the chain does not bear out."""
        before = self.row(self.watermark)
        if before is None and self.watermark > 0:
            raise CorruptStore(f"{self.path}: row {self.watermark} of the journal is missing: restore a backup")
        yield from audit.checked(
            self._rows_after(self.watermark), self.watermark, before.chain if before else GENESIS, str(self.path)
        )

    def open_rows(self) -> list[Row]:
        """The rows that began the txns open as of the watermark, in order."""
        return self._rows(sql.OPEN_ROWS)

    def load_accounts(self, numbers: Collection[str]) -> list[Account]:
        """The posted accounts among these; those not there are missing, and the order is any."""
        numbers = [number for number in numbers if "\0" not in number]  # carray takes none, and no account has one
        if not numbers:
            return []
        return [Account(*columns) for columns in self._load(sql.ACCOUNTS_OF, (apsw.carray(tuple(numbers)),))]

    def count_closed(self) -> int:
        """How many posted accounts are closed."""
        return int(self._load(sql.CLOSED_COUNT, ())[0][0])

    def load_settled(self, ids: Collection[bytes]) -> list[Settled]:
        """The posted outcomes among these; those not there are missing, and the order is any."""
        if not ids:
            return []
        return [sql.settled_from(columns) for columns in self._load(sql.SETTLED_OF, (apsw.carray(tuple(ids)),))]

    def load_tombstones(self, txns: Collection[Txn]) -> set[Txn]:
        """Those of the txns that were voided here, as posted. One query for each epoch of each coordinator."""
        found: set[Txn] = set()
        for (coordinator, epoch), group in groupby(sorted(txns), key=lambda txn: (txn.coordinator, txn.epoch)):
            numbers = apsw.carray(array("q", [txn.n for txn in group]))
            found.update(
                Txn(coordinator, epoch, n) for (n,) in self._load(sql.TOMBSTONES_OF, (coordinator, epoch, numbers))
            )
        return found

    def row(self, seq: int) -> Row | None:
        """One row of the journal."""
        found = self._rows(sql.ROW, (seq,))
        return found[0] if found else None

    # --- the whole ----------------------------------------------------------------------------------------------------

    def verify(self) -> int:
        """Check everything: the chain from the first row, the file, its references, that the books sum to zero.

        Returns the number of rows; raises CorruptStore naming the first bad one.
        """
        count = sum(1 for _ in audit.checked(self._rows_after(0), 0, GENESIS, str(self.path)))
        audit.check_tables(self._read, str(self.path))
        return count

    def check_sums(self) -> None:
        """Raise CorruptStore unless the posted balances sum to zero: the quick part of `verify`, for every start."""
        audit.check_sums(self._read, str(self.path))

    def has_room(self) -> bool:
        """May new work be accepted, or is the disk nearly full? Cheap enough for every turn."""
        return self._reserve is None or self._reserve.has_room()

    @property
    def journal_bytes(self) -> int:
        """Size of the database file and its WAL."""
        total = 0
        for path in (self.path, self.path.with_name(self.path.name + "-wal")):
            with suppress(FileNotFoundError):
                total += path.stat().st_size
        return total

    def close(self) -> None:
        """Close the file and let another process have it."""
        with suppress(apsw.Error):  # closed already; or no room to empty the WAL, which then stays for the next start
            if self._usable:
                self._connection.close(True)
            else:
                close_untouched(self._connection)
        self._usable = False
        if self._lock is not None:
            self._lock.release()

    def _rows_after(self, seq: int) -> Iterator[Row]:
        """The journal after row `seq`; raises CorruptStore when it ends before the row that the actor row names."""
        while rows := self._rows(sql.ROWS_AFTER, (seq, CHUNK_ROWS)):
            yield from rows
            seq = rows[-1].seq
        if seq != self.seq:
            raise CorruptStore(f"{self.path}: row {seq + 1} of the journal is missing: restore a backup")

    def _rows(self, statement: str, values: tuple[Any, ...] = ()) -> list[Row]:
        return [Row(*columns) for columns in self._read(statement, values)]

    def _load(self, statement: str, values: tuple[Any, ...]) -> list[tuple[Any, ...]]:
        """Read for the fold. Raises FenceLost when another process has written: its tables and this memory do not fit."""
        found = self._read(statement, values)
        if self._read(sql.DATA_VERSION) != self._data_version:
            self._usable = False
            raise self._fence_lost()
        return found

    def _fence_lost(self) -> FenceLost:
        return FenceLost(
            f"another process has taken the office of {self.identity} (epoch {self.epoch} is over): this one must stop"
        )

    def _read(self, statement: str, values: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
        try:
            return self._connection.execute(statement, values).fetchall()
        except (apsw.CorruptError, UnicodeDecodeError) as error:
            raise CorruptStore(f"{self.path} is damaged ({error}): restore a backup") from error
        except apsw.Error as error:
            raise StoreError(f"reading {self.path} failed ({error}): it is read again at the next start") from error
