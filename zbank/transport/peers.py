"""Who is connected to an actor's ROUTER: sessions, and which connection stands for which actor. No sockets here."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

from msgspec import Struct

from zbank.protocol.machine import Sender
from zbank.protocol.messages import CLIENT, PROTOCOL_VERSION, AnyMessage, Fault, Hello, Welcome
from zbank.transport.access import ON_SERVER, UNTIL_BOUND, Kinds

MAX_SESSIONS = 20_000
SILENT_AFTER_US = 3_000_000


class Session(Struct):
    """One connection that said Hello."""

    sender: Sender
    role: str
    name: str
    allowed: Kinds
    heard_us: int  #: monotonic


class Peers:
    """The sessions of one actor, the longest unheard of first; it gives way when there are too many."""

    def __init__(self, role: str, cluster: str, welcome: Callable[[], Welcome]) -> None:
        self._role = role
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

    def route(self, name: str) -> bytes | None:
        """The connection that stands for an actor."""
        return self._routes.get(name)

    def hello(self, route: bytes, message: Hello, now_us: int) -> Welcome | Fault:
        """Begin a session, or say why not."""
        fault = self._hello_refusal(message) or self._change_refusal(route, message)
        if fault is not None:
            return fault
        allowed = UNTIL_BOUND.get((self._role, message.role)) or ON_SERVER[self._role, message.role]
        # A client is answered by its connection; an actor gets its name as address once it has registered.
        caller = "" if message.role == CLIENT else message.name
        session = Session(Sender(route, message.role, caller), message.role, message.name, allowed, now_us)
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
        if (self._role, message.role) not in ON_SERVER:
            detail = f"a {self._role} takes no connection of role {message.role[:20]!r}"
            return Fault(code="not_for_me", detail=detail)
        return None

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
            before.allowed = UNTIL_BOUND[self._role, before.role]
        session.sender = session.sender._replace(address=session.name)
        session.allowed = ON_SERVER[self._role, session.role]
        self._routes[session.name] = route

    def drop(self, route: bytes) -> str | None:
        """Forget a connection; gives the actor's name if it stood for one."""
        session = self._sessions.pop(route, None)
        if session is None or self._routes.get(session.name) != route:
            return None
        del self._routes[session.name]
        return session.name

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
        if type(message) in ON_SERVER[self._role, session.role]:
            return Fault(code="hello_first", detail="register first: this connection stands for no branch (any more)")
        detail = f"a {self._role} does not take {type(message).__name__} from a {session.role}"
        return Fault(code="not_for_me", detail=detail)
