"""What is broken when: a schedule drawn from a seed. Pure.

Every kind happens once before any happens again; then all heals, the bank has a moment without faults, and it begins
anew. Faults of different actors and links overlap.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from zbank.apps.chaos.connection import Link
from zbank.config import COORDINATOR_NAME

CLIENTS = "clients"  #: the origin of the customers' links
CALM_S = 4.0  #: without faults, at the beginning and after each round
GAP_S = (0.6, 2.6)  #: from the beginning of one fault to that of the next
SHORT_S = (0.2, 2.0)  #: shorter than every limit of the protocol
LONG_S = (6.0, 9.0)  #: longer than all of them: silence 3 s, votes 4 s, inquiry 2 s and 5 s
LONG_SHARE = 0.4  #: of those faults that may be either

KILL = "kill"
KILL_SEVERAL = "kill_several"
PAUSE_SHORT = "pause_short"
PAUSE_LONG = "pause_long"
RESTART = "restart"
CUT_ONE_WAY = "cut_one_way"
CUT_BOTH_WAYS = "cut_both_ways"
DELAY = "delay"
BURSTS = "bursts"
BREAK = "break_connections"
DISK_FULL = "disk_full"

ENDS = (KILL, KILL_SEVERAL, RESTART)  #: those that end a process, and start it again

FORWARD, BACKWARD = "forward", "backward"


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault, from its beginning to its end."""

    kind: str
    begin_s: float  #: from the start of the chaos
    lasts_s: float
    actors: tuple[str, ...] = ()  #: whom it hits
    link: Link | None = None  #: or which link
    ways: tuple[str, ...] = ()  #: which of its directions
    by_s: float = 0.0  #: how late things are
    resets: bool = False  #: a cut whose connections do not survive it

    @property
    def end_s(self) -> float:
        """From the start of the chaos."""
        return self.begin_s + self.lasts_s

    @property
    def places(self) -> set[str]:
        """What it occupies: no two faults at one place at a time, but for an end (ENDS) while the disk is full."""
        return {str(self.link)} if self.link is not None else set(self.actors)

    def describe(self) -> str:
        """For a person: `kill -9 Mumbai (down 1.4 s)`."""
        return _WORDS[self.kind](self)


def plan(seed: int, seconds: float, branches: Sequence[str], disk_of: str | None) -> list[Fault]:
    """The faults of a run, in order of their beginning; all have ended after `seconds`. `disk_of` has a small disk."""
    chance = random.Random(seed)
    planner = _Planner(chance, branches, disk_of)
    faults: list[Fault] = []
    at_s = CALM_S
    while at_s < seconds:
        kinds = [kind for kind in _DRAWS if kind != DISK_FULL or disk_of is not None]
        chance.shuffle(kinds)
        for kind in kinds:
            fault = planner.draw(kind, at_s, faults)
            if fault.begin_s >= seconds:
                break
            lasts_s = min(fault.lasts_s, seconds - fault.begin_s)
            if kind == PAUSE_LONG and lasts_s < LONG_S[0]:
                continue  # cut short it is no long pause: it does not count as one
            faults.append(replace(fault, lasts_s=lasts_s))
            at_s = fault.begin_s + chance.uniform(*GAP_S)
        at_s = max(fault.end_s for fault in faults) + CALM_S if faults else seconds
    return sorted(faults, key=lambda fault: fault.begin_s)


def _is_free(fault: Fault, before: Sequence[Fault]) -> bool:
    """Does nothing else happen where this fault is to begin?

    Whoever has a full disk may be ended, once: it then starts while the disk is full, which must come out right, too.
    """
    met = [other for other in before if other.places & fault.places]
    full = [other for other in met if other.kind == DISK_FULL and other.end_s > fault.begin_s]
    if full and fault.kind not in ENDS:
        return False
    since_s = min([fault.begin_s, *(other.begin_s for other in full)])
    return not any(other.end_s > since_s for other in met if other not in full)


class _Planner:
    """Draws faults one by one."""

    def __init__(self, chance: random.Random, branches: Sequence[str], disk_of: str | None) -> None:
        self.chance = chance
        self.branches = tuple(branches)
        self.actors = (COORDINATOR_NAME, *branches)
        self.disk_of = disk_of
        self.links = [Link(CLIENTS, name) for name in self.actors]
        self.links += 2 * [Link(name, COORDINATOR_NAME) for name in branches]  # most of the bank's work goes there
        self.links += [Link(one, other) for one in branches for other in branches if one != other]

    def draw(self, kind: str, at_s: float, before: Sequence[Fault]) -> Fault:
        """A fault of this kind at a place that is free; it begins later where none is."""
        while True:
            for _ in range(10):
                fault = _DRAWS[kind](self, at_s)
                if _is_free(fault, before):
                    return fault
            at_s += 0.5

    def length_s(self, long_share: float = LONG_SHARE) -> float:
        """Short, or longer than every limit."""
        return self.chance.uniform(*(LONG_S if self.chance.random() < long_share else SHORT_S))

    def actor(self) -> str:
        """The coordinator in a third of the cases: everything between branches hangs on it."""
        return COORDINATOR_NAME if self.chance.random() < 1 / 3 else self.chance.choice(self.branches)

    def kill(self, at_s: float) -> Fault:
        return Fault(KILL, at_s, self.length_s(), (self.actor(),))

    def kill_several(self, at_s: float) -> Fault:
        count = self.chance.randint(2, len(self.actors))
        return Fault(KILL_SEVERAL, at_s, self.length_s(), tuple(sorted(self.chance.sample(self.actors, count))))

    def pause_short(self, at_s: float) -> Fault:
        return Fault(PAUSE_SHORT, at_s, self.length_s(0), (self.actor(),))

    def pause_long(self, at_s: float) -> Fault:
        return Fault(PAUSE_LONG, at_s, self.length_s(1), (self.actor(),))

    def restart(self, at_s: float) -> Fault:
        return Fault(RESTART, at_s, self.length_s(0), (self.actor(),))

    def cut_one_way(self, at_s: float) -> Fault:
        return self._cut(CUT_ONE_WAY, at_s, (self.chance.choice((FORWARD, BACKWARD)),))

    def cut_both_ways(self, at_s: float) -> Fault:
        return self._cut(CUT_BOTH_WAYS, at_s, (FORWARD, BACKWARD))

    def _cut(self, kind: str, at_s: float, ways: tuple[str, ...]) -> Fault:
        link, resets = self.chance.choice(self.links), self.chance.random() < 0.5
        return Fault(kind, at_s, self.length_s(0.6), link=link, ways=ways, resets=resets)

    def delay(self, at_s: float) -> Fault:
        return self._late(DELAY, at_s, self.chance.choice((0.02, 0.2, 1.0)))

    def bursts(self, at_s: float) -> Fault:
        return self._late(BURSTS, at_s, self.chance.uniform(0.3, 2.0))

    def _late(self, kind: str, at_s: float, by_s: float) -> Fault:
        link, lasts_s = self.chance.choice(self.links), self.chance.uniform(2.0, 6.0)
        return Fault(kind, at_s, lasts_s, link=link, ways=(FORWARD, BACKWARD), by_s=by_s)

    def break_connections(self, at_s: float) -> Fault:
        used = [link for link in self.links if {CLIENTS, COORDINATOR_NAME} & set(link)]  # the others are mostly silent
        return Fault(BREAK, at_s, 0.0, link=self.chance.choice(used), ways=(FORWARD, BACKWARD))

    def disk_full(self, at_s: float) -> Fault:
        return Fault(DISK_FULL, at_s, self.chance.uniform(2.0, 5.0), (str(self.disk_of),))


_DRAWS: dict[str, Callable[[_Planner, float], Fault]] = {
    KILL: _Planner.kill,
    KILL_SEVERAL: _Planner.kill_several,
    PAUSE_SHORT: _Planner.pause_short,
    PAUSE_LONG: _Planner.pause_long,
    RESTART: _Planner.restart,
    CUT_ONE_WAY: _Planner.cut_one_way,
    CUT_BOTH_WAYS: _Planner.cut_both_ways,
    DELAY: _Planner.delay,
    BURSTS: _Planner.bursts,
    BREAK: _Planner.break_connections,
    DISK_FULL: _Planner.disk_full,
}
KINDS = tuple(_DRAWS)


def _names(fault: Fault) -> str:
    return ", ".join(fault.actors)


def _arrow(fault: Fault) -> str:
    """The link with the directions that are hit."""
    assert fault.link is not None
    arrow = ("<" if BACKWARD in fault.ways else "") + "-" + (">" if FORWARD in fault.ways else "")
    return f"{fault.link.origin} {arrow} {fault.link.target}"


def _cut(fault: Fault) -> str:
    return f"cut {_arrow(fault)} ({fault.lasts_s:.1f} s{', then its connections are reset' if fault.resets else ''})"


_WORDS: dict[str, Callable[[Fault], str]] = {
    KILL: lambda fault: f"kill -9 {_names(fault)} (down {fault.lasts_s:.1f} s)",
    KILL_SEVERAL: lambda fault: f"kill -9 {_names(fault)} at once (down {fault.lasts_s:.1f} s)",
    PAUSE_SHORT: lambda fault: f"pause {_names(fault)} ({fault.lasts_s:.1f} s)",
    PAUSE_LONG: lambda fault: f"pause {_names(fault)} beyond every timeout ({fault.lasts_s:.1f} s)",
    RESTART: lambda fault: f"restart {_names(fault)} by SIGTERM (down {fault.lasts_s:.1f} s)",
    CUT_ONE_WAY: _cut,
    CUT_BOTH_WAYS: _cut,
    DELAY: lambda fault: f"delay {_arrow(fault)} by {fault.by_s * 1000:.0f} ms ({fault.lasts_s:.1f} s)",
    BURSTS: lambda fault: f"stall {_arrow(fault)}, then a burst, every {fault.by_s:.1f} s ({fault.lasts_s:.1f} s)",
    BREAK: lambda fault: f"reset {_arrow(fault)} in mid-message",
    DISK_FULL: lambda fault: f"fill the disk of {_names(fault)} ({fault.lasts_s:.1f} s)",
}


def moments(faults: Sequence[Fault]) -> Iterator[tuple[float, bool, Fault]]:
    """(time, begins?, fault) of every beginning and end, in order."""
    found = [(fault.begin_s, True, fault) for fault in faults]
    found += [(fault.end_s, False, fault) for fault in faults if fault.lasts_s]
    yield from sorted(found, key=lambda moment: (moment[0], moment[1]))
