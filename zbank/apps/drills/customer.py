"""The client of a drill: asks once, waits as long as it is told to, and asks again only when the drill says so.

The real client repeats an unanswered request by itself. Here each repeat is a step of its own, so this one does not.
"""

from __future__ import annotations

import time
from types import TracebackType
from typing import Self

import zmq

from zbank.apps.drills.control import DrillFault
from zbank.protocol.codec import decode_batch, encode_batch
from zbank.protocol.messages import (
    CLIENT,
    COORDINATOR,
    PROTOCOL_VERSION,
    AnyMessage,
    Fault,
    Hello,
    Outcome,
    Transfer,
    Welcome,
)
from zbank.transport.sockets import make_dealer

POLL_MS = 50


class Asked:
    """A connection of its own, with one request over it."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], endpoint: str) -> None:
        self.welcome: Welcome | None = None
        self.answer: Outcome | Fault | None = None
        self._endpoint = endpoint
        self._socket = make_dealer(context, endpoint)

    def greet(self, limit_s: float) -> Welcome:
        """Say Hello and wait for Welcome; raises DrillFault."""
        end_s = time.monotonic() + limit_s
        if self._socket.poll(int(limit_s * 1000), zmq.POLLOUT):
            self._say(0, Hello(PROTOCOL_VERSION, "", CLIENT, "drill"))
        while self.welcome is None:
            self.turn(POLL_MS)
            if time.monotonic() > end_s:
                raise DrillFault(f"nobody answered at {self._endpoint} within {limit_s:g} s")
        return self.welcome

    def ask(self, transfer: Transfer) -> None:
        """Send the request; `turn` takes its answer in."""
        self._say(1, transfer)

    def turn(self, wait_ms: int = 0) -> None:
        """Take in what has come; waits for it for so long at most."""
        while self._socket.poll(wait_ms):
            wait_ms = 0
            for _, message in decode_batch(self._socket.recv(zmq.NOBLOCK)):
                if isinstance(message, Welcome):
                    self.welcome = message
                elif isinstance(message, Outcome | Fault):
                    self.answer = message

    def _say(self, n: int, message: AnyMessage) -> None:
        self._socket.send(encode_batch([(n, message)]), zmq.NOBLOCK)

    def close(self) -> None:
        """Hang up."""
        self._socket.close(linger=0)


class Customer:
    """Makes requests; hangs up on them all when it is left."""

    def __init__(self) -> None:
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._asked: list[Asked] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for asked in self._asked:
            asked.close()
        self._context.term()

    def _connect(self, endpoint: str, limit_s: float) -> tuple[Asked, Welcome]:
        asked = Asked(self._context, endpoint)
        self._asked.append(asked)
        return asked, asked.greet(limit_s)

    def coordinator_at(self, endpoint: str, limit_s: float) -> str:
        """The coordinator's address, from its own or a branch's. Raises DrillFault when nobody answers."""
        _, welcome = self._connect(endpoint, limit_s)
        return endpoint if welcome.role == COORDINATOR else welcome.coordinator

    def ask(self, endpoint: str, transfer: Transfer, limit_s: float) -> Asked:
        """Send a request over a new connection; raises DrillFault when nobody greets back."""
        asked, _ = self._connect(endpoint, limit_s)
        asked.ask(transfer)
        return asked
