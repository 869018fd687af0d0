"""The REST bridge under wrk: requests a second and p99, beside a view of the same app that has no bank behind it.

    python -m benchmarks.rest --seconds 5 --runs 3

It starts a bank of its own on this machine, and needs wrk (Debian: apt-get install wrk). The view without a bank checks the
same token, key and body and answers the same JSON: what a transfer costs above it is the bank.
"""

from __future__ import annotations

import argparse
import random
import re
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from zbank.apps.api import app
from zbank.apps.api.access import PAY
from zbank.apps.api.bridge import RestSettings
from zbank.apps.api.endpoint import REQUIRED, Ask, Reply, Routes
from zbank.apps.api.given import LegsGiven, PairGiven
from zbank.apps.api.paying import OUTCOMES, check_may_pay, told
from zbank.apps.api.serve import run
from zbank.apps.chaos.ports import free_ports
from zbank.domain.legs import Leg
from zbank.ids import format_id
from zbank.protocol.messages import COMMITTED
from zbank.transport.views import TransferResult

CONNECTIONS = (1, 16, 64)
READY_LIMIT_S = 30.0
SCRIPT = """
local n = 0
function request()
  n = n + 1
  local headers = {["Content-Type"] = "application/json", ["Idempotency-Key"] = "%s-" .. n}
  return wrk.format("POST", wrk.path, headers, '{"from":"Mumbai/1001","to":"%s","amount":"0.01","memo":"wrk"}')
end
"""
CONFIG = """
[cluster]
name = "bench"
data = "data"
[coordinator]
endpoint = "tcp://127.0.0.1:{0}"
[branches.Mumbai]
endpoint = "tcp://127.0.0.1:{1}"
currency = "INR"
preload = true
[branches.Delhi]
endpoint = "tcp://127.0.0.1:{2}"
currency = "INR"
preload = true
"""


class Work(NamedTuple):
    """One thing that is measured."""

    name: str
    path: str
    to: str = ""  #: the account that a transfer goes to; "" = a GET


NO_BANK = Work("POST, checked and answered without a bank", "/no-bank", "Delhi/1002")
WORKS = (
    Work("GET /healthz", "/healthz"),
    Work("GET an account", "/v1/branches/Mumbai/accounts/1001"),
    NO_BANK,
    Work("POST /v1/transfers within a branch", "/v1/transfers", "Mumbai/1002"),
    Work("POST /v1/transfers between branches", "/v1/transfers", "Delhi/1002"),
)


class Figure(NamedTuple):
    """What one run came to."""

    per_second: float
    p99_ms: float
    failures: int


routes = Routes("benchmark")


@routes.add("POST", "/no-bank", act=PAY, body=PairGiven | LegsGiven, key=REQUIRED, answers=OUTCOMES)
def no_bank(ask: Ask) -> Reply:
    """All that a transfer does in the bridge, but for asking the bank."""
    check_may_pay(ask.principal, ask.body)
    assert ask.id is not None
    legs = (Leg("Mumbai", "1001", -1), Leg("Delhi", "1002", 1))
    return told(TransferResult(format_id(ask.id), COMMITTED, None, legs, "INR", 1, time.time_ns() // 1000, False, True))


def measure(address: str, work: Work, connections: int, seconds: int, key: str) -> Figure:
    """One run of wrk."""
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}", "--latency", "--timeout", "20s"]
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        if work.to:
            script.write(SCRIPT % (key, work.to))
            script.flush()
            command += ["-s", script.name]
        said = subprocess.run([*command, address + work.path], capture_output=True, text=True, check=True).stdout
    p99 = re.search(r"99%\s+([0-9.]+)(us|ms|s)", said)
    rate = re.search(r"Requests/sec:\s+([0-9.]+)", said)
    failures = re.search(r"Non-2xx or 3xx responses: ([0-9]+)", said)
    assert p99 is not None, said
    assert rate is not None, said
    p99_ms = float(p99[1]) * {"us": 0.001, "ms": 1, "s": 1000}[p99[2]]
    return Figure(float(rate[1]), p99_ms, int(failures[1]) if failures else 0)


def compare(address: str, seconds: int, runs: int) -> None:
    """All works in turn, several times; prints medians as Markdown."""
    print("| work | connections | per second | p99 | of the view without a bank |\n|---|---|---|---|---|")
    for connections in CONNECTIONS:
        found: dict[Work, list[Figure]] = {work: [] for work in WORKS}
        for n in range(runs):
            for work in WORKS:
                key = f"{time.time_ns()}-{n}"
                found[work].append(measure(address, work, connections, seconds, key))
        base = statistics.median(figure.per_second for figure in found[NO_BANK])
        for work, figures in found.items():
            rate = statistics.median(figure.per_second for figure in figures)
            p99_ms = statistics.median(figure.p99_ms for figure in figures)
            failed = sum(figure.failures for figure in figures)
            share = f"{rate / base:.0%}" if work.to and work is not NO_BANK else ""
            note = f" ({failed} failed)" if failed else ""
            print(f"| {work.name}{note} | {connections} | {rate:,.0f} | {p99_ms:.1f} ms | {share} |", flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Start a bank and a bridge, measure, stop them."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.rest", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--seconds", type=int, default=5, help="of each run")
    parser.add_argument("--runs", type=int, default=3, help="of which the median is shown")
    parser.add_argument("--threads", type=int, default=64, help="of the bridge")
    parser.add_argument("--serve", metavar="ENDPOINT", help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, default=0, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.serve:
        app.ALL_ROUTES += (routes,)
        return run(RestSettings("127.0.0.1", options.port, options.serve, threads=options.threads, rate_limit_per_s=0))
    ports = free_ports(6, random.Random())
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "cluster.toml"
        config.write_text(CONFIG.format(ports[0], ports[3], ports[4]))
        zbank = [sys.executable, "-m", "zbank.apps.cli"]
        bridge = [sys.executable, "-m", "benchmarks.rest", "--serve", f"tcp://127.0.0.1:{ports[0]}"]
        commands = [
            [*zbank, "coordinator", "--config", str(config), "--data", folder],
            *([*zbank, "branch", "--config", str(config), "--data", folder, "--name", name] for name in ("Mumbai", "Delhi")),
            [*bridge, "--port", str(ports[5]), "--threads", str(options.threads)],
        ]
        processes = [subprocess.Popen(command, stderr=subprocess.DEVNULL) for command in commands]
        try:
            address = f"http://127.0.0.1:{ports[5]}"
            _wait_until_ready(f"{address}/readyz")
            compare(address, options.seconds, options.runs)
        finally:
            for process in processes:
                process.terminate()
            for process in processes:
                process.wait()
    return 0


def _wait_until_ready(url: str) -> None:
    end_s = time.monotonic() + READY_LIMIT_S
    while True:
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except OSError:
            if time.monotonic() > end_s:
                raise
            time.sleep(0.1)


if __name__ == "__main__":
    sys.exit(main())
