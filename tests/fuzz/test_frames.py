"""Fuzzed frames at the port of a whole actor: they cost their sender an error, and nobody else anything."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import zmq
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fuzz.play import SCRATCH
from tests.fuzz.shapes import batches, broken_bodies, mutations, nested_bodies
from tests.transport.actors import Desk, branch
from tests.unit.protocol_support import register
from zbank.protocol.codec import MAX_FRAME_BYTES, decode_batch, encode_batch
from zbank.protocol.coordinator import Coordinator
from zbank.protocol.messages import (
    BRANCH,
    CLIENT,
    COORDINATOR,
    PROTOCOL_VERSION,
    AnyMessage,
    Fault,
    GetStatus,
    Hello,
    Register,
    StatusInfo,
    Welcome,
)
from zbank.transport.loop import ActorLoop
from zbank.transport.peers import Peers
from zbank.transport.sockets import make_router

ANSWER_TURNS = 200
Socket = zmq.Socket[bytes]

valid = batches.map(encode_batch)
bodies = st.one_of(valid, mutations(valid), broken_bodies, nested_bodies, st.binary(max_size=60))
frames = st.lists(bodies, min_size=1, max_size=1) | st.lists(bodies, min_size=2, max_size=3)


class Port:
    """An actor at a port, turned by hand."""

    def __init__(self, desk: Desk, context: zmq.Context[Socket]) -> None:
        self.desk, self.context = desk, context
        self.endpoint = "inproc://actor"
        self.router = make_router(context, self.endpoint)
        identity = desk.identity
        welcome = Welcome(PROTOCOL_VERSION, "demo", identity.role, identity.name, bytes(16), 1, "INR", "")
        refuse = self._refuse if identity.role == COORDINATOR else None
        peers = Peers(identity.role, "demo", lambda: welcome)
        self.loop = ActorLoop(desk.engine, peers, self.router, desk.clock, refuse_registration=refuse)

    def _refuse(self, message: Register) -> Fault | None:
        machine = self.desk.engine.machine
        assert isinstance(machine, Coordinator)
        return machine.directory.refuse(message)

    def dealer(self) -> Socket:
        """A new connection."""
        socket = self.context.socket(zmq.DEALER)
        socket.connect(self.endpoint)
        return socket

    def answer_to(self, socket: Socket) -> list[tuple[int, AnyMessage]]:
        """The next frame to this connection; the loop is turned until it comes."""
        for _ in range(ANSWER_TURNS):
            self.desk.clock.advance(10_000)
            self.loop.step()
            if socket.poll(2):
                return decode_batch(socket.recv())
        pytest.fail("no answer came")


@contextmanager
def port(role: str) -> Iterator[Port]:
    """A fresh actor."""
    with tempfile.TemporaryDirectory(dir=SCRATCH) as folder, zmq.Context() as context:
        desk = branch(Path(folder), "1", "2") if role == BRANCH else Desk(COORDINATOR, "coordinator", Path(folder))
        served = Port(desk, context)
        try:
            yield served
        finally:
            context.destroy(linger=0)
            desk.store.close()


@pytest.mark.parametrize("role", [BRANCH, COORDINATOR])
@settings(max_examples=40, deadline=None)
@given(
    greeting=st.sampled_from((None, CLIENT, BRANCH)), is_registered=st.booleans(), said=st.lists(frames, min_size=1, max_size=8)
)
def test_whatever_frames_one_sends_the_others_are_served(
    role: str, greeting: str | None, is_registered: bool, said: list[list[bytes]]
) -> None:
    with port(role) as served:
        bad, good = served.dealer(), served.dealer()
        good.send(encode_batch([(1, Hello(PROTOCOL_VERSION, "demo", CLIENT, ""))]))
        assert isinstance(served.answer_to(good)[0][1], Welcome)
        if greeting is not None:
            name = "Pune" if greeting == BRANCH else ""
            bad.send(encode_batch([(1, Hello(PROTOCOL_VERSION, "demo", greeting, name))]))
            served.answer_to(bad)
            if (role, greeting) == (COORDINATOR, BRANCH) and is_registered:
                bad.send(encode_batch([(1, register("Pune"))]))
                served.answer_to(bad)
        for parts in said:
            bad.send_multipart(parts)
        good.send(encode_batch([(7, GetStatus())]))
        ((n, status),) = served.answer_to(good)
        assert n == 7
        assert isinstance(status, StatusInfo)
        assert status.total_minor == 0
        while bad.poll(0):
            body = bad.recv()
            assert not bad.getsockopt(zmq.RCVMORE)
            assert len(body) <= MAX_FRAME_BYTES
            assert decode_batch(body), "what comes back is a batch, whatever went in"
