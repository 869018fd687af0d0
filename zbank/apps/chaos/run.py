"""One run of the chaos: start a bank, load it, break it by a schedule, mend it, judge it, stop it."""

from __future__ import annotations

import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, wait
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path

from zbank import Client, __version__
from zbank.apps.chaos.cluster import BRANCH_NAMES, CLUSTER_NAME, CannotStart, ChaosCluster
from zbank.apps.chaos.conductor import Conductor
from zbank.apps.chaos.disk import NoDisk, SmallDisk
from zbank.apps.chaos.faults import Fault, moments, plan
from zbank.apps.chaos.history import History
from zbank.apps.chaos.load import Load, wait_at_rest
from zbank.apps.chaos.proxy import Proxy
from zbank.apps.chaos.report import Report, latency_of
from zbank.config import COORDINATOR_NAME, data_file
from zbank.protocol.messages import ABORTED, COMMITTED

START_LIMIT_S = 60.0
TIMEOUT_S = 6.0  #: of a customer's request: longer than the coordinator waits for votes, so that its word is heard
IN_FLIGHT = 2_000
TICK_S = 0.1
STATUS_EVERY_S = 5.0

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Order:
    """What is asked for."""

    minutes: float
    seed: int
    branches: int
    keep: bool  #: data, logs and configs stay, whatever comes out

    @property
    def names(self) -> tuple[str, ...]:
        """Of the branches."""
        return BRANCH_NAMES[: self.branches]


def run(order: Order, say: Say) -> Report:
    """Do it; `say` gets each line of progress. Raises CannotStart, OSError; what the bank does wrong is in the report.

    Whatever it raises, nothing is left, unless it was ordered to keep the folder.
    """
    folder = Path(tempfile.mkdtemp(prefix="zbank-chaos-"))
    try:
        report = _run_in(folder, order, say)
    except BaseException:
        if not order.keep:
            shutil.rmtree(folder, ignore_errors=True)
        raise
    if report.findings or order.keep:
        report.directory = str(folder)
    else:
        shutil.rmtree(folder)
    return report


def _run_in(folder: Path, order: Order, say: Say) -> Report:
    with ExitStack() as stack:
        proxy = stack.enter_context(closing(Proxy()))
        cluster = ChaosCluster(folder, order.names, proxy, order.seed)
        disk, skipped = _small_disk(folder, cluster, stack)
        stack.callback(cluster.close)
        client = stack.enter_context(
            Client(cluster.endpoint(COORDINATOR_NAME), cluster=CLUSTER_NAME, timeout_s=TIMEOUT_S, keys="")
        )
        _start(cluster, client, order.keep)
        say(f"started {len(cluster.actors)} processes, data and logs in {folder}")
        load = Load(client, cluster.branches, order.seed, in_flight=IN_FLIGHT, timeout_s=TIMEOUT_S)
        begun_s = load.calm_since_s = time.monotonic()

        def say_when(text: str) -> None:
            say(f"{time.monotonic() - begun_s:6.1f} s  {text}")

        conductor = Conductor(cluster, proxy, load, disk, say_when)
        disk_of = cluster.branches[-1] if disk else None
        _break(
            conductor, load, plan(order.seed, order.minutes * 60, order.names, disk_of), order.minutes * 60, say_when
        )
        say_when("all is mended: waiting until every transfer has its outcome and the bank is at rest")
        findings = _judge(load, conductor, say_when)
        say_when("stopping all")
        findings = conductor.findings + findings + cluster.verify(conductor.down, say_when)
        if disk and (findings or order.keep):
            _save(folder, cluster, disk_of)
        return _report(order, load, conductor, proxy, findings, skipped)


def _small_disk(folder: Path, cluster: ChaosCluster, stack: ExitStack) -> tuple[SmallDisk | None, list[str]]:
    """A disk that can be filled, under the last branch; or why there is none."""
    place = folder / "disk"
    try:
        disk = stack.enter_context(closing(SmallDisk(place)))
    except NoDisk as error:
        return None, [f"a full disk: {error.detail}"]
    cluster.data_of[cluster.branches[-1]] = place
    return disk, []


def _start(cluster: ChaosCluster, client: Client, keep: bool) -> None:
    """Raises CannotStart, at once when an actor ends: nothing is broken yet, so there is nothing to wait for."""
    for name in cluster.actors:
        cluster.start(name)
    waiting = _in_background(lambda: wait_at_rest(client, len(cluster.actors), START_LIMIT_S))
    while not waiting.done() and not cluster.ended():
        wait([waiting], TICK_S)
    reasons = cluster.ended() or waiting.result()
    if reasons:
        where = f"logs are in {cluster.folder}" if keep else "with --keep the logs stay"
        raise CannotStart(f"the cluster does not come up: {'; '.join(reasons)}; {where}")


def _judge(load: Load, conductor: Conductor, say_when: Say) -> list[str]:
    """What the judge finds; it takes its time, so there is word of it now and then."""
    judging = _in_background(load.judge)
    status_s = time.monotonic()
    while not judging.done():
        conductor.tick()  # nobody may end in this time either
        if time.monotonic() >= status_s + STATUS_EVERY_S:
            say_when(f"{load.stage}: {load.history.open_count:,} transfers are not known yet")
            status_s = time.monotonic()
        wait([judging], TICK_S)
    conductor.tick()
    return judging.result()


def _in_background(work: Callable[[], list[str]]) -> Future[list[str]]:
    """Let a thread do it. It ends with the process, so that nobody who tells that to stop has to wait."""
    future: Future[list[str]] = Future()

    def do() -> None:
        try:
            future.set_result(work())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=do, daemon=True).start()
    return future


def _break(conductor: Conductor, load: Load, schedule: Sequence[Fault], seconds: float, say_when: Say) -> None:
    """Follow the schedule; in the end all is mended."""
    waiting = list(moments(schedule))
    begun_s = status_s = time.monotonic()
    outcomes = 0
    while (now_s := time.monotonic()) < begun_s + seconds:
        while waiting and waiting[0][0] <= now_s - begun_s:
            _, begins, fault = waiting.pop(0)
            (conductor.begin if begins else conductor.end)(fault)
        conductor.tick()
        if now_s >= status_s + STATUS_EVERY_S:
            say_when(_status(load.history, len(load.latencies_s) - outcomes, now_s - status_s))
            outcomes, status_s = len(load.latencies_s), now_s
        time.sleep(TICK_S if not waiting else max(0.0, min(TICK_S, waiting[0][0] - (time.monotonic() - begun_s))))
    conductor.heal()


def _status(history: History, outcomes: int, seconds: float) -> str:
    told = _transfers(history)
    return (
        f"{outcomes / seconds:,.0f} outcomes/s; told so far: {told['committed']:,} committed, "
        f"{told['aborted']:,} aborted; {told['unknown']:,} not known yet"
    )


def _transfers(history: History) -> dict[str, int]:
    """Numbers of transfers by their outcome."""
    statuses = [told.status for told in list(history.told.values())]
    counts = {status: statuses.count(status) for status in (COMMITTED, ABORTED)}
    return {"asked": len(history.asked), **counts, "unknown": history.open_count}


def _save(folder: Path, cluster: ChaosCluster, name: str | None) -> None:
    """What is on the small disk would be gone with it."""
    assert name is not None
    shutil.copy2(data_file(cluster.data_of[name], name), folder / "data")


def _report(
    order: Order, load: Load, conductor: Conductor, proxy: Proxy, findings: list[str], skipped: list[str]
) -> Report:
    history = load.history
    return Report(
        version=__version__,
        seed=order.seed,
        minutes=order.minutes,
        branches=order.branches,
        faults=dict(conductor.made),
        connections_broken=sum(proxy.broken.values()),
        transfers=_transfers(history),
        not_outcomes=dict(history.faults.most_common()),
        latency_undisturbed=latency_of(load.calm_latencies_s),
        latency_all=latency_of(load.latencies_s),
        longest_settle_s=round(history.longest_settle_s, 1),
        findings=findings,
        skipped=skipped + conductor.skipped,
    )
