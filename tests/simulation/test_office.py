"""What a coordinator has told is not lost with it, and its successor alone leads: many seeds, and planted bugs to find."""

from __future__ import annotations

import pytest

from tests.simulation.office import play
from tests.simulation.office_bugs import BUGS
from tests.simulation.planted import PAGES, Bug, is_found, is_said, play_all

SEEDS = 110
BUG_SEEDS = 300
pytestmark = pytest.mark.timeout(300)
SITUATIONS = (
    "promoted: lost",
    "promoted: cut off",
    "promoted: asleep",
    "promoted: killed",
    "promoted when a decision was on the former's disk alone",
    "promoted with decisions that branches had not acked",
    "promoted without loss",  # a branch's replica, in the same world
    "decisions wait for the replica",
    "a former coordinator is awake",
    "a former coordinator's machine follows",
    "last words of a former coordinator",
    "a replica of the coordinator begins anew",
    "one that was replaced led, and was found out",
    "does not lead: not_synchronous",
    "does not lead: coordinator_up",
    "tokens told",
    "words",
    "said that it has stopped",
)


def test_one_coordinator_leads_and_nothing_that_was_told_is_lost_in_many_worlds() -> None:
    met = play_all(play, SEEDS)
    assert met["promoted"] > SEEDS // 4
    assert met["promoted when the former had more"] > SEEDS // 10, "nothing is proved where all had the same"
    assert not [what for what in SITUATIONS if not met[what]]


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.name)
def test_a_planted_bug_is_found(bug: Bug) -> None:
    assert is_found(bug, play, BUG_SEEDS), f"{bug.name} survives {BUG_SEEDS} seeds: the simulation has a hole"


@pytest.mark.parametrize("page", PAGES)
def test_the_pages_say_how_many_there_are(page: str) -> None:
    assert is_said(BUGS, page)
