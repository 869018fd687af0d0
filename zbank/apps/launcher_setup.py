"""What the launcher does to a cluster file before anything starts: more branches, keys, and checks of what listens where."""

from __future__ import annotations

import errno
import json
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path

import msgspec

from zbank.apps import keymaking
from zbank.apps.serving import listens_here_only, role_named
from zbank.config import (
    COORDINATOR_NAME,
    BranchConfig,
    ClusterConfig,
    CoordinatorConfig,
    Endpoint,
    data_file,
    listeners,
    load_config,
    parse_endpoint,
    url_host,
)
from zbank.errors import InvalidConfig
from zbank.protocol.messages import BRANCH, COORDINATOR, REPLICA
from zbank.storage.opening import Identity
from zbank.storage.removal import find_stores, owner_of, remove_store
from zbank.transport.keys import LIST_NAME, read_list

REST_NAME = "rest"
DASHBOARD_NAME = "dashboard"
GENERATED = "run_cluster.toml"  #: in the data folder: the config that --branches makes
SECURE_FOLDER = "secure-keys"  #: in the data folder: the keys that --secure makes


def with_branches(config: ClusterConfig, count: int) -> ClusterConfig:
    """The same cluster with `count` branches, written to a file of its own in the data folder for the children to read.

    Branches beyond those of the file are made like its last one, on the next ports after the highest.
    """
    branches = dict(list(config.branches.items())[:count])
    last = list(config.branches.values())[-1]
    port = max(port for _, _, port in listeners(config))
    number = len(branches)
    while len(branches) < count:
        number, port = number + 1, port + 1
        while f"branch{number}" in {name.lower() for name in branches}:
            number += 1
        addresses = {
            key: str(Endpoint(parse_endpoint(getattr(last, key)).host, port)) for key in ("endpoint", "bind")
        }
        # The synchronous replica is another one for each, named anew when the file is read: the first that is started with it.
        acks = last.acks if last.replicas else 0
        branches[f"Branch{number}"] = msgspec.structs.replace(last, **addresses, acks=acks, synchronous="")
    config.data.mkdir(parents=True, exist_ok=True)
    path = config.data / GENERATED
    path.write_text(_as_toml(msgspec.structs.replace(config, branches=branches)), encoding="utf-8")
    return load_config(path)


def _as_toml(config: ClusterConfig) -> str:
    lines = [f"# Made by run_cluster.py --branches {len(config.branches)} from {config.path}; written anew each time."]
    sections: dict[str, Mapping[str, object]] = {
        "cluster": {"name": config.name, "data": str(config.data.absolute())},
        "coordinator": msgspec.structs.asdict(config.coordinator),
        **{f"branches.{name}": msgspec.structs.asdict(branch) for name, branch in config.branches.items()},
    }
    sections |= {
        name: msgspec.structs.asdict(section)
        for name, section in (("rest", config.rest), ("dashboard", config.dashboard))
        if section is not None
    }
    for name, values in sections.items():
        lines += ["", f"[{name}]"]
        lines += [f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in values.items() if value != ""]
    return "\n".join(lines) + "\n"


def without_replicas(config: ClusterConfig) -> ClusterConfig:
    """The same cluster without replicas."""
    branches = {
        name: msgspec.structs.replace(branch, replicas=0, acks=0, synchronous="") for name, branch in config.branches.items()
    }
    coordinator = msgspec.structs.replace(config.coordinator, standby="", acks=0)
    return msgspec.structs.replace(config, branches=branches, coordinator=coordinator)


def check_for_drills(config: ClusterConfig) -> None:
    """Raise InvalidConfig when something listens where other machines can reach it."""
    for section, _, host, port in _listeners(config):
        address = f"tcp://{host}:{port}"
        if not listens_here_only(address):
            raise InvalidConfig(
                f"{config.path}: {section}: {address} can be reached from other machines: with --drills all addresses "
                "must be of this machine alone, as in tcp://127.0.0.1:9100"
            )


def _listeners(config: ClusterConfig) -> Iterator[tuple[str, str, str, int]]:
    """All that listens here: section and key of the config, host, port."""
    actors: list[tuple[str, CoordinatorConfig | BranchConfig]] = [("coordinator", config.coordinator)]
    actors += [(f"branches.{name}", branch) for name, branch in config.branches.items()]
    for section, actor in actors:
        yield section, "endpoint" if actor.bind == actor.endpoint else "bind", *parse_endpoint(actor.bind)
    if config.coordinator.standby:
        yield "coordinator", "standby", *parse_endpoint(config.coordinator.standby)
    if config.rest is not None:
        yield REST_NAME, "port", url_host(config.rest.host), config.rest.port
    if config.dashboard is not None:
        yield DASHBOARD_NAME, "port", url_host(config.dashboard.host), config.dashboard.port


def check_ports_are_free(config: ClusterConfig) -> None:
    """Raise InvalidConfig, with the key to change, unless everything can listen where it is told to."""
    for section, key, host, port in _listeners(config):
        try:
            _try_to_listen(host, port)
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                why = f"port {port} is taken (does the cluster run already?): stop who has it, or give another port"
            else:
                why = f"cannot listen on {host}:{port} here ({error.strerror}): give an address of this machine"
            raise InvalidConfig(f"{config.path}: {section}.{key}: {why}") from error


def _try_to_listen(host: str, port: int) -> None:
    if host == "*":
        host = "0.0.0.0"
    family, kind, protocol, _, address = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM)[0]
    with socket.socket(family, kind, protocol) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as ZeroMQ does: not held up by closed connections
        probe.bind(address)
        probe.listen()


def promoted(config: ClusterConfig) -> dict[str, str]:
    """Replicas that took the place of whom they followed, whose data is that one's now: who it is, for each."""
    wanted = {name: _leader(config, of) for name, of in config.replicas.items()}
    return {name: who.name for name, who in wanted.items() if owner_of(data_file(config.data, name)) == who}


def _leader(config: ClusterConfig, of: str) -> Identity:
    """Whose data that of a replica is once it was promoted."""
    return Identity(config.name, role_named(of), of)


def remove_data(config: ClusterConfig) -> list[Identity]:
    """Remove the data of the actors of this cluster, and of all replicas of its branches: they would know what never
    was. Gives whose there was."""
    actors = [Identity(config.name, COORDINATOR, COORDINATOR_NAME)]
    actors += [Identity(config.name, BRANCH, name) for name in config.branches]
    replicas = [Identity(config.name, REPLICA, name) for name in (*config.branches, COORDINATOR_NAME)]
    files = {path: found for path, found in find_stores(config.data).items() if found in replicas}
    files |= {data_file(config.data, name): _leader(config, of) for name, of in promoted(config).items()}
    files |= {data_file(config.data, identity.name): identity for identity in actors}
    return [identity for path, identity in files.items() if remove_store(path, identity)]


def make_missing_keys(config: ClusterConfig) -> Path:
    """Keys for every part of this cluster, in its data folder; those that are there are kept. Gives the folder."""
    folder = config.data.absolute() / SECURE_FOLDER
    if not (folder / LIST_NAME).exists():
        keymaking.make_all(folder, config.name, config.branches, config.named_replicas)
    keyring = read_list(folder)
    for role, names in ((BRANCH, config.branches), (REPLICA, config.named_replicas)):
        for name in names:
            if keyring.of_name(name) is None:
                keymaking.add(folder, name, role, ())
    return folder
