"""A small bank server on a real ROUTER whose answers a test scripts."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import TypeVar

import zmq

from zbank.errors import NoAnswer, Unreachable
from zbank.protocol.codec import decode_batch, encode_batch
from zbank.protocol.messages import (
    BRANCH,
    COORDINATOR,
    AccountInfo,
    AnyMessage,
    Beat,
    BranchInfo,
    Cancel,
    Directory,
    Fault,
    GetAccount,
    GetDirectory,
    Hello,
    Outcome,
    Place,
    Transfer,
    Welcome,
)
from zbank.transport.sockets import make_router

WAIT_S = 20.0
T = TypeVar("T")
Script = Callable[["ScriptedServer", int, AnyMessage], list[tuple[int, AnyMessage]] | None]


def committed(id: bytes) -> Outcome:
    """The usual good answer."""
    return Outcome(id, "committed", None, 7, 1_000_000, False, True, (Place("Delhi", 12),))


def account_info(number: str) -> AccountInfo:
    """An account with 100.00."""
    return AccountInfo(number, "Asha", "INR", "open", 10_000, 0, 0, 1_000_000)


class ScriptedServer:
    """A branch (or, with `directory`, a coordinator) in a thread. `script` may answer a request in another way: a list of
    envelopes to send (empty: stay silent), or None for the usual answer. Sessions are kept as real servers keep them."""

    def __init__(
        self,
        name: str = "Mumbai",
        *,
        role: str = BRANCH,
        port: int = 0,
        currency: str = "INR",
        cluster: str = "demo",
        coordinator: str = "",
        directory: Callable[[], tuple[BranchInfo, ...]] = tuple,
        script: Script | None = None,
    ) -> None:
        """`port`: 0 = any; give one where another server comes after this one, for the system may give away what is free."""
        self.name, self.role, self.cluster = name, role, cluster
        self.currency = currency if role == BRANCH else ""
        self.coordinator, self.directory, self.script = coordinator, directory, script
        self.seen: list[AnyMessage] = []  #: all that arrived in a session, in order
        self.frames: list[int] = []  #: number of messages of each frame
        self.sessions: set[bytes] = set()
        self.strangers: list[type[AnyMessage]] = []  #: types of what came outside of a session
        self.context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self.router = bound_again(self.context, f"tcp://127.0.0.1:{port or '*'}")
        self.endpoint = self.router.getsockopt(zmq.LAST_ENDPOINT).rstrip(b"\0").decode()  # type: ignore[union-attr]
        self.port = int(self.endpoint.rpartition(":")[2])
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def __enter__(self) -> ScriptedServer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """Close the port."""
        self._stop.set()
        self._thread.join(WAIT_S)

    def count(self, kind: type) -> int:
        """How many messages of a type have arrived."""
        return sum(type(message) is kind for message in list(self.seen))

    def different(self, kind: type) -> int:
        """How many different messages of a type have arrived: one may come again when its answer is late."""
        return len({message for message in list(self.seen) if type(message) is kind})

    def wait_for(self, kind: type, count: int = 1) -> None:
        """Wait until so many messages of a type have arrived."""
        wait_until(lambda: self.count(kind) >= count, f"{count} {kind.__name__} at {self.name}")

    def info(self) -> BranchInfo:
        """This server's line of the directory."""
        return BranchInfo(self.name, self.endpoint, self.currency, b"i" * 16, 1, True)

    def _run(self) -> None:
        try:
            while not self._stop.is_set():
                if self.router.poll(5):
                    self._turn()
        finally:
            self.router.close(linger=0)
            self.context.term()

    def _turn(self) -> None:
        route, body = self.router.recv_multipart()
        envelopes = decode_batch(body)
        self.frames.append(len(envelopes))
        answers: list[tuple[int, AnyMessage]] = []
        for n, message in envelopes:
            answers += self._answers(route, n, message)
        if answers:
            try:
                self.router.send_multipart([route, encode_batch(answers)])
            except zmq.ZMQError as error:
                if error.errno != zmq.EHOSTUNREACH:  # who asked has left
                    raise

    def _answers(self, route: bytes, n: int, message: AnyMessage) -> list[tuple[int, AnyMessage]]:
        is_known = route in self.sessions  # now: the script may end sessions, as from the next message on
        scripted = self.script(self, n, message) if self.script is not None else None
        if isinstance(message, Hello):
            if scripted is None:
                self.sessions.add(route)
        elif not is_known:
            self.strangers.append(type(message))
            return [(n, Fault("hello_first", "say Hello first"))]
        self.seen.append(message)
        return self._usual(n, message) if scripted is None else scripted

    def _usual(self, n: int, message: AnyMessage) -> list[tuple[int, AnyMessage]]:
        match message:
            case Hello():
                who = (self.cluster, self.role, self.name, b"i" * 16, 1, self.currency, self.coordinator)
                return [(n, Welcome(1, *who))]
            case Beat():
                return [(n, Beat(True))]
            case Transfer(id=id) | Cancel(id=id):
                return [(n, committed(id))]
            case GetAccount(number=number):
                return [(n, account_info(number))]
            case GetDirectory():
                return [(n, Directory("main", self.directory()))]
        return [(n, Fault("not_for_me", "not in the script"))]


def coordinator_of(*servers: ScriptedServer, **more: object) -> ScriptedServer:
    """A coordinator whose directory names these branches, as they are at the moment of the question."""
    listed = list(servers)
    server = ScriptedServer(
        "main",
        role=COORDINATOR,
        directory=lambda: tuple(one.info() for one in listed),
        **more,  # type: ignore[arg-type]
    )
    return server


def bound_again(context: zmq.Context[zmq.Socket[bytes]], bind: str) -> zmq.Socket[bytes]:
    """A ROUTER at an address that somebody may just have closed: ZeroMQ gives it back a moment later."""
    end = time.monotonic() + WAIT_S
    while True:
        try:
            return make_router(context, bind)
        except zmq.ZMQError as error:
            if error.errno != zmq.EADDRINUSE or time.monotonic() > end:
                raise
            time.sleep(0.01)


def wait_until(condition: Callable[[], bool], what: str) -> None:
    """Ask again and again until it holds, or fail."""
    end = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < end, f"{what} did not happen within {WAIT_S} s"
        time.sleep(0.002)


def sooner_or_later(ask: Callable[[], T], fits: Callable[[T], bool]) -> T:
    """Ask again and again until the answer fits: for a client that gives up soon, also those who are there may be too slow."""
    end = time.monotonic() + WAIT_S
    while True:
        try:
            found = ask()
        except (NoAnswer, Unreachable):
            assert time.monotonic() < end, f"no answer within {WAIT_S} s"
            continue
        if fits(found):
            return found
        assert time.monotonic() < end, f"still {found!r} after {WAIT_S} s"
