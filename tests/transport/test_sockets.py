"""What libzmq does to a process whose queues are full when a peer leaves or a heartbeat is due: nothing, with our options.

Each case runs in a process of its own, because what it guards against is an abort of the whole process
(https://github.com/zeromq/libzmq/issues/4364, https://github.com/zeromq/libzmq/issues/4767).
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LIMIT_S = 60

FLOODED_ROUTER = """
import socket, time, zmq
from zbank.transport.sockets import HEARTBEAT_INTERVAL_MS, SERVER_IN_FRAMES, make_router
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
time.sleep(2.5 * HEARTBEAT_INTERVAL_MS / 1000)
count = 0
while router.poll(500):
    router.recv_multipart()
    count += 1
assert count >= 20 * SERVER_IN_FRAMES, count
"""

STALLED_DEALER = """
import time, zmq
from zbank.transport.sockets import HEARTBEAT_INTERVAL_MS, HEARTBEAT_TIMEOUT_MS, HIGH_WATER_FRAMES, make_dealer, make_router
context = zmq.Context()
for stall_ms in (2.5 * HEARTBEAT_INTERVAL_MS, HEARTBEAT_TIMEOUT_MS + HEARTBEAT_INTERVAL_MS):
    router = make_router(context, "tcp://127.0.0.1:*")
    dealer = make_dealer(context, router.getsockopt_string(zmq.LAST_ENDPOINT))
    dealer.send(b"hello")
    route, _ = router.recv_multipart()
    for _ in range(3 * HIGH_WATER_FRAMES):
        router.send_multipart((route, bytes(2_000)))
        time.sleep(0)
    dealer.poll(5_000)
    if stall_ms < HEARTBEAT_TIMEOUT_MS:
        time.sleep(0.5)
        router.close(linger=0)
    time.sleep(stall_ms / 1000)
    count = 0
    while dealer.poll(500):
        dealer.recv()
        count += 1
    assert router.closed or count == 3 * HIGH_WATER_FRAMES, count
    dealer.close()
"""


@pytest.mark.parametrize("script", [FLOODED_ROUTER, STALLED_DEALER], ids=["flooded router", "stalled dealer"])
def test_full_queues_do_not_end_the_process(script: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", script + "\ncontext.destroy(linger=0)\n"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
