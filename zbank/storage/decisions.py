"""What a coordinator decided of which a promoted branch may lack its part (PROTOCOL R2).

The journal is looked through backwards. It need not be to its beginning: a vote that stands on a lost row was given after
all that stand on rows that the branch has. So when it was counted, every later decision whose vote the branch has was under
way already, and no more than MAX_IN_FLIGHT are. With more of them seen, nothing older can be missing; so with acks.
"""

from __future__ import annotations

from zbank.protocol.attempts import MAX_IN_FLIGHT
from zbank.protocol.codec import decode_record
from zbank.protocol.fold import Row
from zbank.protocol.messages import AnyMessage, GetDecisions, Look, Redeliver, Redelivering
from zbank.protocol.records import Decided, Ended
from zbank.storage.sqlite import JournalStore

ENOUGH = 2 * MAX_IN_FLIGHT
LOOK_ROWS = 2_000  #: looked through for one answer
LOOK_BYTES = 128 * 1024  #: of commits in one answer


def lost_decisions(store: JournalStore, message: GetDecisions) -> list[AnyMessage]:
    """Commits whose vote or ack stood on a row after the branch's last one, and where to go on. Post before."""
    look = message.look
    end = min(look.before, store.seq + 1)
    begin = max(1, end - LOOK_ROWS)
    votes, acks = look.votes, look.acks
    found: dict[bytes, Redeliver] = {}
    room_bytes = LOOK_BYTES
    for row in reversed(store.pages.journal(begin - 1, end - begin)):
        if room_bytes < 0:
            break
        for id, is_lost, is_vote in _parts(row, message):
            if not is_lost:
                votes, acks = votes + is_vote, acks + (not is_vote)
            elif id not in found:
                found[id] = _redeliver(_decided(store, id))
                room_bytes -= 200 + 80 * len(found[id].legs)
        end = row.seq
    is_done = end <= 1 or (votes > ENOUGH and acks > ENOUGH)
    return [*found.values(), Redelivering(len(found), None if is_done else Look(end, votes, acks), message)]


def _parts(row: Row, message: GetDecisions) -> list[tuple[bytes, bool, bool]]:
    """The branch's parts in a row: (the transfer, whether the branch lacks its part, whether that is a vote)."""
    if row.kind not in ("decided", "ended"):
        return []
    record = decode_record(row.body)
    if isinstance(record, Decided):
        return [(record.id, vote.seq > message.seq, True) for vote in record.votes if vote.branch == message.branch]
    assert isinstance(record, Ended)
    return [
        (ending.id, ack.seq > message.seq, False)
        for ending in record.endings
        for ack in ending.acks
        if ack.branch == message.branch
    ]


def _decided(store: JournalStore, id: bytes) -> Decided:
    settled = store.pages.settled(id)
    assert settled is not None, "it was decided"
    row = store.row(settled.source_seq)
    assert row is not None
    record = decode_record(row.body)
    assert isinstance(record, Decided)
    return record


def _redeliver(decided: Decided) -> Redeliver:
    content = decided.content
    return Redeliver(
        decided.txn,
        decided.id,
        decided.number,
        content.legs,
        content.currency,
        content.memo,
        content.effective_on,
        content.digest,
        content.caller,
    )
