"""The seam between bytes and messages: what goes out comes in, and nothing else does (DESIGN §5)."""

from __future__ import annotations

import random
from contextlib import suppress
from typing import Any, get_args

import msgpack
import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.unit.protocol_support import id_of, legs_of, prepare, transfer, txn_of, yes
from zbank.domain.legs import MAX_LEGS, MAX_MINOR
from zbank.errors import BadFrame, CorruptStore
from zbank.protocol import codec
from zbank.protocol.codec import (
    GENESIS,
    MAX_FRAME_BYTES,
    MAX_FRAME_MESSAGES,
    chain_value,
    decode_batch,
    decode_record,
    encode_batch,
    encode_frames,
    encode_record,
    record_kind,
)
from zbank.protocol.messages import AnyMessage, Beat, Fault, GetStatus, Prepare, Transfer
from zbank.protocol.records import AnyRecord, Record

MESSAGES: tuple[type[Any], ...] = get_args(AnyMessage)
RECORDS: tuple[type[Any], ...] = get_args(AnyRecord)
TEXT = st.characters(codec="utf-8", max_codepoint=0x2FF)


def values(kind: msgspec.inspect.Type) -> st.SearchStrategy[Any]:
    """All values of a declared type, within its limits."""
    match kind:
        case msgspec.inspect.BoolType():
            return st.booleans()
        case msgspec.inspect.NoneType():
            return st.none()
        case msgspec.inspect.IntType(ge=low, le=high):
            return st.integers(-(2**63) if low is None else low, MAX_MINOR if high is None else high)
        case msgspec.inspect.StrType(pattern=str(pattern)):
            return st.from_regex(pattern)
        case msgspec.inspect.StrType(min_length=low, max_length=high):
            return st.text(TEXT, min_size=low or 0, max_size=high or 50)
        case msgspec.inspect.BytesType(min_length=low, max_length=high):
            return st.binary(min_size=low or 0, max_size=40 if high is None else high)
        case msgspec.inspect.VarTupleType(item_type=item):
            return st.lists(values(item), max_size=4).map(tuple)
        case msgspec.inspect.UnionType(types=types):
            return st.one_of([values(one) for one in types])
        case msgspec.inspect.StructType(cls=cls):
            return st.deferred(lambda: instances(cls))
    raise AssertionError(f"no values of {kind}: teach this test the type")


def instances(cls: type[Any]) -> st.SearchStrategy[Any]:
    """All instances of a Struct."""
    declared = msgspec.inspect.type_info(cls)
    assert isinstance(declared, msgspec.inspect.StructType)
    return st.builds(cls, *(values(field.type) for field in declared.fields))


BY_KIND = {kind: instances(kind) for kind in (*MESSAGES, *RECORDS)}
any_message: st.SearchStrategy[Any] = st.sampled_from(MESSAGES).flatmap(lambda kind: BY_KIND[kind])
batches = st.lists(st.tuples(st.integers(0, 2**32), any_message), max_size=4)


@pytest.mark.parametrize("kind", MESSAGES, ids=lambda kind: kind.__name__)
@settings(max_examples=15, deadline=None)
@given(data=st.data(), n=st.integers(0, 2**63 - 1))
def test_every_message_comes_in_as_it_went_out(kind: type[Any], data: st.DataObject, n: int) -> None:
    """One seam, both ways."""
    message = data.draw(BY_KIND[kind])
    ((number, again),) = decode_batch(encode_batch([(n, message)]))
    assert (number, type(again), again) == (n, kind, message)


@pytest.mark.parametrize("kind", RECORDS, ids=lambda kind: kind.__name__)
@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_every_record_comes_back_as_it_was_written(kind: type[Any], data: st.DataObject) -> None:
    """The journal is read by the version that wrote it, and by later ones."""
    record = data.draw(BY_KIND[kind])
    again = decode_record(encode_record(record))
    assert (type(again), again) == (kind, record)
    assert record_kind(record) == msgspec.msgpack.decode(encode_record(record))[0]


def test_tags_are_unique() -> None:
    """One tag, one meaning, for messages and for records."""
    for kinds in (MESSAGES, RECORDS):
        assert len({kind.__struct_config__.tag for kind in kinds}) == len(kinds)
    assert all(issubclass(kind, Record) for kind in RECORDS)


@settings(max_examples=300, deadline=None)
@given(batch=batches, seed=st.integers(0, 2**32))
def test_mutated_bytes_are_refused_or_are_another_batch(batch: list[Any], seed: int) -> None:
    """Whatever a peer sends, the only exception is BadFrame; what passes could have been said that way."""
    chance = random.Random(seed)
    body = bytearray(encode_batch(batch))
    for _ in range(chance.randint(1, 4)):
        place = chance.randrange(len(body))
        act = chance.randrange(3)
        if act == 0:
            body[place] = chance.randrange(256)
        elif act == 1:
            body[place:place] = chance.randbytes(chance.randint(1, 4))
        elif len(body) > 1:
            del body[place]
    with suppress(BadFrame):
        again = decode_batch(bytes(body))
        assert decode_batch(encode_batch(again)) == again


@settings(max_examples=300, deadline=None)
@given(body=st.binary(max_size=200))
def test_any_bytes_are_refused_or_are_a_batch(body: bytes) -> None:
    """The same for bytes that were never a message."""
    with suppress(BadFrame):
        assert isinstance(decode_batch(body), list)


@settings(max_examples=200, deadline=None)
@given(body=st.binary(max_size=80))
@example(body=b"\x91\xa2\x00\x80")
def test_any_bytes_in_a_journal_are_a_record_or_corrupt(body: bytes) -> None:
    """A damaged file is found out, and said so."""
    with suppress(CorruptStore):
        assert isinstance(decode_record(body), RECORDS)


def packed(envelopes: Any) -> bytes:
    body: bytes = msgpack.packb(envelopes)
    return body


LEG = ["Mumbai", "1001", -5]
TRANSFER = ["transfer", id_of(1), [LEG, ["Delhi", "1001", 5]], "INR"]
ID17 = b"17 bytes is wrong"


def with_amount(amount: Any) -> Any:
    return [[1, ["transfer", id_of(1), [["Mumbai", "1001", amount], LEG], "INR"]]]


@pytest.mark.parametrize(
    "envelopes",
    [
        1,
        None,
        [1],
        [[1]],
        [[1, "transfer"]],
        [["1", TRANSFER]],
        [[1.0, TRANSFER]],
        [[True, TRANSFER]],
        [[None, TRANSFER]],
        [[1, TRANSFER, 1]],
        [[1, ["no such tag"]]],
        [[1, [1, id_of(1)]]],
        [[1, []]],
        [[1, ["cancel"]]],
        [[1, ["cancel", id_of(1), "", 0]]],
        [[1, ["cancel", ID17]]],
        [[1, ["cancel", "1234567890123456"]]],
        [[1, ["cancel", None]]],
        [[1, ["beat", 1]]],
        [[1, [*TRANSFER, "memo", "2026-01-31", "", "", "one field too many"]]],
        [[1, ["transfer", id_of(1), [[*LEG, 0]], "INR"]]],
        [[1, ["transfer", id_of(1), [LEG] * (MAX_LEGS + 1), "INR"]]],
        [[1, ["transfer", id_of(1), [LEG], "RUPEES"]]],
        [[1, [*TRANSFER, "m" * 141]]],
        with_amount(1.0),
        with_amount(True),
        with_amount("5"),
        with_amount(float("nan")),
        with_amount(2**63),
        with_amount(-(2**63)),
        with_amount(None),
        [[1, ["account?", "n" * 35]]],
        [[1, ["accounts?", "", 0]]],
        [[1, ["accounts?", "", 1001]]],
        {},
        {"n": 1},
        [{1: 2}],
    ],
    ids=str,
)
def test_what_is_no_message_is_refused(envelopes: Any) -> None:
    """Types exactly as declared, lengths and ranges within their limits, no unknown tag, no field too many."""
    with pytest.raises(BadFrame, match=r"not (a message of this protocol|msgpack within the limits)"):
        decode_batch(packed(envelopes))


def test_the_same_shapes_done_right_pass() -> None:
    """The refusals above are for what they say, not for the rest."""
    ((n, message),) = decode_batch(packed([[1, [*TRANSFER, "m" * 140, "2026-01-31"]]]))
    assert isinstance(message, Transfer)
    assert (n, message.memo, message.legs[0].amount_minor) == (1, "m" * 140, -5)
    assert decode_batch(packed(with_amount(MAX_MINOR)))
    assert decode_batch(packed(with_amount(-MAX_MINOR)))
    assert decode_batch(packed([[1, ["cancel", id_of(1)]], [2, ["beat", True]]]))


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xc1",
        b"\x91" * 100_000,
        b"\xdd\xff\xff\xff\xff",
        b"\xdf\xff\xff\xff\xff",
        b"\xdb\xff\xff\xff\xff",
        b"\xc6\xff\xff\xff\xff",
        b"\xc9\xff\xff\xff\xff\x01",
        b"\xd6\xff\x00\x00\x00\x00",
        b"\x91\x92\x01\xa2\xff\xfe",
        packed([]) + b"\x00",
        packed([[1, ["cancel", bytes(65)]]]),
        packed([[1, ["fault", "c", "d" * 2001, 0]]]),
        b"\x90" * (MAX_FRAME_BYTES + 1),
    ],
    ids=lambda body: body[:12].hex() + f"-{len(body)}",
)
def test_bytes_past_the_limits_are_refused(body: bytes) -> None:
    """Depth, lengths claimed and never sent, extensions, text that is no text, trailing bytes, size."""
    with pytest.raises(BadFrame):
        decode_batch(body)


def test_an_empty_batch_is_a_batch() -> None:
    """Of nothing."""
    assert decode_batch(encode_batch([])) == []


@pytest.mark.parametrize("count", [0, 1, MAX_FRAME_MESSAGES, MAX_FRAME_MESSAGES + 1, 3 * MAX_FRAME_MESSAGES])
def test_frames_keep_to_the_number_of_messages(count: int) -> None:
    """All are there, in order, in frames that the other side takes."""
    envelopes: list[tuple[int, AnyMessage]] = [(n, GetStatus()) for n in range(count)]
    frames = encode_frames(envelopes)
    assert [envelope for frame in frames for envelope in decode_batch(frame)] == envelopes
    assert len(frames) <= 4


def test_frames_keep_to_the_size() -> None:
    """Many large messages are several frames."""
    fault: AnyMessage = Fault(code="c", detail="d" * 500)
    envelopes = [(n, fault) for n in range(5000)]
    frames = encode_frames(envelopes)
    assert max(map(len, frames)) <= MAX_FRAME_BYTES
    assert [envelope for frame in frames for envelope in decode_batch(frame)] == envelopes


def test_the_largest_message_fits_a_frame() -> None:
    """A transfer with as many legs as allowed, all names as long as allowed."""
    legs = transfer(1, legs_of(**{f"{'B' * 32}_{n:034}": MAX_MINOR for n in range(MAX_LEGS)})).legs
    message = prepare(txn_of(1), transfer(1, legs, memo="m" * 140))
    (frame,) = encode_frames([(1, message)])
    assert len(frame) < MAX_FRAME_BYTES // 20
    ((_, again),) = decode_batch(frame)
    assert isinstance(again, Prepare)
    assert again == message


def test_votes_are_small() -> None:
    """A vote is what goes back for each transfer: what it costs on the wire is watched."""
    _, _, vote = yes(prepare(txn_of(1), transfer(1, legs_of(Mumbai_1001=-5, Delhi_1001=5))), "Mumbai")
    assert len(encode_batch([(0, vote)])) < 70
    assert len(encode_batch([(0, Beat(False))])) < 12


def test_the_chain_value_binds_every_part_of_a_row() -> None:
    """T5: another value anywhere, or bytes moved from one part to the next, give another chain value."""
    row = (GENESIS, 1, 2, 3, "kind", b"id", b"body")
    others = [
        (b"\x01" + GENESIS[1:], *row[1:]),
        (GENESIS, 2, 2, 3, "kind", b"id", b"body"),
        (GENESIS, 1, 3, 3, "kind", b"id", b"body"),
        (GENESIS, 1, 2, 4, "kind", b"id", b"body"),
        (GENESIS, 1, 2, 3, "kinds", b"id", b"body"),
        (GENESIS, 1, 2, 3, "kin", b"did", b"body"),
        (GENESIS, 1, 2, 3, "kind", b"idb", b"ody"),
        (GENESIS, 1, 2, 3, "kind", None, b"idbody"),
        (GENESIS, 1, 2, 3, "kind", b"", b"idbody"),
        (GENESIS, 1, 2, 3, "kind", b"id", b"body."),
    ]
    assert len({chain_value(*parts) for parts in [row, *others]}) == 1 + len(others)
    assert chain_value(*row) == chain_value(*row)
    assert len(chain_value(*row)) == 32


def test_codec_limits_are_the_declared_ones() -> None:
    """The limits of msgpack must let every declared text and binary through."""
    assert codec.MAX_TEXT_BYTES >= 4 * 500  # Text is at most 500 characters
    assert codec.MAX_BINARY_BYTES >= 32
