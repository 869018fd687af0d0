"""One connection as the client's core sees it, and the client's time limits."""

from __future__ import annotations

from typing import Any

from zbank.protocol.messages import AnyMessage, Hello, Standing
from zbank.transport.client_request import Request

CONNECT_US = 3_000_000  #: an address that never answered is given up after this
RESEND_US = 1_000_000  #: after this without an answer a request is sent again; then after twice that, and so on
BEAT_US = 500_000  #: a peer that owes answers and is silent for this long is pinged, again and again
MAX_DOUBLINGS = 3
IDLE_US = 3_600_000_000
MIN_TICK_US = 1_000
REFRESH_US = 1_000_000  #: the directory is asked for again at most this often
RETRY_US = 100_000  #: after `busy` without a hint
MAX_MOVES = 3  #: so often a request follows `not_here`
MAX_TAKE = 2048  #: requests in one frame
WINDOW = 4096  #: requests at one server that it has not answered; the others wait here, where they cost it nothing

AnyRequest = Request[Any]


class Peer:
    """One connection, as the core sees it."""

    __slots__ = (
        "beat_n",
        "beat_us",
        "blocked",
        "controls",
        "endpoint",
        "flying",
        "heard_us",
        "hello_n",
        "hello_sent_us",
        "hello_us",
        "met",
        "outbox",
        "standing",
    )

    def __init__(self, endpoint: str) -> None:
        self.endpoint = endpoint
        self.controls: list[tuple[int, AnyMessage]] = []  #: goes before the outbox: Hello, Beat, GetDirectory
        self.outbox: list[AnyRequest] = []
        self.flying = 0  #: requests that were sent and have no answer yet
        self.blocked = False  #: not connected, or full: the shell waits until it is writable
        self.met = False  #: has said Welcome
        self.hello_n = 0  #: number of the Hello that awaits its answer; 0 = none
        self.hello_us = 0  #: when it was queued, or answered
        self.hello_sent_us = -1
        self.heard_us = -BEAT_US  #: last sign of life
        self.standing: Standing | None = None  #: of a replica: as of when its answers are
        self.beat_n = 0
        self.beat_us = -BEAT_US

    def take(self) -> tuple[list[tuple[int, AnyMessage]], list[AnyRequest]]:
        """The envelopes of the next frame, and the requests among them. Call `sent` or `not_sent` next."""
        outbox = self.outbox
        most = min(MAX_TAKE, max(0, WINDOW - self.flying))
        batch, self.outbox = (outbox, []) if len(outbox) <= most else (outbox[:most], outbox[most:])
        batch = [request for request in batch if request.peer is self and request.queued and not request.done]
        envelopes: list[tuple[int, Any]] = [(request.n, request.message) for request in batch]
        return (self.controls + envelopes if self.controls else envelopes), batch

    def sent(self, batch: list[AnyRequest], now_us: int) -> None:
        """A connected socket has taken what `take` gave."""
        if self.controls:
            if type(self.controls[0][1]) is Hello:
                self.hello_sent_us = now_us
            self.controls = []
        self.flying += len(batch)
        for request in batch:
            request.queued = False
            request.flying_at = self
            request.sends += 1
            request.sent_us = now_us

    def not_sent(self, batch: list[AnyRequest]) -> None:
        """No socket took it: it stays first in the queue, and the peer is blocked until it is writable."""
        self.blocked = True
        self.outbox = batch + self.outbox
