"""What the long fuzzer calls with bytes: one function a target, its seeds, and a mutation that knows msgpack.

A target returns, whatever the bytes; an exception is a finding.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any, NamedTuple

import msgpack
import msgspec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgpack import fallback

from tests.fuzz.play import play
from tests.fuzz.shapes import HEADS, LEAST_INT, MESSAGES, MOST_INT, RECORDS, instances
from zbank.errors import BadFrame, CorruptStore, StoreError
from zbank.protocol.branch_state import BranchState
from zbank.protocol.codec import MAX_FRAME_MESSAGES, decode_batch, decode_record, encode_batch, encode_record
from zbank.protocol.coordinator_state import CoordinatorState
from zbank.protocol.messages import BRANCH, COORDINATOR

SEEDS_A_KIND = 6
LIFE_BYTES = 4096  #: of choices that make a life of an actor
WATCHED_BYTES = 512  #: of a frame, that the fuzzer can watch being taken apart
_VALUES: tuple[Any, ...] = (None, True, 0, -1, 2**62, 2**63 - 1, 2**63, LEAST_INT, MOST_INT, 1.0, float("nan"))
_VALUES += ("", "\0", "Mumbai", "\U0010ffff" * 500, b"", bytes(16), bytes(65), [], {}, [[]] * 300, msgpack.Timestamp(0, 1))


class Target(NamedTuple):
    """One thing to fuzz."""

    run: Callable[[bytes], None]
    seeds: Callable[[], list[bytes]]
    is_msgpack: bool  #: the bytes are msgpack, or were


def run_wire(body: bytes) -> None:
    """A frame."""
    _watched(body)
    try:
        batch = decode_batch(body)
    except BadFrame:
        return
    assert decode_batch(encode_batch(batch)) == batch


def run_journal(body: bytes) -> None:
    """A journal body, and the same bytes as an actor's posted state."""
    _watched(body)
    for state in (BranchState("Mumbai", "INR"), CoordinatorState("coordinator")):
        try:
            if isinstance(state, BranchState):
                state.restore(body, 1, 1, 1, (), ())
            else:
                state.restore(body, 1, 1, 1, ())
        except StoreError:
            pass
    try:
        record = decode_record(body)
    except CorruptStore:
        return
    assert decode_record(encode_record(record)) == record


def _watched(body: bytes) -> None:
    """Take the start of it apart in Python too: the compiled decoders do not tell the fuzzer how far they came."""
    if len(body) > WATCHED_BYTES:
        return
    try:
        fallback.unpackb(body, max_array_len=MAX_FRAME_MESSAGES, max_map_len=8, max_ext_len=0)
    except (ValueError, TypeError, RecursionError, OverflowError):
        return


_lives = settings(deadline=None, database=None, suppress_health_check=list(HealthCheck))


@_lives
@given(data=st.data())
def _branch_life(data: st.DataObject) -> None:
    play(data.draw, BRANCH)


@_lives
@given(data=st.data())
def _coordinator_life(data: st.DataObject) -> None:
    play(data.draw, COORDINATOR)


def run_actor(choices: bytes) -> None:
    """A whole life of an actor; the first byte says of which, the others are all its choices."""
    life: Any = _coordinator_life if choices[:1] > b"\x7f" else _branch_life
    life.hypothesis.fuzz_one_input(choices[1:])


# --- seeds and mutations ---------------------------------------------------------------------------------------------------


def wire_seeds() -> list[bytes]:
    """Valid frames with messages of every kind."""
    return [encode_batch([(n, message)]) for kind in MESSAGES for n, message in enumerate(_some(kind))]


def journal_seeds() -> list[bytes]:
    """Valid records of every kind, and posted states."""
    metas = (
        {"currency": "INR", "number": 1, "next_number": 3, "account_count": 2, "coordinators": {"c": [1, 2]}},
        {"number": 1, "branches": {"Mumbai": ["branch_joined", "Mumbai", "tcp://a:1", "INR", bytes(16)]}},
    )
    return [msgspec.msgpack.encode(meta) for meta in metas] + [
        encode_record(record) for kind in RECORDS for record in _some(kind)
    ]


def actor_seeds() -> list[bytes]:
    """Choices at random."""
    chance = random.Random(1)
    return [chance.randbytes(LIFE_BYTES) for _ in range(40)]


def _some(kind: type[Any]) -> list[Any]:
    """A few instances of a type, the same each time."""
    found: list[Any] = []

    @settings(_lives, max_examples=SEEDS_A_KIND, derandomize=True)
    @given(instance=instances(kind))
    def collect(instance: Any) -> None:
        found.append(instance)

    collect()
    return found


def mutated(body: bytes, max_bytes: int, seed: int, mutate_bytes: Callable[[bytes, int], bytes]) -> bytes:
    """Another body: bytes changed by `mutate_bytes`, or, when it is msgpack, a value in it."""
    chance = random.Random(seed)
    act = chance.randrange(10)
    if act < 3:
        return mutate_bytes(body, max_bytes)
    if act == 3:
        place = chance.randint(0, len(body))
        return (body[:place] + chance.choice(HEADS) + body[place + chance.randint(0, 3) :])[:max_bytes]
    try:
        tree = msgspec.msgpack.decode(body)
        _change(tree, chance)
        other = msgspec.msgpack.encode(tree)
    except (msgspec.MsgspecError, ValueError, TypeError, RecursionError, OverflowError):
        return mutate_bytes(body, max_bytes)
    return other if 0 < len(other) <= max_bytes else mutate_bytes(body, max_bytes)


def _change(tree: Any, chance: random.Random) -> None:
    """Change one value somewhere in a tree of lists and maps."""
    while True:
        if not isinstance(tree, list | dict) or not tree:
            return
        key = chance.randrange(len(tree)) if isinstance(tree, list) else chance.choice(list(tree))
        if isinstance(tree[key], list | dict) and tree[key] and chance.randrange(6):
            tree = tree[key]
            continue
        break
    act = chance.randrange(4)
    if act == 0 and isinstance(tree, list):
        tree.insert(key, tree[key])
    elif act == 1:
        del tree[key]
    elif act == 2 and isinstance(tree[key], int):
        tree[key] += chance.choice((-1, 1, 2**31, -(2**31), 2**62))
    else:
        tree[key] = chance.choice(_VALUES)


TARGETS = {
    "wire": Target(run_wire, wire_seeds, True),
    "journal": Target(run_journal, journal_seeds, True),
    "actor": Target(run_actor, actor_seeds, False),
}
