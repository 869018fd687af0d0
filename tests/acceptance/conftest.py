"""Fixtures of the acceptance tests: a running cluster of real processes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.cluster import Cluster, running
from tests.acceptance.rest import Rest


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    """A fresh running cluster: coordinator, Mumbai and Delhi, with accounts 1001 and 1002 at each branch."""
    with running(tmp_path) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def shared_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """One running cluster for all tests of a module that kill nothing and open accounts of their own."""
    with running(tmp_path_factory.mktemp("cluster")) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def rest(shared_cluster: Cluster) -> Iterator[Rest]:
    """A bridge in front of it."""
    bridge = Rest(shared_cluster, "--rate-limit", "0")
    yield bridge
    bridge.close()


@pytest.fixture
def account(rest: Rest, request: pytest.FixtureRequest) -> str:
    """A new account at Mumbai with 100.00."""
    key = re.sub(r"[^!-~]", "", request.node.name)
    opened = rest.post("/v1/branches/Mumbai/accounts", {"owner": "Asha"}, key=f"open {key}".replace(" ", "-"))
    assert opened.status == 201
    name = str(opened.json["account"])
    assert rest.post("/v1/deposits", {"account": name, "amount": "100"}, key=f"fill-{key}").status == 201
    return name
