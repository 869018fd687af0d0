"""Time, read at the edge only and handed to the pure parts as a value (PROTOCOL K1)."""

from __future__ import annotations

import sys
import time
from datetime import UTC, datetime
from typing import NamedTuple


class Now(NamedTuple):
    """One reading of both clocks. Timers use `mono_us`; `wall_us` only labels records and orders nothing."""

    wall_us: int  #: microseconds since 1970-01-01 UTC
    mono_us: int  #: microseconds, monotonic, of no known start


def _monotonic_ns() -> int:
    """The monotonic clock; on Linux the one that goes on while the machine sleeps, so that waking is no jump of the wall."""
    if sys.platform == "linux":
        return time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    return time.monotonic_ns()


class Clock:
    """The machine's clocks. The simulator has one of its own with the same method."""

    def now(self) -> Now:
        """Read both clocks."""
        return Now(time.time_ns() // 1000, _monotonic_ns() // 1000)


def format_time(at_us: int) -> str:
    """RFC 3339 in UTC with milliseconds: `2026-01-31T12:00:00.000Z`."""
    moment = datetime.fromtimestamp(at_us // 1_000_000, UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{at_us // 1000 % 1000:03d}Z"
