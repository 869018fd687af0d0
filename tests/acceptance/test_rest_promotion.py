"""A replica takes its branch's place over REST: what is asked for, what is refused, and that it is done once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.cluster import Cluster, wait_until
from tests.acceptance.rest import Rest
from tests.acceptance.test_failover import check_books, wait_down, wait_serves
from tests.acceptance.test_replica import REPLICA, start_replica
from zbank.apps import keymaking

PATH = f"/v1/replicas/{REPLICA}/promotion"
OTHER_DATA = "01a206e4-6535-7290-a6cf-c388bb3b8b1c"


@pytest.fixture
def bank(tmp_path: Path) -> Iterator[Cluster]:
    """A bank with a replica of Mumbai."""
    cluster = Cluster(tmp_path)
    try:
        cluster.start_all()
        start_replica(cluster)
        yield cluster
    finally:
        cluster.close()


def seen(rest: Rest) -> Any:
    """The replica as the bridge lists it."""
    (replica,) = rest.get("/v1/replicas").json["replicas"]
    return replica


def test_a_lost_branch_is_replaced_once_by_what_was_seen(bank: Cluster) -> None:
    rest = Rest(bank)
    rest.secret = rest.make_token("operator", holder="ops")
    wait_until(lambda: rest.get("/v1/me").status == 200, what="the token is known")
    assert "promote" in rest.get("/v1/me").json["may"]
    replica = seen(rest)
    assert replica["can_lead"] is True
    meant = {"branch": "Mumbai", "instance": replica["instance"], "confirm": "promote Mumbai"}

    def refused(path: str = PATH, **changed: str) -> tuple[int, str]:
        told = rest.post(path, meant | changed)
        return told.status, told.code

    assert refused() == (409, "branch_up")
    with bank.client() as client:
        bank.kill("Mumbai")
        wait_down(client)
        for words in ("", "promote mumbai", "promote Mumbai ", "promote Delhi"):
            assert refused(confirm=words) == (422, "invalid_request")
        assert refused(instance=OTHER_DATA) == (404, "replica_not_found")
        assert refused("/v1/replicas/Mumbai-2/promotion") == (404, "replica_not_found")
        assert refused(branch="Lima", confirm="promote Lima") == (422, "branch_not_found")
        assert refused(branch="Delhi", confirm="promote Delhi") == (404, "replica_not_found")
        assert refused(instance="nothing") == (400, "malformed")
        told = rest.post(PATH, meant)
        assert told.status == 200, told
        assert {**told.json, "lag_s": 0} == {**replica, "position": told.json["position"], "lag_s": 0}
        wait_serves(client)
        again = rest.post(PATH, meant)
        assert (again.status, again.json) == (200, told.json), "it is a replica no more, and asking again is still safe"
        bank.kill("coordinator")
        bank.start("coordinator")
        bank.wait_registered()
        late = rest.post(PATH, meant)
        assert (late.status, late.json["instance"], late.json["lag_s"]) == (200, replica["instance"], None)
        wait_serves(client)
        check_books(client)
    acts = [line for line in bank.cli("acts").stdout.splitlines() if f"replica {REPLICA} is branch Mumbai now" in line]
    assert len(acts) == 1
    assert "ops" in acts[0], "in the name of the token's holder"
    rest.close()


def test_with_keys_the_bridge_may_not_and_says_who_may(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path, secure=True)
    assert cluster.keys is not None
    keymaking.add(cluster.keys, REPLICA, "replica", ())
    try:
        cluster.start_all()
        start_replica(cluster)
        rest = Rest(cluster)
        assert "promote" not in rest.get("/v1/me").json["may"]
        told = rest.post(PATH, {"branch": "Mumbai", "instance": OTHER_DATA, "confirm": "promote Mumbai"})
        assert (told.status, told.code) == (403, "forbidden")
        assert f"zbank promote Mumbai --replica {REPLICA}" in told.json["detail"]
        rest.close()
    finally:
        cluster.close()
