"""`run_cluster.py` with a replica of the coordinator in its file, with keys and without (PROTOCOL R3)."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.cluster import wait_until
from tests.acceptance.standby import Office
from tests.acceptance.test_launcher import Launcher
from tests.acceptance.test_replicas_started import READY, runs
from zbank.apps.launcher_setup import SECURE_FOLDER
from zbank.config import STANDBY_NAME
from zbank.errors import ZbankError

__all__ = ["runs"]

pytestmark = pytest.mark.timeout(180)


@pytest.fixture
def office(tmp_path: Path) -> Iterator[Office]:
    """The config; nothing runs."""
    found = Office(tmp_path)
    yield found
    found.close()


def row_of(launcher: Launcher, name: str) -> tuple[str, str]:
    """Role and process id of a line of its table."""
    (found,) = re.findall(rf"│ ([a-z ]+?) +│ {name} +│ \S+ +│ (\S+) +│", launcher.output)
    return found[0], found[1]


@pytest.mark.parametrize("secure", [False, True], ids=["open", "secure"])
def test_a_bank_is_opened_its_coordinator_lost_and_it_is_opened_again(
    office: Office, runs: list[Launcher], secure: bool
) -> None:
    flags = ("--secure",) if secure else ()
    if secure:
        office.keys = office.data / SECURE_FOLDER
    runs.append(first := Launcher(office, *flags))
    first.wait_for(READY)
    assert f"export ZBANK_ENDPOINT={office.places}" in first.output
    assert first.complaints() == []
    assert row_of(first, STANDBY_NAME)[0] == "replica"
    code, _, complaint = office.zbank("transfer", "Mumbai/1001", "Delhi/1002", "5")
    assert (code, complaint) == (0, "")
    assert re.search(r"coordinator-standby +coordinator ", office.zbank("status")[1])

    paused = int(row_of(first, "coordinator")[1])
    os.kill(paused, signal.SIGSTOP)  # killed, it would be started again
    try:
        office.promote()
        office.wait_open()
    finally:
        os.kill(paused, signal.SIGCONT)
    assert office.zbank("transfer", "Mumbai/1001", "Delhi/1002", "5")[0] == 0
    assert first.stop() == 0

    runs.append(again := Launcher(office, *flags))
    again.wait_for(READY)
    assert row_of(again, "coordinator") == ("former coordinator", "-"), "it could answer nobody"
    assert row_of(again, STANDBY_NAME)[0] == "coordinator"
    assert "Traceback" not in again.output
    wait_until(lambda: "9990.00" in office.zbank("balance", "Mumbai/1001")[1], what="both transfers are applied")
    assert again.stop() == 0

    runs.append(fresh := Launcher(office, "--fresh", *flags))
    fresh.wait_for(READY)
    assert "removed the data of the coordinator coordinator of cluster test" in fresh.output
    assert row_of(fresh, STANDBY_NAME)[0] == "replica"
    assert "10000.00" in office.zbank("balance", "Mumbai/1001")[1]


def test_a_bank_whose_replica_cannot_run_goes_on_once_an_operator_says_so(office: Office, runs: list[Launcher]) -> None:
    runs.append(launcher := Launcher(office))
    launcher.wait_for(READY)
    os.kill(int(row_of(launcher, STANDBY_NAME)[1]), signal.SIGSTOP)

    def is_stopped() -> bool:
        try:
            with office.client(timeout_s=2.0) as client:
                return client.contact_status().stopped
        except ZbankError:
            return False

    wait_until(is_stopped, what="the coordinator has stopped")
    told: list[str] = []

    def goes_on_alone() -> bool:
        code, said, complaint = office.zbank("acks", "coordinator", "none")
        told.append(said)
        assert (code, complaint) == (0, "") or "branches_away" in complaint, complaint  # they look for it at its other place
        return code == 0

    wait_until(goes_on_alone, what="a branch is with the coordinator")
    assert "coordinator-standby may lack decisions from now on" in told[-1]
    office.wait_open()
    assert office.zbank("transfer", "Mumbai/1001", "Delhi/1002", "5")[0] == 0
    assert "stands on one disk alone" in office.zbank("status")[1]
    os.kill(int(row_of(launcher, STANDBY_NAME)[1]), signal.SIGCONT)
    office.name_acks(STANDBY_NAME)
    wait_until(lambda: "alarm" not in office.zbank("status")[1], what="all is well")


def test_a_replica_that_has_begun_anew_is_named_again(office: Office) -> None:
    """Its disk was lost. The coordinator has stopped, and does not take it for the one that it waits for."""
    office.start_all()
    office.lose(STANDBY_NAME, STANDBY_NAME)
    office.start_replica(STANDBY_NAME)
    wait_until(lambda: "has begun anew, name it again" in office.zbank("status")[1], what="it says what to do")
    assert office.zbank("transfer", "Mumbai/1001", "Delhi/1002", "5")[0] == 1
    office.name_acks(STANDBY_NAME)
    office.wait_open()
    assert office.zbank("transfer", "Mumbai/1001", "Delhi/1002", "5")[0] == 0
    office.kill("coordinator")
    office.promote()
    office.wait_open()
    wait_until(lambda: "9995.00" in office.zbank("balance", "Mumbai/1001")[1], what="the transfer is applied")
