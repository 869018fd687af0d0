"""A network that loses, repeats, delays and reorders, behind the sockets that the real code asks ZeroMQ for.

Harsher than ZeroMQ over TCP, where what arrives arrives once and in order: the protocol assumes neither (PROTOCOL P9).
A frame that is late may meet another process than the one it was sent to.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Sequence
from typing import Protocol

import msgspec
import zmq

from tests.simulation.chance import Chance
from zbank.protocol.messages import (
    AnyMessage,
    Beat,
    Cancel,
    Envelope,
    Hello,
    Inquiry,
    Register,
    Registered,
    StillPending,
)

LATENCY_US = (100, 900)
REPEAT_AFTER_US = 40_000  #: a repeated frame comes within this time after the first

RARE = (Register, Registered, Inquiry, StillPending, Cancel)
RARE_OFTEN = 3  #: what is seldom sent meets its fault so many times as often

_decode = msgspec.msgpack.Decoder(list[Envelope]).decode


class Nothing(zmq.Again):
    """Nothing there, or nobody: what ZeroMQ raises, without the work that goes into its text."""

    def __init__(self) -> None:
        self.errno = zmq.EAGAIN


class Rates(msgspec.Struct, frozen=True):
    """How bad the network of a run is: shares of all frames, from 0 to 1."""

    loss: float
    repeat: float
    delay: float
    max_delay_us: int


GOOD = Rates(loss=0.0, repeat=0.0, delay=0.0, max_delay_us=0)


class Host(Protocol):
    """Who has sockets: an actor's process, or a customer."""

    name: str  #: of the machine, as partitions know it

    @property
    def network_stall_us(self) -> int:
        """What it sends now leaves so much later."""

    def wake(self) -> None:
        """Something has arrived."""


class Scheduler(Protocol):
    """The world's time."""

    now_us: int

    def at(self, time_us: int, act: Callable[[], None]) -> None:
        """Do it then."""

    def happened(self, fault: str, key: str) -> bool:
        """May this fault happen (or is it left out of this run)? It counts as having happened."""

    def seen(self, kind: str, source: str, target: str, messages: Sequence[AnyMessage]) -> None:
        """For the trace and the counters: `kind` is sent, lost, repeated, delayed, cut, overtaken or arrived."""


class SimulatedSocket:
    """What a ROUTER or DEALER is to the actors. Nobody waits on it: who owns it is woken."""

    def __init__(self, network: Network, host: Host) -> None:
        self.network = network
        self.host = host
        self.endpoint = ""
        self.closed = False
        self.inbox: deque[tuple[bytes, bytes]] = deque()  #: (route, body); a DEALER's route is b""
        self.is_router = False
        self._body: bytes | None = None  #: of a message whose route was read
        self.routes: dict[bytes, SimulatedSocket] = {}  #: a ROUTER's connections
        self.names: dict[SimulatedSocket, bytes] = {}  #: the same by the DEALER

    def setsockopt(self, _option: int, _value: int) -> None:
        """No option of a real socket means anything here."""

    def getsockopt(self, option: int) -> int:
        """There is never a part after the body."""
        assert option == zmq.RCVMORE
        return 1 if self._body is not None else 0

    def bind(self, endpoint: str) -> None:
        """From now on frames to this address come here."""
        self.endpoint = endpoint
        self.is_router = True
        self.network.listeners[endpoint] = self

    def connect(self, endpoint: str) -> None:
        """Where this DEALER's frames go."""
        self.endpoint = endpoint

    def send(self, body: bytes, _flags: int = 0) -> None:
        """DEALER: raises zmq.Again when nobody listens there."""
        listener = self.network.listeners.get(self.endpoint)
        if listener is None or listener.closed:
            raise Nothing
        self.network.carry(self, listener, body)

    def send_multipart(self, parts: Sequence[bytes], _flags: int = 0) -> None:
        """ROUTER: raises EHOSTUNREACH when the connection is gone."""
        route, body = parts
        dealer = self.routes.get(route)
        if dealer is None or (dealer.closed and not self.network.is_cut(self.host.name, dealer.host.name)):
            self.routes.pop(route, None)
            raise zmq.ZMQError(zmq.EHOSTUNREACH)
        self.network.carry(self, dealer, body)

    def recv(self, _flags: int = 0) -> bytes:
        """The next part: of a ROUTER the route, then the body. Raises zmq.Again when there is nothing."""
        if self._body is not None:
            body, self._body = self._body, None
            return body
        if not self.inbox:
            raise Nothing
        route, body = self.inbox.popleft()
        if not self.is_router:
            return body
        self._body = body
        return route

    def close(self, linger: int | None = None) -> None:
        """What is on its way to it is lost."""
        self.closed = True
        self.inbox.clear()
        if self.network.listeners.get(self.endpoint) is self:
            del self.network.listeners[self.endpoint]

    def take(self, source: SimulatedSocket, body: bytes) -> None:
        """A frame has arrived."""
        route = b""
        if self.is_router:  # it names its connections as they come
            route = self.names.get(source) or self.network.next_route()
            self.names[source] = route
            self.routes[route] = source
        self.inbox.append((route, body))
        self.host.wake()


class SimulatedContext:
    """What the sockets of one process come from."""

    def __init__(self, network: Network, host: Host) -> None:
        self._network = network
        self._host = host
        self.sockets: list[SimulatedSocket] = []

    def socket(self, _kind: int) -> SimulatedSocket:
        """A socket of either kind: what it is shows in what it is used for."""
        made = SimulatedSocket(self._network, self._host)
        self.sockets.append(made)
        return made

    def close(self) -> None:
        """The process has ended."""
        for socket in self.sockets:
            socket.close()


class Network:
    """All that is on its way."""

    def __init__(self, chance: Chance, scheduler: Scheduler, rates: Rates) -> None:
        self.listeners: dict[str, SimulatedSocket] = {}
        self.rates = rates
        self.cuts: set[tuple[str, str]] = set()  #: (from, to) that nothing passes
        self.frames = 0
        self.on_the_way: Counter[bool] = Counter()  #: by whether it holds more than beats
        self._chance = chance
        self._scheduler = scheduler
        self._routes = 0
        self._launched = 0
        self._arrived: dict[tuple[str, str], int] = {}  #: by (from, to): the youngest frame that has arrived
        self._sent: Counter[tuple[object, ...]] = Counter()

    def next_route(self) -> bytes:
        """A routing id that no connection had before."""
        self._routes += 1
        return b"\0" + self._routes.to_bytes(4, "big")

    def is_cut(self, source: str, target: str) -> bool:
        """Does nothing pass from the one to the other?"""
        return (source, target) in self.cuts

    def carry(self, source: SimulatedSocket, target: SimulatedSocket, body: bytes) -> None:
        """Send a frame on its way: or lose it, or send it twice, or late."""
        self.frames += 1
        messages = [message for _, message in _decode(body)]
        names = source.host.name, target.host.name
        scheduler = self._scheduler
        about: tuple[object, ...] = (*names, *map(_label, messages))
        self._sent[about] += 1
        about = (*about, self._sent[about])
        scheduler.seen("sent", *names, messages)
        if names in self.cuts:
            scheduler.seen("cut", *names, messages)
            return
        often = RARE_OFTEN if any(type(message) in RARE for message in messages) else 1
        bits = self._chance.bits("frame", *about)
        latency_us = LATENCY_US[0] + bits % (LATENCY_US[1] - LATENCY_US[0])
        for rate, kind in ((self.rates.loss, "lost"), (self.rates.delay, "delayed"), (self.rates.repeat, "repeated")):
            bits //= 1000
            if bits % 100_000 >= rate * often * 100_000 or not scheduler.happened(kind, f"{kind} {_key(about)}"):
                continue
            scheduler.seen(kind, *names, messages)
            if kind == "lost":
                return
            more_us = self._chance.bits(kind, *about)
            if kind == "delayed":
                latency_us += more_us % self.rates.max_delay_us
            else:
                self._launch(source, target, body, messages, latency_us + 1 + more_us % REPEAT_AFTER_US)
        self._launch(source, target, body, messages, latency_us)

    def _launch(
        self,
        source: SimulatedSocket,
        target: SimulatedSocket,
        body: bytes,
        messages: list[AnyMessage],
        latency_us: int,
    ) -> None:
        self._launched += 1
        number = self._launched
        matters = any(type(message) not in (Beat, Hello) for message in messages)
        self.on_the_way[matters] += 1

        def arrive() -> None:
            self.on_the_way[matters] -= 1
            names = source.host.name, target.host.name
            if names in self.cuts:
                self._scheduler.seen("cut", *names, messages)
                return
            # A server that was started again has the old one's address: what is late meets the new one.
            there = self.listeners.get(target.endpoint, target) if target.is_router else target
            if not there.closed:
                if number < self._arrived.get(names, 0):
                    self._scheduler.seen("overtaken", *names, messages)
                self._arrived[names] = max(number, self._arrived.get(names, 0))
                self._scheduler.seen("arrived", *names, messages)
                there.take(source, body)

        self._scheduler.at(self._scheduler.now_us + latency_us + source.host.network_stall_us, arrive)


def _label(message: AnyMessage) -> tuple[object, ...]:
    """What a frame is known by to chance: no chain value, time or position, which all depend on what was before."""
    id = getattr(message, "id", None) or getattr(getattr(message, "transfer", None), "id", None)
    return (type(message).__name__, id, getattr(message, "answer", None))


def _key(about: tuple[object, ...]) -> str:
    source, target, *labels, count = about
    told = ",".join(_told(*label) for label in labels if isinstance(label, tuple))
    return f"{source}>{target} {told} #{count}"


def _told(kind: str, id: bytes | None, answer: object) -> str:
    return kind + (f" {id.hex()[-4:]}" if id else "") + (f" {answer}" if isinstance(answer, str) else "")
