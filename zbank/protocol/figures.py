"""What an actor counts of itself, for who watches it. Nothing here is durable, and nothing is decided by it."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter

from zbank.domain.legs import branches_of
from zbank.protocol.messages import CountInfo, FiguresInfo, HistogramInfo
from zbank.protocol.records import Aborted, Decided, Ended, Executed, Record, Refused

BOUNDS_US = (250, 500, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000, 200_000, 500_000, 1_000_000, 5_000_000)


class Histogram:
    """How often something took how long, by classes."""

    def __init__(self) -> None:
        self.counts = [0] * (len(BOUNDS_US) + 1)
        self.total_us = 0

    def add(self, took_us: int) -> None:
        """Count one."""
        self.counts[bisect_left(BOUNDS_US, took_us)] += 1
        self.total_us += took_us

    def info(self, name: str) -> HistogramInfo:
        """The wire form."""
        return HistogramInfo(name, BOUNDS_US, tuple(self.counts), self.total_us)


class Figures:
    """The counts of one process of an actor."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()  #: "turns", "messages", "rows KIND" of the journal, transfers by outcome
        self.force = Histogram()  #: of the disk, each commit
        self.vote = Histogram()  #: coordinator: from the request to each vote
        self.decide = Histogram()  #: from the request to the decision
        self.apply = Histogram()  #: from the decision to each ack
        self._decided_us: dict[bytes, int] = {}  #: by transfer that is not ended: its decision, after the request

    def turn(self, messages: int) -> None:
        """A batch was taken on."""
        self.counts["turns"] += 1
        self.counts["messages"] += messages

    def row(self, kind: str, record: Record) -> None:
        """A row was forced."""
        self.counts[f"rows {kind}"] += 1
        if type(record) is Executed:
            self.counts["local committed"] += 1
        elif type(record) is Refused:
            if record.content is not None:
                one_branch = len(branches_of(record.content.legs)) == 1
                self.counts["local aborted" if one_branch else "between branches aborted"] += 1
        elif type(record) is Aborted:
            if record.refusal is not None:  # at the home branch alone
                self.counts["between branches aborted"] += 1
        elif type(record) is Decided:
            self.counts["between branches committed"] += 1
            self.decide.add(record.decided_us)
            self._decided_us[record.id] = record.decided_us
            for vote in record.votes:
                self.vote.add(vote.voted_us)
        elif type(record) is Ended:
            for ending in record.endings:
                decided_us = self._decided_us.pop(ending.id, None)
                if decided_us is not None:
                    for ack in ending.acks:
                        if ack.acked_us >= 0:  # else memory was rebuilt in between, and the request's time is lost
                            self.apply.add(ack.acked_us - decided_us)

    def info(self, role: str, name: str) -> FiguresInfo:
        """The wire form; histograms that never counted are left out."""
        named = {"force": self.force, "vote": self.vote, "decide": self.decide, "apply": self.apply}
        histograms = tuple(one.info(what) for what, one in named.items() if any(one.counts))
        counts = tuple(CountInfo(what, count) for what, count in sorted(self.counts.items()))
        return FiguresInfo(role, name, counts, histograms)
