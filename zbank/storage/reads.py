"""Reads of whole pages and of settled transfers, answered from the posted tables.

The turn posts before it asks here, so the tables are exact as of the force.
"""

from __future__ import annotations

from msgspec.structs import replace

from zbank.domain.legs import Leg
from zbank.domain.refusal import ACCOUNT_NOT_FOUND, Refusal
from zbank.errors import InvalidInput
from zbank.protocol.accounts import account_info
from zbank.protocol.codec import decode_record
from zbank.protocol.fold import EntryRow, Row
from zbank.protocol.machine import fault_of
from zbank.protocol.messages import (
    COMMITTED,
    PENDING,
    UNKNOWN,
    AccountsPage,
    AnyMessage,
    EntriesPage,
    EntryInfo,
    Fault,
    GetEntries,
    GetTransfer,
    ListAccounts,
    ListTransfers,
    ParticipantInfo,
    Phase,
    Read,
    TransferInfo,
)
from zbank.protocol.records import Decided, Ended, Ending, Prepared
from zbank.storage.cursors import cursor_after
from zbank.storage.sqlite import JournalStore
from zbank.storage.transfers import content_of, transfers_page

PAGE_BYTES = 900_000  #: of entries in one answer, which has to fit a frame


def answer_read(store: JournalStore, message: Read) -> AnyMessage:
    """The answer to a read of a page or of a transfer."""
    if isinstance(message, ListAccounts):
        return accounts_page(store, message)
    if isinstance(message, GetEntries):
        return entries_page(store, message)
    if isinstance(message, ListTransfers):
        return transfers_page(store, message)
    return transfer_info(store, message)


def accounts_page(store: JournalStore, message: ListAccounts) -> AccountsPage:
    """A page of accounts by number."""
    if message.search or message.status:
        accounts, following = store.pages.search(message.after, message.limit, message.search, message.status)
    else:
        accounts = store.pages.accounts(message.after, message.limit)
        following = accounts[-1].number if len(accounts) == message.limit else ""
    return AccountsPage(tuple(account_info(account) for account in accounts), following)


def entries_page(store: JournalStore, message: GetEntries) -> EntriesPage | Fault:
    """A page of a statement."""
    name = store.identity.name
    found = store.load_accounts([message.number])
    if not found:
        return Fault(code=ACCOUNT_NOT_FOUND, detail=f"there is no account {name}/{message.number}")
    try:
        rows, cursor = store.pages.entries(
            message.number,
            newest_first=message.newest_first,
            cursor=message.cursor,
            limit=message.limit,
            from_us=message.from_us,
            until_us=message.until_us,
        )
    except InvalidInput as error:
        return fault_of(error)
    own = f"{name}/{message.number}"
    entries: list[EntryInfo] = []
    room_bytes = PAGE_BYTES
    for row in rows:
        entry = _entry(own, *row)
        room_bytes -= _size_bytes(entry)
        if room_bytes < 0 and entries:
            cursor = cursor_after(rows[len(entries) - 1][0])
            break
        entries.append(entry)
    return EntriesPage(account_info(found[0]), tuple(entries), cursor)


def _size_bytes(entry: EntryInfo) -> int:
    """What an entry takes on the wire at the most: texts have up to 4 bytes a character, names are ASCII."""
    return 80 + 4 * len(entry.memo) + sum(len(account) + 3 for account in entry.counterparties)


def _entry(own: str, entry: EntryRow, at_us: int, id: bytes, source: Row) -> EntryInfo:
    content = content_of(source)
    counterparties: dict[str, None] = {}
    if content is not None:
        # Of the other side first: money from me went to those who were credited, and the other way round.
        for leg in content.legs:
            if leg.account != own and (leg.amount_minor > 0) != (entry.amount_minor > 0):
                counterparties[leg.account] = None
    return EntryInfo(
        seq=entry.seq,
        id=id,
        at_us=at_us,
        effective_on=content.effective_on if content else "",
        amount_minor=entry.amount_minor,
        balance_minor=entry.balance_minor,
        memo=content.memo if content else "",
        counterparties=tuple(counterparties),
    )


def transfer_info(store: JournalStore, message: GetTransfer) -> TransferInfo:
    """What the actor's own books say of an id."""
    name = store.identity.name
    settled = store.pages.settled(message.id)
    if settled is None:
        return _unsettled(store, message.id)
    source = store.row(settled.source_seq)
    content = content_of(source) if source else None
    info = TransferInfo(
        id=message.id,
        status=settled.outcome,
        refusal=None if settled.outcome == COMMITTED else Refusal(settled.code, settled.detail),
        legs=content.legs if content else (),
        currency=content.currency if content else "",
        memo=content.memo if content else "",
        effective_on=content.effective_on if content else "",
        number=settled.number,
        at_us=settled.at_us,
        txn=settled.txn,
        participants=(ParticipantInfo(name, settled.outcome, "", -1, -1),),
        timeline=(),
    )
    record = decode_record(source.body) if source else None
    if isinstance(record, Decided):
        return _with_phases(info, name, record, _ending(store, message.id))
    return info


def _unsettled(store: JournalStore, id: bytes) -> TransferInfo:
    name = store.identity.name
    row = store.pages.open_row(id)
    record = decode_record(row.body) if row else None
    if not isinstance(record, Prepared) or row is None:
        return TransferInfo(id, UNKNOWN, None, (), "", "", "", 0, 0, None, (), ())
    content = record.content
    legs: tuple[Leg, ...] = content.legs
    participants = (ParticipantInfo(name, "prepared", "yes", -1, -1),)
    memo, date = content.memo, content.effective_on
    return TransferInfo(id, PENDING, None, legs, content.currency, memo, date, 0, 0, record.txn, participants, ())


def _ending(store: JournalStore, id: bytes) -> Ending | None:
    """What the coordinator noted when all had acked; None while some have not."""
    seq = store.pages.ended_seq(id)
    row = store.row(seq) if seq is not None else None
    record = decode_record(row.body) if row else None
    if not isinstance(record, Ended):
        return None
    return next((ending for ending in record.endings if ending.id == id), None)


def _with_phases(info: TransferInfo, coordinator: str, decided: Decided, ending: Ending | None) -> TransferInfo:
    acks = {ack.branch: ack for ack in ending.acks} if ending else {}
    participants = []
    timeline = [Phase("prepare", vote.branch, 0, vote.voted_us) for vote in decided.votes]
    # Made at decided_us, on disk at forced_us: the line of no return. That is noted when all have acked, not before.
    forced_us = max(ending.forced_us, decided.decided_us) if ending else decided.decided_us
    timeline.append(Phase("decide", coordinator, decided.decided_us, forced_us))
    for vote in decided.votes:
        ack = acks.get(vote.branch)
        apply_us = -1
        if ack is not None and ack.acked_us >= 0:
            apply_us = ack.acked_us - decided.decided_us
            timeline.append(Phase("apply", vote.branch, forced_us, max(forced_us, ack.acked_us)))
        state = "committed" if ack is not None else "prepared"
        participants.append(ParticipantInfo(vote.branch, state, "yes", vote.voted_us, apply_us))
    return replace(info, participants=tuple(participants), timeline=tuple(timeline))
