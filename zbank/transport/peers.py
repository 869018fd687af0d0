"""Who is connected to an actor's ROUTER: sessions, and which connection stands for which actor. No sockets here."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable
from typing import NamedTuple

import zmq
from msgspec import Struct

from zbank.protocol.machine import Sender
from zbank.protocol.messages import BRANCH, BRIDGE, CLIENT, PROTOCOL_VERSION, REPLICA, AnyMessage, Fault, Hello, Welcome
from zbank.transport.access import ANYBODY, ON_SERVER, UNTIL_BOUND, Kinds
from zbank.transport.door import Connection, Door
from zbank.transport.keyfolder import Keys
from zbank.transport.keys import PEOPLE, Key

MAX_SESSIONS = 20_000
SILENT_AFTER_US = 3_000_000


class Visitor(NamedTuple):
    """Who a frame comes from, before any Hello."""

    key: Key | None  #: None where there are no keys, and for one that is not good any more
    connection: Connection | None


UNKNOWN_VISITOR = Visitor(None, None)


class Session(Struct):
    """One connection that said Hello."""

    sender: Sender
    role: str  #: as it said: CLIENT, BRANCH or REPLICA
    name: str
    right: str  #: its column in the table of who may send what
    allowed: Kinds
    heard_us: int  #: monotonic
    owner: Hashable  #: whose messages these are
    key: Key | None = None
    connection: Connection | None = None

    checked: Key | None = None  #: by which each message is looked at: whose accounts, in whose name


class Peers:
    """The sessions of one actor, the longest unheard of first; it gives way when there are too many."""

    def __init__(self, role: str, cluster: str, welcome: Callable[[], Welcome], keys: Keys | None = None) -> None:
        self._role = role
        self._keys = keys
        self._cluster = cluster
        self._welcome = welcome
        self._sessions: OrderedDict[bytes, Session] = OrderedDict()
        self._routes: dict[str, bytes] = {}

    def session(self, route: bytes, now_us: int) -> Session | None:
        """The session of a connection, marked as heard of."""
        session = self._sessions.get(route)
        if session is not None:
            session.heard_us = now_us
            self._sessions.move_to_end(route)
        return session

    def session_of(self, route: bytes) -> Session | None:
        """The session of a connection, without marking it."""
        return self._sessions.get(route)

    def visitor(self, frame: zmq.Frame, door: Door) -> Visitor:
        """Who sent a frame, by what libzmq knows of its connection."""
        try:
            key = None if self._keys is None else self._keys.good(str(frame.get("User-Id")))
            fd = frame.get(zmq.SRCFD)
        except zmq.ZMQError:  # nothing is known of who speaks ZMTP 1.0, which without keys anybody may
            return UNKNOWN_VISITOR
        return Visitor(key, door.connection(fd) if isinstance(fd, int) else None)

    def connections(self, owner: Hashable) -> Iterable[Connection]:
        """All connections of an owner that said Hello."""
        return [one.connection for one in self._sessions.values() if one.owner == owner and one.connection is not None]

    def actors(self) -> frozenset[Hashable]:
        """Names of the actors that are there: each is the owner of what it sends."""
        return frozenset(self._routes)

    def over(self) -> list[bytes]:
        """Connections whose key is not good any more."""
        if self._keys is None:
            return []
        return [route for route, one in self._sessions.items() if one.key is None or self._keys.good(one.key.public) is None]

    def route(self, name: str) -> bytes | None:
        """The connection that stands for an actor."""
        return self._routes.get(name)

    def hello(
        self, route: bytes, message: Hello, now_us: int, visitor: Visitor = UNKNOWN_VISITOR
    ) -> Welcome | Fault:
        """Begin a session, or say why not."""
        key = visitor.key
        fault = self._hello_refusal(message) or self._key_refusal(message, key) or self._change_refusal(route, message)
        if fault is not None:
            return fault
        right = key.role if key is not None else ANYBODY if message.role == CLIENT else message.role
        # A client is answered by its connection; an actor gets its name as address once it has registered.
        caller = message.name if message.role != CLIENT else "" if key is None else key.name
        session = Session(
            sender=Sender(route, message.role, caller),
            role=message.role,
            name=message.name,
            right=right,
            allowed=UNTIL_BOUND.get((self._role, right)) or ON_SERVER[self._role, right],
            heard_us=now_us,
            owner=message.name if message.role == BRANCH else route if key is None else key.name,
            key=key,
            connection=visitor.connection,
            checked=None if key is None or key.role == BRIDGE else key,
        )
        self._sessions[route] = session
        self._sessions.move_to_end(route)
        while len(self._sessions) > MAX_SESSIONS:
            self.drop(next(known for known in self._sessions if self._routes.get(self._sessions[known].name) != known))
        return self._welcome()

    def _hello_refusal(self, message: Hello) -> Fault | None:
        if message.version != PROTOCOL_VERSION:
            detail = f"this {self._role} speaks protocol version {PROTOCOL_VERSION}, the caller {message.version}"
            return Fault(code="wrong_version", detail=detail + ": install the same zbank on both sides")
        if message.cluster not in ("", self._cluster):
            detail = f"this {self._role} belongs to cluster {self._cluster!r}, the caller asks for {message.cluster[:40]!r}"
            return Fault(code="wrong_cluster", detail=detail + ": check the address or the config file")
        if message.role not in (CLIENT, BRANCH, REPLICA):
            detail = f"a {self._role} takes no connection of role {message.role[:20]!r}"
            return Fault(code="not_for_me", detail=detail)
        return None

    def _key_refusal(self, message: Hello, key: Key | None) -> Fault | None:
        """A key speaks for what it was made for, and for nobody else."""
        if self._keys is None:
            return None
        if key is None:
            return Fault(code="forbidden", detail="this key is not good (any more): ask an operator for another one")
        fits = key.role in PEOPLE if message.role == CLIENT else (key.role, key.name) == (message.role, message.name)
        if fits:
            return None
        said = "a client" if message.role == CLIENT else f"{message.role} {message.name}"
        return Fault(code="forbidden", detail=f"the key of {key.role} {key.name} does not speak for {said}")

    def _change_refusal(self, route: bytes, message: Hello) -> Fault | None:
        """A connection that stands for an actor does so to its end: its name would lead to somebody else."""
        known = self._sessions.get(route)
        if known is None or self._routes.get(known.name) != route or (message.role, message.name) == (known.role, known.name):
            return None
        return Fault(code="not_for_me", detail=f"this connection stands for {known.name}: open another one")

    def bind(self, route: bytes, session: Session) -> None:
        """From now on this connection stands for the actor it named; its messages carry the name as address."""
        before = self._sessions.get(self._routes.get(session.name, b""))
        if before is not None and before is not session:  # it has come back by another connection: this one is over
            before.allowed = UNTIL_BOUND[self._role, before.right]
        session.sender = session.sender._replace(address=session.name)
        session.allowed = ON_SERVER[self._role, session.right]
        self._routes[session.name] = route

    def drop(self, route: bytes) -> str | None:
        """Forget a connection; gives the actor's name if it stood for one."""
        session = self._sessions.pop(route, None)
        if session is None or self._routes.get(session.name) != route:
            return None
        del self._routes[session.name]
        return session.name

    def bound(self) -> list[bytes]:
        """All connections that stand for actors."""
        return list(self._routes.values())

    def silent(self, now_us: int) -> list[bytes]:
        """Connections that stand for actors and were not heard of for too long."""
        return [
            route
            for route in self._routes.values()
            if now_us - self._sessions[route].heard_us > SILENT_AFTER_US
        ]

    def refusal(self, session: Session | None, message: AnyMessage) -> Fault:
        """Why this message is not taken from this connection."""
        if session is None:
            return Fault(code="hello_first", detail="say Hello first: this connection is not known (any more)")
        if type(message) in ON_SERVER[self._role, session.right]:
            return Fault(code="hello_first", detail="register first: this connection stands for no branch (any more)")
        if session.key is None:
            detail = f"a {self._role} does not take {type(message).__name__} from a {session.role}"
            return Fault(code="not_for_me", detail=detail)
        detail = f"the key of {session.key.name}, a {session.right}'s, may not send {type(message).__name__} to a {self._role}"
        return Fault(code="forbidden", detail=detail)
