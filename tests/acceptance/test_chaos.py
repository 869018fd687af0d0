"""A minute of `zbank chaos` against real processes, and its manners: it leaves nothing behind, however it ends."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import pytest

from tests.acceptance.cluster import ROOT, wait_until
from zbank.apps.chaos import run
from zbank.apps.chaos.cluster import BRANCH_NAMES, CannotStart, verify_file
from zbank.apps.chaos.disk import NoDisk, SmallDisk
from zbank.apps.chaos.faults import DISK_FULL, ENDS, KINDS, plan
from zbank.apps.chaos.ports import owner_of

LIMIT_S = 150
ON_LINUX = sys.platform == "linux"


@contextmanager
def chaos(folder: Path, *flags: str) -> Iterator[subprocess.Popen[str]]:
    """The running command; its directory is made in `folder`."""
    process = subprocess.Popen(
        [sys.executable, "-m", "zbank.apps.cli", "chaos", *flags],
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", "TMPDIR": str(folder)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.mark.timeout(LIMIT_S + 30)
def test_a_minute_of_chaos(tmp_path: Path) -> None:
    report = tmp_path / "report.md"
    with chaos(tmp_path, "--minutes", "1", "--seed", "5", "--json", "--report", str(report)) as process:
        out, told = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 0, told
    found = json.loads(out)
    assert found["findings"] == []
    assert found["seed"] == 5
    skipped = {DISK_FULL} if found["skipped"] else set()
    if not ON_LINUX or os.geteuid() != 0:
        assert "a full disk: not root" in found["skipped"] or not ON_LINUX
    assert {kind for kind, count in found["faults"].items() if count} == set(KINDS) - skipped
    assert found["connections_broken"] > 0
    transfers, codes = found["transfers"], found["not_outcomes"]
    assert transfers["asked"] == transfers["committed"] + transfers["aborted"] > 2_000
    assert transfers["aborted"] > 0
    assert transfers["unknown"] == 0
    assert codes["unknown"] > 0
    assert skipped or codes["storage_full"] > 0
    assert found["latency_all"]["count"] > found["latency_undisturbed"]["count"] > 100
    assert found["latency_all"]["p99_ms"] > found["latency_undisturbed"]["p99_ms"] > 0
    assert found["longest_settle_s"] > 1
    assert "outcomes/s; told so far" in told
    assert "kill -9" in told
    assert max(later - earlier for earlier, later in pairwise(moments_of(told))) < 20, f"silence: {told}"
    assert "none: the bank kept its word" in report.read_text("utf-8")
    assert list(tmp_path.iterdir()) == [report], "a clean run leaves nothing"


def moments_of(told: str) -> list[float]:
    """Seconds at which progress was told."""
    return [float(found) for found in re.findall(r"^ *(\d+\.\d) s  ", told, re.MULTILINE)]


@pytest.mark.skipif(not ON_LINUX, reason="NOT TESTED: mounts and processes are looked up in /proc")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_told_to_stop_it_leaves_nothing_behind(tmp_path: Path, number: signal.Signals) -> None:
    with chaos(tmp_path, "--minutes", "1", "--seed", "1") as process:
        assert process.stdout is not None
        while "started" not in (line := process.stdout.readline()):
            assert line, process.communicate()
        left = children(process.pid)
        assert len(left) == 4
        process.send_signal(number)
        process.communicate(timeout=30)
    wait_until(lambda: not any(Path(f"/proc/{child}").exists() for child in left), what="the end of all processes")
    if number == signal.SIGKILL:  # then nothing but the kernel can clean up
        for disk in list(tmp_path.glob("*/disk")):
            subprocess.run(["umount", "--lazy", str(disk)], capture_output=True, check=False)
        return
    assert process.returncode == 130
    assert str(tmp_path) not in Path("/proc/mounts").read_text("utf-8")
    assert list(tmp_path.iterdir()) == []


def children(process_id: int) -> list[int]:
    """Process ids of its children."""
    return [int(child) for child in Path(f"/proc/{process_id}/task/{process_id}/children").read_text("utf-8").split()]


def command_of(process_id: int) -> str:
    """Its command line; "" when it has ended meanwhile."""
    try:
        return Path(f"/proc/{process_id}/cmdline").read_text("utf-8")
    except OSError:
        return ""


@pytest.mark.skipif(not ON_LINUX, reason="NOT TESTED: processes are looked up in /proc")
def test_an_actor_that_dies_of_something_else_is_a_finding(tmp_path: Path) -> None:
    seed, minutes, branches = 20, 0.3, BRANCH_NAMES[:3]
    for disk_of in (None, branches[-1]):  # Delhi is there all the time: no fault ends it
        faults = plan(seed, 60 * minutes, branches, disk_of)
        assert not any("Delhi" in fault.actors for fault in faults if fault.kind in ENDS)
    with chaos(tmp_path, "--minutes", str(minutes), "--seed", str(seed), "--json") as process:
        assert process.stderr is not None
        while "outcomes/s" not in (line := process.stderr.readline()):
            assert line, "it ended before it told how it does"
        (victim,) = [child for child in children(process.pid) if "Delhi" in command_of(child)]
        os.kill(victim, signal.SIGKILL)
        out, told = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 1
    found = json.loads(out)
    assert [finding.partition(":")[0] for finding in found["findings"]] == ["Delhi ended by itself (killed by SIGKILL)"]
    assert "failed: 1 findings, data and logs are in" in told
    kept = Path(found["directory"])
    assert kept.parent == tmp_path
    for name in ("coordinator", "Mumbai", "Delhi", "Pune"):
        assert verify_file(kept / "data", "chaos", name) == []
        assert "serves at" in (kept / f"{name}.log").read_text("utf-8")


def test_a_cluster_that_does_not_come_up_is_told_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(sys, "executable", "/bin/false")
    begun_s = time.monotonic()
    with pytest.raises(CannotStart, match=r"coordinator ended \(exit code 1\).*; with --keep the logs stay"):
        run.run(run.Order(minutes=0.1, seed=1, branches=2, keep=False), lambda line: None)
    assert time.monotonic() - begun_s < run.START_LIMIT_S / 2
    assert str(tmp_path) not in (Path("/proc/mounts").read_text("utf-8") if ON_LINUX else "")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not ON_LINUX, reason="NOT TESTED: needs /proc")
def test_the_owner_of_a_port() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as caller:
        port = caller.getsockname()[1]
        assert owner_of(port, {"other": 1_000_000_000, "me": os.getpid()}) == "me"
        assert owner_of(port, {"init": 1_000_000_000}) is None


def test_a_small_disk_fills_and_frees(tmp_path: Path) -> None:
    try:
        disk = SmallDisk(tmp_path / "disk")
    except NoDisk as error:
        pytest.skip(f"NOT TESTED: no small disk here: {error.detail}")
    try:
        file = disk.place / "file"
        file.write_bytes(bytes(1 << 20))
        disk.fill()
        with pytest.raises(OSError, match="No space left"):
            (disk.place / "more").write_bytes(bytes(1 << 16))
        disk.free()
        (disk.place / "more").write_bytes(bytes(1 << 16))
        assert file.read_bytes() == bytes(1 << 20)
    finally:
        disk.close()
    assert list((tmp_path / "disk").iterdir()) == []
