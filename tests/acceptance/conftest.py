"""Fixtures of the acceptance tests: a running cluster of real processes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.cluster import Cluster


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    """A fresh running cluster: coordinator, Mumbai and Delhi, with accounts 1001 and 1002 at each branch."""
    running = Cluster(tmp_path)
    try:
        running.start_all()
        yield running
    finally:
        running.close()


@pytest.fixture(scope="module")
def shared_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """One running cluster for all tests of a module that kill nothing and open accounts of their own."""
    running = Cluster(tmp_path_factory.mktemp("cluster"))
    try:
        running.start_all()
        yield running
    finally:
        running.close()
