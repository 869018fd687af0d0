"""Real data through real processes: a bank's own movements, and its own balances as the judge."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from examples.berka import replay as replay_module
from examples.berka.__main__ import main, open_accounts
from examples.berka.check import check
from examples.berka.cluster import COORDINATOR, LocalCluster
from examples.berka.data import DATA_VARIABLE
from examples.berka.mapping import CLEARING_BRANCH, CURRENCY, make_plan
from examples.berka.replay import Replayed, replay
from tests.berka_data import berka_directory, berka_histories
from zbank import Client

ROOT = Path(__file__).parents[2]
RUN_LIMIT_S = 180.0
STOP_LIMIT_S = 20.0
pytestmark = pytest.mark.timeout(2 * (RUN_LIMIT_S + STOP_LIMIT_S))


def command(*arguments: str) -> list[str]:
    """`python -m examples.berka …`, from the project's root."""
    return [sys.executable, "-m", "examples.berka", *arguments]


def run(arguments: Sequence[str], **variables: str) -> subprocess.CompletedProcess[str]:
    """Run it to its end, output captured. One that takes too long is asked to stop, so that it stops its cluster."""
    environment = {**os.environ, **variables}
    with subprocess.Popen(
        command(*arguments), cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            output, errors = process.communicate(timeout=RUN_LIMIT_S)
        except subprocess.TimeoutExpired:
            process.terminate()
            output, errors = process.communicate(timeout=STOP_LIMIT_S)
            pytest.fail(f"not done within {RUN_LIMIT_S} s:\n{output}{errors}")
        finally:
            process.kill()
    return subprocess.CompletedProcess(process.args, process.returncode, output, errors)


def nobody_listens(output: str) -> bool:
    """Whether the coordinator whose address was printed is gone."""
    match = re.search(r"tcp://127\.0\.0\.1:([0-9]+)", output)
    assert match is not None, output
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", int(match[1]))) != 0


def test_all_movements_of_the_real_bank_end_with_every_balance_equal() -> None:
    berka_directory()
    done = run([])
    assert done.returncode == 0, done.stdout + done.stderr
    assert "replayed 47527 of 47527 movements" in done.stdout
    assert "9813 two-phase commits" in done.stdout
    assert "compared 47527 balances on 1201 accounts, 9813 entries of 13 banks" in done.stdout
    assert "EQUAL: every balance is the bank's own" in done.stdout
    assert nobody_listens(done.stdout)


def test_a_stopped_replay_leaves_nobody_behind_and_goes_on_where_it_was(tmp_path: Path) -> None:
    berka_directory()
    with subprocess.Popen(
        command("--keep", str(tmp_path), "--limit", "30000"),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        assert process.stdout is not None
        output = ""
        try:
            for line in process.stdout:
                output += line
                if "movements in" in line:  # the first word of progress: some are done, most are not
                    break
            process.send_signal(signal.SIGTERM)
            output += process.stdout.read()
            assert process.wait(STOP_LIMIT_S) == 128 + signal.SIGTERM, output
        finally:
            process.kill()
    assert nobody_listens(output)

    done = run(["--keep", str(tmp_path), "--limit", "30000"])
    assert done.returncode == 0, done.stdout + done.stderr
    assert "compared 30000 balances" in done.stdout


def test_every_balance_is_equal_though_processes_are_killed_all_the_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    histories, _ = berka_histories()
    plan = make_plan(histories, 20_000)
    monkeypatch.setattr(replay_module, "PROGRESS_EVERY_S", 0.4)
    with LocalCluster(tmp_path, plan.branches, CURRENCY) as cluster, Client(cluster.endpoint, timeout_s=20) as client:
        victims = [COORDINATOR, CLEARING_BRANCH, "Prague", COORDINATOR, "south-Moravia", CLEARING_BRANCH, COORDINATOR]
        in_all = len(victims)

        def kill_next(so_far: Replayed) -> None:
            if victims and so_far.done < plan.steps:
                cluster.kill_and_restart(victims.pop(0))

        open_accounts(client, plan.openings)
        replayed = replay(client, plan.chains, on_progress=kill_next)
        checked = check(client, plan)
    assert len(victims) <= in_all - 3, "the replay was over before three processes were killed"
    assert replayed.failures == []
    assert replayed.done == plan.steps
    assert checked.entries == plan.steps
    assert checked.differences == []


def test_a_cent_too_much_is_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    histories, _ = berka_histories()
    plan = make_plan(histories, 1000)
    with LocalCluster(tmp_path, plan.branches, CURRENCY) as cluster:
        replayed = ["--limit", "1000", "--endpoint", cluster.endpoint]
        assert main(replayed) == 0
        capsys.readouterr()
        with Client(cluster.endpoint) as client:
            stray = client.transfer(plan.chains[0][0].account, plan.chains[1][0].account, "0.01")
            assert stray.status == "committed"
        assert main(replayed) == 1
    output = capsys.readouterr().out
    assert (
        f"{plan.chains[0][0].account}: {len(plan.chains[0])} movements, but {len(plan.chains[0]) + 1} lines" in output
    )
    assert "NOT EQUAL" in output


def test_without_the_data_it_says_what_to_set(tmp_path: Path) -> None:
    began_s = time.monotonic()
    done = run([], **{DATA_VARIABLE: str(tmp_path)})
    assert done.returncode == 2
    assert f"set {DATA_VARIABLE}" in done.stderr
    assert "Traceback" not in done.stderr
    assert time.monotonic() - began_s < STOP_LIMIT_S
