"""What the wiring of every actor shares: open the store, bind the port, run the loop, end with a telling exit code."""

from __future__ import annotations

import ipaddress
import logging
import os
import resource
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import NamedTuple

import zmq

from zbank.clock import Clock
from zbank.config import data_file, parse_endpoint
from zbank.errors import CorruptStore, FenceLost, ForeignStore, InvalidConfig, StoreError, ZbankError
from zbank.ids import new_id
from zbank.protocol.messages import PROTOCOL_VERSION, Welcome
from zbank.storage.sqlite import Identity, JournalStore
from zbank.transport.door import Door, DoorFailed
from zbank.transport.engine import Engine
from zbank.transport.keyfolder import Keys
from zbank.transport.loop import ActorLoop
from zbank.transport.sockets import lets_strangers_in, make_router

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


class KeysNeeded(ZbankError):
    """Other machines can reach an actor whose bank has no keys: whoever is there could do anything."""

    code = "keys_needed"


class NotClosed(ZbankError):
    """The probe at the start got in, or could not tell: the actor must not serve."""

    code = "not_closed"


class World(NamedTuple):
    """What an actor stands in, beside its store: the simulator has one of its own."""

    clock: Clock
    context: zmq.Context[zmq.Socket[bytes]]
    engine: type[Engine] = Engine  #: what makes its turns
    keys: Keys | None = None  #: None = the bank has none
    door: Door | None = None


Announce = Callable[[], Callable[[], None]]  #: begins to announce an actor, and gives what withdraws that
Wire = Callable[[World, JournalStore, zmq.Socket[bytes]], tuple[Engine, ActorLoop]]


def serve(
    data: Path,
    identity: Identity,
    bind: str,
    wire: Wire,
    *,
    drills: bool = False,
    keys_folder: Path | None = None,
    announce: Announce | None = None,
) -> int:
    """Run an actor until it is told to stop; gives the process's exit code. Says on stderr what went wrong.

    With `drills` the gates of `zbank drill` are built in; then it listens on this machine alone. So it must without keys.
    Once it serves it is announced, where other machines can reach it.
    """
    os.umask(0o077)  # what it keeps is for its owner's eyes alone
    _allow_connections()
    try:
        if drills and keys_folder is not None:
            raise CannotDrill(f"{identity} has keys, and drills are played without: leave --drills out, or unset ZBANK_KEYS")
        engine_type = _drill_engine(bind, identity, data) if drills else Engine
        keys = _keys_of(keys_folder, identity, bind)
        with ExitStack() as stack:
            context: zmq.Context[zmq.Socket[bytes]] = zmq.Context.instance()
            router = _listen(context, bind, identity, keys)
            door = Door(context, router, keys)
            stack.callback(door.close)  # after the router
            stack.callback(router.close)
            if keys is not None:
                _try_the_lock(context, router, door, keys, identity)
            store = JournalStore.open(data_file(data, identity.name), identity, new_id())
            _close_to_others(data_file(data, identity.name))
            engine, loop = wire(World(Clock(), context, engine_type, keys, door), store, router)
            how = "by keys" if keys is not None else "without keys, to this machine alone"
            log.info("%s serves at %s %s, epoch %d, %d records", identity, bind, how, store.epoch, store.seq)
            if announce is not None and not listens_here_only(bind):
                stack.callback(announce())  # the first to be ended
            loop.run()
            engine.close()
        log.info("%s stopped", identity)
    except (ForeignStore, CorruptStore, FenceLost, CannotListen, CannotDrill, KeysNeeded, InvalidConfig) as error:
        return _failed(error, EXIT_USAGE)
    except (StoreError, DoorFailed, NotClosed) as error:
        return _failed(error, EXIT_FAILED)
    return EXIT_DONE


def _close_to_others(path: Path) -> None:
    """Take the files of a store away from other users, who could read what an older version wrote."""
    for file in path.parent.glob(f"{path.name}*"):
        if file.stat().st_mode & 0o077:
            file.chmod(0o600)
            log.warning("%s could be read by others: it is its owner's alone from now on", file)


def _keys_of(folder: Path | None, identity: Identity, bind: str) -> Keys | None:
    """This actor's keys. Raises KeysNeeded, and InvalidConfig for keys that cannot be used."""
    if folder is not None:
        return Keys(folder, identity.name, role=identity.role, cluster=identity.cluster)
    if not listens_here_only(bind):
        raise KeysNeeded(
            f"{identity} listens at {bind}, which other machines can reach, and this bank has no keys, so anybody there could "
            "do anything: make keys with `zbank keys init --config FILE` (or --cluster and --branch), and copy them beside "
            "the config file of each machine; or listen on 127.0.0.1"
        )
    return None


def _try_the_lock(
    context: zmq.Context[zmq.Socket[bytes]], router: zmq.Socket[bytes], door: Door, keys: Keys, identity: Identity
) -> None:
    """A stranger tries to get in, and must not. Raises NotClosed."""
    door.tells = False
    _, _, port = router.getsockopt_string(zmq.LAST_ENDPOINT).rpartition(":")
    host = parse_endpoint(router.getsockopt_string(zmq.LAST_ENDPOINT)).host
    near = {"0.0.0.0": "127.0.0.1", "[::]": "[::1]", "*": "127.0.0.1"}.get(host, host)
    found = lets_strangers_in(context, f"tcp://{near}:{port}", keys.pair.public)
    door.tells = True
    if found:
        raise NotClosed(f"{identity} does not serve: {found}. Start it again; if it says so again, do not use this machine")


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


def _listen(
    context: zmq.Context[zmq.Socket[bytes]], bind: str, identity: Identity, keys: Keys | None
) -> zmq.Socket[bytes]:
    try:
        return make_router(context, bind, None if keys is None else keys.pair)
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
