"""An actor's machine: its disk, its clock, and the process on it, which is the real one but for what it stands on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

import zmq

from tests.simulation.disk import SimulatedDisk
from tests.simulation.network import SimulatedContext
from tests.simulation.violation import Violation
from tests.simulation.world import World
from zbank.apps import serving
from zbank.clock import Clock, Now
from zbank.errors import CorruptStore, FenceLost, ForeignStore, StoreError
from zbank.protocol.branch_state import BranchState
from zbank.protocol.coordinator_state import CoordinatorState
from zbank.protocol.fold import Posting, Row
from zbank.storage.sqlite import Identity, JournalStore
from zbank.transport.engine import Engine
from zbank.transport.loop import TICK_MS, ActorLoop

WALL_START_US = 1_790_000_000_000_000
RESTART_AFTER_US = 300_000  #: a process that ended by itself is started again
BEFORE, AFTER, FULL, SYNC, POWER = "before", "after", "full", "sync", "power"  #: what may happen at a force

Wire = Callable[[serving.World, JournalStore, Any], tuple[Engine, ActorLoop]]


class Killed(BaseException):
    """The process is no more: like kill -9, nothing in it gets a chance to do anything."""


class Point(NamedTuple):
    """A fault at a point of the protocol: the nth time that an actor forces a record of this kind."""

    actor: str
    kind: str
    nth: int
    what: str

    @property
    def key(self) -> str:
        """What the fault is known by."""
        return f"{self.what} {self.actor}'s {self.kind} #{self.nth}"


class SimulatedClock(Clock):
    """A machine's clocks: the monotonic one drifts, the wall jumps."""

    def __init__(self, world: World, rate: float, ahead_us: int) -> None:
        self._world = world
        self._rate = rate
        self.ahead_us = ahead_us  #: of the wall clock

    def now(self) -> Now:
        """Read both clocks."""
        mono_us = int(self._world.now_us * self._rate)
        return Now(WALL_START_US + mono_us + self.ahead_us, mono_us)


class SimulatedStore(JournalStore):
    """The real store, which asks its process before and tells it after each force."""

    process: ActorProcess

    def append(self, rows: Sequence[Row]) -> None:
        kinds = {row.kind for row in rows}
        self.process.before_force(kinds)
        super().append(rows)
        self.process.after_force(kinds, rows)

    def post(self, posting: Posting) -> None:
        self.process.before_force({"posting"})
        super().post(posting)
        self.process.after_force({"posting"}, ())

    def has_room(self) -> bool:
        return not self.process.site.disk.is_full


class Site:
    """A machine that one actor lives on, and what outlives the actor's process."""

    def __init__(self, world: World, identity: Identity, endpoint: str, wire: Wire, folder: Path) -> None:
        self.world = world
        self.identity = identity
        self.name = identity.name
        self.endpoint = endpoint
        self.wire = wire
        chance = world.chance
        self.path = folder / f"{self.name}.db"
        self.disk = SimulatedDisk(folder)
        self.clock = SimulatedClock(
            world,
            1 + (chance.unit("drift", self.name) - 0.5) * world.swarm.drift,
            chance.between(-2_000_000, 2_000_000, "wall", self.name),
        )
        self.process: ActorProcess | None = None
        self.replaced: ActorProcess | None = None  #: a paused process whose office another one has taken
        self.forces: Counter[str] = Counter()  #: by record kind, over all processes
        self.points: dict[tuple[str, int], Point] = {}
        self.starts = 0

    def start(self) -> None:
        """Start the actor's process. One that cannot run now is started again later."""
        if self.process is not None:
            return
        self.starts += 1
        process = ActorProcess(self)
        self.process = process
        process.guarded(process.open)

    def start_again(self, after_us: int) -> None:
        """Start the actor's process in a while, unless it runs by then."""
        self.world.at(self.world.now_us + after_us, self.start)

    def kill(self) -> None:
        """End the process now. What it wrote stays in the system's memory."""
        if self.process is not None:
            self.process.end("killed")

    def stop(self) -> None:
        """Stop the process as SIGTERM does."""
        process = self.process
        if process is not None and process.runs:
            process.guarded(process.stop)

    def heal(self) -> None:
        """No fault of this machine any more; its actor runs, or starts again."""
        self.disk.heal()
        self.points.clear()
        if self.replaced is not None:
            self.replaced.end("killed")
            self.replaced = None
        if self.process is None:
            self.start()
        else:
            self.process.recover()
            self.process.resume()

    def cut_power(self) -> None:
        """End the process, and lose what no sync has brought home."""
        self.kill()
        if self.replaced is not None:
            self.replaced.end("killed")
            self.replaced = None
        count = self.world.count("power cut", self.name)
        self.disk.lose_power(lambda path, n: self.world.chance.unit("lost write", path[-8:], n, count) < 0.5)
        if self.disk.lost_writes:
            self.world.judge.sometimes["a power cut loses writes that no sync confirmed"] += 1

    def replace(self) -> None:
        """Another process takes the office of the one that is paused, which knows nothing of it."""
        if self.process is not None and self.process.is_paused and self.replaced is None:
            self.replaced, self.process = self.process, None
            self.world.judge.replaced.add(self.name)
            self.start()

    def close(self) -> None:
        """The run is over."""
        for process in (self.process, self.replaced):
            if process is not None:
                process.close()
        self.disk.unregister()


class ActorProcess:
    """One life of an actor: the real wiring, loop, engine and store on simulated sockets, disk and clock."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.name = site.name
        self.world = site.world
        self.is_paused = False
        self.slow_network_us = 0  #: what it sends leaves so much later
        self.slow_disk_us = 0  #: a force takes so long: nothing is done and nothing leaves before it is over
        self._busy_until_us = 0
        self.context = SimulatedContext(self.world.network, self)
        self.store: SimulatedStore | None = None
        self.loop: ActorLoop
        self.engine: Engine
        self._failed_syncs = site.disk.failed_syncs  #: before it was there
        self._ended = False
        self._awake = False

    @property
    def network_stall_us(self) -> int:
        """How much later than now leaves what is sent now."""
        return self.slow_network_us + max(0, self._busy_until_us - self.world.now_us)

    @property
    def runs(self) -> bool:
        """Alive, and not paused."""
        return not self._ended and not self.is_paused

    def open(self) -> None:
        """Start: open the store, take office, listen."""
        site = self.site
        store = SimulatedStore.open(site.path, site.identity, site.name.encode().ljust(16), vfs=site.disk.name)
        self.store = store
        store.process = self
        self.world.judge.restarted(self.name, store)
        router = self.context.socket(zmq.ROUTER)
        router.bind(site.endpoint)
        world = serving.World(site.clock, cast(Any, self.context))
        self.engine, self.loop = site.wire(world, store, cast(Any, router))
        self.check_recovered()
        state = self.state
        if site.starts > 1 and state is not None and state.prepared:
            self.world.judge.sometimes["a branch starts again in doubt"] += 1
        self._tick()

    def check_recovered(self) -> None:
        """What is in memory and in the tables is the fold of the journal."""
        assert self.store is not None
        fold = self.engine.machine.fold
        if isinstance(fold, BranchState):
            self.world.judge.recovered(fold, self.store)
        elif isinstance(fold, CoordinatorState):
            self.world.judge.recovered_office(fold, self.store)

    @property
    def state(self) -> BranchState | None:
        """Of a branch, what it has in memory."""
        fold = self.engine.machine.fold
        return fold if isinstance(fold, BranchState) else None

    # --- running -------------------------------------------------------------------------------------------------------

    def wake(self) -> None:
        """Something has arrived: see to it soon; what comes until then is of the same batch."""
        if not self._awake and self.runs:
            self._awake = True
            self.world.at(max(self.world.now_us + self.world.swarm.batching_us, self._busy_until_us), self._round)

    def _round(self) -> None:
        self._awake = False
        if self.runs:
            self.guarded(self._step)

    def _tick(self) -> None:
        if self._ended:
            return
        if not self.is_paused and not self._awake and self.world.now_us >= self._busy_until_us:
            self.guarded(self._step)
        self.world.at(self.world.now_us + TICK_MS * 1000, self._tick)

    def _step(self) -> None:
        self.loop.step()
        self.engine.maintain(idle=True)
        if self.site.process is self:
            self.world.judge.witness.turned(self.name)
        state = self.state
        if state is not None:
            judge = self.world.judge
            (judge.compare if self.site.process is self else judge.consistent)(state)

    def recover(self) -> None:
        """Its disk and network are as fast as ever."""
        self.slow_network_us = self.slow_disk_us = 0

    def resume(self) -> None:
        """The end of a pause: all that has come in the meantime is there at once."""
        if self.is_paused:
            self.is_paused = False
            self.wake()

    def stop(self) -> None:
        """Post, close the store, end."""
        self.engine.close()
        self.end("stopped")

    def guarded(self, act: Callable[[], None]) -> None:
        """Do something of the actor's, and end the process as the real one would end."""
        self.world.acting = self.name
        try:
            act()
        except Killed:
            self.end("killed at a point of the protocol")
        except (CorruptStore, ForeignStore) as error:
            raise Violation(f"{self.name} cannot read its own disk: {error}") from error
        except FenceLost as error:
            self.end(f"left: {error}")
            if self is self.site.replaced:
                self.world.judge.sometimes["the fence is lost"] += 1
                self.site.replaced = None
            else:
                raise Violation(f"{self.name} leaves, and nobody has taken its office: {error}") from error
        except StoreError as error:
            disk = self.site.disk
            if self is self.site.replaced and not disk.is_off and disk.failed_syncs == self._failed_syncs:
                raise Violation(f"{self.name} has lost its office, and writes: {error}") from error
            self.end(str(error))
            if self.site.disk.is_off:
                self.site.cut_power()
            self.site.start_again(RESTART_AFTER_US)

    def end(self, why: str) -> None:
        """The process is no more."""
        if self._ended:
            return
        self.world.note(f"{self.name} ends: {why}")
        self.close()
        if self.site.process is self:
            self.site.process = None

    def close(self) -> None:
        """Let go of everything, without a last word."""
        self._ended = True
        self.context.close()
        if self.store is not None:
            self.store._usable = False  # no checkpoint at the end: kill -9 gives no time for one
            self.store.close()
            self.store = None

    # --- forces --------------------------------------------------------------------------------------------------------

    def before_force(self, kinds: set[str]) -> None:
        """Rows of these kinds are about to be forced: the moment for a planned fault."""
        site = self.site
        for kind in sorted(kinds):
            site.forces[kind] += 1
            point = site.points.get((kind, site.forces[kind]))
            if point is None or point.what == AFTER or not self.world.happened("point", point.key):
                continue
            self.world.judge.sometimes[f"{point.what} the force of {kind}"] += 1
            self._suffer(point)

    def _suffer(self, point: Point) -> None:
        disk, world = self.site.disk, self.world
        if point.what == BEFORE:
            self.site.start_again(world.chance.between(10_000, 8_000_000, "down", point.key))
            raise Killed
        if point.what == FULL:
            disk.is_full = True

            def freed() -> None:
                disk.is_full = False

            world.at(world.now_us + world.chance.between(100_000, 6_000_000, "full", point.key), freed)
        elif point.what == SYNC:
            disk.syncs_left = 0
        elif point.what == POWER:
            disk.operations_left = world.chance.between(0, 6, "power", point.key)

    def after_force(self, kinds: set[str], rows: Sequence[Row]) -> None:
        """The rows are on the disk, and nothing that depends on them has left yet."""
        self.world.judge.forced(self.name, rows)
        if self.slow_disk_us:
            self.world.judge.sometimes["a force takes long"] += 1
            self._busy_until_us = max(self._busy_until_us, self.world.now_us) + self.slow_disk_us
        for kind in sorted(kinds):
            point = self.site.points.get((kind, self.site.forces[kind]))
            if point is not None and point.what == AFTER and self.world.happened("point", point.key):
                self.world.judge.sometimes[f"{AFTER} the force of {kind}"] += 1
                down_us = self.world.chance.between(10_000, 8_000_000, "down", point.key)
                self.site.start_again(down_us)
                raise Killed
