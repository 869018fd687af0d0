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
MAX_ENDS = 3  #: an actor that ended by itself so often stays down, unless a fault starts it again
FILL_EVERY_S = 0.5  #: what an actor gives back of a full disk is taken again

Say = Callable[[str], None]


class Conductor:
    """Begins and ends faults, and notices who ends without having been told to."""

    def __init__(self, cluster: ChaosCluster, proxy: Proxy, load: Load, disk: SmallDisk | None, say: Say) -> None:
        self.made: Counter[str] = Counter(dict.fromkeys(kinds.KINDS, 0))  #: faults, by kind
        self.findings: list[str] = []
        self.skipped: list[str] = []
        self._cluster = cluster
        self._proxy = proxy
        self._load = load
        self._disk = disk
        self._say = say
        self._active: list[Fault] = []
        self._down: set[str] = set()  # on purpose
        self._ends: Counter[str] = Counter()  # by actor: how often it ended by itself
        self._no_room: set[str] = set()  # down until their disk has room
        self._filled_s = 0.0

    def begin(self, fault: Fault) -> None:
        """Make it happen."""
        self._load.calm_since_s = NEVER_S
        self._say(fault.describe())
        self.made[fault.kind] += 1
        _BEGIN[fault.kind](self, fault)
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
        for name in self._cluster.actors:
            code = self._cluster.exit_code(name)
            if code is not None and name not in self._down and self._cluster.had_no_room(name):
                self._say(f"{name} cannot start: its disk is full")
                self._down.add(name)
                self._no_room.add(name)
            elif code is not None and name not in self._down:
                ended = f"{name} ended by itself ({describe_exit(code)}): {self._cluster.last_lines(name)}"
                self._say(ended)
                self.findings.append(ended)
                self._ends[name] += 1
                if self._ends[name] < MAX_ENDS:
                    self._cluster.start(name)
                else:
                    self._down.add(name)
        full = any(fault.kind == kinds.DISK_FULL for fault in self._active)
        if not full:
            for name in self._no_room:
                self._cluster.start(name)
            self._down -= self._no_room
            self._no_room.clear()
        if full and time.monotonic() >= self._filled_s + FILL_EVERY_S:
            self._fill()

    # --- processes ----------------------------------------------------------------------------------------------------

    def _kill(self, fault: Fault) -> None:
        self._down.update(fault.actors)
        for name in fault.actors:
            self._cluster.send(name, signal.SIGKILL)
        for name in fault.actors:
            self._cluster.kill(name)

    def _start(self, fault: Fault) -> None:
        self._no_room.difference_update(fault.actors)
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
        self._down.update(fault.actors)
        for name in fault.actors:
            self._cluster.terminate(name)

    def _start_again(self, fault: Fault) -> None:
        for name in fault.actors:
            for finding in self._cluster.wait_end(name):
                self._say(finding)
                self.findings.append(finding)
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

    def _fill_first(self, _fault: Fault) -> None:
        self._fill()

    def _fill(self) -> None:
        assert self._disk is not None
        self._filled_s = time.monotonic()
        try:
            self._disk.fill()
        except NoDisk as error:
            self._say(f"the disk {error.detail}")
            self.skipped.append(f"a full disk: {error.detail}")

    def _free(self, _fault: Fault) -> None:
        assert self._disk is not None
        self._disk.free()


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
    kinds.DISK_FULL: Conductor._fill_first,
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
