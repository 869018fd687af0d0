"""The bugs that the simulation found, each with a seed that shows it: with the bug put back the seed fails, without it not.

A change of the simulation gives its seeds other runs: `--replay` them with the bug planted, and look for new ones then.
"""

from __future__ import annotations

import pytest

from tests.simulation.bugs import all_bugs
from tests.simulation.run import play

#: by planted bug: the seed, and what a violation says
FOUND = {
    "stopping on a full disk is an error": (6, "the disk is full"),
    "a branch tells what only the coordinator may: applied everywhere": (18, "is told as applied"),
    "a process reads tables that another one has written": (25, "more released than promised"),
    "a branch that is not registered any more is answered its beats": (92, "is not registered"),
}


@pytest.mark.parametrize("name", FOUND)
def test_its_seed_fails_with_the_bug_and_not_without(name: str) -> None:
    seed, says = FOUND[name]
    assert play(seed)[0].violation == ""
    with all_bugs()[name].planted():
        assert says in play(seed)[0].violation
