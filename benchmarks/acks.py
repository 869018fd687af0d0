"""What acks = 1 costs: one bank alone, with replicas that follow, and with replicas that acknowledge, in turn.

    python -m benchmarks.acks --seconds 4 --runs 5

Everything runs on this machine, each replica too, and forces its rows to the same disk. With one transfer in flight only one
process works at a time, so what that takes longer is the second force and two more messages on the way: on machines of their
own it would be that, and their network's round trip. With many in flight a replica takes the cores from its branch, and what
is lost then is mostly lost to that: beside the rates stands the processor time of each transfer (all threads, by /proc).
"""

from __future__ import annotations

import argparse
import os
import signal
import statistics
import tempfile
import time
from array import array
from collections.abc import Callable, Collection, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import NamedTuple

from benchmarks.replication import SAMPLE_S, TIMEOUT_S, Fed, cpu_s
from benchmarks.security import READY_LIMIT_S
from zbank.apps.cli.bench_load import percentile, run_load
from zbank.protocol.messages import StatusInfo
from zbank.transport.engine import FOLLOWED_US

REPLICA_OF = {"Mumbai": "Mumbai-r1", "Delhi": "Delhi-r1"}
WARM_UP_S = 3.0


class State(NamedTuple):
    """How many disks an answer stands on."""

    title: str
    followed: bool  #: both branches' replicas run
    synchronous: Collection[str] = ()  #: branches whose replica acknowledges


class Work(NamedTuple):
    """What is asked for."""

    title: str
    route: str  #: of the bank's
    in_flight: int
    states: Sequence[State]


class Sample(NamedTuple):
    """One measurement."""

    per_second: float
    p50_ms: float
    p99_ms: float
    branch_us: float  #: processor time of Mumbai for each transfer
    replica_us: float  #: of its replica


ALONE = State("no replica", followed=False)
FOLLOWED = State("a replica of each follows", followed=True)
ONE = State("acks = 1 at Mumbai", followed=True, synchronous=("Mumbai",))
BOTH = State("acks = 1 at both", followed=True, synchronous=("Mumbai", "Delhi"))
STATES = (ALONE, FOLLOWED, ONE, BOTH)
WORKS = (
    Work("within Mumbai, 1 in flight", "local", 1, (ALONE, FOLLOWED, ONE)),
    Work("within Mumbai, 64 in flight", "local", 64, (ALONE, FOLLOWED, ONE)),
    Work("between both, 1 in flight", "transfer", 1, STATES),
    Work("between both, 256 in flight", "transfer", 256, STATES),
)


def bring(fed: Fed, state: State) -> None:
    """The bank is in this state from here on, and at rest."""
    fed.signal(signal.SIGCONT)
    fed.wait_level()
    for of, replica in REPLICA_OF.items():
        wanted = replica if of in state.synchronous else ""
        word = fed.client.name_acks(of, fed.told()[replica] if wanted else None)
        wait_until(partial(follows, fed, of, word.generation, wanted))
    if not state.followed:
        fed.signal(signal.SIGSTOP)
        time.sleep(FOLLOWED_US / 1e6)  # then a branch publishes nothing any more


def follows(fed: Fed, of: str, generation: int, replica: str) -> bool:
    """The branch heeds this word; so does the replica, if it names one."""
    actors = {actor.name: actor for actor in fed.client.status()}
    branch = actors[of]
    heeded = isinstance(branch, StatusInfo) and branch.acks is not None and branch.acks.generation == generation
    return heeded and (not replica or fed.told()[replica].acks == generation)


def wait_until(condition: Callable[[], bool]) -> None:
    """It comes true in time."""
    end_s = time.monotonic() + READY_LIMIT_S
    while not condition():
        assert time.monotonic() < end_s, "the bank does not follow"
        time.sleep(SAMPLE_S)


def measure(fed: Fed, work: Work, state: State, seconds: float) -> Sample:
    """Load it."""
    branch = fed.bank.processes["Mumbai"].pid
    replica = fed.replicas[REPLICA_OF["Mumbai"]].pid
    before = cpu_s(branch), cpu_s(replica)
    (record,) = run_load([fed.client], fed.routes[work.route], work.in_flight, seconds, 0, TIMEOUT_S)
    branch_s = cpu_s(branch) - before[0]
    if state.followed:
        fed.wait_level()
    replica_s = cpu_s(replica) - before[1]
    done = record.outcomes["committed"]
    assert done == sum(record.outcomes.values()), record.outcomes
    ordered = array("d", sorted(record.latencies_s))
    p50_ms, p99_ms = (percentile(ordered, share) * 1000 for share in (0.5, 0.99))
    return Sample(len(ordered) / seconds, p50_ms, p99_ms, branch_s / done * 1e6, replica_s / done * 1e6)


def compare(fed: Fed, runs: int, seconds: float) -> None:
    """All states in turn, forwards and backwards, each with all its works; medians as tables of Markdown."""
    samples: dict[tuple[str, str], list[Sample]] = {}
    loads: list[float] = []
    for run in range(runs):
        for state in STATES if run % 2 == 0 else STATES[::-1]:
            bring(fed, state)
            loads.append(os.getloadavg()[0])
            for work in WORKS:
                if state in work.states:
                    samples.setdefault((work.title, state.title), []).append(measure(fed, work, state, seconds))
    print(f"{runs} runs of {seconds:g} s, {os.cpu_count()} cores, load average {min(loads):.1f} to {max(loads):.1f}\n")
    print("| work | | per second | of no replica | p50 | p99 | Mumbai's CPU for each | its replica's |")
    print("|---|---|---|---|---|---|---|---|")
    for work in WORKS:
        base = statistics.median(one.per_second for one in samples[work.title, ALONE.title])
        for state in work.states:
            found = samples[work.title, state.title]
            rate, p50_ms, p99_ms, branch_us, replica_us = (statistics.median(each) for each in zip(*found, strict=True))
            low, high = min(one.per_second for one in found), max(one.per_second for one in found)
            shown = f"| {work.title} | {state.title} | {rate:,.0f} ({low:,.0f} to {high:,.0f}) | {rate / base:.0%} "
            shown += f"| {p50_ms:.2f} ms | {p99_ms:.1f} ms | {branch_us:.0f} µs "
            print(shown + (f"| {replica_us:.0f} µs |" if state.followed else "| |"), flush=True)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--no-keys", action="store_true")
    options = parser.parse_args()
    replicas = {replica: of for of, replica in REPLICA_OF.items()}
    with (
        tempfile.TemporaryDirectory(prefix="zbank-acks-") as name,
        closing(Fed(Path(name) / "bank", replicas, secure=not options.no_keys)) as fed,
    ):
        for route, in_flight in (("local", 64), ("transfer", 256)):
            run_load([fed.client], fed.routes[route], in_flight, WARM_UP_S, 0, TIMEOUT_S)
        compare(fed, options.runs, options.seconds)


if __name__ == "__main__":
    main()
