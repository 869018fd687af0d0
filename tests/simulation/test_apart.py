"""Two coordinators lead, by an operator's mistake, and no transfer is done at one branch and void at another: many seeds."""

from __future__ import annotations

import pytest

from tests.simulation.apart import play
from tests.simulation.apart_bugs import BUGS
from tests.simulation.planted import PAGES, Bug, is_found, is_said, play_all

SEEDS = 100
BUG_SEEDS = 300
pytestmark = pytest.mark.timeout(300)
SITUATIONS = (
    "promoted when a decision was on the former's disk alone",
    "goes on alone",
    "it withholds a commit",
    "told by one that went on alone",
    "it serves nobody any more",
    "its successor serves nobody any more",
)


def test_no_transfer_is_done_at_one_branch_alone_in_many_worlds() -> None:
    met = play_all(play, SEEDS)
    assert not [what for what in SITUATIONS if not met[what]]


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.name)
def test_a_planted_bug_is_found(bug: Bug) -> None:
    assert is_found(bug, play, BUG_SEEDS), f"{bug.name} survives {BUG_SEEDS} seeds: the simulation has a hole"


@pytest.mark.parametrize("page", PAGES)
def test_the_pages_say_how_many_there_are(page: str) -> None:
    assert is_said(BUGS, page)
