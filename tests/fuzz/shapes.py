"""What the fuzzers feed: instances of every declared type, msgpack of any shape, and mutations of what is valid.

Instances are built from the declarations themselves, so a new message or record is covered as soon as it is declared.
"""

from __future__ import annotations

import re
from typing import Any, get_args

import msgpack
from hypothesis import strategies as st
from msgspec import inspect

from tests.unit.protocol_support import id_of
from zbank.domain.legs import CASH, CLEARING, MAX_MINOR, SUSPENSE, Leg
from zbank.protocol.messages import AnyMessage
from zbank.protocol.records import AnyRecord

MESSAGES: tuple[type[Any], ...] = get_args(AnyMessage)
RECORDS: tuple[type[Any], ...] = get_args(AnyRecord)
LEAST_INT, MOST_INT = -(2**63), 2**64 - 1  #: that msgpack has room for
ENVELOPE_NUMBERS = st.sampled_from((0, 1, 7, -1, MAX_MINOR, LEAST_INT, MOST_INT)) | st.integers(LEAST_INT, MOST_INT)

OFTEN = 9  #: times as many values that make a difference as any others

_WIDE = "\U0010ffff"  # four bytes each
_LIMITS = (2**31, 2**32, 2**53, 2**62 - 1, 2**62, MAX_MINOR - 1, MAX_MINOR, -MAX_MINOR, LEAST_INT, 2**63, MOST_INT)
_INTS = (0, 1, -1, 2, 5, 100_00, *_LIMITS)
_NAMES = ("Mumbai", "Delhi", "Pune", "coordinator", "other", "", "a", "\0", "-", "x-1-2", "B" * 32, _WIDE * 32, _WIDE * 64)
_IDS = (*map(id_of, range(1, 7)), bytes(16), b"\xff" * 16)
_DETAILS = ("", "because", "\0", _WIDE * 500)
# By the name of the field: what makes a difference there. Where a value does not fit the declared type it is left out.
POOLS: dict[str, tuple[Any, ...]] = {
    "id": _IDS,
    "instance": (bytes(16), b"\xff" * 16),
    "digest": (b"", b"\0", bytes(16), b"d" * 16),
    "branch": ("Mumbai", "Mumbai", *_NAMES),
    "number": ("1", "2", "3", CASH, CLEARING, SUSPENSE, "1001", "007", "", "0", "\0", "nobody", "9" * 17, "9" * 34, *_INTS),
    "currency": ("INR", "INR", "INR", "USD", "", "\0\0\0", _WIDE * 3),
    "status": ("", "open", "frozen", "closed", "OPEN", "committed", "aborted", "pending", "unknown", "\0"),
    "answer": ("yes", "refused", "known", "occupied", "void", "conflict", "busy", "storage_full", "YES", "", "\0", _WIDE * 64),
    "effective_on": ("", "", "2026-01-31", "2026-02-30", "20260131", "2026-W01-1", "\0", _WIDE * 10),
    "memo": ("", "\0", "m" * 140, _WIDE * 140),
    "owner": ("", "Asha", "\0", _WIDE * 100),
    "code": ("insufficient_funds", "c", "\0", "fence_lost", "busy", "", _WIDE * 64),
    "detail": _DETAILS,
    "endpoint": ("tcp://a:1", "tcp://\0:0", "tcp://" + _WIDE * 180 + ":99999", "tcp://*:0"),
    "cursor": ("", "1-0", "999999999999999999-999999999", "0-0", "\0"),
    "after": ("", "1", "\0", _WIDE * 34),
    "cluster": ("", "demo", "other"),
    "role": ("client", "branch", "coordinator", "", "\0"),
    "epoch": (0, 1, 2, 3, MAX_MINOR),
    "n": (0, 1, 2, 3, MAX_MINOR),
    "amount_minor": (1, -1, 5, -5, 100_00, -100_00, MAX_MINOR, -MAX_MINOR, 0, MAX_MINOR - 100_00),
}
for _name in ("name", "coordinator", "caller", "actor", "phase", "vote"):
    POOLS[_name] = _NAMES


# --- instances of declared types ---------------------------------------------------------------------------------------


def _fits(kind: inspect.Type, value: Any) -> bool:
    """Whether a value is one of a declared scalar type."""
    match kind:
        case inspect.IntType(ge=low, le=high):
            return isinstance(value, int) and (low is None or value >= low) and (high is None or value <= high)
        case inspect.StrType(min_length=low, max_length=high, pattern=pattern):
            if not isinstance(value, str) or (pattern is not None and not re.search(pattern, value)):
                return False
            return (low or 0) <= len(value) <= (len(value) if high is None else high)
        case inspect.BytesType(min_length=low, max_length=high):
            return isinstance(value, bytes) and (low or 0) <= len(value) <= (len(value) if high is None else high)
    return False


def values(kind: inspect.Type, name: str = "") -> st.SearchStrategy[Any]:
    """All values of a declared type, those that make a difference in a field of this name above all."""
    if isinstance(kind, inspect.VarTupleType) and name == "legs":
        return balanced_legs() | st.lists(values(kind.item_type), max_size=4).map(tuple)
    anything = _anything(kind)
    telling = [value for value in POOLS.get(name, ()) if _fits(kind, value)]
    if isinstance(kind, inspect.IntType) and name not in POOLS:
        telling = [value for value in _INTS if _fits(kind, value)]
    if not telling:
        return anything
    return st.one_of(*[st.sampled_from(telling)] * OFTEN, anything)


def _anything(kind: inspect.Type) -> st.SearchStrategy[Any]:
    match kind:
        case inspect.BoolType():
            return st.booleans()
        case inspect.NoneType():
            return st.none()
        case inspect.IntType(ge=low, le=high):
            return st.integers(LEAST_INT if low is None else low, MOST_INT if high is None else high)
        case inspect.StrType(pattern=str(pattern)):
            return st.from_regex(pattern)
        case inspect.StrType(min_length=low, max_length=high):
            return st.text(st.characters(codec="utf-8"), min_size=low or 0, max_size=20 if high is None else min(high, 20))
        case inspect.BytesType(min_length=low, max_length=high):
            return st.binary(min_size=low or 0, max_size=20 if high is None else high)
        case inspect.VarTupleType(item_type=item):
            return st.lists(values(item), max_size=4).map(tuple)
        case inspect.UnionType(types=types):
            return st.one_of([values(one) for one in types])
        case inspect.StructType(cls=cls):
            return st.deferred(lambda: instances(cls))
    raise AssertionError(f"no values of {kind}: teach this module the type")


_INSTANCES: dict[type[Any], st.SearchStrategy[Any]] = {}


def instances(cls: type[Any]) -> st.SearchStrategy[Any]:
    """All instances of a Struct."""
    if cls not in _INSTANCES:
        declared = inspect.type_info(cls)
        assert isinstance(declared, inspect.StructType)
        _INSTANCES[cls] = st.builds(cls, *(values(field.type, field.name) for field in declared.fields))
    return _INSTANCES[cls]


@st.composite
def balanced_legs(draw: st.DrawFn) -> tuple[Leg, ...]:
    """Legs that sum to zero, as those of a transfer should."""
    account = st.tuples(
        st.sampled_from(("Mumbai", "Mumbai", "Delhi", "Pune", "B" * 32)),
        st.sampled_from(("1", "2", "3", CASH, CASH, "1001", "nobody", CLEARING)),
    )
    amounts = st.sampled_from(POOLS["amount_minor"])
    legs = [Leg(*draw(account), draw(amounts)) for _ in range(draw(st.integers(1, 3)))]
    rest = -sum(leg.amount_minor for leg in legs)
    taker = draw(account)
    while rest:
        part = max(-MAX_MINOR, min(MAX_MINOR, rest))
        legs.append(Leg(*taker, part))
        rest -= part
    return tuple(legs)


any_message: st.SearchStrategy[Any] = st.one_of([instances(kind) for kind in MESSAGES])
any_record: st.SearchStrategy[Any] = st.one_of([instances(kind) for kind in RECORDS])
batches: st.SearchStrategy[list[tuple[int, Any]]] = st.lists(st.tuples(ENVELOPE_NUMBERS, any_message), max_size=4)


# --- bytes ---------------------------------------------------------------------------------------------------------------

#: beginnings of values, most of them with claims that are never kept
HEADS: tuple[bytes, ...] = (
    *(b"\xdc\x20\x00", b"\xdd\xff\xff\xff\xff", b"\xdd\x00\x00\x20\x00"),  # arrays
    *(b"\xde\xff\xff", b"\xdf\xff\xff\xff\xff", b"\x80", b"\x81"),  # maps
    *(b"\xd9\xff", b"\xda\xff\xff", b"\xdb\xff\xff\xff\xff", b"\xbf"),  # texts
    *(b"\xc4\xff", b"\xc5\xff\xff", b"\xc6\xff\xff\xff\xff"),  # bytes
    *(b"\xc7\x00\x05", b"\xc7\x00\xff", b"\xc9\xff\xff\xff\xff\x01", b"\xd4\x01", b"\xc7\x0c\xff"),  # extensions
    *(b"\xd6\xff", b"\xd7\xff"),  # times
    *(b"\xc1", b"\xca", b"\xcf"),  # no value; numbers
)

_plain = (
    st.none()
    | st.booleans()
    | st.integers(LEAST_INT, MOST_INT)
    | st.floats()
    | st.text(st.characters(codec="utf-8"), max_size=20)
    | st.binary(max_size=70)
    | st.sampled_from([str(kind.__struct_config__.tag) for kind in (*MESSAGES, *RECORDS)])
    | st.builds(msgpack.ExtType, st.integers(0, 127), st.binary(max_size=16))
    | st.builds(msgpack.Timestamp, st.integers(-(2**63), 2**63 - 1), st.integers(0, 999_999_999))
)
_keys = st.text(max_size=3) | st.integers(0, 9)
_tree = st.recursive(
    _plain, lambda inner: st.lists(inner, max_size=5) | st.dictionaries(_keys, inner, max_size=3)
)


def _packed(tree: Any) -> bytes:
    body: bytes = msgpack.packb(tree)
    return body


msgpack_bodies: st.SearchStrategy[bytes] = _tree.map(_packed)
#: pieces of msgpack in any order: lengths that are claimed and not kept, values cut short
broken_bodies: st.SearchStrategy[bytes] = st.lists(
    st.sampled_from(HEADS) | msgpack_bodies | st.binary(max_size=8), max_size=8
).map(b"".join)
nested_bodies: st.SearchStrategy[bytes] = st.builds(
    lambda before, head, depth, after: before + head * depth + after,
    st.sampled_from((b"", b"\x91\x92\x00", b"\x93\xa7started\xa1v", b"\x92\xa7started")),
    st.sampled_from((b"\x91", b"\x81\x01", b"\x81", b"\x92\x00", b"\xdc\x00\x01", b"\xdc\x20\x00", b"\x9f")),
    st.integers(1, 3_000),
    st.sampled_from((b"", b"\x00", b"\x90")),
)


@st.composite
def mutations(draw: st.DrawFn, valid: st.SearchStrategy[bytes]) -> bytes:
    """Something valid with bits flipped, pieces cut out, repeated, spliced in from another one, or lengths inflated."""
    body = bytearray(draw(valid))
    for _ in range(draw(st.integers(1, 4))):
        first = draw(st.integers(0, len(body)))
        last = min(len(body), first + draw(st.integers(0, 12)))
        act = draw(st.sampled_from(("flip", "cut", "repeat", "splice", "claim", "end")))
        if act == "flip" and first < len(body):
            body[first] ^= 1 << draw(st.integers(0, 7))
        elif act == "cut":
            del body[first:last]
        elif act == "repeat":
            body[last:last] = body[first:last] * draw(st.integers(1, 3))
        elif act == "splice":
            other = draw(valid)
            start = draw(st.integers(0, len(other)))
            body[first:last] = other[start : start + 20]
        elif act == "claim":
            body[first : first + 1] = draw(st.sampled_from(HEADS))
        else:
            del body[first:]
    return bytes(body)
