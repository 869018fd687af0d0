"""`run_cluster.py` as a new user meets it: real processes, real signals, and nothing left behind."""

from __future__ import annotations

import os
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest

from tests.acceptance.cluster import Cluster, free_ports, wait_until

ROOT = Path(__file__).parents[2]
PROGRAM = ROOT / "run_cluster.py"
OPEN = "The bank is open"
ALL_SAID = "Ctrl-C stops everything"  #: the last of the first words
START_LIMIT_S = 40.0
STOP_LIMIT_S = 30.0


class Launcher:
    """One run of the launcher on the config of a `Cluster` whose own processes are not started."""

    def __init__(self, cluster: Cluster, *arguments: str) -> None:
        self.cluster = cluster
        self.log = cluster.folder / "launcher.log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, str(PROGRAM), "--config", str(cluster.config), *arguments],
                cwd=cluster.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    @property
    def output(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace")

    def wait_for(self, text: str, limit_s: float = START_LIMIT_S) -> None:
        def is_there() -> bool:
            if text in self.output:
                return True
            if self.process.poll() is not None:
                pytest.fail(f"the launcher ended with {self.process.returncode}:\n{self.output}")
            return False

        wait_until(is_there, limit_s, f"{text!r} in the output:\n{self.output}")

    def complaints(self) -> list[str]:
        """What it logged that is not in order; but a slow machine, where one part waits for another for seconds, is."""
        lines = [line for line in self.output.splitlines() if re.search("ERROR|WARNING|Traceback", line)]
        errors = r"ERROR: (no answer from|.*: out_of_office: |\S+ has stopped: )"
        waits = rf"{errors}|WARNING: (\S+ goes on: |coordinator \S+ is silent: )"
        return [line for line in lines if not re.search(waits, line)]

    def stop(self, number: signal.Signals = signal.SIGINT) -> int:
        self.process.send_signal(number)
        return self.process.wait(STOP_LIMIT_S)

    def pids(self) -> dict[str, int]:
        """Process ids of the actors as the launcher printed them last, by name."""
        found = re.findall(r"│ (?:coordinator|branch) +│ (\S+) +│ \S+ +│ (\d+) +│", self.output)
        found += re.findall(r"^(\S+) is started again \(process id (\d+)\)$", self.output, re.MULTILINE)
        return {name: int(pid) for name, pid in found}

    def close(self) -> None:
        if self.process.poll() is None:
            try:
                self.stop()
            except subprocess.TimeoutExpired:
                self.process.kill()
        self.process.wait()


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.fixture
def stage(tmp_path: Path) -> Cluster:
    """A config with free ports, data folder and command line; nothing runs."""
    return Cluster(tmp_path)


@pytest.fixture
def runs() -> Iterator[list[Launcher]]:
    made: list[Launcher] = []
    yield made
    for launcher in made:
        launcher.close()


def balance(stage: Cluster, account: str) -> str:
    done = stage.cli("balance", account)
    assert done.returncode == 0, done.stderr
    (found,) = re.findall(r"\d+\.\d\d", done.stdout)
    return str(found)


def test_start_use_stop_and_go_on_with_the_data(stage: Cluster, runs: list[Launcher]) -> None:
    runs.append(first := Launcher(stage))
    first.wait_for(ALL_SAID)
    assert set(first.pids()) == {"coordinator", "Mumbai", "Delhi"}
    assert f"export ZBANK_ENDPOINT={stage.endpoint}" in first.output
    steps = re.findall(r"^    zbank (.+)$", first.output, re.MULTILINE)
    assert steps == ["status", "accounts", "transfer Mumbai/1001 Delhi/1002 50", "statement Mumbai/1001"]
    for step in steps:
        done = stage.cli(*step.split())
        assert (done.returncode, done.stderr) == (0, ""), step
    for account, now in (("Mumbai/1001", "9950.00"), ("Delhi/1002", "5050.00")):
        wait_until(lambda is_so=(account, now): balance(stage, is_so[0]) == is_so[1], what=f"{now} at {account}")  # type: ignore[misc]
    pids = first.pids()
    assert first.stop(signal.SIGINT) == 0
    assert "stopped; the data is kept" in first.output
    assert not any(map(is_alive, pids.values()))

    runs.append(second := Launcher(stage))
    second.wait_for(OPEN)
    assert balance(stage, "Delhi/1002") == "5050.00"
    assert second.stop(signal.SIGTERM) == 0

    (stage.data / "Mumbai.db.copy").write_text("not the launcher's")
    runs.append(third := Launcher(stage, "--fresh"))
    third.wait_for(OPEN)
    assert balance(stage, "Delhi/1002") == "5000.00"
    assert "removed the data of the branch Delhi" in third.output
    assert (stage.data / "Mumbai.db.copy").exists()


def test_what_dies_is_started_again(stage: Cluster, runs: list[Launcher]) -> None:
    runs.append(launcher := Launcher(stage))
    launcher.wait_for(OPEN)
    for name in ("Delhi", "coordinator"):
        os.kill(launcher.pids()[name], signal.SIGKILL)
        launcher.wait_for(f"{name} is started again")
        wait_until(
            lambda: stage.cli("transfer", "Mumbai/1001", "Delhi/1002", "1", "--timeout", "5").returncode == 0,
            what=f"a transfer after the end of {name}",
        )
    assert launcher.stop() == 0


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's help against orphans is Linux's")
def test_a_killed_launcher_takes_all_with_it(stage: Cluster, runs: list[Launcher]) -> None:
    runs.append(launcher := Launcher(stage))
    launcher.wait_for(ALL_SAID)
    pids = launcher.pids()
    launcher.process.kill()
    launcher.process.wait()
    wait_until(lambda: not any(map(is_alive, pids.values())), what="the end of all actors")


def test_when_nobody_reads_its_output_it_still_stops_cleanly(stage: Cluster) -> None:
    reader, writer = os.pipe()
    command = [sys.executable, str(PROGRAM), "--config", str(stage.config)]
    with subprocess.Popen(command, cwd=stage.folder, stdout=writer) as process:
        os.close(writer)
        os.close(reader)
        try:
            for account in ("Mumbai/1001", "Delhi/1001"):  # each serves, and so knows how to stop
                wait_until(lambda name=account: stage.cli("balance", name).returncode == 0, START_LIMIT_S, "an open bank")  # type: ignore[misc]
            process.send_signal(signal.SIGHUP)
            assert process.wait(STOP_LIMIT_S) == 0
        finally:
            process.kill()
    assert not list(stage.data.glob("*.db-wal")), "an actor did not close its store"


def test_more_branches_than_the_file_has(stage: Cluster, runs: list[Launcher]) -> None:
    runs.append(launcher := Launcher(stage, "--branches", "4"))
    launcher.wait_for(ALL_SAID)
    assert set(launcher.pids()) == {"coordinator", "Mumbai", "Delhi", "Branch3", "Branch4"}
    assert stage.cli("transfer", "Branch3/1001", "Branch4/1002", "50").returncode == 0
    assert launcher.stop() == 0
    runs.append(one := Launcher(stage, "--branches", "1"))
    one.wait_for(ALL_SAID)
    assert set(one.pids()) == {"coordinator", "Mumbai"}
    assert "    zbank transfer Mumbai/1001 Mumbai/1002 50\n" in one.output


def test_the_data_folder_can_be_given(stage: Cluster, runs: list[Launcher]) -> None:
    runs.append(launcher := Launcher(stage, "--data", "other"))
    launcher.wait_for(OPEN)
    assert (stage.folder / "other" / "Mumbai.db").exists()
    assert not stage.data.exists()


@pytest.mark.parametrize("name", ["coordinator", "Delhi"])
def test_a_busy_port_is_named_with_its_key_before_anything_starts(
    stage: Cluster, runs: list[Launcher], name: str
) -> None:
    port = int(stage.endpoints[name].rpartition(":")[2])
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("127.0.0.1", port))
        other.listen()
        runs.append(launcher := Launcher(stage, "--fresh"))
        assert launcher.process.wait(START_LIMIT_S) == 2
    key = name if name == "coordinator" else f"branches.{name}"
    assert launcher.output.startswith(f"run_cluster.py: {stage.config}: {key}.endpoint: port {port} is taken ")
    assert launcher.output.count("\n") == 1
    assert not stage.data.exists()


def test_a_second_launcher_leaves_the_first_alone(stage: Cluster, runs: list[Launcher], tmp_path: Path) -> None:
    (tmp_path / "twin").mkdir()
    runs.append(first := Launcher(stage))
    first.wait_for(OPEN)
    twin = Cluster(tmp_path / "twin")
    twin.config.write_text(twin.config.read_text().replace(str(twin.data), str(stage.data)))  # other ports, the same data
    runs.append(second := Launcher(twin, "--fresh"))
    assert second.process.wait(START_LIMIT_S) == 1
    assert re.search(r"coordinator\.db is in use by another process", second.output)
    assert stage.cli("transfer", "Mumbai/1001", "Delhi/1002", "1").returncode == 0


def test_an_actor_that_cannot_run_stops_all_with_its_reason(stage: Cluster, runs: list[Launcher]) -> None:
    stage.data.mkdir()
    with closing(sqlite3.connect(stage.data / "Delhi.db")) as foreign:
        foreign.execute("CREATE TABLE photos (name TEXT)")
        foreign.commit()
    runs.append(launcher := Launcher(stage))
    assert launcher.process.wait(START_LIMIT_S) == 1
    assert re.search(r"^Delhi +\| .*Delhi\.db is a database of another program", launcher.output, re.MULTILINE)
    assert "Delhi cannot run, its last lines above say why: everything is stopped" in launcher.output
    assert stage.cli("status", "--timeout", "1").returncode != 0


def test_a_wrong_config_is_one_line(stage: Cluster, runs: list[Launcher]) -> None:
    stage.config.write_text(stage.config.read_text().replace("preload", "prelod"))
    runs.append(launcher := Launcher(stage))
    assert launcher.process.wait(START_LIMIT_S) == 2
    assert launcher.output == (
        f"run_cluster.py: {stage.config}: branches.Mumbai.prelod: unknown key; did you mean 'preload'?\n"
    )


def test_the_bridge_and_the_dashboard_are_started_and_come_back(stage: Cluster, runs: list[Launcher]) -> None:
    rest, pages = free_ports(1), free_ports(1)
    stage.config.write_text(stage.config.read_text() + f"\n[rest]\nport = {rest}\n\n[dashboard]\nport = {pages}\n")
    runs.append(launcher := Launcher(stage))
    launcher.wait_for(ALL_SAID, 60.0)
    assert f"In a browser: http://127.0.0.1:{pages} shows the bank" in launcher.output
    found = re.search(rf"│ dashboard +│ +│ http://127.0.0.1:{pages} +│ (\d+) +│", launcher.output)
    assert found is not None, launcher.output
    os.kill(int(found[1]), signal.SIGKILL)
    launcher.wait_for("dashboard is started again")
    url = f"http://127.0.0.1:{pages}/_stcore/health"

    def is_back() -> bool:
        with suppress(OSError), urllib.request.urlopen(url, timeout=2):
            return True
        return False

    wait_until(is_back, 60.0, "the dashboard is back")
    assert launcher.stop() == 0
    assert not is_back()


def test_without_bridge_and_dashboard(stage: Cluster, runs: list[Launcher]) -> None:
    stage.config.write_text(stage.config.read_text() + "\n[rest]\nport = 1\n\n[dashboard]\nport = 2\n")
    runs.append(launcher := Launcher(stage, "--no-rest", "--no-dashboard"))
    launcher.wait_for(ALL_SAID)
    assert "In a browser" not in launcher.output


@pytest.mark.parametrize("count", ["0", "-1", "x", "1.5", "1001", "9" * 30])
def test_numbers_of_branches_that_are_none(stage: Cluster, runs: list[Launcher], count: str) -> None:
    runs.append(launcher := Launcher(stage, f"--branches={count}"))
    assert launcher.process.wait(START_LIMIT_S) == 2
    assert f"'{count}' is no number of branches: give 1 to 1000" in launcher.output


def test_without_the_packages_one_line_says_what_to_type(tmp_path: Path) -> None:
    command = [sys.executable, "-S", str(PROGRAM)]  # -S: no site-packages
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch(r"run_cluster.py needs the package \w+; type: make run\n", done.stderr)
