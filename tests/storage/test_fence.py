"""Two processes with one store: the lock tells at start, the fence holds whatever the lock says (PROTOCOL R5)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.storage.support import next_rows, open_store, opened, posting_of, tables
from zbank.errors import FenceLost, StoreError
from zbank.storage.disk import StoreLock
from zbank.storage.sqlite import JournalStore


@pytest.fixture
def pair(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[JournalStore, JournalStore]]:
    """Two stores on one file, the lock out of order. The first is in office."""
    with ExitStack() as stack:
        monkeypatch.setattr("zbank.storage.disk.fcntl.flock", lambda _fd, _operation: None)
        first = stack.enter_context(opened(tmp_path / "a.db"))
        second = open_store(tmp_path / "a.db")
        stack.callback(second.close)
        yield first, second


def test_a_second_start_is_told(tmp_path: Path) -> None:
    with (
        opened(tmp_path / "a.db") as store,
        pytest.raises(StoreError, match=rf"in use by another process \(process id {os.getpid()}\)"),
    ):
        open_store(store.path)
    with opened(tmp_path / "a.db") as store:
        assert store.epoch == 2


def test_the_lock_goes_with_a_failed_start(tmp_path: Path) -> None:
    (tmp_path / "a.db").write_bytes(b"")
    with pytest.raises(StoreError, match="is empty"):
        open_store(tmp_path / "a.db")
    StoreLock(tmp_path / "a.db").release()


def test_the_older_office_cannot_append(pair: tuple[JournalStore, JournalStore]) -> None:
    old, new = pair
    rows = next_rows(old, 1)
    assert new.take_office() == 2
    before = tables(new)
    with pytest.raises(FenceLost, match=r"taken the office of branch Mumbai of cluster demo \(epoch 1 is over\)"):
        old.append(rows)
    assert tables(new) == before
    with pytest.raises(StoreError, match="failed before"):
        old.append(rows)
    new.append(next_rows(new, 1))
    assert new.verify() == 1


def test_the_older_office_loads_nothing_that_another_wrote(pair: tuple[JournalStore, JournalStore]) -> None:
    """Its memory and those tables are of different times: together they are no state that ever was."""
    old, new = pair
    new.take_office()
    with pytest.raises(FenceLost, match=r"epoch 1 is over"):
        old.load_accounts(["1001"])
    assert new.load_accounts(["1001"]) == []


def test_the_older_office_cannot_post(pair: tuple[JournalStore, JournalStore]) -> None:
    old, new = pair
    new.take_office()
    with pytest.raises(FenceLost):
        old.post(posting_of(0))
    assert new.meta == b""


def test_an_office_cannot_be_taken_from_old_knowledge(pair: tuple[JournalStore, JournalStore]) -> None:
    first, second = pair
    first.append(next_rows(first, 1))
    with pytest.raises(FenceLost):
        second.take_office()
    first.append(next_rows(first, 1))
    assert first.verify() == 2


def test_the_same_epoch_at_another_row_is_fenced_too(pair: tuple[JournalStore, JournalStore]) -> None:
    first, second = pair  # both say epoch 1: as two copies of one process would
    rows = next_rows(second, 1, b"other")
    first.append(next_rows(first, 1))
    with pytest.raises(FenceLost):
        second.append(rows)
    assert first.verify() == 1
