"""The wiring of a branch: store, state machine, link to the coordinator, loop."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import zmq

from zbank.apps.restoring import posted_branch
from zbank.apps.serving import World, reachable_at, serve, welcome
from zbank.clock import Clock
from zbank.domain.legs import CASH, CLEARING, Leg
from zbank.domain.money import currency as currency_of
from zbank.ids import id_from_key
from zbank.protocol import retiring
from zbank.protocol.branch_meta import CoordinatorMark
from zbank.protocol.branch_state import BranchState
from zbank.protocol.codec import record_kind
from zbank.protocol.fold import Row
from zbank.protocol.machine import Machine, Sender
from zbank.protocol.messages import (
    BRANCH,
    CLIENT,
    COORDINATOR,
    BranchInfo,
    OpenAccount,
    Register,
    Transfer,
    Welcome,
)
from zbank.protocol.participant import Participant
from zbank.protocol.records import Retired
from zbank.storage.sqlite import Identity, JournalStore
from zbank.transport.engine import Engine, Incoming
from zbank.transport.feed import Publisher
from zbank.transport.links import Link, branch_hello
from zbank.transport.loop import ActorLoop
from zbank.transport.peers import Peers
from zbank.transport.sockets import Dialer

RETIRED_KIND = record_kind(Retired("", ""))
log = logging.getLogger("zbank")

PRELOAD = (("1001", 10_000), ("1002", 5_000))  #: account numbers and opening balances in whole units


class BranchSettings(NamedTuple):
    """What one branch process needs to know."""

    name: str
    cluster: str
    endpoint: str  #: where others reach it
    bind: str  #: where it listens
    coordinators: tuple[str, ...]  #: their endpoints; clients are sent to the first
    currency: str
    data: Path  #: directory of the data file `<name>.db`
    peers: Mapping[str, str]  #: endpoints of the other branches, as far as the config names them
    preload: bool  #: open the demo accounts in an empty branch
    drills: bool = False  #: with the gates of `zbank drill`
    keys: Path | None = None  #: folder of the keys; None = the bank has none
    file: str = ""  #: name of its data file; "" = the branch's
    acks: str = ""  #: the replica that is wanted as the synchronous one; "" = none
    looks: bool = False  #: for its coordinator on the local network, while that does not answer where it was told
    standby: str = ""  #: where a replica of the coordinator is, that may have taken its place

    @property
    def wanted_acks(self) -> str:
        """As `acks`; none where it is this very process, which has taken the branch's place."""
        return "" if self.acks == self.file else self.acks

    @property
    def identity(self) -> Identity:
        """Whose data it is."""
        return Identity(cluster=self.cluster, role=BRANCH, name=self.name)


def run(settings: BranchSettings) -> int:
    """Serve until SIGTERM or SIGINT; gives the exit code. Raises Superseded when a replica has taken this branch's place."""
    return serve(
        settings.data,
        settings.identity,
        settings.bind,
        partial(wire, settings),
        drills=settings.drills,
        keys_folder=settings.keys,
        file=settings.file,
    )


def wire(
    settings: BranchSettings, world: World, store: JournalStore, router: zmq.Socket[bytes]
) -> tuple[Engine, ActorLoop]:
    """Join the parts of a branch. Taking office is the first thing that the engine does.

    Raises CorruptStore for books that do not sum to zero, and what the store raises.
    """
    store.check_sums()
    endpoint = reachable_at(settings.endpoint, router)
    state = BranchState(settings.name, settings.currency)

    def build(thrown_away: Machine | None) -> Machine:
        nonlocal state
        state = posted_branch(store, settings.name, settings.currency)
        before = thrown_away if isinstance(thrown_away, Participant) else None
        return Participant(state, (CASH, CLEARING), len(settings.coordinators), settings.acks, before)

    def register(coordinator: str) -> Register:
        mark = state.coordinators.get(coordinator, CoordinatorMark(0, 0))
        word = retiring.followed(state)
        info = BranchInfo(settings.name, endpoint, settings.currency, store.instance, store.epoch, up=True, acks=word)
        return Register(info, mark.epoch, mark.number, settings.wanted_acks, mark.word)

    def connect(peer: str, endpoint: str) -> Link:
        return Link(dialer, endpoint, hello, BRANCH, name=peer)

    dialer = Dialer(world.context, world.keys, may_wait=False)
    engine = world.engine(store, build, world.clock)
    feed = Publisher(dialer, settings.name) if world.has_feed else None
    engine.publish = None if feed is None else feed.publish
    engine.on_rows = partial(_tell_retired, settings.name)
    for notice in retiring.notice(state):
        log.warning("%s", notice)
    if settings.preload and state.retired is None:
        preload(engine, world.clock, settings.name, settings.currency)
    hello = branch_hello(settings.cluster, settings.name)
    announced = _other_places(settings)
    links = [
        Link(dialer, to, hello, COORDINATOR, register=register, announced=announced) for to in settings.coordinators
    ]

    def greeting() -> Welcome:
        return welcome(store, settings.currency, links[0].endpoint)

    loop = ActorLoop(
        engine,
        Peers(BRANCH, settings.cluster, greeting, world.keys),
        router,
        world.clock,
        coordinators=links,
        connect=connect,
        endpoints=settings.peers,
        door=world.door,
        keys=world.keys,
        feed=feed,
    )
    return engine, loop


def _other_places(settings: BranchSettings) -> Callable[[], Sequence[str]] | None:
    """Where else the coordinator may be; None = nowhere."""
    told = (settings.standby,) if settings.standby else ()
    if not settings.looks:
        return (lambda: told) if told else None
    look = _look(settings.cluster)
    return lambda: (*told, *look())


def _look(cluster: str) -> Callable[[], Sequence[str]]:
    """Begin to look for the coordinator; gives what tells where it was found."""
    from zbank.transport.multicast import Search

    search = Search(cluster)
    search.places()  # the first look takes as long as the link's first try
    return search.places


def _tell_retired(name: str, rows: Sequence[Row]) -> None:
    """Rows are on the disk: the last one that can change anything is told in the log."""
    if any(row.kind == RETIRED_KIND for row in rows):
        log.warning(
            "branch %s is retired: it was empty, and is closed for good. This process only answers questions from now on; "
            "stop it when nobody needs its history any more, and keep its data",
            name,
        )


def preload(engine: Engine, clock: Clock, branch: str, code: str) -> None:
    """Open the demo accounts and pay their balances in, unless that was done before: the ids are fixed, so it happens
    once; a branch that has other accounts already is left alone."""
    teller = Sender(b"", CLIENT, "")
    about = engine.machine.status(engine.about(clock.now()), clock.now())
    if about.accounts > 2:
        return
    unit = currency_of(code)
    batch: list[Incoming] = []
    for number, whole in PRELOAD:
        amount_minor = whole * 10**unit.exponent
        opening = OpenAccount(id_from_key(f"preload/{branch}/{number}/open"), number, "Demo", code, 0)
        legs = (Leg(branch, CASH, -amount_minor), Leg(branch, number, amount_minor))
        deposit = Transfer(id_from_key(f"preload/{branch}/{number}/deposit"), legs, code, "opening balance")
        batch += [(teller, 0, opening), (teller, 0, deposit)]
    engine.turn(batch, clock.now())  # one force: a branch with some of it would count as filled
