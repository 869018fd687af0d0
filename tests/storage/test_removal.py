"""Removing a store: only the named actor's, only when nobody has it open, and all of it."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from zbank.errors import CorruptStore, ForeignStore, StoreError
from zbank.storage.opening import Identity
from zbank.storage.removal import find_stores, remove_store
from zbank.storage.sqlite import JournalStore

MUMBAI = Identity("demo", "branch", "Mumbai")


def make(path: Path, identity: Identity = MUMBAI) -> JournalStore:
    store = JournalStore.open(path, identity, b"i" * 16, reserve_bytes=1 << 20)
    store.take_office()
    return store


def files(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_all_files_of_the_store_go_and_no_others(tmp_path: Path) -> None:
    make(tmp_path / "Mumbai.db").close()
    (tmp_path / "Mumbai.db.backup").write_text("mine")
    (tmp_path / "Mumbai.db-wal").write_bytes(b"")
    make(tmp_path / "Delhi.db", Identity("demo", "branch", "Delhi")).close()
    delhi = {name for name in files(tmp_path) if name.startswith("Delhi")}
    assert remove_store(tmp_path / "Mumbai.db", MUMBAI)
    assert files(tmp_path) == {"Mumbai.db.backup", "Mumbai.db.lock"} | delhi
    with closing(make(tmp_path / "Mumbai.db")) as store:
        assert (store.epoch, store.seq) == (1, 0)


def test_whose_data_is_in_a_folder_is_told_and_nothing_touched(tmp_path: Path) -> None:
    """Of those that run too, and of those that were not closed."""
    replica = Identity("demo", "replica", "Mumbai")
    make(tmp_path / "Mumbai ?#.db").close()
    (tmp_path / "notes.db").write_text("mine, and no database at all")
    with closing(sqlite3.connect(tmp_path / "photos.db")) as other:
        other.execute("CREATE TABLE photos (name TEXT)")
        other.commit()
    with closing(make(tmp_path / "Mumbai-replica-1.db", replica)):
        before = files(tmp_path)
        assert find_stores(tmp_path) == {tmp_path / "Mumbai ?#.db": MUMBAI, tmp_path / "Mumbai-replica-1.db": replica}
        assert files(tmp_path) == before
    assert find_stores(tmp_path / "nowhere") == {}


def test_nothing_to_remove(tmp_path: Path) -> None:
    assert not remove_store(tmp_path / "nowhere" / "Mumbai.db", MUMBAI)
    assert not remove_store(tmp_path / "Mumbai.db", MUMBAI)
    assert files(tmp_path) == set()


def test_a_store_in_use_stays(tmp_path: Path) -> None:
    with closing(make(tmp_path / "Mumbai.db")) as store:
        before = files(tmp_path)
        with pytest.raises(StoreError, match="in use by another process"):
            remove_store(tmp_path / "Mumbai.db", MUMBAI)
        assert files(tmp_path) == before
        assert store.take_office() == 2


@pytest.mark.parametrize("other", [("demo", "branch", "Delhi"), ("lan", "branch", "Mumbai"), ("demo", "x", "Mumbai")])
def test_another_actors_store_stays(tmp_path: Path, other: tuple[str, str, str]) -> None:
    make(tmp_path / "Mumbai.db").close()
    with pytest.raises(ForeignStore, match="belongs to the branch Mumbai of cluster demo"):
        remove_store(tmp_path / "Mumbai.db", Identity(*other))
    make(tmp_path / "Mumbai.db").close()


def _foreign_database(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE photos (name TEXT)")
        connection.commit()


@pytest.mark.parametrize(
    ("write", "error"),
    [
        (_foreign_database, ForeignStore),
        (lambda path: path.write_text("not a database, but dear to somebody" * 100), CorruptStore),
        (lambda path: path.write_bytes(b""), ForeignStore),
    ],
    ids=["foreign", "garbage", "empty"],
)
def test_what_is_no_store_of_ours_stays(tmp_path: Path, write: Callable[[Path], None], error: type[StoreError]) -> None:
    path = tmp_path / "Mumbai.db"
    write(path)
    content = path.read_bytes()
    with pytest.raises(error, match="move it away"):
        remove_store(path, MUMBAI)
    assert path.read_bytes() == content
