"""The state machines in company: losses, repeats, reordering, crashes and full disks; then everything must converge.

A failing seed is replayed with `pytest tests/unit/test_cluster_in_memory.py -k 'chance and [SEED]'`.
"""

from __future__ import annotations

import pytest

from tests.unit.memory_cluster import MemoryCluster

SEEDS = 250
STEPS = 1200


@pytest.mark.parametrize("seed", range(SEEDS))
def test_any_chance_of_faults_ends_well(seed: int) -> None:
    """P1–P11 together: no two actors differ, nothing told changes, and what was left open comes to rest."""
    cluster = MemoryCluster(seed)
    for _ in range(STEPS):
        cluster.step()
    cluster.heal()
    cluster.check_end()
