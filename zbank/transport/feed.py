"""The feed: branches publish what they have forced, the coordinator's process passes it on to all who subscribe (DESIGN §5).

    branch ── PUB ──▶ SUB ═ libzmq's own proxy, in a thread of the coordinator's process ═ PUB ──▶ SUB ── replica

It is best effort: what a slow reader does not take is lost, whoever was away has a gap, and nothing correct depends on it
(a replica asks its branch for what it lacks, and whether what it heard is true). Each end here has the same methods.

The middle is no XSUB and XPUB: those would pass each subscription on to every branch, and whoever has a replica's key could
make work for all of them with topics.
"""

from __future__ import annotations

import ctypes
import logging
import os
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Protocol

import zmq

from zbank.errors import BadFrame
from zbank.protocol.codec import decode_batch, encode_batch
from zbank.protocol.fold import Row
from zbank.protocol.machine import Sender
from zbank.protocol.messages import FEED, MAX_ROWS, AnyMessage, Feed, RowInfo, Rows
from zbank.transport.door import MAX_ASKED_BYTES, Door
from zbank.transport.keyfolder import Keys
from zbank.transport.sockets import Context, Dialer, Socket, make_feed_in, make_feed_out

DRAIN_FRAMES = 64  #: looked at before the others have their turn, whatever they are,
DRAIN_BYTES = 2 << 20  #: or so many bytes of them
MAX_GROWTH_BYTES = 256 << 20  #: so much may the coordinator's process grow while the feed runs: then it begins anew
GATHER_MS = 20  #: between two frames of a branch
IDLE_MS = 1_000
FRAME_BYTES = 256 * 1024  #: of rows in one frame
TOPIC_END = b"\0"  #: no branch's name has it, so none is the beginning of another's topic

log = logging.getLogger("zbank")

Incoming = tuple[Sender, int, AnyMessage]


def topic_of(branch: str) -> bytes:
    """The first frame of all that a branch publishes."""
    return branch.encode() + TOPIC_END


class FeedEnd(Protocol):
    """What the loop asks of a process's end of the feed."""

    @property
    def socket(self) -> Socket | None:
        """To wait for; None = nothing comes in here."""

    def receive(self) -> list[Incoming]:
        """What came in, or some of it."""

    def learn(self, feed: Feed) -> None:
        """The coordinator said where the feed is."""

    def tick(self) -> None:
        """See to the connection."""

    def flush(self) -> int:
        """Send what has been gathered, when it is due; in how many ms to come again."""

    def renew(self, keys: Keys) -> None:
        """See to it that nobody is connected whose key is over; called every second."""

    def close(self) -> None:
        """Close all sockets."""


class _Dialled:
    """One socket to the coordinator's feed, made anew when it is lost."""

    _kind: int

    def __init__(self, dialer: Dialer, branch: str) -> None:
        self._dialer = dialer
        self._topic = topic_of(branch)
        self._endpoint: str | None = None
        self._socket: Socket | None = None

    def _dial(self) -> None:
        self.close()
        if self._endpoint is None:
            return
        try:
            self._socket = self._dialer.feed(self._endpoint, self._kind, self._topic)
        except zmq.ZMQError as error:  # best effort: tried again at the next tick
            log.debug("the feed at %s cannot be had: %s", self._endpoint, error)

    def _lead_to(self, endpoint: str | None) -> None:
        if endpoint != self._endpoint:
            self._endpoint = endpoint
            self._dial()

    def tick(self) -> None:
        """Dial again what was lost."""
        if self._endpoint is not None and (self._socket is None or self._dialer.is_lost(self._socket)):
            self._dial()

    def flush(self) -> int:
        """Nothing is gathered."""
        return IDLE_MS

    def renew(self, keys: Keys) -> None:
        """Another key may answer there: it is found when the connection is lost."""

    def close(self) -> None:
        """Close the socket."""
        if self._socket is not None:
            self._dialer.close(self._socket)
            self._socket = None


class Publisher(_Dialled):
    """A branch's end."""

    _kind = zmq.PUB
    socket = None

    def __init__(self, dialer: Dialer, branch: str) -> None:
        super().__init__(dialer, branch)
        self._rows: list[Row] = []  #: gathered, and not sent yet
        self._before = b""  #: the chain value of the row before them
        self._sent_s = 0.0

    def receive(self) -> list[Incoming]:
        """Nothing comes in."""
        return []

    def learn(self, feed: Feed) -> None:
        """Publish there from now on."""
        self._lead_to(feed.feed_in)

    def publish(self, rows: Sequence[Row], before: bytes) -> None:
        """Give away rows that were just forced; `before` is the chain value of the row before them. They are gathered for
        a moment: a frame costs as much as a hundred rows."""
        if self._socket is None:
            return
        if self._rows and self._rows[-1].chain != before:  # nobody followed for a while
            self._send()
        if not self._rows:
            self._before = before
        self._rows += rows
        if len(self._rows) >= MAX_ROWS:
            self._send()
        else:
            self.flush()

    def flush(self) -> int:
        """Send what has been gathered, when it is due; in how many ms to come again."""
        if not self._rows:
            return IDLE_MS
        waited_ms = int((time.monotonic() - self._sent_s) * 1000)
        if waited_ms < GATHER_MS:
            return GATHER_MS - waited_ms
        self._send()
        return IDLE_MS

    def _dial(self) -> None:
        self._rows = []
        super()._dial()

    def _send(self) -> None:
        rows, self._rows = self._rows, []
        self._sent_s = time.monotonic()
        if self._socket is None:
            return
        before, last = self._before, rows[-1]
        begin = 0
        while begin < len(rows):
            end, size = begin, 0
            while end < len(rows) and end - begin < MAX_ROWS and size < FRAME_BYTES:
                size += 40 + len(rows[end].body)
                end += 1
            infos = tuple(RowInfo(row.epoch, row.at_us, row.kind, row.id, row.body) for row in rows[begin:end])
            chain = rows[begin - 1].chain if begin else before
            message = Rows(rows[begin].seq - 1, chain, infos, last.epoch, last.seq)
            try:
                self._socket.send_multipart((self._topic, encode_batch([(0, message)])), zmq.NOBLOCK)
            except zmq.ZMQError as error:
                log.debug("rows are not published: %s", error)
            begin = end


class Subscriber(_Dialled):
    """A replica's end."""

    _kind = zmq.SUB

    def __init__(self, dialer: Dialer, branch: str) -> None:
        super().__init__(dialer, branch)
        self._sender = Sender("", FEED, "")

    @property
    def socket(self) -> Socket | None:
        """The subscription."""
        return self._socket

    def receive(self) -> list[Incoming]:
        """Rows that anybody published in the branch's name."""
        found: list[Incoming] = []
        left_bytes = DRAIN_BYTES
        for _ in range(DRAIN_FRAMES):
            if self._socket is None or left_bytes <= 0:
                break
            try:
                topic = self._socket.recv(zmq.NOBLOCK)
                body = self._socket.recv(zmq.NOBLOCK) if self._socket.getsockopt(zmq.RCVMORE) else b""
            except zmq.Again:
                break
            if self._socket.getsockopt(zmq.RCVMORE):  # it may have a million parts: go without them
                self._dial()
                break
            left_bytes -= len(body)
            if topic != self._topic:
                continue
            try:
                envelopes = decode_batch(body)
            except BadFrame as error:
                log.debug("a bad frame in the feed: %s", error)
                continue
            found += [(self._sender, 0, message) for _, message in envelopes if isinstance(message, Rows)]
        return found

    def learn(self, feed: Feed) -> None:
        """Subscribe there from now on."""
        self._lead_to(feed.feed_out)


class FeedProxy:
    """The middle, in the coordinator's process: a thread in which no Python runs while messages pass."""

    socket = None

    def __init__(self, context: Context, bind_in: str, bind_out: str, keys: Keys | None, door: Door | None) -> None:
        """Raises zmq.ZMQError when an address cannot be bound."""
        self._context = context
        self._bind_in = bind_in
        self._bind_out = bind_out
        self._keys = keys
        self._door = door
        self._control: Socket | None = None  #: None = it does not run
        self._keys_then = (None if keys is None else keys.pair, _good(keys))  #: our own, and all that were good, when last seen
        self._least_bytes = sys.maxsize  #: of memory, since it runs
        self._start()

    def _start(self) -> None:
        pair = None if self._keys is None else self._keys.pair
        ends = [make_feed_in(self._context, self._bind_in, pair)]
        try:
            ends.append(make_feed_out(self._context, self._bind_out, pair))
        except zmq.ZMQError:
            ends[0].close(linger=0)
            raise
        self._least_bytes = sys.maxsize
        if self._door is not None:
            self._door.watch(ends[0])
            self._door.watch(ends[1], most_bytes=MAX_ASKED_BYTES)
        self._control = self._context.socket(zmq.PAIR)
        name = f"inproc://feed-{id(self._control)}"
        self._control.bind(name)
        told = self._context.socket(zmq.PAIR)
        told.connect(name)
        self._thread = threading.Thread(target=_pass_on, args=(*ends, told), name="zbank-feed", daemon=True)
        self._thread.start()

    def receive(self) -> list[Incoming]:
        """Nothing of what passes is looked at."""
        return []

    def learn(self, feed: Feed) -> None:
        """It is here."""

    def flush(self) -> int:
        """Nothing is gathered."""
        return IDLE_MS

    def tick(self) -> None:
        """Begin (again), if it does not run: after an end the old listeners take a moment to go.

        What waits here is bounded by nothing in ZeroMQ: a message may have any number of frames, and anybody with a key may
        make a thousand connections. So it ends, and all that waits with it, when the process has grown by too much.
        """
        if self._control is not None:
            if self._least_bytes == sys.maxsize:  # what the one before held is free by now: else it would count as ours
                give_back_memory()
            now_bytes = memory_bytes()
            self._least_bytes = min(self._least_bytes, now_bytes)
            if now_bytes - self._least_bytes > MAX_GROWTH_BYTES:
                log.warning("the feed begins anew: this process has grown by more than %d MiB", MAX_GROWTH_BYTES >> 20)
                self.close()
            elif not self._thread.is_alive():
                log.error("the feed has ended by itself: it begins anew")
                self.close()
        if self._control is None:
            try:
                self._start()
            except zmq.ZMQError as error:
                log.debug("the feed does not begin yet: %s", error)

    def renew(self, keys: Keys) -> None:
        """Begin anew when a key is over, or our own is another: who may not come in any more is out, all others are back
        in a moment."""
        pair, before = self._keys_then
        self._keys_then = (keys.pair, good := _good(keys))
        if self._control is not None and (pair != keys.pair or before - good):
            self.close()
            self.tick()

    def close(self) -> None:
        """End the thread; it closes the sockets."""
        if self._control is not None:
            if self._thread.is_alive():
                self._control.send(b"TERMINATE")
            self._thread.join()
            self._control.close(linger=0)
            self._control = None


def _good(keys: Keys | None) -> frozenset[str]:
    return frozenset() if keys is None else frozenset(key.public for key in keys.noted())


def memory_bytes() -> int:
    """What this process has in use; 0 = not known here (only Linux tells at once)."""
    with suppress(OSError):
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return 0


def give_back_memory() -> None:
    """What is free within this process goes back to the system, where the C library can (glibc)."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def _pass_on(feed_in: Socket, feed_out: Socket, control: Socket) -> None:
    try:
        zmq.proxy_steerable(feed_in, feed_out, None, control)
    except zmq.ContextTerminated:
        pass
    finally:
        for one in (feed_in, feed_out):
            one.disable_monitor()
        for one in (feed_in, feed_out, control):
            one.close(linger=0)
