"""What a branch with a synchronous replica has told is never lost: many seeds, and planted bugs that they must find."""

from __future__ import annotations

import pytest

from tests.simulation.planted import PAGES, Bug, is_found, is_said, play_all
from tests.simulation.synchronous import play
from tests.simulation.synchronous_bugs import BUGS

SEEDS = 50
BUG_SEEDS = 200  #: the hardest to find is met in every seventieth
pytestmark = pytest.mark.timeout(300)


def test_what_was_told_is_never_lost_in_many_worlds() -> None:
    met = play_all(play, SEEDS)
    assert met["promoted without loss"] > SEEDS // 4
    assert met["promoted when the former had more"] > SEEDS // 10, "nothing is proved where all had the same"
    assert met["told by a branch that is cut off"] > 0
    assert met["said that it has stopped"] > SEEDS
    assert met["nobody is lossless"] > SEEDS
    for what in ("promoted: lost", "promoted: cut off", "promoted: old copy", "a replica begins anew", "refused: superseded"):
        assert met[what] > 0


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.name)
def test_a_planted_bug_is_found(bug: Bug) -> None:
    assert is_found(bug, play, BUG_SEEDS), f"{bug.name} survives {BUG_SEEDS} seeds: the simulation has a hole"


@pytest.mark.parametrize("page", PAGES)
def test_the_pages_say_how_many_there_are(page: str) -> None:
    assert is_said(BUGS, page)
