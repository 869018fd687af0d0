"""An attacker's connection: it says what it likes, by whatever key it has got hold of."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self

import zmq

from tests.acceptance.cluster import Cluster, wait_until
from zbank import Client
from zbank.errors import NoAnswer, Unreachable, ZbankError
from zbank.protocol.codec import decode_batch, encode_batch
from zbank.protocol.messages import CLIENT, PROTOCOL_VERSION, AnyMessage, Fault, Hello, StatusInfo, Welcome
from zbank.transport.keyfolder import Keys
from zbank.transport.keys import Pair
from zbank.transport.sockets import _unconnected, make_dealer

ANSWER_MS = 20_000
NOTHING_MS = 400  #: so long to wait for what must not come
STILL_S = 0.5  #: journals at rest stand still for so long: the coordinator notes an end with its next tick, of 0.1 s


class Intruder:
    """A raw DEALER to one actor of a cluster."""

    def __init__(
        self,
        cluster: Cluster,
        at: str,
        key: str | Pair | None = None,
        server: str | None = None,
        routing_id: bytes = b"",
    ) -> None:
        """`key`: a name among the cluster's keys, a pair, or None = none. `server`: the key to expect; None = the actor's.
        `routing_id`: the one to ask for; b"" = the server gives one."""
        self.context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        pair = key
        if isinstance(key, str):
            assert cluster.keys is not None
            pair = Keys(cluster.keys, key).pair
        assert pair is None or isinstance(pair, Pair)
        if pair is not None and server is None:
            assert cluster.keys is not None
            server = Keys(cluster.keys, at).pair.public
        self.socket = make_dealer(self.context, cluster.endpoints[at], pair, server or "")
        if routing_id:
            self.socket.close(linger=0)
            self.socket = _unconnected(self.context, cluster.endpoints[at], pair, server or "")
            self.socket.setsockopt(zmq.ROUTING_ID, routing_id)
            self.socket.connect(cluster.endpoints[at])

    def gets_in(self) -> bool:
        """The handshake ends well."""
        return bool(self.socket.poll(ANSWER_MS, zmq.POLLOUT))

    def stays_out(self) -> bool:
        """No handshake ends well."""
        return not self.socket.poll(NOTHING_MS, zmq.POLLOUT)

    def greet(self, role: str = CLIENT, name: str = "") -> Any:
        """Say Hello."""
        return self.ask(Hello(PROTOCOL_VERSION, "", role, name))

    def greeted(self, role: str = CLIENT, name: str = "") -> Self:
        """Say Hello, and be welcome."""
        answer = self.greet(role, name)
        assert isinstance(answer, Welcome), answer
        return self

    def say(self, *messages: AnyMessage) -> None:
        """Send a frame."""
        assert self.socket.poll(ANSWER_MS, zmq.POLLOUT), "no connection"
        self.socket.send(encode_batch(list(enumerate(messages, 1))))

    def hear(self, limit_ms: int = ANSWER_MS) -> list[AnyMessage]:
        """The next frame; [] when none comes."""
        return [message for _, message in decode_batch(self.socket.recv())] if self.socket.poll(limit_ms) else []

    def ask(self, message: AnyMessage) -> Any:
        """Send one message; the first one of the next frame."""
        self.say(message)
        heard = self.hear()
        assert heard, "no answer"
        return heard[0]

    def refused(self, message: AnyMessage) -> str:
        """Send one message, which must be answered by a Fault; its code."""
        answer = self.ask(message)
        assert isinstance(answer, Fault), answer
        return answer.code

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.context.destroy(linger=0)


@contextmanager
def watching_money(cluster: Cluster, *, and_rows: bool = True) -> Iterator[None]:
    """Whatever is done within: afterwards the books are the same, to the cent and to the row."""
    before = books_at_rest(cluster)
    yield
    after = books(cluster)
    assert {name: what for name, what in after.items() if and_rows or "/" in name} == {
        name: what for name, what in before.items() if and_rows or "/" in name
    }


def books_at_rest(cluster: Cluster) -> dict[str, Any]:
    """The books when nothing is under way, and all that there was has been noted."""
    seen: dict[str, Any] = {}
    since_s = 0.0

    def stand_still() -> bool:
        nonlocal seen, since_s
        with cluster.client() as bank:
            is_moving = any(actor.in_flight for actor in statuses(bank))
        now = books(cluster)
        if is_moving or now != seen:
            seen, since_s = now, time.monotonic()
        return time.monotonic() - since_s > STILL_S

    wait_until(stand_still, what="the end of what runs")
    return seen


def books(cluster: Cluster) -> dict[str, Any]:
    """All balances, and where every branch's journal stands."""
    with cluster.client() as bank:
        found: dict[str, Any] = {account.account: account.balance for account in bank.accounts()}
        for actor in statuses(bank):
            assert not actor.total_minor
            found[f"rows of {actor.name}"] = actor.seq
    return found


def statuses(bank: Client) -> list[StatusInfo]:
    """How all actors do: who has much to do may answer a first question too late."""
    found: list[StatusInfo] = []

    def all_answer() -> bool:
        try:
            actors = bank.status()
        except ZbankError:
            return False
        found[:] = [actor for actor in actors if isinstance(actor, StatusInfo)]
        return len(found) == len(actors)

    wait_until(all_answer, what="the status of every actor")
    return found


def met(bank: Client) -> Client:
    """The client, once somebody has answered at its address: who has much to do may need longer than it tries at first."""

    def answers() -> bool:
        try:
            return bool(bank.contact_status().name)
        except (NoAnswer, Unreachable):
            return False

    wait_until(answers, what="a first answer")
    return bank
