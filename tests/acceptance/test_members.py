"""Branches come, move and go while the bank runs: real processes, under load, with keys."""

from __future__ import annotations

import json
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.cluster import Cluster, free_ports, wait_until
from tests.acceptance.load import ClusterLoad, own_status, verify_files
from tests.acceptance.rest import Rest
from tests.acceptance.test_launcher import OPEN, Launcher
from tests.acceptance.town import FOLLOW_S, Town
from zbank import Client
from zbank.errors import Refused, RemoteFault

PUNE = "Pune"


@pytest.fixture
def town(tmp_path: Path) -> Iterator[Town]:
    """Mumbai and Delhi."""
    cluster = Town(tmp_path)
    try:
        cluster.start_all()
        yield cluster
    finally:
        cluster.close()


@pytest.fixture
def locked_town(tmp_path: Path) -> Iterator[Town]:
    """The same, with keys."""
    cluster = Town(tmp_path, secure=True)
    try:
        cluster.start_all()
        yield cluster
    finally:
        cluster.close()


def start_with_room(load: ClusterLoad, *more: str) -> None:
    """The load is judged with these branches, too."""
    load._branches = (*load._branches, *more)


# --- add --------------------------------------------------------------------------------------------------------------


def test_a_branch_is_added_with_keys_under_load(locked_town: Town) -> None:
    """It needs a key that is listed; clients and a bridge that ran before pay there at once."""
    town = locked_town
    bridge = Rest(town, "--rate-limit", "0")
    load = ClusterLoad(town, 11)
    others = []
    try:
        with town.client() as client:
            assert PUNE not in {info.name for info in client.branches()}
            load.wait_told(50)
            town.add(PUNE, ready=False)
            assert town.processes[PUNE].wait(20) == 2
            assert "Pune" in town.output(PUNE)
            assert "keys add" in town.output(PUNE)
            done = town.cli("keys", "add", PUNE, "--role", "branch")
            assert done.returncode == 0, done.stderr
            town.add(PUNE, "--preload")
            town.wait_state(PUNE, "up")
            paid = client.transfer("Mumbai/1001", "Pune/1001", "5.00", timeout_s=FOLLOW_S)
            assert paid.status == "committed"
            others.append(paid.id)
            told = bridge.post(
                "/v1/transfers", {"from": "Pune/1001", "to": "Delhi/1001", "amount": "2.00"}, key="over-rest"
            )
            assert told.status == 201, told.body
            others.append(told.json["id"])
            assert [one["name"] for one in bridge.get("/v1/branches").json["branches"]] == ["Delhi", "Mumbai", PUNE]
            (shown,) = [one for one in bridge.get("/v1/cluster").json["actors"] if one["name"] == PUNE]
            assert (shown["up"], shown["currency"], shown["accounts"]) == (True, "INR", 4), "the dashboard sees it, too"
        assert "branch Pune at" in town.output("coordinator")
        assert "the config file here does not name it" in town.output("coordinator")
        assert any(act["act"] == "branch_joined" and "Pune" in act["about"] for act in town.acts())
        load.wait_told(50)
        town.stop("coordinator")
        town.start("coordinator")
        town.wait_state(PUNE, "up")
        load.wait_told(50)
        start_with_room(load, PUNE)
        load.check(others)
    finally:
        load.close()
        bridge.close()


# --- move -------------------------------------------------------------------------------------------------------------


def test_a_branch_moves_under_load(town: Town) -> None:
    """Same data, other address: who ran before follows within seconds, and nothing is lost."""
    bridge = Rest(town, "--rate-limit", "0")
    load = ClusterLoad(town, 12)
    try:
        load.wait_told(200)
        assert bridge.get("/v1/branches/Delhi/accounts/1001").status == 200
        with town.client() as client, town.client("Mumbai") as near:
            client.balance("Delhi/1001")
            near.balance("Delhi/1001")
            assert town.stop("Delhi") == 0
            folder = town.folder / "another machine"
            folder.mkdir()
            for file in town.data.glob("Delhi.db*"):
                shutil.move(file, folder)
            town.flags["Delhi"] = ("--data", str(folder))
            town.add("Delhi", at=f"tcp://127.0.0.1:{free_ports(1)}")
            began = time.monotonic()
            for follows in (client, near):
                follows.balance("Delhi/1001")
            assert bridge.get("/v1/branches/Delhi/accounts/1001").status == 200
            assert time.monotonic() - began < 2 * FOLLOW_S
            endpoints = {info.name: info.endpoint for info in client.branches()}
            assert endpoints["Delhi"] == town.endpoints["Delhi"]
        load.wait_told(200)
        load.check()
        (moved,) = [act for act in town.acts() if act["act"] == "branch_moved"]
        assert town.endpoints["Delhi"] in moved["about"]
        assert "has moved to" in town.output("coordinator")
        verify_files(town)
    finally:
        load.close()
        bridge.close()


def test_a_machine_hangs_and_its_branch_goes_on_elsewhere(town: Town) -> None:
    """Nobody who was connected to the old process hears that it is gone; when it wakes up it is put out."""
    load = ClusterLoad(town, 16)
    old = town.processes["Delhi"]
    try:
        load.wait_told(200)
        with town.client() as client:
            client.balance("Delhi/1001")
            town.send_signal("Delhi", signal.SIGSTOP)
            folder = town.folder / "another machine"
            folder.mkdir()
            for file in (town.data / "Delhi.db", town.data / "Delhi.db-wal"):
                shutil.copy(file, folder)
            town.flags["Delhi"] = ("--data", str(folder))
            town.add("Delhi", at=f"tcp://127.0.0.1:{free_ports(1)}")
            began = time.monotonic()
            client.balance("Delhi/1001")
            assert time.monotonic() - began < 2 * FOLLOW_S
            load.wait_told(200)
            old.send_signal(signal.SIGCONT)
            assert old.wait(20) == 2
            assert "a newer process serves branch Delhi already" in town.output("Delhi")
        load.wait_told(200)
        load.check()
        verify_files(town)
    finally:
        load.close()
        old.kill()
        old.wait(10)


def test_a_branch_killed_with_promises_settles_them_where_it_comes_back(town: Town) -> None:
    load = ClusterLoad(town, 13)
    try:
        load.wait_told(200)
        town.kill("Delhi")
        time.sleep(1)
        town.flags["Delhi"] = ("--data", str(town.data))
        town.add("Delhi", at=f"tcp://127.0.0.1:{free_ports(1)}")
        load.wait_told(200)
        load.check()
        assert not own_status(town, "Mumbai").in_doubt
    finally:
        load.close()


# --- retire -----------------------------------------------------------------------------------------------------------


def empty(client: Client, name: str = PUNE) -> list[str]:
    """A branch's customers take their money to Mumbai, and their accounts are closed; gives the ids of the transfers."""
    ids = []
    for account in (f"{name}/1001", f"{name}/1002"):
        ids.append(client.transfer(account, "Mumbai/1001", client.balance(account)).id)
        wait_until(lambda account=account: client.balance(account) == "0.00", what="the branch has applied it")  # type: ignore[misc]
        client.change_account(account, status="closed")
    return ids


def test_a_branch_is_retired_under_load(town: Town) -> None:
    """Refused until it is empty, each time with what to do; then it is closed for good, and all hear of it."""
    town.add(PUNE, "--preload")
    bridge = Rest(town, "--rate-limit", "0")
    load = ClusterLoad(town, 14)
    try:
        town.wait_state(PUNE, "up")
        with town.client() as client, town.client() as idle:
            idle.balance("Pune/1001")
            refused = town.cli("branches", "retire", PUNE)
            assert refused.returncode == 1
            assert "refused: branch_not_empty: branch Pune has 2 accounts that are not closed" in refused.stderr
            moved = empty(client)
            refused = town.cli("branches", "retire", PUNE)
            assert "`zbank transfer OTHER/cash Pune/cash 15000.00`" in refused.stderr
            done = town.cli("transfer", "Mumbai/cash", "Pune/cash", "15000.00", "--json")
            assert done.returncode == 0, done.stderr
            load.wait_told(100)

            done = town.cli("branches", "retire", PUNE)
            assert done.returncode == 0, done.stderr
            assert "retired: Pune" in done.stdout
            assert town.cli("branches", "retire", PUNE).returncode == 0, "asking again is safe"
            assert town.listed() == {"Mumbai": "up", "Delhi": "up", PUNE: "retired"}
            for bank in (client, idle):
                with pytest.raises(RemoteFault) as told:
                    bank.transfer("Mumbai/1001", "Pune/1001", "1.00")
                assert told.value.remote_code == "branch_retired"
            shown = bridge.get("/v1/branches").json
            assert [one["name"] for one in shown["branches"]] == ["Delhi", "Mumbai"]
            assert [one["name"] for one in shown["retired"]] == [PUNE]
            assert PUNE not in {one["name"] for one in bridge.get("/v1/cluster").json["actors"]}
            paid = {"from": "Mumbai/1001", "to": "Pune/1001", "amount": "1.00"}
            assert bridge.post("/v1/transfers", paid, key="late").code == "branch_retired"
            assert client.show(moved[0]).status == "committed", "its ids are still answered"
        (act,) = [act for act in town.acts() if act["act"] == "branch_retired"]
        assert act["about"] == "branch Pune"
        assert act["by"]
        assert town.cli("status").returncode == 0, "nothing is missing"
        load.wait_told(100)
        _answers_questions_alone(town, moved[0])
    finally:
        load.close()
        bridge.close()


def _answers_questions_alone(town: Town, id: str) -> None:
    """A retired branch at its own address, also after a new start; one of its name with other data is no branch."""
    for _ in range(2):
        assert "Pune is retired" in town.output(PUNE) or "Pune was retired" in town.output(PUNE)
        with town.client(PUNE) as client:
            assert len(client.statement("Pune/1001").entries) == 2
            assert client.show(id, account="Pune/1001").status == "committed"
            done = client.deposit("Pune/1001", "1.00")
            assert done.refusal is not None
            assert done.refusal.code == "branch_retired"
            with pytest.raises(Refused) as told:
                client.open_account(PUNE, owner="Asha")
            assert told.value.refusal_code == "branch_retired"
        shown = town.cli("status", endpoint=town.endpoints[PUNE])
        assert shown.returncode == 0, shown.stderr
        assert f"branch       Pune         {town.endpoints[PUNE]}  up, alarm" in shown.stdout
        assert "alarm: Pune: branch Pune was retired by" in shown.stdout
        assert town.stop(PUNE) == 0
        town.add(PUNE)
    assert town.stop(PUNE) == 0
    assert town.cli("status").returncode == 0, "nobody misses it"
    town.flags[PUNE] = ("--data", str(town.folder / "other data"))
    town.add(PUNE)
    wait_until(lambda: "give this branch another one" in town.output(PUNE), what="the name is not used again")
    assert town.listed()[PUNE] == "retired"


def test_only_an_operator_retires(locked_town: Town) -> None:
    town = locked_town
    for name, role in (("till-4", "teller"), ("watch", "auditor"), (PUNE, "branch")):
        assert town.cli("keys", "add", name, "--role", role).returncode == 0
    town.add(PUNE)
    town.wait_state(PUNE, "up")
    for name in ("till-4", "watch"):
        refused = town.cli("branches", "retire", PUNE, "--key", name)
        assert refused.returncode == 1
        assert "forbidden" in refused.stderr
    assert town.listed()[PUNE] == "up"
    done = town.cli("branches", "retire", PUNE, "--key", "operator", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["retired_by"] == "operator"


def test_a_mistyped_name_is_no_branch_for_ever(town: Town) -> None:
    town.add("Pnue")
    town.wait_state("Pnue", "up")
    assert town.cli("branches", "retire", "Pnue").returncode == 0
    assert town.listed()["Pnue"] == "retired"
    assert town.stop("Pnue") == 0
    refused = town.cli("branches", "retire", "Lima")
    assert refused.returncode == 1
    assert "branch_not_found" in refused.stderr
    town.stop("Delhi")
    town.wait_state("Delhi", "down")
    refused = town.cli("branches", "retire", "Delhi")
    assert refused.returncode == 1
    assert "only itself can say that it is empty" in refused.stderr


def test_the_launcher_does_not_wait_for_a_retired_branch(tmp_path: Path) -> None:
    """The config file still names it."""
    stage = Cluster(tmp_path)
    launcher = Launcher(stage)
    try:
        launcher.wait_for(OPEN)
        with stage.client() as client:
            empty(client, "Delhi")
            client.transfer("Mumbai/cash", "Delhi/cash", "15000.00")
            client.retire_branch("Delhi")
        assert launcher.stop() == 0
        launcher = Launcher(stage)
        launcher.wait_for(OPEN)
        launcher.wait_for("branch Delhi was retired")
        with stage.client("Delhi") as client:
            assert client.balance("Delhi/1001") == "0.00"
        assert launcher.stop() == 0
    finally:
        launcher.close()
