"""Cursors of pages of entries: the row and the leg of the last entry shown."""

from __future__ import annotations

import re

from zbank.errors import InvalidInput
from zbank.protocol.fold import EntryRow

Place = tuple[int, int]  #: (seq, leg)

_CURSOR = re.compile(r"([1-9][0-9]{0,17})-([0-9]{1,9})", re.ASCII)
_FAR = 2**63 - 1


def cursor_after(entry: EntryRow) -> str:
    """The cursor of the page that goes on after this entry."""
    return f"{entry.seq}-{entry.leg}"


def cursor_past(seq: int) -> str:
    """The cursor of the page, newest first, that goes on with the rows before this one."""
    return f"{seq}-0"


def place_of(cursor: str, *, newest_first: bool) -> Place:
    """Where a page goes on: after this place, before it when the newest come first; "" is the first page.

    Raises InvalidInput for a cursor that is none.
    """
    if not cursor:
        return (_FAR, _FAR) if newest_first else (0, 0)
    match = _CURSOR.fullmatch(cursor)
    if match is None:
        raise InvalidInput(f"{cursor!r} is no cursor of a page of entries: begin with the first page")
    return int(match[1]), int(match[2])
