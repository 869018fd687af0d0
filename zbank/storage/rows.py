"""Rows of the journal for replicas (PROTOCOL R1)."""

from __future__ import annotations

from zbank.protocol.codec import GENESIS
from zbank.protocol.messages import GetRows, RowInfo, Rows
from zbank.storage.sqlite import JournalStore

PAGE_BYTES = 256 * 1024  #: of rows in one answer


def rows_page(store: JournalStore, message: GetRows, up_to: int, now_us: int = 0) -> Rows:
    """What stands after a row, up to another one, and the former's chain value: b"" when there is none. `now_us`: when it is
    sent, monotonic."""
    after = message.after
    if after == store.seq:
        return Rows(after, store.chain, (), store.epoch, store.seq, now_us)
    before = store.row(after) if after else None
    chain = GENESIS if after == 0 else b"" if before is None else before.chain
    rows: list[RowInfo] = []
    room_bytes = PAGE_BYTES
    for row in store.pages.journal(after, min(message.limit, max(0, up_to - after))) if chain else ():
        room_bytes -= 40 + len(row.body)
        if room_bytes < 0 and rows:
            break
        rows.append(RowInfo(row.epoch, row.at_us, row.kind, row.id, row.body))
    return Rows(after, chain, tuple(rows), store.epoch, min(store.seq, max(after, up_to)), now_us)
