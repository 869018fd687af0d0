"""What an actor may tell of its journal: events, lists of transfers, figures. A second reading of the same rows, written
apart from the first, that each answer is compared with: what it says at the moment it leaves, and what it leaves out when
it arrives and the question is known.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from zbank.domain.legs import Leg, branches_of, home_branch
from zbank.protocol.fold import Row
from zbank.protocol.messages import (
    ABORTED,
    COMMITTED,
    PENDING,
    AnyMessage,
    EntriesPage,
    Event,
    EventsPage,
    FiguresInfo,
    GetEntries,
    GetEvents,
    ListTransfers,
    TransferInfo,
    TransferListed,
    TransfersPage,
    Txn,
)
from zbank.protocol.records import (
    Aborted,
    AnyRecord,
    Committed,
    Content,
    Decided,
    Executed,
    Prepared,
    Refused,
)


class Question(NamedTuple):
    """What was asked, and when."""

    message: AnyMessage
    seq: int  #: rows that the actor had forced by then
    at_us: int


class Line(NamedTuple):
    """A transfer as a list shows it at a row."""

    info: TransferInfo
    home: str
    end_seq: int  #: of a pending one: the row that ended this; 0 = none did


class Chronicle:
    """One actor's journal as far as it is forced, and all that it says of transfers."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.rows: list[Row] = []
        self.events: list[tuple[Event, ...]] = []  #: of each row
        self.lines: dict[int, Line] = {}  #: by row: what was settled there, or began
        self.blind: set[bytes] = set()  #: ids of transfers that were settled and whose content nobody had said
        self.counts: Counter[str] = Counter()  #: rows of the newest epoch, by kind
        self._begun: dict[bytes, tuple[Prepared, int]] = {}

    @property
    def seq(self) -> int:
        """The last forced row."""
        return len(self.rows)

    # --- reading the journal -------------------------------------------------------------------------------------------

    def enter(self, row: Row, record: AnyRecord) -> None:
        """One more forced row."""
        if self.rows and row.epoch != self.rows[-1].epoch:
            self.counts.clear()
        self.counts[row.kind] += 1
        self.rows.append(row)
        self.events.append(tuple(self._happened(row, record)))
        self._list(row, record)

    def _happened(self, row: Row, record: AnyRecord) -> Iterator[Event]:
        """Who asked for what stands with the row that first knows it; later rows only name the transfer."""

        def event(kind: str, txn: Txn | None = None, content: Content | None = None, **more: object) -> Event:
            legs = content.legs if content else ()
            said = (legs, content.currency, content.memo) if content else ((), "", "")
            plain = Event(row.seq, row.at_us, kind, row.id or b"", txn, "", 0, None, *said)
            return Event(*(more.get(name, getattr(plain, name)) for name in Event.__struct_fields__))  # type: ignore[arg-type]

        match record:
            case Executed(content=content, number=number):
                yield event("committed", content=content, number=number)
            case Refused(content=Content() as content, refusal=refusal):
                if len(branches_of(content.legs)) > 1:
                    yield event("vote", content=content, vote="refused")
                yield event("aborted", content=content, refusal=refusal)
            case Prepared(content=content, txn=txn):
                if home_branch(content.legs) == self.name:
                    yield event("begin", txn, content)
                yield event("vote", txn, content, vote="yes")
            case Committed(txn=txn, number=number):
                yield event("applied", txn, number=number)
            case Aborted(txn=txn, refusal=None):
                yield event("released", txn)
            case Aborted(txn=txn, refusal=refusal):
                yield event("aborted", txn, refusal=refusal)
            case Decided(txn=txn, content=content, number=number):
                yield event("decision", txn, content, number=number)

    def _list(self, row: Row, record: AnyRecord) -> None:
        match record:
            case Executed(content=content, number=number):
                self._line(row, COMMITTED, content, number=number)
            case Refused(content=Content() as content, refusal=refusal):
                self._line(row, ABORTED, content, refusal=refusal)
            case Refused(id=id):
                self.blind.add(id)
            case Prepared(id=id, txn=txn, content=content):
                self._begun[id] = record, row.seq
                self._line(row, PENDING, content, txn=txn)
            case Committed(id=id, txn=txn, number=number):
                self._line(row, COMMITTED, self._ended(id, row.seq), txn=txn, number=number)
            case Aborted(id=id, txn=txn, refusal=refusal):
                begun = self._begun.get(id)
                ended = self._ended(id, row.seq) if begun is not None and begun[0].txn == txn else None
                if refusal is not None and ended is not None:
                    self._line(row, ABORTED, ended, txn=txn, refusal=refusal)
                elif refusal is not None:
                    self.blind.add(id)

    def _ended(self, id: bytes, seq: int) -> Content:
        prepared, began_seq = self._begun.pop(id)
        self.lines[began_seq] = self.lines[began_seq]._replace(end_seq=seq)
        return prepared.content

    def _line(self, row: Row, status: str, content: Content, **more: object) -> None:
        get = {"number": 0, "txn": None, "refusal": None} | more
        said = (content.legs, content.currency, content.memo, content.effective_on)
        times = (get["number"], row.at_us, get["txn"], (), ())
        info = TransferInfo(row.id or b"", status, get["refusal"], *said, *times)  # type: ignore[arg-type]
        self.lines[row.seq] = Line(info, home_branch(content.legs), 0)

    # --- what leaves ---------------------------------------------------------------------------------------------------

    def sent(self, message: AnyMessage, *, is_stale: bool) -> None:
        """This leaves the actor: all that it says is forced. `is_stale`: it may come from a process out of office."""
        match message:
            case EventsPage(events=events, seq=seq, is_last=is_last):
                for event in events:
                    known = self.events[event.seq - 1] if event.seq <= self.seq else ()
                    assert event in known, f"{self.name} tells {event}, and its journal has {known}"
                assert is_stale or seq == self.seq or not is_last, f"{self.name} ends at {seq}, forced is {self.seq}"
            case TransfersPage(transfers=transfers):
                for listed in transfers:
                    line = self.lines.get(_row_of(listed.cursor))
                    found = line.info if line else None
                    assert listed.info == found, f"{self.name} lists {listed.info}, and its journal has {found}"
                    assert is_stale or not line or not line.end_seq, f"{self.name} lists {line}, which is over"
            case FiguresInfo(counts=counts) if not is_stale:
                told = {one.name.removeprefix("rows "): one.count for one in counts if one.name.startswith("rows ")}
                assert told == self.counts, f"{self.name} counts {told}, forced are {dict(self.counts)}"

    # --- what arrives --------------------------------------------------------------------------------------------------

    def told(self, question: Question, answer: AnyMessage, *, is_stale: bool) -> list[str]:
        """An answer, now that it is known what was asked: nothing is left out, unless it may come from a process out of
        office. Gives what was met, for the counters.
        """
        match question.message, answer:
            case GetEvents() as asked, EventsPage():
                return self._told_events(asked, answer)
            case ListTransfers() as asked, TransfersPage():
                return self._told_transfers(asked, answer, question.seq, is_stale=is_stale)
            case GetEntries() as asked, EntriesPage():
                for entry in answer.entries:
                    assert asked.from_us <= entry.at_us < asked.until_us, f"{entry} is not of {asked}"
                    assert self.rows[entry.seq - 1].at_us == entry.at_us
        return []

    def _told_events(self, asked: GetEvents, page: EventsPage) -> list[str]:
        if asked.after < 0:
            assert not page.events, f"from now on, and told {page.events}"
            return ["events from now on"]
        if page.seq < asked.after:
            assert not page.events, f"{asked} is beyond the end, and is told {page}"
            return ["events after a row that there is not"]
        expected = [event for events in self.events[asked.after : page.seq] for event in events]
        assert list(page.events) == expected, f"{asked} of {self.name} is told {page.events}: it is {expected}"
        assert page.seq - asked.after <= asked.limit, f"{asked} is told more"
        assert page.is_last or page.seq > asked.after, f"{asked} gets nowhere"
        return ["events, all of them"] if page.is_last else ["events, and there are more"]

    def _told_transfers(self, asked: ListTransfers, page: TransfersPage, seq: int, *, is_stale: bool) -> list[str]:
        shown = [_row_of(listed.cursor) for listed in page.transfers]
        assert shown == sorted(set(shown), reverse=True), f"{asked} is told in the order {shown}"
        assert len(shown) <= asked.limit, f"{asked} is told {len(shown)}"
        top = _row_of(asked.cursor) if asked.cursor else max([seq, *shown]) + 1
        end = _row_of(page.cursor) if page.cursor else 1
        for place, line in self.lines.items():
            fits = self.fits(line, asked)
            must = end <= place < top and fits and not line.end_seq and not is_stale
            assert place in shown or not must, f"{asked} of {self.name} leaves out {line}"
            assert place not in shown or (fits and place < top), f"{asked} of {self.name} is told {line}"
        status = [f"a list with {status}" for status in {listed.info.status for listed in page.transfers}]
        more = "a page of transfers" if shown else "an empty page of transfers"
        return [*status, f"{more} that is not the last" if page.cursor else more]

    def fits(self, line: Line, asked: ListTransfers) -> bool:
        """Is this asked for?"""
        info = line.info
        status = asked.status or (COMMITTED if asked.number else "")
        return (
            status in ("", info.status)
            and asked.from_us <= info.at_us < asked.until_us
            and (not asked.is_home or line.home == self.name)
            and (not asked.number or any(self._is_on(leg, asked.number) for leg in info.legs))
        )

    def _is_on(self, leg: Leg, number: str) -> bool:
        return (leg.branch, leg.number) == (self.name, number)

    # --- at the end ----------------------------------------------------------------------------------------------------

    def is_all(self, asked: ListTransfers, pages: Sequence[TransferListed]) -> None:
        """All pages of a list together, when nothing is under way any more."""
        expected = [line.info for _, line in sorted(self.lines.items(), reverse=True) if self.fits(line, asked)]
        expected = [info for info in expected if info.status != PENDING]
        found = [listed.info for listed in pages]
        assert found == expected, f"{asked} of {self.name} comes to {found}: it is {expected}"


def _row_of(cursor: str) -> int:
    """The row that a cursor stands on: of the journal, or of an account's entries."""
    return int(cursor.partition("-")[0])
