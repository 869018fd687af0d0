"""What an actor in a drill knows of one transfer, in words, and the journal rows about it. Reads only."""

from __future__ import annotations

from collections.abc import Iterator

from zbank.apps.drills.control import ForcedRow
from zbank.domain.legs import CLEARING
from zbank.domain.money import currency, format_amount
from zbank.protocol.attempts import ABORTING, COLLECTING, Attempt
from zbank.protocol.branch_state import BranchState
from zbank.protocol.codec import decode_record
from zbank.protocol.coordinator import Coordinator
from zbank.protocol.finishing import Finishing
from zbank.protocol.fold import Row, Settled
from zbank.protocol.machine import Machine
from zbank.protocol.messages import COMMITTED
from zbank.protocol.participant import Participant
from zbank.protocol.records import Aborted, Ended, Record
from zbank.storage.sqlite import JournalStore

MAX_ROWS_READ = 20_000  #: back from the end: a drill is short, but others may use the bank


def told_row(seq: int, epoch: int, kind: str, record: Record) -> ForcedRow:
    """A journal row as a drill shows it."""
    txn = getattr(record, "txn", None)
    return ForcedRow(seq, epoch, kind, "" if txn is None else str(txn))


def is_about(record: Record, id: bytes) -> bool:
    """The record says something of this transfer."""
    if isinstance(record, Ended):
        return any(ending.id == id for ending in record.endings)
    return getattr(record, "id", None) == id


def rows_about(store: JournalStore, id: bytes, since_seq: int) -> list[tuple[Row, Record]]:
    """The rows about a transfer after row `since_seq`, as they are on the disk."""
    found: list[tuple[Row, Record]] = []
    for seq in range(max(since_seq, store.seq - MAX_ROWS_READ) + 1, store.seq + 1):
        row = store.row(seq)
        if row is not None and (row.id == id or row.id is None):
            record = decode_record(row.body)
            if is_about(record, id):
                found.append((row, record))
    return found


def knowledge(machine: Machine, store: JournalStore, id: bytes, rows: list[tuple[Row, Record]]) -> list[str]:
    """What the actor knows of the transfer now, one fact a line; empty when it knows nothing."""
    if isinstance(machine, Coordinator):
        return list(_coordinator_knows(machine, store, id))
    assert isinstance(machine, Participant)
    return list(_branch_knows(machine.state, store, id, rows))


def _settled(known: dict[bytes, Settled], store: JournalStore, id: bytes) -> Settled | None:
    return known.get(id) or next(iter(store.load_settled([id])), None)


def _coordinator_knows(machine: Coordinator, store: JournalStore, id: bytes) -> Iterator[str]:
    running = machine.running(id)
    if isinstance(running, Attempt):
        missing = [branch for branch in running.branches if branch not in running.votes]
        votes = ", ".join(
            [*(f"yes from {branch}" for branch in running.votes), *(f"none from {name}" for name in missing)]
        )
        if running.phase == COLLECTING:
            yield f"collects votes for {running.txn}: {votes}"
        elif running.phase == ABORTING:
            yield f"refused; waits until {running.home} has that on disk"
        else:
            yield f"{running.txn} is void; the next attempt follows"
    elif isinstance(running, Finishing):
        decision = running.decision
        yield f"decided: commit, as number {decision.number}; no ack yet from {', '.join(running.unacked)}"
    else:
        settled = _settled(machine.state.settled, store, id)
        if settled is not None:
            yield f"committed as number {settled.number}, and every branch has acknowledged it"


def _branch_knows(state: BranchState, store: JournalStore, id: bytes, rows: list[tuple[Row, Record]]) -> Iterator[str]:
    held = state.prepared.get(id)
    money = currency(state.book.currency_code)
    if held is not None:
        yield f"has promised {held.txn}; does not know the decision"
        for number, amount_minor in held.amounts.items():
            if number == CLEARING:
                continue
            amount = format_amount(abs(amount_minor), money)
            if amount_minor < 0:
                yield f"{amount} of account {number} is held: nobody else can spend it"
            else:
                yield f"{amount} may come to account {number}; it is not there yet"
    settled = _settled(state.settled, store, id)
    if settled is not None and settled.outcome == COMMITTED:
        yield f"committed as number {settled.number}" if settled.number else "committed"
    elif settled is not None:
        yield f"aborted for good ({settled.code}): this id never executes"
    for _, record in rows:
        if isinstance(record, Aborted) and record.refusal is None:
            yield f"{record.txn} is void: it never executes"
