"""The shell around an actor: one thread, one ROUTER, a few links; drain, turn, send (DESIGN §1).

Everything that can be decided without a socket is elsewhere: the turn in `engine`, sessions in `peers`, links in `links`.
"""

from __future__ import annotations

import gc
import logging
import signal
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import FrameType

import zmq

from zbank.clock import Clock
from zbank.errors import BadFrame
from zbank.protocol.codec import decode_batch, encode_frames
from zbank.protocol.machine import Address, Effect
from zbank.protocol.messages import (
    CLIENT,
    AnyMessage,
    Beat,
    Fault,
    Hello,
    Register,
    Registered,
)
from zbank.transport.engine import OVERLOADED, Engine, Incoming
from zbank.transport.links import Link
from zbank.transport.peers import Peers, Session

TICK_MS = 100
TURN_MESSAGES = 256  #: decided and forced together; smaller turns let the stages of a 2PC overlap, larger ones force less
MAX_DRAIN_MESSAGES = 8192  #: taken on at once; clients are told `busy` for more
MAX_DRAIN_FRAMES = 4096  #: drained at once; the rest waits in ZeroMQ's queues, and then in the senders'
MAX_DRAIN_BYTES = 4 << 20  #: drained for one turn; garbage costs up to 90 ms a MiB to tell from messages
MAX_TURN_ANSWERS = 16_384  #: that need no turn (faults, `busy`): with so many to send nothing more is drained
MAX_PEER_LINKS = 64
MAX_REFUSED = 100  #: branches whose refusal is remembered
DROPPED_EVERY_US = 1_000_000
GC_THRESHOLDS = (50_000, 20, 100)  #: hardly anything here forms cycles; looking for them cost up to a tenth of a turn

log = logging.getLogger("zbank")


class ActorLoop:
    """Runs one actor until it is told to stop."""

    def __init__(
        self,
        engine: Engine,
        peers: Peers,
        router: zmq.Socket[bytes],
        clock: Clock,
        *,
        coordinators: Sequence[Link] = (),
        connect: Callable[[str, str], Link] | None = None,
        endpoints: Mapping[str, str] | None = None,
        refuse_registration: Callable[[Register], Fault | None] | None = None,
    ) -> None:
        """A branch has links to its `coordinators`, and `connect`s to other branches when it must ask them: `endpoints` are
        those it knows before a coordinator tells. A coordinator says by `refuse_registration` which it does not take.
        """
        self._engine = engine
        self._peers = peers
        self._router = router
        self._clock = clock
        self._coordinators = coordinators
        self._connect = connect
        self._refuse_registration = refuse_registration
        self._links: dict[str, Link] = {}  #: to other branches, by name
        self._endpoints = dict(endpoints or {})  #: of other branches, by name
        self._poller = zmq.Poller()
        self._poller.register(router, zmq.POLLIN)
        self._refused: dict[str, str] = {}  #: by branch: why it cannot register
        self._stopping = False
        self._next_tick_us = 0
        self._dropped_answers = 0  #: not told in the log yet
        self._dropped_told_us = 0
        self._answers: list[tuple[bytes, int, AnyMessage]] = []  #: that need no turn

    def stop(self, _signal: int = 0, _frame: FrameType | None = None) -> None:
        """Finish the running turn, then return from `run`. Fit to be a signal handler."""
        self._stopping = True

    def run(self) -> None:
        """Serve until `stop`. Raises StoreError (FenceLost among them) when the process must end."""
        signal.signal(signal.SIGTERM, self.stop)
        signal.signal(signal.SIGINT, self.stop)
        gc.collect()
        gc.freeze()  # what start-up built lives as long as the process: do not look at it again
        gc.set_threshold(*GC_THRESHOLDS)
        while not self._stopping:
            self._wait()
            self.step()
        for link in self._all_links():
            link.close()

    def step(self) -> None:
        """Take in all that has arrived, answer it, and see to what is due. Does not wait; raises as `run` does."""
        now = self._clock.now()
        batch = self._drain(now.mono_us)
        for first in range(0, len(batch), TURN_MESSAGES):
            self._send(self._engine.turn(batch[first : first + TURN_MESSAGES], self._clock.now()))
        if now.mono_us >= self._next_tick_us:
            self._next_tick_us = now.mono_us + TICK_MS * 1000
            self._send(self._tick())
        elif self._answers:
            self._send(())
        self._engine.maintain()

    def _wait(self) -> None:
        """Until something arrives or the next tick is due."""
        for link in self._all_links():
            if link.socket not in self._poller:  # made anew, or first seen
                self._poller.register(link.socket, zmq.POLLIN)
        for socket, _ in list(self._poller.sockets):
            if socket.closed:
                self._poller.unregister(socket)
        if self._poller.poll(0):
            return
        self._engine.maintain(idle=True)
        wait_ms = max(0, -((self._clock.now().mono_us - self._next_tick_us) // 1000))  # rounded up: no idle spinning
        self._poller.poll(min(wait_ms, TICK_MS))

    def _all_links(self) -> list[Link]:
        return [*self._coordinators, *self._links.values()]

    # --- in --------------------------------------------------------------------------------------------------------

    def _drain(self, now_us: int) -> list[Incoming]:
        """All that waits, up to the turn's limit."""
        batch: list[Incoming] = []
        for link in self._all_links():
            batch += link.receive(now_us, MAX_DRAIN_MESSAGES - len(batch))
        for _, _, message in batch:
            if isinstance(message, Registered):
                self._endpoints.update((info.name, info.endpoint) for info in message.branches)
        taken_bytes = 0
        for _ in range(MAX_DRAIN_FRAMES):
            if taken_bytes >= MAX_DRAIN_BYTES or len(self._answers) >= MAX_TURN_ANSWERS or len(batch) >= MAX_DRAIN_MESSAGES:
                break
            try:
                frames = self._router.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                break
            taken_bytes += sum(map(len, frames))
            self._receive(frames, batch, now_us)
        return batch

    def _receive(self, frames: list[bytes], batch: list[Incoming], now_us: int) -> None:
        route = frames[0]
        if len(frames) != 2:
            fault = Fault(code="bad_frame", detail=f"a message has one frame, this one has {len(frames) - 1}")
            self._answers.append((route, 0, fault))
            return
        try:
            envelopes = decode_batch(frames[1])
        except BadFrame as error:
            self._answers.append((route, 0, Fault(code=error.code, detail=error.detail[:500])))
            return
        session = self._peers.session(route, now_us)
        for n, message in envelopes:
            if type(message) is Hello:
                self._answers.append((route, n, self._peers.hello(route, message, now_us)))
                session = self._peers.session(route, now_us)
                continue
            if session is None or type(message) not in session.allowed:
                self._answers.append((route, n, self._peers.refusal(session, message)))
            elif type(message) is Beat:
                if not message.answer:
                    self._answers.append((route, n, Beat(True)))
            elif len(batch) >= MAX_DRAIN_MESSAGES and session.role == CLIENT:
                self._answers.append((route, n, OVERLOADED))
            elif type(message) is not Register or self._registers(route, session, n, message):
                batch.append((session.sender, n, message))

    def _registers(self, route: bytes, session: Session, n: int, message: Register) -> bool:
        """Bind the connection to the branch it speaks for, or refuse it."""
        assert self._refuse_registration is not None
        fault = self._refuse_registration(message)
        if fault is None and message.info.name != session.name:
            fault = Fault(code="malformed", detail=f"{session.name} cannot register as {message.info.name}")
        if fault is not None:
            self._refuse(session.name, fault)
            self._answers.append((route, n, fault))
            return False
        if self._refused.pop(session.name, None) is not None:
            self._engine.machine.alarms.pop(f"refused {session.name}", None)
        self._peers.bind(route, session)
        return True

    def _refuse(self, name: str, fault: Fault) -> None:
        """It asks again and again: say it once in the log, and in the status until it is taken."""
        if self._refused.get(name) == fault.detail or len(self._refused) >= MAX_REFUSED:
            return
        self._refused[name] = fault.detail
        text = f"branch {name} is refused: {fault.detail}"
        log.error(text)
        self._engine.machine.alarms[f"refused {name}"] = text

    # --- out -------------------------------------------------------------------------------------------------------

    def _send(self, effects: Iterable[Effect]) -> None:
        """One frame a peer for the whole batch."""
        batches: dict[Address, list[tuple[int, AnyMessage]]] = defaultdict(list)
        for route, n, answer in self._answers:
            batches[route].append((n, answer))
        self._answers = []
        for effect in effects:
            batches[effect.to].append((effect.n, effect.message))
        now_us = self._clock.now().mono_us
        for to, envelopes in batches.items():
            if isinstance(to, bytes):
                self._send_by_route(to, envelopes)
            else:
                self._send_by_name(to, envelopes, now_us)

    def _send_by_name(self, name: str, envelopes: list[tuple[int, AnyMessage]], now_us: int) -> None:
        route = self._peers.route(name)
        if route is not None:
            self._send_by_route(route, envelopes)
            return
        link = next((link for link in self._coordinators if link.name == name), None) or self._link(name)
        if link is not None:
            link.send(envelopes, now_us)
        # Else nobody of that name is there: what matters is sent again when it comes.

    def _link(self, name: str) -> Link | None:
        link = self._links.get(name)
        endpoint = self._endpoints.get(name)
        if link is None and endpoint is not None and self._connect is not None and len(self._links) < MAX_PEER_LINKS:
            try:
                link = self._links[name] = self._connect(name, endpoint)
            except zmq.ZMQError as error:
                log.error("branch %s cannot be asked at %s: %s", name, endpoint, error.strerror)
                return None
            link.used_us = self._clock.now().mono_us
        return link

    def _send_by_route(self, route: bytes, envelopes: list[tuple[int, AnyMessage]]) -> None:
        try:
            for body in encode_frames(envelopes):
                self._router.send_multipart((route, body), zmq.NOBLOCK)
        except zmq.Again:
            self._dropped(len(envelopes))
        except zmq.ZMQError as error:
            if error.errno != zmq.EHOSTUNREACH:
                raise
            self._lost(route)

    def _dropped(self, count: int) -> None:
        """A peer does not read. Who never reads must not fill the log either: one line a second for all of them."""
        self._dropped_answers += count
        now_us = self._clock.now().mono_us
        if now_us - self._dropped_told_us >= DROPPED_EVERY_US:
            log.warning("%d answers are dropped: a peer does not read them", self._dropped_answers)
            self._dropped_told_us = now_us
            self._dropped_answers = 0

    def _lost(self, route: bytes) -> None:
        name = self._peers.drop(route)
        if name is not None:
            log.warning("%s is gone", name)
            self._engine.machine.peer_down(name)

    # --- time ------------------------------------------------------------------------------------------------------

    def _tick(self) -> list[Effect]:
        now = self._clock.now()
        for route in self._peers.silent(now.mono_us):
            self._lost(route)
        for link in self._coordinators:
            self._tick_coordinator(link, now.mono_us)
        for name, link in list(self._links.items()):
            link.tick(now.mono_us)
            if link.idle(now.mono_us):
                link.close()
                del self._links[name]
        return self._engine.tick(now)

    def _tick_coordinator(self, link: Link, now_us: int) -> None:
        machine = self._engine.machine
        if link.tick(now_us):
            log.warning("coordinator %s is silent: local work goes on", link.name)
            machine.peer_down(link.name)
        if link.complaint:
            machine.alarms[f"coordinator {link.endpoint}"] = link.complaint
        else:
            machine.alarms.pop(f"coordinator {link.endpoint}", None)
