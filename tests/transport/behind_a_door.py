"""A ROUTER behind a door, with or without keys."""

from __future__ import annotations

import socket

import zmq

from zbank.transport.door import Door
from zbank.transport.keyfolder import Keys
from zbank.transport.keys import Pair
from zbank.transport.sockets import make_dealer, make_router

Socket = zmq.Socket[bytes]
LIMIT_MS = 20_000  #: for what must come


class Server:
    """A ROUTER behind a door, with or without keys."""

    def __init__(self, keys: Keys | None) -> None:
        self.keys = keys
        self.context: zmq.Context[Socket] = zmq.Context()
        self.router = make_router(self.context, "tcp://127.0.0.1:*", None if keys is None else keys.pair)
        self.endpoint = self.router.getsockopt_string(zmq.LAST_ENDPOINT)
        self.door = Door(self.context, self.router, keys)

    def dealer(self, pair: Pair | None = None, server: str | None = None) -> Socket:
        """A connection by a key pair; None = by none."""
        if server is None:
            server = self.keys.pair.public if self.keys is not None else ""
        return make_dealer(self.context, self.endpoint, pair, server)

    def tcp(self) -> socket.socket:
        """A bare connection."""
        one = socket.create_connection(("127.0.0.1", int(self.endpoint.rpartition(":")[2])), timeout=LIMIT_MS / 1000)
        one.settimeout(LIMIT_MS / 1000)
        return one

    def hears(self, dealer: Socket, body: bytes = b"hello", limit_ms: int = LIMIT_MS) -> zmq.Frame | None:
        """What arrives of a connection's message; None when nothing does."""
        if not dealer.poll(limit_ms, zmq.POLLOUT):
            return None
        dealer.send(body)
        if not self.router.poll(limit_ms):
            return None
        _, frame = self.router.recv_multipart(copy=False)
        return frame

    def close(self) -> None:
        self.router.close(linger=0)
        self.door.close()
        self.context.destroy(linger=0)


def operator(locked: Server) -> Pair:
    assert locked.keys is not None
    return Keys(locked.keys.folder, "operator").pair
