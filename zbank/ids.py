"""Ids: 128 bits, made by the client before it sends, time-ordered (UUIDv7, RFC 9562).

One of the three modules that may read randomness or the wall clock (with `clock` and `errors`).
"""

from __future__ import annotations

import secrets
import uuid

import uuid_utils

from zbank.errors import InvalidInput

ID_BYTES = 16
MAX_KEY_CHARS = 255
SECRET_PREFIX = "zbank_"  #: so that one which leaks is known for what it is
_KEY_NAMESPACE = uuid.UUID("5ad2a1fe-7e2b-5c0a-9a6e-1f0c36f3a3d1")  # zbank's own, fixed for good: changing it forgets keys


def new_id() -> bytes:
    """A fresh time-ordered id, 16 bytes (UUIDv7)."""
    return uuid_utils.uuid7().bytes


def new_key() -> str:
    """A fresh Idempotency-Key: 128 random bits, as text."""
    return f"web-{secrets.token_hex(ID_BYTES)}"


def new_secret() -> str:
    """A fresh secret of 256 bits, as text that is safe in a header."""
    return SECRET_PREFIX + secrets.token_urlsafe(32)


def id_from_key(key: str, caller: str = "") -> bytes:
    """The id of a caller's own text key (an order number, an Idempotency-Key): UUIDv5 over (caller, key), 16 bytes."""
    if not key or len(key) > MAX_KEY_CHARS:
        raise InvalidInput(f"a key has 1 to {MAX_KEY_CHARS} characters, this one has {len(key)}")
    return uuid.uuid5(_KEY_NAMESPACE, f"{len(caller)}:{caller}:{key}").bytes


def parse_id(text: str) -> bytes:
    """The 16 bytes of an id in its usual text form (36 characters with dashes, or 32 hex digits).

    Raises InvalidInput when it is neither.
    """
    try:
        value = uuid.UUID(text)
    except ValueError:
        value = None
    if value is None or text.lower() not in (str(value), value.hex):
        raise InvalidInput(f"{text!r} is no id: an id looks like 01890a5d-ac96-774b-bcce-b302099a8057")
    return value.bytes


def id_from_text(text: str) -> bytes:
    """An id given by a person: a UUID is taken as it is, any other text is a key (see `id_from_key`).

    Raises InvalidInput for an empty or over-long text, and for a mistyped UUID (36 characters with four dashes).
    """
    looks_like_uuid = (len(text) == 36 and text.count("-") == 4) or len(text) == 32
    return parse_id(text) if looks_like_uuid else id_from_key(text)


def format_id(value: bytes) -> str:
    """The usual text form of an id: 36 characters, lower case, with dashes."""
    return str(uuid.UUID(bytes=value))
