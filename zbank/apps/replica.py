"""The wiring of a replica: store, state machine, links to its branch and to the coordinator, its end of the feed, loop."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import NamedTuple

import zmq

from zbank.apps.former import open_tail
from zbank.apps.restoring import posted_branch, posted_coordinator
from zbank.apps.serving import World, reachable_at, role_named, serve, welcome
from zbank.config import COORDINATOR_NAME
from zbank.errors import InvalidConfig
from zbank.protocol.coordinator_replica import CoordinatorReplica
from zbank.protocol.following import Follower
from zbank.protocol.machine import Machine
from zbank.protocol.messages import BRANCH, COORDINATOR, PROTOCOL_VERSION, REPLICA, Hello, RegisterReplica
from zbank.protocol.replica import BranchReplica
from zbank.storage.sqlite import Identity, JournalStore
from zbank.transport.engine import Engine
from zbank.transport.feed import Subscriber
from zbank.transport.keyfolder import Keys
from zbank.transport.links import Link
from zbank.transport.loop import ActorLoop
from zbank.transport.peers import Peers
from zbank.transport.sockets import Dialer


class ReplicaSettings(NamedTuple):
    """What one replica process needs to know."""

    name: str
    of: str  #: the branch that it follows, or the coordinator
    cluster: str
    endpoint: str  #: where others reach it; port 0 = the one that is found free
    bind: str  #: where it listens
    coordinators: tuple[str, ...]  #: their endpoints; clients are sent to the first
    currency: str  #: the branch's; "" for a coordinator's
    data: Path  #: directory of the data file `<name>.db`
    branches: Mapping[str, str]  #: endpoints of branches, as far as the config names them
    keys: Path | None = None  #: folder of the keys; None = the bank has none
    acks: str = ""  #: the replica that is wanted as the branch's synchronous one; "" = none
    standby: str = ""  #: where a replica of the coordinator is, that may have taken its place; "" = nowhere, or it is this one
    former: Path | None = None  #: data file of the branch that this process was before a replica took its place

    @property
    def identity(self) -> Identity:
        """Whose data it is: the branch's, as a replica has it."""
        return Identity(cluster=self.cluster, role=REPLICA, name=self.of)


def run(settings: ReplicaSettings) -> int:
    """Serve until SIGTERM or SIGINT; gives the exit code. Raises TakesOver when this replica is promoted."""
    return serve(
        settings.data,
        settings.identity,
        settings.bind,
        partial(wire, settings),
        keys_folder=settings.keys,
        file=settings.name,
        key=settings.name,
    )


def wire(
    settings: ReplicaSettings, world: World, store: JournalStore, router: zmq.Socket[bytes]
) -> tuple[Engine, ActorLoop]:
    """Join the parts of a replica. Raises CorruptStore for books that do not sum to zero, and what the store raises."""
    store.check_sums()
    endpoint = reachable_at(settings.endpoint, router)

    def build(thrown_away: Machine | None) -> Machine:
        before = thrown_away if isinstance(thrown_away, Follower) else None
        can_lead = _can_lead(settings)
        if settings.of == COORDINATOR_NAME:
            told = posted_coordinator(store, settings.of)
            where = settings.name, endpoint, store.instance
            return CoordinatorReplica(*where, told, store.chain, before, can_lead=can_lead)
        state = posted_branch(store, settings.of, settings.currency)
        return BranchReplica(settings.name, endpoint, store.instance, state, store.chain, before, can_lead=can_lead)

    def register(_coordinator: str) -> RegisterReplica:
        assert isinstance(engine.machine, Follower)
        return RegisterReplica(engine.machine.info(world.clock.now()))

    def connect(peer: str, to: str) -> Link:
        return Link(dialer, to, hello, BRANCH, name=peer)

    elsewhere = (lambda: (settings.standby,)) if settings.standby else None
    dialer = Dialer(world.context, world.keys, may_wait=False)
    engine = world.engine(store, build, world.clock)
    if settings.former is not None:
        tail = open_tail(settings.former, Identity(settings.cluster, BRANCH, settings.of), store)
        if tail is not None:
            engine.on_rows = tail.look
    hello = Hello(PROTOCOL_VERSION, settings.cluster, REPLICA, settings.name)
    greeting = partial(welcome, store, settings.currency, settings.coordinators[0], settings.name)
    loop = ActorLoop(
        engine,
        Peers(REPLICA, settings.cluster, greeting, world.keys),
        router,
        world.clock,
        coordinators=[
            Link(dialer, to, hello, COORDINATOR, register=register, announced=elsewhere) for to in settings.coordinators
        ],
        connect=connect,
        endpoints=settings.branches,
        door=world.door,
        keys=world.keys,
        feed=Subscriber(dialer, settings.of) if world.has_feed and settings.of != COORDINATOR_NAME else None,
    )
    return engine, loop


def _can_lead(settings: ReplicaSettings) -> bool:
    """It has a key of whom it follows that is good: one that was rotated away, or revoked, would leave it shut out."""
    if settings.keys is None:
        return True
    try:
        Keys(settings.keys, settings.of, role=role_named(settings.of), cluster=settings.cluster)
    except InvalidConfig:
        return False
    return True
