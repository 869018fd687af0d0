"""The shell of an actor over real sockets: what comes in at its port, and what that does to the others. One thread: the
test turns the loop itself."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
import zmq

from tests.acceptance.cluster import free_ports
from tests.transport.actors import Desk, branch, pay
from tests.transport.scripted import bound_again
from tests.unit.protocol_support import id_of, register
from zbank.protocol.codec import decode_batch, encode_batch
from zbank.protocol.coordinator import Coordinator
from zbank.protocol.messages import (
    BRANCH,
    CLIENT,
    COORDINATOR,
    PROTOCOL_VERSION,
    REPLICA,
    AnyMessage,
    Beat,
    Commit,
    Fault,
    GetDirectory,
    GetRows,
    GetStatus,
    Hello,
    ListAccounts,
    Outcome,
    Prepare,
    Register,
    Registered,
    Rows,
    StatusInfo,
    Txn,
    Welcome,
)
from zbank.transport import fair, inbox
from zbank.transport.loop import ActorLoop
from zbank.transport.peers import SILENT_AFTER_US, Peers
from zbank.transport.sockets import make_router

LIMIT_MS = 20_000  #: for what must come
ANY_PORT = "tcp://127.0.0.1:*"
MOST_TURNS = 1_000
Envelope = tuple[int, AnyMessage]


class Served:
    """An actor at a port, turned by hand."""

    def __init__(self, desk: Desk, context: zmq.Context[zmq.Socket[bytes]], router: zmq.Socket[bytes]) -> None:
        self.desk, self.context, self.router = desk, context, router
        role, name = desk.identity.role, desk.identity.name
        self.endpoint = router.getsockopt_string(zmq.LAST_ENDPOINT)
        welcome = Welcome(PROTOCOL_VERSION, "demo", role, name, bytes(16), 1, "INR", "")
        self.peers = Peers(role, "demo", lambda: welcome)
        refuse = self._refuse if role == COORDINATOR else None
        self.loop = ActorLoop(desk.engine, self.peers, router, desk.clock, refuse_registration=refuse)
        self.callers: list[Caller] = []

    def _refuse(self, message: Register) -> Fault | None:
        return self.coordinator.directory.refuse(message)

    @property
    def coordinator(self) -> Coordinator:
        machine = self.desk.engine.machine
        assert isinstance(machine, Coordinator)
        return machine

    def turn(self, times: int = 1, advance_us: int = 10_000) -> None:
        """Let the loop go round."""
        for _ in range(times):
            self.desk.clock.advance(advance_us)
            self.router.poll(20)
            self.loop.step()

    def call(self, role: str = CLIENT, name: str = "", greet: bool = True) -> Caller:
        """A new connection."""
        caller = Caller(self)
        self.callers.append(caller)
        if greet:
            (answer,) = caller.ask(Hello(PROTOCOL_VERSION, "demo", role, name))
            assert isinstance(answer, Welcome)
        return caller

    def close(self) -> None:
        for caller in self.callers:
            caller.socket.close(linger=0)
        self.router.close(linger=0)
        self.desk.store.close()


class Caller:
    """A connection of somebody to an actor."""

    def __init__(self, served: Served) -> None:
        self.served = served
        self.socket = served.context.socket(zmq.DEALER)
        self.socket.linger = 2_000
        self.socket.connect(served.endpoint)

    def send(self, *messages: AnyMessage) -> None:
        """One frame; messages are numbered 1, 2, …"""
        self.socket.send(encode_batch(list(enumerate(messages, 1))))

    def receive(self) -> list[Envelope]:
        """The next frame; the loop is turned until it comes. For the actor no time passes by that."""
        for _ in range(MOST_TURNS):
            if self.socket.poll(5):
                return decode_batch(self.socket.recv())
            self.served.turn(advance_us=0)
        pytest.fail("no answer came")

    def ask(self, *messages: AnyMessage) -> list[AnyMessage]:
        """Send a frame; gives the messages of the answering frame."""
        self.send(*messages)
        return [message for _, message in self.receive()]


@pytest.fixture
def context() -> Iterator[zmq.Context[zmq.Socket[bytes]]]:
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    yield context
    context.term()


@pytest.fixture
def mumbai(tmp_path: Path, context: zmq.Context[zmq.Socket[bytes]]) -> Iterator[Served]:
    """A branch with accounts 1 and 2, at a port that nobody else is given after it."""
    served = Served(branch(tmp_path, "1", "2"), context, make_router(context, f"tcp://127.0.0.1:{free_ports(1)}"))
    yield served
    served.close()


@pytest.fixture
def coordinator(tmp_path: Path, context: zmq.Context[zmq.Socket[bytes]]) -> Iterator[Served]:
    served = Served(Desk(COORDINATOR, "coordinator", tmp_path), context, make_router(context, ANY_PORT))
    yield served
    served.close()


def code(message: AnyMessage) -> str:
    assert isinstance(message, Fault), message
    return message.code


# --- frames ------------------------------------------------------------------------------------------------------------


def test_a_frame_of_several_messages_is_answered_by_one_frame(mumbai: Served) -> None:
    caller = mumbai.call()
    forces = len(mumbai.desk.store.forces)
    caller.send(*(pay(n, "Mumbai/1", "Mumbai/2", 1) for n in range(1, 6)), Beat(False), Beat(True), GetStatus())
    answers = dict(caller.receive())
    assert sorted(answers) == [1, 2, 3, 4, 5, 6, 8], "the answer to a beat is not answered"
    assert {type(answers[n]) for n in range(1, 6)} == {Outcome}
    assert (answers[6], type(answers[8])) == (Beat(True), StatusInfo)
    assert len(mumbai.desk.store.forces) == forces + 1


@pytest.mark.parametrize(
    "frames",
    [
        [b""],
        [b"\xc1"],
        [b"GET / HTTP/1.1\r\n\r\n"],
        [encode_batch([(1, GetStatus())])[:-1]],
        [b"\x92\x01\x91\xa7status?"],  # an envelope outside of a batch
        [b"\x91" * 100_000],
        [b"\xdd\xff\xff\xff\xff"],
        [encode_batch([(1, GetStatus())]), b""],
        [b""] * 2_000,
    ],
)
def test_a_bad_frame_costs_its_sender_an_error_and_nobody_else_anything(mumbai: Served, frames: list[bytes]) -> None:
    good, bad = mumbai.call(), mumbai.call()
    bad.socket.send_multipart(frames)
    good.send(pay(1, "Mumbai/1", "Mumbai/2", 1))
    ((_, done),) = good.receive()
    assert isinstance(done, Outcome)
    ((n, told),) = bad.receive()
    assert (n, code(told)) == (0, "bad_frame")
    assert [type(message) for message in bad.ask(GetStatus())] == [StatusInfo], "its session goes on"


def test_who_did_not_say_hello_is_told_to(mumbai: Served) -> None:
    stranger = mumbai.call(greet=False)
    assert [code(message) for message in stranger.ask(GetStatus(), pay(1, "Mumbai/1", "Mumbai/2", 1))] == [
        "hello_first",
        "hello_first",
    ]
    hello = Hello(PROTOCOL_VERSION, "demo", CLIENT, "")
    assert [type(message) for message in stranger.ask(hello, GetStatus())] == [Welcome, StatusInfo]
    assert mumbai.desk.ask(pay(1, "Mumbai/1", "Mumbai/2", 1)).replayed is False  # type: ignore[union-attr]


def test_what_is_not_for_a_client_to_say_is_refused(mumbai: Served) -> None:
    asked = pay(1, "Mumbai/1", "Delhi/1", 1)
    seq = mumbai.desk.store.seq
    txn = Txn("coordinator", 1, 1)
    answers = mumbai.call().ask(Prepare(txn, asked, b"", ""), Commit(txn, asked.id, 1), GetDirectory())
    assert [code(message) for message in answers] == ["not_for_me"] * 3
    assert mumbai.desk.store.seq == seq


# --- connections that come and go ----------------------------------------------------------------------------------------


def test_a_caller_that_left_before_its_answer_costs_nobody_else_anything(mumbai: Served) -> None:
    stays, leaves = mumbai.call(), mumbai.call()
    leaves.send(pay(1, "Mumbai/1", "Mumbai/2", 1))
    assert mumbai.router.poll(LIMIT_MS)
    leaves.socket.close()
    assert [type(message) for message in stays.ask(GetStatus())] == [StatusInfo]
    (again,) = stays.ask(pay(1, "Mumbai/1", "Mumbai/2", 1))
    assert isinstance(again, Outcome)
    assert again.replayed


def test_a_server_restarted_on_its_port_knows_the_id_and_asks_for_a_new_hello(
    mumbai: Served, context: zmq.Context[zmq.Socket[bytes]]
) -> None:
    caller = mumbai.call()
    (first,) = caller.ask(pay(1, "Mumbai/1", "Mumbai/2", 1))
    connects = caller.socket.get_monitor_socket(zmq.EVENT_HANDSHAKE_SUCCEEDED)
    mumbai.router.close(linger=0)
    later = Served(mumbai.desk.restarted(), context, bound_again(context, mumbai.endpoint))
    try:
        caller.served = later
        assert connects.poll(LIMIT_MS), "else what is sent may go with the old connection"
        assert [code(message) for message in caller.ask(GetStatus())] == ["hello_first"]
        hello = Hello(PROTOCOL_VERSION, "demo", CLIENT, "")
        _, again = caller.ask(hello, pay(1, "Mumbai/1", "Mumbai/2", 1))
        assert isinstance(again, Outcome)
        assert isinstance(first, Outcome)
        assert (again.at_us, again.replayed) == (first.at_us, True)
    finally:
        caller.socket.disable_monitor()
        connects.close(linger=0)
        later.close()


def test_a_caller_that_does_not_read_loses_its_answers_and_one_line_says_so(
    tmp_path: Path, context: zmq.Context[zmq.Socket[bytes]], caplog: pytest.LogCaptureFixture
) -> None:
    router = context.socket(zmq.ROUTER)
    router.setsockopt(zmq.ROUTER_MANDATORY, 1)
    router.setsockopt(zmq.SNDHWM, 2)
    router.setsockopt(zmq.SNDBUF, 4096)
    router.bind(ANY_PORT)
    served = Served(branch(tmp_path, "1", "2"), context, router)
    try:
        deaf = served.call()
        full = context.socket(zmq.DEALER)
        full.setsockopt(zmq.RCVHWM, 1)
        full.setsockopt(zmq.RCVBUF, 4096)
        full.connect(served.endpoint)
        deaf.socket.close(linger=0)
        deaf.socket = full
        full.send(encode_batch([(0, Hello(PROTOCOL_VERSION, "demo", CLIENT, ""))]))
        with caplog.at_level(logging.WARNING, "zbank"):
            for _ in range(2_000):
                deaf.send(*[ListAccounts("", 100)] * 50)
                served.turn(advance_us=100)
                if caplog.messages and served.loop._dropped_answers:
                    break
        assert [message.partition(" ")[2] for message in caplog.messages] == [
            "answers are dropped: a peer does not read them"
        ]
        assert [type(message) for message in served.call().ask(GetStatus())] == [StatusInfo]
    finally:
        served.close()


# --- bounds --------------------------------------------------------------------------------------------------------------


def test_a_flood_is_told_busy_and_left_in_the_queues_beyond_that(
    mumbai: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What one turn takes on, and what it answers at all, is bounded; the rest waits outside of the process's memory."""
    monkeypatch.setattr(fair, "MAX_WAITING", 50)  # less than a frame: however the frames come
    monkeypatch.setattr(inbox, "MAX_ANSWERS", 300)
    caller = mumbai.call()
    for _ in range(20):
        caller.send(*[GetStatus()] * 100)
    frames: list[list[AnyMessage]] = []
    while sum(map(len, frames)) < 2_000:
        frames.append([message for _, message in caller.receive()])
    assert max(map(len, frames)) <= 50 + 300 + 100
    told = [message for frame in frames for message in frame]
    assert {type(message) for message in told} == {StatusInfo, Fault}
    assert {message.code for message in told if isinstance(message, Fault)} == {"busy"}


def test_a_replica_may_have_no_more_waiting_than_any_client(mumbai: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """It asks one thing at a time. What it sends beyond that would keep everybody else out of memory that all share."""
    monkeypatch.setattr(fair, "MAX_WAITING", 50)
    greedy = mumbai.call(REPLICA, "Mumbai-replica")
    greedy.send(*[GetRows(0, 1)] * 100)
    told = [message for _, message in greedy.receive()]
    assert [type(message) for message in told] == [Fault] * 50 + [Rows] * 50
    assert {message.code for message in told if isinstance(message, Fault)} == {"busy"}


# --- branches at their coordinator ---------------------------------------------------------------------------------------


def test_a_branch_registers_and_is_missed_when_it_is_silent(
    coordinator: Served, caplog: pytest.LogCaptureFixture
) -> None:
    mumbai = coordinator.call(BRANCH, "Mumbai")
    (registered,) = mumbai.ask(register("Mumbai"))
    assert isinstance(registered, Registered)
    assert coordinator.coordinator.directory.up == {"Mumbai"}
    coordinator.turn(5, SILENT_AFTER_US // 10)
    mumbai.ask(Beat(False))
    coordinator.turn(8, SILENT_AFTER_US // 10)
    assert coordinator.coordinator.directory.up == {"Mumbai"}
    with caplog.at_level(logging.WARNING, "zbank"):
        coordinator.turn(8, SILENT_AFTER_US // 10)
    assert coordinator.coordinator.directory.up == set()
    assert caplog.messages == ["Mumbai is gone"]
    assert [code(message) for message in mumbai.ask(Beat(False))] == ["hello_first"]


def test_a_branch_that_is_refused_is_told_why_each_time_and_the_log_once(
    coordinator: Served, caplog: pytest.LogCaptureFixture
) -> None:
    coordinator.call(BRANCH, "Mumbai").ask(register("Mumbai"))
    fresh = register("Mumbai")
    fresh = Register(fresh.info.__class__("Mumbai", "tcp://a:1", "INR", id_of(9), 1, True), 0, 0)
    with caplog.at_level(logging.ERROR, "zbank"):
        other = coordinator.call(BRANCH, "Mumbai")
        for _ in range(3):
            (told,) = other.ask(fresh)
            assert code(told) == "foreign_store"
        pune = coordinator.call(BRANCH, "Pune")
        assert [code(message) for message in pune.ask(register("Delhi"))] == ["malformed"]
    assert len(caplog.messages) == 2
    assert "start it with the data directory it had" in caplog.messages[0]
    assert coordinator.coordinator.directory.up == {"Mumbai"}


def test_a_registered_connection_that_says_hello_as_another_does_not_stop_the_coordinator(coordinator: Served) -> None:
    rogue = coordinator.call(BRANCH, "Pune")
    rogue.ask(register("Pune"))
    (told,) = rogue.ask(Hello(PROTOCOL_VERSION, "demo", CLIENT, ""))
    assert code(told) == "not_for_me"
    coordinator.turn(5, SILENT_AFTER_US)
    assert coordinator.coordinator.directory.up == set()
    assert [type(message) for message in coordinator.call().ask(GetStatus())] == [StatusInfo]


def test_a_flood_of_costly_frames_is_taken_in_portions(mumbai: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """Telling garbage from messages takes time: between two portions everybody else gets a turn."""
    monkeypatch.setattr(inbox, "MAX_DRAIN_BYTES", 5_000)
    bad = mumbai.call()
    for _ in range(21):
        bad.socket.send(b"\x91" * 1_000)
    portions: list[int] = []
    while sum(portions) < 21:
        portions.append(len(bad.receive()))
    assert max(portions) <= 5
