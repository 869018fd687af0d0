"""What the journal store costs alone: rows a second by batch size, and how long a posting stalls the actor.

    python benchmarks/store.py append --rows 100000
    python benchmarks/store.py post --accounts 1000 1000000 --records 5000 --postings 10

Rows and postings look like those of local transfers between random accounts. Run it on the disk that the data will
be on (--directory): a commit costs one forced write there.
"""

from __future__ import annotations

import argparse
import os
import random
import resource
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import uuid_utils

from zbank.domain.account import OPEN, Account
from zbank.protocol.codec import chain_value
from zbank.protocol.fold import EntryRow, Posting, Row, Settled
from zbank.storage.sqlite import Identity, JournalStore

IDENTITY = Identity(cluster="bench", role="branch", name="Bench")
BODY_BYTES = 130  # as of a local transfer with two legs
BATCH_ROWS = 500


def make_rows(store: JournalStore, count: int) -> list[Row]:
    """The next `count` rows of the journal."""
    rows = []
    chain, at_us = store.chain, store.at_us + 1
    for seq in range(store.seq + 1, store.seq + count + 1):
        id, body = uuid_utils.uuid7().bytes, os.urandom(BODY_BYTES)
        chain = chain_value(chain, store.epoch, seq, at_us, "executed", id, body)
        rows.append(Row(seq, store.epoch, at_us, "executed", id, body, chain))
    return rows


def make_account(k: int, balance_minor: int) -> Account:
    """Account number `k` of the bench."""
    return Account(
        number=f"{k:08d}",
        owner=f"Owner {k}",
        currency="INR",
        status=OPEN,
        overdraft_limit_minor=0,
        balance_minor=balance_minor,
        held_minor=0,
        incoming_minor=0,
        opened_at_us=1,
    )


def make_posting(rows: Sequence[Row], accounts: int, chance: random.Random) -> Posting:
    """What posting `rows`, each a transfer between two of the accounts, writes."""
    touched: dict[int, Account] = {}
    entries, settled = [], []
    for row in rows:
        for leg, k in enumerate(chance.sample(range(accounts), 2)):
            account = touched.setdefault(k, make_account(k, 0))
            account.balance_minor += 1 - 2 * leg
            entries.append(EntryRow(account.number, row.seq, leg, 1 - 2 * leg, account.balance_minor, row.seq))
        assert row.id is not None
        settled.append(Settled(row.id, bytes(16), "", "committed", "", "", None, 0, row.seq, row.seq, row.at_us))
    return Posting(rows[-1].seq, b"", list(touched.values()), entries, settled, [], [], [], [])


def append(store: JournalStore, rows: Sequence[Row], batch: int) -> list[float]:
    """Seconds of each commit."""
    seconds = []
    for start in range(0, len(rows), batch):
        part = rows[start : start + batch]
        began = time.perf_counter()
        store.append(part)
        seconds.append(time.perf_counter() - began)
    return seconds


def report(label: str, count: int, seconds: Sequence[float]) -> None:
    """One line: rate, median, slowest."""
    ordered = sorted(seconds)
    print(
        f"{label:<34}{count / sum(ordered):>10,.0f} rows/s {ordered[len(ordered) // 2] * 1000:>9.3f} ms median"
        f"{ordered[-1] * 1000:>9.1f} ms slowest",
        flush=True,
    )


def bench_append(directory: Path, rows: int, batches: Sequence[int]) -> None:
    """Rows a second by batch size."""
    store = JournalStore.open(directory / "append.db", IDENTITY, os.urandom(16))
    store.take_office()
    for batch in batches:
        count = min(rows, 3000 * batch)
        report(f"append, {batch} rows a commit", count, append(store, make_rows(store, count), batch))
    store.close()


def bench_post(directory: Path, accounts: int, records: int, postings: int) -> None:
    """The stall of a posting, and the cost of a record with its share of posting."""
    store = JournalStore.open(directory / f"post{accounts}.db", IDENTITY, os.urandom(16))
    store.take_office()
    chance = random.Random(1)
    store.append(make_rows(store, 1))
    store.post(Posting(1, b"", [make_account(k, 0) for k in range(accounts)], [], [], [], [], [], []))
    commits: list[float] = []
    stalls: list[float] = []
    loads: list[float] = []
    for _ in range(postings):
        rows = make_rows(store, records)
        commits += append(store, rows, BATCH_ROWS)
        posting = make_posting(rows, accounts, chance)
        began = time.perf_counter()
        store.load_accounts([account.number for account in posting.accounts])
        loads.append((time.perf_counter() - began) / len(posting.accounts) * records)
        began = time.perf_counter()
        store.post(posting)
        stalls.append(time.perf_counter() - began)
    report(f"append, {accounts:,} accounts", records * postings, commits)
    report(f"post {records:,} rows, {accounts:,} accounts", records * postings, stalls)
    report("load one account a row, not cached", records * postings, loads)
    total = sum(commits) + sum(stalls)
    print(
        f"{'together':<34}{records * postings / total:>10,.0f} rows/s"
        f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:>9.0f} MiB peak of this process"
        f"{store.journal_bytes / 2**20:>9.0f} MiB file and WAL"
    )
    store.close()


def main() -> int:
    """Run what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--directory", type=Path, default=None, help="where to put the files (default: a temporary one)"
    )
    work = parser.add_subparsers(dest="work", required=True)
    appending = work.add_parser("append", help="rows a second by batch size")
    appending.add_argument("--rows", type=int, default=100_000)
    appending.add_argument("--batches", type=int, nargs="+", default=[1, 8, 64, 500])
    posting = work.add_parser("post", help="stall of a posting by number of accounts")
    posting.add_argument("--accounts", type=int, nargs="+", default=[1000, 1_000_000])
    posting.add_argument("--records", type=int, default=5000)
    posting.add_argument("--postings", type=int, default=10)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="zbank-bench-", dir=chosen.directory) as name:
        if chosen.work == "append":
            bench_append(Path(name), chosen.rows, chosen.batches)
        else:
            for accounts in chosen.accounts:
                bench_post(Path(name), accounts, chosen.records, chosen.postings)
    return 0


if __name__ == "__main__":
    sys.exit(main())
