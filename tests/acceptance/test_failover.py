"""A branch's machine is gone, its replica takes its place, and the bank goes on with exact books (PROTOCOL R2, R3)."""

from __future__ import annotations

import getpass
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.cluster import Cluster, wait_until
from tests.acceptance.test_replica import REPLICA, is_level, replica_of, spawn_replica, start_replica
from zbank import Client
from zbank.apps import keymaking
from zbank.errors import RemoteFault, ZbankError
from zbank.ids import new_id
from zbank.protocol.messages import StatusInfo

WORDS = "promote Mumbai"
OPEN_AND_SECURE = pytest.mark.parametrize("bank", [False, True], ids=["open", "secure"], indirect=True)
WHO = f"(operator|{getpass.getuser()})"


@pytest.fixture
def bank(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Cluster]:
    """A bank with a replica of Mumbai; with keys where the test says so."""
    cluster = Cluster(tmp_path, secure=getattr(request, "param", False))
    if cluster.keys is not None:
        keymaking.add(cluster.keys, REPLICA, "replica", ())
        keymaking.add(cluster.keys, "Mumbai-former", "replica", ())
    try:
        cluster.start_all()
        start_replica(cluster)
        yield cluster
    finally:
        cluster.close()


def promote(cluster: Cluster) -> None:
    """By the command, as an operator does."""
    done = cluster.cli("promote", "Mumbai", "--replica", REPLICA, "--confirm", WORDS)
    assert (done.returncode, done.stderr) == (0, ""), cluster.output(REPLICA)
    assert "Mumbai is open again" in done.stdout


def wait_down(client: Client, name: str = "Mumbai") -> None:
    wait_until(lambda: not any(info.up for info in client.branches() if info.name == name), what=f"{name} is gone")


def place_of_replica(client: Client) -> str:
    """Where the coordinator has it, or had it last."""
    info = replica_of(client)
    return "" if info is None else info.endpoint


def wait_back(client: Client, gone: str) -> None:
    """The replica was started anew: it is heard of at another place than that which is gone."""
    wait_until(lambda: place_of_replica(client) not in ("", gone), what="the replica is there")


def wait_serves(client: Client) -> None:
    """The new branch has reconciled, and takes work: one payment of 0.01, asked for again until it is done."""
    id = new_id()

    def serves() -> bool:
        try:
            return client.transfer("Mumbai/1001", "Mumbai/1002", "0.01", id=id).status == "committed"
        except ZbankError:
            return False

    wait_until(serves, what="the promoted branch takes work")


def books(client: Client) -> dict[str, StatusInfo]:
    """Every actor's status, once nothing is in flight."""
    found: dict[str, StatusInfo] = {}

    def at_rest() -> bool:
        actors = client.status()
        found.clear()
        found.update({actor.name: actor for actor in actors if isinstance(actor, StatusInfo)})
        return len(found) == len(actors) and not any(actor.in_flight for actor in found.values())

    wait_until(at_rest, what="nothing is in flight")
    return found


def check_books(client: Client) -> None:
    """Each branch sums to zero, and all clearing accounts together."""
    found = books(client)
    assert all(actor.total_minor == 0 for actor in found.values())
    assert sum(actor.clearing_minor for actor in found.values()) == 0


@OPEN_AND_SECURE
def test_the_bank_goes_on_with_a_level_replica(bank: Cluster) -> None:
    with bank.client() as client:
        for _ in range(20):
            assert client.transfer("Mumbai/1001", "Delhi/1001", "1").status == "committed"
            last = client.transfer("Mumbai/1001", "Mumbai/1002", "1").positions["Mumbai"]
        wait_until(lambda: (info := replica_of(client)) is not None and info.seq >= last, what="a level replica")
        balance = client.balance("Mumbai/1001")
        bank.kill("Mumbai")
        wait_down(client)
        promote(bank)
        wait_serves(client)
        assert float(client.balance("Mumbai/1001")) == pytest.approx(float(balance) - 0.01)
        assert client.transfer("Mumbai/1001", "Delhi/1001", "1").status == "committed"
        assert client.transfer("Delhi/1001", "Mumbai/1001", "1").status == "committed"
        check_books(client)
        acts = bank.cli("acts").stdout
        assert re.search(rf"branch promoted +{WHO} +replica Mumbai-replica is branch Mumbai now", acts)


def test_what_two_branches_committed_is_not_lost_with_the_tail(bank: Cluster) -> None:
    """The replica is stopped while the branch goes on: decisions, votes and acks are lost, and a payment within the branch."""
    with bank.client() as client:
        start = {name: float(client.balance(name)) for name in ("Mumbai/1001", "Mumbai/1002", "Delhi/1001")}
        bank.stop(REPLICA)
        for _ in range(10):
            assert client.transfer("Mumbai/1001", "Delhi/1001", "2").status == "committed"
            assert client.transfer("Delhi/1001", "Mumbai/1002", "1").status == "committed"
        client.transfer("Mumbai/1001", "Mumbai/1002", "500")
        bank.kill("Mumbai")
        wait_down(client)
        spawn_replica(bank)
        wait_until(lambda: (info := replica_of(client)) is not None and info.lag_us > 10**12, what="the replica is there")
        said = bank.cli("promote", "Mumbai", "--replica", REPLICA)
        assert said.returncode == 1
        assert "is lost, also what customers were told" in said.stdout
        assert "the words are 'promote Mumbai'" in said.stderr
        promote(bank)
        wait_serves(client)
        assert float(client.balance("Mumbai/1001")) == pytest.approx(start["Mumbai/1001"] - 20 - 0.01)
        assert float(client.balance("Mumbai/1002")) == pytest.approx(start["Mumbai/1002"] + 10 + 0.01)
        assert float(client.balance("Delhi/1001")) == pytest.approx(start["Delhi/1001"] + 10)
        check_books(client)
        page = client.statement("Mumbai/1001", limit=30)
        assert sum(entry.amount == "-2.00" for entry in page.entries) == 10
        shown = client.show(page.entries[-1].id)
        assert shown.status == "committed"


@OPEN_AND_SECURE
def test_the_old_branch_is_fenced_and_follows_the_new_one(bank: Cluster) -> None:
    with bank.client() as client:
        gone = place_of_replica(client)
        bank.stop(REPLICA)
        for _ in range(5):
            client.transfer("Mumbai/1001", "Mumbai/1002", "7", memo="of the tail alone")
        bank.kill("Mumbai")
        wait_down(client)
        spawn_replica(bank)
        wait_back(client, gone)
        promote(bank)
        wait_serves(client)
        bank.spawn_actor("Mumbai", "--config", str(bank.config))
        wait_until(lambda: replica_of(client, "Mumbai-former") is not None, what="the old branch follows")
        assert "superseded: a replica was promoted to be branch Mumbai" in bank.output("Mumbai")
        wait_until(lambda: is_level(client, "Mumbai-former"), what="the old branch is level as a replica")
        done = client.transfer("Mumbai/1001", "Mumbai/1002", "1")
        assert client.at_replicas(after=done.positions).balance("Mumbai/1001") == client.balance("Mumbai/1001")
        (saved,) = bank.data.glob("Mumbai.diverged-after-*.jsonl")
        rows = [json.loads(line) for line in saved.read_text().splitlines()]
        assert sum(row["kind"] == "executed" for row in rows) == 5
        assert "of the tail alone" in saved.read_text()
        assert saved.stat().st_mode & 0o077 == 0
        bank.stop("Mumbai")
        bank.spawn_actor("Mumbai", "--config", str(bank.config))
        wait_until(lambda: is_level(client, "Mumbai-former"), what="it follows after a restart, too")
        bank.kill(REPLICA)
        spawn_replica(bank)
        wait_serves(client)
        check_books(client)


def test_what_an_account_cannot_bear_goes_to_suspense_with_a_lasting_alarm(bank: Cluster) -> None:
    with bank.client() as client:
        gone = place_of_replica(client)
        bank.stop(REPLICA)
        opened = client.open_account("Mumbai")  # known to the tail alone
        client.deposit(opened.account, "100")
        assert client.transfer(opened.account, "Delhi/1001", "60").status == "committed"
        bank.kill("Mumbai")
        wait_down(client)
        spawn_replica(bank)
        wait_back(client, gone)
        promote(bank)
        wait_serves(client)
        assert client.balance("Mumbai/suspense") == "-60.00"
        check_books(client)
        alarms = books(client)["Mumbai"].alarms
        assert any("Mumbai/suspense has -60.00 INR" in alarm for alarm in alarms)


def test_a_branch_that_is_up_is_not_replaced(bank: Cluster) -> None:
    refused = bank.cli("promote", "Mumbai", "--replica", REPLICA, "--confirm", WORDS)
    assert refused.returncode == 1
    assert "Mumbai IS UP: stop it first" in refused.stdout
    assert "branch_up" in refused.stderr
    unknown = bank.cli("promote", "Mumbai", "--replica", "other", "--confirm", WORDS)
    assert "Mumbai has no replica other: it has Mumbai-replica" in unknown.stderr
    with bank.client() as client, pytest.raises(RemoteFault, match="there is no branch Pune"):
        client.promote("Pune", client.replicas()[0])
