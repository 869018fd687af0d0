"""Coordinators that announce themselves, found by branches, commands and a bridge: real processes, real multicast."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.cluster import COMMAND_LIMIT_S, ROOT, STOP_LIMIT_S, free_ports, wait_until
from tests.transport.lan import needs_multicast, outward_address
from zbank.apps import keymaking
from zbank.apps.cli.finding import something_listens_here
from zbank.transport.keyfolder import NAME_VARIABLE
from zbank.transport.keys import KEYS_VARIABLE

pytestmark = needs_multicast

FOUND_LIMIT_S = 60.0  #: announcing takes 1.7 s, a branch looks again every 10 s


class OnTheNetwork:
    """One bank by flags alone, with keys, its parts listening on all addresses of this machine."""

    def __init__(self, folder: Path, cluster: str) -> None:
        self.folder = folder / cluster
        self.folder.mkdir(parents=True)
        self.cluster = cluster
        self.keys = self.folder / "keys"
        keymaking.make_all(self.keys, cluster, ("Mumbai",))
        self.port = free_ports(4)  # the feed takes the two after the coordinator's
        self.endpoint = f"tcp://{outward_address()}:{self.port}"
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    def environment(self, keys: Path | None) -> dict[str, str]:
        told = {"PYTHONPATH": str(ROOT), KEYS_VARIABLE: str(keys or ""), NAME_VARIABLE: "", "ZBANK_ENDPOINT": ""}
        return {**os.environ, **told}

    def start(self, name: str, *arguments: str, keys: Path | None = None) -> None:
        command = [sys.executable, "-m", "zbank.apps.cli", *arguments]
        with (self.folder / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                command,
                cwd=self.folder,
                env=self.environment(keys or self.keys),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def start_coordinator(self, *flags: str) -> None:
        flags = flags or ("--host", "0.0.0.0")
        self.start("coordinator", "coordinator", *flags, "--port", str(self.port), "--cluster", self.cluster)

    def start_branch(self, keys: Path | None = None) -> None:
        place = ("--host", "0.0.0.0", "--port", str(self.port + 3), "--cluster", self.cluster)
        self.start("Mumbai", "branch", "--name", "Mumbai", "--preload", *place, keys=keys)

    def said(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text("utf-8")

    def wait_said(self, name: str, text: str) -> None:
        def is_said() -> bool:
            assert self.processes[name].poll() is None, self.said(name)
            return text in self.said(name)

        wait_until(is_said, FOUND_LIMIT_S, f"{text!r} in the log of {name}")

    def wait_announced(self) -> None:
        self.wait_said("coordinator", f"cluster {self.cluster!r} is announced on the local network: ")

    def zbank(self, *arguments: str, keys: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a command that is told no place."""
        return subprocess.run(
            [sys.executable, "-m", "zbank.apps.cli", *arguments],
            cwd=self.folder,
            env=self.environment(self.keys if keys else None),
            capture_output=True,
            text=True,
            timeout=COMMAND_LIMIT_S,
            check=False,
        )

    def find(self, *arguments: str, keys: bool = True) -> subprocess.CompletedProcess[str]:
        """The same of a bank that is announced; once more where the network was too slow to tell."""
        told: list[subprocess.CompletedProcess[str]] = []

        def is_found() -> bool:
            told.append(self.zbank(*arguments, keys=keys))
            return "announces itself" not in told[-1].stderr

        wait_until(is_found, FOUND_LIMIT_S, f"the bank for {arguments}")
        return told[-1]

    def stop(self, name: str, number: signal.Signals = signal.SIGTERM) -> int:
        self.processes[name].send_signal(number)
        return self.processes[name].wait(STOP_LIMIT_S)

    def close(self) -> None:
        for process in self.processes.values():
            if process.poll() is None:
                process.kill()
            process.wait(STOP_LIMIT_S)


@pytest.fixture(scope="module")
def bank(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OnTheNetwork]:
    """A coordinator, and a branch that was told no place and started first."""
    bank = OnTheNetwork(tmp_path_factory.mktemp("lan"), f"lan-{os.getpid()}")
    try:
        bank.start_branch()
        bank.wait_said("Mumbai", " serves at ")
        bank.start_coordinator()
        bank.wait_announced()
        bank.wait_said("Mumbai", f"registered with the coordinator at {bank.endpoint}")
        yield bank
    finally:
        bank.close()


@pytest.fixture
def other(tmp_path: Path) -> Iterator[OnTheNetwork]:
    """Another bank, not started."""
    bank = OnTheNetwork(tmp_path, f"other-{os.getpid()}")
    yield bank
    bank.close()


@pytest.fixture
def nobody_here() -> None:
    """Without a place the commands take what listens at the usual one: another bank's, if one runs here."""
    end = time.monotonic() + FOUND_LIMIT_S
    while something_listens_here():
        if time.monotonic() > end:
            pytest.skip("PORT 9000 IS TAKEN, so a command without an address cannot be tested: end what listens there")
        time.sleep(0.5)


def discovered(bank: OnTheNetwork) -> dict[str, str]:
    """Endpoint by cluster, as `zbank discover --json` tells."""
    done = bank.zbank("discover", "--json", keys=False)
    assert done.returncode in (0, 1), done.stderr
    listed: list[dict[str, Any]] = json.loads(done.stdout)["clusters"]
    return {one["cluster"]: one["endpoint"] for one in listed}


def actors(done: subprocess.CompletedProcess[str]) -> dict[str, str]:
    """State by name, as `zbank status --json` tells."""
    assert done.returncode == 0, done.stderr
    return {one["name"]: one["state"] for one in json.loads(done.stdout)["actors"]}


def test_it_is_listed(bank: OnTheNetwork) -> None:
    wait_until(lambda: discovered(bank).get(bank.cluster) == bank.endpoint, FOUND_LIMIT_S, "the bank in the list")

    def is_in_the_table() -> bool:
        table = bank.zbank("discover", keys=False)
        return table.returncode == 0 and f"{bank.cluster}  {bank.endpoint}" in table.stdout

    wait_until(is_in_the_table, FOUND_LIMIT_S, "the bank in the table")


@pytest.mark.usefixtures("nobody_here")
def test_a_command_without_an_address_finds_the_bank_of_its_keys(bank: OnTheNetwork) -> None:
    done = bank.find("status", "--json")
    assert actors(done) == {"coordinator": "up", "Mumbai": "up"}
    assert done.stderr == f"note: cluster '{bank.cluster}' is announced at {bank.endpoint}\n"
    paid = bank.find("transfer", "Mumbai/1001", "Mumbai/1002", "5")
    assert paid.returncode == 0, paid.stderr


def test_two_are_told_apart(bank: OnTheNetwork, other: OnTheNetwork) -> None:
    other.start_coordinator()
    other.wait_announced()
    both = {bank.cluster: bank.endpoint, other.cluster: other.endpoint}
    wait_until(lambda: discovered(bank).items() >= both.items(), FOUND_LIMIT_S, "both in the list")
    assert actors(bank.find("status", "--json", "--cluster", bank.cluster)) == {"coordinator": "up", "Mumbai": "up"}
    assert actors(other.find("status", "--json", "--cluster", other.cluster)) == {"coordinator": "up"}
    wrong = bank.zbank("status", "--cluster", other.cluster)
    assert wrong.returncode == 2
    assert wrong.stderr.startswith(f"config: the keys in {bank.keys} are of cluster '{bank.cluster}', not of ")


@pytest.mark.long  # on a busy machine one of the two may not be heard of for long
def test_two_of_one_name_are_listed_and_none_is_taken(other: OnTheNetwork, tmp_path: Path) -> None:
    twin = OnTheNetwork(tmp_path / "twin", other.cluster)
    try:
        for one in (other, twin):
            one.start_coordinator()
            one.wait_announced()
        said = f"failed: several_found: cluster '{other.cluster}' is announced at more than one place"

        def are_both_listed() -> bool:
            """Who has just said it to all does not say it again within a second (RFC 6762, 6): one may be missed at first."""
            done = other.zbank("status", "--cluster", other.cluster)
            return done.stderr.startswith(said) and other.endpoint in done.stderr and twin.endpoint in done.stderr

        wait_until(are_both_listed, FOUND_LIMIT_S, "both of one name are listed")
        other.start_branch()  # it tries both, and only one has the right key
        other.wait_said("Mumbai", f"registered with the coordinator at {other.endpoint}")
    finally:
        twin.close()


def test_who_stops_withdraws_and_who_was_killed_does_not_answer(other: OnTheNetwork) -> None:
    for number, code in ((signal.SIGTERM, 0), (signal.SIGKILL, -signal.SIGKILL)):
        other.start_coordinator()
        wait_until(lambda: other.cluster in discovered(other), FOUND_LIMIT_S, "the announcement")
        assert other.stop("coordinator", number) == code
        assert other.cluster not in discovered(other)
    done = other.zbank("status", "--cluster", other.cluster)
    assert done.returncode == 1
    assert done.stderr.startswith(f"failed: cluster_not_found: no coordinator of cluster '{other.cluster}' announces itself")
    assert "Traceback" not in other.said("coordinator")


def test_a_coordinator_of_this_machine_alone_is_not_announced(other: OnTheNetwork) -> None:
    other.start_coordinator("--host", "127.0.0.1")
    other.wait_said("coordinator", " serves at ")
    time.sleep(2.5)  # it would be there by now
    assert other.cluster not in discovered(other)
    assert "announced" not in other.said("coordinator")


def test_other_keys_do_not_get_in(bank: OnTheNetwork, tmp_path: Path) -> None:
    stranger = OnTheNetwork(tmp_path, bank.cluster)  # keys of its own, under the same name
    try:
        done = stranger.find("status", "--cluster", bank.cluster, "--timeout", "3")
        assert done.returncode == 1
        assert f"failed: unreachable: no answer from {bank.endpoint}" in done.stderr
        stranger.start_branch()
        stranger.wait_said("Mumbai", f"is announced on the local network at {bank.endpoint}")
        stranger.wait_said("Mumbai", "ERROR: no answer from tcp://127.0.0.1:9000 or ")
        assert "registered" not in stranger.said("Mumbai")
        assert stranger.stop("Mumbai") == 0
        assert "Traceback" not in stranger.said("Mumbai")
    finally:
        stranger.close()


@pytest.mark.usefixtures("nobody_here")
def test_without_keys_nobody_is_looked_for_unless_by_name(bank: OnTheNetwork) -> None:
    done = bank.zbank("status", keys=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("failed: unreachable: no answer from tcp://127.0.0.1:9000: ")
    asked = bank.find("status", "--cluster", bank.cluster, "--timeout", "3", keys=False)
    assert asked.returncode == 1
    note, failed = asked.stderr.splitlines()
    assert note.startswith(f"note: cluster '{bank.cluster}' is announced at {bank.endpoint}; without keys nobody proves")
    assert failed.startswith(f"failed: unreachable: no answer from {bank.endpoint}")


@pytest.mark.usefixtures("nobody_here")
def test_the_bridge_waits_for_the_coordinator_and_finds_it(other: OnTheNetwork) -> None:
    port = free_ports(1)
    other.start("rest", "rest", "--port", str(port))
    other.wait_said("rest", "waits for the coordinator: no coordinator of cluster")
    other.start_coordinator()
    other.wait_said("rest", f"cluster '{other.cluster}' is announced at {other.endpoint}")

    def answers() -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/v1/cluster", timeout=10) as answer:
                return str(json.load(answer)["name"]) == other.cluster
        except OSError:
            return False

    wait_until(answers, FOUND_LIMIT_S, "the bridge's answer")


def test_a_branch_follows_its_coordinator_to_another_port(other: OnTheNetwork) -> None:
    other.start_coordinator()
    other.start_branch()
    other.wait_said("Mumbai", f"registered with the coordinator at {other.endpoint}")
    assert other.stop("coordinator") == 0
    other.port = free_ports(3)
    other.start_coordinator()
    other.wait_said("Mumbai", f"registered with the coordinator at tcp://{outward_address()}:{other.port}")
    done = other.find("status", "--json", "--cluster", other.cluster)
    assert actors(done) == {"coordinator": "up", "Mumbai": "up"}
    assert other.stop("Mumbai") == 0
