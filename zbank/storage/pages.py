"""What people read of a store: pages of accounts, entries and transfers, and single outcomes. All as of the watermark."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from zbank.domain.account import Account
from zbank.protocol.fold import EntryRow, Row, Settled
from zbank.protocol.messages import FAR_US
from zbank.storage import sql
from zbank.storage.cursors import cursor_after, place_of

SCANNED_ROWS = 5_000  #: of one request that searches: the actor does nothing else meanwhile
ABOVE_ALL_NUMBERS = "\x7f"  #: numbers are printable ASCII

Read = Callable[..., list[tuple[Any, ...]]]  #: runs a statement with its values

Entry = tuple[EntryRow, int, bytes, Row]  #: with the time, the id and the row that has its content


class Listed(NamedTuple):
    """A row that settled a transfer, or began one that is open."""

    seq: int
    at_us: int
    settled: Settled | None  #: None = it is open
    source: Row  #: with its content


class Pages:
    """Reads of one store."""

    def __init__(self, read: Read) -> None:
        self._read = read

    def accounts(self, after: str, limit: int) -> list[Account]:
        """At most `limit` posted accounts with numbers above `after`, by number."""
        return [Account(*columns) for columns in self._read(sql.ACCOUNTS_AFTER, (after, limit))]

    def search(self, after: str, limit: int, text: str, status: str) -> tuple[list[Account], str]:
        """At most `limit` posted accounts above `after` whose owner contains the text or whose number begins with it, and
        the number to go on after: "" when none is left to look at.

        At most SCANNED_ROWS accounts are looked at, so the page may be short and not the last.
        """
        last = self._read(sql.NUMBER_AFTER, (after, SCANNED_ROWS - 1))
        end = last[0][0] if last else ABOVE_ALL_NUMBERS
        values = (after, end, status, text.casefold(), limit)
        found = [Account(*columns) for columns in self._read(sql.ACCOUNTS_FOUND, values)]
        if len(found) == limit:
            return found, found[-1].number
        return found, end if last else ""

    def entries(
        self,
        number: str,
        *,
        newest_first: bool,
        cursor: str,
        limit: int,
        from_us: int = 0,
        until_us: int = FAR_US,
    ) -> tuple[list[Entry], str]:
        """At most `limit` posted entries of an account, and the cursor of the next page: "" when this was the last.

        With `cursor` "" the first page; only what was posted in `from_us <= at < until_us`. Raises InvalidInput for a
        cursor that is none.
        """
        seq, leg = place_of(cursor, newest_first=newest_first)
        statement = sql.ENTRIES_BACKWARD if newest_first else sql.ENTRIES_FORWARD
        span = self.span(from_us, until_us)
        found = self._read(statement, (number, seq, leg, *span, limit + 1))
        page = [(EntryRow(*columns[:6]), columns[6], columns[7], Row(*columns[8:])) for columns in found[:limit]]
        if len(found) <= limit:
            return page, ""
        return page, cursor_after(page[-1][0])

    def transfers(self, first: int, end: int) -> Iterator[Listed]:
        """What the journal's rows `first` to `end` - 1 settled or began and left open, newest first."""
        for seq, at_us, is_open, *columns in self._read(sql.TRANSFERS_BACKWARD, (first, end)):
            settled = None if is_open else sql.settled_from(tuple(columns[:11]))
            yield Listed(seq, at_us, settled, Row(*columns[11:]))

    def settled(self, id: bytes) -> Settled | None:
        """The posted outcome of an id."""
        found = self._read(sql.SETTLED, (id,))
        return sql.settled_from(found[0]) if found else None

    def ended_seq(self, id: bytes) -> int | None:
        """The row that ended the transfer at its coordinator, as posted."""
        found = self._read(sql.ENDED_SEQ, (id,))
        return found[0][0] if found else None

    def open_row(self, id: bytes) -> Row | None:
        """The row that began the txn of this id, when it was open as of the watermark."""
        found = self._read(sql.OPEN_ROW, (id,))
        return Row(*found[0]) if found else None

    def journal(self, after: int, limit: int) -> list[Row]:
        """At most `limit` rows of the journal after row `after`, in order."""
        return [Row(*columns) for columns in self._read(sql.ROWS_AFTER, (after, limit))]

    def last_seq(self) -> int:
        """The last row of the journal; 0 when there is none."""
        return int(self._read(sql.LAST_SEQ)[0][0])

    def span(self, from_us: int, until_us: int) -> tuple[int, int]:
        """The rows written at `from_us` or later and before `until_us`: the first, and the one after the last."""
        end = self.last_seq() + 1
        return self._first_at(from_us, end), self._first_at(until_us, end)

    def _first_at(self, at_us: int, end: int) -> int:
        """The first row at this time or later, `end` if there is none: the times of rows never go back (PROTOCOL K1)."""
        if at_us <= 0:
            return 1
        if at_us == FAR_US:
            return end
        low, high = 1, end
        while low < high:
            middle = (low + high) // 2
            if self._read(sql.AT_US, (middle,))[0][0] < at_us:
                low = middle + 1
            else:
                high = middle
        return low
