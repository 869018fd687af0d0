"""The commands when a part of the bank is away: one clear line in time, and never a wrong word on the money."""

from __future__ import annotations

import json
import re
import signal
import time

from tests.acceptance.cluster import Cluster, wait_until
from tests.acceptance.load import own_status

SOURCE, NEAR, FAR = "Mumbai/1001", "Mumbai/1002", "Delhi/1002"


def test_nobody_there(cluster: Cluster) -> None:
    for name in ("coordinator", "Mumbai", "Delhi"):
        cluster.kill(name)
    for command in (("status",), ("balance", SOURCE), ("transfer", SOURCE, FAR, "1"), ("transfer-many", "-")):
        begun = time.monotonic()
        done = cluster.cli(*command, stdin="id,from,to,amount\na,A/1,B/1,1\n")
        assert (done.returncode, done.stderr.count("\n")) == (1, 1), done.stderr
        assert cluster.endpoint in done.stderr
        assert time.monotonic() - begun < 30


def test_the_coordinator_is_down(cluster: Cluster) -> None:
    cluster.kill("coordinator")
    mumbai = cluster.endpoints["Mumbai"]
    done = cluster.cli("transfer", SOURCE, NEAR, "5", endpoint=mumbai)
    assert done.returncode == 0, done.stderr
    done = cluster.cli("transfer", SOURCE, FAR, "5", "--timeout", "3", endpoint=mumbai)
    assert done.returncode in (1, 3)
    assert done.stderr.count("\n") == 1
    assert cluster.cli("balance", SOURCE, endpoint=mumbai).stdout == "9995.00 INR\n"


def test_a_branch_is_down(cluster: Cluster) -> None:
    cluster.kill("Delhi")
    done = cluster.cli("transfer", SOURCE, FAR, "5", "--id", "k", "--timeout", "3")
    assert done.returncode in (1, 3), done
    assert done.stderr.count("\n") == 1
    assert cluster.cli("transfer", SOURCE, NEAR, "5").returncode == 0
    status = cluster.cli("status")
    assert status.returncode == 1
    assert re.search(r"branch +Delhi .* DOWN", status.stdout), status.stdout
    assert status.stderr == "failed: no answer from Delhi\n"
    cluster.start("Delhi")
    wait_until(lambda: cluster.cli("transfer", SOURCE, FAR, "5", "--id", "k").returncode == 0)
    assert cluster.cli("balance", SOURCE).stdout == "9990.00 INR\n"


def test_a_branch_that_hangs_leaves_the_outcome_unknown_until_it_is_back(cluster: Cluster) -> None:
    with cluster.client() as client:
        before = client.account(FAR).balance_minor
    cluster.send_signal("Delhi", signal.SIGSTOP)
    done = cluster.cli("transfer", SOURCE, FAR, "5", "--id", "k", "--timeout", "2")
    assert done.returncode in (1, 3), done
    assert done.stderr.count("\n") == 1
    if done.returncode == 3:
        assert re.search(r"^unknown: [0-9a-f-]{36}: .*; ask with: zbank show ", done.stderr), done.stderr
    cluster.send_signal("Delhi", signal.SIGCONT)
    wait_until(lambda: cluster.cli("transfer", SOURCE, FAR, "5", "--id", "k", "--json").returncode == 0)
    assert json.loads(cluster.cli("show", "k", "--json").stdout)["status"] == "committed"
    with cluster.client() as client:
        assert client.account(FAR).balance_minor == before + 500
        assert client.account(SOURCE).balance_minor == 999_500


def test_the_books_are_right_after_a_load_through_kills(cluster: Cluster) -> None:
    victims = ["Delhi", "coordinator", "Mumbai"]
    while victims:  # once more where the machine is so slow that the load ended before
        bench = cluster.spawn(
            "bench", "--work", "transfer", "--in-flight", "32", "--seconds", "6", "--accounts", "8", "--json"
        )
        while victims and bench.poll() is None:
            if own_status(cluster, "Mumbai").in_flight > 0:
                cluster.kill(victims[0])
                cluster.start(victims.pop(0))
            time.sleep(0.02)
        out, err = bench.communicate(timeout=90)
        assert bench.returncode == 0, (out, err)
        report = json.loads(out)
        assert report["books"]["ok"], report
        assert report["outcomes"]["committed"] > 100


def test_interrupting_a_file_settles_what_was_sent_and_the_next_run_pays_the_rest(cluster: Cluster) -> None:
    count = 30_000
    file = cluster.folder / "pay.csv"
    lines = ["id,from,to,amount", *(f"k{n},Mumbai/1002,Delhi/1002,0.01" for n in range(count))]
    file.write_text("\n".join(lines))
    paying = cluster.spawn("transfer-many", str(file))
    assert paying.stdout is not None
    assert paying.stderr is not None
    first = paying.stdout.readline()
    paying.send_signal(signal.SIGINT)
    out, err = paying.stdout.read(), paying.stderr.read()  # not communicate(): it leaves out what readline() read ahead
    paying.wait(60)
    assert (paying.returncode, "stopped: interrupted; run the file again to go on" in err) == (1, True), err
    done = [first, *out.splitlines()]
    assert all(": committed: " in line for line in done)
    assert 0 < len(done) < count
    with cluster.client() as client:
        assert client.account("Mumbai/1002").balance_minor == 500_000 - len(done)
    cut = "\n".join(lines[: len(done) + 101])
    rest = cluster.cli("transfer-many", "-", stdin=cut)
    assert rest.returncode == 0, rest.stderr
    assert f"100 committed, {len(done)} done before;" in rest.stderr
    with cluster.client() as client:
        assert client.account("Mumbai/1002").balance_minor == 500_000 - len(done) - 100
