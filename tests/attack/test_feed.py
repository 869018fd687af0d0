"""The feed under attack: who does not belong does not get in, who gets in makes nobody believe anything, and fills nothing."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import zmq

from tests.acceptance.cluster import Cluster, wait_until
from tests.acceptance.test_replica import REPLICA, journals
from tests.attack.feed_insider import (
    EVENT_MS,
    MUMBAI,
    Insider,
    connected,
    endless,
    feed_endpoint,
    follows,
    forgeries,
    hears_rows,
    publishing,
    true_rows,
    wait_fed,
    with_replica,
)
from tests.attack.intruder import Intruder, watching_money
from tests.attack.recorder import Recorder, play_back
from tests.attack.test_floods import flooding, paying, rss_mib
from tests.attack.test_replay import port_of, spoilt
from zbank.config import parse_endpoint
from zbank.protocol.codec import encode_batch
from zbank.protocol.messages import BRANCH, CLIENT, Rows
from zbank.transport.feed import MAX_GROWTH_BYTES, topic_of
from zbank.transport.keyfolder import Keys
from zbank.transport.keys import new_pair

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="NOT TESTED: memory is looked up in /proc")

STRANGERS = ("asha", "till-4", "watch", "operator", "rest", "coordinator")
MAX_GROWTH_MIB = 200


@pytest.fixture(scope="module")
def fed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Mumbai and Delhi with keys, and a replica of Mumbai; nobody stops it or changes its keys."""
    cluster = Cluster(tmp_path_factory.mktemp("feed"), secure=True)
    try:
        yield with_replica(cluster)
    finally:
        cluster.close()


@pytest.fixture
def own_fed(tmp_path: Path) -> Iterator[Cluster]:
    """The same, for one test alone."""
    cluster = Cluster(tmp_path, secure=True)
    try:
        yield with_replica(cluster)
    finally:
        cluster.close()


# --- getting in -----------------------------------------------------------------------------------------------------------


def test_branches_and_the_replica_are_in_the_feed(fed: Cluster) -> None:
    """It is best effort, and all goes on without it: so it has to be looked at."""
    wait_fed(fed)
    with Insider(fed, "in", "Delhi") as branch, Insider(fed, "out", "stand-in") as replica:
        assert branch.gets_in()
        assert replica.gets_in()
        replica.socket.subscribe(MUMBAI)
        hears_rows(fed, replica)


@pytest.mark.parametrize("end", ["in", "out"])
def test_nobody_else_gets_in(fed: Cluster, end: str) -> None:
    assert fed.keys is not None
    other = Keys(fed.keys, "Mumbai").pair.public
    stolen = new_pair()._replace(public=Keys(fed.keys, "Delhi" if end == "in" else "stand-in").pair.public)
    cases: dict[str, tuple[Any, str | None]] = {
        "NULL mechanism": (None, ""),
        "a key that nobody listed": (new_pair(), None),
        "a listed key, and another server's": ("Delhi" if end == "in" else "stand-in", other),
        "somebody's public key, and another secret": (stolen, None),
        "the other end's key": (REPLICA if end == "in" else "Mumbai", None),
        **{f"the key of {name}": (name, None) for name in STRANGERS},
    }
    for what, (key, server) in cases.items():
        for kind in (zmq.PUB, zmq.SUB, zmq.DEALER):
            with Insider(fed, end, key, server, kind) as insider:
                assert not insider.gets_in(), what
    wait_fed(fed)
    follows(fed)


@pytest.mark.parametrize("end", ["in", "out"])
def test_plain_is_not_spoken(fed: Cluster, end: str) -> None:
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    try:
        plain = context.socket(zmq.PUB if end == "in" else zmq.SUB)
        plain.plain_username, plain.plain_password = b"Mumbai", b"Mumbai"
        events = plain.get_monitor_socket(zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_DISCONNECTED)
        plain.connect(feed_endpoint(fed, end))
        assert events.poll(EVENT_MS)
        assert int.from_bytes(events.recv_multipart()[0][:2], sys.byteorder) == zmq.EVENT_DISCONNECTED
        plain.disable_monitor()
    finally:
        context.destroy(linger=0)


def test_rows_are_taken_by_no_other_way(fed: Cluster) -> None:
    """Sent to the replica itself, by any key."""
    rows = true_rows(fed)
    for name, role in (("Delhi", BRANCH), ("Mumbai", BRANCH), ("till-4", CLIENT), ("stand-in", "replica")):
        with Intruder(fed, REPLICA, name) as intruder:
            intruder.greet(role, name)
            assert intruder.refused(rows) in ("forbidden", "hello_first")
    follows(fed)


# --- forging, and playing back --------------------------------------------------------------------------------------------


def test_an_insider_who_publishes_in_anothers_name_is_not_believed(own_fed: Cluster) -> None:
    """Delhi's key goes on where Mumbai's journal stands, chained as it should be, before Mumbai itself does."""
    bank = own_fed
    before = rss_mib(bank, REPLICA)
    for _ in range(5):
        frames = forgeries(true_rows(bank))
        messages = [[MUMBAI, frame] for frame in frames]
        messages += [[MUMBAI], [MUMBAI, *[b"x"] * 5_000], [b"", frames[0]], [topic_of("Delhi"), frames[0]], [MUMBAI * 40, b"x"]]
        with publishing(bank, "Delhi", *messages, pause_s=0.002):
            for _ in range(3):
                follows(bank)
    follows(bank)
    assert rss_mib(bank, REPLICA) < before + MAX_GROWTH_MIB
    for name in (REPLICA, "Mumbai"):
        assert "Traceback" not in bank.output(name)
        assert bank.stop(name) == 0
    mine, copied = journals(bank)
    with closing(mine), closing(copied):
        assert copied.verify() == copied.seq
        assert [copied.row(seq) for seq in range(1, copied.seq + 1)] == [mine.row(seq) for seq in range(1, copied.seq + 1)]


@pytest.mark.parametrize("secure", [True, False])
def test_recorded_traffic_of_the_feed_changes_nothing(tmp_path: Path, secure: bool) -> None:
    bank = Cluster(tmp_path, secure=secure)
    try:
        with_replica(bank)
        tapes: dict[str, bytes] = {}
        for end, key in (("in", "Mumbai"), ("out", "stand-in")):
            with closing(Recorder(parse_endpoint(feed_endpoint(bank, end)).port)) as recorder:
                with Insider(bank, end, key if secure else None, endpoint=recorder.endpoint) as insider:
                    insider.got_in()
                    shaken = recorder.heard
                    if end == "out":
                        insider.socket.subscribe(MUMBAI)
                    for n in range(5):
                        if end == "in":
                            insider.socket.send_multipart([MUMBAI, encode_batch([(0, Rows(n, bytes(32), (), 1, n))])])
                        else:
                            follows(bank)
                    wait_until(lambda tape=recorder, shaken=shaken: tape.heard > shaken, what="more than the handshake")  # type: ignore[misc]
                    time.sleep(0.3)
                tapes[end] = max((bytes(to_server) for to_server, _ in recorder.tapes), key=len)
        assert not secure or not any(MUMBAI in tape for tape in tapes.values())
        with watching_money(bank):
            for end, tape in tapes.items():
                for recording in spoilt(tape).values():
                    play_back(port_of(feed_endpoint(bank, end)), recording)
        follows(bank)
        assert "Traceback" not in bank.output("coordinator") + bank.output(REPLICA)
    finally:
        bank.close()


# --- keys -----------------------------------------------------------------------------------------------------------------


def test_a_revoked_replica_is_put_out_of_the_feed(own_fed: Cluster) -> None:
    with Insider(own_fed, "out", "stand-in") as stolen:
        stolen.socket.subscribe(b"")
        stolen.got_in()
        hears_rows(own_fed, stolen)
        assert own_fed.cli("keys", "revoke", "stand-in").returncode == 0
        assert stolen.event() == zmq.EVENT_DISCONNECTED
        while stolen.socket.poll(300):
            stolen.socket.recv_multipart()
        wait_fed(own_fed)
        follows(own_fed)
        assert not stolen.socket.poll(500), "it hears nothing any more"


def test_keys_are_rotated_under_load_and_the_replica_is_level_again(own_fed: Cluster) -> None:
    with paying(own_fed) as payer:
        for name in ("Mumbai", "coordinator", REPLICA):
            payer.wait(20)
            assert own_fed.cli("keys", "rotate", name).returncode == 0
            said = f"the key of {name} was rotated"
            wait_until(lambda name=name, said=said: said in own_fed.output(name), what=f"the new key of {name}")  # type: ignore[misc]
            follows(own_fed, beside=True)
            payer.wait(20)
            wait_fed(own_fed)
        assert not payer.refused
    assert "Traceback" not in "".join(own_fed.output(name) for name in own_fed.processes)


# --- floods ---------------------------------------------------------------------------------------------------------------


def bounded(bank: Cluster, before: dict[str, float], most_mib: float = MAX_GROWTH_MIB) -> None:
    """No process has grown by much."""
    grown = {name: round(rss_mib(bank, name) - mib) for name, mib in before.items()}
    assert all(mib < most_mib for mib in grown.values()), grown


def memories(bank: Cluster) -> dict[str, float]:
    return {name: rss_mib(bank, name) for name in bank.processes}


def test_a_flood_of_subscriptions_fills_nobodys_memory(own_fed: Cluster) -> None:
    """The coordinator's, and that of the branches, to whom they would be passed on."""
    bank = own_fed
    with paying(bank) as payer:
        payer.wait(10)
        before = memories(bank)
        for wave in range(4):
            with Insider(bank, "out", "stand-in", hold=0) as insider:
                for n in range(30_000):
                    insider.socket.subscribe(f"{wave} {n} ".ljust(400, "x"))
                assert insider.gets_in()
                assert insider.event() == zmq.EVENT_DISCONNECTED
                bounded(bank, before, (MAX_GROWTH_BYTES >> 20) + MAX_GROWTH_MIB)
        payer.wait(20)
        assert not payer.refused
    assert "it asks for more than 8 KiB of topics of the feed" in bank.output("coordinator")
    wait_fed(bank)
    follows(bank)


@pytest.mark.parametrize("end", ["in", "out"])
@pytest.mark.parametrize("kind", ["connections", "slowloris", "noise", "strangers"])
def test_the_bank_goes_on_beside_a_flood_of_strangers_at_the_feed(own_fed: Cluster, end: str, kind: str) -> None:
    bank = own_fed
    with paying(bank) as payer:
        payer.wait(10)
        before = memories(bank)
        with flooding(kind, feed_endpoint(bank, end), "Mumbai", str(bank.keys), "till-4"):
            payer.wait(60)
            follows(bank, beside=True)
            bounded(bank, before)
        assert not payer.refused
    assert "Traceback" not in bank.output("coordinator")
    follows(bank)


def test_a_subscriber_that_never_reads_is_put_out(own_fed: Cluster) -> None:
    """By TCP, which waits 5 s for anything that is not taken."""
    bank = own_fed
    before = memories(bank)
    with Insider(bank, "out", "stand-in", is_deaf=True) as deaf, paying(bank) as payer:
        deaf.socket.subscribe(topic_of("Delhi"))
        with publishing(bank, "Delhi", [topic_of("Delhi"), bytes(200_000)], pause_s=0.01):
            wait_until(lambda: connected(bank, "out") == 2, what="its connection")
            wait_until(lambda: connected(bank, "out") == 1, what="its end")
            bounded(bank, before)
            follows(bank, beside=True)
        assert not payer.refused


@pytest.mark.parametrize(
    "message", [[MUMBAI, bytes(500_000)], [MUMBAI, b"\xc1"], [MUMBAI, *[b"x"] * 50_000]], ids=["large", "small", "many parts"]
)
def test_an_insider_who_floods_the_feed_stops_nobody(own_fed: Cluster, message: list[bytes]) -> None:
    bank = own_fed
    with paying(bank) as payer:
        payer.wait(10)
        before = memories(bank)
        with publishing(bank, "Delhi", message):
            for _ in range(4):
                payer.wait(15)
                follows(bank, beside=True)
                bounded(bank, before, (MAX_GROWTH_BYTES >> 20) + MAX_GROWTH_MIB)
        assert not payer.refused
    follows(bank)
    assert all(process.poll() is None for process in bank.processes.values())
    assert "Traceback" not in "".join(bank.output(name) for name in bank.processes)


def test_a_message_without_end_begins_the_feed_anew(tmp_path: Path) -> None:
    """ZeroMQ takes in the frames of a message until the last one is there, however many they are."""
    bank = Cluster(tmp_path)
    stop = threading.Event()
    thread = threading.Thread(target=endless, args=(bank, stop))
    try:
        with_replica(bank)
        with paying(bank) as payer:
            before = memories(bank)
            thread.start()
            said = "the feed begins anew: this process has grown by more than 256 MiB"
            end_s = time.monotonic() + 40
            while said not in bank.output("coordinator"):
                assert time.monotonic() < end_s
                bounded(bank, before, (MAX_GROWTH_BYTES >> 20) + MAX_GROWTH_MIB)
                time.sleep(0.05)
            payer.wait(10)
            stop.set()
            thread.join()
            assert not payer.refused
        wait_until(lambda: connected(bank, "in") >= 2, what="the branches")
        follows(bank)
    finally:
        stop.set()
        bank.close()
