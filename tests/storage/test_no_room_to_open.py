"""Starting on a disk that is full: said as such, and the next start may find room."""

from __future__ import annotations

import errno
from pathlib import Path

import apsw
import pytest

from tests.storage.support import INSTANCE, MUMBAI, open_store, opened
from zbank.errors import StorageFull
from zbank.storage import opening, sqlite
from zbank.storage.sqlite import JournalStore


def test_no_room_for_the_index_of_the_wal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What SQLite says then is only "disk I/O error"."""
    with opened(tmp_path / "a.db"):
        pass

    def no_room(*_: object) -> None:
        error = apsw.IOError("disk I/O error")
        vars(error)["extendedresult"] = apsw.SQLITE_IOERR_SHMSIZE  # as the library does
        raise error

    monkeypatch.setattr(opening, "_set_up", no_room)
    with pytest.raises(StorageFull, match="no room on the disk to open"):
        open_store(tmp_path / "a.db")
    monkeypatch.undo()
    with opened(tmp_path / "a.db") as store:
        assert store.epoch == 2


def test_no_room_for_the_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_room(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(sqlite, "StoreLock", no_room)
    with pytest.raises(StorageFull, match="No space left on device"):
        JournalStore.open(tmp_path / "a.db", MUMBAI, INSTANCE, reserve_bytes=0)
