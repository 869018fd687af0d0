"""A small bank whose branches have synchronous replicas, under one seed: what was told is never lost (PROTOCOL R3).

    python -m tests.simulation.synchronous --seeds 3000
"""

from __future__ import annotations

import logging
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from tests.simulation.failover import MEMORY, many
from tests.simulation.failover_books import Breach
from tests.simulation.synchronous_fate import Fate
from tests.simulation.synchronous_process import Process
from zbank.storage import decisions

AnyTown = TypeVar("AnyTown", bound=Fate)

ATTEMPTS = 15  #: of the operator to promote somebody


def play(seed: int) -> Counter[str]:
    """One seed. Raises Breach, or whatever the actors raise."""
    return run(seed, Fate, _fates)


def run(seed: int, make: Callable[[int, Path], AnyTown], fates: Callable[[AnyTown], None]) -> Counter[str]:
    """A town, what happens to it, and its rest."""
    folder = Path(tempfile.mkdtemp(prefix="zbank-synchronous-", dir=MEMORY if MEMORY.is_dir() else None))
    log = logging.getLogger("zbank")
    looked, level = decisions.LOOK_ROWS, log.level
    log.setLevel(logging.CRITICAL)  # what the actors say of all these faults
    town = make(seed, folder)
    try:
        decisions.LOOK_ROWS = town.random.choice((2, 20, 2_000))
        fates(town)
        town.settle()
        town.judge.at_rest()
        return town.met
    finally:
        decisions.LOOK_ROWS = looked
        log.setLevel(level)
        for process in town.sites.values():
            process.crash()
        shutil.rmtree(folder)


def _fates(town: Fate) -> None:
    random = town.random
    town.go_on(random.randint(40, 150))
    for _ in range(random.choice((1, 1, 2))):
        lose_a_branch(town)
        town.go_on(random.randint(20, 100))


def lose_a_branch(town: Fate) -> None:
    """A branch is lost, or cut off and goes on, or comes back with an old copy of its data; its replica takes its place, if it
    can do so without loss. Else the branch is mended."""
    random = town.random
    branch = random.choice([name for name in town.branches if town.replicas(name)])
    old = town.serving(branch)
    if old is None:  # its last replica does not know yet that it is the branch
        return
    what = random.choice(("lost", "lost", "cut off", "cut off", "old copy", "old copy"))
    if what == "old copy" and not _bring_an_old_copy(town, old):
        what = "lost"
    if what == "cut off":
        town.isolate(old)
    elif what == "lost":
        old.crash()
        old.is_lost = True  # nobody starts it, until it is known whether another takes its place
    town.go_on(random.randint(0, 40))
    if what == "old copy":
        old.crash()
        old.is_lost = True
    is_promoted = _promote(town, branch)
    town.is_quiet.discard(branch)
    if is_promoted:
        town.met[f"promoted: {what}"] += 1
        if what == "cut off":
            _go_on_apart(town, old)
        else:
            town.lose(old)
        return
    if what == "old copy":
        raise Breach("the branch had an old copy of its data, and who was lossless before is not promoted")
    old.is_lost = False
    town.rejoin(old)
    town.mend(old)


def _promote(town: Fate, branch: str) -> bool:
    """The operator tries it for a while, then sees to it that all are there who have to be."""
    former = town.judge.told[branch].holder
    for _ in range(ATTEMPTS):
        if town.promote(branch):
            return True
        town.pass_time(500_000)
        town.go_on(town.random.randint(0, 20))
    for _ in range(ATTEMPTS):
        if town.judge.told[branch].holder is not former:  # he was told later
            return True
        town.make_ready(branch)
        town.flush()
        town.pass_time(500_000)
        if town.promote(branch):
            return True
    return town.judge.told[branch].holder is not former


def _go_on_apart(town: Fate, old: Process) -> None:
    """The former branch runs on, and has customers of its own; it may start again, and at last it is heard again, or is not."""
    random = town.random
    for _ in range(random.randint(1, 4)):
        town.pass_time(500_000)
        town.go_on(random.randint(5, 40))
        if random.random() < 0.3 and old.key in town.sites:
            old.restart()
    if old.key not in town.sites:
        return
    if random.random() < 0.5:
        town.lose(old)
    else:
        town.rejoin(old)


def _bring_an_old_copy(town: Fate, branch: Process) -> bool:
    """The branch is started with an old copy of its data, by the same word: its replica is the one that has everything. It is
    busy then, and may come to as many rows as it had before; but they are other ones."""
    random = town.random
    for _ in range(ATTEMPTS):
        if branch.is_up and town.lossless(branch.name) is not None:
            break
        town.mend(branch)
        town.go_on(3)
    else:
        return False
    town.is_quiet.add(branch.name)
    folder = town.folder / "copy"
    folder.mkdir(exist_ok=True)
    seq = branch.save(folder)
    town.go_on(random.randint(3, 25))
    branch.restore(folder, seq)
    for _ in range(random.randint(0, 20)):
        town.customers.wish(branch.name)
        town.flush()
        town.pass_time(100_000)
        town.judge.look()
    return True


if __name__ == "__main__":
    raise SystemExit(many(play, "tests.simulation.synchronous"))
