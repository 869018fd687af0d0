"""What the wiring of every actor shares: open the store, bind the port, run the loop, end with a telling exit code."""

from __future__ import annotations

import ipaddress
import logging
import os
import resource
from collections.abc import Callable
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from typing import NamedTuple

import zmq

from zbank.clock import Clock
from zbank.config import COORDINATOR_NAME, data_file, parse_endpoint
from zbank.errors import CorruptStore, FenceLost, ForeignStore, InvalidConfig, StoreError, Superseded, ZbankError
from zbank.ids import new_id
from zbank.protocol.following import TakesOver
from zbank.protocol.messages import BRANCH, COORDINATOR, PROTOCOL_VERSION, Welcome
from zbank.storage.sqlite import Identity, JournalStore
from zbank.transport.door import Door, DoorFailed
from zbank.transport.engine import Engine
from zbank.transport.feed import FeedProxy
from zbank.transport.keyfolder import Keys
from zbank.transport.loop import ActorLoop
from zbank.transport.sockets import lets_strangers_in, make_router, when_closed

MAX_OPEN_FILES = 10_240  #: of one actor; each connection is one
EXIT_DONE = 0
EXIT_FAILED = 1  # starting again may help
EXIT_USAGE = 2  # starting again without a change does not help

log = logging.getLogger("zbank")

_listened: set[str] = set()  #: where this process has listened


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
    has_feed: bool = True  #: there is a feed to publish to


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
    file: str = "",
    key: str = "",
    announce: Announce | None = None,
) -> int:
    """Run an actor until it is told to stop; gives the process's exit code. Says on stderr what went wrong.

    With `drills` the gates of `zbank drill` are built in; then it listens on this machine alone. So it must without keys.
    `file` and `key` are the names of its data file and its key, where they are not that of whose data it is: a replica's.
    Raises TakesOver and Superseded: this process is to go on as something else, and its store is closed.
    Once it serves it is announced, where other machines can reach it.
    """
    path = data_file(data, file or identity.name)
    os.umask(0o077)  # what it keeps is for its owner's eyes alone
    _allow_connections()
    try:
        if drills and keys_folder is not None:
            raise CannotDrill(f"{identity} has keys, and drills are played without: leave --drills out, or unset ZBANK_KEYS")
        engine_type = _drill_engine(bind, identity, data) if drills else Engine
        keys = _keys_of(keys_folder, identity, bind, key or identity.name)
        with ExitStack() as stack:
            context: zmq.Context[zmq.Socket[bytes]] = zmq.Context.instance()
            router = _listen(context, bind, identity, keys)
            door = Door(context, router, keys)
            stack.callback(door.close)  # after the router
            stack.callback(router.close)
            world = World(Clock(), context, engine_type, keys, door)
            _try_the_lock(world, router.getsockopt_string(zmq.LAST_ENDPOINT), str(identity))
            store = JournalStore.open(path, identity, new_id())
            _close_to_others(path)
            try:
                engine, loop = wire(world, store, router)
                stack.callback(loop.close)
                how = "by keys" if keys is not None else "without keys, to this machine alone"
                where = router.getsockopt_string(zmq.LAST_ENDPOINT) if parse_endpoint(bind, 0).port == 0 else bind
                log.info("%s serves at %s %s, epoch %d, %d records", identity, where, how, store.epoch, store.seq)
                if announce is not None and not listens_here_only(bind):
                    stack.callback(announce())  # the first to be ended
                loop.run()
            except (TakesOver, Superseded):
                store.close()
                raise
            engine.close()
        log.info("%s stopped", identity)
    except (ForeignStore, CorruptStore, FenceLost, CannotListen, CannotDrill, KeysNeeded, InvalidConfig) as error:
        return _failed(error, EXIT_USAGE)
    except (StoreError, DoorFailed, NotClosed) as error:
        return _failed(error, EXIT_FAILED)
    return EXIT_DONE


def role_named(name: str) -> str:
    """The role of an actor of this name, no replica: no branch has the coordinator's."""
    return COORDINATOR if name == COORDINATOR_NAME else BRANCH


def _close_to_others(path: Path) -> None:
    """Take the files of a store away from other users, who could read what an older version wrote."""
    for file in path.parent.glob(f"{path.name}*"):
        if file.stat().st_mode & 0o077:
            file.chmod(0o600)
            log.warning("%s could be read by others: it is its owner's alone from now on", file)


def _keys_of(folder: Path | None, identity: Identity, bind: str, name: str) -> Keys | None:
    """This actor's keys. Raises KeysNeeded, and InvalidConfig for keys that cannot be used."""
    if folder is not None:
        return Keys(folder, name, role=identity.role, cluster=identity.cluster)
    if not listens_here_only(bind):
        raise KeysNeeded(
            f"{identity} listens at {bind}, which other machines can reach, and this bank has no keys, so anybody there could "
            "do anything: make keys with `zbank keys init --config FILE` (or --cluster and --branch), and copy them beside "
            "the config file of each machine; or listen on 127.0.0.1"
        )
    return None


def _try_the_lock(world: World, endpoint: str, what: str, kind: int = zmq.DEALER) -> None:
    """A stranger tries to get in with a socket of this kind, and must not. Raises NotClosed."""
    if world.keys is None or world.door is None:
        return
    world.door.tells = False
    host, port = parse_endpoint(endpoint)
    near = {"0.0.0.0": "127.0.0.1", "[::]": "[::1]", "*": "127.0.0.1"}.get(host, host)
    found = lets_strangers_in(world.context, f"tcp://{near}:{port}", world.keys.pair.public, kind)
    world.door.tells = True
    if found:
        raise NotClosed(f"{what} does not serve: {found}. Start it again; if it says so again, do not use this machine")


def start_feed(world: World, bind_in: str, bind_out: str) -> FeedProxy:
    """The feed of a coordinator's process. Raises CannotListen, KeysNeeded, NotClosed."""
    for bind in (bind_in, bind_out):
        if world.keys is None and not listens_here_only(bind):
            raise KeysNeeded(f"the feed would listen at {bind}, which other machines can reach, and this bank has no keys")
    try:
        feed = FeedProxy(world.context, bind_in, bind_out, world.keys, world.door)
    except zmq.ZMQError as error:
        detail = f"the feed cannot listen at {bind_in} and {bind_out}: {error.strerror}"
        raise CannotListen(f"{detail}; end what uses the port, or change feed_in and feed_out of [coordinator]") from error
    try:
        _try_the_lock(world, bind_in, "the feed", zmq.PUB)
        _try_the_lock(world, bind_out, "the feed", zmq.SUB)
    except NotClosed:
        feed.close()
        raise
    return feed


def reachable_at(endpoint: str, router: zmq.Socket[bytes]) -> str:
    """The address to advertise: with the port that was found free, where none was asked for."""
    host, _, port = endpoint.rpartition(":")
    if port != "0":
        return endpoint
    return f"{host}:{router.getsockopt_string(zmq.LAST_ENDPOINT).rpartition(':')[2]}"


def listens_here_only(bind: str) -> bool:
    """Nobody outside this machine can connect to what listens at this address."""
    host = parse_endpoint(bind, 0).host.strip("[]")
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
        return _listen_again(context, bind, keys)
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


def _listen_again(context: zmq.Context[zmq.Socket[bytes]], bind: str, keys: Keys | None) -> zmq.Socket[bytes]:
    """A process that changes its role waits for its own listener of before, and for nobody else's. Raises zmq.ZMQError."""
    listen = partial(make_router, context, bind, None if keys is None else keys.pair)
    router = when_closed(listen) if bind in _listened else listen()
    _listened.add(bind)
    return router


def welcome(store: JournalStore, currency: str, coordinator: str, name: str = "") -> Welcome:
    """How an actor greets who connects to it; `name` where it is not the name of whose data it has."""
    identity = store.identity
    return Welcome(
        version=PROTOCOL_VERSION,
        cluster=identity.cluster,
        role=identity.role,
        name=name or identity.name,
        instance=store.instance,
        epoch=store.epoch,
        currency=currency,
        coordinator=coordinator,
    )
