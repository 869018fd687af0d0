"""A branch's own connections: to its coordinator, and to other branches when it is in doubt. The state of one link.

    greeting ── Welcome ──▶ (registering ── Registered ──▶) up
        ▲                            │
        └── hello_first, silence ────┴──────────────────────┘
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

import zmq

from zbank.domain.refusal import MAX_DETAIL_CHARS
from zbank.errors import BadFrame, FenceLost, Superseded
from zbank.protocol.codec import decode_batch, encode_frames
from zbank.protocol.machine import Sender
from zbank.protocol.messages import (
    BRANCH,
    COORDINATOR,
    OUT_OF_OFFICE,
    PROTOCOL_VERSION,
    REPLICA,
    AnyMessage,
    Beat,
    Fault,
    Hello,
    Register,
    Registered,
    RegisterReplica,
    Welcome,
)
from zbank.transport.access import ON_LINK
from zbank.transport.discovery import next_place
from zbank.transport.sockets import Dialer

BEAT_EVERY_US = 500_000
GREET_EVERY_US = 1_000_000
SILENT_AFTER_US = 3_000_000
TRY_US = 1_500_000  #: so long each of several places is tried; one where a replica answers, half as long
IDLE_AFTER_US = 60_000_000

log = logging.getLogger("zbank")

Envelope = tuple[int, AnyMessage]
GREETING = "greeting"
REGISTERING = "registering"
UP = "up"


class Link:
    """One DEALER, and what was said over it. Messages for a link that is not up are dropped: all are repeated in time."""

    def __init__(
        self,
        dialer: Dialer,
        endpoint: str,
        hello: Hello,
        role: str,
        register: Callable[[str], Register | RegisterReplica] | None = None,
        name: str = "",
        announced: Callable[[], Sequence[str]] | None = None,
    ) -> None:
        """`role` is what must answer there, under `name` if it is given; `register` gives, for a coordinator's name, what
        to say after Welcome. `announced` tells where else it may be: while nobody answers, all places are tried in turn."""
        self.endpoint = endpoint  #: where it is tried now
        self._told_endpoint = endpoint
        self._announced = announced
        self.role = role
        self.name = name  #: of who answers, at the latest from its Welcome
        self._wanted_name = name
        self.state = GREETING
        self._was_up = False  #: and nobody was told yet that it is so no more
        self.used_us = 0  #: when something was last sent on purpose
        self._dialer = dialer
        self._hello = hello
        self._register = register
        self._sender = Sender("", role, "")
        self._heard_us: int | None = None
        self._tried_us: int | None = None  #: since when it is tried where it is tried now
        self._sent_us = 0
        self._beat_us = 0
        self._refusal = ""  #: what a coordinator that serves nothing said, since all places were tried
        self._replica_at = ""  #: where a replica was found in its place
        self.complaint = ""  #: why the link does not come up, as last said in the log; "" = nothing is wrong
        self.socket = dialer.dealer(endpoint, role, name)

    def send(self, envelopes: list[Envelope], now_us: int) -> None:
        """Send a batch, if the link is up."""
        if self.state == UP:
            self.used_us = now_us
            self._put(envelopes, now_us)

    def _put(self, envelopes: list[Envelope], now_us: int) -> None:
        try:
            for body in encode_frames(envelopes):
                self.socket.send(body, zmq.NOBLOCK)
            self._sent_us = now_us
        except zmq.Again:
            pass  # not connected, or a peer that does not read: everything here is sent again in time

    def receive(self, now_us: int, limit: int) -> list[tuple[Sender, int, AnyMessage]]:
        """What arrived for the actor; greetings are dealt with here. Raises FenceLost when another has our office."""
        batch: list[tuple[Sender, int, AnyMessage]] = []
        while len(batch) < limit:
            try:
                body = self.socket.recv(zmq.NOBLOCK)
            except zmq.Again:
                break
            if self.socket.getsockopt(zmq.RCVMORE):
                self.socket.recv_multipart()
                continue
            try:
                envelopes = decode_batch(body)
            except BadFrame as error:
                log.warning("%s sent a bad frame: %s", self.endpoint, error)
                continue
            self._heard_us = now_us
            for n, message in envelopes:
                if type(message) in ON_LINK[self.role] and not self._greeted(message, now_us):
                    batch.append((self._sender, n, message))
        return batch

    def _greeted(self, message: AnyMessage, now_us: int) -> bool:
        """Deal with what belongs to the link itself; False for what is the actor's."""
        if isinstance(message, Welcome):
            self._welcome(message, now_us)
            return True
        if isinstance(message, Registered):
            if self.state != UP:  # else it is news of the directory
                log.info("registered with the %s at %s", self.role, self.endpoint)
            self.state = UP
            self.complaint = self._refusal = self._replica_at = ""
            return False
        if isinstance(message, Fault):
            self._fault(message, now_us)
            return True
        return isinstance(message, Beat)

    def _welcome(self, message: Welcome, now_us: int) -> None:
        if message.role == REPLICA and self._announced is not None:  # it may lead one day
            if self._replica_at != self.endpoint:
                log.info("%s at %s is a replica: it has not taken the place of the %s", message.name, self.endpoint, self.role)
            self._replica_at = self.endpoint
            self._tried_us = min(self._tried_us or now_us, now_us - TRY_US // 2)
            return
        if message.role != self.role:
            self._complain(f"a {message.role} answers at {self.endpoint}, not a {self.role}: check the address")
            return
        if self._wanted_name not in ("", message.name):
            self._complain(f"{message.name} answers at {self.endpoint}, not {self._wanted_name}: check the address")
            return
        self.name = message.name
        self._sender = Sender(message.name, message.role, message.name)
        if self._register is None:
            self.state = UP
            return
        self.state = REGISTERING
        self._put([(0, self._register(message.name))], now_us)

    def _fault(self, message: Fault, now_us: int) -> None:
        if self.role == COORDINATOR and message.code == "fence_lost":  # no other branch has a say in that
            raise FenceLost(message.detail)
        if self.role == COORDINATOR and message.code == "superseded":
            raise Superseded(message.detail)
        if message.code == "hello_first":  # it was restarted, or forgot us
            if self.state != GREETING:
                self._was_up = self._was_up or self.state == UP  # should it never take us again, that is a loss
                self.state = GREETING
                self._put([(0, self._hello)], now_us)
            return
        text = f"{self.endpoint}: {message.code}: {message.detail}"
        if message.code == OUT_OF_OFFICE:  # often for a moment only
            self._refusal = text
            if self.state == UP:  # it took us in before it stopped: else its refusals would keep us there for ever
                self.state, self._was_up = REGISTERING, True
        else:
            self._complain(text)

    def _complain(self, text: str) -> None:
        text = text[:MAX_DETAIL_CHARS]  # it becomes an alarm, which has to fit the status
        if text != self.complaint:
            self.complaint = text
            log.error(text)

    def tick(self, now_us: int) -> bool:
        """Greet, beat, and begin anew after silence. True when the link just went down."""
        if self._heard_us is None:
            self._heard_us = now_us
        if self._tried_us is None or self.state == UP:
            self._tried_us = now_us
        if self._dialer.is_lost(self.socket):  # it may have a new key
            self._renew_socket()
        silent = now_us - self._heard_us > SILENT_AFTER_US
        # Who greets and takes nobody in has stopped, or is not the one: where there is another place, it is tried.
        useless = now_us - self._tried_us > TRY_US
        announced = self._announced() if self._announced is not None and (silent or useless) else ()
        if silent or (announced and {self._told_endpoint, *announced} != {self.endpoint}):
            was_up, self._was_up = self._was_up or self.state == UP, False
            place = next_place(self._told_endpoint, announced, self.endpoint)
            if not was_up and place == self._told_endpoint:  # all have been tried
                self._complain(self._refusal or self._no_answer(announced))
                self._refusal = ""
            self.endpoint = place
            self._renew_socket()
            self.state = GREETING
            self._heard_us = self._tried_us = now_us
            self._sent_us = 0
            return was_up
        if useless and self._refusal:
            self._complain(self._refusal)
        if self.state != UP:
            if now_us - self._sent_us >= GREET_EVERY_US:
                self._put([(0, self._hello)], now_us)
        elif now_us - self._beat_us >= BEAT_EVERY_US:
            self._beat_us = now_us
            self._put([(0, Beat(False))], now_us)
        return False

    def _no_answer(self, announced: Sequence[str]) -> str:
        tried = dict.fromkeys([self._told_endpoint, *announced])
        places = " or ".join([place for place in tried if place != self._replica_at] or tried)
        if self._replica_at in tried and places != self._replica_at:
            places += f" (at {self._replica_at} is a replica of it, which was not promoted)"
        hint = "check the address, the port and the firewall"
        if self._announced is not None and not announced:
            hint += f"; no other {self.role} of this cluster announces itself on the local network"
        return f"no answer from {places}: is the {self.role} running there? If so, {hint}"

    def _renew_socket(self) -> None:
        """Begin with a new socket. Where there is none to be had, the old one goes on trying."""
        try:
            socket = self._dialer.dealer(self.endpoint, self.role, self._wanted_name)
        except zmq.ZMQError as error:
            self._complain(f"no new connection to {self.endpoint} can be made: {error.strerror}")
            return
        self.close()
        self.socket = socket

    def idle(self, now_us: int) -> bool:
        """Nothing was sent on purpose for long."""
        return now_us - self.used_us > IDLE_AFTER_US

    def close(self) -> None:
        """Close the socket; what is unsent is lost."""
        self._dialer.close(self.socket)


def branch_hello(cluster: str, name: str) -> Hello:
    """How a branch greets."""
    return Hello(PROTOCOL_VERSION, cluster, BRANCH, name)



