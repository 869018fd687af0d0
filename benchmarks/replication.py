"""What replicas cost their branch (a bank without any and one with two, in turn), their lag, and how fast one catches up.

    python -m benchmarks.replication --seconds 4 --runs 5

Everything runs on this machine, and a replica does the work of its branch once more: what that takes from the cores is no cost
of the branch's where replicas have machines of their own. So the processor time of the branch's process for each transfer is
measured as well (all its threads, by /proc), and the throughput with the replicas at the lowest priority (nice 19).
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import signal
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import NamedTuple

from benchmarks.security import READY_LIMIT_S, Bank
from zbank import Client
from zbank.apps import keymaking
from zbank.apps.cli.bench_books import open_accounts
from zbank.apps.cli.bench_load import make_routes, run_load
from zbank.errors import ZbankError
from zbank.protocol.messages import ReplicaInfo
from zbank.transport.engine import FOLLOWED_US

REPLICAS = {"Mumbai-r1": "Mumbai", "Mumbai-r2": "Mumbai"}  #: whom each follows
NEWCOMER = "Mumbai-r3"
ACCOUNTS = 100
TIMEOUT_S = 20.0
LEVEL_US = 1_500_000  #: a replica tells where it is once a second
SAMPLE_S = 0.02
PACED_PER_S, PACE_S = 4_000, 0.02
WORKS = {"local": ("local, 64 in flight", 64), "transfer": ("between branches, 256 in flight", 256)}


class Run(NamedTuple):
    """One measurement."""

    per_second: float
    branch_us: float  #: processor time of Mumbai for each transfer
    replicas_us: float  #: of all replicas together
    lags_ms: list[float]  #: as a replica told in its answers


class Fed:
    """A bank with replicas (or none), and a client of it."""

    def __init__(self, folder: Path, replicas: Mapping[str, str], *, secure: bool) -> None:
        self.bank = Bank(folder, secure=secure)
        self.replicas: dict[str, subprocess.Popen[bytes]] = {}
        self.secure = secure
        self.client = self._client()
        for name in (*replicas, NEWCOMER):
            if secure:
                keymaking.add(self.bank.keys, name, "replica", ())
        for name, of in replicas.items():
            self.start(name, of)
        chosen = [info for info in self.client.branches() if info.name in ("Mumbai", "Delhi")]
        by_branch = open_accounts(self.client, chosen, ACCOUNTS)
        local = next(names for names in by_branch if names[0].startswith("Mumbai/"))
        self.watched = local[0]
        self.routes = {
            "local": make_routes([local], False, random.Random(1)),
            "transfer": make_routes(by_branch, True, random.Random(1)),
        }
        self.wait_level()

    def _client(self) -> Client:
        return Client(self.bank.endpoint, timeout_s=TIMEOUT_S, keys=self.bank.keys if self.secure else "", key="operator")

    def start(self, name: str, of: str = "Mumbai") -> None:
        """Start a replica."""
        with (self.bank.folder / "log").open("ab") as log:
            command = ("replica", "--of", of, "--name", name, "--config", str(self.bank.config))
            self.replicas[name] = subprocess.Popen(
                [sys.executable, "-m", "zbank.apps.cli", *command],
                cwd=self.bank.folder,
                env=self.bank.environment,
                stdout=log,
                stderr=log,
            )

    def told(self) -> dict[str, ReplicaInfo]:
        """Where the coordinator has heard that the replicas are."""
        return {info.name: info for info in self.client.replicas()}

    def wait_level(self) -> None:
        """All replicas have all."""
        end_s = time.monotonic() + READY_LIMIT_S
        while True:
            told = self.told()
            if all(name in told and not told[name].behind and told[name].lag_us < LEVEL_US for name in self.replicas):
                return
            assert time.monotonic() < end_s, "the replicas do not become level"
            time.sleep(SAMPLE_S)

    @contextmanager
    def lags(self, into: list[float]) -> Iterator[None]:
        """Ask replicas for an account all the while, and keep how old each answer says that it is."""
        stop = threading.Event()

        def ask() -> None:
            with self._client() as own:
                near = own.at_replicas()
                while not stop.wait(SAMPLE_S):
                    with contextlib.suppress(ZbankError):
                        as_of = near.account(self.watched).as_of
                        assert as_of is not None
                        into.append(as_of.lag_us / 1000)

        thread = threading.Thread(target=ask)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()

    def run(self, work: str, seconds: float, *, with_lags: bool = False) -> Run:
        """Load it."""
        lags: list[float] = []
        branch, others = self.bank.processes["Mumbai"].pid, [process.pid for process in self.replicas.values()]
        before = cpu_s(branch), sum(map(cpu_s, others))
        with self.lags(lags) if with_lags else contextlib.nullcontext():
            (record,) = run_load([self.client], self.routes[work], WORKS[work][1], seconds, 0, TIMEOUT_S)
        used_s = cpu_s(branch) - before[0]
        self.wait_level()
        replicas_s = sum(map(cpu_s, others)) - before[1]
        done = record.outcomes["committed"]
        assert done == sum(record.outcomes.values()), record.outcomes
        return Run(len(record.latencies_s) / seconds, used_s / done * 1e6, replicas_s / done * 1e6, lags)

    def paced(self, seconds: float) -> tuple[float, float]:
        """Local transfers at a rate that leaves the cores time to spare; the branch's processor time for each, in µs, and the
        share of a core that the replicas take."""
        branch, routes = self.bank.processes["Mumbai"].pid, self.routes["local"]
        others = [process.pid for process in self.replicas.values()]
        others_s = sum(map(cpu_s, others))
        before_s, due_s, sent = cpu_s(branch), time.monotonic(), 0
        futures = []
        end_s = due_s + seconds
        while due_s < end_s:
            for _ in range(int(PACED_PER_S * PACE_S)):
                futures.append(self.client.submit_transfer(*routes[sent % len(routes)], 1))
                sent += 1
            due_s += PACE_S
            time.sleep(max(0.0, due_s - time.monotonic()))
        assert {future.result().status for future in futures} == {"committed"}
        used_s = cpu_s(branch) - before_s
        self.wait_level()
        return used_s / sent * 1e6, (sum(map(cpu_s, others)) - others_s) / seconds

    def signal(self, number: signal.Signals) -> None:
        """To all replicas."""
        for process in self.replicas.values():
            process.send_signal(number)

    def close(self) -> None:
        """Stop all."""
        self.client.close()
        self.signal(signal.SIGCONT)
        for process in self.replicas.values():
            process.terminate()
        for process in self.replicas.values():
            process.wait()
        self.bank.close()


def cpu_s(pid: int) -> float:
    """Processor time that a process has used, with all its threads, to the microsecond."""
    return sum(int(one.read_text().split()[0]) for one in Path(f"/proc/{pid}/task").glob("*/schedstat")) / 1e9


def cost(alone: Fed, fed: Fed, runs: int, seconds: float, *, nice: int) -> None:
    """Without and with replicas in turn; those that are not measured stand still."""
    for process in fed.replicas.values():
        os.setpriority(os.PRIO_PROCESS, process.pid, nice)
    print(f"\n2 replicas at nice {nice}, load average {os.getloadavg()[0]:.1f}")
    print(f"{'':33}{'none':>11}{'2':>11}{'ratio':>7}{'branch CPU: none':>19}{'2':>10}{'more':>7}{'CPU of both':>14}", end="")
    print(f"{'lag p50':>10}{'p99':>8}{'max':>8}")
    for work, (title, _) in WORKS.items():
        without: list[Run] = []
        by_two: list[Run] = []
        for _ in range(runs):
            fed.signal(signal.SIGSTOP)
            without.append(alone.run(work, seconds))
            fed.signal(signal.SIGCONT)
            fed.wait_level()
            time.sleep(0.5)
            by_two.append(fed.run(work, seconds))
        lags = sorted(fed.run(work, seconds, with_lags=True).lags_ms)
        a, b = (statistics.median(run.per_second for run in each) for each in (without, by_two))
        c, d = (statistics.median(run.branch_us for run in each) for each in (without, by_two))
        both = statistics.median(run.replicas_us for run in by_two)
        print(f"{title:33}{a:>9,.0f}/s{b:>9,.0f}/s{b / a:>7.0%}", end="")
        print(f"{c:>16.1f} µs{d:>7.1f} µs{d / c - 1:>+7.0%}{both:>11.1f} µs", end="")
        p50, p99, most = lags[len(lags) // 2], lags[len(lags) * 99 // 100], lags[-1]
        print(f"{p50:>7.0f} ms{p99:>5.0f} ms{most:>5.0f} ms", flush=True)


@contextmanager
def burning(share: float) -> Iterator[None]:
    """A process that computes, for this share of a core's time."""
    works = f"end = time.thread_time() + {0.01 * share}\n while time.thread_time() < end: sum(range(500))"
    command = f"import time\nwhile 1:\n {works}\n time.sleep({0.01 * (1 - share)})"
    with subprocess.Popen([sys.executable, "-c", command]) as process:
        try:
            yield
        finally:
            process.kill()


def own_cost(fed: Fed, runs: int, seconds: float) -> None:
    """At the same rate with and without, where nobody waits for a core; without also beside a process that computes as much
    as both replicas do, for nothing. One bank: it publishes nothing when its replicas have stood still for a while."""
    found: dict[str, list[float]] = {"without": [], "beside as much other work": [], "with 2": []}
    fed.paced(seconds)
    for _ in range(runs):
        by_two, share = fed.paced(seconds)
        found["with 2"].append(by_two)
        fed.signal(signal.SIGSTOP)
        stopped, fed.replicas = fed.replicas, {}
        time.sleep(FOLLOWED_US / 1e6)
        found["without"].append(fed.paced(seconds)[0])
        with burning(share):
            found["beside as much other work"].append(fed.paced(seconds)[0])
        fed.replicas = stopped
        fed.signal(signal.SIGCONT)
        fed.wait_level()
        time.sleep(0.5)
    print(f"\nbranch CPU, local, {PACED_PER_S:,}/s, load average {os.getloadavg()[0]:.1f}")
    base = statistics.median(found["without"])
    for what, each in found.items():
        middle = statistics.median(each)
        print(f"{what:27}{middle:>6.1f} µs ({min(each):.1f} to {max(each):.1f}) {middle / base - 1:>+6.0%}", flush=True)


def catching_up(fed: Fed, rows: int) -> None:
    """A new replica of a branch with so many rows."""

    def count(name: str) -> int:
        path = fed.bank.folder / "data" / f"{name}.db"
        with contextlib.suppress(sqlite3.Error), closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as store:
            return int(store.execute("SELECT coalesce(max(seq), 0) FROM journal").fetchone()[0])
        return 0

    while count("Mumbai") < rows:
        run_load([fed.client], fed.routes["local"], 512, 2.0, 0, TIMEOUT_S)
    there = count("Mumbai")
    print(f"\ncatching up with {there:,} rows, load average {os.getloadavg()[0]:.1f}", flush=True)
    begun_s = time.monotonic()
    fed.start(NEWCOMER)
    while not count(NEWCOMER):
        time.sleep(SAMPLE_S)
    first, first_s = count(NEWCOMER), time.monotonic()
    while count(NEWCOMER) < there:
        time.sleep(SAMPLE_S)
    took_s = time.monotonic() - first_s
    print(f"{(there - first) / took_s:,.0f} rows/s: all in {took_s:.1f} s, {first_s - begun_s:.1f} s after its start")
    fed.wait_level()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--rows", type=int, default=300_000, help="that a new replica has to catch up with; 0 = leave it out")
    parser.add_argument("--nice", type=int, nargs="*", default=[0, 19], help="of the replicas")
    parser.add_argument("--no-keys", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="zbank-replication-") as name, contextlib.ExitStack() as stack:
        banks: list[Fed] = []
        for folder, replicas in (("alone", {}), ("fed", REPLICAS)):
            banks.append(Fed(Path(name) / folder, replicas, secure=not options.no_keys))
            stack.callback(banks[-1].close)
        alone, fed = banks
        own_cost(fed, options.runs, options.seconds)
        for nice in options.nice:
            cost(alone, fed, options.runs, options.seconds, nice=nice)
        if options.rows:
            catching_up(fed, options.rows)


if __name__ == "__main__":
    main()
