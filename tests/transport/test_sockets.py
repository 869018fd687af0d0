"""What libzmq does to a process whose queues are full when a peer leaves or a heartbeat is due: nothing, with our options.

Each case runs in a process of its own, because what it guards against is an abort of the whole process
(https://github.com/zeromq/libzmq/issues/4364, https://github.com/zeromq/libzmq/issues/4767).
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
import zmq

from zbank.transport.sockets import make_dealer

ROOT = Path(__file__).resolve().parents[2]
LIMIT_S = 60

FLOODED_ROUTER = """
import sys, time, zmq
from zbank.transport.sockets import SERVER_IN_FRAMES, make_router
context = zmq.Context()
router = make_router(context, "tcp://127.0.0.1:*")
endpoint = router.getsockopt_string(zmq.LAST_ENDPOINT)
flooders = []
for _ in range(20):
    flooder = context.socket(zmq.DEALER)
    flooder.connect(endpoint)
    for _ in range(3 * SERVER_IN_FRAMES):
        flooder.send(bytes(50_000))
    flooders.append(flooder)
router.poll(5_000)
time.sleep(1)
for flooder in flooders:
    flooder.close(linger=0)
time.sleep(2.5)
count = 0
while router.poll(2_000):
    router.recv_multipart()
    count += 1
context.destroy(linger=0)
if count < 5 * SERVER_IN_FRAMES:
    sys.exit(f"NOT FULL: {count} frames")
"""

STALLED_DEALER = """
import time, zmq
from zbank.transport.sockets import HIGH_WATER_FRAMES, make_dealer, make_router
context = zmq.Context()
for stall_s in (2.5, 4):
    router = make_router(context, "tcp://127.0.0.1:*")
    dealer = make_dealer(context, router.getsockopt_string(zmq.LAST_ENDPOINT))
    dealer.send(b"hello")
    route, _ = router.recv_multipart()
    for _ in range(3 * HIGH_WATER_FRAMES):
        router.send_multipart((route, bytes(2_000)))
        time.sleep(0)
    dealer.poll(5_000)
    if stall_s < 3:
        time.sleep(0.5)
        router.close(linger=0)
    time.sleep(stall_s)
    count = 0
    while count < 3 * HIGH_WATER_FRAMES and dealer.poll(2_000 if router.closed else 20_000):
        dealer.recv()
        count += 1
    assert router.closed or count == 3 * HIGH_WATER_FRAMES, count
    dealer.close()
context.destroy(linger=0)
"""
TRIES = 5  #: a machine that is busy with something else may not have filled the queues in time


@pytest.mark.parametrize("script", [FLOODED_ROUTER, STALLED_DEALER], ids=["flooded router", "stalled dealer"])
def test_full_queues_do_not_end_the_process(script: str) -> None:
    for _ in range(TRIES):
        done = subprocess.run(
            [sys.executable, "-c", script],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
            check=False,
        )
        if not done.stderr.startswith("NOT FULL"):
            break
    assert done.returncode == 0, done.stderr


GREETING = b"\xff" + bytes(8) + b"\x7f\x03\x01" + b"NULL".ljust(20, b"\0") + b"\0" + bytes(31)
READY = b"\x05READY\x0bSocket-Type\0\0\0\x06ROUTER"
LONGER_THAN_A_PING_S = 2.5


def test_no_peer_of_ours_pings() -> None:
    """A PING behind a full queue, whose sender has left, ends the process that reads it; found by `zbank chaos`.

    The server here is a bare TCP socket that speaks as much ZMTP 3.1 (https://rfc.zeromq.org/spec/37/) as a handshake needs.
    """
    context = zmq.Context()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        dealer = make_dealer(context, f"tcp://127.0.0.1:{listener.getsockname()[1]}")
        connection, _ = listener.accept()
        with connection:
            connection.sendall(GREETING + bytes([4, len(READY)]) + READY)
            dealer.send(b"after the handshake")
            connection.settimeout(LIMIT_S)
            heard = b""
            while b"after the handshake" not in heard:
                block = connection.recv(4096)
                assert block, heard
                heard += block
            end_s = time.monotonic() + LONGER_THAN_A_PING_S
            while (left_s := end_s - time.monotonic()) > 0:
                connection.settimeout(left_s)
                with suppress(TimeoutError):
                    heard += connection.recv(4096)
            assert b"\x04PING" not in heard
    context.destroy(linger=0)
