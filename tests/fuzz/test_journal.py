"""Whatever a disk makes of a journal: a record or CorruptStore; and a damaged file is never another exception."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import apsw
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.fuzz.memory import BYTES_A_BYTE, SMALL_CHANGE_BYTES, peak_of
from tests.fuzz.play import SCRATCH
from tests.fuzz.shapes import (
    RECORDS,
    any_record,
    broken_bodies,
    instances,
    msgpack_bodies,
    mutations,
    nested_bodies,
)
from tests.transport.actors import Desk, branch, pay
from tests.unit.protocol_support import BOSS, CUSTOMER, SECOND_US, from_branch, id_of, prepare, register, txn_of, yes
from zbank.domain.refusal import Refusal
from zbank.errors import CorruptStore, StoreError
from zbank.protocol.branch_state import BranchState
from zbank.protocol.codec import decode_record, encode_record
from zbank.protocol.coordinator_state import CoordinatorState
from zbank.protocol.machine import Sender
from zbank.protocol.messages import (
    BRANCH,
    COORDINATOR,
    Abort,
    Ack,
    AnyMessage,
    ChangeAccount,
    Commit,
    GetEntries,
    GetTransfer,
    Prepare,
    Registered,
)
from zbank.protocol.records import AnyRecord

many = settings(max_examples=250, deadline=None)


def record_or_corrupt(body: bytes) -> AnyRecord | None:
    """Decode; what was accepted is the same when it is written again."""
    try:
        record = decode_record(body)
    except CorruptStore:
        return None
    assert type(record) in RECORDS
    assert decode_record(encode_record(record)) == record
    return record


@many
@given(body=st.binary(max_size=200) | broken_bodies | msgpack_bodies | nested_bodies)
@example(body=b"\x93\xa7started\xa1v" + b"\x91" * 2_000)  # a field too many, of lists in lists
def test_bytes_that_were_never_a_record(body: bytes) -> None:
    record_or_corrupt(body)


@many
@given(body=mutations(any_record.map(encode_record)))
def test_records_that_something_happened_to(body: bytes) -> None:
    record_or_corrupt(body)


@pytest.mark.parametrize("kind", RECORDS, ids=lambda kind: kind.__name__)
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_every_record_that_something_happened_to(kind: type[Any], data: st.DataObject) -> None:
    record_or_corrupt(data.draw(mutations(instances(kind).map(encode_record))))


@settings(max_examples=80, deadline=None)
@given(body=broken_bodies | nested_bodies | mutations(any_record.map(encode_record)), times=st.integers(1, 2_000))
def test_no_record_takes_more_memory_than_stated(body: bytes, times: int) -> None:
    assert peak_of(record_or_corrupt, body * times) <= BYTES_A_BYTE * len(body) * times + SMALL_CHANGE_BYTES


@many
@given(
    meta=st.binary(min_size=1, max_size=100)
    | broken_bodies.filter(bool)
    | msgpack_bodies
    | mutations(st.sampled_from([b"\x82\xa6number\x01\xa8branches\x80", b"\x81\xa6number\x01"])).filter(bool)
)
@example(meta=b"\x81\xa1x" + b"\x91" * 2_000)
@example(meta=b"\xdf\xff\xff\xff\xff")
def test_a_posted_state_is_one_or_corrupt(meta: bytes) -> None:
    for state in (BranchState("Mumbai", "INR"), CoordinatorState("coordinator")):
        try:
            if isinstance(state, BranchState):
                state.restore(meta, 1, 1, 1, (), ())
            else:
                state.restore(meta, 1, 1, 1, ())
        except StoreError:
            assert state.number == 0, "of a damaged state nothing is taken"


# --- damaged files -------------------------------------------------------------------------------------------------------


@cache
def worked(role: str, *, posted: bool) -> bytes:
    """The file of an actor whose journal holds a row of every kind."""
    with tempfile.TemporaryDirectory(dir=SCRATCH) as folder:
        desk = _branch_at_work(Path(folder)) if role == BRANCH else _coordinator_at_work(Path(folder))
        kinds = {row.kind for row in desk.store.journal()}
        declared = {str(kind.__struct_config__.tag) for kind in RECORDS}
        assert kinds == declared & kinds
        assert len(kinds) == (9 if role == BRANCH else 4)
        if posted:
            desk.engine.post()
        desk.store.close()
        return desk.path.read_bytes()


def _branch_at_work(folder: Path) -> Desk:
    desk = branch(folder, "1", "2")
    asked = [prepare(txn_of(n), pay(n, "Mumbai/1", "Delhi/1", 10)) for n in range(1, 4)]
    desk.turn((BOSS, 0, Registered("coordinator", 1, ())), *((BOSS, 0, message) for message in asked))
    desk.turn((BOSS, 0, Commit(txn_of(1), id_of(1), 5)), (BOSS, 0, Abort(txn_of(2), id_of(2), Refusal("c", "d"))))
    desk.ask(pay(10, "Mumbai/1", "Mumbai/2", 500_00))
    desk.ask(ChangeAccount(id_of(11), "2", "frozen", 7))
    return desk


def _coordinator_at_work(folder: Path) -> Desk:
    desk = Desk(COORDINATOR, "coordinator", folder)
    for name in ("Delhi", "Mumbai"):
        desk.turn((Sender(name, BRANCH, name), 0, register(name)))
    for n in (1, 2):
        effects = desk.turn((CUSTOMER, n, pay(n, "Mumbai/1", "Delhi/1", 10)))
        prepares = {str(effect.to): effect.message for effect in effects if isinstance(effect.message, Prepare)}
        desk.turn(*(yes(message, name) for name, message in prepares.items()))
    txn = txn_of(1)
    desk.turn(*((from_branch(name), 0, Ack(txn, id_of(1), 3)) for name in ("Delhi", "Mumbai")))
    desk.tick(SECOND_US)
    return desk


READS: tuple[AnyMessage, ...] = (*(GetTransfer(id_of(n)) for n in range(1, 12)), GetEntries("1", False, "", 100))


def open_and_use(role: str, folder: Path) -> None:
    """Start the actor on its file, let it look at everything, and end. Raises StoreErrors only."""
    desk = Desk(role, "Mumbai" if role == BRANCH else "coordinator", folder)
    try:
        reads = READS if role == BRANCH else READS[:-1]
        desk.turn(*((CUSTOMER, 1, message) for message in reads))
        desk.engine.post()
        desk.store.verify()
    finally:
        desk.store.close()


def file_of(role: str, folder: str) -> Path:
    return Path(folder) / ("Mumbai.db" if role == BRANCH else "coordinator.db")


numbers = st.sampled_from((-1, 0, 1, 2, 2**32, 2**63 - 1, -(2**63)))
blobs = st.binary(max_size=40) | st.sampled_from((b"", bytes(16), bytes(70_000)))
texts = st.sampled_from((b"started", b"prepared", b"", b"\xff\xfe", b"k" * 70_000, b"\x00"))
DAMAGES = {
    "journal.epoch": numbers,
    "journal.at_us": numbers,
    "journal.kind": texts,
    "journal.id": blobs | st.none(),
    "journal.body": blobs | mutations(any_record.map(encode_record)) | any_record.map(encode_record) | nested_bodies,
    "journal.chain": blobs,
    "posted.meta": blobs | broken_bodies | nested_bodies,
    "open_txns.seq": numbers,
    "ids.txn": texts,
    "actor.seq": numbers,
    "actor.name": texts,
}
TEXTS = {"journal.kind", "ids.txn", "actor.name"}
KEYS = {"journal": "seq", "posted": "only_row", "open_txns": "id", "ids": "id", "actor": "name"}
#: each was another exception than CorruptStore once, or went unseen
DAMAGED: tuple[tuple[str, object], ...] = (
    ("journal.epoch", -1),
    ("journal.at_us", -(2**63)),
    ("journal.kind", b"k" * 70_000),
    ("journal.kind", b"\xff"),
    ("journal.id", bytes(40_000)),
    ("journal.body", b""),
    ("posted.meta", b""),
    ("posted.meta", b"\xc0"),
    ("open_txns.seq", 1),
    ("ids.txn", b"nonsense"),
)


@pytest.mark.parametrize("posted", [False, True])
@pytest.mark.parametrize("role", [BRANCH, COORDINATOR])
@settings(max_examples=50, deadline=None)
@given(data=st.data())
def test_a_value_changed_in_the_file_is_corruption_and_said_so(role: str, posted: bool, data: st.DataObject) -> None:
    """A change of the journal is always found; of the tables, when they cannot be read any more or do not fit."""
    column = data.draw(st.sampled_from(sorted(DAMAGES)))
    value = data.draw(DAMAGES[column])
    with tempfile.TemporaryDirectory(dir=SCRATCH) as folder:
        path = file_of(role, folder)
        path.write_bytes(worked(role, posted=posted))
        changed = damage(path, column, value, lambda count: data.draw(st.integers(0, count - 1)))
        if changed and column.startswith("journal."):
            with pytest.raises(StoreError):
                open_and_use(role, Path(folder))
            return
        try:
            open_and_use(role, Path(folder))
        except StoreError as error:
            assert error.detail  # noqa: PT017 - that it came is not asserted


def damage(path: Path, column: str, value: object, choose: Callable[[int], int]) -> bool:
    """Write a value into a row of `table.column`; gives whether the row is another one now."""
    table, _, name = column.partition(".")
    connection = apsw.Connection(str(path))
    connection.execute("DROP TRIGGER journal_rows_never_change; PRAGMA ignore_check_constraints = 1")
    keys = connection.execute(f"SELECT {KEYS[table]} FROM {table} ORDER BY 1").fetchall()
    changed = False
    if keys:
        key = keys[choose(len(keys))]
        given_as = "CAST(?1 AS TEXT)" if column in TEXTS else "?1"
        statement = f"UPDATE {table} SET {name} = {given_as} WHERE {KEYS[table]} = ?2 AND {name} IS NOT {given_as}"
        connection.execute(statement, (value, *key))
        changed = connection.changes() == 1
    connection.close()
    return changed


@pytest.mark.parametrize(("column", "value"), DAMAGED, ids=str)
def test_damage_that_was_once_another_exception(column: str, value: object) -> None:
    """Negative times, names too long for the chain, text that is no text, an open txn that is none."""
    with tempfile.TemporaryDirectory(dir=SCRATCH) as folder:
        path = file_of(BRANCH, folder)
        path.write_bytes(worked(BRANCH, posted=not column.startswith("journal.")))
        assert damage(path, column, value, lambda count: 0)
        with pytest.raises(CorruptStore):
            open_and_use(BRANCH, Path(folder))


@pytest.mark.parametrize("role", [BRANCH, COORDINATOR])
@settings(max_examples=50, deadline=None)
@given(data=st.data())
def test_a_file_with_flipped_bits_is_whole_or_a_store_error(role: str, data: st.DataObject) -> None:
    body = bytearray(worked(role, posted=data.draw(st.booleans())))
    for _ in range(data.draw(st.integers(1, 5))):
        place = data.draw(st.integers(0, len(body) - 1))
        body[place] ^= 1 << data.draw(st.integers(0, 7))
    with tempfile.TemporaryDirectory(dir=SCRATCH) as folder:
        file_of(role, folder).write_bytes(body)
        try:
            open_and_use(role, Path(folder))
        except StoreError as error:
            assert error.detail  # noqa: PT017 - that it came is not asserted
