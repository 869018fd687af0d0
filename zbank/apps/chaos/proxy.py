"""A TCP proxy that stands between the actors of a cluster and does to their connections what networks do.

A link is everything that one actor (or the clients) sends through connections to one other actor, and what comes back
through them. Each direction can be held (nothing passes; what was sent arrives when it is open again), delayed, or made to
come in bursts; connections can be broken in the middle of a message. One thread serves all links; what it has in hand
of each direction of a connection is bounded, the rest waits in the sender's socket.
"""

from __future__ import annotations

import selectors
import socket
import threading
import time
from collections import Counter, defaultdict, deque
from collections.abc import Callable
from contextlib import suppress

from zbank.apps.chaos.connection import OPEN, Connection, Link, LinkState, Way
from zbank.errors import ZbankError

MAX_CONNECTIONS = 64  #: of one link; with more the oldest is broken (who cannot get through tries again and again)
BACKLOG = 128
IDLE_S = 1.0

Identify = Callable[[int], str]  #: who is behind the port that a connection comes from


class ProxyFailed(ZbankError):
    """The proxy's thread ended by an error of its own."""

    code = "proxy_failed"


class Proxy:
    """All links of a cluster. Any thread may call it; what it is told takes effect at once, in order."""

    def __init__(self) -> None:
        self.broken: Counter[Link] = Counter()  #: connections that `break_connections` has broken
        self._links: dict[Link, LinkState] = defaultdict(LinkState)
        self._selector = selectors.DefaultSelector()
        self._listeners: list[socket.socket] = []
        self._waiting: set[Connection] = set()  # that have something in hand that is not due yet
        self._orders: deque[Callable[[], object]] = deque()
        self._bell, self._bell_end = socket.socketpair()
        self._bell_end.setblocking(False)
        self._selector.register(self._bell_end, selectors.EVENT_READ, self._heard_bell)
        self._stopping = False
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="proxy", daemon=True)
        self._thread.start()

    # --- what others call ---------------------------------------------------------------------------------------------

    def listen(self, port: int, target_port: int, link: Link, identify: Identify | None = None) -> None:
        """Forward connections to the loopback `port`. They belong to `link`, unless `identify` knows the origin better.

        Raises OSError when the port cannot be had.
        """
        listener = socket.create_server(("127.0.0.1", port), backlog=BACKLOG)
        listener.setblocking(False)
        self._listeners.append(listener)

        def accept(_mask: int) -> None:
            with suppress(OSError):  # who has left again
                caller, (_, caller_port) = listener.accept()
                origin = identify(caller_port) if identify else link.origin
                self._accepted(caller, Link(origin, link.target), target_port)

        self._order(lambda: self._selector.register(listener, selectors.EVENT_READ, accept))

    def set_way(self, link: Link, *, forward: Way = OPEN, backward: Way = OPEN) -> None:
        """From now on the link is so; forward is what the origin sends."""
        self._order(lambda: self._links[link].set(forward, backward))

    def break_connections(self, link: Link) -> None:
        """Reset each connection of the link in the middle of what is next sent through it."""
        self._order(lambda: self._links[link].break_all())

    def heal(self) -> None:
        """Every link is open."""
        self._order(self._heal)

    def _heal(self) -> None:
        for state in self._links.values():
            state.set(OPEN, OPEN)

    def check(self) -> None:
        """Raises ProxyFailed when it does not run any more."""
        if self._failure is not None:
            raise ProxyFailed(f"the proxy between the actors failed: {self._failure!r}") from self._failure

    def close(self) -> None:
        """Break all connections and end."""
        self._stopping = True
        self._bell.send(b"!")
        self._thread.join()
        for listener in self._listeners:
            listener.close()
        for state in self._links.values():
            for connection in list(state.connections):
                connection.abort()
        self._selector.close()
        self._bell.close()
        self._bell_end.close()

    # --- the thread ---------------------------------------------------------------------------------------------------

    def _order(self, order: Callable[[], object]) -> None:
        self._orders.append(order)
        self._bell.send(b"!")

    def _heard_bell(self, _mask: int) -> None:
        self._bell_end.recv(4096)

    def _run(self) -> None:
        try:
            while not self._stopping:
                self._once()
        except BaseException as error:
            self._failure = error
            raise

    def _once(self) -> None:
        now_s = time.monotonic()
        next_s = min((connection.next_s() for connection in self._waiting), default=now_s + IDLE_S)
        events = self._selector.select(min(IDLE_S, max(0.0, next_s - now_s)))
        while self._orders:  # first: what was sent after an order goes by it
            self._orders.popleft()()
        for key, mask in events:
            key.data(mask)
        now_s = time.monotonic()
        for connection in [one for one in self._waiting if one.next_s() <= now_s]:
            connection.flush()

    def _accepted(self, caller: socket.socket, link: Link, target_port: int) -> None:
        state = self._links[link]
        if len(state.connections) >= MAX_CONNECTIONS:
            state.connections[0].abort()
        connection = Connection(self._selector, self._waiting, state, caller, target_port)
        connection.on_broken = lambda: self.broken.update((link,))
        state.connections.append(connection)
        connection.go_on()
