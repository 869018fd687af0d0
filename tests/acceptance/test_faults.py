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
IN_TIME_S = 13.0  #: for a client whose limit is 3 s, on a machine that has other things to do


def test_without_coordinator_local_work_goes_on_and_the_rest_fails_in_time(cluster: Cluster) -> None:
    with cluster.client(timeout_s=3) as bank:
        assert bank.transfer("Mumbai/1001", "Delhi/1001", 1).status == "committed"
        cluster.kill("coordinator")
        assert bank.transfer("Delhi/1001", "Delhi/1002", 1).status == "committed"
        begun = time.monotonic()
        wait_until(lambda: _is_unreachable(bank, "later"), what="the client knows that the coordinator is away")
        assert time.monotonic() - begun < IN_TIME_S
        cluster.start("coordinator")
        cluster.wait_registered()
        assert bank.transfer("Mumbai/1001", "Delhi/1001", 1, id="later").status == "committed"


def test_a_branch_that_is_down_is_named_at_once(cluster: Cluster) -> None:
    with cluster.client() as bank:
        cluster.kill("Delhi")
        wait_until(lambda: not _is_up(cluster, "Delhi"), what="the coordinator knowing that Delhi is down")

        def is_named_at_once() -> bool:
            begun = time.monotonic()
            with pytest.raises(RemoteFault, match="branch Delhi is not connected: nothing was done"):
                bank.transfer("Mumbai/1001", "Delhi/1001", 1, id="k")
            return time.monotonic() - begun < AT_ONCE_S

        wait_until(is_named_at_once, what="Delhi being named at once")
        cluster.start("Delhi")
        cluster.wait_registered()
        assert bank.transfer("Mumbai/1001", "Delhi/1001", 1, id="k").status == "committed"
        assert bank.balance("Delhi/1001") == "10001.00"


def _is_unreachable(bank: Client, id: str) -> bool:
    """The coordinator, for a payment between branches. What was sent in the moment of its end is not known."""
    try:
        assert bank.transfer("Mumbai/1001", "Delhi/1001", 1, id=id).status == "unknown"
    except Unreachable as error:
        return "coordinator" in str(error)
    return False


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
    return Client(cluster.endpoint, cluster=name)


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
    done = cluster.cli("transfer", "Mumbai/1001", "Delhi/1001", "1")
    assert done.returncode == 1
    assert re.search(r"Mumbai is not connected", done.stderr), done.stderr

    def sees_what_is_wrong() -> bool:
        """An operator who looks; Mumbai is not waited for long, for it is not connected."""
        told = cluster.cli("status").stdout
        both = re.search(r"coordinator .* up, alarm", told) and re.search(r"branch +Mumbai .* up, alarm", told)
        return both is not None and f"branch Mumbai is refused: {said}" in told

    wait_until(sees_what_is_wrong, what="an operator sees what is wrong")

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
        actors = bank.status
        wait_until(lambda: all(isinstance(one, StatusInfo) and not one.alarms for one in actors()), what="no alarm any more")
