"""What happened to transfers, read from the journal: rows that are forced, each told as zero, one or two events."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from zbank.domain.legs import branches_of, home_branch
from zbank.protocol.codec import decode_record
from zbank.protocol.fold import Row
from zbank.protocol.messages import (
    ABORTED,
    APPLIED,
    BEGIN,
    COMMITTED,
    DECISION,
    RELEASED,
    VOTE,
    YES,
    Event,
    EventsPage,
    GetEvents,
)
from zbank.protocol.messages import REFUSED as REFUSED_VOTE
from zbank.protocol.records import (
    Aborted,
    Committed,
    Content,
    Decided,
    Executed,
    Prepared,
    Record,
    Redelivered,
    Refused,
)
from zbank.storage.sqlite import JournalStore

PAGE_BYTES = 900_000  #: of events in one answer, which has to fit a frame


def events_page(store: JournalStore, message: GetEvents) -> EventsPage:
    """The events of at most `limit` journal rows after a place."""
    last_seq = store.pages.last_seq()
    if message.after < 0 or message.after > last_seq:  # beyond the end: the journal is another one, or an older copy
        return EventsPage((), last_seq, True)
    events: list[Event] = []
    seq = message.after
    room_bytes = PAGE_BYTES
    for row in store.pages.journal(message.after, message.limit):
        told = _events(row, store.identity.name)
        room_bytes -= 200 + len(row.body) * (len(told) + 1)
        if room_bytes < 0 and events:
            break
        events += told
        seq = row.seq
    return EventsPage(tuple(events), seq, seq >= last_seq)


def _events(row: Row, name: str) -> list[Event]:
    record = decode_record(row.body)
    tell = _TELL.get(type(record))
    return [] if tell is None else tell(row, record, name)


def _event(row: Row, kind: str, id: bytes, content: Content | None = None, **more: Any) -> Event:
    if content is None:
        return Event(row.seq, row.at_us, kind, id, **more)
    said: dict[str, Any] = {"legs": content.legs, "currency": content.currency, "memo": content.memo}
    return Event(row.seq, row.at_us, kind, id, **said, **more)


def _executed(row: Row, record: Executed, name: str) -> list[Event]:
    return [_event(row, COMMITTED, record.id, record.content, number=record.number)]


def _refused(row: Row, record: Refused, name: str) -> list[Event]:
    content = record.content
    if content is None:  # a cancel, or what was no transfer
        return []
    event = _event(row, ABORTED, record.id, content, refusal=record.refusal)
    if len(branches_of(content.legs)) == 1:
        return [event]
    return [_event(row, VOTE, record.id, content, vote=REFUSED_VOTE), event]


def _prepared(row: Row, record: Prepared, name: str) -> list[Event]:
    content = record.content
    vote = _event(row, VOTE, record.id, content, txn=record.txn, vote=YES)
    if home_branch(content.legs) != name:
        return [vote]
    return [_event(row, BEGIN, record.id, content, txn=record.txn), vote]


def _committed(row: Row, record: Committed, name: str) -> list[Event]:
    return [_event(row, APPLIED, record.id, txn=record.txn, number=record.number)]


def _redelivered(row: Row, record: Redelivered, name: str) -> list[Event]:
    return [_event(row, APPLIED, record.id, record.content, txn=record.txn, number=record.number)]


def _aborted(row: Row, record: Aborted, name: str) -> list[Event]:
    kind = RELEASED if record.refusal is None else ABORTED
    return [_event(row, kind, record.id, txn=record.txn, refusal=record.refusal)]


def _decided(row: Row, record: Decided, name: str) -> list[Event]:
    return [_event(row, DECISION, record.id, record.content, txn=record.txn, number=record.number)]


_TELL: dict[type[Record], Callable[[Row, Any, str], list[Event]]] = {
    Executed: _executed,
    Refused: _refused,
    Prepared: _prepared,
    Committed: _committed,
    Redelivered: _redelivered,
    Aborted: _aborted,
    Decided: _decided,
}
