"""What the wiring of every actor shares: open the store, bind the port, run the loop, end with a telling exit code."""

from __future__ import annotations

import ipaddress
import logging
import resource
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import zmq

from zbank.clock import Clock
from zbank.config import data_file, parse_endpoint
from zbank.errors import CorruptStore, FenceLost, ForeignStore, StoreError, ZbankError
from zbank.ids import new_id
from zbank.protocol.messages import PROTOCOL_VERSION, Welcome
from zbank.storage.sqlite import Identity, JournalStore
from zbank.transport.engine import Engine
from zbank.transport.loop import ActorLoop
from zbank.transport.sockets import make_router

MAX_OPEN_FILES = 10_240  #: of one actor; each connection is one
EXIT_DONE = 0
EXIT_FAILED = 1  # starting again may help
EXIT_USAGE = 2  # starting again without a change does not help

log = logging.getLogger("zbank")


class CannotListen(ZbankError):
    """The address to listen on is in use, or not one of this machine's."""

    code = "cannot_listen"


class CannotDrill(ZbankError):
    """`--drills` where it has no place: whoever may open a gate may stop the bank."""

    code = "cannot_drill"


class World(NamedTuple):
    """What an actor stands in, beside its store: the simulator has one of its own."""

    clock: Clock
    context: zmq.Context[zmq.Socket[bytes]]
    engine: type[Engine] = Engine  #: what makes its turns


Wire = Callable[[World, JournalStore, zmq.Socket[bytes]], tuple[Engine, ActorLoop]]


def serve(data: Path, identity: Identity, bind: str, wire: Wire, *, drills: bool = False) -> int:
    """Run an actor until it is told to stop; gives the process's exit code. Says on stderr what went wrong.

    With `drills` the gates of `zbank drill` are built in; then it listens on this machine alone.
    """
    logging.basicConfig(stream=sys.stderr, format="%(levelname)s: %(message)s", level=logging.INFO)
    _allow_connections()
    try:
        world = World(Clock(), zmq.Context.instance(), _drill_engine(bind, identity, data) if drills else Engine)
        router = _listen(world.context, bind, identity)
        store = JournalStore.open(data_file(data, identity.name), identity, new_id())
        engine, loop = wire(world, store, router)
        log.info("%s serves at %s, epoch %d, %d records", identity, bind, store.epoch, store.seq)
        loop.run()
        engine.close()
        router.close()
        log.info("%s stopped", identity)
    except (ForeignStore, CorruptStore, FenceLost, CannotListen, CannotDrill) as error:
        return _failed(error, EXIT_USAGE)
    except StoreError as error:
        return _failed(error, EXIT_FAILED)
    return EXIT_DONE


def listens_here_only(bind: str) -> bool:
    """Nobody outside this machine can connect to what listens at this address."""
    host = parse_endpoint(bind).host.strip("[]")
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _drill_engine(bind: str, identity: Identity, data: Path) -> type[Engine]:
    """The engine with gates. Imported here, so that it is not even there without `--drills`."""
    if not listens_here_only(bind):
        raise CannotDrill(
            f"{identity} listens at {bind}, which others can reach: with --drills it must be an address of this machine "
            "alone, as in tcp://127.0.0.1:9100"
        )
    from zbank.apps.drills.control import DrillFault, socket_path
    from zbank.apps.drills.engine import DrillEngine

    try:
        socket_path(data)
    except DrillFault as error:
        raise CannotDrill(error.detail) from error
    return DrillEngine


def _allow_connections() -> None:
    """Let this process have as many connections open as the system lets it: the usual limit is 1024, on macOS 256."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MAX_OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, MAX_OPEN_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with suppress(OSError, ValueError):  # macOS has another, lower limit: then it stays as it is
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _failed(error: ZbankError, exit_code: int) -> int:
    log.error("%s: %s", error.code, error.detail)
    return exit_code


def _listen(context: zmq.Context[zmq.Socket[bytes]], bind: str, identity: Identity) -> zmq.Socket[bytes]:
    try:
        return make_router(context, bind)
    except zmq.ZMQError as error:
        if error.errno == zmq.EADDRINUSE:
            cure = "end what uses the port, or change"
        else:
            cure = "this machine has no such address: change"
        section = "coordinator" if identity.role == "coordinator" else f"branches.{identity.name}"
        raise CannotListen(
            f"{identity} cannot listen at {bind}: {error.strerror}; {cure} endpoint (or bind) of "
            f"[{section}] in the config file, or --host and --port"
        ) from error


def welcome(store: JournalStore, currency: str, coordinator: str) -> Welcome:
    """How an actor greets who connects to it."""
    identity = store.identity
    return Welcome(
        version=PROTOCOL_VERSION,
        cluster=identity.cluster,
        role=identity.role,
        name=identity.name,
        instance=store.instance,
        epoch=store.epoch,
        currency=currency,
        coordinator=coordinator,
    )
