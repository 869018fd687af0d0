"""An actor's own connection, against a peer whose every word the test says."""

from __future__ import annotations

import errno
import logging
from collections.abc import Iterator

import pytest
import zmq

from zbank.errors import FenceLost, Superseded
from zbank.protocol.codec import decode_batch, encode_batch
from zbank.protocol.machine import Sender
from zbank.protocol.messages import (
    BRANCH,
    COORDINATOR,
    PROTOCOL_VERSION,
    AnyMessage,
    Beat,
    BranchInfo,
    Commit,
    Fault,
    GetStatus,
    Hello,
    Inquiry,
    Register,
    Registered,
    Txn,
    Welcome,
)
from zbank.transport import sockets
from zbank.transport.links import (
    BEAT_EVERY_US,
    GREET_EVERY_US,
    GREETING,
    IDLE_AFTER_US,
    REGISTERING,
    SILENT_AFTER_US,
    UP,
    Link,
    branch_hello,
)
from zbank.transport.sockets import Dialer, make_router

WAIT_MS = 20_000
MUMBAI = BranchInfo("Mumbai", "tcp://127.0.0.1:9100", "INR", bytes(16), 1, True)
TXN = Txn("coordinator", 1, 1)
COMMIT = Commit(TXN, bytes(16), 1)


class Far:
    """The other end of a link."""

    def __init__(self, role: str) -> None:
        self.role = role
        self.context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self.router = make_router(self.context, "tcp://127.0.0.1:*")
        self.endpoint = self.router.getsockopt_string(zmq.LAST_ENDPOINT)
        self.route = b""
        self.now_us = 10_000_000
        register = (lambda _name: Register(MUMBAI, 0, 0)) if role == COORDINATOR else None
        hello = branch_hello("demo", "Mumbai")
        self.link = Link(Dialer(self.context), self.endpoint, hello, role, register)

    def hear(self) -> AnyMessage:
        """The next message at the far end. Meanwhile no time passes for the link; a greeting leaves when it is connected."""
        for _ in range(WAIT_MS // 5):
            if self.router.poll(5):
                self.route, body = self.router.recv_multipart()
                ((_, message),) = decode_batch(body)
                return message
            self.link.tick(self.now_us)
        pytest.fail("nothing came")

    def silent(self) -> bool:
        """Nothing has come from the link."""
        return not self.router.poll(50)

    def say(self, *messages: AnyMessage, body: bytes | None = None) -> list[tuple[Sender, int, AnyMessage]]:
        """One frame to the link; gives what the link hands to its actor."""
        self.router.send_multipart((self.route, encode_batch([(0, one) for one in messages]) if body is None else body))
        assert self.link.socket.poll(WAIT_MS)
        return self.link.receive(self.now_us, 100)

    def welcome(self, role: str = "", name: str = "coordinator") -> Welcome:
        return Welcome(PROTOCOL_VERSION, "demo", role or self.role, name, bytes(16), 1, "", "")

    def up(self) -> Far:
        """Go through the whole greeting."""
        assert isinstance(self.hear(), Hello)
        assert self.say(self.welcome()) == []
        if self.role == COORDINATOR:
            assert isinstance(self.hear(), Register)
            ((sender, _, message),) = self.say(Registered("coordinator", 1, (MUMBAI,)))
            assert (sender, type(message)) == (Sender("coordinator", COORDINATOR, "coordinator"), Registered)
        assert self.link.state == UP
        return self

    def close(self) -> None:
        self.link.close()
        self.router.close(linger=0)
        self.context.term()


@pytest.fixture
def coordinator() -> Iterator[Far]:
    far = Far(COORDINATOR)
    yield far
    far.close()


@pytest.fixture
def branch() -> Iterator[Far]:
    far = Far(BRANCH)
    yield far
    far.close()


def test_a_link_greets_registers_and_is_up(coordinator: Far) -> None:
    assert coordinator.link.state == GREETING
    coordinator.link.send([(0, Inquiry(TXN, bytes(16)))], coordinator.now_us)  # dropped: nobody is known there
    assert coordinator.hear() == Hello(PROTOCOL_VERSION, "demo", BRANCH, "Mumbai")
    coordinator.say(coordinator.welcome())
    assert coordinator.link.state == REGISTERING
    assert coordinator.hear() == Register(MUMBAI, 0, 0)
    coordinator.say(Registered("coordinator", 1, (MUMBAI,)))
    assert (coordinator.link.state, coordinator.link.name) == (UP, "coordinator")
    coordinator.link.send([(0, Inquiry(TXN, bytes(16)))], coordinator.now_us)
    assert coordinator.hear() == Inquiry(TXN, bytes(16))


def test_a_link_to_a_branch_needs_no_registration(branch: Far) -> None:
    assert isinstance(branch.hear(), Hello)
    assert branch.say(branch.welcome(name="Delhi")) == []
    assert branch.link.state == UP
    assert branch.say(COMMIT) == [(Sender("Delhi", BRANCH, "Delhi"), 0, COMMIT)]


def test_it_greets_again_until_it_is_answered(coordinator: Far) -> None:
    assert isinstance(coordinator.hear(), Hello)
    coordinator.link.tick(coordinator.now_us)
    assert coordinator.silent()
    coordinator.link.tick(coordinator.now_us + GREET_EVERY_US)
    assert isinstance(coordinator.hear(), Hello)


def test_it_beats_while_it_is_up(coordinator: Far) -> None:
    coordinator.up()
    coordinator.link.tick(coordinator.now_us + BEAT_EVERY_US)
    assert coordinator.hear() == Beat(False)
    assert coordinator.say(Beat(True)) == []


def test_whoever_forgot_us_is_greeted_anew(coordinator: Far) -> None:
    coordinator.up()
    coordinator.say(Fault("hello_first", "say Hello first"), Fault("hello_first", "say Hello first"))
    assert coordinator.link.state == GREETING
    assert isinstance(coordinator.hear(), Hello)
    assert coordinator.silent(), "once is enough"


def test_whoever_forgot_us_and_never_takes_us_again_is_lost(coordinator: Far) -> None:
    """Its actor has to hear of it: what is in doubt is asked of others from then on (PROTOCOL P8)."""
    coordinator.up()
    coordinator.say(Fault("hello_first", "say Hello first"))
    coordinator.say(coordinator.welcome())
    coordinator.now_us += SILENT_AFTER_US + 1
    assert coordinator.link.tick(coordinator.now_us), "it went down"


def test_silence_begins_anew_on_a_new_connection(coordinator: Far) -> None:
    coordinator.up()
    old = coordinator.link.socket
    assert not coordinator.link.tick(coordinator.now_us + SILENT_AFTER_US)
    coordinator.now_us += SILENT_AFTER_US + 1
    assert coordinator.link.tick(coordinator.now_us), "it just went down"
    assert (old.closed, coordinator.link.state) == (True, GREETING)
    assert not coordinator.link.tick(coordinator.now_us)
    while not isinstance(coordinator.hear(), Hello):
        pass  # a beat that was on its way
    coordinator.say(coordinator.welcome())
    assert coordinator.link.state == REGISTERING


def test_while_nobody_answers_the_places_that_are_announced_are_tried_in_turn(
    coordinator: Far, caplog: pytest.LogCaptureFixture
) -> None:
    nowhere = "tcp://127.0.0.1:1"
    announced: list[str] = []
    hello = branch_hello("demo", "Mumbai")
    link = Link(Dialer(coordinator.context), nowhere, hello, COORDINATOR, announced=lambda: announced)
    coordinator.link.close()
    coordinator.link, now_us = link, coordinator.now_us

    def falls_silent() -> str:
        nonlocal now_us
        now_us += SILENT_AFTER_US + 1
        link.tick(now_us)
        return link.endpoint

    link.tick(now_us)
    assert falls_silent() == nowhere
    told = f"no answer from {nowhere}: is the coordinator running there? If so, check the address, the port and the firewall"
    assert caplog.messages == [f"{told}; no other coordinator of this cluster announces itself on the local network"]
    announced += ["tcp://127.0.0.1:2", coordinator.endpoint]
    assert [falls_silent() for _ in range(3)] == [*announced, nowhere]
    assert len(caplog.messages) == 2, "it complains when all have been tried"
    assert caplog.messages[1].startswith(f"no answer from {nowhere} or tcp://127.0.0.1:2 or {coordinator.endpoint}: is")
    assert [falls_silent() for _ in range(2)] == announced
    coordinator.now_us = now_us
    assert isinstance(coordinator.hear(), Hello)
    coordinator.say(coordinator.welcome())
    assert (link.state, link.endpoint) == (UP, coordinator.endpoint)
    assert len(caplog.messages) == 2


def test_where_no_new_connection_can_be_had_the_old_one_goes_on_trying(
    coordinator: Far, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A flood of connections may have taken all that the process can open."""

    def none_left(*_: object) -> None:
        raise zmq.ZMQError(errno.EMFILE)

    coordinator.up()
    monkeypatch.setattr(sockets, "make_dealer", none_left)
    coordinator.now_us += SILENT_AFTER_US + 1
    with caplog.at_level(logging.ERROR, "zbank"):
        assert coordinator.link.tick(coordinator.now_us)
    told = [record.message for record in caplog.records if record.levelno >= logging.ERROR]
    assert told == [f"no new connection to {coordinator.endpoint} can be made: Too many open files"]
    while not isinstance(coordinator.hear(), Hello):
        pass  # a beat that was on its way
    coordinator.say(coordinator.welcome())
    assert coordinator.link.state == REGISTERING


def test_somebody_of_another_role_is_named_once(coordinator: Far, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR, "zbank"):
        for _ in range(2):
            assert isinstance(coordinator.hear(), Hello)
            coordinator.say(coordinator.welcome(BRANCH, "Delhi"))
            coordinator.now_us += GREET_EVERY_US
    assert coordinator.link.state == GREETING
    assert caplog.messages == [f"a branch answers at {coordinator.endpoint}, not a coordinator: check the address"]


@pytest.mark.parametrize("answer", ["wrong_cluster", "wrong_version", "foreign_store"])
def test_a_refusal_is_said_once_and_tried_again(
    coordinator: Far, caplog: pytest.LogCaptureFixture, answer: str
) -> None:
    fault = Fault(answer, "this is why")
    with caplog.at_level(logging.ERROR, "zbank"):
        for _ in range(3):
            assert isinstance(coordinator.hear(), Hello)
            if answer == "foreign_store":
                coordinator.say(coordinator.welcome())
                assert isinstance(coordinator.hear(), Register)
            assert coordinator.say(fault) == []
            coordinator.now_us += GREET_EVERY_US
    assert caplog.messages == [f"{coordinator.endpoint}: {answer}: this is why"]
    assert coordinator.link.state != UP


def test_a_newer_process_in_our_office_ends_this_one(coordinator: Far) -> None:
    coordinator.up()
    with pytest.raises(FenceLost):
        coordinator.say(Fault("fence_lost", "a newer process serves branch Mumbai already"))


def test_a_branch_whose_place_was_taken_hears_so_from_the_coordinator_alone(coordinator: Far, branch: Far) -> None:
    branch.up()
    for code in ("superseded", "fence_lost"):
        assert branch.say(Fault(code, "by another branch's word")) == []
    coordinator.up()
    with pytest.raises(Superseded):
        coordinator.say(Fault("superseded", "a replica was promoted"))


def test_what_the_far_end_may_not_say_and_what_is_no_frame_is_dropped(
    branch: Far, coordinator: Far, caplog: pytest.LogCaptureFixture
) -> None:
    coordinator.up()
    branch.up()
    assert branch.say(Registered("x", 1, ()), COMMIT)[0][2] == COMMIT
    assert coordinator.say(GetStatus(), Register(MUMBAI, 0, 0)) == []
    with caplog.at_level(logging.WARNING, "zbank"):
        assert coordinator.say(body=b"\xc1") == []
    assert any("sent a bad frame" in message for message in caplog.messages)
    coordinator.router.send_multipart((coordinator.route, encode_batch([(0, COMMIT)]), b"more"))
    taken = coordinator.say(COMMIT)
    while not taken:  # the two may come one after the other
        assert coordinator.link.socket.poll(WAIT_MS)
        taken = coordinator.link.receive(coordinator.now_us, 100)
    assert [message for _, _, message in taken] == [COMMIT]
    assert coordinator.link.receive(coordinator.now_us, 100) == [], "a frame in two parts is none"


def test_no_more_is_taken_than_the_turn_can_have(coordinator: Far) -> None:
    coordinator.up()
    for _ in range(5):
        coordinator.router.send_multipart((coordinator.route, encode_batch([(0, COMMIT)] * 3)))
    taken: list[int] = []
    while sum(taken) < 15:
        assert coordinator.link.socket.poll(WAIT_MS)
        taken.append(len(coordinator.link.receive(coordinator.now_us, 4)))
    assert max(taken) <= 4 + 3 - 1


def test_idle_is_what_nothing_was_sent_on_purpose_for_long(branch: Far) -> None:
    branch.up()
    branch.link.send([(0, Inquiry(TXN, bytes(16)))], branch.now_us)
    branch.link.tick(branch.now_us + IDLE_AFTER_US)  # beats do not count
    assert not branch.link.idle(branch.now_us + IDLE_AFTER_US)
    assert branch.link.idle(branch.now_us + IDLE_AFTER_US + 1)
