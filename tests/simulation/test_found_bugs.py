"""The bugs that the simulation found, each with a seed that shows it: with the bug put back the seed fails, without it not.

A change of the simulation gives its seeds other runs: `--replay` them with the bug planted, and look for new ones then.
"""

from __future__ import annotations

import pytest

from tests.simulation.bugs import all_bugs
from tests.simulation.run import play

#: by planted bug: the seed, and what a violation says
FOUND = {
    "stopping on a full disk is an error": (12, "the disk is full"),
    "a branch tells what only the coordinator may: applied everywhere": (32, "is told as applied"),
    "a process reads tables that another one has written": (201, "more released than held"),
    "a branch that is not registered any more is answered its beats": (225, "is not registered"),
}


@pytest.mark.parametrize("name", FOUND)
def test_its_seed_fails_with_the_bug_and_not_without(name: str) -> None:
    seed, says = FOUND[name]
    assert play(seed)[0].violation == ""
    with all_bugs()[name].planted():
        assert says in play(seed)[0].violation
