"""Searching accounts: each that fits once, in order, whatever stands in the text, and never more work than allowed."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.storage.support import next_rows, opened, posting_of
from zbank.domain.account import Account
from zbank.storage import pages
from zbank.storage.sqlite import JournalStore

TEXTS = st.text("aAæÆ%_'\\ 01", max_size=4)
STATUSES = ("open", "frozen", "closed")


def account(number: str, owner: str, status: str = "open") -> Account:
    return Account(number, owner, "INR", status, 0, 0, 0, 0, 5)


def filled(store: JournalStore, accounts: list[Account]) -> None:
    store.append(next_rows(store, 1))
    store.post(posting_of(1, accounts=accounts))


def walked(store: JournalStore, limit: int, text: str, status: str) -> list[str]:
    """All pages, one after the other."""
    found: list[str] = []
    after = ""
    while True:
        page, following = store.pages.search(after, limit, text, status)
        assert len(page) <= limit
        found += [one.number for one in page]
        if not following:
            return found
        assert following > after
        after = following


@settings(max_examples=60, deadline=None)
@given(
    owners=st.lists(st.tuples(TEXTS, st.sampled_from(STATUSES)), max_size=25),
    text=TEXTS,
    status=st.sampled_from(("", *STATUSES)),
    limit=st.integers(1, 7),
    scanned=st.integers(1, 9),
)
def test_a_walk_finds_each_that_fits_once(
    owners: list[tuple[str, str]], text: str, status: str, limit: int, scanned: int
) -> None:
    accounts = [account(f"{'aA0'[n % 3]}{n:03}", owner, state) for n, (owner, state) in enumerate(owners)]
    wanted = text.casefold()
    fitting = [
        one.number
        for one in accounts
        if status in ("", one.status) and (wanted in one.owner.casefold() or one.number.casefold().startswith(wanted))
    ]
    with tempfile.TemporaryDirectory() as folder, opened(Path(folder) / "a.db") as store, pytest.MonkeyPatch.context() as patch:
        patch.setattr(pages, "SCANNED_ROWS", scanned)
        filled(store, accounts)
        assert walked(store, limit, text, status) == sorted(fitting)


def test_a_request_looks_at_so_many_and_says_where_to_go_on(tmp_path: Path) -> None:
    with opened(tmp_path / "a.db") as store:
        filled(store, [account(f"{n:05}", "Asha" if n == 5_999 else "") for n in range(6_000)])
        first, following = store.pages.search("", 10, "asha", "")
        assert (first, following) == ([], f"{pages.SCANNED_ROWS - 1:05}")
        second, following = store.pages.search(following, 10, "asha", "")
        assert ([one.number for one in second], following) == (["05999"], "")
