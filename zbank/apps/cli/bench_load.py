"""The load generator: keeps a number of requests in flight on each client and notes what becomes of every one.

It shares the machine with the bank it measures, so it is light: no thread per request (an answer's callback sends the
next request), a lock for the notes alone, and flat arrays in place of objects.
"""

from __future__ import annotations

import gc
import itertools
import math
import random
import threading
from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from time import perf_counter
from typing import TYPE_CHECKING

from zbank.errors import ClientClosed, RemoteFault, ZbankError
from zbank.ids import ID_BYTES, new_id

if TYPE_CHECKING:
    from zbank import Client, TransferResult

AMOUNT = 1  #: whole units moved by each request
WARM_UP_SHARE = 0.2  #: of the measured time, before it
WARM_UP_LIMIT_S = 1.0
FAULT_PAUSE_S = 0.1  #: before a slot whose request failed sends the next one
ROUTES = 8192  #: random pairs of accounts, used in turn
GRACE_S = 5.0  #: beyond the timeout, until the last answers are given up

Route = tuple[str, str]  #: (source account, destination account)


@dataclass(frozen=True, slots=True)
class Window:
    """When is measured, by perf_counter; before it warms up."""

    starts: float
    ends: float


@dataclass(slots=True)
class Record:
    """What became of the requests of one client (or of one batching thread)."""

    latencies_s: array[float] = field(
        default_factory=lambda: array("d")
    )  #: of those begun and answered within the window
    outcomes: Counter[str] = field(default_factory=Counter)
    committed_ids: bytearray = field(default_factory=bytearray)  #: one after the other
    committed_routes: array[int] = field(default_factory=lambda: array("I"))  #: index of the route of each
    unsettled: list[tuple[bytes, int]] = field(default_factory=list)  #: (id, route) whose outcome was not told

    def note(self, route: int, request_id: bytes, result: TransferResult | ZbankError) -> None:
        """Count one answer."""
        if isinstance(result, ZbankError):
            code = result.remote_code if isinstance(result, RemoteFault) else result.code
            self.outcomes[f"failed: {code}"] += 1
            self.unsettled.append((request_id, route))
        elif result.status == "committed":
            self.outcomes["committed"] += 1
            self.committed_ids += request_id
            self.committed_routes.append(route)
        elif result.status == "aborted":
            self.outcomes[f"refused: {result.refusal.code}" if result.refusal else "aborted"] += 1
        else:
            self.outcomes[result.status] += 1
            self.unsettled.append((request_id, route))

    def committed(self) -> Iterator[tuple[bytes, int]]:
        """(id, route) of each committed request."""
        for n, route in enumerate(self.committed_routes):
            yield bytes(self.committed_ids[n * ID_BYTES : (n + 1) * ID_BYTES]), route


def make_routes(sources: Sequence[Sequence[str]], crossing: bool, generator: random.Random) -> list[Route]:
    """Random pairs of accounts; `sources` has the accounts by branch. Crossing: of two branches, else of one."""
    routes = []
    for n in range(ROUTES):
        if crossing:
            one, other = generator.sample(sources, 2)
            routes.append((generator.choice(one), generator.choice(other)))
        else:
            source, destination = generator.sample(sources[n % len(sources)], 2)
            routes.append((source, destination))
    return routes


def run_load(
    clients: Sequence[Client], routes: Sequence[Route], in_flight: int, seconds: float, batch: int, timeout_s: float
) -> list[Record]:
    """Load the bank; what became of it. With `batch` > 0 a request is a batch of so many transfers."""
    starts = perf_counter() + min(seconds * WARM_UP_SHARE, WARM_UP_LIMIT_S)
    window = Window(starts, starts + seconds)
    gc.collect()
    gc.freeze()  # what stands by now need not be looked through again and again
    thresholds = gc.get_threshold()
    gc.set_threshold(50_000, *thresholds[1:])  # every request leaves objects that no cycle holds
    try:
        if batch:
            return _run_batches(clients, routes, in_flight, window, batch)
        workers = [_Worker(client, routes, in_flight, window, n) for n, client in enumerate(clients)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.finished.wait(max(window.ends - perf_counter(), 0) + timeout_s + GRACE_S)
        return [worker.record for worker in workers]
    finally:
        gc.set_threshold(*thresholds)
        gc.unfreeze()


class _Worker:
    """One client with its slots. Callbacks run in the client's I/O thread, but for one whose answer is there before it is set:
    that runs in the thread that has sent, as the first requests of all and those after a fault do."""

    def __init__(self, client: Client, routes: Sequence[Route], in_flight: int, window: Window, n: int) -> None:
        self.send = client.submit_transfer
        self.routes = routes
        self.order = itertools.cycle(random.Random(n).sample(range(len(routes)), len(routes)))
        self.window = window
        self.record = Record()
        self._noting = threading.Lock()
        self.finished = threading.Event()
        self._slots = [_Slot(self) for _ in range(in_flight)]
        self._ended: list[None] = []  # appending is atomic: the first requests are sent by another thread

    def start(self) -> None:
        """Send the first requests."""
        for slot in self._slots:
            slot.submit()

    def note(self, route: int, request_id: bytes, result: TransferResult | ZbankError) -> None:
        """Count one answer, in whichever thread."""
        with self._noting:
            self.record.note(route, request_id, result)

    def end_slot(self) -> None:
        """A slot sends no more."""
        self._ended.append(None)
        if len(self._ended) == len(self._slots):
            self.finished.set()


class _Slot:
    """One request in flight after the other."""

    __slots__ = ("_id", "_route", "_started", "_worker")

    def __init__(self, worker: _Worker) -> None:
        self._worker = worker
        self._id = b""
        self._route = 0
        self._started = 0.0

    def submit(self) -> None:
        """Send the next request."""
        worker = self._worker
        self._route = next(worker.order)
        self._id = new_id()
        source, destination = worker.routes[self._route]
        self._started = perf_counter()
        try:
            future = worker.send(source, destination, AMOUNT, id=self._id)
        except ZbankError as error:
            self._failed(error)
        else:
            future.add_done_callback(self._done)

    def _done(self, future: Future[TransferResult]) -> None:
        ended = perf_counter()
        worker = self._worker
        error = future.exception()
        if error is not None:
            if not isinstance(error, ZbankError):
                raise error
            self._failed(error)
            return
        worker.note(self._route, self._id, future.result())
        window = worker.window
        if ended >= window.ends:
            worker.end_slot()
            return
        if self._started >= window.starts:
            worker.record.latencies_s.append(ended - self._started)
        self.submit()

    def _failed(self, error: ZbankError) -> None:
        worker = self._worker
        worker.note(self._route, self._id, error)
        if perf_counter() >= worker.window.ends or isinstance(error, ClientClosed):
            worker.end_slot()
        else:
            threading.Timer(FAULT_PAUSE_S, self.submit).start()


def _run_batches(
    clients: Sequence[Client], routes: Sequence[Route], in_flight: int, window: Window, batch: int
) -> list[Record]:
    """Batches are sent by blocking calls, so here a thread stands for each batch in flight."""
    threads = len(clients) * in_flight
    with ThreadPoolExecutor(threads) as pool:
        running = [
            pool.submit(_batch_loop, client, routes, window, batch, n * in_flight + slot)
            for n, client in enumerate(clients)
            for slot in range(in_flight)
        ]
        return [future.result() for future in running]


def _batch_loop(client: Client, routes: Sequence[Route], window: Window, batch: int, seed: int) -> Record:
    from zbank import TransferRequest

    record = Record()
    order = itertools.cycle(random.Random(seed).sample(range(len(routes)), len(routes)))
    while (started := perf_counter()) < window.ends:
        chosen = [(new_id(), next(order)) for _ in range(batch)]
        requests = [TransferRequest(*routes[route], AMOUNT, id=request_id) for request_id, route in chosen]
        results = client.transfer_many(requests)
        ended = perf_counter()
        for (request_id, route), result in zip(chosen, results, strict=True):
            record.note(route, request_id, result)
        if started >= window.starts and ended <= window.ends:
            record.latencies_s.extend([ended - started] * batch)
        if all(isinstance(result, ZbankError) for result in results):
            threading.Event().wait(FAULT_PAUSE_S)
    return record


def percentile(ordered: Sequence[float], share: float) -> float:
    """The value below which `share` of the ordered values lie (nearest rank); 0 of nothing."""
    if not ordered:
        return 0.0
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]
