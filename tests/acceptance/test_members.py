"""Branches come, move and go while the bank runs: real processes, under load, with keys, killed in the middle."""

from __future__ import annotations

import json
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.cluster import CLUSTER_NAME, Cluster, free_ports, wait_until
from tests.acceptance.load import ClusterLoad, own_status, verify_files
from tests.acceptance.rest import Rest
from zbank import Client
from zbank.errors import Refused, RemoteFault, ZbankError

FOLLOW_S = 10.0  #: so long at the most until everybody has followed
PUNE = "Pune"


class Town(Cluster):
    """A cluster whose further branches are started by flags: no config file names them."""

    def add(self, name: str, *flags: str, at: str = "", ready: bool = True) -> None:
        """Start a branch with its data in a folder of its own."""
        self.endpoints[name] = at or self.endpoints.get(name) or f"tcp://127.0.0.1:{free_ports(1)}"
        data = self.flags.setdefault(name, ("--data", str(self.folder / name)))
        port = self.endpoints[name].rsplit(":", 1)[1]
        where = ("--port", port, "--coordinator", self.endpoint, "--cluster", CLUSTER_NAME)
        self.spawn_actor(name, *where, *data, *flags)
        if ready:
            self.wait_ready(name)

    def listed(self) -> dict[str, str]:
        """What `zbank branches list` says: the state of each."""
        done = self.cli("branches", "list", "--json")
        assert done.returncode == 0, done.stderr
        told = json.loads(done.stdout)
        return {one["name"]: one["state"] for one in (*told["branches"], *told["retired"])}

    def wait_state(self, name: str, state: str) -> None:
        """Wait until the coordinator says so."""
        with self.client() as client:
            wait_until(lambda: _state(client, name) == state, FOLLOW_S, f"{name} is {state}")

    def acts(self) -> list[dict[str, Any]]:
        """Of those in charge, the newest first."""
        told: list[dict[str, Any]] = json.loads(self.cli("acts", "--json").stdout)["acts"]
        return told


def _state(client: Client, name: str) -> str:
    states = {info.name: "up" if info.up else "down" for info in client.branches()}
    states |= {info.name: "retired" for info in client.retired_branches()}
    return states.get(name, "")


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
            assert time.monotonic() - began < FOLLOW_S
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


def empty(client: Client) -> list[str]:
    """The customers of Pune take their money to Mumbai, and their accounts are closed; gives the ids of the transfers."""
    ids = []
    for number in ("1001", "1002"):
        balance = client.balance(f"{PUNE}/{number}")
        ids.append(client.transfer(f"{PUNE}/{number}", "Mumbai/1001", balance).id)
        client.change_account(f"{PUNE}/{number}", status="closed")
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
        assert any("only answers questions" in alarm for alarm in own_status(town, PUNE).alarms)
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


# --- killed in the middle ---------------------------------------------------------------------------------------------


def files_of(town: Town, name: str) -> list[Path]:
    """The data of an actor."""
    flags = town.flags.get(name, ())
    folder = Path(flags[1]) if flags else town.data
    return [file for file in folder.glob(f"{name}.db*") if file.suffix not in (".lock", ".reserve")]


def test_the_coordinator_dies_after_the_branch_has_closed(town: Town) -> None:
    """It is put back to just before its own record: what a crash between the two leaves behind."""
    town.add(PUNE)
    town.wait_state(PUNE, "up")
    kept = {file: file.read_bytes() for file in files_of(town, "coordinator")}
    assert town.cli("branches", "retire", PUNE).returncode == 0
    town.kill("coordinator")
    for file in files_of(town, "coordinator"):
        file.unlink()
    for file, content in kept.items():
        file.write_bytes(content)
    town.start("coordinator")
    town.wait_state(PUNE, "retired")
    assert [act["act"] for act in town.acts()].count("branch_retired") == 1


def test_an_old_copy_of_a_retired_branch_closes_again(town: Town) -> None:
    town.add(PUNE)
    town.wait_state(PUNE, "up")
    kept = {file: file.read_bytes() for file in files_of(town, PUNE)}
    assert town.cli("branches", "retire", PUNE).returncode == 0
    town.kill(PUNE)
    for file in files_of(town, PUNE):
        file.unlink()
    for file, content in kept.items():
        file.write_bytes(content)
    town.add(PUNE)
    wait_until(lambda: any("retired" in alarm for alarm in own_status(town, PUNE).alarms), what="it has heard of its end")
    assert town.listed()[PUNE] == "retired"


def test_kill_9_at_any_moment_of_retiring(town: Town) -> None:
    """Both agree in the end; asked again it comes to the same; and money goes on to move."""
    load = ClusterLoad(town, 15)
    try:
        names = [f"Pune-{n}" for n in range(4)]
        for name in names:
            town.add(name, ready=False)
        for name in names:
            town.wait_state(name, "up")
        for n, name in enumerate(names):
            victim = name if n % 2 else "coordinator"
            with town.client() as client:

                def ask(client: Client = client, name: str = name) -> None:
                    with suppress(ZbankError):
                        client.retire_branch(name)

                client.branches()
                thread = threading.Thread(target=ask)
                thread.start()
                time.sleep(0.002 * n)
                town.kill(victim)
                if victim == "coordinator":
                    town.start(victim)
                else:
                    town.add(name)
                thread.join()
            town.wait_registered()
            with town.client() as client:
                wait_until(lambda name=name: _retired(client, name), 20, f"{name} is retired")  # type: ignore[misc]
            assert any("retired" in alarm for alarm in own_status(town, name).alarms)
        load.wait_told(100)
        load.check()
        for name in names:
            assert town.stop(name) == 0
        verify_files(town)
    finally:
        load.close()


def _retired(client: Client, name: str) -> bool:
    try:
        return client.retire_branch(name).name == name
    except ZbankError:
        return False
