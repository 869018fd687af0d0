"""Rows by time: a search in a journal whose times never go back (PROTOCOL K1)."""

from __future__ import annotations

import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.storage.support import next_rows, opened
from zbank.protocol.messages import FAR_US

TIMES = st.lists(st.integers(1, 9), max_size=30).map(sorted)  # few values: many rows of one time


@settings(max_examples=30, deadline=None)
@given(times_us=TIMES)
def test_the_span_is_what_a_look_at_every_row_finds(times_us: list[int]) -> None:
    """For any two times, also of no row, reversed, and at the ends of time."""
    asked = [*range(12), FAR_US]
    with tempfile.TemporaryDirectory() as folder, opened(Path(folder) / "a.db") as store:
        rows = next_rows(store, len(times_us))
        store.append([row._replace(at_us=at_us) for row, at_us in zip(rows, times_us, strict=True)])
        for from_us in asked:
            for until_us in asked:
                first, end = store.pages.span(from_us, until_us)
                found = set(range(first, end))
                expected = {seq for seq, at_us in enumerate(times_us, start=1) if from_us <= at_us < until_us}
                if until_us == FAR_US:
                    expected |= {seq for seq, at_us in enumerate(times_us, start=1) if from_us <= at_us}
                assert found == expected, (from_us, until_us)
        assert store.pages.last_seq() == len(times_us)


def test_a_journal_without_rows(tmp_path: Path) -> None:
    with opened(tmp_path / "a.db") as store:
        assert store.pages.last_seq() == 0
        assert store.pages.span(0, FAR_US) == store.pages.span(5, 9) == (1, 1)
