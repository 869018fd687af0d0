"""Whatever bytes a peer sends: a batch, or BadFrame; no other exception, and memory within a stated bound."""

from __future__ import annotations

import tracemalloc
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fuzz.memory import BYTES_A_BYTE, SMALL_CHANGE_BYTES, peak_of
from tests.fuzz.shapes import (
    ENVELOPE_NUMBERS,
    HEADS,
    MESSAGES,
    any_message,
    batches,
    broken_bodies,
    instances,
    msgpack_bodies,
    mutations,
    nested_bodies,
)
from zbank.errors import BadFrame
from zbank.protocol.codec import MAX_FRAME_BYTES, MAX_FRAME_MESSAGES, decode_batch, encode_batch, encode_frames
from zbank.protocol.messages import AnyMessage

many = settings(max_examples=250, deadline=None)


def batch_or_bad_frame(body: bytes) -> list[tuple[int, AnyMessage]] | None:
    """Decode; what was accepted must mean the same when it is said again."""
    try:
        batch = decode_batch(body)
    except BadFrame:
        return None
    assert isinstance(batch, list)
    assert len(batch) <= MAX_FRAME_MESSAGES
    again = decode_batch(encode_batch(batch))
    assert again == batch
    assert [type(message) for _, message in again] == [type(message) for _, message in batch]
    return batch


@pytest.mark.parametrize("kind", MESSAGES, ids=lambda kind: kind.__name__)
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_every_message_at_its_limits_goes_through(kind: type[Any], data: st.DataObject) -> None:
    """Within the declared limits nothing is refused: the codec's own limits leave room for every message."""
    envelope = (data.draw(ENVELOPE_NUMBERS), data.draw(instances(kind)))
    assert batch_or_bad_frame(encode_batch([envelope])) == [envelope]
    assert len(encode_frames([envelope])) == 1


@many
@given(body=st.binary(max_size=300) | broken_bodies | msgpack_bodies | nested_bodies)
def test_bytes_that_were_never_a_message(body: bytes) -> None:
    batch_or_bad_frame(body)


@many
@given(body=mutations(batches.map(encode_batch)))
def test_messages_that_something_happened_to(body: bytes) -> None:
    batch_or_bad_frame(body)


@pytest.mark.parametrize("kind", MESSAGES, ids=lambda kind: kind.__name__)
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_every_message_that_something_happened_to(kind: type[Any], data: st.DataObject) -> None:
    batch_or_bad_frame(data.draw(mutations(instances(kind).map(lambda message: encode_batch([(1, message)])))))


@settings(max_examples=30, deadline=None)
@given(messages=st.lists(any_message, min_size=1, max_size=3), data=st.data())
def test_a_message_cut_short_anywhere_is_refused(messages: list[Any], data: st.DataObject) -> None:
    """A prefix of a batch is no batch."""
    body = encode_batch([(1, message) for message in messages])
    cut = data.draw(st.integers(0, len(body) - 1))
    with pytest.raises(BadFrame):
        decode_batch(body[:cut])


# --- memory ----------------------------------------------------------------------------------------------------------------


def peak_bytes(body: bytes) -> int:
    """That of a frame."""
    return peak_of(batch_or_bad_frame, body)


def listed(item: bytes, count: int) -> bytes:
    """An array of the same value."""
    return b"\xdc" + count.to_bytes(2, "big") + item * count


def costly_frames(limit_bytes: int) -> dict[str, bytes]:
    """Frames of about this size that take the most memory for it; those of whole values are not refused at once."""
    claim = b"\xdc\x20\x00"  # an array of 8192 that never come
    units = {
        "empty lists": b"\x90",
        "empty maps": b"\x80",
        "lists of one": b"\x91\x80",
        "empty extensions": b"\xc7\x00\x05",
        "short texts": b"\xa2\xc3\xa9",
        "envelopes": b"\x92\x00\x91\xa7status?",
    }
    frames: dict[str, bytes] = {}
    for name, unit in units.items():
        whole = listed(unit, MAX_FRAME_MESSAGES)
        frames[f"whole: {name}"] = listed(whole, (limit_bytes - 3) // len(whole)) if len(whole) < limit_bytes else whole
    frames["claims alone"] = claim * (limit_bytes // 3)
    frames["claims in claims"] = claim * 1000 + listed(b"\x80", MAX_FRAME_MESSAGES)
    frames["few claims"] = claim * 500 + listed(b"\x80", MAX_FRAME_MESSAGES)
    frames["deeper and deeper"] = b"\x91" * limit_bytes
    frames["maps in maps"] = b"\x81\x01" * (limit_bytes // 2)
    return frames


@pytest.mark.parametrize("name", costly_frames(1))
def test_the_costliest_frames_take_bounded_memory(name: str) -> None:
    """And give it back: the same frame again takes no more."""
    body = costly_frames(1 << 17)[name]
    first, second = peak_bytes(body), peak_bytes(body)
    assert first <= BYTES_A_BYTE * len(body) + SMALL_CHANGE_BYTES
    assert second <= first + SMALL_CHANGE_BYTES


def test_the_largest_frame_takes_bounded_memory() -> None:
    """80 MiB, for as long as it takes to refuse it: 0.1 s."""
    body = costly_frames(MAX_FRAME_BYTES)["whole: empty maps"]
    assert MAX_FRAME_BYTES - MAX_FRAME_MESSAGES - 3 <= len(body) <= MAX_FRAME_BYTES
    assert peak_bytes(body) <= BYTES_A_BYTE * MAX_FRAME_BYTES


@pytest.mark.parametrize("depth", [1, 2, 10, 100, 900, 100_000])
def test_lengths_that_are_claimed_and_not_kept_cost_nothing(depth: int) -> None:
    """Room was made for each of them, one inside the other: 3 KiB took 64 MiB and 50 ms, a drain of such frames a minute."""
    for claim in (b"\xdc\x20\x00", b"\xdd\x00\x00\x20\x00", b"\x92\x00\xdc\x20\x00"):
        with pytest.raises(BadFrame):
            decode_batch(claim * depth)
        assert peak_bytes(claim * depth) <= SMALL_CHANGE_BYTES


@settings(max_examples=80, deadline=None)
@given(
    pieces=st.lists(
        st.tuples(st.sampled_from((*HEADS, b"\x90", b"\x80", b"\x91", b"\xc0")) | st.binary(max_size=6), st.integers(1, 5_000)),
        max_size=12,
    )
)
def test_no_frame_takes_more_memory_than_stated(pieces: list[tuple[bytes, int]]) -> None:
    body = b"".join(piece * count for piece, count in pieces)
    assert peak_bytes(body) <= BYTES_A_BYTE * len(body) + SMALL_CHANGE_BYTES


def test_refused_frames_leave_nothing_behind() -> None:
    """No growth: a thousand refused frames later the process holds what it held before."""
    bodies = [b"", b"\x91" * 3000, b"\xdc\x20\x00" * 50, listed(b"\x80", 9000), listed(b"\x91", 1), b"\x91\x92\x01\x91\xa3huh"]
    for body in bodies:
        batch_or_bad_frame(body)
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for _ in range(200):
            for body in bodies:
                batch_or_bad_frame(body)
        grown = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert grown < 20_000
