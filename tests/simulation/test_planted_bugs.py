"""The test of the test: every planted bug must be caught within the standard number of seeds."""

from __future__ import annotations

import pytest

from tests.simulation.bugs import all_bugs
from tests.simulation.planted import PAGES, Bug, is_said
from tests.simulation.run import Result, play
from tests.simulation.sometimes import STANDARD_SEEDS

#: what these come to is an error of the code itself
CRASHES = {"stopping on a full disk is an error", "a process reads tables that another one has written"}
BUGS = tuple(all_bugs().values())
RULES = {f"T{n}" for n in range(1, 7)} | {f"P{n}" for n in range(1, 12)} | {"C1", "R5", "K1"}  # those in this build


def is_caught(bug: Bug, result: Result) -> bool:
    """By the judge; a mere crash counts only where a crash is what the bug comes to."""
    return bool(result.violation) and (bug.name in CRASHES or not result.is_crash)


@pytest.mark.timeout(900)
@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.name)
def test_a_planted_bug_is_caught(bug: Bug) -> None:
    with bug.planted():
        found = next((seed for seed in range(STANDARD_SEEDS) if is_caught(bug, play(seed)[0])), None)
    assert found is not None, f"{bug.name} survives {STANDARD_SEEDS} seeds: the simulation has a hole"


def test_each_rule_has_a_bug() -> None:
    assert {bug.rule for bug in BUGS} == RULES


@pytest.mark.parametrize("page", PAGES)
def test_the_pages_say_how_many_there_are(page: str) -> None:
    assert is_said(BUGS, page)
