"""How much memory decoding may take, stated once and measured."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable

# An empty map is one byte on the wire; in memory it is 64, and 8 in the list around it. Nothing has a higher ratio.
BYTES_A_BYTE = 80  #: memory that decoding takes at the most, for each byte decoded
SMALL_CHANGE_BYTES = 100_000  #: and beside that: texts of errors, tracebacks


def peak_of(decode: Callable[[bytes], object], body: bytes) -> int:
    """The most memory that decoding takes at any moment, over what is there already, in bytes."""
    tracemalloc.start()
    try:
        decode(body)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
