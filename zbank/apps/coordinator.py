"""The wiring of a coordinator: store, state machine, loop."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import zmq

from zbank.apps.serving import serve, welcome
from zbank.clock import Clock
from zbank.protocol.coordinator import Coordinator
from zbank.protocol.coordinator_state import CoordinatorState
from zbank.protocol.machine import Machine
from zbank.protocol.messages import COORDINATOR, Fault, Register
from zbank.storage.sqlite import Identity, JournalStore
from zbank.transport.engine import Engine
from zbank.transport.loop import ActorLoop
from zbank.transport.peers import Peers

NAME = "coordinator"  #: a cluster has one; with several, each will have its own


class CoordinatorSettings(NamedTuple):
    """What a coordinator process needs to know."""

    cluster: str
    endpoint: str  #: where others reach it
    bind: str  #: where it listens
    data: Path  #: directory of the data file `coordinator.db`
    branches: tuple[str, ...]  #: names in the config file


def run(settings: CoordinatorSettings) -> int:
    """Serve until SIGTERM or SIGINT; gives the exit code."""
    identity = Identity(cluster=settings.cluster, role=COORDINATOR, name=NAME)

    def wire(store: JournalStore, router: zmq.Socket[bytes]) -> tuple[Engine, ActorLoop]:
        clock = Clock()

        def build(thrown_away: Machine | None) -> Machine:
            state = CoordinatorState(NAME)
            state.restore(store.meta, store.watermark, store.epoch, store.at_us, store.open_rows())
            before = thrown_away if isinstance(thrown_away, Coordinator) else None
            return Coordinator(state, before=before, configured=settings.branches)

        def refuse(message: Register) -> Fault | None:
            assert isinstance(engine.machine, Coordinator)
            return engine.machine.directory.refuse(message)

        engine = Engine(store, build, clock)
        peers = Peers(COORDINATOR, settings.cluster, lambda: welcome(store, "", settings.endpoint))
        return engine, ActorLoop(engine, peers, router, clock, refuse_registration=refuse)

    return serve(settings.data, identity, settings.bind, wire)
