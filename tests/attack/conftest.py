"""Two banks with keys: one for a whole module, and a fresh one for those who break or change it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.cluster import Cluster
from zbank.apps import keymaking


def add_people(cluster: Cluster) -> Cluster:
    """A key of each role that people have."""
    assert cluster.keys is not None
    keymaking.add(cluster.keys, "till-4", "teller", ())
    keymaking.add(cluster.keys, "watch", "auditor", ())
    keymaking.add(cluster.keys, "asha", "client", ("Mumbai/1001",))
    keymaking.add(cluster.keys, "stand-in", "replica", ())
    return cluster


@pytest.fixture(scope="module")
def bank(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Mumbai and Delhi, with keys; nobody stops or changes it."""
    cluster = Cluster(tmp_path_factory.mktemp("attack"), secure=True)
    add_people(cluster)
    try:
        cluster.start_all()
        yield cluster
    finally:
        cluster.close()


@pytest.fixture
def own_bank(tmp_path: Path) -> Iterator[Cluster]:
    """The same, for one test alone."""
    cluster = add_people(Cluster(tmp_path, secure=True))
    try:
        cluster.start_all()
        yield cluster
    finally:
        cluster.close()
