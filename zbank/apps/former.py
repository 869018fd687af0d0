"""A branch whose place a replica took: it serves nobody any more, keeps what only it has, and rejoins as a replica."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Sequence
from pathlib import Path

import msgspec

from zbank.clock import format_time
from zbank.errors import StoreError, Superseded
from zbank.protocol.codec import decode_record
from zbank.protocol.fold import Row
from zbank.storage.sqlite import Identity, JournalStore

MARK_SUFFIX = ".superseded"  #: of a file beside the data file

log = logging.getLogger("zbank")


def mark_of(path: Path) -> Path:
    """What says that the data file is that of a former branch."""
    return path.with_name(path.name + MARK_SUFFIX)


def mark(path: Path, why: Superseded) -> None:
    """Never serve this file again, also after a restart: forced to disk before anything else is done."""
    with open(os.open(mark_of(path), os.O_WRONLY | os.O_CREAT, 0o600), "w", encoding="utf-8") as file:
        file.write(f"{why.detail}\nwhat {path.name} has beside the new branch is its own alone: see docs/replication.md\n")
        file.flush()
        os.fsync(file.fileno())
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


class FormerTail:
    """Finds the row after which a former branch's journal is another one than the new branch's, and saves the rest of it."""

    def __init__(self, former: Path, identity: Identity, followed: JournalStore) -> None:
        """`followed` is the store of the replica that follows the branch now. Raises StoreError."""
        self._path = former
        self._former = JournalStore.open(former, identity, bytes(16), reserve_bytes=0)
        self._followed = followed
        self._is_saved = False
        self.look(())

    def look(self, _rows: Sequence[Row]) -> None:
        """Rows were taken from the branch: do they differ from ours by now?"""
        last = min(self._former.seq, self._followed.seq)
        if self._is_saved or last == 0 or self._is_same(last):
            return
        same, other = 0, last
        while other - same > 1:
            middle = (same + other) // 2
            same, other = (middle, other) if self._is_same(middle) else (same, middle)
        try:
            self._save(same)
        except OSError as error:  # it follows all the same; and tries again when it is started again
            self._is_saved = True
            log.error("what %s alone has cannot be saved beside it: %s", self._path, error.strerror)

    def close(self) -> None:
        """Close the former branch's store."""
        self._former.close()

    def _is_same(self, seq: int) -> bool:
        mine, theirs = self._former.row(seq), self._followed.row(seq)
        return mine is not None and theirs is not None and mine.chain == theirs.chain

    def _save(self, seq: int) -> None:
        path = self._path.with_name(f"{self._path.stem}.diverged-after-{seq}.jsonl")
        draft = path.with_name(path.name + ".new")
        count = 0
        with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
            for row in self._former.pages.journal(seq, self._former.seq):
                count += 1
                file.write(_line(row))
            file.flush()
            os.fsync(file.fileno())
        draft.rename(path)
        self._is_saved = True
        log.warning("%d rows after row %d are of the former branch alone: they were saved to %s", count, seq, path)


def _line(row: Row) -> str:
    record = msgspec.to_builtins(decode_record(row.body), builtin_types=())
    shown = {
        "seq": row.seq,
        "epoch": row.epoch,
        "at": format_time(row.at_us),
        "kind": row.kind,
        "id": None if row.id is None else row.id.hex(),
        "record": record,
    }
    return json.dumps(shown) + "\n"


def log_superseded(path: Path, why: Superseded | None) -> None:
    """Say what this process is no more."""
    text = why.detail if why is not None else f"{mark_of(path)} says that a replica took this branch's place"
    log.error("superseded: %s; %s stays as it is, and this process follows the new branch as a replica", text, path)


def open_tail(path: Path, identity: Identity, followed: JournalStore) -> FormerTail | None:
    """The former branch's journal beside a replica's; None when it cannot be read: it stays where it is."""
    try:
        return FormerTail(path, identity, followed)
    except StoreError as error:
        log.error("the former branch's journal cannot be compared: %s", error)
        return None
