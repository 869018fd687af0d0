"""Pages of an account's history."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.storage.support import account_of, next_rows, opened, posting_of
from zbank.errors import InvalidInput
from zbank.protocol.fold import EntryRow, Row
from zbank.storage.sqlite import JournalStore

ROWS = 6000
Line = tuple[EntryRow, int, bytes, Row]


def _post_entries(store: JournalStore, count: int) -> list[EntryRow]:
    """Append `count` rows; each posts two entries on 1001 with the content in the row before, and one on 1002 and 0999."""
    rows = next_rows(store, count)
    store.append(rows)
    entries = []
    for row in rows:
        source_seq = max(1, row.seq - 1)
        entries += [EntryRow("1001", row.seq, leg, 10 + leg, row.seq, source_seq) for leg in (0, 1)]
        entries += [EntryRow(number, row.seq, 2, -1, row.seq, row.seq) for number in ("1002", "0999")]
    accounts = [account_of(number) for number in ("0999", "1001", "1002")]
    store.post(posting_of(store.seq, entries=entries, accounts=accounts))
    return [entry for entry in entries if entry.number == "1001"]


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[JournalStore, list[EntryRow]]]:
    with opened(tmp_path_factory.mktemp("entries") / "a.db") as store:
        yield store, _post_entries(store, ROWS)


def _walk(store: JournalStore, newest_first: bool, limit: int) -> list[Line]:
    lines: list[Line] = []
    cursor = ""
    while True:
        page, cursor = store.pages.entries("1001", newest_first=newest_first, cursor=cursor, limit=limit)
        assert len(page) <= limit
        assert len(cursor) <= 64
        lines += page
        if not cursor:
            return lines
        assert len(page) == limit


@pytest.mark.parametrize("limit", [1000, 999, 2 * ROWS, 2 * ROWS - 1])
@pytest.mark.parametrize("newest_first", [False, True])
def test_all_pages_together_are_the_history(
    filled: tuple[JournalStore, list[EntryRow]], newest_first: bool, limit: int
) -> None:
    store, entries = filled
    lines = _walk(store, newest_first, limit)
    assert [line[0] for line in lines] == (entries[::-1] if newest_first else entries)


def test_a_line_has_time_id_and_content(filled: tuple[JournalStore, list[EntryRow]]) -> None:
    store, _ = filled
    page, _ = store.pages.entries("1001", newest_first=True, cursor="", limit=3)
    entry, at_us, id, source = page[2]
    row = store.row(ROWS - 1)
    assert row is not None
    assert entry == EntryRow("1001", ROWS - 1, 1, 11, ROWS - 1, ROWS - 2)
    assert (at_us, id) == (row.at_us, row.id)
    assert source == store.row(ROWS - 2)


def test_new_entries_do_not_disturb_a_reader(tmp_path: Path) -> None:
    with opened(tmp_path / "a.db") as store:
        entries = _post_entries(store, 10)
        backward, backward_cursor = store.pages.entries("1001", newest_first=True, cursor="", limit=5)
        forward, forward_cursor = store.pages.entries("1001", newest_first=False, cursor="", limit=5)
        entries_after = entries + _post_entries(store, 3)
        backward += store.pages.entries("1001", newest_first=True, cursor=backward_cursor, limit=100)[0]
        forward += store.pages.entries("1001", newest_first=False, cursor=forward_cursor, limit=100)[0]
        assert [line[0] for line in backward] == entries[::-1]
        assert [line[0] for line in forward] == entries_after


def test_an_account_without_entries(filled: tuple[JournalStore, list[EntryRow]]) -> None:
    assert filled[0].pages.entries("none", newest_first=True, cursor="", limit=10) == ([], "")


@pytest.mark.parametrize(
    "cursor", ["x", "1", "-1-2", "1-2-3", "0-1", "9" * 30 + "-1", "1-" + "9" * 30, "1-2 ", "\uff11-1", "\0"]
)
def test_a_cursor_not_from_here(filled: tuple[JournalStore, list[EntryRow]], cursor: str) -> None:
    with pytest.raises(InvalidInput, match="no cursor of a page of entries"):
        filled[0].pages.entries("1001", newest_first=True, cursor=cursor, limit=10)
