"""Posting: at any points the same tables; what is read back is what was posted."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.storage.support import (
    SmallBank,
    account_of,
    id_of,
    next_rows,
    opened,
    posting_of,
    tables,
)
from zbank.domain.account import Account
from zbank.errors import CorruptStore, StoreError
from zbank.protocol.fold import EntryRow, Settled
from zbank.protocol.messages import Txn
from zbank.storage.sqlite import JournalStore


def _run(store: JournalStore, seed: int, steps: int, post_at: set[int]) -> SmallBank:
    bank = SmallBank(seed)
    for row in next_rows(store, steps):
        store.append([row])
        bank.apply(row)
        if row.seq in post_at or row.seq == steps:
            store.post(bank.posting(row.seq))
    return bank


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32), post_at=st.sets(st.integers(1, 40)))
def test_posting_anywhere_gives_the_tables_of_posting_once(seed: int, post_at: set[int]) -> None:
    found = []
    for points in (post_at, set[int]()):
        with tempfile.TemporaryDirectory() as directory, opened(Path(directory) / "a.db") as store:
            bank = _run(store, seed, 40, points)
            assert store.verify() == 40
            assert [row.seq for row in store.open_rows()] == sorted(bank.open.values())
            balances = {account.number: account.balance_minor for account in store.pages.accounts("", 100)}
            assert balances == {number: amount for number, amount in bank.balances.items() if number in balances}
            found.append(tables(store))
    assert found[0] == found[1]


def test_a_transfer_prepared_before_and_committed_after_a_posting(tmp_path: Path) -> None:
    with opened(tmp_path / "a.db") as store:
        rows = next_rows(store, 4)
        store.append(rows)
        store.post(posting_of(4, opened=[(rows[1].id, 2), (rows[3].id, 4)]))
        assert store.open_rows() == [rows[1], rows[3]]
        assert store.pages.open_row(id_of(2)) == rows[1]
        assert store.pages.open_row(id_of(1)) is None
        # Closed and begun anew under another txn in one go.
        rows += next_rows(store, 2)
        store.append(rows[4:])
        store.post(posting_of(6, closed=[rows[1].id, rows[3].id], opened=[(rows[3].id, 6)]))
        assert store.open_rows() == [rows[5]]
        assert (store.watermark, store.meta) == (6, b"meta")


def test_accounts_come_back(tmp_path: Path) -> None:
    with opened(tmp_path / "a.db") as store:
        store.append(next_rows(store, 1))
        extreme = Account("9", "Ürün 漢字", "JPY", "frozen", 2**63 - 1, -(2**63) + 1, 2**63 - 1, 2**63 - 1, 2**62)
        plain = account_of("1001", 2**63 - 1)
        store.post(posting_of(1, accounts=[extreme, plain]))
        assert sorted(store.load_accounts({"1001", "9", "none"}), key=lambda account: account.number) == [
            plain,
            extreme,
        ]
        assert store.load_accounts([]) == []
        changed = account_of("1001", -5)
        store.append(next_rows(store, 1))
        store.post(posting_of(2, accounts=[changed]))
        assert store.load_accounts(("1001",)) == [changed]


def test_accounts_page_by_page(tmp_path: Path) -> None:
    with opened(tmp_path / "a.db") as store:
        numbers = [f"{n:04d}" for n in range(1, 2500)]
        store.append(next_rows(store, 1))
        store.post(posting_of(1, accounts=[account_of(number) for number in reversed(numbers)]))
        seen: list[str] = []
        while page := store.pages.accounts(seen[-1] if seen else "", 1000):
            seen += [account.number for account in page]
        assert seen == numbers


def test_outcomes_come_back(tmp_path: Path) -> None:
    done = Settled(id_of(1), b"d" * 16, "caller", "committed", "", "", Txn("co-1-2", 3, 4), 7, 3, 2, 11)
    refused = Settled(id_of(2), b"", "", "aborted", "cancelled", "the sender cancelled it", None, 0, 3, 3, 12)
    with opened(tmp_path / "a.db") as store:
        store.append(next_rows(store, 3))
        store.post(posting_of(3, settled=[refused, done], ended=[(id_of(1), 3)]))
        assert sorted(store.load_settled([id_of(2), id_of(3), id_of(1)]), key=lambda one: one.id) == [done, refused]
        assert store.load_settled([]) == []
        assert (store.pages.settled(id_of(1)), store.pages.settled(id_of(3))) == (done, None)
        assert [store.pages.ended_seq(id_of(n)) for n in (1, 2, 3)] == [3, None, None]


def test_an_id_is_settled_once(tmp_path: Path) -> None:
    one = Settled(id_of(1), b"", "", "committed", "", "", None, 0, 1, 1, 1)
    with opened(tmp_path / "a.db") as store:
        store.append(next_rows(store, 1))
        store.post(posting_of(1, settled=[one], meta=b"first"))
        before = tables(store)
        with pytest.raises(StoreError, match="UNIQUE constraint failed: ids"):
            store.post(posting_of(1, settled=[one], meta=b"second"))
        assert tables(store) == before


def test_tombstones_come_back(tmp_path: Path) -> None:
    voided = [Txn("a", 1, n) for n in range(5)] + [Txn("a", 2, 3), Txn("b", 1, 2**62)]
    with opened(tmp_path / "a.db") as store:
        store.append(next_rows(store, 1))
        store.post(posting_of(1, tombstones=voided))
        store.post(posting_of(1, tombstones=voided[:2]))
        assert store.load_tombstones([*voided, Txn("a", 1, 9), Txn("b", 2, 3), Txn("c", 1, 1)]) == set(voided)
        assert store.load_tombstones({Txn("a", 2, 1)}) == set()
        assert store.load_tombstones(()) == set()


def test_the_audit_finds_books_that_do_not_sum_to_zero(tmp_path: Path) -> None:
    top = 2**63 - 1
    accounts = [account_of(f"{n}", balance) for n, balance in enumerate((top, top, -top, -top, 100, -100))]
    with opened(tmp_path / "a.db") as store:
        store.append(next_rows(store, 1))
        store.post(posting_of(1, accounts=accounts))
        assert store.verify() == 1
        store.post(posting_of(1, accounts=[account_of("4", 99)]))
        with pytest.raises(CorruptStore, match="balances in INR sum to -1 minor units, not to zero"):
            store.verify()


def test_the_audit_finds_entries_of_no_account_or_row(tmp_path: Path) -> None:
    with opened(tmp_path / "a.db") as store:
        store.append(next_rows(store, 1))
        store.post(posting_of(1, entries=[EntryRow("nobody", 1, 0, 5, 5, 1)]))
        with pytest.raises(CorruptStore, match="1 rows of entries point to missing rows of accounts"):
            store.verify()
