"""A part of the bank is away, or somebody else than it was: what its customers and its operator are told, and when."""

from __future__ import annotations

import re
import shutil
import time
from pathlib import Path

import pytest

from tests.acceptance.cluster import Cluster, free_ports, wait_until
from zbank import Client
from zbank.errors import RemoteFault, Unreachable
from zbank.protocol.messages import StatusInfo

AT_ONCE_S = 3.0  #: less than the time for votes


def test_without_coordinator_local_work_goes_on_and_the_rest_fails_in_time(cluster: Cluster) -> None:
    with cluster.client(timeout_s=3) as bank:
        assert bank.transfer("Mumbai/1001", "Delhi/1001", 1).status == "committed"
        cluster.kill("coordinator")
        assert bank.transfer("Delhi/1001", "Delhi/1002", 1).status == "committed"
        begun = time.monotonic()
        with pytest.raises(Unreachable, match="coordinator"):
            bank.transfer("Mumbai/1001", "Delhi/1001", 1, id="later")
        assert time.monotonic() - begun < 3 + AT_ONCE_S
        cluster.start("coordinator")
        cluster.wait_registered()
        assert bank.transfer("Mumbai/1001", "Delhi/1001", 1, id="later").status == "committed"


def test_a_branch_that_is_down_is_named_at_once(cluster: Cluster) -> None:
    with cluster.client(timeout_s=6) as bank:
        cluster.kill("Delhi")
        wait_until(lambda: not _is_up(cluster, "Delhi"), what="the coordinator knowing that Delhi is down")
        begun = time.monotonic()
        with pytest.raises(RemoteFault, match="branch Delhi is not connected: nothing was done"):
            bank.transfer("Mumbai/1001", "Delhi/1001", 1, id="k")
        assert time.monotonic() - begun < AT_ONCE_S
        cluster.start("Delhi")
        cluster.wait_registered()
        assert bank.transfer("Mumbai/1001", "Delhi/1001", 1, id="k").status == "committed"
        assert bank.balance("Delhi/1001") == "10001.00"


def _is_up(cluster: Cluster, name: str) -> bool:
    with cluster.client() as client:
        return any(info.name == name and info.up for info in client.branches())


def test_a_name_of_another_cluster_is_refused_both_ways(cluster: Cluster) -> None:
    with pytest.raises(RemoteFault, match="belongs to cluster 'test', the caller asks for 'prod'"), _client_of(
        cluster, "prod"
    ) as bank:
        bank.balance("Mumbai/1001")
    stray = _by_flags(cluster, "Pune", "--cluster", "prod")
    told = "wrong_cluster: this coordinator belongs to cluster 'test', the caller asks for 'prod': check the address"
    wait_until(lambda: told in stray.read_text(), what="a word in the branch's own log")
    assert not _is_up(cluster, "Pune")


def _client_of(cluster: Cluster, name: str) -> Client:
    return Client(cluster.endpoint, cluster=name, timeout_s=3)


def _by_flags(cluster: Cluster, name: str, *flags: str) -> Path:
    """A branch started by flags alone; gives the file of what it prints."""
    port = str(free_ports(1))
    data = str(cluster.folder / f"data of {name}")
    cluster.spawn_actor(name, "--port", port, "--coordinator", cluster.endpoint, "--data", data, *flags)
    return cluster.log(name)


@pytest.fixture
def fresh_mumbai(cluster: Cluster) -> Cluster:
    """Mumbai was restarted with fresh data under its name."""
    with cluster.client() as bank:
        assert bank.transfer("Mumbai/1001", "Delhi/1001", 1).status == "committed"
    assert cluster.stop("Mumbai") == 0
    away = cluster.folder / "away"
    away.mkdir()
    for file in cluster.data.glob("Mumbai.db*"):
        shutil.move(file, away)
    cluster.start("Mumbai")
    return cluster


def test_a_branch_with_fresh_data_under_a_known_name_is_refused_and_everybody_says_so(fresh_mumbai: Cluster) -> None:
    cluster = fresh_mumbai
    said = "branch Mumbai was here with other data (instance "
    for name in ("Mumbai", "coordinator"):
        wait_until(lambda name=name: said in cluster.output(name), what=f"a word of {name}")  # type: ignore[misc]
        assert "start it with the data directory it had" in cluster.output(name)
    wait_until(lambda: not _is_up(cluster, "Mumbai"), what="the coordinator missing the Mumbai it knows")
    done = cluster.cli("transfer", "Mumbai/1001", "Delhi/1001", "1", "--timeout", "3")
    assert done.returncode == 1
    assert re.search(r"Mumbai is not connected", done.stderr), done.stderr
    status = cluster.cli("status", "--timeout", "3")
    assert re.search(r"coordinator .* up, alarm", status.stdout), status.stdout
    assert re.search(r"branch +Mumbai .* up, alarm", status.stdout), status.stdout
    assert f"branch Mumbai is refused: {said}" in status.stdout, "an operator who looks sees what is wrong"

    assert cluster.stop("Mumbai") == 0
    for file in cluster.data.glob("Mumbai.db*"):
        file.unlink()
    for file in (cluster.folder / "away").iterdir():
        shutil.move(file, cluster.data)
    cluster.start("Mumbai")
    cluster.wait_registered()
    with cluster.client() as bank:
        assert bank.transfer("Mumbai/1001", "Delhi/1001", 1).status == "committed"
        assert bank.balance("Mumbai/1001") == "9998.00"
        assert all(isinstance(actor, StatusInfo) and not actor.alarms for actor in bank.status())
