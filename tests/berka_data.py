"""Where the real bank's files are, for the tests that need them; without them such a test is skipped, and says so."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest

from examples.berka.data import DataMissing, History, data_directory, read_histories


def berka_directory() -> Path:
    """The directory; skips the calling test where it is not there."""
    try:
        return data_directory()
    except DataMissing as missing:
        pytest.skip(f"THE REAL BANK DATA IS NOT TESTED: {missing}")


@cache
def _read(directory: Path) -> tuple[list[History], list[int]]:
    return read_histories(directory)


def berka_histories() -> tuple[list[History], list[int]]:
    """(accounts that chain, ids of those that do not), read once."""
    return _read(berka_directory())
