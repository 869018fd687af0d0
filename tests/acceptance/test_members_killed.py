"""Moving and retiring, interrupted: kill -9 of either side, records that only one of them has, old copies, a coordinator that
is gone for good."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.acceptance.cluster import free_ports, wait_until
from tests.acceptance.load import ClusterLoad, own_status, verify_files
from tests.acceptance.test_participants_settle import LIMIT_S, PlayedCoordinator, prepare, seen
from tests.acceptance.town import Town
from zbank import Client
from zbank.errors import ZbankError
from zbank.protocol.messages import Commit, Registered

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


def copy_of(town: Town, name: str) -> dict[Path, bytes]:
    """The data of an actor that runs, as of one moment: nothing was written while it was read."""
    before: dict[Path, bytes] = {}

    def is_still() -> bool:
        nonlocal before
        now = {file: file.read_bytes() for file in files_of(town, name)}
        is_same, before = now == before, now
        return is_same

    wait_until(is_still, what=f"{name} writes nothing for a moment")
    return before


def files_of(town: Town, name: str) -> list[Path]:
    """The data of an actor."""
    flags = town.flags.get(name, ())
    folder = Path(flags[1]) if flags else town.data
    return [file for file in folder.glob(f"{name}.db*") if file.suffix not in (".lock", ".reserve")]


def test_the_coordinator_dies_after_the_branch_has_closed(town: Town) -> None:
    """It is put back to just before its own record: what a crash between the two leaves behind."""
    town.add(PUNE)
    town.wait_state(PUNE, "up")
    kept = copy_of(town, "coordinator")
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
    kept = copy_of(town, PUNE)
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
            town.wait_ready(name)
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
                wait_until(lambda name=name: _retired(client, name), LIMIT_S, f"{name} is retired")  # type: ignore[misc]
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


def test_a_branch_in_doubt_asks_another_one_where_that_has_moved_to(tmp_path: Path) -> None:
    """Mumbai has the decision and moves; then the coordinator is gone for good. Delhi finds Mumbai."""
    town = Town(tmp_path)
    coordinator = PlayedCoordinator(town.endpoint)
    try:
        for name in town.branches:
            town.start(name)
        coordinator.serve_all()
        decided = prepare(1)
        to_both = tuple((name, decided) for name in town.branches)
        coordinator.serve_until(lambda: len(coordinator.votes) == 2, "both votes", again=to_both)
        commit = Commit(decided.txn, decided.transfer.id, 1)
        coordinator.serve_until(lambda: bool(coordinator.acks), "an ack", again=(("Mumbai", commit),))
        assert town.stop("Mumbai") == 0
        town.flags["Mumbai"] = ("--data", str(town.data))
        town.add("Mumbai", at=f"tcp://127.0.0.1:{free_ports(1)}", ready=False)
        infos, place = coordinator.infos, town.endpoints["Mumbai"]
        coordinator.serve_until(lambda: infos["Mumbai"].endpoint == place, "Mumbai at its new place")
        coordinator.tell("Delhi", Registered("coordinator", 1, tuple(infos.values())))
    finally:
        coordinator.close()
    try:
        wait_until(lambda: seen(town, "Delhi/1002", decided) == "committed", LIMIT_S, "Delhi hearing of the commit from Mumbai")
    finally:
        town.close()
