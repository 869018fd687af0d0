"""Two promotions in a row, the second perhaps before the first replica has been told all, under one seed.

    python -m tests.simulation.failover_twice --seeds 300
"""

from __future__ import annotations

import shutil
import tempfile
from collections import Counter
from pathlib import Path

from tests.simulation.failover import MEMORY, many
from tests.simulation.failover_actor import BOSS, COPY, DELHI, MUMBAI, Actor
from tests.simulation.failover_world import STEPS, World
from zbank.protocol.fold import Row
from zbank.protocol.messages import REPLICA


class Twice(World):
    """A replica, and another one that follows it when it is the branch."""

    def __init__(self, seed: int, folder: Path) -> None:
        self.all_lost: list[Row] = []
        super().__init__(seed, folder)

    def lose_branch(self) -> None:
        """What both have lost is told to the judge."""
        super().lose_branch()
        self.all_lost += self.lost_rows
        self.lost_rows = self.all_lost

    def hear_lead(self) -> None:
        """The replica is told at once, and another one begins from nothing."""
        self.frames = [frame for frame in self.frames if COPY not in frame[:2]]
        while COPY in self.actors:
            self.register(COPY)
            for frame in [one for one in self.frames if one[:2] == (BOSS, COPY)]:
                self.frames.remove(frame)
                self.deliver(frame)
        self.actors[COPY] = Actor(self, COPY, REPLICA, "copy-2", of=MUMBAI)
        self.register(COPY)


def play(seed: int) -> Counter[str]:
    """One seed. Raises Breach, or whatever the actors raise."""
    folder = Path(tempfile.mkdtemp(prefix="zbank-failover-", dir=MEMORY if MEMORY.is_dir() else None))
    world = Twice(seed, folder)
    chance = world.random
    try:
        _go_on(world, chance.randint(40, STEPS))
        if chance.random() < 0.7:
            world.held = {COPY}
            _go_on(world, chance.randint(5, 80))
        if chance.random() < 0.5:
            world.held |= {DELHI}
            _go_on(world, chance.randint(5, 40))
        world.lose_branch()
        world.held -= {COPY}
        world.promote()
        world.hear_lead()
        _go_on(world, chance.randint(0, 120))
        if chance.random() < 0.5:
            world.held |= {COPY}
            _go_on(world, chance.randint(0, 60))
        world.met["lost again when open" if world.is_open else "lost again before it was told all"] += 1
        world.held = set()
        world.hear_late()
        world.lose_branch()
        world.promote()
        if chance.random() < 0.5:
            world.reconcile()
        world.held = set()
        world.hear_late()
        _go_on(world, chance.randint(20, STEPS))
        world.settle()
        world.judge()
        return world.met
    finally:
        for actor in world.actors.values():
            actor.close()
        shutil.rmtree(folder)


def _go_on(world: World, steps: int) -> None:
    for _ in range(steps):
        world.step()


if __name__ == "__main__":
    raise SystemExit(many(play, "tests.simulation.failover_twice"))
