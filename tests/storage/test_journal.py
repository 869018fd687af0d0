"""Appending, restart and the chain."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import apsw
import pytest

from tests.storage.support import INSTANCE, MUMBAI, id_of, next_rows, open_store, opened, posting_of
from zbank.errors import CorruptStore, StoreError
from zbank.protocol.codec import GENESIS, chain_value
from zbank.protocol.fold import Row
from zbank.storage.sqlite import JournalStore


def test_a_new_store(tmp_path: Path) -> None:
    path = tmp_path / "data" / "Mumbai" / "Mumbai.db"
    store = open_store(path)
    assert (store.identity, store.instance, store.path) == (MUMBAI, INSTANCE, path)
    assert (store.epoch, store.seq, store.chain, store.at_us) == (0, 0, GENESIS, 0)
    assert (store.watermark, store.meta, list(store.replay()), store.open_rows()) == (0, b"", [], [])
    assert store.verify() == 0
    store.close()
    store.close()


def test_rows_come_back_as_they_were_written(tmp_path: Path) -> None:
    with opened(tmp_path / "a.db") as store:
        first = next_rows(store, 3)
        store.append(first)
        chain = chain_value(store.chain, 1, 4, 2**62, "started", None, b"")
        strange = Row(4, 1, 2**62, "started", None, b"", chain)
        store.append([strange])
        store.append([])
        assert list(store.replay()) == [*first, strange]
        assert store.row(2) == first[1]
        assert store.row(5) is None
        assert (store.seq, store.chain, store.at_us) == (4, chain, 2**62)
        assert store.verify() == 4


def test_restart_continues_where_it_stopped(tmp_path: Path) -> None:
    with opened(tmp_path / "a.db") as store:
        rows = next_rows(store, 10)
        store.append(rows[:5])
        store.post(posting_of(5, meta=b"five"))
        store.append(rows[5:])
    store = JournalStore.open(tmp_path / "a.db", MUMBAI, b"x" * 16)
    assert store.instance == INSTANCE
    assert (store.epoch, store.seq, store.chain, store.at_us) == (1, 10, rows[-1].chain, rows[-1].at_us)
    assert (store.watermark, store.meta) == (5, b"five")
    assert list(store.replay()) == rows[5:]
    assert store.take_office() == 2
    store.close()


def test_rows_that_do_not_follow_are_refused(tmp_path: Path) -> None:
    with opened(tmp_path / "a.db") as store:
        rows = next_rows(store, 4)
        for wrong in (rows[1:], [rows[0], rows[2]]):
            with pytest.raises(ValueError, match="do not follow"):
                store.append(wrong)
        store.append(rows)
        with pytest.raises(ValueError, match="posting is as of row 3"):
            store.post(posting_of(3))
        assert list(store.replay()) == rows


def test_replay_in_many_chunks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zbank.storage.sqlite.CHUNK_ROWS", 7)
    with opened(tmp_path / "a.db") as store:
        rows = next_rows(store, 50)
        store.append(rows)
        assert list(store.replay()) == rows
        assert store.verify() == 50


def test_a_bad_row_stops_the_store(tmp_path: Path) -> None:
    with opened(tmp_path / "a.db") as store:
        (row,) = next_rows(store, 1)
        with pytest.raises(StoreError, match="CHECK constraint failed"):
            store.append([row._replace(chain=b"short")])
        with pytest.raises(StoreError, match="failed before"):
            store.append([row])


@pytest.mark.parametrize("statement", ["UPDATE journal SET body = x'00'", "DELETE FROM journal WHERE seq = 1"])
def test_the_journal_is_append_only(tmp_path: Path, statement: str) -> None:
    with opened(tmp_path / "a.db") as store:
        store.append(next_rows(store, 1))
        with pytest.raises(apsw.ConstraintError, match="never"):
            store._connection.execute(statement)


@pytest.mark.parametrize(
    "change",
    [
        "body = x'00'",
        "at_us = at_us + 1",
        "kind = 'other'",
        "id = NULL",
        "id = x''",
        "epoch = 7",
        "chain = zeroblob(32)",
    ],
)
def test_a_changed_row_is_found(tmp_path: Path, change: str) -> None:
    with opened(tmp_path / "a.db") as store:
        store.append(next_rows(store, 9))
        store._connection.execute(f"DROP TRIGGER journal_rows_never_change; UPDATE journal SET {change} WHERE seq = 4")
        with pytest.raises(CorruptStore, match="row 4 of the journal was changed"):
            store.verify()
        rows = store.replay()
        assert [next(rows).seq for _ in range(3)] == [1, 2, 3]
        with pytest.raises(CorruptStore, match="row 4 of the journal was changed"):
            next(rows)


def test_a_row_changed_with_its_chain_value_is_found_at_the_next(tmp_path: Path) -> None:
    with opened(tmp_path / "a.db") as store:
        rows = next_rows(store, 3)
        store.append(rows)
        chain = chain_value(rows[0].chain, 1, 2, rows[1].at_us, "executed", rows[1].id, b"forged")
        store._connection.execute("DROP TRIGGER journal_rows_never_change")
        store._connection.execute("UPDATE journal SET body = ?, chain = ? WHERE seq = 2", (b"forged", chain))
        with pytest.raises(CorruptStore, match="row 3 of the journal was changed, or one before it"):
            store.verify()


@pytest.mark.parametrize("gone", [1, 5, 9])
def test_a_missing_row_is_found(tmp_path: Path, gone: int) -> None:
    with opened(tmp_path / "a.db") as store:
        store.append(next_rows(store, 9))
        store._connection.execute(f"DROP TRIGGER journal_rows_stay; DELETE FROM journal WHERE seq = {gone}")
        with pytest.raises(CorruptStore, match=f"row {gone} of the journal is missing"):
            store.verify()
        with pytest.raises(CorruptStore, match=f"row {gone} of the journal is missing"):
            list(store.replay())


def test_a_cut_tail_is_found_at_start(tmp_path: Path) -> None:
    with opened(tmp_path / "a.db") as store:
        store.append(next_rows(store, 9))
        store._connection.execute("DROP TRIGGER journal_rows_stay; DELETE FROM journal WHERE seq = 9")
    with pytest.raises(CorruptStore, match="ends at row 8, not as recorded at row 9"):
        open_store(tmp_path / "a.db")


def test_time_and_epoch_never_go_back(tmp_path: Path) -> None:
    with opened(tmp_path / "a.db") as store:
        (first,) = next_rows(store, 1)
        store.append([first])
        parts = (1, 2, first.at_us - 1, "executed", id_of(2), b"")
        store.append([Row(2, 1, *parts[2:], chain_value(first.chain, *parts))])
        with pytest.raises(CorruptStore, match="epoch or time goes back at row 2"):
            store.verify()


_WRITER = """
import sys
from pathlib import Path
from tests.storage.support import next_rows, opened, posting_of
with opened(Path(sys.argv[1])) as store:
    while True:
        store.append(next_rows(store, 3))
        print(store.seq, flush=True)
        if store.seq % 30 == 0:
            store.post(posting_of(store.seq, meta=str(store.seq).encode()))
"""


def test_what_was_appended_survives_a_kill(tmp_path: Path) -> None:
    command = [sys.executable, "-c", _WRITER, str(tmp_path / "a.db")]
    told = 0
    for round in (1, 2):
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
            assert writer.stdout is not None
            try:
                for _ in range(50):
                    told = int(writer.stdout.readline())
            finally:
                writer.send_signal(signal.SIGKILL)
                rest = writer.stdout.read().split("\n")[:-1]
        told = int(rest[-1]) if rest else told
        store = open_store(tmp_path / "a.db")
        assert store.epoch == round
        assert told <= store.seq <= told + 3
        assert store.seq % 3 == 0
        assert store.meta == str(store.watermark).encode()
        assert store.verify() == store.seq
        assert len(list(store.replay())) == store.seq - store.watermark
        store.close()
