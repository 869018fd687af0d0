"""Replicas that are started by themselves: by the launcher, and beside a branch; and nothing left behind."""

from __future__ import annotations

import json
import os
import re
import signal
import stat
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.acceptance.cluster import Cluster, wait_until
from tests.acceptance.test_docs import run_python
from tests.acceptance.test_launcher import Launcher, is_alive
from tests.acceptance.test_replica import is_level, start_replica
from tests.docs import ROOT, blocks
from zbank.apps.cli import main
from zbank.errors import ZbankError
from zbank.storage.removal import find_stores
from zbank.transport.keys import read_list

pytestmark = pytest.mark.timeout(180)
FIRST, SECOND = "Mumbai-replica-1", "Mumbai-replica-2"
READY = "Ctrl-C stops everything"


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Cluster]:
    """A config by which Mumbai has two replicas; nothing runs."""
    cluster = Cluster(tmp_path)
    with_replicas(cluster, 2)
    yield cluster
    cluster.close()


@pytest.fixture
def runs() -> Iterator[list[Launcher]]:
    made: list[Launcher] = []
    yield made
    for launcher in made:
        launcher.close()


def with_replicas(cluster: Cluster, count: int) -> None:
    """The same config, with so many replicas of Mumbai."""
    text = re.sub(r"\nreplicas = \d+", "", cluster.config.read_text())
    cluster.config.write_text(text.replace("preload = true", f"preload = true\nreplicas = {count}", 1))


def replicas_of(launcher: Launcher) -> dict[str, int]:
    """Process ids of the replicas that the launcher showed, by name."""
    found = re.findall(r"│ replica +│ (\S+) +│ tcp://127\.0\.0\.1:\d+ +│ (\d+) +│ \S+\.db", launcher.output)
    return {name: int(pid) for name, pid in found}


def children_of(pid: int) -> list[int]:
    """Processes that this one started, and what they started."""
    own = [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return own + [further for child in own for further in children_of(child)]


def of_stage(stage: Cluster) -> list[str]:
    """The command lines of all processes that were started by this config."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):  # it has just ended
            found.append(entry.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
    return [line for line in found if str(stage.config) in line]


def known(cluster: Cluster) -> set[str]:
    """The replicas that the coordinator knows."""
    try:
        with cluster.client(timeout_s=2) as client:
            return {info.name for info in client.replicas()}
    except ZbankError:
        return set()


def is_up(cluster: Cluster, branch: str) -> bool:
    """The coordinator hears of this branch."""
    with cluster.client() as client:
        return any(info.up for info in client.branches() if info.name == branch)


def are_level(cluster: Cluster, *names: str) -> bool:
    """All of these have all that their branch has."""
    with cluster.client() as client:
        return all(is_level(client, name) for name in names)


def test_the_launcher_starts_shows_revives_and_removes_them(stage: Cluster, runs: list[Launcher]) -> None:
    runs.append(launcher := Launcher(stage))
    launcher.wait_for(READY)
    pids = replicas_of(launcher)
    assert set(pids) == {FIRST, SECOND}
    wait_until(lambda: known(stage) == {FIRST, SECOND}, what="two replicas")
    wait_until(lambda: are_level(stage, FIRST, SECOND), what="two level replicas")
    assert "    zbank balance Mumbai/1001 --replica\n" in launcher.output
    assert stage.cli("balance", "Mumbai/1001", "--replica", "--after", "1").stdout.startswith("10000.00 INR (as of row ")
    os.kill(pids[SECOND], signal.SIGKILL)
    launcher.wait_for(f"{SECOND} is started again")
    wait_until(lambda: are_level(stage, FIRST, SECOND), what="two level replicas")
    assert launcher.stop() == 0
    assert not any(map(is_alive, pids.values()))

    with_replicas(stage, 1)
    runs.append(fresh := Launcher(stage, "--fresh"))
    fresh.wait_for(READY)
    assert fresh.output.count("removed the data of the replica Mumbai of cluster test") == 2, "of the one that is no more, too"
    assert set(replicas_of(fresh)) == {FIRST}
    assert not (stage.data / f"{SECOND}.db").exists()
    wait_until(lambda: are_level(stage, FIRST), what="a level replica of the fresh branch")


def test_a_bank_goes_on_without_a_replica_that_cannot_run(stage: Cluster, runs: list[Launcher]) -> None:
    runs.append(launcher := Launcher(stage))
    launcher.wait_for(READY)
    file = stage.data / f"{FIRST}.db"
    os.kill(replicas_of(launcher)[FIRST], signal.SIGSTOP)
    file.rename(file.with_suffix(".away"))
    file.write_text("not a database" * 100)
    os.kill(replicas_of(launcher)[FIRST], signal.SIGKILL)
    launcher.wait_for(f"{FIRST} cannot run, its last lines above say why: the bank goes on without it")
    assert stage.cli("transfer", "Mumbai/1001", "Delhi/1002", "1").returncode == 0
    assert launcher.process.poll() is None
    assert launcher.stop() == 0


def test_a_secure_bank_makes_their_keys(stage: Cluster, runs: list[Launcher], monkeypatch: pytest.MonkeyPatch) -> None:
    with_replicas(stage, 0)
    runs.append(before := Launcher(stage, "--secure"))
    before.wait_for(READY)
    assert before.stop() == 0
    with_replicas(stage, 2)
    runs.append(launcher := Launcher(stage, "--secure"))
    launcher.wait_for(READY)
    folder = stage.data / "secure-keys"
    assert {key.name for key in read_list(folder).keys if key.role == "replica"} == {FIRST, SECOND}
    assert stat.S_IMODE((folder / f"{FIRST}.secret").stat().st_mode) == 0o600
    monkeypatch.setattr(stage, "keys", folder)
    wait_until(lambda: are_level(stage, FIRST, SECOND), what="two level replicas")
    assert stage.cli("balance", "Mumbai/1001", "--replica").returncode == 0
    assert set(replicas_of(launcher)) == {FIRST, SECOND}


def test_keys_are_made_for_the_files_replicas(stage: Cluster) -> None:
    done = stage.cli("keys", "init", "--config", str(stage.config))
    assert done.returncode == 0, done.stderr
    assert re.search(rf"^  {SECOND}\.secret +secret; only for the machine of replica {SECOND}$", done.stdout, re.M)


def test_more_branches_than_the_file_has_keep_the_replicas(stage: Cluster, runs: list[Launcher]) -> None:
    runs.append(launcher := Launcher(stage, "--branches", "3"))
    launcher.wait_for(READY)
    assert set(launcher.pids()) == {"coordinator", "Mumbai", "Delhi", "Branch3"}
    assert set(replicas_of(launcher)) == {FIRST, SECOND}


@pytest.mark.skipif("promote" not in main.commands, reason="promoting a replica is not in this build")
def test_the_launcher_goes_on_with_a_promoted_replica(stage: Cluster, runs: list[Launcher]) -> None:
    with_replicas(stage, 1)
    runs.append(launcher := Launcher(stage))
    launcher.wait_for(READY)
    os.kill(launcher.pids()["Mumbai"], signal.SIGSTOP)
    wait_until(lambda: not is_up(stage, "Mumbai"), what="Mumbai is gone")
    done = stage.cli("promote", "Mumbai", "--replica", FIRST, "--confirm", "promote Mumbai")
    assert (done.returncode, done.stderr) == (0, "")
    os.kill(launcher.pids()["Mumbai"], signal.SIGCONT)
    wait_until(lambda: known(stage) == {"Mumbai-former"}, what="a former branch that follows")
    assert launcher.stop() == 0

    runs.append(again := Launcher(stage))
    again.wait_for(READY)
    assert re.search(rf"│ branch Mumbai +│ {FIRST} +│ tcp://127\.0\.0\.1:\d+ +│ \d+ +│ \S+{FIRST}\.db", again.output)
    assert re.search(r"│ former branch +│ Mumbai +│", again.output)
    assert stage.cli("transfer", "Mumbai/1001", "Delhi/1002", "1").returncode == 0
    assert again.stop() == 0

    runs.append(fresh := Launcher(stage, "--fresh"))
    fresh.wait_for(READY)
    assert set(replicas_of(fresh)) == {FIRST}
    assert set(fresh.pids()) == {"coordinator", "Mumbai", "Delhi"}
    assert stage.cli("balance", "Mumbai/1001").stdout.startswith("10000.00 ")


def test_drills_are_played_without_them(stage: Cluster, runs: list[Launcher]) -> None:
    runs.append(launcher := Launcher(stage, "--drills"))
    launcher.wait_for(READY)
    assert replicas_of(launcher) == {}
    assert known(stage) == set()


def test_the_python_of_the_page_prints_what_it_says(stage: Cluster) -> None:
    page = ROOT / "docs" / "replication.md"
    (program,) = blocks(page, "python")
    said = next(block.text for block in blocks(page, "text") if block.line > program.line)
    start_branch(stage)
    wait_until(lambda: are_level(stage, FIRST, SECOND), what="two level replicas")
    assert run_python(stage, program.text) == said


def test_a_branch_begun_anew_is_not_followed_and_that_is_said(stage: Cluster) -> None:
    """Its data was lost, or is an old copy: a replica keeps what it has, lags, and says why in its log."""
    with_replicas(stage, 0)
    start_branch(stage)
    start_replica(stage, FIRST)
    with stage.client() as client:
        done = client.transfer("Mumbai/1001", "Mumbai/1002", "1")
        assert client.at_replicas(after=done.positions).account("Mumbai/1001").balance_minor == 9_999_00
    for name in ("Mumbai", "coordinator"):
        assert stage.stop(name) == 0
        for file in stage.data.glob(f"{name}.db*"):
            file.unlink()
    start_branch(stage)
    wait_until(lambda: "this replica is ahead of its branch" in stage.output(FIRST), what="a word on missing rows")
    wait_until(lambda: FIRST in known(stage), what="a replica that is still there")
    with stage.client() as client:
        for _ in range(5):
            client.transfer("Mumbai/1001", "Mumbai/1002", "0.01")
        wait_until(lambda: "another one than here" in stage.output(FIRST), what="a word on other rows")
        assert stage.output(FIRST).count("another one than here") == 1
        assert client.at_replicas().account("Mumbai/1001").balance_minor == 9_999_00
        assert client.account("Mumbai/1001").balance_minor == 9_999_95


# --- beside a branch ---------------------------------------------------------------------------------------------------


def start_branch(stage: Cluster, *flags: str) -> None:
    """A coordinator and Mumbai, by its command."""
    stage.flags["Mumbai"] = flags
    for name in ("coordinator", "Mumbai"):
        stage.start(name)


@pytest.mark.skipif(sys.platform != "linux", reason="/proc, and the kernel's help against orphans, are Linux's")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL], ids=lambda number: number.name)
def test_they_run_beside_a_branch_and_end_with_it(stage: Cluster, number: signal.Signals) -> None:
    start_branch(stage)
    wait_until(lambda: known(stage) == {FIRST, SECOND}, what="two replicas")
    wait_until(lambda: are_level(stage, FIRST, SECOND), what="two level replicas")
    everybody = children_of(stage.processes["Mumbai"].pid)
    assert len(everybody) == 3, "a keeper and two replicas"
    os.kill(everybody[-1], signal.SIGKILL)
    wait_until(lambda: f"{SECOND} is started again" in stage.output("Mumbai"), what="a replica that is started again")
    everybody = children_of(stage.processes["Mumbai"].pid)
    stage.send_signal("Mumbai", number)
    code = stage.processes["Mumbai"].wait(60)
    assert code == (0 if number != signal.SIGKILL else -signal.SIGKILL)
    if number != signal.SIGKILL:
        assert not any(map(is_alive, everybody)), "they end before the branch's command does"
        assert not (stage.data / f"{FIRST}.db-wal").exists(), "it did not close its store"
    wait_until(lambda: not any(map(is_alive, everybody)), what="the end of the replicas")
    assert set(find_stores(stage.data)) == {stage.data / f"{name}.db" for name in ("coordinator", "Mumbai", FIRST, SECOND)}


def test_a_branch_goes_on_without_a_replica_that_cannot_run(tmp_path: Path) -> None:
    """Its key is missing: said once, and not tried again."""
    stage = Cluster(tmp_path, secure=True)
    try:
        start_branch(stage, "--replicas", "1", "--log", "json")
        wait_until(lambda: "the branch goes on without it" in stage.output("Mumbai"), what="a word on the replica")
        said = [json.loads(line)["message"] for line in stage.output("Mumbai").splitlines() if line.startswith("{")]
        assert f"{FIRST} cannot run, its last lines say why: the branch goes on without it" in said
        assert any(f"{FIRST}.secret" in line for line in said), said
        assert stage.cli("balance", "Mumbai/1001").returncode == 0
        assert stage.stop("Mumbai") == 0
    finally:
        stage.close()


@pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux's")
def test_a_branch_that_cannot_run_takes_its_replicas_along(stage: Cluster) -> None:
    stage.data.mkdir()
    (stage.data / "Mumbai.db").write_text("not a database" * 100)
    done = stage.cli("branch", "--config", str(stage.config), "--name", "Mumbai")
    assert done.returncode == 2
    assert "corrupt_store" in done.stderr
    assert of_stage(stage) == [], "they were not even started, or have ended with it"
