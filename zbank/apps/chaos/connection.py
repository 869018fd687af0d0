"""One connection through the proxy: two sockets, and what goes between them by the rules of its link."""

from __future__ import annotations

import math
import selectors
import socket
import struct
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple

CHUNK_BYTES = 1 << 16
MAX_QUEUED_BYTES = 1 << 20  #: in hand, of one direction of one connection; the rest waits in the sender's socket

_RESET = struct.pack("ii", 1, 0)  # SO_LINGER: close by RST


class Link(NamedTuple):
    """Who connects, and to whom."""

    origin: str
    target: str

    def __str__(self) -> str:
        return f"{self.origin} -> {self.target}"


class Way(NamedTuple):
    """How one direction of a link is."""

    held: bool = False  #: nothing passes
    delay_s: float = 0.0  #: each byte arrives so much later
    burst_s: float = 0.0  #: what was sent within so much time arrives at once, at its end; 0 = as it comes

    def due_s(self, now_s: float) -> float:
        """When what is sent now arrives."""
        due_s = now_s + self.delay_s
        return math.ceil(due_s / self.burst_s) * self.burst_s if self.burst_s else due_s


OPEN = Way()
HELD = Way(held=True)


class LinkState:
    """How a link is, and its connections, oldest first. Only the proxy's thread touches it."""

    def __init__(self) -> None:
        self.forward = OPEN  #: what the origin sends
        self.backward = OPEN
        self.connections: list[Connection] = []

    def set(self, forward: Way, backward: Way) -> None:
        """From now on the link is so."""
        self.forward, self.backward = forward, backward
        for connection in list(self.connections):
            connection.ways_changed()

    def break_all(self) -> None:
        """Each connection breaks in the middle of what is next sent through it."""
        for connection in list(self.connections):
            connection.break_soon()


class _Stream:
    """One direction of a connection: what was read and is not written yet."""

    __slots__ = ("blocked", "ended", "queue", "queued_bytes", "shut")

    def __init__(self) -> None:
        self.queue: deque[tuple[float, bytes]] = deque()  # (when it is due, bytes)
        self.queued_bytes = 0
        self.blocked = False  # the receiver takes no more now
        self.ended = False  # the sender has no more
        self.shut = False  # and the receiver knows

    def due_s(self) -> float:
        """When there is something to write, as far as only time is waited for."""
        return self.queue[0][0] if self.queue and not self.blocked else math.inf


class Connection:
    """Two sockets and what goes between them. Only the proxy's thread touches it."""

    def __init__(
        self,
        selector: selectors.BaseSelector,
        waiting: set[Connection],
        state: LinkState,
        caller: socket.socket,
        target_port: int,
    ) -> None:
        self.on_broken: Callable[[], None] = lambda: None
        self._selector = selector
        self._waiting = waiting
        self._state = state
        self._caller = caller
        self._target = socket.socket()
        self._target_port = target_port
        self._forward = _Stream()
        self._backward = _Stream()
        self._connected = False
        self._connecting = False
        self._breaking = False
        self._closed = False
        for end in (caller, self._target):
            end.setblocking(False)
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def next_s(self) -> float:
        """When something in hand is due, as far as its direction is open."""
        forward = math.inf if self._state.forward.held or not self._connected else self._forward.due_s()
        backward = math.inf if self._state.backward.held else self._backward.due_s()
        return min(forward, backward)

    # --- what happens to it -------------------------------------------------------------------------------------------

    def ways_changed(self) -> None:
        """The link is as never before: what waited for its time under the old rule is due now."""
        for stream in (self._forward, self._backward):
            stream.queue = deque((0.0, block) for _, block in stream.queue)
        self.flush()

    def break_soon(self) -> None:
        """Reset both ends in the middle of the next block."""
        self._breaking = True

    def flush(self) -> None:
        """Write what is due, then wait for what comes next."""
        if self._connected and not self._state.forward.held:
            self._write(self._forward, self._target)
        if not self._closed and not self._state.backward.held:
            self._write(self._backward, self._caller)
        self.go_on()

    def go_on(self) -> None:
        """Wait for whatever can happen next."""
        if self._closed:
            return
        if not self._connected and not self._connecting and not self._state.forward.held:
            self._connect()
        if self._closed:
            return
        forward, backward = self._forward, self._backward
        there, back = self._state.forward, self._state.backward
        self._listen(self._caller, self._may_read(forward, there), self._may_write(backward, back))
        if self._connected:
            self._listen(self._target, self._may_read(backward, back), self._may_write(forward, there))
        elif self._connecting:
            self._listen(self._target, False, True)
        (self._waiting.add if forward.queue or backward.queue else self._waiting.discard)(self)

    def _may_read(self, stream: _Stream, way: Way) -> bool:
        return self._connected and not way.held and not stream.ended and stream.queued_bytes < MAX_QUEUED_BYTES

    def _may_write(self, stream: _Stream, way: Way) -> bool:
        return stream.blocked and not way.held

    def _listen(self, end: socket.socket, read: bool, write: bool) -> None:
        mask = selectors.EVENT_READ * read | selectors.EVENT_WRITE * write
        known = self._selector.get_map().get(end)
        if known is None:
            if mask:
                self._selector.register(end, mask, self._on_caller if end is self._caller else self._on_target)
        elif not mask:
            self._selector.unregister(end)
        elif known.events != mask:
            self._selector.modify(end, mask, known.data)

    def _connect(self) -> None:
        """A connection through a held link is made when it is open again."""
        self._connecting = True
        try:
            self._target.connect(("127.0.0.1", self._target_port))
        except BlockingIOError:
            pass
        except OSError:
            self.abort()

    def _on_caller(self, mask: int) -> None:
        self._on_event(mask, self._caller, self._forward, self._target, self._state.forward)

    def _on_target(self, mask: int) -> None:
        if self._closed:
            return
        if not self._connected:
            if self._target.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                self.abort()  # nobody listens there
                return
            self._connected = True
            self.flush()
            return
        self._on_event(mask, self._target, self._backward, self._caller, self._state.backward)

    def _on_event(self, mask: int, end: socket.socket, stream: _Stream, other: socket.socket, way: Way) -> None:
        if self._closed:  # by an event before this one, of the same round
            return
        if mask & selectors.EVENT_READ:
            self._read(end, stream, other, way)
        if not self._closed:
            self.flush()

    # --- bytes --------------------------------------------------------------------------------------------------------

    def _read(self, end: socket.socket, stream: _Stream, other: socket.socket, way: Way) -> None:
        try:
            block = end.recv(CHUNK_BYTES)
        except BlockingIOError:
            return
        except OSError:
            self.abort()
            return
        if not block:
            stream.ended = True
            return
        if self._breaking:
            if not stream.queue:
                with suppress(OSError):
                    other.send(block[: len(block) // 2])
            self.on_broken()
            self.abort()
            return
        stream.queue.append((way.due_s(time.monotonic()), block))
        stream.queued_bytes += len(block)

    def _write(self, stream: _Stream, sink: socket.socket) -> None:
        now_s = time.monotonic()
        stream.blocked = False
        while stream.due_s() <= now_s:
            due_s, block = stream.queue[0]
            try:
                count = sink.send(block)
            except BlockingIOError:
                stream.blocked = True
                return
            except OSError:
                self.abort()
                return
            stream.queued_bytes -= count
            if count < len(block):
                stream.queue[0] = (due_s, block[count:])
                stream.blocked = True
                return
            stream.queue.popleft()
        if stream.ended and not stream.queue and not stream.shut:
            stream.shut = True
            with suppress(OSError):
                sink.shutdown(socket.SHUT_WR)
            if self._forward.shut and self._backward.shut:
                self._close()

    def abort(self) -> None:
        """Reset both ends."""
        for end in (self._caller, self._target):
            with suppress(OSError):
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self._close()

    def _close(self) -> None:
        if self._closed:
            return
        self._closed = True
        for end in (self._caller, self._target):
            if end in self._selector.get_map():
                self._selector.unregister(end)
            end.close()
        self._waiting.discard(self)
        self._state.connections.remove(self)
