"""A branch and its synchronous replica as real processes: nothing is answered before both have it (PROTOCOL R3)."""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.cluster import Cluster, wait_until
from tests.acceptance.rest import Rest
from tests.acceptance.test_failover import check_books, place_of_replica, promote, wait_back, wait_down, wait_serves
from tests.acceptance.test_launcher import Launcher
from tests.acceptance.test_replica import REPLICA, spawn_replica, start_replica
from tests.acceptance.test_replicas_started import FIRST, READY, replicas_of
from zbank.apps import keymaking
from zbank.errors import RemoteFault, ZbankError

pytestmark = pytest.mark.timeout(180)


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Cluster]:
    """A config by which Mumbai has a synchronous replica; nothing runs."""
    cluster = Cluster(tmp_path)
    cluster.config.write_text(cluster.config.read_text().replace("preload = true", "preload = true\nreplicas = 1\nacks = 1", 1))
    yield cluster
    cluster.close()


@pytest.fixture
def launcher(stage: Cluster) -> Iterator[Launcher]:
    """The bank of that config, open."""
    started = Launcher(stage)
    try:
        started.wait_for(READY)
        yield started
    finally:
        started.close()


@pytest.fixture
def bank(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Cluster]:
    """A bank whose operator has named a synchronous replica of Mumbai."""
    cluster = Cluster(tmp_path, secure=getattr(request, "param", False))
    if cluster.keys is not None:
        for name in (REPLICA, "Mumbai-former"):
            keymaking.add(cluster.keys, name, "replica", ())
    try:
        cluster.start_all()
        start_replica(cluster)
        named(cluster, REPLICA)
        yield cluster
    finally:
        cluster.close()


def named(cluster: Cluster, replica: str) -> str:
    """By the command, once the replica has caught up; what it says."""
    told: list[str] = []

    def is_named() -> bool:
        done = cluster.cli("acks", "Mumbai", replica)
        assert (done.returncode, done.stderr) == (0, "") or "not_level" in done.stderr, done.stderr
        told.append(done.stdout)
        return done.returncode == 0

    wait_until(is_named, what=f"{replica} is named")
    return told[-1]


def status(cluster: Cluster) -> tuple[dict[str, Any], list[str]]:
    """Mumbai, as soon as it answers, and who its synchronous replicas are."""
    told: dict[str, Any] = {}

    def answers() -> bool:
        done = cluster.cli("status", "--json")
        told.update(json.loads(done.stdout) if done.stdout else {})
        return any((actor["name"], actor["state"]) == ("Mumbai", "up") for actor in told.get("actors", ()))

    wait_until(answers, what="an answer of Mumbai")
    mumbai = next(actor for actor in told["actors"] if actor["name"] == "Mumbai")
    return mumbai, [replica["name"] for replica in told["replicas"] if replica["synchronous"]]


def has_stopped(mumbai: dict[str, Any], replica: str) -> bool:
    """It knows that the replica gives no sign of life, and not only that it takes no more rows."""
    return bool(mumbai.get("stopped")) and f"its synchronous replica {replica} does not answer" in "".join(mumbai["alarms"])


def test_the_launcher_opens_the_bank_when_both_are_there(stage: Cluster, launcher: Launcher) -> None:
    """The whole life of one: started with the bank, named away and back, gone and back."""
    assert launcher.complaints() == []
    assert stage.cli("deposit", "Mumbai/1001", "5").returncode == 0
    wait_until(lambda: status(stage)[1] == [FIRST], what="the coordinator has heard how far the replica is")
    assert re.search(rf"^{FIRST} .* yes$", stage.cli("status").stdout, re.MULTILINE)

    assert named(stage, "none").startswith("Mumbai stands on its own disk alone")
    mumbai, synchronous = status(stage)
    assert (mumbai["synchronous_replica"], synchronous) == (None, [])
    assert mumbai["alarms"] == [
        "no synchronous replica: what it says stands on one disk alone. Name one: `zbank acks Mumbai REPLICA`"
    ]
    assert named(stage, FIRST).startswith(f"Mumbai answers nothing before {FIRST} has it on its disk")
    mumbai, synchronous = status(stage)
    assert (mumbai["synchronous_replica"], mumbai["alarms"], synchronous) == (FIRST, [], [FIRST])

    os.kill(replicas_of(launcher)[FIRST], signal.SIGSTOP)
    wait_until(lambda: has_stopped(status(stage)[0], FIRST), what="Mumbai has stopped")
    refused = stage.cli("deposit", "Mumbai/1001", "5")
    assert (refused.returncode, refused.stdout) == (1, "")
    assert f"branch_unavailable: Mumbai has stopped: its synchronous replica {FIRST} does not answer: not" in refused.stderr
    told = stage.cli("status").stdout
    assert re.search(r"^branch +Mumbai +\S+ +STOPPED ", told, re.MULTILINE)
    assert f"alarm: Mumbai: stopped: its synchronous replica {FIRST} does not answer. Start it." in told
    os.kill(replicas_of(launcher)[FIRST], signal.SIGCONT)
    wait_until(lambda: not status(stage)[0]["stopped"], what="Mumbai goes on by itself")
    assert stage.cli("balance", "Mumbai/1001").stdout.startswith("10005.00 ")
    acts = stage.cli("acts").stdout
    assert len(re.findall(rf"acks named .*replica {FIRST}, data \w+, acknowledges what Mumbai does", acts)) == 2
    assert launcher.stop() == 0



@pytest.mark.parametrize("bank", [True], indirect=True, ids=["secure"])
def test_the_old_branch_can_tell_nobody_that_it_did_anything(bank: Cluster) -> None:
    """It slept while its replica took its place, and wakes where no coordinator tells it so."""
    with bank.client() as client:
        client.transfer("Mumbai/1001", "Mumbai/1002", "1")
        bank.send_signal("Mumbai", signal.SIGSTOP)
        wait_down(client)
        promote(bank)
        wait_serves(client)
    bank.kill("coordinator")
    bank.send_signal("Mumbai", signal.SIGCONT)
    with bank.client("Mumbai") as cut_off:
        with pytest.raises(RemoteFault, match="its synchronous replica"):
            cut_off.transfer("Mumbai/1001", "Mumbai/1002", "500", id="lost")
        with pytest.raises(ZbankError):
            cut_off.balance("Mumbai/1001")
    bank.start("coordinator")
    bank.wait_registered()
    with bank.client() as client:
        wait_serves(client)
        assert client.show("lost").status == "unknown"
        check_books(client)
    wait_until(lambda: "superseded" in bank.output("Mumbai"), what="the old branch is told")


def test_the_bridge_shows_it(bank: Cluster) -> None:
    rest = Rest(bank)
    rest.secret = rest.make_token("operator", holder="ops")
    wait_until(lambda: rest.get("/v1/me").status == 200, what="the token is known")
    (replica,) = rest.get("/v1/replicas").json["replicas"]
    assert (replica["name"], replica["synchronous"]) == (REPLICA, True)
    assert rest.get("/v1/branches/Mumbai").json["synchronous_replica"] == REPLICA
    assert rest.get("/v1/branches/Delhi").json["synchronous_replica"] is None
    bank.send_signal(REPLICA, signal.SIGSTOP)

    def mumbai() -> Any:
        return next(actor for actor in rest.get("/v1/cluster").json["actors"] if actor["name"] == "Mumbai")

    wait_until(lambda: has_stopped(mumbai(), REPLICA), what="Mumbai has stopped")
    assert mumbai()["alarms"][0].startswith(f"stopped: its synchronous replica {REPLICA} does not answer")
    told = rest.get("/v1/branches/Mumbai/accounts/1001/balance")
    assert (told.status, told.code) == (503, "branch_unavailable")
    assert 'zbank_stopped{name="Mumbai",role="branch"} 1.0' in rest.get("/metrics").body.decode()
    bank.send_signal(REPLICA, signal.SIGCONT)
    wait_until(lambda: mumbai().get("stopped") is False, what="Mumbai goes on by itself")
    assert rest.get("/v1/branches/Mumbai/accounts/1001/balance").status == 200
    rest.close()


def test_a_replica_that_has_begun_anew_has_to_be_named_again(bank: Cluster) -> None:
    """Its disk was lost: it has another store, and nobody takes it for the one before."""
    before = status(bank)[0]["synchronous_replica"]
    with bank.client() as client:
        gone = place_of_replica(client)
    bank.kill(REPLICA)
    for file in bank.data.glob(f"{REPLICA}.db*"):
        file.unlink()
    spawn_replica(bank)
    again = f"name it again: `zbank acks Mumbai {REPLICA}`"
    wait_until(lambda: again in "".join(status(bank)[0]["alarms"]), what="Mumbai says what to do")
    with bank.client() as client:
        wait_back(client, gone)  # until then the coordinator knows the one that is gone
    assert status(bank)[1] == []
    named(bank, REPLICA)
    mumbai, synchronous = status(bank)
    assert (mumbai["stopped"], mumbai["alarms"], synchronous) == (False, [], [before])
    assert bank.cli("deposit", "Mumbai/1001", "5").returncode == 0


def test_keys_are_made_for_one_that_runs_elsewhere(stage: Cluster) -> None:
    text = stage.config.read_text()
    stage.config.write_text(text.replace("acks = 1", 'acks = 1\nsynchronous = "Mumbai-backup"'))
    done = stage.cli("keys", "init", "--config", str(stage.config))
    assert done.returncode == 0, done.stderr
    for name in (FIRST, "Mumbai-backup"):
        assert re.search(rf"^  {name}\.secret +secret; only for the machine of replica {name}$", done.stdout, re.MULTILINE)
