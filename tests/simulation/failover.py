"""A small bank whose branch is lost and replaced by its replica, under one seed: real engines and stores, simulated network.

    python -m tests.simulation.failover --seeds 300

The feed loses, repeats and delays; frames between actors do the same; votes, commits and acks of the last moment are lost
with the branch; old frames of it come late; at last it comes back itself. Whatever happens, what was decided is done once at
each of its branches, the books are exact, and a replica is a prefix of what it follows, in the end equal.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from tests.simulation.failover_actor import COPY, DELHI, MUMBAI, Actor
from tests.simulation.failover_books import Breach
from tests.simulation.failover_world import STEPS, World
from zbank.protocol.messages import BRANCH

MEMORY = Path("/dev/shm")  # a file system in memory, where there is one


def play(seed: int) -> Counter[str]:
    """One seed. Raises Breach, or whatever the actors raise."""
    folder = Path(tempfile.mkdtemp(prefix="zbank-failover-", dir=MEMORY if MEMORY.is_dir() else None))
    world = World(seed, folder)
    try:
        for _ in range(world.random.randint(40, STEPS)):
            world.step()
        if world.random.random() < 0.6:  # the replica is left behind: what it has not is lost
            world.held = {COPY}
            for _ in range(world.random.randint(5, 80)):
                world.step()
        if world.random.random() < 0.6:  # Delhi is slow: votes of Mumbai wait for those of Delhi
            world.held |= {DELHI}
            for _ in range(world.random.randint(5, 40)):
                world.step()
        world.lose_branch()
        world.held -= {COPY}
        if world.random.random() < 0.4:
            for _ in range(world.random.randint(0, 60)):
                world.step()
        world.promote()
        if world.random.random() < 0.5:
            world.hear_late()
        if world.random.random() < 0.3:
            world.fall_silent()
        elif world.random.random() < 0.7:
            world.reconcile()
        world.held = set()
        world.hear_late()
        for _ in range(world.random.randint(20, STEPS)):
            world.step()
        world.settle()
        world.judge()
        _return(world)
        return world.met
    finally:
        for actor in world.actors.values():
            actor.close()
        shutil.rmtree(folder)


def _return(world: World) -> None:
    """The old branch comes back: it is refused."""
    new = world.actors[MUMBAI]
    old = Actor(world, MUMBAI, BRANCH, MUMBAI)
    try:
        world.actors[MUMBAI] = old
        world.register(MUMBAI)
    finally:
        world.actors[MUMBAI] = new
        old.close()
    if not world.met["refused superseded"]:
        raise Breach("the old branch is let in")


def many(play: Callable[[int], Counter[str]], name: str) -> int:
    """Many seeds; what went wrong, and what was met."""
    parser = argparse.ArgumentParser(prog=f"python -m {name}")
    parser.add_argument("--seeds", type=int, default=300)
    parser.add_argument("--start", type=int, default=0)
    options = parser.parse_args()
    met: Counter[str] = Counter()
    broken: list[int] = []
    for seed in range(options.start, options.start + options.seeds):
        try:
            met += play(seed)
        except Exception as error:
            broken.append(seed)
            print(f"seed {seed}: {type(error).__name__}: {error}")
    for what, count in sorted(met.items()):
        print(f"{count:>9,}  {what}")
    print(f"{'FAIL' if broken else 'PASS'}: {options.seeds} seeds from {options.start}, {len(broken)} broken")
    return 1 if broken else 0


if __name__ == "__main__":
    raise SystemExit(many(play, "tests.simulation.failover"))
