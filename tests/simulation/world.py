"""Virtual time and all that one run has in common: what is due, what has happened, what was seen."""

from __future__ import annotations

import heapq
import logging
from collections import Counter, deque
from collections.abc import Callable, Container, Iterator, Sequence
from contextlib import contextmanager

from tests.simulation.chance import Chance
from tests.simulation.judge import Judge
from tests.simulation.network import GOOD, Network
from tests.simulation.swarm import Swarm
from zbank.protocol.messages import AnyMessage, Beat, Hello, Position, Welcome

TRACE_LINES = 60_000
log = logging.getLogger("zbank")
_TALK = (Beat, Hello, Welcome, Position)  #: left out of the trace

Line = tuple[int, str, str, str, Sequence[AnyMessage]]  #: (time, kind, from, to, messages)


class World:
    """One run's time, chance and memory."""

    def __init__(self, seed: int, without: Container[str] = ()) -> None:
        """`without` are the keys of what is left out of this run: faults that do not happen, wishes nobody has."""
        self.seed = seed
        self.chance = Chance(seed)
        self.swarm = Swarm.of(self.chance)
        self.judge = Judge(self.swarm.branches, self.swarm.coordinators)
        self.network = Network(self.chance, self, GOOD)
        self.now_us = 0
        self.begin_us = 0  #: when customers and faults begin
        self.events = 0
        self.acting = ""  #: the actor whose code runs
        self.happenings: dict[str, str] = {}  #: by key: the kind of fault or wish; in the order they happened
        self.trace: deque[Line] = deque(maxlen=TRACE_LINES)
        self._without = without
        self._due: list[tuple[int, int, Callable[[], None]]] = []
        self._order = 0
        self._counts: Counter[tuple[object, ...]] = Counter()

    def at(self, time_us: int, act: Callable[[], None]) -> None:
        """Do it then."""
        assert time_us >= self.now_us, f"{time_us} is over, it is {self.now_us}"
        self._order += 1
        heapq.heappush(self._due, (time_us, self._order, act))

    def run(self, until_us: int) -> None:
        """Let everything happen that is due until then."""
        while self._due and self._due[0][0] <= until_us:
            self.now_us, _, act = heapq.heappop(self._due)
            self.events += 1
            act()
        self.now_us = until_us

    def count(self, *about: object) -> int:
        """How often this was asked before."""
        self._counts[about] += 1
        return self._counts[about]

    def happened(self, kind: str, key: str) -> bool:
        """May this happen in this run? If so it counts as having happened."""
        if key in self._without:
            return False
        self.happenings[key] = kind
        if kind not in ("lost", "repeated", "delayed", "wish"):
            self.note(key)
        return True

    @contextmanager
    def listening(self) -> Iterator[None]:
        """What the actors say in their logs goes to the trace, and nowhere else."""
        handler = _LogToTrace(self)
        before = log.propagate, log.level
        log.propagate, log.level = False, logging.INFO
        log.addHandler(handler)
        try:
            yield
        finally:
            log.removeHandler(handler)
            log.propagate, log.level = before

    def note(self, text: str) -> None:
        """A line of the trace."""
        self.trace.append((self.now_us, text, "", "", ()))

    def seen(self, kind: str, source: str, target: str, messages: Sequence[AnyMessage]) -> None:
        """Something became of a frame."""
        sometimes = self.judge.sometimes
        if kind == "sent":
            if source in self.judge.actors:
                self.judge.sent(source, messages)
            return
        if kind != "arrived":
            for message in messages:
                if type(message) not in _TALK:
                    sometimes[f"{type(message).__name__} {kind}"] += 1
        self.trace.append((self.now_us, kind, source, target, messages))


class _LogToTrace(logging.Handler):
    def __init__(self, world: World) -> None:
        super().__init__()
        self._world = world

    def emit(self, record: logging.LogRecord) -> None:
        self._world.note(f"{self._world.acting} logs: {record.getMessage()}")
