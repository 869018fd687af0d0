"""kill -9 and long pauses under a running load: no money lost or made, every transfer ends the same on all sides.

`make test-long` runs the longer variants.
"""

from __future__ import annotations

import random
import signal
from collections.abc import Callable, Collection, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.acceptance.cluster import STOP_LIMIT_S, Cluster, wait_until
from tests.acceptance.load import ClusterLoad, own_status, verify_files

BRANCHES = ("Mumbai", "Delhi", "Pune")
ACTORS = ("coordinator", *BRANCHES)
PAST_LIMITS_US = 6_500_000  #: a branch has asked the coordinator, then the others, and they have answered
MAX_TRIES = 5


@pytest.fixture
def bank(tmp_path: Path) -> Iterator[Cluster]:
    """Three branches."""
    running = Cluster(tmp_path, BRANCHES)
    try:
        running.start_all()
        yield running
    finally:
        running.close()


def restart(bank: Cluster, names: Collection[str]) -> None:
    """Start these actors together, and wait until the bank is whole."""
    for name in names:
        bank.start(name, ready=False)
    for name in names:
        bank.wait_ready(name)
    bank.wait_registered()


@pytest.mark.parametrize(
    ("seed", "rounds"), [(1, 4), *(pytest.param(seed, 15, marks=pytest.mark.long) for seed in range(2, 8))]
)
def test_kill_9_at_random_moments(bank: Cluster, seed: int, rounds: int) -> None:
    """Each actor dies at least once, now and then two at a time; everybody asks again, and the books say what was told."""
    chance = random.Random(seed)
    with closing(ClusterLoad(bank, seed)) as load:
        for n in range(rounds):
            load.wait_told(chance.randint(100, 400))
            victims = {ACTORS[n % len(ACTORS)]}
            if chance.random() < 0.3:
                victims.add(chance.choice(ACTORS))
            for name in sorted(victims):
                bank.kill(name)
            wait_until(lambda: load.history.open_count > 0, what="the kill is felt")
            restart(bank, sorted(victims))
        load.wait_told(200)
        load.check()
    verify_files(bank)


def stop_with_work_in_hand(bank: Cluster, load: ClusterLoad, victim: str, watched: str) -> None:
    """SIGSTOP the victim at a moment when the watched branch has promised what it does not know the end of."""

    def caught() -> bool:
        load.wait_told(20)
        bank.send_signal(victim, signal.SIGSTOP)
        if own_status(bank, watched).in_flight:
            return True
        bank.send_signal(victim, signal.SIGCONT)
        return False

    wait_until(caught, 60.0, f"a prepared txn at {watched} while {victim} stands still")


def stop_with_a_lasting_doubt(bank: Cluster, load: ClusterLoad) -> None:
    """SIGSTOP the coordinator when a txn is prepared at all its participants: past every limit nobody guesses how it ends.

    One that is not prepared everywhere is settled among the branches (P8), as it should be: then it is tried again.
    """
    for _ in range(MAX_TRIES):
        stop_with_work_in_hand(bank, load, "coordinator", "Mumbai")
        wait_until(lambda: has_lasting_doubt(bank) or not own_status(bank, "Mumbai").in_flight, what="all limits to pass")
        if has_lasting_doubt(bank):
            return
        bank.send_signal("coordinator", signal.SIGCONT)
    pytest.fail(f"Mumbai was in no lasting doubt, {MAX_TRIES} times")


def has_lasting_doubt(bank: Cluster) -> bool:
    """Mumbai has asked the other participants too, and still does not know."""
    return any(doubt.age_us > PAST_LIMITS_US for doubt in own_status(bank, "Mumbai").in_doubt)


Ending = Callable[[Cluster, str], None]


def resume(bank: Cluster, name: str) -> None:
    bank.send_signal(name, signal.SIGCONT)


def kill_and_start(bank: Cluster, name: str) -> None:
    bank.kill(name)
    bank.start(name)


@pytest.mark.parametrize("ending", [resume, pytest.param(kill_and_start, marks=pytest.mark.long)])
def test_the_coordinator_stands_still_between_prepare_and_decision(bank: Cluster, ending: Ending) -> None:
    """Longer than every limit: the branches say that they are in doubt, work on locally, and heal when it is back."""
    with closing(ClusterLoad(bank, 11, timeout_s=3)) as load:
        stop_with_a_lasting_doubt(bank, load)
        told = bank.cli("status", endpoint=bank.endpoints["Mumbai"])
        assert told.returncode == 1
        assert "in doubt" in told.stdout, told.stdout
        with bank.client("Mumbai") as local:
            assert local.deposit("Mumbai/1001", 1, id="in").status == "committed"
            assert local.withdraw("Mumbai/1001", 1, id="out").status == "committed"
        ending(bank, "coordinator")
        bank.wait_registered()
        load.wait_told(200)
        load.check(others=("in", "out"))


@pytest.mark.parametrize("ending", [kill_and_start, pytest.param(resume, marks=pytest.mark.long)])
def test_a_branch_stands_still_between_prepare_and_decision(bank: Cluster, ending: Ending) -> None:
    """The others are told in time that it is away, and go on; when it is back it learns how everything ended."""
    with closing(ClusterLoad(bank, 12, timeout_s=6)) as load:
        stop_with_work_in_hand(bank, load, "Delhi", "Mumbai")
        wait_until(lambda: load.history.faults["branch_unavailable"] > 0, what="a clear word about Delhi")
        with bank.client() as client:
            assert client.transfer("Mumbai/1001", "Pune/1001", 1, id="past Delhi").status == "committed"
        ending(bank, "Delhi")
        bank.wait_registered()
        load.wait_told(200)
        load.check(others=("past Delhi",))
        with bank.client() as client:
            assert client.transfer("Mumbai/1001", "Pune/1001", 1, id="past Delhi").replayed


def test_told_to_stop_under_load_everything_ends_well(bank: Cluster) -> None:
    """SIGTERM or SIGINT: exit code 0, nothing lost, the next start goes on."""
    with closing(ClusterLoad(bank, 13)) as load:
        for n in range(2):
            load.wait_told(300)
            for name in ACTORS:
                bank.send_signal(name, signal.SIGINT if n else signal.SIGTERM)
            assert [bank.processes[name].wait(STOP_LIMIT_S) for name in ACTORS] == [0] * len(ACTORS), bank.output("coordinator")
            assert "Traceback" not in "".join(bank.output(name) for name in ACTORS)
            restart(bank, ACTORS)
        load.wait_told(100)
        load.check()
    verify_files(bank)
