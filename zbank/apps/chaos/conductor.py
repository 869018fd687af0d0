"""Makes the faults of a schedule happen to a running cluster, and mends them again."""

from __future__ import annotations

import signal
import time
from collections import Counter
from collections.abc import Callable

from zbank.apps.chaos import faults as kinds
from zbank.apps.chaos.cluster import ChaosCluster
from zbank.apps.chaos.connection import HELD, OPEN, Link, Way
from zbank.apps.chaos.disk import NoDisk, SmallDisk
from zbank.apps.chaos.faults import BACKWARD, FORWARD, Fault
from zbank.apps.chaos.load import NEVER_S, Load
from zbank.apps.chaos.proxy import Proxy
from zbank.apps.supervisor import describe_exit

AFTERMATH_S = 2.0  #: after the last fault has ended, until a request counts as undisturbed
MAX_ENDS = 3  #: an actor that ended by itself so often in a row stays down, unless a fault starts it again
STEADY_S = 5.0  #: who has run so long before it ended is counted anew
DISK_EVERY_S = 0.5  #: what an actor gives back of a full disk is taken again; a disk that was not freed is tried again

Say = Callable[[str], None]


class Conductor:
    """Begins and ends faults, and notices who ends without having been told to."""

    def __init__(self, cluster: ChaosCluster, proxy: Proxy, load: Load, disk: SmallDisk | None, say: Say) -> None:
        self.made: Counter[str] = Counter(dict.fromkeys(kinds.KINDS, 0))  #: faults that hit somebody, by kind
        self.findings: list[str] = []
        self.skipped: list[str] = []
        self._cluster = cluster
        self._proxy = proxy
        self._load = load
        self._disk = disk
        self._say = say
        self._active: list[Fault] = []
        self._down: set[str] = set()  # on purpose, or for good, or until their disk has room
        self._no_room: set[str] = set()  # those among them
        self._ends: Counter[str] = Counter()  # by actor: how often in a row it ended by itself
        self._told: set[str] = set()  # to stop, while they ran
        self._disk_is_full = False
        self._disk_s = 0.0  # when it was last filled or freed, or that was tried; monotonic

    def begin(self, fault: Fault) -> None:
        """Make it happen. It counts when it hits somebody."""
        self._notice_ends()  # what ended before is not the fault's doing
        self._load.calm_since_s = NEVER_S
        hits = not fault.actors or not self._down.issuperset(fault.actors)
        self._say(fault.describe() + ("" if hits else ": is down already"))
        _BEGIN[fault.kind](self, fault)
        self.made[fault.kind] += hits and (fault.kind != kinds.DISK_FULL or self._disk_is_full)
        if fault.lasts_s:
            self._active.append(fault)
        else:
            self._mark_calm()

    def end(self, fault: Fault) -> None:
        """Mend it."""
        self._active.remove(fault)
        _END[fault.kind](self, fault)
        self._mark_calm()

    def heal(self) -> None:
        """Mend all that is still broken."""
        for fault in list(self._active):
            self.end(fault)
        self._proxy.heal()

    def _mark_calm(self) -> None:
        if not self._active:
            self._load.calm_since_s = time.monotonic() + AFTERMATH_S

    def tick(self) -> None:
        """To be called ten times a second. An actor that ended by itself is a finding, and is started again."""
        self._proxy.check()
        self._notice_ends()
        self._see_to_disk()

    @property
    def down(self) -> set[str]:
        """Actors that do not run, which is known and judged already."""
        return set(self._down)

    def _notice_ends(self) -> None:
        for name in self._cluster.actors:
            code = self._cluster.exit_code(name)
            if code is None or name in self._down:
                continue
            if self._cluster.had_no_room(name):
                self._say(f"{name} cannot start: its disk is full")
                self._down.add(name)
                self._no_room.add(name)
                continue
            self._find(f"{name} ended by itself ({describe_exit(code)}): {self._cluster.last_lines(name)}")
            self._ends[name] = 1 if self._cluster.age_s(name) >= STEADY_S else self._ends[name] + 1
            if self._ends[name] < MAX_ENDS:
                self._cluster.start(name)
            else:
                self._down.add(name)

    def _find(self, finding: str) -> None:
        self._say(finding)
        self.findings.append(finding)

    # --- processes ----------------------------------------------------------------------------------------------------

    def _kill(self, fault: Fault) -> None:
        self._take_down(fault)
        for name in fault.actors:
            self._cluster.send(name, signal.SIGKILL)
        for name in fault.actors:
            self._cluster.kill(name)

    def _take_down(self, fault: Fault) -> None:
        self._down.update(fault.actors)
        self._no_room.difference_update(fault.actors)  # the end of the fault starts them, not room on the disk

    def _start(self, fault: Fault) -> None:
        for name in fault.actors:
            self._cluster.start(name)
        self._down.difference_update(fault.actors)

    def _pause(self, fault: Fault) -> None:
        for name in fault.actors:
            self._cluster.send(name, signal.SIGSTOP)

    def _resume(self, fault: Fault) -> None:
        for name in fault.actors:
            self._cluster.send(name, signal.SIGCONT)

    def _stop(self, fault: Fault) -> None:
        told = set(fault.actors) - self._down  # who was down already has ended some other way
        self._told |= told
        self._take_down(fault)
        for name in told:
            self._cluster.terminate(name)

    def _start_again(self, fault: Fault) -> None:
        for name in self._told.intersection(fault.actors):
            for finding in self._cluster.wait_end(name):
                self._find(finding)
        self._told.difference_update(fault.actors)
        self._start(fault)

    # --- links --------------------------------------------------------------------------------------------------------

    def _cut(self, fault: Fault) -> None:
        self._set_ways(fault, HELD)

    def _delay(self, fault: Fault) -> None:
        self._set_ways(fault, Way(delay_s=fault.by_s))

    def _make_bursts(self, fault: Fault) -> None:
        self._set_ways(fault, Way(burst_s=fault.by_s))

    def _set_ways(self, fault: Fault, way: Way) -> None:
        forward = way if FORWARD in fault.ways else OPEN
        backward = way if BACKWARD in fault.ways else OPEN
        self._proxy.set_way(_link(fault), forward=forward, backward=backward)

    def _open(self, fault: Fault) -> None:
        if fault.resets:
            self._proxy.break_connections(_link(fault))
        self._proxy.set_way(_link(fault))

    def _break(self, fault: Fault) -> None:
        self._proxy.break_connections(_link(fault))

    # --- the disk -----------------------------------------------------------------------------------------------------

    def _fill(self, _fault: Fault) -> None:
        assert self._disk is not None
        self._disk_is_full |= self._try(self._disk.fill)

    def _free(self, _fault: Fault | None = None) -> None:
        assert self._disk is not None
        self._disk_is_full = not self._try(self._disk.free)

    def _try(self, change: Callable[[], None]) -> bool:
        """Change the disk. Where that does not work the report says so: it is no finding about the bank."""
        self._disk_s = time.monotonic()
        try:
            change()
        except NoDisk as error:
            reason = f"a full disk: {error.detail}"
            if reason not in self.skipped:
                self._say(f"the disk {error.detail}")
                self.skipped.append(reason)
            return False
        return True

    def _see_to_disk(self) -> None:
        """Keep it full as long as that is to be; then start those that waited for room."""
        is_due = time.monotonic() >= self._disk_s + DISK_EVERY_S
        fault = next((fault for fault in self._active if fault.kind == kinds.DISK_FULL), None)
        if fault is not None and is_due:
            self._fill(fault)
        elif fault is None and self._disk_is_full and is_due:
            self._free()
        if not self._disk_is_full:
            for name in self._no_room:
                self._cluster.start(name)
            self._down -= self._no_room
            self._no_room.clear()


def _link(fault: Fault) -> Link:
    assert fault.link is not None
    return fault.link


_BEGIN: dict[str, Callable[[Conductor, Fault], None]] = {
    kinds.KILL: Conductor._kill,
    kinds.KILL_SEVERAL: Conductor._kill,
    kinds.PAUSE_SHORT: Conductor._pause,
    kinds.PAUSE_LONG: Conductor._pause,
    kinds.RESTART: Conductor._stop,
    kinds.CUT_ONE_WAY: Conductor._cut,
    kinds.CUT_BOTH_WAYS: Conductor._cut,
    kinds.DELAY: Conductor._delay,
    kinds.BURSTS: Conductor._make_bursts,
    kinds.BREAK: Conductor._break,
    kinds.DISK_FULL: Conductor._fill,
}
_END: dict[str, Callable[[Conductor, Fault], None]] = {
    kinds.KILL: Conductor._start,
    kinds.KILL_SEVERAL: Conductor._start,
    kinds.PAUSE_SHORT: Conductor._resume,
    kinds.PAUSE_LONG: Conductor._resume,
    kinds.RESTART: Conductor._start_again,
    kinds.CUT_ONE_WAY: Conductor._open,
    kinds.CUT_BOTH_WAYS: Conductor._open,
    kinds.DELAY: Conductor._open,
    kinds.BURSTS: Conductor._open,
    kinds.DISK_FULL: Conductor._free,
}
