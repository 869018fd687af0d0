"""The one seam between bytes and messages, and between bytes and journal records.

On the wire: msgpack (https://github.com/msgpack/msgpack/blob/master/spec.md), decoded with a limit on everything before
any value is looked at, then checked against the declared types. A journal body is written and read by us alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from struct import Struct as Layout
from typing import NoReturn, TypeVar, get_args

import msgpack
import msgspec

from zbank.errors import BadFrame, CorruptStore
from zbank.protocol.messages import MAX_ROW_BYTES, AnyMessage, Envelope, Fault
from zbank.protocol.records import AnyRecord, Record

MAX_FRAME_BYTES = 1 << 20
MAX_FRAME_MESSAGES = 8192
MAX_TEXT_BYTES = 2000
MAX_BINARY_BYTES = MAX_ROW_BYTES  #: only rows of a journal have so much: each field has its own limit

GENESIS = bytes(32)  #: the chain value before the first row


class _Batch(msgspec.Struct, array_like=True):
    """msgspec keeps what it worked out of a Struct's type, and works out a bare list's anew at each call (67 µs)."""

    envelopes: list[Envelope]


Meta = TypeVar("Meta")

_KINDS: dict[type[Record], str] = {kind: str(kind.__struct_config__.tag) for kind in get_args(AnyRecord)}

_encoder = msgspec.msgpack.Encoder()
_record_decoder: msgspec.msgpack.Decoder[AnyRecord] = msgspec.msgpack.Decoder(AnyRecord)
_check_whole = msgspec.msgpack.Decoder(msgspec.Raw).decode
_head = Layout(">QQQHhI").pack


def encode_batch(envelopes: Sequence[tuple[int, AnyMessage]]) -> bytes:
    """The frame body of a batch. The caller keeps to the limits, or uses `encode_frames`."""
    return _encoder.encode(envelopes)


def encode_frames(envelopes: Sequence[tuple[int, AnyMessage]]) -> list[bytes]:
    """As few frame bodies within the limits as halving finds."""
    if len(envelopes) <= MAX_FRAME_MESSAGES:
        body = _encoder.encode(envelopes)
        if len(body) <= MAX_FRAME_BYTES:
            return [body]
        if len(envelopes) == 1:  # no answer of ours is so long; a peer would close the connection, and lose all others
            too_long = Fault(code="too_long", detail=f"the answer is longer than {MAX_FRAME_BYTES} bytes: ask for less")
            return [_encoder.encode([(envelopes[0][0], too_long)])]
    half = len(envelopes) // 2
    return encode_frames(envelopes[:half]) + encode_frames(envelopes[half:])


def decode_batch(body: bytes) -> list[tuple[int, AnyMessage]]:
    """The envelopes of a frame body; raises BadFrame, with the reason, for anything else."""
    if len(body) > MAX_FRAME_BYTES:
        raise BadFrame(f"a frame has at most {MAX_FRAME_BYTES} bytes, this one has {len(body)}")
    try:
        # Every length that is claimed is kept. Else msgpack would make room for each claim, one inside the other: a frame
        # of 3 KiB took 64 MiB and 50 ms. This look costs a tenth of the decoding.
        _check_whole(body)
        plain = msgpack.unpackb(
            body,
            max_array_len=MAX_FRAME_MESSAGES,
            max_map_len=0,
            max_str_len=MAX_TEXT_BYTES,
            max_bin_len=MAX_BINARY_BYTES,
            max_ext_len=0,
            ext_hook=_refuse_extension,
        )
        return msgspec.convert((plain,), _Batch, builtin_types=(bytes,)).envelopes
    except msgspec.ValidationError as error:
        raise BadFrame(f"not a message of this protocol: {error}") from error
    except (ValueError, TypeError, RecursionError, OverflowError, msgspec.DecodeError) as error:
        # msgpack's own errors are all ValueErrors; UnicodeDecodeError is one too.
        raise BadFrame(f"not msgpack within the limits: {type(error).__name__}") from error


def _refuse_extension(code: int, data: bytes) -> NoReturn:
    raise ValueError(f"no message has an extension, this one has one of type {code} with {len(data)} bytes")


def encode_record(record: Record) -> bytes:
    """The journal body of a record."""
    return _encoder.encode(record)


def decode_record(body: bytes) -> AnyRecord:
    """The record of a journal body; raises CorruptStore when it is none."""
    return _from_store(_record_decoder, body, "a journal row holds no record")


def decode_meta(decoder: msgspec.msgpack.Decoder[Meta], body: bytes) -> Meta:
    """An actor's small state as it was posted; raises CorruptStore when it is none."""
    return _from_store(decoder, body, "the posted state is none")


def _from_store(decoder: msgspec.msgpack.Decoder[Meta], body: bytes, what: str) -> Meta:
    try:
        return decoder.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise CorruptStore(f"{what} that this version knows: {error}; restore a backup") from error


def record_kind(record: Record) -> str:
    """The record's tag, as in the journal's `kind` column."""
    return _KINDS[type(record)]


def chain_value(previous: bytes, epoch: int, seq: int, at_us: int, kind: str, id: bytes | None, body: bytes) -> bytes:
    """SHA-256 over the previous chain value and all of a row, each part length-delimited (PROTOCOL T5)."""
    name = kind.encode()
    id_length = -1 if id is None else len(id)
    head = _head(epoch, seq, at_us, len(name), id_length, len(body))
    return sha256(b"".join((previous, head, name, id or b"", body))).digest()
