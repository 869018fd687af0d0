"""An attacker at the feed: publishes or subscribes by whatever key he has got hold of; and what he can forge."""

from __future__ import annotations

import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import Self

import zmq
from msgspec.structs import replace

from tests.acceptance.cluster import Cluster, wait_until
from tests.acceptance.test_replica import REPLICA, is_level, replica_of, start_replica
from tests.attack.conftest import add_people
from tests.attack.intruder import Intruder, statuses
from zbank import Client
from zbank.apps import keymaking
from zbank.config import Endpoint, parse_endpoint
from zbank.errors import ZbankError
from zbank.ids import new_id
from zbank.protocol.codec import encode_batch, encode_record
from zbank.protocol.messages import MAX_ROWS, GetRows, GetStatus, RowInfo, Rows, StatusInfo
from zbank.protocol.messages import REPLICA as REPLICA_ROLE
from zbank.protocol.records import AccountOpened
from zbank.transport.feed import topic_of
from zbank.transport.keyfolder import Keys
from zbank.transport.keys import Pair
from zbank.transport.sockets import _unconnected
from zbank.transport.views import TransferResult

EVENT_MS = 20_000
MOST_ASKED = 3
MUMBAI = topic_of("Mumbai")
GREETING = b"\xff" + bytes(8) + b"\x7f\x03\x01" + b"NULL".ljust(20, b"\0") + b"\0" + bytes(31)
READY = b"\x05READY\x0bSocket-Type\0\0\0\x03PUB"


def feed_endpoint(cluster: Cluster, end: str) -> str:
    """Of the feed's end `in` or `out`: the two ports after the coordinator's own."""
    host, port = parse_endpoint(cluster.endpoint)
    return str(Endpoint(host, port + (1 if end == "in" else 2)))


class Insider:
    """A PUB at the feed's entry, or a SUB at its exit."""

    def __init__(
        self,
        cluster: Cluster,
        end: str,
        key: str | Pair | None,
        server: str | None = None,
        kind: int = 0,
        *,
        is_deaf: bool = False,
        hold: int = 64,
        endpoint: str = "",
    ) -> None:
        """Keys as in `Intruder`. `is_deaf`: takes hardly anything in. `hold`: frames that wait to be sent (0 = any number).
        `endpoint`: another way there."""
        self.context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        if isinstance(key, str):
            assert cluster.keys is not None
            key = Keys(cluster.keys, key).pair
        if key is not None and server is None:
            assert cluster.keys is not None
            server = Keys(cluster.keys, "coordinator").pair.public
        endpoint = endpoint or feed_endpoint(cluster, end)
        self.socket = _unconnected(self.context, endpoint, key, server or "", kind or (zmq.PUB if end == "in" else zmq.SUB))
        self.events = self.socket.get_monitor_socket(zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_DISCONNECTED)
        self.socket.sndhwm = hold
        if is_deaf:
            self.socket.rcvhwm, self.socket.rcvbuf = 1, 4_096
        self.socket.connect(endpoint)

    def event(self, limit_ms: int = EVENT_MS) -> int:
        """The next thing that happens to the connection; 0 = nothing."""
        if not self.events.poll(limit_ms):
            return 0
        return int.from_bytes(self.events.recv_multipart()[0][:2], sys.byteorder)

    def gets_in(self) -> bool:
        """The handshake ends well."""
        return self.event() == zmq.EVENT_HANDSHAKE_SUCCEEDED

    def got_in(self) -> Self:
        """It must; and a PUB has heard by then that somebody subscribes."""
        assert self.gets_in()
        time.sleep(0.2)
        return self

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.socket.disable_monitor()
        self.context.destroy(linger=0)


def with_replica(cluster: Cluster) -> Cluster:
    """Start all, and a replica of Mumbai."""
    if cluster.keys is not None:
        add_people(cluster)
        keymaking.add(cluster.keys, REPLICA, "replica", ())
    cluster.start_all()
    start_replica(cluster)
    with cluster.client() as client:
        info = replica_of(client)
        assert info is not None
        cluster.endpoints[REPLICA] = info.endpoint
    return cluster


def connected(cluster: Cluster, end: str) -> int:
    """How many connections stand at an end of the feed, by the kernel's list."""
    port = parse_endpoint(feed_endpoint(cluster, end)).port
    with open("/proc/net/tcp", encoding="ascii") as lines:
        parts = [line.split() for line in lines][1:]
    return sum(one[1].endswith(f":{port:04X}") and one[3] == "01" for one in parts)


def wait_fed(cluster: Cluster) -> None:
    """Until both branches and the replica are in the feed."""
    wait_until(
        lambda: connected(cluster, "in") >= len(cluster.branches) and connected(cluster, "out") >= 1,
        what="the connections of branches and replica at the feed",
    )


def true_rows(cluster: Cluster) -> Rows:
    """What stands last in Mumbai's journal: whoever has a replica's key may ask for it."""
    with Intruder(cluster, "Mumbai", "stand-in") as replica:
        replica.greeted(REPLICA_ROLE, "stand-in")
        at: Rows = replica.ask(GetRows(0, 0))
        last: Rows = replica.ask(GetRows(max(0, at.seq - MAX_ROWS), MAX_ROWS))
        assert last.rows
        end: Rows = replica.ask(GetRows(last.after + len(last.rows), MAX_ROWS))
        assert end.chain
        return replace(end, rows=last.rows[-2:])


def forgeries(at: Rows) -> list[bytes]:
    """Frames in Mumbai's name, from the row where it stands: chained to it, and not; and what are no rows at all."""
    opened = encode_record(AccountOpened(bytes(16), bytes(32), "thief", "6666", "a thief", "INR", 10**12))
    one = RowInfo(at.epoch, 1, "account_opened", bytes(16), opened)
    long = encode_record(AccountOpened(bytes(16), bytes(32), "thief", "7777", "x" * 60_000, "INR", 0))
    huge = replace(one, body=long)
    messages = [
        replace(at, rows=(one,)),
        replace(at, rows=(one,) * MAX_ROWS),
        replace(at, rows=(huge,) * 7),
        replace(at, rows=at.rows),  # the last rows once more
        replace(at, rows=(replace(one, body=b"\xc1"),)),
        replace(at, rows=(one,), chain=bytes(32)),
        replace(at, rows=(one,), after=at.after + 1_000),
        replace(at, rows=(one,), after=0, seq=1),
        replace(at, rows=(), seq=1 << 60),
        replace(at, rows=(one,), epoch=1 << 50, seq=1 << 60),
    ]
    frames = [encode_batch([(0, message)]) for message in messages]
    frames.append(encode_batch([(0, message) for message in messages[:2]] * 2))
    return [*frames, b"", b"\xc1", b"\x91" * 100_000, b"\xdd\xff\xff\xff\xff", bytes(500_000), bytes(1 << 20)]


@contextmanager
def publishing(cluster: Cluster, key: str | None, *messages: list[bytes], pause_s: float = 0.0) -> Iterator[None]:
    """Publish these again and again, as fast as the line takes them, for as long as the block lasts."""
    stop = threading.Event()
    begun = threading.Event()

    def run() -> None:
        with Insider(cluster, "in", key) as insider:
            insider.got_in()
            begun.set()
            while not stop.is_set():
                for message in messages:
                    with suppress(zmq.Again):
                        insider.socket.send_multipart(message, zmq.NOBLOCK)
                time.sleep(pause_s)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        assert begun.wait(30)
        yield
    finally:
        stop.set()
        thread.join()


def endless(cluster: Cluster, stop: threading.Event) -> int:
    """Without keys: one message that never ends, by a PUB of our own making. How often it had to begin anew.

    About 100 MiB of the coordinator's memory a second: as fast as the line takes it, it would be ten times that, and how far
    it comes between two of the coordinator's looks would be a matter of who else wants the processor.
    """
    host, port = parse_endpoint(feed_endpoint(cluster, "in"))
    frame = b"\x01\x01x" * 20_000  # more to come, a byte long
    begun = 0
    while not stop.is_set():
        with suppress(OSError), socket.create_connection((host, port), timeout=2) as one:
            begun += 1
            one.sendall(GREETING + bytes([4, len(READY)]) + READY)
            while not stop.is_set():
                one.sendall(frame)
                time.sleep(0.012)
    return begun


def alarms_of_replica(cluster: Cluster) -> tuple[str, ...]:
    """What the replica itself complains of."""
    with Intruder(cluster, REPLICA, "operator" if cluster.keys is not None else None) as person:
        person.greeted()
        person.say(GetStatus())
        (status,) = [message for message in person.hear() if isinstance(message, StatusInfo)]
        return status.alarms


def paid(client: Client) -> TransferResult:
    """A payment within Mumbai; what is not known of it is asked again."""
    id = new_id()
    for _ in range(MOST_ASKED):
        done = client.transfer("Mumbai/1001", "Mumbai/1002", "0.01", id=id)
        if done.status != "unknown":
            break
    assert done.status == "committed", done
    return done


def hears_rows(cluster: Cluster, insider: Insider) -> None:
    """Payments go on until one is heard in the feed: who has subscribed gets what is published once that is known there."""
    with cluster.client() as client:
        wait_until(lambda: paid(client) is not None and bool(insider.socket.poll(300)), what="rows in the feed")


def _is_level(client: Client) -> bool:
    try:
        return is_level(client)
    except ZbankError:
        return False


def follows(cluster: Cluster, limit_s: float = 20.0, *, beside: bool = False) -> None:
    """A payment is seen at the replica, the balances are the same (unless others pay `beside`), and it has nothing to
    complain of, but that the coordinator was silent, which it may be for a moment."""
    with cluster.client(timeout_s=limit_s) as client:
        if not beside:  # what others have paid before may be decided, and not be booked yet
            wait_until(lambda: not any(actor.in_flight for actor in statuses(client)), what="the end of what runs")
        done = paid(client)
        near = client.at_replicas(after=done.positions)
        for number in ("1001", "1002"):
            seen, true = near.balance(f"Mumbai/{number}"), client.balance(f"Mumbai/{number}")
            assert beside or seen == true
        assert [one.number for one in near.accounts("Mumbai")] == [one.number for one in client.accounts("Mumbai")]
        wait_until(lambda: _is_level(client), what="a level replica")
    told: tuple[str, ...] = ()

    def hears_coordinator() -> bool:
        nonlocal told
        told = alarms_of_replica(cluster)
        return not any(alarm.startswith("no answer from ") for alarm in told)

    wait_until(hears_coordinator, what="the coordinator at the replica")
    assert told == ()
