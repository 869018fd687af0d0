"""The shell around an actor: one thread, one ROUTER, a few links; drain, turn, send (DESIGN §1).

Everything that can be decided without a socket is elsewhere: the turn in `engine`, sessions in `peers`, links in `links`.
"""

from __future__ import annotations

import gc
import logging
import signal
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from types import FrameType

import zmq

from zbank.clock import Clock
from zbank.protocol.codec import encode_frames
from zbank.protocol.machine import Address, Effect
from zbank.protocol.messages import CLIENT, FEED, REPLICA, AnyMessage, Fault, Register, Registered
from zbank.transport.access import only_own
from zbank.transport.door import Door
from zbank.transport.engine import Engine
from zbank.transport.feed import FeedEnd
from zbank.transport.inbox import Inbox
from zbank.transport.keyfolder import Keys
from zbank.transport.links import Link
from zbank.transport.peers import SILENT_AFTER_US, Peers, Session
from zbank.transport.sockets import listen_anew

TICK_MS = 100
TURN_MESSAGES = 256  #: decided and forced together; smaller turns let the stages of a 2PC overlap, larger ones force less
MAX_LINK_MESSAGES = 8192  #: taken from one link at once
KEYS_EVERY_US = 1_000_000
MAX_PEER_LINKS = 64
MAX_REFUSED = 100  #: branches whose refusal is remembered
REFUSED_FOR_US = 10_000_000  #: a branch that is refused asks again each second; who is silent for so long is gone
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
        door: Door | None = None,
        keys: Keys | None = None,
        feed: FeedEnd | None = None,
    ) -> None:
        """A branch has links to its `coordinators`, and `connect`s to other branches when it must ask them: `endpoints` are
        those it knows before a coordinator tells. A coordinator says by `refuse_registration` which it does not take.
        `keys` are this actor's, if the bank has any; the `door` decides who may connect. `feed` is its end of the feed.
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
        self._door = door
        self._keys = keys
        self._keys_seen_us = 0
        self._keyring = None if keys is None else keys.keyring
        self._answers_by = None if keys is None else keys.pair  #: what the ROUTER has
        self._feed = feed
        self._inbox = Inbox(router, peers, engine.name, clock, door, self._registers)
        self._poller = zmq.Poller()
        self._poller.register(router, zmq.POLLIN)
        self._refusals: list[Effect] = []  #: of registrations: to be told
        self._refused: dict[str, tuple[str, int]] = {}  #: by branch: why it cannot register, and when it last tried
        self._told: frozenset[str] = frozenset()  #: alarms that stand in the log
        self._stopping = False
        self._next_tick_us = 0
        self._stepped_us = clock.now().mono_us
        self._dropped_answers = 0  #: not told in the log yet
        self._dropped_told_us = 0

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

    def close(self) -> None:
        """Close all that it has opened; the ROUTER is not its own."""
        for link in self._all_links():
            link.close()
        if self._feed is not None:
            self._feed.close()

    def step(self) -> None:
        """Take in all that has arrived, answer it, and see to what is due. Does not wait; raises as `run` does."""
        while not self._stopping:
            now = self._clock.now()
            if now.mono_us - self._stepped_us > SILENT_AFTER_US:  # all have given up meanwhile, whatever still waits from them
                for route in self._peers.bound():
                    self._lost(route)
            self._stepped_us = now.mono_us
            self._drain(now.mono_us)
            self._inbox.is_stopped = self._engine.has_stopped
            if self._refusals:
                refusals, self._refusals = self._refusals, []
                self._send(self._engine.said(refusals, self._clock.now()))
            batch = self._inbox.queue.take(TURN_MESSAGES, self._actors())
            if batch:
                self._send(self._engine.turn(batch, self._clock.now()))
            if now.mono_us >= self._next_tick_us:
                self._next_tick_us = now.mono_us + TICK_MS * 1000
                self._send(self._tick())
            elif self._inbox.answers:
                self._send(())
            self._engine.maintain()
            if not self._inbox.queue.waiting:
                return

    def _wait(self) -> None:
        """Until something arrives or the next tick is due."""
        feed = None if self._feed is None else self._feed.socket
        for one in [*(link.socket for link in self._all_links()), *([] if feed is None else [feed])]:
            if one not in self._poller:  # made anew, or first seen
                self._poller.register(one, zmq.POLLIN)
        for socket, _ in list(self._poller.sockets):
            if socket.closed:
                self._poller.unregister(socket)
        if self._poller.poll(0):
            return
        self._engine.maintain(idle=True)
        wait_ms = max(0, -((self._clock.now().mono_us - self._next_tick_us) // 1000))  # rounded up: no idle spinning
        gather_ms = TICK_MS if self._feed is None else self._feed.flush()
        self._poller.poll(min(wait_ms, TICK_MS, gather_ms))
        if self._feed is not None:
            self._feed.flush()

    def _all_links(self) -> list[Link]:
        return [*self._coordinators, *self._links.values()]

    # --- in --------------------------------------------------------------------------------------------------------

    def _drain(self, now_us: int) -> None:
        """Take in what waits, from the links and from the door."""
        queue = self._inbox.queue
        for link in self._all_links():
            if link.socket.closed:  # what came over one before says that its branch is elsewhere
                continue
            for incoming in link.receive(now_us, MAX_LINK_MESSAGES):
                if isinstance(incoming[2], Registered):
                    self._learn(incoming[2])
                queue.add(link.name, incoming)
        if self._feed is not None and not queue.has_any(FEED):  # else it waits, or is lost, where it is bounded
            for incoming in self._feed.receive():
                queue.add(FEED, incoming)
        self._inbox.drain(now_us)

    def _actors(self) -> frozenset[Hashable]:
        return self._peers.actors() | {link.name for link in self._all_links()} | {FEED}

    def _learn(self, message: Registered) -> None:
        """Where everybody is."""
        for info in message.branches:
            if self._endpoints.get(info.name) != info.endpoint:
                self._endpoints[info.name] = info.endpoint
                old = self._links.pop(info.name, None)
                if old is not None:
                    old.close()
        if self._feed is not None:
            self._feed.learn(message.feed)

    def _registers(self, route: bytes, session: Session, n: int, message: Register) -> bool:
        """Bind the connection to the branch it speaks for, or refuse it."""
        assert self._refuse_registration is not None
        fault = self._refuse_registration(message)
        if fault is None and message.info.name != session.name:
            fault = Fault(code="malformed", detail=f"{session.name} cannot register as {message.info.name}")
        if fault is not None:
            self._refuse(session.name, fault)
            self._refusals.append(Effect(route, n, fault))
            return False
        self._forget_refusal(session.name)
        self._peers.bind(route, session)
        return True

    def _refuse(self, name: str, fault: Fault) -> None:
        """It asks again and again: say it once in the log, and in the status until it is taken, or gives up."""
        before = self._refused.get(name)
        if before is None and len(self._refused) >= MAX_REFUSED:
            return
        self._refused[name] = (fault.detail, self._clock.now().mono_us)
        if before is not None and before[0] == fault.detail:
            return
        text = f"branch {name} is refused: {fault.detail}"
        log.error(text)
        self._engine.machine.alarms[f"refused {name}"] = text

    def _forget_refusal(self, name: str) -> None:
        if self._refused.pop(name, None) is not None:
            self._engine.machine.alarms.pop(f"refused {name}", None)

    # --- out -------------------------------------------------------------------------------------------------------

    def _send(self, effects: Iterable[Effect]) -> None:
        """One frame a peer for the whole batch."""
        batches: dict[Address, list[tuple[int, AnyMessage]]] = defaultdict(list)
        for route, n, answer in self._inbox.answers:
            batches[route].append((n, answer))
        self._inbox.answers.clear()
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
        session = self._peers.session_of(route)
        if session is not None and session.key is not None and session.key.role == CLIENT:
            envelopes = [(n, only_own(session.key, message)) for n, message in envelopes]
        try:
            for body in encode_frames(envelopes):
                self._router.send_multipart((route, body), zmq.NOBLOCK)
                if self._door is not None and session is not None and session.connection is not None:
                    session.connection.given_bytes += self._door.wire_bytes(len(body))
        except zmq.Again:
            self._dropped(len(envelopes))
            self._inbox.unread(route)
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
        session = self._peers.session_of(route)
        if session is not None and session.role == CLIENT:
            self._inbox.queue.forget(session.owner, route)
        name = self._peers.drop(route)
        if name is not None:
            if not self._engine.has_stopped:  # else they come and go, and look for another one
                log.warning("%s is gone", name)
            self._engine.machine.peer_down(name, self._clock.now())

    # --- time ------------------------------------------------------------------------------------------------------

    def _tick(self) -> list[Effect]:
        now = self._clock.now()
        if self._door is not None:
            self._door.check()
        if self._keys is not None and now.mono_us - self._keys_seen_us >= KEYS_EVERY_US:
            self._keys_seen_us = now.mono_us
            self._follow_keys(self._keys)
        if self._feed is not None:
            self._feed.tick()
        for route in self._peers.silent(now.mono_us):
            self._lost(route)
        for name, (_, tried_us) in list(self._refused.items()):
            if now.mono_us - tried_us > REFUSED_FOR_US:
                self._forget_refusal(name)
        for link in self._coordinators:
            self._tick_coordinator(link, now.mono_us)
        for name, link in list(self._links.items()):
            link.tick(now.mono_us)
            if link.idle(now.mono_us):
                link.close()
                del self._links[name]
        effects = self._engine.tick(now)
        if self._engine.machine.role == REPLICA:
            self._tell_alarms(self._engine.machine.alarms)
        return effects

    def _tell_alarms(self, alarms: Mapping[str, str]) -> None:
        """Say once in the log that a replica has other rows than its branch: the lists only show that it lags."""
        for code in ("ahead", "diverged"):
            if code in alarms and code not in self._told:
                log.error("%s", alarms[code])
        self._told = frozenset(alarms)

    def _follow_keys(self, keys: Keys) -> None:
        """Take over what was changed in the list: who is not good any more is put out, and our own new key answers."""
        keys.refresh()
        if keys.keyring is not self._keyring:  # whoever dials looks, too
            log.info("the list of keys was changed: it is followed")
        self._keyring = keys.keyring
        if self._feed is not None:  # also when a key has come to its end by itself
            self._feed.renew(keys)
        self._send(self._engine.keys_seen(keys.noted(), self._clock.now()))
        if keys.pair != self._answers_by:  # whoever dialled meanwhile may have seen the new one first
            door = self._door
            before = [] if door is None else [(door, one) for one in door.connections()]
            listen_anew(self._router, keys.pair)
            self._answers_by = keys.pair
            for door, connection in before:  # they call again at once, and find the new key
                door.put_out(connection)
            log.info("the key of %s was rotated: the new one answers from now on", keys.name)
        for route in self._peers.over():
            session = self._peers.session_of(route)
            if session is not None and session.connection is not None and self._door is not None:
                self._door.put_out(session.connection)
            name = session.key.name if session is not None and session.key is not None else "?"
            log.warning("the key of %s is not good any more: its connection is ended", name)
            self._lost(route)

    def _tick_coordinator(self, link: Link, now_us: int) -> None:
        machine = self._engine.machine
        before = link.endpoint
        silent = link.tick(now_us)
        if link.endpoint != before:  # it is looked for elsewhere
            machine.alarms.pop(f"coordinator {before}", None)
        if silent:
            log.warning("coordinator %s is silent: local work goes on", link.name)
            machine.peer_down(link.name, self._clock.now())
        if link.complaint:
            machine.alarms[f"coordinator {link.endpoint}"] = link.complaint
        else:
            machine.alarms.pop(f"coordinator {link.endpoint}", None)
