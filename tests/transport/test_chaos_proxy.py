"""The proxy of `zbank chaos`: what goes through, what waits, what comes late, and what breaks."""

from __future__ import annotations

import random
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, suppress

import pytest

from tests.transport.scripted import wait_until
from zbank.apps.chaos.connection import HELD, MAX_QUEUED_BYTES, OPEN, Link, Way
from zbank.apps.chaos.ports import free_ports
from zbank.apps.chaos.proxy import MAX_CONNECTIONS, Proxy

LIMIT_S = 20.0
QUIET_S = 0.2  #: what has not come after this is held
LINK = Link("Mumbai", "Delhi")


class Place:
    """A proxy with one link, the listener behind it, and connections through it."""

    def __init__(self, held: ExitStack) -> None:
        self._held = held
        self.proxy = held.enter_context(closing(Proxy()))
        self.port, target_port = free_ports(2, random.Random(time.monotonic_ns()))
        self.listener = held.enter_context(socket.create_server(("127.0.0.1", target_port)))
        self.listener.settimeout(LIMIT_S)
        self.proxy.listen(self.port, target_port, LINK)

    def call(self) -> socket.socket:
        caller = self._held.enter_context(socket.create_connection(("127.0.0.1", self.port), LIMIT_S))
        caller.settimeout(LIMIT_S)
        return caller

    def answer(self) -> socket.socket:
        target = self._held.enter_context(self.listener.accept()[0])
        target.settimeout(LIMIT_S)
        return target

    def pair(self) -> tuple[socket.socket, socket.socket]:
        """Both ends of a connection that stands."""
        caller = self.call()
        target = self.answer()
        caller.sendall(b"!")
        assert read(target, 1) == b"!"
        return caller, target


@pytest.fixture
def place() -> Iterator[Place]:
    with ExitStack() as held:
        place = Place(held)
        yield place
        place.proxy.check()


def read(end: socket.socket, count: int) -> bytes:
    found = b""
    while len(found) < count:
        block = end.recv(count - len(found))
        assert block, f"the end after {found!r}"
        found += block
    return found


def is_quiet(end: socket.socket) -> bool:
    """Nothing comes for a while."""
    end.settimeout(QUIET_S)
    try:
        return not end.recv(1, socket.MSG_PEEK)
    except TimeoutError:
        return True
    finally:
        end.settimeout(LIMIT_S)


def test_all_bytes_go_through_in_order_both_ways(place: Place) -> None:
    caller, target = place.pair()
    data = random.Random(1).randbytes(5 << 20)  # more than all buffers on the way
    for one, other in ((caller, target), (target, caller)):
        sender = threading.Thread(target=one.sendall, args=(data,))
        sender.start()
        assert read(other, len(data)) == data
        sender.join()
    caller.shutdown(socket.SHUT_WR)
    assert target.recv(1) == b""
    target.sendall(b"last words")
    assert read(caller, 10) == b"last words"
    target.close()
    assert caller.recv(1) == b""


def test_cut_one_way_the_other_goes_on(place: Place) -> None:
    caller, target = place.pair()
    place.proxy.set_way(LINK, forward=HELD)
    target.sendall(b"back")
    assert read(caller, 4) == b"back"
    caller.sendall(b"there")
    assert is_quiet(target)
    place.proxy.set_way(LINK, backward=HELD)
    assert read(target, 5) == b"there", "what was held arrives when the way is open again"
    target.sendall(b"back")
    assert is_quiet(caller)
    place.proxy.heal()
    assert read(caller, 4) == b"back"


def test_a_connection_begun_through_a_cut_stands_when_it_is_healed(place: Place) -> None:
    place.proxy.set_way(LINK, forward=HELD, backward=HELD)
    caller = place.call()
    caller.sendall(b"hello")
    place.listener.settimeout(QUIET_S)
    with pytest.raises(TimeoutError):
        place.listener.accept()
    place.listener.settimeout(LIMIT_S)
    place.proxy.set_way(LINK)
    assert read(place.answer(), 5) == b"hello"


def test_what_a_held_link_takes_in_is_bounded(place: Place) -> None:
    caller, target = place.pair()
    place.proxy.set_way(LINK, forward=Way(delay_s=3600))
    (connection,) = place.proxy._links[LINK].connections

    def is_full() -> bool:
        with suppress(BlockingIOError):
            caller.send(bytes(1 << 20))
        return connection._forward.queued_bytes >= MAX_QUEUED_BYTES

    caller.setblocking(False)
    wait_until(is_full, "all is in hand that may be")
    caller.settimeout(1.0)
    with pytest.raises(TimeoutError):
        caller.sendall(bytes(64 << 20))
    assert connection._forward.queued_bytes < 2 * MAX_QUEUED_BYTES
    place.proxy.heal()
    assert read(target, MAX_QUEUED_BYTES) == bytes(MAX_QUEUED_BYTES)


def test_delayed_bytes_come_late_and_in_order(place: Place) -> None:
    caller, target = place.pair()
    place.proxy.set_way(LINK, forward=Way(delay_s=0.3))
    begun_s = time.monotonic()
    for n in range(50):
        caller.sendall(bytes([n]))
    assert read(target, 1) == b"\0"
    assert time.monotonic() - begun_s >= 0.3
    assert read(target, 49) == bytes(range(1, 50))
    place.proxy.set_way(LINK, forward=Way(delay_s=3600))
    target.sendall(b"at once")
    assert read(caller, 7) == b"at once", "the other way is not delayed"


def test_bursts(place: Place) -> None:
    """What is sent over a while arrives together."""
    caller, target = place.pair()
    place.proxy.set_way(LINK, forward=Way(burst_s=0.5))
    caller.sendall(b"1")
    assert read(target, 1) == b"1"
    sent_in = time.monotonic() // 0.5
    caller.sendall(b"22222")
    assert read(target, 5) == b"22222"
    assert time.monotonic() // 0.5 > sent_in, "it has waited for the next burst"


def test_bursts_fall_on_a_grid() -> None:
    assert Way(burst_s=2.0).due_s(10.1) == 12.0
    assert Way(burst_s=2.0, delay_s=2.0).due_s(10.1) == 14.0
    assert OPEN.due_s(10.1) == 10.1


def test_broken_in_the_middle_of_a_message(place: Place) -> None:
    caller, target = place.pair()
    place.proxy.break_connections(LINK)
    caller.sendall(b"12345678")
    assert read(target, 4) == b"1234"
    for end in (caller, target):
        with pytest.raises(ConnectionResetError):
            end.recv(1)
    assert place.proxy.broken[LINK] == 1
    place.pair()  # the next one stands


def test_nobody_listens_behind_it(place: Place) -> None:
    place.listener.close()
    with suppress(ConnectionResetError):  # an end or a reset, now or when it reads: never a connection that stands
        assert place.call().recv(1) == b""


def test_who_tries_again_and_again_through_a_cut_does_not_fill_it(place: Place) -> None:
    place.proxy.set_way(LINK, forward=HELD)
    callers = [place.call() for _ in range(MAX_CONNECTIONS + 1)]
    with pytest.raises(ConnectionResetError):
        callers[0].recv(1)
    # The first was broken to make room: the newest takes its place a moment later, in the proxy's thread.
    connections = place.proxy._links[LINK].connections
    wait_until(lambda: len(connections) == MAX_CONNECTIONS, "the newest connection stands in place of the oldest")


def test_the_origin_may_be_found_out(place: Place) -> None:
    (port,), target_port = free_ports(1, random.Random(time.monotonic_ns())), place.listener.getsockname()[1]
    asked: list[int] = []

    def identify(caller_port: int) -> str:
        asked.append(caller_port)
        return "Pune"

    place.proxy.listen(port, target_port, LINK, identify)
    place.proxy.set_way(LINK, forward=HELD)
    with socket.create_connection(("127.0.0.1", port), LIMIT_S) as caller, place.answer() as target:
        caller.sendall(b"free")
        assert read(target, 4) == b"free", "it is another link than the one that is cut"
        assert asked == [caller.getsockname()[1]]
