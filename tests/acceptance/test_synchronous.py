"""acks = 1 with real processes: what customers were told outlives the loss of the branch's disk, an old branch that wakes, and
every stop of the synchronous replica (PROTOCOL R3)."""

from __future__ import annotations

import os
import signal
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import count
from pathlib import Path

import pytest
import zmq

from tests.acceptance.cluster import Cluster, wait_until
from tests.acceptance.load import ClusterLoad, verify_files
from tests.acceptance.test_failover import wait_down
from tests.acceptance.test_failover_again import FORMER, promote
from tests.acceptance.test_replica import REPLICA, is_level, journals, replica_of, spawn_replica
from tests.attack.intruder import Intruder
from tests.transport.actors import pay
from zbank import Client
from zbank.apps import keymaking
from zbank.errors import RemoteFault
from zbank.ids import id_from_text
from zbank.protocol.messages import MAX_ROWS, AnyMessage, Beat, Fault, GetAccount, GetRows, Held, Welcome
from zbank.protocol.messages import REPLICA as ROLE

SPARE = "Mumbai-spare"
LEVEL_US = 1_500_000
STOPS_S = 15.0  #: the branch says within this that it has stopped: 3 s of silence, and what a busy machine adds
GOES_ON_S = 40.0  #: also when the branch and its replica are only just being started
AT_ONCE_S = 1.0
TOO_MUCH = 9_000_000  #: whole units: refused, so the books show nothing of it
APART = f'acks = 1\nsynchronous = "{REPLICA}"'  #: the replica is started by a command of its own
BESIDE = "acks = 1\nreplicas = 1"  #: the branch's command starts it, too


@pytest.fixture
def bank(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Cluster]:
    """A bank whose Mumbai has a synchronous replica."""
    secure, how = getattr(request, "param", (False, APART))
    cluster = Cluster(tmp_path, secure=secure)
    cluster.config.write_text(cluster.config.read_text().replace("preload = true", f"preload = true\n{how}", 1))
    if cluster.keys is not None:
        for name in (REPLICA, SPARE):
            keymaking.add(cluster.keys, name, "replica", ())
    try:
        cluster.start_all()
        if how == APART:
            spawn_replica(cluster)
        yield cluster
    finally:
        cluster.close()


def name_synchronous(bank: Cluster, name: str) -> None:
    """By the command, as an operator does, as soon as it has caught up."""
    with bank.client() as client:
        wait_until(lambda: (info := replica_of(client, name)) is not None and info.lag_us < LEVEL_US, what=f"{name} follows")
    said: list[str] = []

    def is_named() -> bool:
        done = bank.cli("acks", "Mumbai", name)
        waits = "not_level" in done.stderr or "is silent" in done.stderr  # it was level a moment ago
        assert (done.returncode, done.stderr) == (0, "") or waits, (done.stderr, bank.output("Mumbai"))
        said.append(done.stdout)
        return done.returncode == 0

    wait_until(is_named, what=f"{name} is named")
    assert f"Mumbai answers nothing before {name} has it on its disk" in said[-1]


def lose(bank: Cluster, name: str, file: str) -> None:
    """The process is killed, and its disk is gone."""
    bank.kill(name)
    for path in list(bank.data.glob(f"{file}.db*")):
        path.rename(bank.folder / path.name)


def refusal(client: Client) -> str:
    """Why Mumbai takes nothing on; "" when it does, or says nothing."""
    try:
        client.transfer("Mumbai/1001", "Mumbai/1002", TOO_MUCH, timeout_s=AT_ONCE_S)
    except RemoteFault as error:
        return error.detail if error.remote_code == "branch_unavailable" else ""
    return ""


def wait_stopped(bank: Cluster, load: ClusterLoad, meanwhile: Callable[[], None] = lambda: None) -> None:
    """Mumbai takes nothing on any more, and says so at once; what was told until then is on the replica's disk."""
    with bank.client() as client:

        why = ""

        def is_refused() -> bool:
            nonlocal why
            meanwhile()
            why = refusal(client)
            return why != ""

        wait_until(is_refused, STOPS_S, what="Mumbai stops")
        assert f"Mumbai has stopped: its synchronous replica {REPLICA} does not answer" in why
    assert f"its synchronous replica {REPLICA} does not answer" in bank.cli("status").stdout
    told = told_by_mumbai(load)
    with closing(sqlite3.connect(f"file:{bank.data / f'{REPLICA}.db'}?mode=ro", uri=True)) as store:
        on_disk = {row[0] for row in store.execute("SELECT id FROM journal WHERE id IS NOT NULL")}
    assert told
    assert told - on_disk == set()


def told_by_mumbai(load: ClusterLoad) -> set[bytes]:
    """What was told as committed and has Mumbai's word in it."""
    asked, told = load.history.asked, dict(load.history.told)
    done = (id for id, outcome in told.items() if outcome.status == "committed")
    return {id_from_text(id) for id in done if any(account.startswith("Mumbai/") for account, _ in asked[id])}


def wait_goes_on(load: ClusterLoad) -> None:
    """Mumbai tells outcomes again."""
    enough = len(told_by_mumbai(load)) + 50
    wait_until(lambda: len(told_by_mumbai(load)) >= enough, GOES_ON_S, f"Mumbai goes on ({load.history.faults})")


def last_row(path: Path) -> tuple[int, bytes]:
    """Number and chain value of the last row that is on this disk."""
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as store:
        seq, chain = store.execute("SELECT seq, chain FROM journal ORDER BY seq DESC LIMIT 1").fetchone()
    return int(seq), bytes(chain)


@pytest.mark.parametrize("bank", [(True, APART)], ids=["secure"], indirect=True)
def test_nothing_that_was_told_is_lost_with_the_disk(bank: Cluster) -> None:
    """Nor let out by the key of another replica, though that one knows the synchronous one's data and every row."""
    with bank.client() as client, closing(ClusterLoad(bank, 1)) as load:
        load.wait_told(100)
        synchronous = replica_of(client)
        assert synchronous is not None
        bank.send_signal(REPLICA, signal.SIGSTOP)
        with Intruder(bank, "Mumbai", SPARE).greeted(ROLE, SPARE) as other:

            def acknowledge() -> None:
                seq, chain = last_row(bank.data / "Mumbai.db")
                other.say(GetRows(seq, MAX_ROWS, Held(synchronous.instance, seq, chain)))

            wait_stopped(bank, load, acknowledge)
        bank.send_signal(REPLICA, signal.SIGCONT)
        wait_goes_on(load)

        lose(bank, "Mumbai", "Mumbai")
        wait_down(client)
        promote(bank, REPLICA)
        wait_goes_on(load)
        assert "no synchronous replica: what it says stands on one disk" in bank.cli("status").stdout
        spawn_replica(bank, SPARE)
        name_synchronous(bank, SPARE)
        load.wait_told(100)
        load.check()
        assert load.history.faults, "the loss was not felt"
        assert client.balance("Mumbai/suspense") == "0.00"


def test_an_old_branch_that_wakes_tells_nobody_anything(bank: Cluster) -> None:
    """Not even while the coordinator is out of its reach. It rejoins, and as the synchronous replica it loses nothing in its
    turn."""
    heard: list[AnyMessage] = []
    numbers = count(1_000_000)
    with bank.client() as client, closing(ClusterLoad(bank, 2)) as load, Intruder(bank, "Mumbai") as straight:

        def refused() -> int:
            if straight.socket.poll(0, zmq.POLLOUT):  # else its process is just becoming what it is now
                straight.say(pay(next(numbers), "Mumbai/1001", "Mumbai/1002", 1), GetAccount("1001"))
            heard.extend(straight.hear(20))
            return sum(isinstance(message, Fault) and message.code == "branch_unavailable" for message in heard)

        straight.greeted()
        load.wait_told(200)
        bank.send_signal("Mumbai", signal.SIGSTOP)
        os.waitid(os.P_PID, bank.processes["Mumbai"].pid, os.WSTOPPED | os.WNOWAIT)
        assert refused() == 0
        wait_down(client)
        promote(bank, REPLICA)
        wait_goes_on(load)
        bank.send_signal("coordinator", signal.SIGSTOP)
        bank.send_signal("Mumbai", signal.SIGCONT)
        # It refuses what came while it slept, and what comes: what its replica said before that one led is old.
        wait_until(lambda: refused() >= 12, what="the old branch refuses all")
        bank.send_signal("coordinator", signal.SIGCONT)
        wait_until(lambda: refused() > 0 and replica_of(client, FORMER) is not None, what="the old branch follows the new one")
        assert "superseded" in bank.output("Mumbai")
        assert {type(message) for message in heard} <= {Fault, Beat, Welcome}, heard
        name_synchronous(bank, FORMER)
        wait_goes_on(load)

        lose(bank, REPLICA, REPLICA)
        wait_down(client)
        promote(bank, FORMER)
        wait_goes_on(load)
        spawn_replica(bank, SPARE)
        name_synchronous(bank, SPARE)
        load.check()


def test_the_branch_stands_still_while_its_replica_is_away(bank: Cluster) -> None:
    """Paused, killed, and begun anew without its data: then only an operator can say that it will do."""
    with bank.client() as client, closing(ClusterLoad(bank, 3)) as load:
        load.wait_told(100)
        bank.send_signal(REPLICA, signal.SIGSTOP)
        wait_stopped(bank, load)
        bank.send_signal(REPLICA, signal.SIGCONT)
        wait_goes_on(load)
        bank.kill(REPLICA)
        wait_stopped(bank, load)
        spawn_replica(bank)
        wait_goes_on(load)

        before = replica_of(client)
        assert before is not None
        lose(bank, REPLICA, REPLICA)
        spawn_replica(bank)
        wait_until(lambda: (now := replica_of(client)) is not None and now.instance != before.instance, what="it is back")
        wait_until(lambda: refusal(client) != "", STOPS_S, what="Mumbai stops")
        wait_until(lambda: is_level(client), what="it has all that it gets")
        wait_until(lambda: refusal(client) != "", STOPS_S, what="Mumbai stops all the same")
        name_synchronous(bank, REPLICA)
        wait_goes_on(load)
        load.check()
    verify_files(bank)
    assert bank.stop(REPLICA) == 0
    mine, copied = journals(bank)
    assert copied.verify() == copied.seq == mine.seq
    assert copied.chain == mine.chain


@pytest.mark.parametrize("bank", [(False, BESIDE)], ids=["beside"], indirect=True)
def test_a_branch_that_is_killed_goes_on_with_its_replica(bank: Cluster) -> None:
    """Both are started by one command, again and again, while customers wait."""
    with closing(ClusterLoad(bank, 4)) as load:
        for _ in range(2):
            wait_goes_on(load)
            bank.kill("Mumbai")
            bank.start("Mumbai", ready=False)
        wait_goes_on(load)
        load.check()
        assert load.history.faults, "no kill was felt"
    verify_files(bank)
