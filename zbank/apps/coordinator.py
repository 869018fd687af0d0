"""The wiring of a coordinator: store, state machine, loop."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import zmq

from zbank.apps.restoring import posted_coordinator
from zbank.apps.serving import World, serve, start_feed, welcome
from zbank.config import COORDINATOR_NAME, Endpoint, parse_endpoint
from zbank.protocol.coordinator import Coordinator
from zbank.protocol.coordinator_state import CoordinatorState
from zbank.protocol.machine import Machine
from zbank.protocol.messages import COORDINATOR, Fault, Feed, Register
from zbank.storage.sqlite import Identity, JournalStore
from zbank.transport.engine import Engine
from zbank.transport.feed import FeedProxy
from zbank.transport.loop import ActorLoop
from zbank.transport.peers import Peers

log = logging.getLogger("zbank")


class CoordinatorSettings(NamedTuple):
    """What a coordinator process needs to know."""

    cluster: str
    endpoint: str  #: where others reach it
    bind: str  #: where it listens
    data: Path  #: directory of the data file `<name>.db`
    branches: tuple[str, ...]  #: names in the config file
    name: str = COORDINATOR_NAME  #: of several, each has its own
    drills: bool = False  #: with the gates of `zbank drill`
    keys: Path | None = None  #: folder of the keys; None = the bank has none
    feed_in: str = ""  #: where branches publish; "" = no feed
    feed_out: str = ""  #: where replicas subscribe
    acks: str = ""  #: the replica that is wanted as its own synchronous one; "" = none
    file: str = ""  #: name of its data file; "" = its own name

    @property
    def feed(self) -> Feed:
        """Where others find the feed: at this coordinator's host."""
        if not self.feed_in:
            return Feed()
        host = parse_endpoint(self.endpoint).host
        return Feed(*(str(Endpoint(host, parse_endpoint(bind).port)) for bind in (self.feed_in, self.feed_out)))

    @property
    def identity(self) -> Identity:
        """Whose data it is."""
        return Identity(cluster=self.cluster, role=COORDINATOR, name=self.name)


def run(settings: CoordinatorSettings) -> int:
    """Serve until SIGTERM or SIGINT; gives the exit code."""
    return serve(
        settings.data,
        settings.identity,
        settings.bind,
        partial(wire, settings),
        drills=settings.drills,
        keys_folder=settings.keys,
        file=settings.file,
        announce=partial(_announce, settings),
    )


def _announce(settings: CoordinatorSettings) -> Callable[[], None]:
    """Tell the local network where this coordinator is; gives what withdraws that."""
    from zbank.transport.discovery import Announcement
    from zbank.transport.multicast import Announcer

    host, port = parse_endpoint(settings.endpoint)
    return Announcer(Announcement(settings.cluster, host, port)).close


def wire(
    settings: CoordinatorSettings, world: World, store: JournalStore, router: zmq.Socket[bytes]
) -> tuple[Engine, ActorLoop]:
    """Join the parts of a coordinator. Taking office is the first thing that the engine does.

    Raises what the store raises.
    """

    def build(thrown_away: Machine | None) -> Machine:
        state = posted_coordinator(store, settings.name)
        before = thrown_away if isinstance(thrown_away, Coordinator) else None
        return Coordinator(state, before=before, configured=settings.branches, feed=settings.feed, wanted_acks=settings.acks)

    def refuse(message: Register) -> Fault | None:
        assert isinstance(engine.machine, Coordinator)
        fault = engine.machine.directory.refuse(message)
        if fault is None and not engine.has_stopped:  # else it cannot be taken in, and asks again and again
            _tell(engine.machine.state, message)
        return fault

    def _tell(state: CoordinatorState, message: Register) -> None:
        """Who is new, and who has moved: a mistyped name is seen here first."""
        info = message.info
        before = state.branches.get(info.name)
        if info.name in state.retired:
            log.info("branch %s has come, which was retired: it only answers questions", info.name)
        elif before is None:
            hint = "" if info.name in settings.branches else "; the config file here does not name it (zbank branches list)"
            log.info("branch %s at %s is new%s", info.name, info.endpoint, hint)
        elif before.endpoint != info.endpoint:
            log.info("branch %s has moved to %s, from %s", info.name, info.endpoint, before.endpoint)

    feed: FeedProxy | None = None
    if settings.feed_in:
        feed = start_feed(world, settings.feed_in, settings.feed_out)
    engine = world.engine(store, build, world.clock)
    peers = Peers(COORDINATOR, settings.cluster, partial(welcome, store, "", settings.endpoint), world.keys)
    loop = ActorLoop(
        engine,
        peers,
        router,
        world.clock,
        refuse_registration=refuse,
        door=world.door,
        keys=world.keys,
        feed=feed,
    )
    return engine, loop
