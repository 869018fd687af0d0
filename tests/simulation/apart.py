"""A coordinator goes on alone by an operator's word, though its replica has taken its place: two lead (PROTOCOL R3, P5).

    python -m tests.simulation.apart --seeds 3000

Service may end by that, for good. What may not happen is that a transfer is done at one branch and void at the other one.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from pathlib import Path

from tests.simulation.failover import many
from tests.simulation.failover_actor import BOSS, Actor
from tests.simulation.failover_books import Breach, record_of
from tests.simulation.office import promote
from tests.simulation.office_clerk import CLERK
from tests.simulation.office_judge import OfficeJudge
from tests.simulation.office_town import Office
from tests.simulation.synchronous import run
from tests.simulation.synchronous_judge import Judge
from tests.simulation.synchronous_process import Process
from zbank.protocol.coordinator import Coordinator
from zbank.protocol.machine import Effect
from zbank.protocol.messages import BRANCH, COORDINATOR, Commit, Txn
from zbank.protocol.records import Aborted, Committed, Redelivered

LAST_ROUNDS = 40


class ApartJudge(OfficeJudge):
    """Once there are two, only what the branches have done counts."""

    def __init__(self, town: Apart) -> None:
        super().__init__(town)
        self._apart = town

    def leaves(self, process: Process, effect: Effect) -> None:
        if process.role != COORDINATOR or not self._apart.is_apart:
            super().leaves(process, effect)
        elif process is self._apart.alone:
            self._apart.met["told by one that went on alone"] += isinstance(effect.message, Commit)

    def look(self) -> None:
        town = self._apart
        if not town.is_apart:
            super().look()
            return
        self.look_at_books()
        alone = town.alone
        if alone is not None and alone.is_up:
            machine = alone.engine.machine
            assert isinstance(machine, Coordinator)
            town.met["it withholds a commit"] += any(machine.withholds(id) for id in machine.state.open)
            town.met["it serves nobody any more"] += machine.closed is not None
        town.met["its successor serves nobody any more"] += town.boss.is_up and town.boss.engine.machine.closed is not None

    def at_rest(self) -> None:
        if not self._apart.is_apart:
            super().at_rest()
            return
        done: defaultdict[Txn, set[str]] = defaultdict(set)
        for process in self._apart.sites.values():
            for row in process.disk.rows if process.role == BRANCH else ():
                record = record_of(row)
                if isinstance(record, Committed | Redelivered):
                    done[record.txn].add("done")
                elif isinstance(record, Aborted):
                    done[record.txn].add("void")
        for txn, ends in done.items():
            if len(ends) > 1:
                raise Breach(f"{txn} is done at one branch, and void at the other one")


class Apart(Office):
    """One seed."""

    def __init__(self, seed: int, folder: Path) -> None:
        self.is_apart = False
        self.alone: Process | None = None  #: the former coordinator, once it was told to go on
        super().__init__(seed, folder)

    def make_judge(self) -> Judge:
        self.office = ApartJudge(self)
        return self.office

    def let_go_on_alone(self, old: Process) -> None:
        """By an operator's word."""
        if old.is_up and not old.is_paused and self.say_none(old):
            self.alone = old
            self.met["goes on alone"] += 1

    def sent_by(self, actor: Actor, effects: list[Effect]) -> None:
        """What each tells of tokens is its own: that is no money."""
        super().sent_by(actor, [effect for effect in effects if not (self.is_apart and effect.to == CLERK.address)])

    def settle(self) -> None:
        """All meet whom they meet."""
        if not self.is_apart:
            super().settle()
            return
        self.held.clear()
        self.calm_down()
        for _ in range(LAST_ROUNDS):
            self.flush()
            self.pass_time(300_000)
            self.judge.look()


def play(seed: int) -> Counter[str]:
    """One seed. Raises Breach, or whatever the actors raise."""
    return run(seed, Apart, _fates)


def _fates(town: Apart) -> None:
    random, old = town.random, town.boss
    town.go_on(random.randint(30, 80))
    for replica in town.replicas(BOSS):  # decisions wait for it
        town.network.cut(replica, old)
    for _ in range(4):
        town.customers.wish()
    town.go_on(random.randint(20, 60))
    town.take_away(old, "cut off")
    if not promote(town, old):
        town.bring_back(old)
        return
    town.is_apart = True
    said = random.choice((0, 0, 0, 1, 2))
    branches = [one for one in town.sites.values() if one.role == BRANCH]
    random.shuffle(branches)
    finds = old, random.choice((old, town.boss, town.boss))
    leads = {one.key: leader for one, leader in zip(branches, finds, strict=True)}
    for count in range(said + random.randint(2, 5)):
        if count > said or random.random() < 0.2:
            leads[random.choice(branches).key] = random.choice((old, town.boss))
        town.network.cuts.clear()
        for one in (*branches, *town.replicas(BOSS)):
            other = town.boss if leads.get(one.key, town.boss) is old else old
            town.network.cut(one, other, both_ways=one.role != BRANCH or random.random() < 0.8)
        town.go_on(random.randint(5, 30))
        if count == said:
            town.let_go_on_alone(old)
        if count > said and random.random() < 0.3:
            if old.is_up and random.random() < 0.7:
                old.engine.post()
            old.restart()
        for _ in range(random.randint(1, 8)):
            town.pass_time(500_000)
            town.judge.look()


if __name__ == "__main__":
    raise SystemExit(many(play, "tests.simulation.apart"))
