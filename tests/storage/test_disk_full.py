"""A full disk is survived, with nothing half done; a failed sync is not survived, and that is right."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import apsw
import pytest

from tests.storage.support import FailingDisk, SmallBank, next_rows, open_store, opened, posting_of, tables
from zbank.errors import StorageFull, StoreError
from zbank.protocol.fold import Row
from zbank.storage.disk import DiskReserve
from zbank.storage.sqlite import JournalStore

MANY_WRITES = 200
Work = Callable[[JournalStore], None]


@pytest.fixture
def disk() -> Iterator[FailingDisk]:
    disk = FailingDisk()
    yield disk
    disk.unregister()


def _append(store: JournalStore) -> None:
    store.append(next_rows(store, 40, os.urandom(500)))


def _post(store: JournalStore) -> None:
    bank = SmallBank(seed=3)
    for row in store.replay():
        bank.apply(row)
    store.post(bank.posting(store.seq))


def _take_office(store: JournalStore) -> None:
    store.take_office()


def _copy(tmp_path: Path, number: int) -> JournalStore:
    """The store as it would be found after a crash now: the file and the WAL, without the WAL's index."""
    target = tmp_path / f"copy{number}.db"
    for suffix in ("", "-wal"):
        target.with_name(target.name + suffix).write_bytes((tmp_path / f"a.db{suffix}").read_bytes())
    return open_store(target)


@pytest.mark.parametrize("work", [_append, _post, _take_office])
def test_full_at_every_write_of_a_commit(tmp_path: Path, disk: FailingDisk, work: Work) -> None:
    with opened(tmp_path / "a.db", disk.name) as store:
        store.append(next_rows(store, 40))
        before = tables(store)
        position = (store.epoch, store.seq, store.chain, store.at_us, store.watermark, store.meta)
        refused = 0
        for writes in range(MANY_WRITES):
            disk.full_after_writes = writes
            try:
                work(store)
                break
            except StorageFull:
                refused += 1
            assert (store.epoch, store.seq, store.chain, store.at_us, store.watermark, store.meta) == position
            assert tables(store) == before
            with closing(_copy(tmp_path, writes)) as crashed:
                assert tables(crashed) == before
        assert 2 < refused < MANY_WRITES
        disk.heal()
        _append(store)
        assert store.verify() == store.seq
    with opened(tmp_path / "a.db") as store:
        assert store.verify() == store.seq


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_quota_is_a_full_disk(tmp_path: Path, disk: FailingDisk, code: int) -> None:
    with opened(tmp_path / "a.db", disk.name) as store:
        disk.write_error, disk.errno, disk.full_after_writes = apsw.IOError, code, 2
        with pytest.raises(StorageFull, match="is full: nothing was written"):
            _append(store)
        disk.heal()
        _append(store)
        assert store.verify() == 40


def test_closing_on_a_full_disk_leaves_the_rest_to_the_next_start(tmp_path: Path, disk: FailingDisk) -> None:
    store = open_store(tmp_path / "a.db", disk.name)
    store.take_office()
    store.append(next_rows(store, 40))
    disk.full_after_writes = 0
    disk.is_full_for_all = True
    store.close()
    disk.heal()
    with opened(tmp_path / "a.db") as again:
        assert again.seq == 40


def test_any_other_failed_write_ends_the_process(tmp_path: Path, disk: FailingDisk) -> None:
    with opened(tmp_path / "a.db", disk.name) as store:
        disk.write_error, disk.errno, disk.full_after_writes = apsw.IOError, errno.EIO, 2
        with pytest.raises(StoreError, match="is read again at the next start") as failure:
            _append(store)
        assert not isinstance(failure.value, StorageFull)
        disk.heal()
        with pytest.raises(StoreError, match="failed before"):
            _append(store)


@pytest.mark.parametrize("work", [_append, _post, _take_office])
def test_a_failed_sync_ends_the_process(tmp_path: Path, disk: FailingDisk, work: Work) -> None:
    with opened(tmp_path / "a.db", disk.name) as store:
        store.append(next_rows(store, 40))
        seq = store.seq
        disk.fail_after_syncs = 0
        with pytest.raises(StoreError, match="the sync failed") as failure:
            work(store)
        assert not isinstance(failure.value, StorageFull)
        disk.heal()  # an fsync is never retried, though the next one would say yes
        with pytest.raises(StoreError, match="failed before"):
            store.append(next_rows(store, 1))
    with opened(tmp_path / "a.db") as store:
        assert store.seq in (seq, seq + 40)
        assert store.verify() == store.seq


def test_a_failed_sync_of_a_checkpoint_ends_the_process(
    tmp_path: Path, disk: FailingDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("zbank.storage.sqlite.CHECKPOINT_PAGES", 1)
    with opened(tmp_path / "a.db", disk.name) as store:
        disk.fail_after_syncs = 1  # that of the commit
        with pytest.raises(StoreError, match="the sync failed"):
            _append(store)
        disk.heal()
        with pytest.raises(StoreError, match="failed before"):
            _append(store)
    with opened(tmp_path / "a.db") as store:
        assert store.verify() == 40


def test_the_wal_stays_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zbank.storage.sqlite.CHECKPOINT_PAGES", 50)
    with opened(tmp_path / "a.db") as store:
        for _ in range(100):
            _append(store)
        assert (tmp_path / "a.db-wal").stat().st_size < 100 * 4200
        assert store.journal_bytes > 4000 * 500


def _fill(store: JournalStore) -> list[Row]:
    rows = next_rows(store, 100, os.urandom(2000))
    store.append(rows)
    return rows


def test_a_full_database_gives_back_the_reserve_and_goes_on(tmp_path: Path) -> None:
    reserve = tmp_path / "a.db.reserve"
    with opened(tmp_path / "a.db", reserve_bytes=1 << 20) as store:
        rows = _fill(store)
        assert reserve.stat().st_size == 1 << 20
        pages = store._connection.pragma("page_count")
        store._connection.pragma("max_page_count", pages)
        with pytest.raises(StorageFull):
            _fill(store)
        assert not reserve.exists()
        with pytest.raises(StorageFull):
            store.post(posting_of(100, opened=[(row.id, row.seq) for row in rows], meta=bytes(100_000)))
        assert (store.seq, store.watermark, store.open_rows()) == (100, 0, [])
        assert list(store.replay()) == rows
        store._connection.pragma("max_page_count", 2**32 - 2)
        assert store.has_room()
        assert reserve.stat().st_size == 1 << 20
        rows += _fill(store)
        store.post(posting_of(200, opened=[(row.id, row.seq) for row in rows]))
        assert store.open_rows() == rows
        assert store.verify() == 200


def test_room_is_asked_for_twice_the_reserve_once_it_was_given_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    free_bytes = 5000
    monkeypatch.setattr(DiskReserve, "free_bytes", lambda _self: free_bytes)
    reserve = DiskReserve(tmp_path / "a.db", 4096)
    file = tmp_path / "a.db.reserve"
    assert not reserve.has_room()
    assert not file.exists()
    free_bytes = 9000
    assert reserve.has_room()
    assert file.stat().st_size == 4096
    free_bytes = 4000
    assert not reserve.has_room()
    assert file.exists()  # kept for whoever is promised something
    free_bytes = 4096
    assert reserve.has_room()
    reserve.give_back()
    assert not file.exists()
    free_bytes = 8000
    assert not reserve.has_room()
    free_bytes = 8192
    assert reserve.has_room()
    assert DiskReserve(tmp_path / "a.db", 4096).has_room()


def test_a_reserve_that_does_not_fit_is_no_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_fd: int, _start: int, _size: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("zbank.storage.disk.os.posix_fallocate", full)
    assert not DiskReserve(tmp_path / "a.db", 4096).has_room()
    assert not (tmp_path / "a.db.reserve").exists()


def test_a_reserve_where_files_cannot_be_allocated_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr("zbank.storage.disk.os.posix_fallocate")
    size_bytes = (1 << 20) + 5
    assert DiskReserve(tmp_path / "a.db", size_bytes).has_room()
    assert (tmp_path / "a.db.reserve").stat().st_size == size_bytes


def test_a_reserve_in_a_lost_directory(tmp_path: Path) -> None:
    reserve = DiskReserve(tmp_path / "a.db", 4096)
    tmp_path.joinpath("a.db.reserve").unlink()
    tmp_path.rmdir()
    with pytest.raises(StoreError, match="disk reserve"):
        reserve.has_room()
    tmp_path.mkdir()
