"""A page of a statement fits a frame, whatever the transfers on it were."""

from __future__ import annotations

from pathlib import Path

from tests.transport.actors import Desk
from tests.unit.protocol_support import CUSTOMER, id_of
from zbank.domain.legs import MAX_LEGS, MAX_MEMO_CHARS, MAX_NAME_CHARS, MAX_NUMBER_CHARS, Leg
from zbank.protocol.codec import MAX_FRAME_BYTES, encode_frames
from zbank.protocol.messages import BRANCH, EntriesPage, EntryInfo, GetEntries, OpenAccount, Transfer

PAYROLLS = 70  #: of 255 payees each with the longest names there are: 1.2 MB of counterparties
BRANCH_NAME = "B" * MAX_NAME_CHARS


def statement(desk: Desk, *, newest_first: bool) -> list[EntryInfo]:
    """All of the payer's entries, page by page, each page small enough."""
    entries: list[EntryInfo] = []
    cursor = ""
    while True:
        page = desk.ask(GetEntries("1001", newest_first, cursor, 1000))
        assert isinstance(page, EntriesPage)
        assert all(len(frame) <= MAX_FRAME_BYTES for frame in encode_frames([(1, page)]))
        entries += page.entries
        cursor = page.cursor
        if not cursor:
            return entries


def test_a_page_of_large_transfers_is_cut_to_what_a_frame_holds(tmp_path: Path) -> None:
    """The next page goes on where this one was cut: no entry is missing or twice, in either direction."""
    desk = Desk(BRANCH, BRANCH_NAME, tmp_path)
    try:
        payees = [str(n).zfill(MAX_NUMBER_CHARS) for n in range(MAX_LEGS - 1)]
        openings = [OpenAccount(id_of(1000 + n), number, "", "", 0) for n, number in enumerate(payees)]
        payer = OpenAccount(id_of(999), "1001", "", "", 10**9)
        desk.turn(*[(CUSTOMER, 1, opening) for opening in (payer, *openings)])
        credits = tuple(Leg(BRANCH_NAME, number, 1) for number in payees)
        legs = (Leg(BRANCH_NAME, "1001", 1 - MAX_LEGS), *credits)
        memo = "₹" * MAX_MEMO_CHARS
        desk.turn(*[(CUSTOMER, 1, Transfer(id_of(n), legs, "INR", memo)) for n in range(PAYROLLS)])
        forward = statement(desk, newest_first=False)
        assert [entry.id for entry in forward] == [id_of(n) for n in range(PAYROLLS)]
        assert statement(desk, newest_first=True) == forward[::-1]
    finally:
        desk.store.close()
