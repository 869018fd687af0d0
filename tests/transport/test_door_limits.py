"""How many may come, and who is put out: the door's limits, over real sockets."""

from __future__ import annotations

import socket
import sys
import time
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest
import zmq

from tests.acceptance.cluster import wait_until
from tests.transport.behind_a_door import Server, operator
from zbank.transport import door as door_module
from zbank.transport.keyfolder import Keys

on_linux = pytest.mark.skipif(sys.platform != "linux", reason="NOT TESTED: the kernel's count of bytes is Linux's alone")


def is_over(one: socket.socket) -> bool:
    """The other end has closed it."""
    one.settimeout(0.05)
    try:
        while one.recv(4_096):
            pass
    except TimeoutError:
        return False
    except OSError:
        return True
    return True


@pytest.mark.parametrize(
    ("limit", "most", "says"), [("BURST", 5, "too many"), ("MAX_OF_ADDRESS", 5, "it gets no more")]
)
def test_an_address_gets_so_many_connections_and_no_more(
    free: Server, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, limit: str, most: int, says: str
) -> None:
    monkeypatch.setattr(door_module, limit, most)
    monkeypatch.setattr(door_module, "PER_S", 0 if limit == "BURST" else 10_000)
    held = [free.tcp() for _ in range(12)]
    try:
        wait_until(lambda: sum(map(is_over, held)) == 12 - most, what="the end of those above the limit")
        assert sum(says in line for line in caplog.messages) == 1, "told once"
        held.pop(0).close()
        if limit == "MAX_OF_ADDRESS":
            wait_until(lambda: free.door._of_address["127.0.0.1"] < most, what="the end of one")
            with free.tcp() as one, suppress(TimeoutError):
                one.settimeout(0.3)
                assert one.recv(1) == b"\xff", "there is room for one again: ZMTP's greeting"
    finally:
        for one in held:
            one.close()


def test_all_together_get_so_many_connections(free: Server) -> None:
    free.door._most = 4
    held = [free.tcp() for _ in range(8)]
    try:
        wait_until(lambda: sum(map(is_over, held)) == 4, what="the end of those above the limit")
    finally:
        for one in held:
            one.close()


def test_connections_are_forgotten_when_they_end(free: Server) -> None:
    for one in [free.tcp() for _ in range(20)]:
        one.close()
    wait_until(lambda: not free.door._connections and not free.door._of_address, what="the end of all connections")


def put_out_by(free: Server, frames: Any) -> list[str]:
    """Send frames until the connection is ended."""
    dealer = free.context.socket(zmq.DEALER)
    dealer.linger = 0
    watch = dealer.get_monitor_socket(zmq.EVENT_DISCONNECTED)
    dealer.connect(free.endpoint)
    try:
        end_s = time.monotonic() + 20
        while not watch.poll(0) and time.monotonic() < end_s:
            with suppress(zmq.Again):
                dealer.send_multipart(frames, zmq.NOBLOCK)
            dealer.poll(1, zmq.POLLOUT)
        return ["put out"] if watch.poll(0) else ["still there"]
    finally:
        dealer.disable_monitor()
        watch.close(linger=0)
        dealer.close(linger=0)


@on_linux
def test_who_sends_more_than_is_taken_is_put_out(
    free: Server, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Frames of one message without end: ZeroMQ itself would take them all in."""
    monkeypatch.setattr(door_module, "MAX_UNTAKEN_BYTES", 1 << 20)
    assert put_out_by(free, [bytes(1_000)] * 20_000) == ["put out"]
    assert "that it sent are not taken yet" in caplog.text


@on_linux
def test_who_does_not_read_is_put_out(
    free: Server, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(door_module, "MAX_UNREAD_BYTES", 1 << 20)
    dealer = free.context.socket(zmq.DEALER)
    dealer.linger, dealer.rcvhwm, dealer.rcvbuf = 0, 1, 4_096
    dealer.connect(free.endpoint)
    try:
        dealer.send(b"hello")
        route, frame = free.router.recv_multipart(copy=False)
        connection = free.door.connection(frame.get(zmq.SRCFD))
        assert connection is not None
        body = bytes(100_000)
        told_s = time.monotonic() + 20
        while "does not read its answers" not in caplog.text and time.monotonic() < told_s:
            with suppress(zmq.Again, zmq.ZMQError):
                free.router.send_multipart([route.bytes, body], zmq.NOBLOCK)
                connection.given_bytes += free.door.wire_bytes(len(body))
            time.sleep(0.005)
        assert "does not read its answers: more than 1 MiB wait" in caplog.text
    finally:
        dealer.close(linger=0)


@on_linux
@pytest.mark.parametrize("secure", [False, True])
@pytest.mark.parametrize("size", [0, 1, 200, 220, 221, 222, 223, 253, 254, 255, 256, 300, 70_000])
def test_what_a_frame_is_on_the_wire_is_known_to_the_byte(keys: Keys, secure: bool, size: int) -> None:
    """Else what is counted as not taken would grow without anybody's doing."""
    with closing(Server(keys if secure else None)) as server:
        pair = operator(server) if secure else None
        with closing(server.dealer(pair)) as dealer:
            frame = server.hears(dealer)
            assert frame is not None
            fd = frame.get(zmq.SRCFD)
            assert isinstance(fd, int)
            before = received(fd)
            for _ in range(10):
                assert server.hears(dealer, bytes(size)) is not None
            assert received(fd) - before == 10 * server.door.wire_bytes(size)


def received(fd: int) -> int:
    with door_module._socket_of(fd) as (one, _):
        info = one.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 192)
    return int.from_bytes(info[128:136], sys.byteorder)


def test_a_file_is_never_taken_for_a_connection(free: Server, tmp_path: Path) -> None:
    with (tmp_path / "data").open("wb") as file:
        assert free.door.connection(file.fileno()) is None
    assert free.door.connection(10_000) is None


def test_another_connection_with_the_same_number_is_left_alone(free: Server) -> None:
    with free.tcp() as one:
        wait_until(lambda: len(free.door._connections) == 1, what="the connection")
        (connection,) = free.door._connections.values()
        connection.inode += 1
        free.door.put_out(connection)
        assert not is_over(one)
        connection.inode -= 1
        free.door.put_out(connection)
        wait_until(lambda: is_over(one), what="its end")
