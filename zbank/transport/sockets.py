"""Where sockets are made: every option set on a ZeroMQ socket stands here, and CURVE keys go here and nowhere else."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

import zmq

from zbank.protocol.codec import MAX_FRAME_BYTES
from zbank.protocol.messages import COORDINATOR
from zbank.transport.keyfolder import Keys
from zbank.transport.keys import Pair, new_pair

Result = TypeVar("Result")

LINGER_MS = 200
HIGH_WATER_FRAMES = 1_000  #: of one peer, waiting in or out
SERVER_IN_FRAMES = 64  #: of one peer, waiting at a ROUTER, up to 1 MiB each; the rest waits at the peer
UNACKED_MS = 5_000  #: a connection whose other end acknowledges nothing for so long is over, and made anew (Linux)
RECONNECT_MS = 50
RECONNECT_MAX_MS = 1_000
HANDSHAKE_MS = 5_000
KEEPALIVE_S = 30
ZAP_DOMAIN = b"zbank"
FEED_IN_DOMAIN = b"zbank-feed-in"
FEED_OUT_DOMAIN = b"zbank-feed-out"
FEED_FRAMES = 64  #: of one peer, waiting in or out at the feed: what is more is lost
MAX_FEED_BYTES = 512 * 1024  #: of one frame there
MAX_ASKING_BYTES = 512  #: of one frame of a subscriber's: subscriptions, and before them the handshake's (300)
WHICH_KEY_MS = 300  #: so long the servers of one group of keys are tried, where it is not known which of them answers
PROBE_MS = 3_000
REBIND_S = 5.0
MAX_GUESSED = 32  #: keys that are tried at one address

Socket = zmq.Socket[bytes]
Context = zmq.Context[Socket]


def make_router(context: Context, bind: str, pair: Pair | None = None) -> Socket:
    """A ROUTER listening at `bind`, with server-assigned routing ids and no silent drops. With a key pair it takes only
    who is let in by the ZAP handler of this context, and nobody while there is none.

    Raises zmq.ZMQError when the address cannot be bound.
    """
    socket = _configured(context.socket(zmq.ROUTER))
    socket.setsockopt(zmq.RCVHWM, SERVER_IN_FRAMES)
    socket.setsockopt(zmq.ROUTER_MANDATORY, 1)  # an unsendable reply raises instead of vanishing
    return _listening(socket, bind, pair, ZAP_DOMAIN)


def make_feed_in(context: Context, bind: str, pair: Pair | None = None) -> Socket:
    """A SUB where branches publish: all of it, so that no subscription goes on to them. Keys and errors as in `make_router`."""
    socket = _configured(context.socket(zmq.SUB))
    socket.setsockopt(zmq.RCVHWM, FEED_FRAMES)
    socket.setsockopt(zmq.MAXMSGSIZE, MAX_FEED_BYTES)
    socket.setsockopt(zmq.SUBSCRIBE, b"")
    return _listening(socket, bind, pair, FEED_IN_DOMAIN)


def make_feed_out(context: Context, bind: str, pair: Pair | None = None) -> Socket:
    """A PUB to which replicas subscribe. Keys and errors as in `make_router`."""
    socket = _configured(context.socket(zmq.PUB))
    socket.setsockopt(zmq.SNDHWM, FEED_FRAMES)
    socket.setsockopt(zmq.MAXMSGSIZE, MAX_ASKING_BYTES)
    return _listening(socket, bind, pair, FEED_OUT_DOMAIN)


def _listening(socket: Socket, bind: str, pair: Pair | None, domain: bytes) -> Socket:
    if pair is not None:
        socket.setsockopt(zmq.CURVE_SERVER, 1)
        _own_key(socket, pair)
        socket.setsockopt(zmq.ZAP_DOMAIN, domain)
        socket.setsockopt(zmq.ZAP_ENFORCE_DOMAIN, 1)  # without it, and without a handler, any key gets in
    socket.setsockopt(zmq.IPV6, 1 if "[" in bind else 0)
    try:
        socket.bind(bind)
    except zmq.ZMQError:
        socket.close()
        raise
    return socket


def listen_anew(router: Socket, pair: Pair) -> None:
    """From now on this key answers to who connects. Connections that stand are the old listener's and of no use any more:
    their other ends do not hear of it before the door puts them out. Raises zmq.ZMQError."""
    endpoint = router.getsockopt_string(zmq.LAST_ENDPOINT)
    router.unbind(endpoint)
    _own_key(router, pair)
    when_closed(lambda: router.bind(endpoint))


def when_closed(listen: Callable[[], Result]) -> Result:
    """Listen where this process has listened before: libzmq closes the old listener in another thread, and is waited for.
    Raises what `listen` does, zmq.ZMQError for a place that is not free in time."""
    end_s = time.monotonic() + REBIND_S
    while True:
        try:
            return listen()
        except zmq.ZMQError as error:
            if error.errno != zmq.EADDRINUSE or time.monotonic() > end_s:
                raise
            time.sleep(0.005)


def make_dealer(context: Context, endpoint: str, pair: Pair | None = None, server: str = "") -> Socket:
    """A DEALER connecting to `endpoint`; it queues only for a connection that is complete. With a key pair it talks only
    to who has the key `server`."""
    socket = _unconnected(context, endpoint, pair, server)
    _connect(socket, endpoint)
    return socket


def _connect(socket: Socket, endpoint: str) -> None:
    try:
        socket.connect(endpoint)
    except zmq.ZMQError:
        socket.close(linger=0)
        raise


def _unconnected(context: Context, endpoint: str, pair: Pair | None, server: str, kind: int = zmq.DEALER) -> Socket:
    socket = _configured(context.socket(kind))
    if pair is not None:
        _own_key(socket, pair)
        socket.setsockopt(zmq.CURVE_SERVERKEY, server.encode())
    if kind == zmq.DEALER:
        socket.setsockopt(zmq.IMMEDIATE, 1)
        # All that comes is taken in: what an actor says is bounded by what it is asked, and it gives up on whoever is silent.
        socket.setsockopt(zmq.RCVHWM, 0)
    else:
        socket.setsockopt(zmq.LINGER, 0)
        socket.setsockopt(zmq.SNDHWM, FEED_FRAMES)
        socket.setsockopt(zmq.RCVHWM, FEED_FRAMES)
        socket.setsockopt(zmq.MAXMSGSIZE, MAX_FEED_BYTES)
    socket.setsockopt(zmq.IPV6, 1 if "[" in endpoint else 0)
    return socket


class Dialer:
    """Makes connections: open ones, or by this process's key to actors whose keys are known.

    ZeroMQ makes a connection that was lost again, for the same key: where another one may answer by now, that leads
    nowhere, so whoever has a connection by keys looks whether it `is_lost`, and dials anew.
    """

    def __init__(self, context: Context, keys: Keys | None = None, *, may_wait: bool = True) -> None:
        """`may_wait`: for a moment, to see which of several keys answers; else they are tried one at each dialling."""
        self._context = context
        self.keys = keys
        self._may_wait = may_wait
        self._dialled = 0
        self._watches: dict[Socket, Socket] = {}  #: tell when a connection ends

    def dealer(self, endpoint: str, role: str = "", name: str = "") -> Socket:
        """A connection to an actor of this role and name, as far as they are known ("" = not). Raises zmq.ZMQError."""
        if self.keys is None:
            return make_dealer(self._context, endpoint)
        self.keys.refresh()
        return self._by_key(self.keys, endpoint, role, name)

    def feed(self, endpoint: str, kind: int, topic: bytes = b"") -> Socket:
        """A connection to the coordinator's feed: a PUB, or a SUB of a topic. Raises zmq.ZMQError."""
        if self.keys is None:
            socket = _unconnected(self._context, endpoint, None, "", kind)
            _connect(socket, endpoint)
        else:
            self.keys.refresh()
            servers = self.keys.servers(COORDINATOR)[0] or [new_pair().public]
            self._dialled += 1
            socket = self._watched(endpoint, self.keys.pair, servers[self._dialled % len(servers)], kind)
        if kind == zmq.SUB:
            socket.setsockopt(zmq.SUBSCRIBE, topic)
        return socket

    def is_lost(self, dealer: Socket) -> bool:
        """The connection has ended since it was made."""
        watch = self._watches.get(dealer)
        return watch is not None and bool(watch.poll(0))

    def close(self, dealer: Socket, linger_ms: int = 0) -> None:
        """Close a connection; what is unsent then is lost."""
        watch = self._watches.pop(dealer, None)
        if watch is not None:
            dealer.disable_monitor()
            watch.close(linger=0)
        dealer.close(linger=linger_ms)

    def _by_key(self, keys: Keys, endpoint: str, role: str, name: str) -> Socket:
        """Where several keys may answer (the actor has a second one for a while, or it is not known who it is), all are
        tried at once, and who answers first it is.
        """
        groups = [group for group in keys.servers(role, name) if group] or [[new_pair().public]]  # answers to nobody
        every = [key for group in groups for key in group]
        if len(every) == 1 or not self._may_wait:
            self._dialled += 1
            return self._watched(endpoint, keys.pair, every[self._dialled % len(every)])
        rest: list[Socket] = []
        for group in groups:
            tried = [self._watched(endpoint, keys.pair, key) for key in group[:MAX_GUESSED]]
            found = _first_to_stand(tried, WHICH_KEY_MS)
            rest += [one for one in tried if one is not found]
            if found is not None:
                break
        kept = found or rest.pop(0)  # nobody is there: it goes on trying
        for one in rest:
            self.close(one)
        return kept

    def _watched(self, endpoint: str, pair: Pair, server: str, kind: int = zmq.DEALER) -> Socket:
        """A connection of which it is told when it ends, also at its very beginning."""
        dealer = _unconnected(self._context, endpoint, pair, server, kind)
        self._watches[dealer] = dealer.get_monitor_socket(zmq.EVENT_DISCONNECTED)
        try:
            dealer.connect(endpoint)
        except zmq.ZMQError:
            self.close(dealer)
            raise
        return dealer


def _first_to_stand(sockets: list[Socket], limit_ms: int) -> Socket | None:
    """The first whose connection is complete: only then can it be sent to."""
    poller = zmq.Poller()
    for one in sockets:
        poller.register(one, zmq.POLLOUT)
    ready = poller.poll(limit_ms)
    return ready[0][0] if ready else None


def lets_strangers_in(context: Context, endpoint: str, server: str, kind: int = zmq.DEALER) -> str:
    """Try to get in by a key that nobody has listed, and by none, with a socket of this kind; what was found wrong, "" = both
    were turned away."""
    attempts = {"a key that is not listed": (new_pair(), server), "no key": (None, "")}
    for what, (pair, key) in attempts.items():
        probe = _configured(context.socket(kind))
        seen = probe.get_monitor_socket(zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_DISCONNECTED)
        try:
            if pair is not None:
                _own_key(probe, pair)
                probe.setsockopt(zmq.CURVE_SERVERKEY, key.encode())
            probe.connect(endpoint)
            if not seen.poll(PROBE_MS):
                return f"it could not be found out whether {what} is let in: nobody answered"
            event = int.from_bytes(seen.recv_multipart()[0][:2], "little")
            if event == zmq.EVENT_HANDSHAKE_SUCCEEDED:
                return f"{what} was let in"
        finally:
            probe.disable_monitor()
            seen.close(linger=0)
            probe.close(linger=0)
    return ""


def _own_key(socket: Socket, pair: Pair) -> None:
    socket.setsockopt(zmq.CURVE_PUBLICKEY, pair.public.encode())
    socket.setsockopt(zmq.CURVE_SECRETKEY, pair.secret.encode())


def _configured(socket: Socket) -> Socket:
    socket.setsockopt(zmq.LINGER, LINGER_MS)
    socket.setsockopt(zmq.SNDHWM, HIGH_WATER_FRAMES)
    socket.setsockopt(zmq.RCVHWM, HIGH_WATER_FRAMES)
    socket.setsockopt(zmq.MAXMSGSIZE, MAX_FRAME_BYTES)
    # No pings, from neither side. One that is due or waits to be answered when the peer has left and its queue here is full
    # ends the process by an assertion of libzmq (https://github.com/zeromq/libzmq/issues/4364). Silent peers are found by our
    # own beats, half-open connections by TCP.
    socket.setsockopt(zmq.HEARTBEAT_IVL, 0)
    socket.setsockopt(zmq.TCP_MAXRT, UNACKED_MS)
    socket.setsockopt(zmq.TCP_KEEPALIVE, 1)
    socket.setsockopt(zmq.TCP_KEEPALIVE_IDLE, KEEPALIVE_S)
    socket.setsockopt(zmq.TCP_KEEPALIVE_INTVL, KEEPALIVE_S)
    socket.setsockopt(zmq.HANDSHAKE_IVL, HANDSHAKE_MS)
    socket.setsockopt(zmq.RECONNECT_IVL, RECONNECT_MS)
    socket.setsockopt(zmq.RECONNECT_IVL_MAX, RECONNECT_MAX_MS)
    return socket
