"""Where sockets are made: every option set on a ZeroMQ socket stands here, and CURVE keys will go here and nowhere else."""

from __future__ import annotations

import zmq

from zbank.protocol.codec import MAX_FRAME_BYTES

LINGER_MS = 200
HIGH_WATER_FRAMES = 1_000  #: of one peer, waiting in or out
SERVER_IN_FRAMES = 64  #: of one peer, waiting at a ROUTER, up to 1 MiB each; the rest waits at the peer
UNACKED_MS = 5_000  #: a connection whose other end acknowledges nothing for so long is over, and made anew (Linux)
RECONNECT_MS = 50
RECONNECT_MAX_MS = 1_000
HANDSHAKE_MS = 5_000
KEEPALIVE_S = 30


def make_router(context: zmq.Context[zmq.Socket[bytes]], bind: str) -> zmq.Socket[bytes]:
    """A ROUTER listening at `bind`, with server-assigned routing ids and no silent drops.

    Raises zmq.ZMQError when the address cannot be bound.
    """
    socket = _configured(context.socket(zmq.ROUTER))
    socket.setsockopt(zmq.RCVHWM, SERVER_IN_FRAMES)
    socket.setsockopt(zmq.ROUTER_MANDATORY, 1)  # an unsendable reply raises instead of vanishing
    socket.setsockopt(zmq.IPV6, 1 if "[" in bind else 0)
    try:
        socket.bind(bind)
    except zmq.ZMQError:
        socket.close()
        raise
    return socket


def make_dealer(context: zmq.Context[zmq.Socket[bytes]], endpoint: str) -> zmq.Socket[bytes]:
    """A DEALER connecting to `endpoint`; it queues only for a connection that is complete."""
    socket = _configured(context.socket(zmq.DEALER))
    socket.setsockopt(zmq.IMMEDIATE, 1)
    # All that comes is taken in: what an actor says is bounded by what it is asked, and it gives up on whoever is silent.
    socket.setsockopt(zmq.RCVHWM, 0)
    socket.setsockopt(zmq.IPV6, 1 if "[" in endpoint else 0)
    socket.connect(endpoint)
    return socket


def _configured(socket: zmq.Socket[bytes]) -> zmq.Socket[bytes]:
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
