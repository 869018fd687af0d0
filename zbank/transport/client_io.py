"""The clients' I/O thread: the sockets, the clock, and nothing that decides anything (that is `client_core`).

One daemon thread serves all Clients of a process: it begins with the first and ends with the last. (With a thread each,
32 clients spend their time waiting for Python's lock.) Callers append requests to a deque and ring a bell only when the
thread sleeps. Everything that waits for one peer when the thread comes round leaves in one frame. Futures are resolved,
and so their callbacks run, in this thread.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import threading
import time
from collections import deque
from collections.abc import Sequence
from typing import Any, TypeVar, cast

import zmq

from zbank.errors import BadFrame, ClientClosed, RemoteFault, ZbankError
from zbank.protocol.codec import MAX_FRAME_BYTES, decode_batch, encode_batch
from zbank.protocol.messages import AnyMessage
from zbank.transport.client_core import ClientCore
from zbank.transport.client_peer import IDLE_US, AnyRequest, Peer
from zbank.transport.client_request import Request
from zbank.transport.keyfolder import Keys
from zbank.transport.sockets import LINGER_MS, Dialer

T = TypeVar("T")
Socket = zmq.Socket[bytes]
Envelopes = list[tuple[int, AnyMessage]]

MAX_OUTSTANDING = 100_000  #: requests of one client that have not ended
MAX_FRAMES_A_TURN = 16  #: frames read from one socket before others get their turn
MAX_SOCKETS = 16_384
CLOSE_S = 5.0  #: closing waits this long for the thread, which is busy only as long as a caller's callback is

#: Plain ints: an operation on pyzmq's enums costs more than the poll.
POLLIN, POLLOUT, EVENTS, DONTWAIT = int(zmq.POLLIN), int(zmq.POLLOUT), int(zmq.EVENTS), int(zmq.DONTWAIT)

log = logging.getLogger(__name__)


class ClientShell:
    """The world of one core: its sockets, and the way in. `submit`, `call` and `close` may be called from any thread."""

    def __init__(self, places: Sequence[str], cluster: str, name: str, keys: Keys | None = None) -> None:
        self.core = ClientCore(places, cluster, name, _monotonic_us())
        self.dialer = Dialer(_shared_context(), keys)
        self.sockets: dict[str, Socket] = {}  #: by endpoint; the I/O thread's
        self.closing = False
        self.ended = threading.Event()
        self._thread = _join_thread(self)

    def submit(self, request: Request[T]) -> None:
        """Hand a request over; never blocks.

        Raises ClientClosed, and RemoteFault `busy` when MAX_OUTSTANDING requests are waiting already.
        """
        if self.closing:
            raise ClientClosed("the client is closed: make a new one")
        if self._thread.process != os.getpid():
            raise ClientClosed("the client was made before this process was forked: make a new one here")
        if len(self.core.requests) + self._thread.waiting() >= MAX_OUTSTANDING:
            raise RemoteFault("busy", f"{MAX_OUTSTANDING} requests of this process wait already: wait for some", 100)
        self._thread.post(self, request)

    def call(self, request: Request[T]) -> T:
        """Hand a request over and wait for its end. Not from a future's callback: it would wait for itself."""
        self.check_may_wait()
        self.submit(request)
        return request.future.result()

    def check_may_wait(self) -> None:
        """Raise ZbankError in the I/O thread: a wait there would never end."""
        if self._thread.is_current():
            raise ZbankError("a future's callback must not wait for the bank: use submit_…, or another thread")

    def close(self) -> None:
        """End every request and close the sockets. Safe to repeat, and from a callback (which does not wait for it)."""
        self.begin_close()
        if not self._thread.is_current() and self._thread.process == os.getpid():
            self.ended.wait(CLOSE_S)

    def begin_close(self) -> None:
        """`close` without waiting, and without any lock: the garbage collector may call it anywhere."""
        if not self.closing:
            self.closing = True
            self._thread.post(self, None)


class IoThread:
    """The thread. What begins with an underscore runs in it alone."""

    def __init__(self) -> None:
        self.users = 0  #: clients that have not ended; guarded by _lock
        self.ended = False  #: takes no more clients; guarded by _lock
        self.process = os.getpid()
        self._inbox: deque[tuple[ClientShell, AnyRequest | None]] = deque()
        self._asleep = False
        self._shells: set[ClientShell] = set()
        self._dirty: set[ClientShell] = set()  #: may have something to send, connect or close
        self._owners: dict[Any, tuple[ClientShell, Peer]] = {}  #: by socket
        self._next_due_us = 0
        self._poller = zmq.Poller()
        self._bell, self._bell_end = socket.socketpair()
        self._bell.setblocking(False)
        self._poller.register(self._bell_end.fileno(), zmq.POLLIN)
        self._thread = threading.Thread(target=self._run, name="zbank-client", daemon=True)

    def start(self) -> None:
        """Begin. It ends by itself when `users` is 0."""
        self._thread.start()

    def post(self, shell: ClientShell, request: AnyRequest | None) -> None:
        """Hand a request over; None = look whether the client opens or closes."""
        self._inbox.append((shell, request))
        if self._asleep:
            self._asleep = False
            with contextlib.suppress(OSError):  # the pipe is full, so it will wake; or the thread has ended
                self._bell.send(b"\0")
        if self.ended:
            self._refuse_late()

    def waiting(self) -> int:
        """How many requests the thread has not taken yet."""
        return len(self._inbox)

    def is_current(self) -> bool:
        """Is the caller in this thread, that is, in a future's callback?"""
        return threading.current_thread() is self._thread

    def _run(self) -> None:
        try:
            while not self._may_end():
                self._turn()
        except Exception:
            log.exception("the I/O thread of the zbank clients failed: all clients are closed")
            raise
        finally:
            self.ended = True
            for shell in list(self._shells):
                self._end(shell)
            self._refuse_late()
            self._bell.close()
            self._bell_end.close()

    def _may_end(self) -> bool:
        if self._shells:
            return False
        with _lock:
            self.ended = not self.users
        return self.ended

    def _turn(self) -> None:
        """Take what callers left, send, sleep until something comes, read it."""
        inbox = self._inbox
        dirty = self._dirty
        now_us = _monotonic_us()
        for _ in range(len(inbox)):
            shell, request = inbox.popleft()
            if request is None:
                self._begin_or_end(shell)
            elif shell.closing:
                request.end_failed(ClientClosed("the client was closed before this request began"))
            else:
                shell.core.submit(request, now_us)
            dirty.add(shell)
        if now_us >= self._next_due_us:
            self._on_time(now_us)
        for shell in dirty:
            self._flush(shell, now_us)
        dirty.clear()
        self._asleep = True
        sleep_ms = 0 if inbox or not self._shells else max(0, self._next_due_us - now_us + 999) // 1000
        events = self._poller.poll(sleep_ms)
        self._asleep = False
        for source, event in events:
            if source in self._owners:
                self._on_event(source, event)
            else:
                self._bell_end.recv(4096)

    def _on_time(self, now_us: int) -> None:
        self._next_due_us = now_us + IDLE_US
        for shell in self._shells:
            if now_us >= shell.core.next_due_us:
                shell.core.on_time(now_us)  # first: it asks for the directory when somebody is not connected
                self._dial_lost(shell)
                self._dirty.add(shell)
            self._next_due_us = min(self._next_due_us, shell.core.next_due_us)

    def _on_event(self, source: Socket, event: int) -> None:
        shell, peer = self._owners[source]
        self._dirty.add(shell)
        if event & POLLOUT and peer.blocked:
            self._poller.register(source, zmq.POLLIN)
            shell.core.on_writable(peer, _monotonic_us())
        if not event & POLLIN:
            return
        for _ in range(MAX_FRAMES_A_TURN):
            body = source.recv(DONTWAIT)
            try:
                envelopes = decode_batch(body)
            except BadFrame as error:
                log.warning("%s sent a frame that is no answer: %s", peer.endpoint, error)
            else:
                shell.core.on_frame(peer, envelopes, _monotonic_us())
            if not cast(int, source.getsockopt(EVENTS)) & POLLIN:
                return

    # --- one client ---------------------------------------------------------------------------------------------------

    def _begin_or_end(self, shell: ClientShell) -> None:
        if shell.closing:
            self._end(shell)
        else:
            self._shells.add(shell)

    def _end(self, shell: ClientShell) -> None:
        if shell.ended.is_set():
            return
        self._shells.discard(shell)
        with _lock:
            self.users -= 1
        shell.core.close()
        for dealer in shell.sockets.values():
            self._drop(dealer)
        shell.sockets.clear()
        shell.ended.set()

    def _drop(self, dealer: Socket) -> None:
        shell, _ = self._owners.pop(dealer)
        self._poller.unregister(dealer)
        shell.dialer.close(dealer, LINGER_MS)

    def _refuse_late(self) -> None:
        """End requests that were posted when the thread had already ended."""
        while self._inbox:
            with contextlib.suppress(IndexError):  # another thread was faster
                request = self._inbox.popleft()[1]
                if request is not None:
                    request.end_failed(ClientClosed("the client was closed before this request began"))

    def _flush(self, shell: ClientShell, now_us: int) -> None:
        """Connect what the core wants connected, and send what waits."""
        core = shell.core
        if shell.ended.is_set():
            return
        if core.opened or core.closed:
            self._reconnect(shell)
        for peer in core.peers.values():
            if (peer.outbox or peer.controls) and not peer.blocked:
                self._send(shell.sockets[peer.endpoint], peer, now_us)
        self._next_due_us = min(self._next_due_us, core.next_due_us)

    def _reconnect(self, shell: ClientShell) -> None:
        core = shell.core
        while core.closed:
            peer = core.closed.pop()
            old = shell.sockets.get(peer.endpoint)
            if old is not None and self._owners[old][1] is peer:
                del shell.sockets[peer.endpoint]
                self._drop(old)
        while core.opened:
            peer = core.opened.pop()
            if core.peers.get(peer.endpoint) is not peer:
                continue
            try:
                dealer = shell.dialer.dealer(peer.endpoint, *core.routes.role_at(peer.endpoint))
            except zmq.ZMQError as error:
                core.peer_failed(peer, str(error))
                continue
            self._take(shell, peer, dealer)

    def _take(self, shell: ClientShell, peer: Peer, dealer: Socket) -> None:
        shell.sockets[peer.endpoint] = dealer
        self._owners[dealer] = (shell, peer)
        self._poller.register(dealer, zmq.POLLIN)

    def _dial_lost(self, shell: ClientShell) -> None:
        """Make connections by keys anew that were lost: who answers there may have another key by now."""
        for endpoint, dealer in list(shell.sockets.items()):
            if shell.dialer.is_lost(dealer):
                _, peer = self._owners[dealer]
                with contextlib.suppress(zmq.ZMQError):  # none to be had: the old one goes on trying
                    fresh = shell.dialer.dealer(endpoint, *shell.core.routes.role_at(endpoint))
                    self._drop(dealer)
                    self._take(shell, peer, fresh)
                    shell.core.on_writable(peer, _monotonic_us())

    def _send(self, dealer: Socket, peer: Peer, now_us: int) -> None:
        while peer.outbox or peer.controls:
            envelopes, batch = peer.take()
            if not envelopes:
                if peer.flying:
                    return  # its window is full: the next answer makes room
                continue  # all that was taken has ended meanwhile
            left = _send_frames(dealer, envelopes)
            if left < len(envelopes):
                gone = max(0, left - (len(envelopes) - len(batch)))
                if left:
                    peer.sent(batch[:gone], now_us)
                peer.not_sent(batch[gone:])
                self._poller.register(dealer, zmq.POLLIN | zmq.POLLOUT)
                return
            peer.sent(batch, now_us)


def _send_frames(dealer: Socket, envelopes: Envelopes) -> int:
    """Send the envelopes in as few frames as fit; how many of them the socket has taken."""
    body = encode_batch(envelopes)
    if len(body) > MAX_FRAME_BYTES and len(envelopes) > 1:
        half = len(envelopes) // 2
        left = _send_frames(dealer, envelopes[:half])
        return left if left < half else half + _send_frames(dealer, envelopes[half:])
    try:
        dealer.send(body, DONTWAIT)
    except zmq.Again:
        return 0
    return len(envelopes)


# --- what all clients of a process share ------------------------------------------------------------------------------

_lock = threading.Lock()
_threads: list[IoThread] = []  # the one in use, if any
_contexts: dict[int, zmq.Context[Socket]] = {}  # by process id: neither a context nor a thread survives a fork


def _join_thread(shell: ClientShell) -> IoThread:
    with _lock:
        begin = not _threads or _threads[0].ended or _threads[0].process != os.getpid()
        if begin:
            _threads[:] = [IoThread()]
        thread = _threads[0]
        thread.users += 1
        if begin:
            thread.start()
    thread.post(shell, None)
    return thread


def _shared_context() -> zmq.Context[Socket]:
    """Its sockets are closed one by one and it is never terminated, so that nothing ever waits for it."""
    context = _contexts.get(os.getpid())
    if context is None:
        context = _contexts[os.getpid()] = zmq.Context()
        context.set(zmq.MAX_SOCKETS, MAX_SOCKETS)
    return context


def _monotonic_us() -> int:
    return time.monotonic_ns() // 1000
