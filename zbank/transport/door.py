"""The door of an actor: a thread that decides who may connect, how often, and who has to leave.

It answers libzmq's question whether a key may come in (ZAP, RFC 27 of ZeroMQ), counts the connections of each address by
libzmq's own events, and looks at what each has under way by the kernel's count of its bytes (TCP_INFO, Linux alone): ZeroMQ
bounds frames, and neither the frames of one message nor the bytes that wait for a reader.

A connection is ended by shutting its TCP connection down from here: libzmq sees the end of it and cleans up.
"""

from __future__ import annotations

import logging
import os
import resource
import socket
import struct
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import zmq
from msgspec import Struct
from zmq.utils import z85

from zbank.errors import ZbankError
from zbank.protocol.codec import MAX_FRAME_BYTES
from zbank.protocol.messages import BRANCH, REPLICA
from zbank.transport.keyfolder import Keys
from zbank.transport.sockets import FEED_IN_DOMAIN, FEED_OUT_DOMAIN, ZAP_DOMAIN, Context, Socket

MAX_CONNECTIONS = 8_000  #: or three quarters of the files that this process may have open
MAX_OF_ADDRESS = 2_000
BURST = 1_000  #: connections that one address may make at once,
PER_S = 200  #: and in each second after that
MAX_ADDRESSES = 10_000  #: whose bursts are remembered
MAX_UNTAKEN_BYTES = 16 * MAX_FRAME_BYTES  #: of one connection: sent here and not taken yet
MAX_UNREAD_BYTES = 16 * MAX_FRAME_BYTES  #: of one connection: answers that it does not read
UNREAD_S = 10.0  #: so long a connection may read nothing of what waits for it
MAX_ASKED_BYTES = 8 * 1024  #: of one subscriber to the feed, ever: each byte of a topic takes twelve of memory
SHUT_OUT_S = 10.0  #: a key that has cost too much is not let in for so long
SWEEP_S = 0.25
TOLD_EVERY_S = 10.0
ZAP_ADDRESS = "inproc://zeromq.zap.01"

#: by the socket that asks: the roles that its keys may have; None = any
MAY_ENTER: dict[bytes, frozenset[str] | None] = {
    ZAP_DOMAIN: None,
    FEED_IN_DOMAIN: frozenset({BRANCH}),
    FEED_OUT_DOMAIN: frozenset({REPLICA}),
}

_ACKED, _RECEIVED = 120, 128  #: offsets in struct tcp_info (linux/tcp.h): tcpi_bytes_acked, tcpi_bytes_received
_IS_LINUX = sys.platform == "linux"

log = logging.getLogger("zbank")


class DoorFailed(ZbankError):
    """The door's thread has ended: nobody can be let in, or put out, any more. The process must end."""

    code = "door_failed"


class Connection(Struct, eq=False):
    """One TCP connection to this actor."""

    fd: int
    inode: int  #: of its socket: another connection may have the same fd a moment later, not the same inode
    address: str
    taken_bytes: int = 0  #: of what it sent, as it was on the wire; the loop counts
    given_bytes: int = 0  #: handed to ZeroMQ for it; the loop counts
    watch: Socket | None = None  #: that told of it; None = the loop saw a frame first
    is_counted: bool = True  #: the loop counts its bytes: not those of the feed
    most_bytes: int = 0  #: that it may send, ever; 0 = any number
    acked_bytes: int = 0  #: at the last look
    moved_s: float = 0.0  #: when it last read something, or had nothing to read


class Door:
    """See the module. Any thread may call the methods without an underscore."""

    def __init__(self, context: Context, router: Socket, keys: Keys | None) -> None:
        self._keys = keys
        self._overhead_bytes = 33 if keys is not None else 0  #: of a frame, beside ZMTP's own: CurveZMQ's MESSAGE
        self._lock = threading.Lock()
        self._connections: dict[int, Connection] = {}  #: by fd; guarded by _lock
        self._of_address: Counter[str] = Counter()  #: guarded by _lock
        self._bursts: dict[str, tuple[float, float]] = {}  #: by address: tokens left, and as of when
        self._shut_out: dict[str, float] = {}  #: by public key, until when
        self._told_s: dict[str, float] = {}
        self.tells = True  #: who is turned away; not while we try the lock ourselves
        self._stop = threading.Event()
        self._failed = False
        self._most = min(MAX_CONNECTIONS, resource.getrlimit(resource.RLIMIT_NOFILE)[0] * 3 // 4)
        self._context = context
        self._watched = 0
        #: sockets that tell of connections; whether the loop counts their bytes, and how many each may send
        self._watches: dict[Socket, tuple[bool, int]] = {}
        self.watch(router, is_counted=True)
        self._zap: Socket | None = None
        if keys is not None:
            self._zap = context.socket(zmq.ROUTER)  # libzmq asks as a DEALER, of every socket of this context
            self._zap.bind(ZAP_ADDRESS)
        self._thread = threading.Thread(target=self._run, name="zbank-door", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the thread. Close the ROUTER first."""
        self._stop.set()
        self._thread.join()

    def watch(self, server: Socket, *, is_counted: bool = False, most_bytes: int = 0) -> None:
        """Count the connections to this socket too; each may send so many bytes (0 = any number) until it is ended. Call it
        before any thread uses the socket."""
        self._watched += 1
        name = f"inproc://door-{id(self)}-{self._watched}"
        server.monitor(name, zmq.EVENT_ACCEPTED | zmq.EVENT_DISCONNECTED | zmq.EVENT_MONITOR_STOPPED)
        events = self._context.socket(zmq.PAIR)
        events.setsockopt(zmq.RCVHWM, 0)  # else a full queue here would stop libzmq's own thread
        events.connect(name)
        self._watches[events] = is_counted, most_bytes  # from here on it is the thread's

    def check(self) -> None:
        """Raise DoorFailed when the thread is no more."""
        if self._failed:
            raise DoorFailed("the thread that lets connections in has failed: its last lines say why")

    def connection(self, fd: int) -> Connection | None:
        """The connection that has this fd now; None when it is over already."""
        with self._lock:
            known = self._connections.get(fd)
            with suppress(OSError), _socket_of(fd) as (one, inode):
                if known is None or known.inode != inode:  # its event is not read yet
                    known = self._enter(fd, inode, one.getpeername()[0])
                return known
        return None

    def connections(self) -> list[Connection]:
        """All there are."""
        with self._lock:
            return list(self._connections.values())

    def put_out(self, connection: Connection) -> None:
        """End a connection."""
        with suppress(OSError), _socket_of(connection.fd) as (one, inode):
            if inode == connection.inode:
                one.shutdown(socket.SHUT_RDWR)

    def shut_out(self, public: str) -> None:
        """Do not let this key in for a while."""
        self._shut_out[public] = time.monotonic() + SHUT_OUT_S

    def wire_bytes(self, frame_bytes: int) -> int:
        """What a frame of so many bytes is on the wire (ZMTP, RFC 23: a length of 1 or 8 bytes)."""
        whole = frame_bytes + self._overhead_bytes
        return whole + (2 if whole <= 255 else 9)

    # --- the thread ---------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        poller = zmq.Poller()
        if self._zap is not None:
            poller.register(self._zap, zmq.POLLIN)
        swept_s = time.monotonic()
        try:
            while not self._stop.is_set():
                for watch in list(self._watches):
                    if watch not in poller:
                        poller.register(watch, zmq.POLLIN)
                for ready, _ in poller.poll(int(SWEEP_S * 1000)):
                    if ready is self._zap:
                        self._on_question()
                    elif not self._on_event(ready):
                        poller.unregister(ready)
                        ready.close(linger=0)
                now_s = time.monotonic()
                if _IS_LINUX and now_s - swept_s >= SWEEP_S:
                    swept_s = now_s
                    self._sweep(now_s)
        except Exception:  # whatever it was: an actor without a door must not go on
            self._failed = True
            log.exception("the door of this actor failed")
        finally:
            for watch in self._watches:
                watch.close(linger=0)
            if self._zap is not None:
                self._zap.close(linger=0)

    def _on_event(self, watch: Socket) -> bool:
        """Something happened to a connection; False when this was the last that is told."""
        head, _endpoint = watch.recv_multipart()
        event, fd = struct.unpack("=HI", head[:6])
        with self._lock:
            if event == zmq.EVENT_MONITOR_STOPPED:
                is_counted, _ = self._watches.pop(watch)
                for one in [one for one in self._connections.values() if one.watch is watch and not is_counted]:
                    self._leave(one.fd)
                return False
            if event == zmq.EVENT_DISCONNECTED:
                self._leave(fd)
                return True
            with suppress(OSError), _socket_of(fd) as (handle, inode):
                connection = self._connections.get(fd)
                if connection is None or connection.inode != inode:
                    connection = self._enter(fd, inode, handle.getpeername()[0])
                connection.watch = watch
                connection.is_counted, connection.most_bytes = self._watches[watch]
                if self._is_too_many(connection.address):
                    handle.shutdown(socket.SHUT_RDWR)
        return True

    def _enter(self, fd: int, inode: int, address: str) -> Connection:
        self._leave(fd)
        connection = Connection(fd, inode, address, moved_s=time.monotonic())
        self._connections[fd] = connection
        self._of_address[address] += 1
        return connection

    def _leave(self, fd: int) -> None:
        connection = self._connections.pop(fd, None)
        if connection is not None:
            self._of_address[connection.address] -= 1
            if not self._of_address[connection.address]:
                del self._of_address[connection.address]

    def _is_too_many(self, address: str) -> bool:
        now_s = time.monotonic()
        if len(self._bursts) >= MAX_ADDRESSES:
            self._bursts.clear()
        left, as_of_s = self._bursts.get(address, (BURST, now_s))
        left = min(float(BURST), left + (now_s - as_of_s) * PER_S) - 1
        self._bursts[address] = (max(0.0, left), now_s)
        if left < 0:
            self.tell(f"{address} makes too many connections: more than {BURST} at once, or {PER_S} in a second")
        elif self._of_address[address] > MAX_OF_ADDRESS:
            self.tell(f"{address} has {MAX_OF_ADDRESS} connections: it gets no more")
        elif len(self._connections) > self._most:
            self.tell(f"there are {self._most} connections: there is room for no more")
        else:
            return False
        return True

    def _on_question(self) -> None:
        """May this key come in? (ZAP) Whatever goes wrong here means no."""
        assert self._zap is not None
        assert self._keys is not None
        frames = self._zap.recv_multipart()
        cut = frames.index(b"") if b"" in frames else 0
        route, request = frames[: cut + 1], frames[cut + 1 :]
        status, public = b"400", b""
        try:
            version, _, domain, address, _, mechanism, *credentials = request
            if (version, mechanism, len(credentials)) == (b"1.0", b"CURVE", 1) and domain in MAY_ENTER:
                public = z85.encode(credentials[0])
                text = public.decode("ascii")
                until_s = self._shut_out.get(text)
                roles = MAY_ENTER[domain]
                key = self._keys.good(text)
                if key is None or (roles is not None and key.role not in roles):
                    self.tell(f"{self._keys.known_as(text)} was turned away at {address.decode('ascii')}")
                elif until_s is not None and time.monotonic() < until_s:
                    status = b"300"  # not now
                else:
                    self._shut_out.pop(text, None)
                    status = b"200"
        except Exception:
            log.exception("a question of who may come in could not be understood: nobody may")
        if len(request) >= 2:
            self._zap.send_multipart([*route, b"1.0", request[1], status, b"", public if status == b"200" else b"", b""])

    def _sweep(self, now_s: float) -> None:
        """Put out who sends more than can be taken, and who does not read."""
        for connection in self.connections():
            with suppress(OSError), _socket_of(connection.fd) as (one, inode):
                if inode != connection.inode:
                    continue
                info = one.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 192)
                if len(info) < _RECEIVED + 8:
                    return  # an old kernel
                (received,) = struct.unpack_from("=Q", info, _RECEIVED)
                (acked,) = struct.unpack_from("=Q", info, _ACKED)
                why = self._why_out(connection, received, acked, now_s)
                if why:
                    self.tell(f"a connection of {connection.address} is ended: {why}")
                    one.shutdown(socket.SHUT_RDWR)

    def _why_out(self, connection: Connection, received: int, acked: int, now_s: float) -> str:
        if not connection.is_counted:  # who does not read the feed at all is ended by TCP, see UNACKED_MS
            too_much = 0 < connection.most_bytes < received
            return f"it asks for more than {connection.most_bytes >> 10} KiB of topics of the feed" if too_much else ""
        unread = connection.given_bytes - acked
        if acked != connection.acked_bytes or unread <= 0:
            connection.acked_bytes, connection.moved_s = acked, now_s
        if received - connection.taken_bytes > MAX_UNTAKEN_BYTES:
            return f"more than {MAX_UNTAKEN_BYTES >> 20} MiB that it sent are not taken yet"
        if unread > MAX_UNREAD_BYTES:
            return f"it does not read its answers: more than {MAX_UNREAD_BYTES >> 20} MiB wait"
        if now_s - connection.moved_s > UNREAD_S:
            return f"it has not read its answers for {UNREAD_S:g} s"
        return ""

    def tell(self, text: str) -> None:
        """Once in a while: who attacks must not fill the log."""
        now_s = time.monotonic()
        if not self.tells or now_s - self._told_s.get(text, -TOLD_EVERY_S) < TOLD_EVERY_S:
            return
        if len(self._told_s) >= MAX_ADDRESSES:
            self._told_s.clear()
        self._told_s[text] = now_s
        log.warning(text)


@contextmanager
def _socket_of(fd: int) -> Iterator[tuple[socket.socket, int]]:
    """A second handle of a socket of libzmq's, and its inode: what it is now, it stays while we look at it.

    Raises OSError when there is none (any more).
    """
    copy = os.dup(fd)
    try:
        one = socket.socket(fileno=copy)
    except OSError:  # it is something else by now
        os.close(copy)
        raise
    with one:
        yield one, os.fstat(copy).st_ino
