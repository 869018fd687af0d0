"""The network of the bank in `synchronous`.

By the seed it is orderly, as connections are: nothing is lost or overtaken until a connection breaks, and then all that was on
its way over it is gone. Or it is wild: frames are lost, repeated, overtake each other, and meet another life of who they were
sent to.
"""

from __future__ import annotations

from collections import Counter
from random import Random
from typing import NamedTuple

from tests.simulation.synchronous_process import Process
from zbank.protocol.machine import Sender
from zbank.protocol.messages import AnyMessage

MAX_FRAMES = 300  #: on their way; more is lost


class Frame(NamedTuple):
    """Messages on their way."""

    source: Process | None  #: None = a customer
    target: Process
    sender: Sender  #: as the target sees it
    envelopes: list[tuple[int, AnyMessage]]
    life: int  #: of the target, when this was sent
    due: int = 0  #: it does not come before so many others have


class Network:
    """What is on its way, and which ways are cut."""

    def __init__(self, random: Random) -> None:
        self._random = random
        self.is_orderly = random.random() < 0.3
        self.loss = 0.0 if self.is_orderly else random.choice((0.0, 0.02, 0.1))
        self.feed_loss = random.choice((0.0, 0.1, 0.5, 1.0))
        self.frames: list[Frame] = []
        self.cuts: set[tuple[str, str]] = set()  #: (from, to): what is sent waits
        self._late = 0.0 if self.is_orderly else random.choice((0.0, 0.05))
        self._taken = 0  #: frames that have come
        self._breaks: Counter[frozenset[str]] = Counter()  #: by the two ends

    def heal(self) -> None:
        """Nothing is lost any more."""
        self.loss = self.feed_loss = self._late = 0.0
        self.cuts.clear()
        self.frames = [frame._replace(due=0) for frame in self.frames]

    def send(self, frame: Frame, loss: float | None = None) -> Frame | None:
        """Lose it, send it twice, or once; it comes when chance wants, or very late. Gives what is lost."""
        if frame.target.is_lost or not (frame.target.is_up or not self.is_orderly):
            return frame
        loss = self.loss if loss is None else loss
        if self._random.random() < loss:
            return frame
        if self._random.random() < self._late:
            frame = frame._replace(due=self._taken + self._random.randint(10, 150))
        self.frames.append(frame)
        if loss and frame.source is not None and self._random.random() < loss:
            self.frames.append(frame)
        return self.frames.pop(self._random.randrange(len(self.frames))) if len(self.frames) > MAX_FRAMES else None

    def is_open(self, one: Process, other: Process) -> bool:
        """Both hear each other."""
        return not {(one.key, other.key), (other.key, one.key)} & self.cuts

    def cut(self, one: Process, other: Process, *, both_ways: bool = True) -> None:
        """What one sends to the other waits until this is healed."""
        self.cuts.add((one.key, other.key))
        if both_ways:
            self.cuts.add((other.key, one.key))

    def mend(self, cut_off: set[str]) -> None:
        """One cut is healed, unless it is of a machine that is to be cut off."""
        found = sorted(ends for ends in self.cuts if not cut_off & set(ends))
        if found:
            self.cuts.discard(self._random.choice(found))

    def break_link(self, one: Process, other: Process) -> None:
        """A connection ends: what is on its way is lost, and whoever dialled does so anew."""
        ends = frozenset((one.key, other.key))
        self._breaks[ends] += 1
        self.frames = [
            frame
            for frame in self.frames
            if frame.source is None or frozenset((frame.source.key, frame.target.key)) != ends
        ]

    def route(self, source: Process, target: Process) -> bytes:
        """What a connection is called by whom it was made to."""
        breaks = self._breaks[frozenset((source.key, target.key))]
        return f"{source.key}>{target.key}.{source.life}.{breaks}".encode()

    def take(self) -> tuple[Process, list[Frame]] | None:
        """Whom something reaches now, and what: what comes together is one turn."""
        ready = self._ready()
        if not ready:
            return None
        random = self._random
        first = ready[0] if random.random() < 0.7 else random.choice(ready)
        taken = [first]
        self._remove(first)
        self._taken += 1
        while random.random() < 0.4:
            more = [frame for frame in self._ready() if frame.target is first.target]
            if not more:
                break
            taken.append(random.choice(more))
            self._remove(taken[-1])
        return first.target, taken

    def _ready(self) -> list[Frame]:
        ready: list[Frame] = []
        seen: set[tuple[Process | None, Process]] = set()
        gone: list[Frame] = []
        for frame in self.frames:
            source, target = frame.source, frame.target
            if target.is_lost or (self.is_orderly and frame.life != target.life):
                gone.append(frame)
                continue
            is_cut = source is not None and (source.key, target.key) in self.cuts
            if is_cut or frame.due > self._taken or not target.is_up or target.is_paused:
                continue
            if self.is_orderly and (source, target) in seen:
                continue
            seen.add((source, target))
            ready.append(frame)
        for frame in gone:
            self._remove(frame)
        return ready

    def _remove(self, frame: Frame) -> None:
        del self.frames[next(place for place, one in enumerate(self.frames) if one is frame)]
