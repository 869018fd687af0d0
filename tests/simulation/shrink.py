"""From a failing run to a small one: which of its faults and wishes are enough for the same rule to be broken.

Delta debugging (Zeller and Hildebrandt, "Simplifying and Isolating Failure-Inducing Input", IEEE TSE 2002): leave out
chunks of what happened, then smaller ones, down to single ones. Every run keeps a subset of what happened in the one
before, so nothing new can come in and the search ends.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Container, Sequence
from typing import Any, NamedTuple

from tests.simulation.run import Result
from tests.simulation.world import World

MAX_RUNS = 300
MAX_S = 60.0  #: in real time; a run that has begun is played to its end
NOISE = ("lost", "repeated", "delayed")  #: kinds of what the network does by itself

Play = Callable[[int, Container[str]], tuple[Result, World]]
Fails = Callable[[Sequence[str]], Sequence[str] | None]  #: of these keys, those that happened if it fails; None if not


class AllBut(Container[str]):
    """Every key but these: to leave out all that is not wanted."""

    def __init__(self, kept: Collection[str]) -> None:
        self._kept = frozenset(kept)

    def __contains__(self, key: Any) -> bool:
        return key not in self._kept


class Noting(Container[str]):
    """The same keys as another container; notes which keys were asked for, as each is that is about to happen."""

    def __init__(self, keys: Container[str]) -> None:
        self._keys = keys
        self.asked: set[str] = set()

    def __contains__(self, key: Any) -> bool:
        self.asked.add(key)
        return key in self._keys


class Shrunk(NamedTuple):
    """The smallest failing run that was found."""

    happenings: dict[str, str]  #: key → kind of what is left, in the order it happened
    violation: str
    world: World
    runs: int
    is_smallest: bool  #: none of what is left can be left out by itself; False = runs or time were over


def rule_of(violation: str) -> str:
    """What was broken, without the particulars."""
    return violation.partition(":")[0]


def ddmin(keys: Sequence[str], fails: Fails) -> list[str]:
    """A subset of the keys that still fails, none of which can be left out by itself. All of them must fail."""
    left = list(keys)
    size = max(1, len(left) // 2)
    while left:
        before = len(left)
        start = 0
        while start < len(left):
            found = fails(left[:start] + left[start + size :])
            if found is None:
                start += size
            else:
                left = list(found)
        if size > 1:
            size = min(size // 2, max(1, len(left) // 2))
        elif len(left) == before:
            break
    return left


def shrink(play: Play, result: Result, world: World, max_runs: int = MAX_RUNS, max_s: float = MAX_S) -> Shrunk:
    """Make a failed run smaller: the network's noise at once, then the wishes, then everything one by one."""
    search = _Search(play, result, world, max_runs, max_s)
    kinds = result.happenings
    search.fails([key for key in kinds if kinds[key] not in NOISE])
    search.fails([key for key in search.left if kinds[key] != "wish"])
    wishes = [key for key in search.left if kinds[key] == "wish"]
    ddmin(wishes, lambda some: search.fails_among(wishes, some))
    ddmin(search.left, search.fails)
    return search.shrunk()


class _Search:
    """Plays smaller and smaller runs, and keeps the smallest that fails by the same rule."""

    def __init__(self, play: Play, result: Result, world: World, max_runs: int, max_s: float) -> None:
        self._play = play
        self._rule = rule_of(result.violation)
        self._smallest = result, world
        self._runs_left = max_runs
        self._runs = 0
        self._end_s = time.monotonic() + max_s
        self._is_spent = False

    @property
    def left(self) -> list[str]:
        """What happened in the smallest failing run."""
        return list(self._smallest[0].happenings)

    def fails(self, keys: Sequence[str]) -> list[str] | None:
        """Of these keys, those that happen if the run with them alone fails by the same rule; None if it does not."""
        if self._runs == self._runs_left or time.monotonic() > self._end_s:
            self._is_spent = True
            return None
        self._runs += 1
        result, world = self._play(self._smallest[0].seed, AllBut(keys))
        if rule_of(result.violation) != self._rule:
            return None
        self._smallest = result, world
        return self.left

    def fails_among(self, group: Sequence[str], some: Sequence[str]) -> list[str] | None:
        """The same for a group of keys, of which only some are kept; all keys outside of it stay."""
        found = self.fails([key for key in self.left if key in some or key not in group])
        return None if found is None else [key for key in found if key in group]

    def shrunk(self) -> Shrunk:
        """What was found."""
        result, world = self._smallest
        return Shrunk(result.happenings, result.violation, world, self._runs, not self._is_spent)
