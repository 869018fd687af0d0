"""Files that are not ours, or not whole: a clear error, and not a byte of them changed."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from tests.storage.support import INSTANCE, next_rows, open_store, opened
from zbank.errors import CorruptStore, ForeignStore, StoreError
from zbank.storage.sqlite import Identity, JournalStore


def _make(path: Path, rows: int = 300) -> None:
    with opened(path) as store:
        store.append(next_rows(store, rows, bytes(500)))


@pytest.mark.parametrize(
    ("other", "named"),
    [
        (Identity("demo", "branch", "Delhi"), "the branch Delhi of cluster demo"),
        (Identity("other", "branch", "Mumbai"), "the branch Mumbai of cluster other"),
        (Identity("demo", "coordinator", "Mumbai"), "the coordinator Mumbai of cluster demo"),
    ],
)
def test_the_store_of_another_actor(tmp_path: Path, other: Identity, named: str) -> None:
    _make(tmp_path / "a.db")
    before = (tmp_path / "a.db").read_bytes()
    with pytest.raises(ForeignStore) as refusal:
        JournalStore.open(tmp_path / "a.db", other, INSTANCE, reserve_bytes=0)
    text = str(refusal.value)
    assert "belongs to the branch Mumbai of cluster demo" in text
    assert f"this process is {named}" in text
    assert "[cluster]" in text
    assert "--data" in text
    assert (tmp_path / "a.db").read_bytes() == before
    with opened(tmp_path / "a.db") as store:
        assert store.verify() == 300


def test_a_database_of_another_program(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "a.db")) as other:
        other.execute("CREATE TABLE notes (text)")
        other.commit()
    before = (tmp_path / "a.db").read_bytes()
    with pytest.raises(ForeignStore, match="database of another program"):
        open_store(tmp_path / "a.db")
    assert (tmp_path / "a.db").read_bytes() == before


def test_a_newer_format(tmp_path: Path) -> None:
    _make(tmp_path / "a.db")
    with closing(sqlite3.connect(tmp_path / "a.db")) as newer:
        newer.execute("PRAGMA user_version = 99")
    with pytest.raises(ForeignStore, match="has format 99, and this version of zbank reads format 1"):
        open_store(tmp_path / "a.db")


@pytest.mark.parametrize("content", [b"garbage" * 1000, b"x", b"SQLite format 3\0" + bytes(4080), b"\0" * 8192])
def test_garbage(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.db").write_bytes(content)
    with pytest.raises((CorruptStore, ForeignStore), match=r"restore a backup|another program"):
        open_store(tmp_path / "a.db")
    assert (tmp_path / "a.db").read_bytes() == content


def test_an_empty_file_is_damage_not_a_new_bank(tmp_path: Path) -> None:
    (tmp_path / "a.db").touch()
    with pytest.raises(CorruptStore, match="is empty or cut short: restore a backup"):
        open_store(tmp_path / "a.db")
    assert (tmp_path / "a.db").stat().st_size == 0


@pytest.mark.parametrize("size_bytes", [60, 100, 4096, 5000, 40960, 100_001])
def test_a_truncated_file(tmp_path: Path, size_bytes: int) -> None:
    _make(tmp_path / "a.db")
    whole = (tmp_path / "a.db").read_bytes()
    assert len(whole) > 120_000
    (tmp_path / "a.db").write_bytes(whole[:size_bytes])
    with pytest.raises(CorruptStore, match="restore a backup"):
        open_store(tmp_path / "a.db")


def test_damage_in_the_middle_is_found_by_the_audit(tmp_path: Path) -> None:
    _make(tmp_path / "a.db")
    content = bytearray((tmp_path / "a.db").read_bytes())
    content[80_000:80_300] = b"\xff" * 300
    (tmp_path / "a.db").write_bytes(content)
    store = open_store(tmp_path / "a.db")
    with pytest.raises(CorruptStore, match="restore a backup"):
        store.verify()
    store.close()


def test_a_wal_without_its_database(tmp_path: Path) -> None:
    (tmp_path / "a.db-wal").write_bytes(b"w" * 100)
    with pytest.raises(CorruptStore, match=r"is missing but its WAL a\.db-wal is there"):
        open_store(tmp_path / "a.db")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.db-wal", "a.db.lock"]


def test_what_a_crash_while_making_the_file_leaves(tmp_path: Path) -> None:
    (tmp_path / "a.db.new").write_bytes(b"half")
    (tmp_path / "a.db.new-journal").write_bytes(b"half")
    with opened(tmp_path / "a.db") as store:
        assert store.verify() == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.db", "a.db.lock", "a.db.reserve"]


def test_places_where_no_file_can_be(tmp_path: Path) -> None:
    (tmp_path / "directory.db").mkdir()
    with pytest.raises(StoreError, match="cannot be opened"):
        open_store(tmp_path / "directory.db")
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match=r"the data directory .*file cannot be used"):
        open_store(tmp_path / "file" / "a.db")


def test_the_settings_that_commits_rest_on(tmp_path: Path) -> None:
    with opened(tmp_path / "a.db") as store:
        pragma = store._connection.pragma
        found = [pragma(name) for name in ("journal_mode", "synchronous", "wal_autocheckpoint", "mmap_size")]
        assert found == ["wal", 2, 0, 0]
        assert -32 * 1024 <= pragma("cache_size") < 0


def test_a_setting_that_does_not_take(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zbank.storage.opening._PRAGMAS", (("synchronous", "OFF", 2),))
    with pytest.raises(StoreError, match="SQLite does not take synchronous = OFF here"):
        open_store(tmp_path / "a.db")
