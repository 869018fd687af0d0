"""What the actors counted, over time: rates and latencies out of counters that only grow. Pure; times are given."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, NamedTuple

KEPT = 240  #: samples
SPACING_S = 0.95  #: a sample of the chart stands for at least so long
RATE_S = 3.0  #: what "per second, now" is the mean of

LOCAL = "local committed"
BETWEEN = "between branches committed"
ROWS = "rows committed"


@dataclass(frozen=True, slots=True)
class Histogram:
    """How often something took how long."""

    bounds_ms: tuple[float, ...]
    counts: tuple[int, ...]

    def since(self, before: Histogram | None) -> Histogram:
        """What was added. An actor that was started anew counts from zero."""
        if before is None or before.bounds_ms != self.bounds_ms or sum(before.counts) > sum(self.counts):
            return self
        counts = tuple(max(0, now - then) for now, then in zip(self.counts, before.counts, strict=True))
        return Histogram(self.bounds_ms, counts)

    def quantile(self, share: float) -> float | None:
        """Milliseconds below which this share lies, by a straight line within its class; None of nothing."""
        total = sum(self.counts)
        if total == 0:
            return None
        rank, low_ms = share * total, 0.0
        for bound_ms, count in zip(self.bounds_ms, self.counts, strict=False):
            if count and rank <= count:
                return low_ms + (bound_ms - low_ms) * rank / count
            rank -= count
            low_ms = bound_ms
        return low_ms


class Sample(NamedTuple):
    """What all actors had counted at one moment."""

    at_s: float  #: monotonic
    wall_s: float  #: for the axis
    committed: Mapping[str, int]  #: by actor: transfers that it brought to their end
    by_branch: Mapping[str, int]  #: transfers with a leg at the branch
    decide: Histogram | None
    force: Mapping[str, Histogram]


class Point(NamedTuple):
    """Between two samples."""

    wall_s: float
    per_second: float
    by_branch: Mapping[str, float]
    p50_ms: float | None
    p99_ms: float | None


def sample_of(actors: Sequence[Mapping[str, Any]], at_s: float, wall_s: float) -> Sample:
    """A sample of `/v1/figures`."""
    committed: dict[str, int] = {}
    by_branch: dict[str, int] = {}
    force: dict[str, Histogram] = {}
    decide = None
    for actor in actors:
        if not actor["up"]:
            continue
        counts = actor["counts"]
        committed[actor["name"]] = counts.get(LOCAL, 0) + counts.get(BETWEEN, 0)
        histograms = {one["name"]: one for one in actor["histograms"]}
        if actor["role"] == "branch":
            by_branch[actor["name"]] = counts.get(LOCAL, 0) + counts.get(ROWS, 0)
        elif "decide" in histograms:
            decide = _histogram(histograms["decide"])
        if "force" in histograms:
            force[actor["name"]] = _histogram(histograms["force"])
    return Sample(at_s, wall_s, committed, by_branch, decide, force)


def _histogram(told: Mapping[str, Any]) -> Histogram:
    return Histogram(tuple(told["bounds_ms"]), tuple(told["counts"]))


@dataclass
class History:
    """The last minutes of one bank."""

    samples: deque[Sample] = field(default_factory=lambda: deque(maxlen=KEPT))
    latest: Sample | None = None

    def add(self, sample: Sample) -> None:
        """One more look."""
        self.latest = sample
        if not self.samples or sample.at_s - self.samples[-1].at_s >= SPACING_S:
            self.samples.append(sample)

    def now(self) -> Point | None:
        """The last RATE_S seconds; None before there are two samples."""
        if self.latest is None:
            return None
        since = [sample for sample in self.samples if sample.at_s < self.latest.at_s]
        if not since:
            return None
        recent = [sample for sample in since if sample.at_s >= self.latest.at_s - RATE_S]
        return _between(recent[0] if recent else since[-1], self.latest)

    def points(self, window_s: float) -> Iterator[Point]:
        """The chart's points of the last `window_s` seconds, oldest first."""
        kept = list(self.samples)
        for before, after in pairwise(kept):
            if self.latest is not None and after.at_s >= self.latest.at_s - window_s:
                yield _between(before, after)

    def latency_ms(self, window_s: float) -> tuple[float, float] | None:
        """How long decisions took in the last `window_s` seconds: half within, 99 of 100 within; None without any."""
        if self.latest is None or self.latest.decide is None:
            return None
        before = next((kept for kept in self.samples if kept.at_s >= self.latest.at_s - window_s), self.latest)
        recent = self.latest.decide.since(before.decide)
        half, most = recent.quantile(0.5), recent.quantile(0.99)
        return None if half is None or most is None else (half, most)

    def force_ms(self, actor: str, share: float) -> float | None:
        """How long this actor's disk takes for a force, over all that is remembered."""
        if self.latest is None or actor not in self.latest.force:
            return None
        before = self.samples[0].force.get(actor) if self.samples else None
        recent = self.latest.force[actor].since(before)
        return recent.quantile(share) if sum(recent.counts) else self.latest.force[actor].quantile(share)


def _between(before: Sample, after: Sample) -> Point:
    took_s = max(after.at_s - before.at_s, 1e-3)
    decided = after.decide.since(before.decide) if after.decide else None
    return Point(
        after.wall_s,
        sum(_grown(before.committed, after.committed).values()) / took_s,
        {name: grown / took_s for name, grown in _grown(before.by_branch, after.by_branch).items()},
        decided.quantile(0.5) if decided else None,
        decided.quantile(0.99) if decided else None,
    )


def _grown(before: Mapping[str, int], after: Mapping[str, int]) -> dict[str, int]:
    """By how much each counter grew. One that fell, or was not there, counts from now on: its actor was away, or began anew."""
    return {name: max(0, now - before.get(name, now)) for name, now in after.items()}
