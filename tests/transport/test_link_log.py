"""What a branch's log says about its coordinator: a wrong address must not be met with silence."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest
import zmq

from zbank.protocol.codec import decode_batch, encode_batch
from zbank.protocol.messages import (
    COORDINATOR,
    PROTOCOL_VERSION,
    BranchInfo,
    Hello,
    Register,
    Registered,
    Welcome,
)
from zbank.transport.links import SILENT_AFTER_US, UP, Link, branch_hello
from zbank.transport.sockets import Dialer, make_router

WAIT_MS = 10_000
MUMBAI = BranchInfo("Mumbai", "tcp://127.0.0.1:9100", "INR", bytes(16), 1, True)


@pytest.fixture
def router() -> Iterator[zmq.Socket[bytes]]:
    """A coordinator's socket that answers only when told to."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    socket = make_router(context, "tcp://127.0.0.1:*")
    try:
        yield socket
    finally:
        context.destroy(linger=0)


def make_link(router: zmq.Socket[bytes]) -> Link:
    endpoint = router.getsockopt_string(zmq.LAST_ENDPOINT)

    def register(_coordinator: str) -> Register:
        return Register(MUMBAI, 0, 0)

    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context.instance()
    return Link(Dialer(context), endpoint, branch_hello("demo", "Mumbai"), COORDINATOR, register)


def test_a_coordinator_that_never_answers_is_named_once(
    router: zmq.Socket[bytes], caplog: pytest.LogCaptureFixture
) -> None:
    link = make_link(router)
    with caplog.at_level(logging.INFO, "zbank"):
        for round_us in range(0, 5 * SILENT_AFTER_US, SILENT_AFTER_US + 1):
            assert not link.tick(round_us)
    link.close()
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    assert caplog.messages[0].startswith(f"no answer from {link.endpoint}: is the coordinator running there?")


def test_a_registration_is_told_once(router: zmq.Socket[bytes], caplog: pytest.LogCaptureFixture) -> None:
    link = make_link(router)

    def hear(expected: type[Hello] | type[Register]) -> bytes:
        for _ in range(WAIT_MS // 10):  # a greeting leaves only when the connection is complete
            link.tick(now_us[0])
            now_us[0] += 1_000
            if router.poll(10):
                route, body = router.recv_multipart()
                assert type(decode_batch(body)[0][1]) is expected
                return route
        pytest.fail(f"no {expected.__name__} came")

    now_us = [2_000_000]
    route = hear(Hello)
    welcome = Welcome(PROTOCOL_VERSION, "demo", COORDINATOR, "coordinator", bytes(16), 1, "", "")
    router.send_multipart((route, encode_batch([(0, welcome)])))
    with caplog.at_level(logging.INFO, "zbank"):
        assert link.socket.poll(WAIT_MS)
        assert link.receive(now_us[0], 10) == []
        assert hear(Register) == route
        for _ in range(2):  # the second is news of the directory
            router.send_multipart((route, encode_batch([(0, Registered("coordinator", 1, (MUMBAI,)))])))
            assert link.socket.poll(WAIT_MS)
            assert len(link.receive(now_us[0], 10)) == 1
    link.close()
    assert link.state == UP
    assert caplog.messages == [f"registered with the coordinator at {link.endpoint}"]
