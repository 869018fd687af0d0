"""Replicas as real processes: they follow, they answer, they come back; with keys and without."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.cluster import Cluster, wait_until
from zbank import Client
from zbank.apps import keymaking
from zbank.errors import RemoteFault
from zbank.protocol.messages import ReplicaInfo
from zbank.storage.sqlite import Identity, JournalStore

REPLICA = "Mumbai-replica"


@pytest.fixture(scope="module", params=[False, True], ids=["open", "secure"])
def bank(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A bank with a replica of Mumbai."""
    cluster = Cluster(tmp_path_factory.mktemp("replica"), secure=request.param)
    if cluster.keys is not None:
        keymaking.add(cluster.keys, REPLICA, "replica", ())
    try:
        cluster.start_all()
        start_replica(cluster)
        yield cluster
    finally:
        cluster.close()


def start_replica(cluster: Cluster, name: str = REPLICA, *flags: str) -> None:
    """Start a replica of Mumbai, and wait until it is level."""
    cluster.spawn_actor(name, "--config", str(cluster.config), *flags, role=("replica", "--of", "Mumbai", "--name", name))
    with cluster.client() as client:
        wait_until(lambda: is_level(client, name), what=f"a level {name}")


def replica_of(client: Client, name: str = REPLICA) -> ReplicaInfo | None:
    """What the coordinator says of a replica."""
    return next((info for info in client.replicas() if info.name == name), None)


def is_level(client: Client, name: str = REPLICA) -> bool:
    """It has all that its branch has, as of a moment ago."""
    info = replica_of(client, name)
    return info is not None and info.behind == 0 and info.lag_us < 3_000_000


def journals(cluster: Cluster) -> tuple[JournalStore, JournalStore]:
    """The stopped branch's and replica's stores."""
    return tuple(  # type: ignore[return-value]
        JournalStore.open(cluster.data / f"{file}.db", Identity("test", role, "Mumbai"), bytes(16), reserve_bytes=0)
        for file, role in (("Mumbai", "branch"), (REPLICA, "replica"))
    )


def test_who_writes_reads_what_was_written(bank: Cluster) -> None:
    with bank.client() as client:
        before = client.account("Mumbai/1001").balance_minor
        for _ in range(20):
            done = client.transfer("Mumbai/1001", "Mumbai/1002", "1")
            seen = client.at_replicas(after=done.positions).account("Mumbai/1001")
            before -= 1_00
            assert seen.balance_minor == before
            assert seen.as_of is not None
            assert seen.as_of.position >= done.positions["Mumbai"]
        across = client.transfer("Delhi/1001", "Mumbai/1001", "20")
        assert set(across.positions) == {"Mumbai", "Delhi"}
        near = client.at_replicas(after=across.positions, max_lag_s=60)
        assert near.account("Mumbai/1001").balance_minor == before + 20_00
        page = near.statement("Mumbai/1001", limit=1)
        assert page.entries[0].id == across.id
        assert [view.number for view in near.accounts("Mumbai")] == [view.number for view in client.accounts("Mumbai")]


def test_a_branch_without_a_replica_says_so(bank: Cluster) -> None:
    with bank.client() as client, pytest.raises(RemoteFault, match="branch Delhi has no replica") as caught:
        client.at_replicas().balance("Delhi/1001")
    assert caught.value.remote_code == "replica_not_found"


def test_a_position_that_does_not_come_ends_in_words(bank: Cluster) -> None:
    with bank.client(timeout_s=1.0) as client, pytest.raises(RemoteFault, match=r"not to row 999999999, within 1 s"):
        client.at_replicas(after={"Mumbai": 999_999_999}).balance("Mumbai/1001")


def test_it_catches_up_after_kill_9_and_after_a_pause_of_its_branch(bank: Cluster) -> None:
    bank.kill(REPLICA)
    with bank.client() as client:
        for _ in range(50):
            client.transfer("Mumbai/1001", "Mumbai/1002", "0.01")
        start_replica(bank)
        bank.kill("Mumbai")
        near = client.at_replicas(max_lag_s=0.5)
        assert client.at_replicas().account("Mumbai/1001").as_of is not None, "it answers while its branch is down"

        def is_stale() -> bool:
            try:
                near.balance("Mumbai/1001")
            except RemoteFault as error:
                return error.remote_code == "stale"
            return False

        wait_until(is_stale, what="a refusal of what is too old")
        bank.start("Mumbai")
        wait_until(lambda: is_level(client), what="a level replica")
        done = client.transfer("Mumbai/1001", "Mumbai/1002", "1")
        assert client.at_replicas(after=done.positions).balance("Mumbai/1001") == client.balance("Mumbai/1001")


def test_it_is_its_branch_byte_by_byte(bank: Cluster) -> None:
    with bank.client() as client:
        wait_until(lambda: is_level(client), what="a level replica")
    for name in (REPLICA, "Mumbai"):
        assert bank.stop(name) == 0
    mine, copied = journals(bank)
    try:
        assert copied.seq >= mine.seq - 3  # the branch may have noted something on its way out
        assert copied.verify() == copied.seq
        assert [copied.row(seq) for seq in range(1, copied.seq + 1)] == [mine.row(seq) for seq in range(1, copied.seq + 1)]
    finally:
        mine.close()
        copied.close()
    bank.start("Mumbai")
    start_replica(bank)


def test_status_shows_it(bank: Cluster) -> None:
    done = bank.cli("status", "--json")
    assert done.returncode == 0
    (shown,) = json.loads(done.stdout)["replicas"]
    assert (shown["name"], shown["of"], shown["behind"]) == (REPLICA, "Mumbai", 0)
    assert shown["lag_s"] < 5
    assert "Mumbai-replica" in bank.cli("status").stdout


def test_what_is_wrong_is_said(bank: Cluster, tmp_path: Path) -> None:
    unknown = bank.cli("replica", "--config", str(bank.config), "--of", "Pune")
    assert unknown.returncode == 2
    assert "branches.Pune is missing: the file has Mumbai, Delhi" in unknown.stderr
    taken = bank.cli("replica", "--config", str(bank.config), "--of", "Mumbai", "--name", "Mumbai", "--data", str(bank.data))
    assert taken.returncode in (1, 2)
    assert "Traceback" not in taken.stderr
