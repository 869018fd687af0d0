"""A small bank whose coordinator has a synchronous replica that takes its place, under one seed (PROTOCOL R3).

    python -m tests.simulation.office --seeds 3000
"""

from __future__ import annotations

from collections import Counter

from tests.simulation.failover import many
from tests.simulation.failover_actor import BOSS
from tests.simulation.office_town import Office
from tests.simulation.synchronous import ATTEMPTS, lose_a_branch, run
from tests.simulation.synchronous_process import Process
from tests.simulation.synchronous_town import SILENT_US
from zbank.protocol.messages import Fault


def play(seed: int) -> Counter[str]:
    """One seed. Raises Breach, or whatever the actors raise."""
    return run(seed, Office, _fates)


def _fates(town: Office) -> None:
    random = town.random
    town.go_on(random.randint(40, 120))
    for _ in range(random.choice((1, 1, 2))):
        if random.random() < 0.2 and any(town.replicas(name) for name in town.branches):
            lose_a_branch(town)
        elif random.random() < 0.2:
            _promote_who_was_replaced(town)
        else:
            _lose_the_coordinator(town)
        town.go_on(random.randint(20, 80))


def _lose_the_coordinator(town: Office) -> None:
    """It is lost, cut off, asleep or killed; its replica takes its place, if it can. Else it is mended."""
    random = town.random
    old = town.boss
    if random.random() < 0.3:  # decisions wait for the replica when it happens
        for replica in town.replicas(BOSS):
            town.network.cut(replica, old, both_ways=random.random() < 0.5)
        town.go_on(random.randint(0, 30))
    what = random.choice(("lost", "cut off", "cut off", "asleep", "asleep", "killed"))
    town.take_away(old, what)
    town.go_on(random.randint(0, 40))
    if promote(town, old):
        town.met[f"promoted: {what}"] += 1
        _go_on_apart(town, old, what)
        return
    town.bring_back(old)


def promote(town: Office, old: Process) -> bool:
    """The operator tries it for a while, then sees to it that the replicas are there."""
    for is_mended in (False, True):
        for _ in range(ATTEMPTS):
            fit = [one for one in town.replicas(BOSS) if is_mended or (one.is_up and not one.is_paused)]
            fit = [one for one in fit if one.disk.instance not in town.replaced]
            if not fit:
                return False
            replica = town.random.choice(fit)
            if is_mended:
                town.mend(replica)
            if replica.is_up and town.ask_to_lead(replica):
                return True
            town.pass_time(500_000)
            if town.boss is not old:  # it had only not come to it
                return True
            town.go_on(0 if is_mended else town.random.randint(0, 20))
    town.pass_time(SILENT_US)
    for replica in [one for one in fit if one.is_up and not old.is_up]:
        town.pass_time(100_000)
        if town.ask_to_lead(replica):
            return True
        if isinstance(town.answer, Fault):
            town.office.refuses(replica)
    return False


def _go_on_apart(town: Office, old: Process, what: str) -> None:
    """The former coordinator runs on, wakes up, or is started again; at last it is no more, or follows its successor."""
    random = town.random
    if what in ("asleep", "killed"):
        town.go_on(random.randint(0, 40))
        town.bring_back(old)
    for _ in range(random.randint(1, 4)):
        town.pass_time(500_000)
        town.go_on(random.randint(5, 30))
        if random.random() < 0.3 and old.key in town.sites:
            old.restart()
    if what == "cut off" and random.random() < 0.7:
        town.bring_back(old)
        town.go_on(random.randint(5, 30))
    town.ask_to_go_on_alone(old)
    what = random.choice(("lost", "stays", "follows", "follows"))
    if what == "lost":
        town.lose(old)
    elif what == "follows":
        town.repair(old)


def _promote_who_was_replaced(town: Office) -> None:
    """An operator's mistake: the coordinator goes on without its replica, by his word, and he promotes it all the same. The
    first branch tells it, if it knows that word; then it serves nobody, and he ends it."""
    random, boss = town.random, town.boss
    for process in list(town.sites.values()):
        town.mend(process)
    town.make_ready(BOSS)
    town.rest()
    found = [one for one in town.replicas(BOSS) if one.disk.instance == town.office.last_word(boss.disk)[0] and one.is_up]
    if not found or not boss.is_up:
        return
    replica = found[0]
    town.network.cut(replica, boss)
    town.cut_off.add(replica.key)
    town.held |= {replica.key, boss.key}
    town.give_word(BOSS, random.choice([None, *[one for one in town.replicas(BOSS) if one is not replica]]))
    town.rest()
    if random.random() < 0.5:
        town.go_on(random.randint(0, 40))
    generation = town.office.last_word(boss.disk)[1]
    if town.office.words.get(BOSS) is not None and town.office.do_all_know(generation) and replica.is_up:
        for other in town.sites.values():
            town.network.cut(other, boss)
        for _ in range(ATTEMPTS):
            town.pass_time(500_000)
            if town.usurper is None and replica.is_up:
                town.ask_to_lead(replica)
            town.go_on(random.randint(0, 10))
    if town.usurper is not None:
        is_found_out = town.is_found_out
        town.met["one that was replaced led, and was found out"] += is_found_out
        if is_found_out and random.random() < 0.5:  # all who may be there are to leave it
            town.rejoin(replica)
            for _ in range(8):
                town.pass_time(500_000)
                town.flush()
        if random.random() < 0.5 or not is_found_out:
            town.lose(replica)
            town.usurper = None
    town.rejoin(replica)
    town.bring_back(boss)
    town.held.discard(replica.key)


if __name__ == "__main__":
    raise SystemExit(many(play, "tests.simulation.office"))
