"""The chain of a journal, row by row, and the checks over a whole store."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from zbank.errors import CorruptStore
from zbank.protocol.codec import chain_value
from zbank.protocol.fold import Row
from zbank.storage import sql

Query = Callable[..., list[tuple[Any, ...]]]


def checked(rows: Iterable[Row], seq: int, chain: bytes, where: str) -> Iterator[Row]:
    """The rows themselves, as long as each follows the one before, from row `seq` with value `chain` on.

    Raises CorruptStore naming the first row that does not.
    """
    epoch = at_us = 0
    for row in rows:
        seq += 1
        if row.seq != seq:
            raise CorruptStore(f"{where}: row {seq} of the journal is missing: restore a backup")
        if not _is_bound(row, chain):
            raise CorruptStore(f"{where}: row {seq} of the journal was changed, or one before it: restore a backup")
        if row.epoch < epoch or row.at_us < at_us:
            raise CorruptStore(f"{where}: epoch or time goes back at row {seq} of the journal: restore a backup")
        chain, epoch, at_us = row.chain, row.epoch, row.at_us
        yield row


def _is_bound(row: Row, chain: bytes) -> bool:
    """Whether a row's chain value is that of its content after the value `chain`."""
    try:
        return row.chain == chain_value(chain, row.epoch, row.seq, row.at_us, row.kind, row.id, row.body)
    except struct.error:  # a number or a length that no row of ours has
        return False


def check_tables(query: Query, where: str) -> None:
    """Raise CorruptStore unless the file is whole, no table points into nothing, and the books sum to zero."""
    for (finding,) in query("PRAGMA integrity_check(1)"):
        if finding != "ok":
            raise CorruptStore(f"{where} is damaged ({finding}): restore a backup")
    for table, parent, count in query(sql.FOREIGN_GAPS):
        raise CorruptStore(f"{where}: {count} rows of {table} point to missing rows of {parent}: restore a backup")
    check_sums(query, where)


def check_sums(query: Query, where: str) -> None:
    """Raise CorruptStore unless the posted balances sum to zero. About 0.2 s for a million accounts."""
    for currency, high, low in query(sql.TOTALS):
        total_minor = (high << 32) + low
        if total_minor != 0:
            raise CorruptStore(
                f"{where}: the balances in {currency} sum to {total_minor} minor units, not to zero: restore a backup"
            )
