"""Many seeds, on as many cores as wanted: results in the order of the seeds, and what they add up to."""

from __future__ import annotations

import itertools
import multiprocessing
import signal
import time
from collections import Counter, deque
from collections.abc import Container, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from types import FrameType
from typing import Any

import msgspec

from tests.simulation.bugs import all_bugs
from tests.simulation.run import Result, play
from tests.simulation.sometimes import STANDARD_SEEDS, Situation, missing
from tests.simulation.violation import Violation
from tests.simulation.world import World

AHEAD = 4  #: seeds that are given to each worker before the oldest result is taken
SEED_LIMIT_S = 120.0  #: in real time; the slowest seeds take a few seconds


class Totals(msgspec.Struct):
    """What many runs add up to."""

    seeds: int = 0
    events: int = 0
    frames: int = 0
    virtual_s: float = 0.0
    busy_s: float = 0.0  #: spent in runs, summed over all workers
    happenings: Counter[str] = msgspec.field(default_factory=Counter)  #: by kind
    answers: Counter[str] = msgspec.field(default_factory=Counter)
    sometimes: Counter[str] = msgspec.field(default_factory=Counter)

    def add(self, result: Result) -> None:
        """One run more."""
        self.seeds += 1
        self.events += result.events
        self.frames += result.frames
        self.virtual_s += result.virtual_s
        self.busy_s += result.real_s
        self.happenings.update(result.happenings.values())
        self.answers.update(result.answers)
        self.sometimes.update(result.sometimes)

    @property
    def missing(self) -> list[Situation]:
        """The situations that no run has met."""
        return list(missing(self.happenings + self.sometimes))

    @property
    def must_be_complete(self) -> bool:
        """Were these runs enough for every situation?"""
        return self.seeds >= STANDARD_SEEDS


def play_in_time(seed: int, without: Container[str] = (), limit_s: float = SEED_LIMIT_S) -> tuple[Result, World]:
    """`play`, in which a run that does not end is a violation too."""
    with _time_limit(limit_s):
        return play(seed, without)


@contextmanager
def _time_limit(limit_s: float) -> Iterator[None]:
    def ring(_signal: int, frame: FrameType | None) -> None:
        place = f"{frame.f_code.co_filename}:{frame.f_lineno}" if frame else "?"
        raise Violation(f"a run ends within {limit_s:g} s of real time: it was at {place}")

    old_handler = signal.signal(signal.SIGALRM, ring)
    left_s, _ = signal.setitimer(signal.ITIMER_REAL, limit_s)
    started_s = time.monotonic()
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, old_handler)
        if left_s:  # somebody else's limit goes on
            signal.setitimer(signal.ITIMER_REAL, max(0.001, left_s - (time.monotonic() - started_s)))


def results(start: int, seeds: int | None, workers: int, end_s: float | None, planted: str = "") -> Iterator[Result]:
    """Play seeds from `start` on: so many, or (None) until the monotonic clock shows `end_s`. Results in seed order.

    A bug that is planted in this process is named, for the workers to plant it too. Raises
    concurrent.futures.process.BrokenProcessPool when a worker dies.
    """
    wanted = itertools.count(start) if seeds is None else iter(range(start, start + seeds))
    if end_s is not None:
        wanted = itertools.takewhile(lambda _: time.monotonic() < end_s, wanted)
    if workers == 1:
        yield from (_result(seed) for seed in wanted)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, _begin, (planted,)) as pool:
        under_way: deque[Future[Any]] = deque()
        try:
            for seed in wanted:
                under_way.append(pool.submit(_result, seed))
                if len(under_way) >= workers * AHEAD:
                    yield under_way.popleft().result()
            while under_way:
                yield under_way.popleft().result()
        finally:
            for future in under_way:
                future.cancel()


def _begin(planted: str) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C ends the one who gives the seeds, and that ends the workers
    if planted:
        all_bugs()[planted].plant(ExitStack())  # for as long as this process lives


def _result(seed: int) -> Result:
    return play_in_time(seed)[0]
