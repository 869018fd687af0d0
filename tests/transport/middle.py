"""A coordinator's process as far as its feed goes, with a branch's and a replica's end."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from pathlib import Path

import zmq

from tests.transport.behind_a_door import Socket
from zbank.apps import keymaking
from zbank.apps.chaos.ports import free_ports
from zbank.protocol.fold import Row
from zbank.protocol.messages import Feed, Rows
from zbank.transport.door import Door
from zbank.transport.feed import GATHER_MS, FeedProxy, Publisher, Subscriber
from zbank.transport.keyfolder import Keys
from zbank.transport.sockets import Dialer, make_router

CHAIN = bytes(32)
LIMIT_MS = 20_000  #: for what must come


def row(seq: int, size: int = 100) -> Row:
    return Row(seq, 1, seq, "transferred", bytes(16), bytes(size), seq.to_bytes(32, "big"))


class Middle:
    """A coordinator's process as far as the feed goes, and the two others."""

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder
        first, second, third = free_ports(3, random.Random())
        self.binds = f"tcp://127.0.0.1:{first}", f"tcp://127.0.0.1:{second}"
        self.router_bind = f"tcp://127.0.0.1:{third}"
        self.others: zmq.Context[Socket] = zmq.Context()
        self.publisher = Publisher(Dialer(self.others, self._keys("Mumbai"), may_wait=False), "Mumbai")
        self.subscriber = Subscriber(Dialer(self.others, self._keys("stand-in"), may_wait=False), "Mumbai")
        self.seq = 0
        self.begin()

    def _keys(self, name: str) -> Keys | None:
        return None if self.folder is None else Keys(self.folder, name)

    def begin(self) -> None:
        """The coordinator's process starts."""
        self.keys = self._keys("coordinator")
        self.context: zmq.Context[Socket] = zmq.Context()
        self.router = make_router(self.context, self.router_bind, None if self.keys is None else self.keys.pair)
        self.door = Door(self.context, self.router, self.keys)
        self.feed = FeedProxy(self.context, *self.binds, self.keys, self.door)

    def end(self) -> None:
        """It ends."""
        self.feed.close()
        self.router.close(linger=0)
        self.door.close()
        self.context.destroy(linger=0)

    def close(self) -> None:
        self.publisher.close()
        self.subscriber.close()
        self.end()
        self.others.destroy(linger=0)

    def learn(self) -> None:
        """Both are told where the feed is."""
        for one in (self.publisher, self.subscriber):
            one.learn(Feed(*self.binds))

    def tick(self) -> None:
        for one in (self.publisher, self.subscriber, self.feed):
            one.tick()

    def passes(self, limit_s: float = 20.0) -> bool:
        """What is published arrives, sooner or later."""
        end_s = time.monotonic() + limit_s
        while time.monotonic() < end_s:
            self.tick()
            self.seq += 1
            self.publisher.publish([row(self.seq)], CHAIN)
            time.sleep(GATHER_MS / 1000)
            self.publisher.flush()
            if self.subscriber.socket is not None and self.subscriber.socket.poll(100):
                heard = [message for _, _, message in self.subscriber.receive()]
                if any(isinstance(message, Rows) and message.seq == self.seq for message in heard):
                    return True
        return False

    def published(self, publish: Callable[[], None], last_seq: int) -> list[Rows]:
        """All that this makes arrive, to this row."""
        assert self.passes()
        time.sleep(GATHER_MS / 1000)
        publish()
        time.sleep(GATHER_MS / 1000)
        self.publisher.flush()
        heard: list[Rows] = []
        while self.subscriber.socket is not None and self.subscriber.socket.poll(LIMIT_MS):
            heard += [message for _, _, message in self.subscriber.receive() if isinstance(message, Rows)]
            if heard[-1].after + len(heard[-1].rows) == last_seq:
                break
        assert self.subscriber.socket is not None
        assert not self.subscriber.socket.poll(50)
        return heard


def keys_in(folder: Path) -> Path:
    keymaking.make_all(folder, "demo", ("Mumbai", "Delhi"))
    keymaking.add(folder, "stand-in", "replica", ())
    return folder
