"""Floods: what an attacker may throw at an actor's port. Each runs until it is killed.

    python -m benchmarks.floods KIND tcp://127.0.0.1:9100 Mumbai [KEYS_FOLDER KEY_NAME]

`KINDS` says what each is. Those of an insider need a key that the bank knows, where it has keys.
"""

from __future__ import annotations

import os
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import count
from pathlib import Path
from random import Random

import zmq

from zbank.protocol.codec import MAX_FRAME_BYTES, MAX_FRAME_MESSAGES, encode_batch
from zbank.protocol.messages import BRANCH, CLIENT, PROTOCOL_VERSION, Fault, GetAccount, Hello, ListAccounts
from zbank.transport.keyfolder import Keys
from zbank.transport.keys import new_pair
from zbank.transport.sockets import make_dealer

CONNECTIONS = 5_000
HELD = 900  #: files that one process may hold open on a usual machine, with some left
GREETING = b"\xff" + bytes(8) + b"\x7f\x03\x01CURVE" + bytes(47)  #: ZMTP 3.1 (RFC 37), a client of CURVE
Socket = zmq.Socket[bytes]


class Target:
    """Whom to flood, and by which key."""

    def __init__(self, endpoint: str, branch: str, folder: str = "", name: str = "") -> None:
        self.endpoint = endpoint
        host, _, port = endpoint.removeprefix("tcp://").rpartition(":")
        self.place = (host, int(port))
        self.keys = Keys(Path(folder), name) if folder else None
        self.server = self.keys.servers(BRANCH, branch)[0][0] if self.keys is not None else ""
        self.context: zmq.Context[Socket] = zmq.Context()
        self.context.set(zmq.MAX_SOCKETS, 20_000)

    def tcp(self) -> socket.socket:
        """A TCP connection; waits while there is none to be had."""
        while True:
            try:
                return socket.create_connection(self.place, timeout=5)
            except OSError:
                time.sleep(0.01)

    def greeted(self) -> Socket:
        """A connection of an insider that has said Hello."""
        pair = None if self.keys is None else self.keys.pair
        dealer = make_dealer(self.context, self.endpoint, pair, self.server)
        dealer.setsockopt(zmq.SNDHWM, 100)
        dealer.setsockopt(zmq.RCVHWM, 100)
        self.say(dealer, encode_batch([(1, Hello(PROTOCOL_VERSION, "", CLIENT, "flood"))]))
        return dealer

    def say(self, dealer: Socket, *parts: bytes) -> None:
        """Send a message as soon as it can be."""
        with suppress(zmq.Again):
            if dealer.poll(1_000, zmq.POLLOUT):
                dealer.send_multipart(parts, zmq.NOBLOCK)


def connections(target: Target) -> Iterator[None]:
    """5,000 connections that say nothing, made again as they are closed."""
    held: list[socket.socket] = []
    while True:
        held.append(target.tcp())
        if len(held) >= min(CONNECTIONS, HELD):
            held.pop(0).close()
        yield


def slowloris(target: Target) -> Iterator[None]:
    """Handshakes that come a byte at a time."""
    held = [target.tcp() for _ in range(300)]
    for n in count():
        for place, one in enumerate(held):
            try:
                one.sendall(GREETING[n % 64 : n % 64 + 1])
            except OSError:
                one.close()
                held[place] = target.tcp()
        time.sleep(0.05)
        yield


def noise(target: Target) -> Iterator[None]:
    """Bytes that are no ZMTP, and handshakes that break off."""
    chance = Random(1)
    for n in count():
        with target.tcp() as one, suppress(OSError):
            one.sendall(chance.randbytes(4_096) if n % 2 else GREETING + b"\x04\xc8\x05HELLO" + chance.randbytes(100))
        yield


def strangers(target: Target) -> Iterator[None]:
    """Whole handshakes, by keys that nobody has listed."""
    while True:
        dealer = make_dealer(target.context, target.endpoint, new_pair(), target.server)
        dealer.poll(20)
        dealer.close(linger=0)
        yield


def garbage(target: Target) -> Iterator[None]:
    """An insider: frames of up to 1 MiB that are no batch, some of which show it only at their end."""
    nearly = encode_batch([(n, GetAccount("1001")) for n in range(MAX_FRAME_MESSAGES)])[:-1] + b"\xc1"
    bodies = [nearly, b"\x91" * MAX_FRAME_BYTES, os.urandom(MAX_FRAME_BYTES), b"\xdd\xff\xff\xff\xff"]
    dealer = target.greeted()
    for n in count():
        target.say(dealer, bodies[n % len(bodies)])
        yield


def messages(target: Target) -> Iterator[None]:
    """An insider: good requests, as many as the line takes, whose answers it does not wait for."""
    body = encode_batch([(n, GetAccount("1001")) for n in range(1, 2_049)])
    dealer = target.greeted()
    while True:
        target.say(dealer, body)
        while dealer.poll(0):
            dealer.recv()
        yield


def searches(target: Target) -> Iterator[None]:
    """An insider: searches of the whole branch, 64 at a time."""
    body = encode_batch([(n, ListAccounts("", 1_000, "nobody has this name", "open")) for n in range(1, 65)])
    dealer = target.greeted()
    while True:
        target.say(dealer, body)
        while dealer.poll(5):
            dealer.recv()
        yield


def forbidden(target: Target) -> Iterator[None]:
    """An insider: what only actors may say."""
    body = encode_batch([(n, Fault("busy", "x" * 400)) for n in range(1, 1_025)])
    dealer = target.greeted()
    while True:
        target.say(dealer, body)
        while dealer.poll(0):
            dealer.recv()
        yield


def endless(target: Target) -> Iterator[None]:
    """An insider: messages of 100,000 frames."""
    dealer = target.greeted()
    parts = [b"x"] * 100_000
    while True:
        target.say(dealer, *parts)
        yield


def unread(target: Target) -> Iterator[None]:
    """An insider: asks for much, and reads none of it."""
    body = encode_batch([(n, ListAccounts("", 1_000)) for n in range(1, 11)])
    dealer = target.greeted()
    while True:
        target.say(dealer, body)
        time.sleep(0.002)
        yield


Flood = Callable[[Target], Iterator[None]]
OF_STRANGERS: dict[str, Flood] = {
    "connections": connections,
    "slowloris": slowloris,
    "noise": noise,
    "strangers": strangers,
}
OF_INSIDERS: dict[str, Flood] = {
    "garbage": garbage,
    "messages": messages,
    "searches": searches,
    "forbidden": forbidden,
    "endless": endless,
    "unread": unread,
}
KINDS = OF_STRANGERS | OF_INSIDERS


def main(arguments: list[str]) -> None:
    """Flood until killed."""
    kind, endpoint, branch, *by = arguments
    target = Target(endpoint, branch, *by)
    print("begun", flush=True)
    while True:
        with suppress(zmq.ZMQError, OSError):
            for _ in KINDS[kind](target):
                pass


if __name__ == "__main__":
    main(sys.argv[1:])
