"""The faults of a run, planned ahead from the seed: when, what, to whom, for how long."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from tests.simulation.site import Point, Site
from tests.simulation.swarm import SECOND_US
from tests.simulation.world import World

MAX_DOWN_US = 8 * SECOND_US
FORCED_BY_BRANCHES = (
    *("prepared", "committed", "aborted", "executed", "refused", "posting"),
    *("started", "account_opened", "account_changed", "coordinator_seen"),
)
FORCED_BY_COORDINATORS = (
    *("decided", "decided", "decided", "ended", "ended", "posting", "started", "branch_joined"),
    *("token_made", "token_revoked"),
)


def plan_faults(world: World, sites: Mapping[str, Site]) -> None:
    """Put all faults of the run on its calendar."""
    swarm = world.swarm
    plan = world.chance.random("faults")
    kinds = [plan.choice(swarm.faults) for _ in range(swarm.faults_count)] if swarm.faults else []
    if "replace" in swarm.faults:
        kinds += ["replace"] * 3  # two things must meet: a process that wakes, and tables that are not its own any more
    for n, kind in enumerate(kinds):
        at_us = swarm.moment_us(plan)
        victim, other = (sites[name] for name in plan.sample(sorted(sites), 2))
        span_us = int(min(MAX_DOWN_US, plan.expovariate(1 / 2_500_000)) + 10_000)
        if plan.random() < 0.5:  # about as long as the actors' patience
            span_us = plan.randint(SECOND_US, 4 * SECOND_US)
        fault = Fault(world, kind, victim, other, span_us, tuple(sites))
        world.at(world.begin_us + at_us, lambda fault=fault, n=n: fault.strike(n))  # type: ignore[misc]
    for _ in range(swarm.points_count if swarm.points else 0):
        site = sites[plan.choice(sorted(sites))]
        forced = FORCED_BY_BRANCHES if site.name in swarm.branches else FORCED_BY_COORDINATORS
        point = Point(site.name, plan.choice(forced), plan.choice((1, 2, 3, 5, 8, 13)), plan.choice(swarm.points))
        site.points[point.kind, point.nth] = point


class Fault:
    """One fault and its end."""

    def __init__(
        self, world: World, kind: str, victim: Site, other: Site, span_us: int, sites: tuple[str, ...]
    ) -> None:
        self._world = world
        self._kind = kind
        self._victim = victim
        self._other = other
        self._span_us = span_us
        self._sites = sites

    def strike(self, n: int) -> None:
        """Happen, unless it is left out."""
        key = f"{self._kind} #{n}: {self._victim.name}"
        if self._kind.startswith("cut"):
            key += f" from {self._other.name}"
        if self._world.happened(self._kind, f"{key} for {self._span_us / SECOND_US:.1f} s"):
            _STRIKES[self._kind](self)

    def _later(self, act: Callable[[], None]) -> None:
        self._world.at(self._world.now_us + self._span_us, act)

    def kill(self) -> None:
        self._victim.kill()
        self._victim.start_again(self._span_us)

    def cut_power(self) -> None:
        self._victim.cut_power()
        self._victim.start_again(self._span_us)

    def stop(self) -> None:
        """As by SIGTERM; often because the disk is full."""
        if self._world.chance.unit("stop on a full disk", self._victim.name, self._span_us) < 0.4:
            self.fill_disk()
        self._victim.stop()
        self._victim.start_again(self._span_us)

    def pause(self) -> None:
        process = self._victim.process
        if process is not None and not process.is_paused:
            process.is_paused = True

            def wake() -> None:
                if process.is_paused and self._victim.process is process:  # not healed, killed or replaced meanwhile
                    self._note_pause()
                process.resume()

            self._later(wake)

    def _note_pause(self) -> None:
        if self._span_us > max(value for name, value in self._world.swarm.timers.items() if name.endswith("_US")):
            self._world.judge.sometimes[f"{self._role} paused past every timeout"] += 1

    @property
    def _role(self) -> str:
        return "a branch" if self._victim.name in self._world.swarm.branches else "a coordinator"

    def replace(self) -> None:
        process = self._victim.process
        if process is not None and not process.is_paused and self._victim.replaced is None:
            process.is_paused = True
            self._world.at(self._world.now_us + self._span_us // 2, self._victim.replace)
            self._later(process.resume)

    def cut(self) -> None:
        self._cut(both=True)

    def cut_one_way(self) -> None:
        self._cut(both=False)

    def _cut(self, *, both: bool) -> None:
        names = self._victim.name, self._other.name
        pairs = {names, names[::-1]} if both else {names}
        self._world.network.cuts |= pairs
        self._later(lambda: self._world.network.cuts.difference_update(pairs))

    def isolate(self) -> None:
        """Nobody hears of it, and it hears of nobody."""
        name = self._victim.name
        pairs = {pair for other in self._sites for pair in ((name, other), (other, name))}
        self._world.network.cuts |= pairs
        self._later(lambda: self._world.network.cuts.difference_update(pairs))

    def fill_disk(self) -> None:
        disk = self._victim.disk
        disk.is_full = True

        def free() -> None:
            disk.is_full = False

        self._later(free)

    def slow_disk(self) -> None:
        process = self._victim.process
        if process is not None:
            process.slow_disk_us = self._span_us // 4
            self._later(process.recover)

    def slow_network(self) -> None:
        process = self._victim.process
        if process is not None:
            process.slow_network_us = self._span_us // 8
            self._later(process.recover)

    def jump(self) -> None:
        """The wall clock is set: forward, or back."""
        forward = self._world.chance.unit("jump", self._span_us) < 0.5
        self._victim.clock.ahead_us += (4 if forward else -4) * self._span_us
        self._world.judge.sometimes[f"the wall clock jumps {'forward' if forward else 'back'}"] += 1


_STRIKES: dict[str, Callable[[Fault], None]] = {
    "kill": Fault.kill,
    "power cut": Fault.cut_power,
    "stop": Fault.stop,
    "pause": Fault.pause,
    "replace": Fault.replace,
    "cut": Fault.cut,
    "cut one way": Fault.cut_one_way,
    "isolate": Fault.isolate,
    "full disk": Fault.fill_disk,
    "slow disk": Fault.slow_disk,
    "slow network": Fault.slow_network,
    "clock": Fault.jump,
}
