"""The way in: frames from an actor's ROUTER, told who sent them, checked, and put in line. What is refused is answered at once.

Whoever costs an actor time for nothing (frames that are no batch, messages it may not send, more than may wait) may do so
for a moment, and is put out when it goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable

import zmq

from zbank.clock import Clock
from zbank.errors import BadFrame
from zbank.protocol.codec import decode_batch
from zbank.protocol.messages import BRANCH, CLIENT, AnyMessage, Beat, Fault, Hello, Register
from zbank.transport.access import why_forbidden
from zbank.transport.door import Connection, Door
from zbank.transport.engine import OVERLOADED
from zbank.transport.fair import FULL, FairQueue
from zbank.transport.peers import UNKNOWN_VISITOR, Peers, Session, Visitor

MAX_DRAIN_FRAMES = 1024  #: drained at once; the rest waits in ZeroMQ's queues, and then in the senders'
MAX_DRAIN_BYTES = 4 << 20  #: drained at once; garbage costs up to 90 ms a MiB to tell from messages
MAX_DRAIN_US = 50_000  #: of one drain: between two of them everybody else gets a turn
MAX_ANSWERS = 16_384  #: that need no turn (faults, `busy`): with so many to send nothing more is drained
MAX_WASTED_US = 1_000_000  #: that one owner may cost for nothing at once,
STRANGERS = 3  #: times as much all those of one address may, where there are no keys,
WASTE_PER_S_US = 50_000  #: and in each second after that
REFUSAL_US = 100  #: what it takes to tell a refusal, above reading what is refused
MAX_WASTERS = 20_000  #: remembered

class Inbox:
    """What comes in at one ROUTER."""

    def __init__(
        self,
        router: zmq.Socket[bytes],
        peers: Peers,
        name: str,
        clock: Clock,
        door: Door | None,
        registers: Callable[[bytes, Session, int, Register], bool],
    ) -> None:
        """`name` is the actor's; `registers` binds a connection to the branch it speaks for, or refuses it. Without a door
        nobody's key is known and nobody is put out (the simulator)."""
        self._router = router
        self._registers = registers
        self._peers = peers
        self._name = name
        self._clock = clock
        self._door = door
        self.is_stopped = False  #: actors are to look for another coordinator: their heartbeats have no answer
        self.queue = FairQueue()
        self.answers: list[tuple[bytes, int, AnyMessage]] = []  #: that need no turn
        self._wasted: dict[Hashable, tuple[float, int]] = {}  #: by owner: microseconds, and as of when

    def drain(self, now_us: int) -> None:
        """Take in what waits, up to a limit."""
        taken_bytes = 0
        for _ in range(MAX_DRAIN_FRAMES):
            if taken_bytes >= MAX_DRAIN_BYTES or len(self.answers) >= MAX_ANSWERS or self.queue.waiting >= FULL:
                break
            try:
                route = self._router.recv(zmq.NOBLOCK)
            except zmq.Again:
                break
            taken_bytes += self._receive(route, now_us)
            if self._clock.now().mono_us - now_us > MAX_DRAIN_US:
                break

    def _receive(self, route: bytes, now_us: int) -> int:
        """One message of ZeroMQ's; gives its size."""
        session = self._peers.session(route, now_us)
        door = self._door
        visitor = UNKNOWN_VISITOR
        if door is None or (session is not None and session.key is None):
            body = self._router.recv()
        else:
            frame = self._router.recv(copy=False)
            body = frame.bytes
            if session is not None and session.key is not None and frame.get("User-Id") != session.key.public:
                session = None  # a peer may choose its routing id: somebody else's is of no use to it
            if session is None:
                visitor = self._peers.visitor(frame, door)
        begun_us = self._clock.now().mono_us
        told = len(self.answers)
        connection = visitor.connection if session is None else session.connection
        if connection is not None and door is not None:
            connection.taken_bytes += door.wire_bytes(len(body))
        if self._router.getsockopt(zmq.RCVMORE):
            self._too_many_frames(route, connection)
            is_good = False
        else:
            is_good = self._read(route, body, session, visitor, now_us)
        if not is_good and door is not None:
            refusals_us = (len(self.answers) - told) * REFUSAL_US
            self._waste(route, session, visitor, self._clock.now().mono_us - begun_us + refusals_us)
        return len(route) + len(body)

    def _too_many_frames(self, route: bytes, connection: Connection | None) -> None:
        count = 1
        while self._router.getsockopt(zmq.RCVMORE):
            size = len(self._router.recv())
            count += 1
            if self._door is not None and connection is not None:
                connection.taken_bytes += self._door.wire_bytes(size)
        self.answers.append((route, 0, Fault(code="bad_frame", detail=f"a message has one frame, this one has {count}")))

    def _read(self, route: bytes, body: bytes, session: Session | None, visitor: Visitor, now_us: int) -> bool:
        """Put a batch in line; False when something of it was for nothing."""
        try:
            envelopes = decode_batch(body)
        except BadFrame as error:
            self.answers.append((route, 0, Fault(code=error.code, detail=error.detail[:500])))
            return False
        is_good = True
        queue, answers = self.queue, self.answers
        for n, message in envelopes:
            if type(message) is Hello:
                if session is not None:
                    visitor = Visitor(session.key, session.connection)
                answers.append((route, n, self._peers.hello(route, message, now_us, visitor)))
                session = self._peers.session(route, now_us)
            elif session is None or type(message) not in session.allowed:
                answers.append((route, n, self._peers.refusal(session, message)))
                is_good = session is None and is_good
            elif type(message) is Beat:
                if not message.answer and (session.role == CLIENT or not self.is_stopped):
                    answers.append((route, n, Beat(True)))
            elif session.checked is not None and (why := why_forbidden(session.checked, self._name, message)):
                answers.append((route, n, Fault(code="forbidden", detail=why)))
                is_good = False
            elif session.role != BRANCH and not queue.has_room(session.owner):
                answers.append((route, n, OVERLOADED))
                is_good = False
            elif type(message) is not Register or self._registers(route, session, n, message):
                queue.add(session.owner, (session.sender, n, message))
        return is_good

    def _waste(self, route: bytes, session: Session | None, visitor: Visitor, cost_us: int) -> None:
        """Charge an owner for time that it cost for nothing, and put it out when it is too much."""
        key, connection = (visitor.key, visitor.connection) if session is None else (session.key, session.connection)
        now_us = self._clock.now().mono_us
        owner: Hashable = key.name if key is not None else route if connection is None else connection.address
        wasted_us, as_of_us = self._wasted.get(owner, (0.0, now_us))
        wasted_us = max(0.0, wasted_us - (now_us - as_of_us) * WASTE_PER_S_US / 1_000_000) + cost_us
        if len(self._wasted) >= MAX_WASTERS:
            self._wasted.clear()
        self._wasted[owner] = (wasted_us, now_us)
        if wasted_us <= MAX_WASTED_US * (1 if key is not None else STRANGERS):
            return
        who = "a connection" if key is None else f"{key.name} ({key.role})"
        if self._door is not None:
            self._door.tell(f"{who} is put out: it sends what is no message, what it may not send, or more than is taken")
            if key is not None:
                self._door.shut_out(key.public)
            for one in self._peers.connections(owner) if key is not None else ():
                self._door.put_out(one)
            if connection is not None:
                self._door.put_out(connection)

    def unread(self, route: bytes) -> None:
        """Answers cannot be sent: a client that does not read them is put out. An actor is left to its own time limits."""
        session = self._peers.session_of(route)
        if self._door is not None and session is not None and session.role != BRANCH and session.connection is not None:
            self._door.put_out(session.connection)
