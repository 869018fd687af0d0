"""Garbage of all sizes at every port while the bank works: the work goes on, memory stays bounded, senders are told."""

from __future__ import annotations

import os
import random
import resource
import socket
import sys
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import msgpack
import pytest
import zmq

from tests.acceptance.cluster import Cluster, wait_until
from tests.acceptance.load import ClusterLoad
from zbank.protocol.codec import MAX_FRAME_BYTES, MAX_FRAME_MESSAGES, decode_batch, encode_batch
from zbank.protocol.messages import (
    CLIENT,
    PROTOCOL_VERSION,
    AnyMessage,
    Fault,
    GetStatus,
    Hello,
    ListAccounts,
    StatusInfo,
    Welcome,
)

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="NOT TESTED: memory and limits are looked up in /proc")

WAIT_MS = 10_000
MAX_GROWTH_MIB = 150  #: of a process that is sent garbage, over what it had before
CONNECTIONS = 500
PATIENCE_S = 20.0  #: of the customers: nobody is told anything but an outcome
Context = zmq.Context[zmq.Socket[bytes]]


@pytest.fixture
def context() -> Iterator[Context]:
    context: Context = zmq.Context()
    yield context
    context.destroy(linger=0)


def rss_mib(cluster: Cluster, name: str) -> float:
    """Memory that a process has in use."""
    pages = Path(f"/proc/{cluster.processes[name].pid}/statm").read_text().split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE") / 2**20


class Stranger:
    """A raw DEALER: it sends what it likes."""

    def __init__(self, context: Context, endpoint: str, greet: bool = False) -> None:
        self.socket = context.socket(zmq.DEALER)
        self.socket.connect(endpoint)
        if greet:
            assert isinstance(self.ask(Hello(PROTOCOL_VERSION, "", CLIENT, "")), Welcome)

    def ask(self, message: AnyMessage) -> AnyMessage:
        self.socket.send(encode_batch([(1, message)]))
        return self.hear()

    def hear(self) -> AnyMessage:
        """The first message of the next frame."""
        assert self.socket.poll(WAIT_MS), "no answer"
        return decode_batch(self.socket.recv())[0][1]

    def close(self) -> None:
        self.socket.close(linger=0)


def bodies(seed: int) -> list[bytes]:
    """Frame bodies that are no batch: of every length class, random, and msgpack of the wrong shape."""
    chance = random.Random(seed)
    found = [chance.randbytes(size) for size in (0, 1, 2, 15, 100, 4_096, 65_536, MAX_FRAME_BYTES)]
    envelope = encode_batch([(1, GetStatus())])
    found += [envelope[:cut] for cut in range(1, len(envelope))]
    wrong: list[object] = [
        None,
        1,
        "status?",
        [1],
        [[1]],
        [[1, []]],
        [[1, ["nobody knows this"]]],
        [[1, ["status?", "one field too many"]]],
        [["1", ["status?"]]],
        [[1.5, ["status?"]]],
        [[True, ["status?"]]],
        [[2**64 - 1, ["transfer", b"short", [], "INR"]]],
        [[1, ["transfer", bytes(16), [["Mumbai", "1001", 2**63]], "INR"]]],
        [[1, ["transfer", bytes(16), [["Mumbai", "1001", 1.0]], "INR"]]],
        [[1, ["transfer", bytes(16), [["Mumbai", "1001", True]], "INR"]]],
        [[1, ["account?", "x" * 2_001]]],
        {"n": 1},
        [[1, ["status?"]]] * (MAX_FRAME_MESSAGES + 1),
        [msgpack.Timestamp(1)],
        [msgpack.ExtType(5, b"x")],
        b"x" * 65,
    ]
    found += [msgpack.packb(one) for one in wrong]
    found += [b"\x91" * depth for depth in (10, 1_000, 100_000, MAX_FRAME_BYTES)]
    found += [b"\xdd\xff\xff\xff\xff", b"\xdf\xff\xff\xff\xff", b"\xc6\xff\xff\xff\xff", b"\xdb\x7f\xff\xff\xff"]
    found += [b"\x92\x01" + b"\xff" * 1_000, envelope + b"\x00", b"\x90" * 1_000]
    for _ in range(200):
        spoilt = bytearray(encode_batch([(7, ListAccounts("a", 5)), (8, GetStatus())]))
        for _ in range(chance.randint(1, 3)):
            spoilt[chance.randrange(len(spoilt))] = chance.randrange(256)
        found.append(bytes(spoilt))
    return found


def throw_frames(context: Context, endpoint: str, seed: int) -> None:
    """Every body, from one connection; each wrong one is answered by a fault, and the session still works."""
    with closing(Stranger(context, endpoint, greet=True)) as stranger:
        for body in bodies(seed):
            if body != b"\x90" and _is_batch(body):
                continue
            stranger.socket.send(body)
            answer = stranger.hear()
            assert isinstance(answer, Fault), f"{body[:50]!r} is answered {answer}"
            assert answer.code == "bad_frame"
        assert isinstance(stranger.ask(GetStatus()), StatusInfo)


def _is_batch(body: bytes) -> bool:
    try:
        decode_batch(body)
    except Exception:
        return False
    return True


def throw_big_things(context: Context, endpoint: str) -> None:
    """What is larger than a frame may be ends its connection; many frames in one message are told to be wrong."""
    for size in (MAX_FRAME_BYTES + 1, 8 * MAX_FRAME_BYTES):
        with closing(Stranger(context, endpoint)) as stranger:
            watch = stranger.socket.get_monitor_socket(zmq.EVENT_DISCONNECTED)
            stranger.socket.send(bytes(size))
            assert watch.poll(WAIT_MS), "the connection goes on"
            stranger.socket.disable_monitor()
            watch.close(linger=0)
    with closing(Stranger(context, endpoint, greet=True)) as stranger:
        stranger.socket.send_multipart([b"x"] * 20_000)
        answer = stranger.hear()
        assert isinstance(answer, Fault)
        assert answer.detail == "a message has one frame, this one has 20000"


def throw_work(context: Context, endpoint: str) -> None:
    """Frames that are right, full of questions whose answers are large: it is told busy, not given all the memory."""
    with closing(Stranger(context, endpoint, greet=True)) as stranger:
        full = encode_batch([(n, ListAccounts("", 1000)) for n in range(MAX_FRAME_MESSAGES)])
        for _ in range(200):
            stranger.socket.send(full)
        stranger.hear()


def throw_bytes(port: int, held: ExitStack) -> None:
    """Connections that speak no ZMTP, or begin to and stop; they stay open."""
    greeting = b"\xff" + bytes(8) + b"\x7f\x03\x00NULL" + bytes(48)
    for first in (b"", b"GET / HTTP/1.1\r\n\r\n", os.urandom(4_096), greeting[:11], greeting, greeting + b"\x04\xff\xff"):
        for _ in range(CONNECTIONS // 6):
            connection = held.enter_context(socket.create_connection(("127.0.0.1", port)))
            connection.sendall(first)


@pytest.mark.parametrize("seed", [1, *(pytest.param(seed, marks=pytest.mark.long) for seed in range(2, 6))])
def test_garbage_at_every_port_while_a_load_runs(cluster: Cluster, context: Context, seed: int) -> None:
    names = ("coordinator", *cluster.branches)
    with closing(ClusterLoad(cluster, seed, in_flight=16, timeout_s=PATIENCE_S)) as load, ExitStack() as held:
        load.wait_told(100)
        before = {name: rss_mib(cluster, name) for name in names}
        for name in names:
            port = int(cluster.endpoints[name].rpartition(":")[2])
            throw_frames(context, cluster.endpoints[name], seed)
            throw_big_things(context, cluster.endpoints[name])
            throw_bytes(port, held)
            load.wait_told(50)
            throw_work(context, cluster.endpoints[name])
        load.wait_told(100)
        for name in names:
            assert cluster.processes[name].poll() is None
            assert rss_mib(cluster, name) < before[name] + MAX_GROWTH_MIB, name
            assert "Traceback" not in cluster.output(name)
        assert not load.history.faults, load.history.faults
        load.check()


def test_a_flood_of_connections_that_never_read(cluster: Cluster, context: Context) -> None:
    """Each says hello and asks again and again for what it does not fetch."""
    context.set(zmq.MAX_SOCKETS, 4 * CONNECTIONS)
    names = ("coordinator", *cluster.branches)
    with closing(ClusterLoad(cluster, 3, in_flight=16, timeout_s=PATIENCE_S)) as load, ExitStack() as held:
        load.wait_told(100)
        before = {name: rss_mib(cluster, name) for name in names}
        body = encode_batch([(1, Hello(PROTOCOL_VERSION, "", CLIENT, "")), *([(2, GetStatus())] * 50)])
        for n in range(CONNECTIONS):
            stranger = held.enter_context(closing(Stranger(context, cluster.endpoints[names[n % len(names)]])))
            for _ in range(10):
                stranger.socket.send(body, zmq.NOBLOCK)
        load.wait_told(200)
        with cluster.client() as bank:
            wait_until(lambda: all(isinstance(one, StatusInfo) for one in bank.status()), what="everybody answering")
        for name in names:
            assert rss_mib(cluster, name) < before[name] + MAX_GROWTH_MIB, name
        assert not load.history.faults, load.history.faults
        load.check()


def test_more_connections_than_the_process_may_open(tmp_path: Path) -> None:
    """They wait at the door; the process lives, also when it must connect anew itself, and goes on when they leave."""
    cluster = Cluster(tmp_path)
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        cluster.start_all()
        mumbai = cluster.processes["Mumbai"].pid
        soft, _ = resource.prlimit(mumbai, resource.RLIMIT_NOFILE)
        assert soft == min(before[1], 10_240) or soft == before[0], "it took what it may have"
        few = len(list(Path(f"/proc/{mumbai}/fd").iterdir())) + 10
        resource.prlimit(mumbai, resource.RLIMIT_NOFILE, (few, few))
        port = int(cluster.endpoints["Mumbai"].rpartition(":")[2])
        with ExitStack() as held:
            for _ in range(100):
                held.enter_context(socket.create_connection(("127.0.0.1", port)))
            cluster.kill("coordinator")
            wait_until(lambda: "can be made: Too many open files" in cluster.output("Mumbai"), what="Mumbai trying anew")
            assert cluster.processes["Mumbai"].poll() is None
        cluster.start("coordinator")
        cluster.wait_registered()
        with cluster.client() as bank:
            assert bank.transfer("Mumbai/1001", "Delhi/1001", 1).status == "committed"
    finally:
        cluster.close()
