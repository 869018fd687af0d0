"""Every decision of chance in a run: a hash of the seed and of what is decided about, never of what came before.

So a run in which one fault is left out has all the others where they were, which is what makes a failure shrinkable.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from hashlib import blake2b
from typing import TypeVar

T = TypeVar("T")

_WHOLE = float(2**64)


class Chance:
    """The chances of one seed."""

    def __init__(self, seed: int) -> None:
        self._key = seed.to_bytes(8, "big", signed=True)

    def bits(self, *about: object) -> int:
        """64 bits, always the same for the same thing."""
        return int.from_bytes(blake2b(repr(about).encode(), digest_size=8, key=self._key).digest(), "big")

    def unit(self, *about: object) -> float:
        """From 0 to 1, 1 not included."""
        return self.bits(*about) / _WHOLE

    def between(self, low: int, high: int, *about: object) -> int:
        """An integer, both ends included."""
        return low + self.bits(*about) % (high - low + 1)

    def choice(self, options: Sequence[T], *about: object) -> T:
        """One of them."""
        return options[self.bits(*about) % len(options)]

    def random(self, *about: object) -> random.Random:
        """A stream of chances about one thing, for plans that need many."""
        return random.Random(self.bits(*about))
