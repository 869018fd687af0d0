"""What a run ends with when the bank did what it must never do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class Violation(Exception):
    """The bank did what it must never do."""


@contextmanager
def breach(rule: str) -> Iterator[None]:
    """What fails in here is a violation of this rule."""
    try:
        yield
    except AssertionError as error:
        raise Violation(f"{rule}: {error}") from error
