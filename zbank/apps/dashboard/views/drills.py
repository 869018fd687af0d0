"""The drills."""

from __future__ import annotations


def page() -> None:
    """The page."""
