"""Planted bugs: for each rule a version of the real code that breaks it. The simulation must catch every one.

A bug is a patch over the running code, taken away when the run is over. It says which rule of the protocol it breaks.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

from tests.simulation.failover_books import Breach

ROOT = Path(__file__).parents[2]

Plant = Callable[[ExitStack], None]


class Bug(NamedTuple):
    """One planted bug."""

    name: str
    rule: str  #: of the protocol
    plant: Plant

    @contextmanager
    def planted(self) -> Iterator[None]:
        """The code with the bug."""
        with ExitStack() as stack:
            self.plant(stack)
            yield


BUGS: list[Bug] = []


def bug(name: str, rule: str, table: list[Bug] = BUGS) -> Callable[[Plant], Plant]:
    """Take the decorated function into the table."""

    def enter(plant: Plant) -> Plant:
        assert name not in {other.name for other in table}, f"two bugs are named {name!r}"
        table.append(Bug(name, rule, plant))
        return plant

    return enter


def replace(stack: ExitStack, owner: Any, name: str, new: Any) -> Any:
    """Put `new` in the place of an attribute; gives what was there."""
    old = getattr(owner, name)
    stack.enter_context(patch.object(owner, name, new))
    return old


def is_found(bug: Bug, play: Callable[[int], object], seeds: int) -> bool:
    """One of so many seeds breaks the rules with this bug."""
    with bug.planted():
        for seed in range(seeds):
            try:
                play(seed)
            except Breach:
                return True
    return False


def play_all(play: Callable[[int], Counter[str]], seeds: int) -> Counter[str]:
    """What was met in so many worlds. Raises Breach, or whatever the actors raise."""
    met: Counter[str] = Counter()
    for seed in range(seeds):
        met += play(seed)
    return met


PAGES = ("docs/correctness.md", "CHANGELOG.md")  #: that say how many bugs there are


def is_said(bugs: Sequence[Bug], page: str) -> bool:
    """The page has this very number."""
    return re.search(rf"\b{len(bugs)} planted bugs", (ROOT / page).read_text("utf-8")) is not None


def dispatch(stack: ExitStack, table: dict[Any, Any], key: Any, new: Any) -> Any:
    """Put `new` in the place of an entry of a dispatch table; gives what was there."""
    old = table[key]
    stack.enter_context(patch.dict(table, {key: new}))
    return old
