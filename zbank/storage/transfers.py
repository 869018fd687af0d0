"""Lists of transfers, read from a branch's journal and its index of entries. Bounded: a long search goes on page by page."""

from __future__ import annotations

import re

from zbank.domain.legs import home_branch
from zbank.domain.refusal import Refusal
from zbank.errors import InvalidInput
from zbank.protocol.codec import decode_record
from zbank.protocol.fold import Row
from zbank.protocol.machine import fault_of
from zbank.protocol.messages import (
    ABORTED,
    COMMITTED,
    PENDING,
    Fault,
    ListTransfers,
    TransferInfo,
    TransferListed,
    TransfersPage,
)
from zbank.protocol.records import Content, Decided, Executed, Prepared, Redelivered, Refused
from zbank.storage.cursors import cursor_past
from zbank.storage.pages import Entry, Listed, Pages
from zbank.storage.sqlite import JournalStore

SCAN_ROWS = 2_000  #: of the journal, looked through for one page
PAGE_BYTES = 900_000  #: of transfers in one answer, which has to fit a frame

_CURSOR = re.compile(r"[1-9][0-9]{0,17}", re.ASCII)


def transfers_page(store: JournalStore, message: ListTransfers) -> TransfersPage | Fault:
    """A page of transfers, newest first."""
    if message.status not in ("", COMMITTED, ABORTED, PENDING):
        return Fault(code="malformed", detail=f"a list is of status committed, aborted or pending, not {message.status!r}")
    try:
        if message.number and message.status in ("", COMMITTED):
            return _of_account(store, message)
        return _of_journal(store, message)
    except InvalidInput as error:
        return fault_of(error)


def content_of(row: Row) -> Content | None:
    """What a journal row says of a transfer; None when it says nothing of one."""
    record = decode_record(row.body)
    return record.content if isinstance(record, Executed | Prepared | Decided | Redelivered | Refused) else None


def _of_journal(store: JournalStore, message: ListTransfers) -> TransfersPage:
    """By looking through the newest rows before the cursor."""
    if message.cursor and _CURSOR.fullmatch(message.cursor) is None:
        raise InvalidInput(f"{message.cursor!r} is no cursor of a page of transfers: begin with the first page")
    first, end = store.pages.span(message.from_us, message.until_us)
    if message.cursor:
        end = min(end, int(message.cursor))
    start = max(first, end - SCAN_ROWS)
    page = _Page(store.identity.name, message)
    for listed in store.pages.transfers(start, end):
        if page.is_full:
            return page.answer(page.found[-1].cursor)
        page.take(listed)
    return page.answer(str(start) if start > first else "")


def _of_account(store: JournalStore, message: ListTransfers) -> TransfersPage:
    """By the index of the account's entries: what is committed alone."""
    entries, cursor = store.pages.entries(
        message.number,
        newest_first=True,
        cursor=message.cursor,
        limit=message.limit,
        from_us=message.from_us,
        until_us=message.until_us,
    )
    page = _Page(store.identity.name, message)
    for entry in entries:
        if page.is_full:
            return page.answer(page.found[-1].cursor)
        page.take_entry(store.pages, entry)
    return page.answer(cursor_past(entries[-1][0].seq) if cursor else "")


class _Page:
    """A page while it is filled."""

    def __init__(self, branch: str, message: ListTransfers) -> None:
        self._branch = branch
        self._message = message
        self._room_bytes = PAGE_BYTES
        self.found: list[TransferListed] = []

    @property
    def is_full(self) -> bool:
        """No more fits."""
        return len(self.found) >= self._message.limit or self._room_bytes < 0

    def take(self, listed: Listed) -> None:
        """Add what a row settled or left open, if it is asked for."""
        content = content_of(listed.source)
        status = listed.settled.outcome if listed.settled else PENDING
        if content is not None and self._message.status in ("", status) and self._fits(content):
            self._add(str(listed.seq), _info(listed, content, status), listed.source)

    def take_entry(self, pages: Pages, entry: Entry) -> None:
        """Add what an entry was posted by; several of one transfer count once."""
        row, at_us, id, source = entry
        if self.found and self.found[-1].info.id == id:
            return
        content, settled = content_of(source), pages.settled(id)
        if content is not None and settled is not None and self._fits(content):
            info = _info(Listed(row.seq, at_us, settled, source), content, COMMITTED)
            self._add(cursor_past(row.seq), info, source)

    def answer(self, cursor: str) -> TransfersPage:
        """The page; `cursor` of the next one."""
        return TransfersPage(tuple(self.found), cursor)

    def _fits(self, content: Content) -> bool:
        if self._message.is_home and home_branch(content.legs) != self._branch:
            return False
        number = self._message.number
        return not number or any(leg.number == number and leg.branch == self._branch for leg in content.legs)

    def _add(self, cursor: str, info: TransferInfo, source: Row) -> None:
        refusal_bytes = 4 * len(info.refusal.detail) if info.refusal else 0  # often in another row than the content
        self._room_bytes -= 300 + len(source.body) + refusal_bytes
        self.found.append(TransferListed(cursor, info))


def _info(listed: Listed, content: Content, status: str) -> TransferInfo:
    settled = listed.settled
    txn = settled.txn if settled else None
    record = None if settled else decode_record(listed.source.body)
    if isinstance(record, Prepared):
        txn = record.txn
    return TransferInfo(
        id=settled.id if settled else listed.source.id or b"",
        status=status,
        refusal=Refusal(settled.code, settled.detail) if settled and status == ABORTED else None,
        legs=content.legs,
        currency=content.currency,
        memo=content.memo,
        effective_on=content.effective_on,
        number=settled.number if settled else 0,
        at_us=listed.at_us,
        txn=txn,
        participants=(),
        timeline=(),
    )
