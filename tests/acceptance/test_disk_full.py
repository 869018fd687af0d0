"""A full disk under one actor: clear words, no promise lost, and work goes on by itself when there is room."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from tests.acceptance.cluster import Cluster, wait_until
from tests.acceptance.load import ClusterLoad, own_status, verify_files
from zbank.errors import RemoteFault

DISK_BYTES = 96 << 20  # the reserve takes 32 MiB of it, and new work needs as much again
BRANCHES = ("Mumbai", "Delhi")
CHUNK_BYTES = 1 << 16


@contextmanager
def small_disk(place: Path) -> Iterator[None]:
    """A file system of its own at `place`."""
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "zbank-test", str(place)]
    mounted = subprocess.run(command, capture_output=True, text=True, check=False)
    if mounted.returncode != 0:
        pytest.skip(f"NOT TESTED: no small disk can be mounted here: {mounted.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


@pytest.fixture(params=["Delhi", "coordinator"])
def bank(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Cluster, str, Path]]:
    """A cluster, one actor of which has its data on a small disk."""
    if sys.platform != "linux" or os.geteuid() != 0:
        pytest.skip("NOT TESTED: a small disk can be mounted by root on Linux only")
    victim = str(request.param)
    disk = tmp_path / "disk"
    with small_disk(disk):
        cluster = Cluster(tmp_path, BRANCHES)
        cluster.flags[victim] = ("--data", str(disk))
        try:
            cluster.start_all()
            yield cluster, victim, disk
        finally:
            cluster.close()


def fill(disk: Path) -> Path:
    """Take all that is free, to the last page."""
    ballast = disk / "ballast"
    chunk = bytes(CHUNK_BYTES)
    with ballast.open("ab", buffering=0) as file, pytest.raises(OSError, match="No space left"):
        file.writelines(chunk for _ in range(DISK_BYTES))
    return ballast


def has_alarm(cluster: Cluster, name: str) -> bool:
    return any("disk is full" in alarm for alarm in own_status(cluster, name).alarms)


def test_a_full_disk_under_a_load(bank: tuple[Cluster, str, Path]) -> None:
    """Full to the last byte while transfers are prepared and decided; then the reserve is used up as well; then room."""
    cluster, victim, disk = bank
    with closing(ClusterLoad(cluster, 21, timeout_s=4)) as load:
        load.wait_told(200)
        ballast = fill(disk)
        wait_until(lambda: has_alarm(cluster, victim), what="the alarm")
        ballast_again = fill(disk)  # what the reserve gave back
        assert ballast_again == ballast
        wait_until(lambda: load.history.faults["storage_full"] > 20, what="customers being told")
        with cluster.client() as client:
            with pytest.raises(RemoteFault) as refused:
                client.transfer("Mumbai/1001", "Delhi/1001", 1, id="told")
            assert refused.value.remote_code == "storage_full"
            if victim == "Delhi":
                with pytest.raises(RemoteFault, match="the disk is full: not done, or not known; the same id may be sent"):
                    client.deposit("Delhi/1001", 1, id="told too")
            assert client.transfer("Mumbai/1001", "Mumbai/1002", 1, id="elsewhere").status == "committed"
            assert client.account("Delhi/1001").currency == "INR", "what is in memory is answered"
        assert "alarm" in cluster.cli("status").stdout
        assert cluster.processes[victim].poll() is None

        ballast.unlink()
        wait_until(lambda: not has_alarm(cluster, victim), what="the end of the alarm, by itself")
        load.wait_told(200)
        load.check(others=("elsewhere",))
    assert "there is room on the disk again: going on" in cluster.output(victim)
    assert "Traceback" not in cluster.output(victim)
    verify_files(cluster)


def test_an_actor_that_starts_on_a_full_disk_waits_for_room(bank: tuple[Cluster, str, Path]) -> None:
    """What the old process left is enough to serve reads and to finish what is promised."""
    cluster, victim, disk = bank
    with cluster.client() as client:
        assert client.transfer("Mumbai/1001", "Delhi/1001", 1, id="before").status == "committed"
    cluster.kill(victim)
    for reserve in disk.glob("*.reserve"):
        reserve.unlink()
    ballast = fill(disk)
    cluster.start(victim)
    wait_until(lambda: has_alarm(cluster, victim), what="the alarm")
    ballast.unlink()
    wait_until(lambda: not has_alarm(cluster, victim), what="the end of the alarm, by itself")
    cluster.wait_registered()
    with cluster.client() as client:
        again = client.transfer("Mumbai/1001", "Delhi/1001", 1, id="before")
        assert (again.status, again.replayed) == ("committed", True)
        assert client.transfer("Mumbai/1001", "Delhi/1001", 1).status == "committed"
