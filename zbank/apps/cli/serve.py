"""`zbank branch` and `zbank coordinator`: from a config file or flags to the settings of an actor, which then runs."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from zbank.apps.cli.shell import DEFAULT_ENDPOINT, checked_endpoint, keys_folder, log_environment, log_options
from zbank.errors import InvalidConfig, InvalidInput

if TYPE_CHECKING:
    from zbank.apps.branch import BranchSettings
    from zbank.apps.replica import ReplicaSettings
    from zbank.config import BranchConfig, ClusterConfig

DEFAULT_CLUSTER = "demo"
DEFAULT_CURRENCY = "INR"
DEFAULT_HOST = "127.0.0.1"
COORDINATOR_PORT = 9000
BRANCH_PORT = 9100
STANDBY_PORT = 9010
NOBODY = "192.0.2.1"  #: RFC 5737: an address of documentation; the way to it is the way out
LISTEN_EVERYWHERE = ("0.0.0.0", "*", "::", "[::]")

_port = click.IntRange(1, 65535)


@click.command()
@click.option("--config", metavar="FILE", help="Cluster file; everything else is in it.")
@click.option("--name", required=True, help="The branch, as in Mumbai.")
@click.option("--host", help=f"Address to listen on; 0.0.0.0 for all.  [{DEFAULT_HOST}]")
@click.option("--port", type=_port, help=f"Port to listen on.  [{BRANCH_PORT}]")
@click.option("--advertise", metavar="ADDRESS", help="Address at which others reach this branch.  [where it listens]")
@click.option("--coordinator", metavar="ADDRESS", help=f"The coordinator.  [{DEFAULT_ENDPOINT}, or found on the network]")
@click.option("--currency", metavar="CODE", help=f"Currency of all accounts.  [{DEFAULT_CURRENCY}]")
@click.option("--cluster", metavar="NAME", help=f"Name of the cluster.  [{DEFAULT_CLUSTER}]")
@click.option("--preload", is_flag=True, help="Accounts 1001 (10000.00) and 1002 (5000.00), only into an empty branch.")
@click.option("--data", metavar="DIR", help="Folder of its data file.  [from the config, or data/NAME]")
@click.option(
    "--replicas", type=click.IntRange(0, 16), metavar="N", help="Replicas to run beside it.  [from the config, or 0]"
)
@click.option("--standby", metavar="ADDRESS", help="Where a replica of the coordinator is, that can take its place.")
@click.option("--synchronous", metavar="NAME", help="Replica that has to have all before it is answered.  [from the config]")
@click.option("--drills", is_flag=True, help="With the gates of `zbank drill`; only on an address of this machine.")
@log_options
def branch(
    *,
    config: str | None,
    name: str,
    data: str | None,
    preload: bool,
    replicas: int | None,
    drills: bool,
    **flags: str | int | None,
) -> int:
    """Run one branch, with replicas beside it, until SIGTERM or Ctrl-C.

    \b
    Examples:
      zbank branch --config config/cluster.toml --name Mumbai
      zbank branch --name Mumbai --host 0.0.0.0 --port 9100 --preload --coordinator tcp://192.168.1.50:9000
      zbank branch --name Mumbai --replicas 2
    """
    from zbank.apps.branch import BranchSettings
    from zbank.apps.roles import run_branch

    if config is not None:
        cluster = _load_alone(config, flags | {"preload": preload or None})
        found = _branch_of(cluster, name)
        if replicas is None and not drills:
            replicas = found.replicas
        settings = BranchSettings(
            name=name,
            cluster=cluster.name,
            endpoint=found.endpoint,
            bind=found.bind,
            coordinators=(cluster.coordinator.endpoint,),
            standby=cluster.coordinator.standby,
            currency=found.currency,
            data=Path(data) if data else cluster.data,
            peers={peer: other.endpoint for peer, other in cluster.branches.items() if peer != name},
            preload=found.preload,
            drills=drills,
            keys=keys_folder(config),
            acks="" if drills else found.synchronous,
        )
    else:
        settings = _by_flags(name, data, flags, preload=preload, drills=drills)
    if not replicas:
        return run_branch(settings)
    where = ["--config", config] if config is not None else _bank_flags(settings)
    return _with_replicas(settings, replicas, where if data is None else [*where, "--data", data])


def _by_flags(
    name: str, data: str | None, flags: dict[str, str | int | None], *, preload: bool, drills: bool
) -> BranchSettings:
    """A branch that no config file tells of. Raises UsageError."""
    from zbank.apps.branch import BranchSettings
    from zbank.apps.serving import listens_here_only

    _check_branch_flags(name, flags)
    if drills and flags["synchronous"] is not None:
        raise click.UsageError("--drills are played without replicas: give it or --synchronous")
    coordinator = checked_endpoint(str(flags["coordinator"] or DEFAULT_ENDPOINT), "--coordinator", COORDINATOR_PORT)
    looks = flags["coordinator"] is None and not listens_here_only(_bind(flags, BRANCH_PORT))
    bind, endpoint = _addresses(flags, BRANCH_PORT, towards="" if looks else coordinator)
    if looks:
        click.echo(f"looks for its coordinator at {DEFAULT_ENDPOINT} and on the local network (--coordinator names it)")
    return BranchSettings(
        name=name,
        cluster=str(flags["cluster"] or DEFAULT_CLUSTER),
        endpoint=endpoint,
        bind=bind,
        coordinators=(coordinator,),
        currency=str(flags["currency"] or DEFAULT_CURRENCY),
        data=Path(data) if data else Path("data") / name,
        peers={},
        preload=preload,
        drills=drills,
        keys=keys_folder(None),
        acks=str(flags["synchronous"] or ""),
        looks=looks,
        standby=_standby_place(flags),
    )


def _standby_place(flags: dict[str, str | int | None]) -> str:
    return checked_endpoint(str(flags["standby"]), "--standby", STANDBY_PORT) if flags["standby"] else ""


def _bank_flags(settings: BranchSettings) -> list[str]:
    """What a branch that was started by flags has to tell its replicas."""
    (coordinator,) = settings.coordinators
    told = ["--cluster", settings.cluster, "--coordinator", coordinator, "--currency", settings.currency]
    more = {"--synchronous": settings.acks, "--standby": settings.standby}
    return [*told, *(word for flag, value in more.items() if value for word in (flag, value))]


def _with_replicas(settings: BranchSettings, count: int, where: Sequence[str]) -> int:
    """Run a branch, and replicas of it as long as it runs. `where`: the flags that tell them of the bank and of their data."""
    from zbank.apps.replica_keeper import child_environment, kept, replica_commands
    from zbank.apps.roles import run_branch

    told = log_environment()
    commands = replica_commands(settings.name, count, settings.bind, settings.endpoint, where)
    prefix = told["ZBANK_LOG"] == "text"
    with kept(commands, child_environment() | told, prefix=prefix, synchronous=settings.acks):
        return run_branch(settings)


@click.command()
@click.option("--config", metavar="FILE", help="Cluster file; everything else is in it.")
@click.option("--host", help=f"Address to listen on; 0.0.0.0 for all.  [{DEFAULT_HOST}]")
@click.option("--port", type=_port, help=f"Port to listen on.  [{COORDINATOR_PORT}]")
@click.option("--advertise", metavar="ADDRESS", help="Address at which others reach it.  [where it listens]")
@click.option("--cluster", metavar="NAME", help=f"Name of the cluster.  [{DEFAULT_CLUSTER}]")
@click.option("--synchronous", metavar="NAME", help="Replica of it that has to have all before it is answered.")
@click.option("--data", metavar="DIR", help="Folder of its data file.  [from the config, or data/coordinator]")
@click.option("--drills", is_flag=True, help="With the gates of `zbank drill`; only on an address of this machine.")
@log_options
def coordinator(config: str | None, data: str | None, drills: bool, **flags: str | int | None) -> int:
    """Run the coordinator until SIGTERM or Ctrl-C. Branches register with it; transfers between branches go through it.

    \b
    Examples:
      zbank coordinator --config config/cluster.toml
      zbank coordinator --host 0.0.0.0
    """
    from zbank.apps.coordinator import CoordinatorSettings, run
    from zbank.config import COORDINATOR_NAME, Endpoint, parse_endpoint

    if config is not None:
        cluster = _load_alone(config, flags)
        settings = CoordinatorSettings(
            cluster=cluster.name,
            endpoint=cluster.coordinator.endpoint,
            bind=cluster.coordinator.bind,
            data=Path(data) if data else cluster.data,
            branches=tuple(cluster.branches),
            feed_in=cluster.coordinator.feed_in,
            feed_out=cluster.coordinator.feed_out,
            acks="" if drills else cluster.coordinator.synchronous,
            drills=drills,
            keys=keys_folder(config),
        )
    else:
        bind, endpoint = _addresses(flags, COORDINATOR_PORT)
        host, port = parse_endpoint(bind)
        settings = CoordinatorSettings(
            cluster=str(flags["cluster"] or DEFAULT_CLUSTER),
            endpoint=endpoint,
            bind=bind,
            data=Path(data) if data else Path("data") / COORDINATOR_NAME,
            branches=(),
            feed_in=str(Endpoint(host, port + 1)),
            feed_out=str(Endpoint(host, port + 2)),
            acks=str(flags["synchronous"] or ""),
            drills=drills,
            keys=keys_folder(config),
        )
    return run(settings)


@click.command()
@click.option("--config", metavar="FILE", help="Cluster file; where the branch and the coordinator are is in it.")
@click.option("--of", "of", metavar="BRANCH", required=True, help="The branch to follow, as in Mumbai; or coordinator.")
@click.option("--name", help="Name of this replica, and of its key and data file.  [BRANCH-replica]")
@click.option("--host", help=f"Address to listen on; 0.0.0.0 for all.  [{DEFAULT_HOST}]")
@click.option("--port", type=_port, help="Port to listen on.  [one that is free]")
@click.option("--advertise", metavar="ADDRESS", help="Address at which others reach it.  [where it listens]")
@click.option("--coordinator", metavar="ADDRESS", help=f"The coordinator.  [{DEFAULT_ENDPOINT}]")
@click.option("--currency", metavar="CODE", help=f"Currency of the branch.  [{DEFAULT_CURRENCY}]")
@click.option("--cluster", metavar="NAME", help=f"Name of the cluster.  [{DEFAULT_CLUSTER}]")
@click.option("--standby", metavar="ADDRESS", help="Where a replica of the coordinator is, that can take its place.")
@click.option("--synchronous", metavar="NAME", help="As the branch was told: for when this one takes its place.")
@click.option("--data", metavar="DIR", help="Folder of its data file.  [from the config, or data/NAME]")
@log_options
def replica(config: str | None, of: str, name: str | None, data: str | None, **flags: str | int | None) -> int:
    """Run a replica of a branch until SIGTERM or Ctrl-C: it follows the branch's journal and answers questions.

    \b
    Examples:
      zbank replica --config config/cluster.toml --of Mumbai
      zbank replica --of Mumbai --name Mumbai-2 --host 0.0.0.0 --coordinator tcp://192.168.1.50:9000
    """
    from zbank.apps.replica import ReplicaSettings
    from zbank.apps.roles import run_replica
    from zbank.config import COORDINATOR_NAME, STANDBY_NAME
    from zbank.domain.account import check_branch_name
    from zbank.transport.keys import check_name

    try:
        check_branch_name(of)
        name = check_name(name or (STANDBY_NAME if of == COORDINATOR_NAME else f"{of}-replica"))
        check_name(str(flags["synchronous"] or name))
    except InvalidInput as error:
        raise click.UsageError(str(error)) from error
    told_there = {flag: flags[flag] for flag in ("coordinator", "currency", "cluster", "synchronous", "standby")}
    cluster = None if config is None else _load_alone(config, told_there)
    if of == COORDINATOR_NAME:
        return run_replica(_standby(cluster, name, data, flags, keys_folder(config)))
    found = None if cluster is None else _branch_of(cluster, of)
    if cluster is None:
        coordinator = checked_endpoint(str(flags["coordinator"] or DEFAULT_ENDPOINT), "--coordinator", COORDINATOR_PORT)
    else:
        coordinator = cluster.coordinator.endpoint
    bind, endpoint = _addresses(flags, 0, towards=coordinator)
    settings = ReplicaSettings(
        name=name,
        of=of,
        cluster=str(flags["cluster"] or DEFAULT_CLUSTER) if cluster is None else cluster.name,
        endpoint=endpoint,
        bind=bind,
        coordinators=(coordinator,),
        currency=str(flags["currency"] or DEFAULT_CURRENCY) if found is None else found.currency,
        data=Path(data) if data else Path("data") / name if cluster is None else cluster.data,
        branches={} if found is None else {of: found.endpoint},
        keys=keys_folder(config),
        acks=str(flags["synchronous"] or "") if found is None else found.synchronous,
        standby=_standby_place(flags) if cluster is None else cluster.coordinator.standby,
    )
    return run_replica(settings)


def _standby(
    cluster: ClusterConfig | None, name: str, data: str | None, flags: dict[str, str | int | None], keys: Path | None
) -> ReplicaSettings:
    """A replica of the coordinator. It has one address, before and after it took the coordinator's place. Raises UsageError."""
    from zbank.apps.replica import ReplicaSettings
    from zbank.config import COORDINATOR_NAME

    if cluster is None:
        coordinator = checked_endpoint(str(flags["coordinator"] or DEFAULT_ENDPOINT), "--coordinator", COORDINATOR_PORT)
    else:
        coordinator = cluster.coordinator.endpoint
    if cluster is not None and cluster.coordinator.standby and flags["host"] is None and flags["port"] is None:
        bind = endpoint = cluster.coordinator.standby
    elif flags["port"] is None:
        raise click.UsageError("give --port: others must find it there when it has taken the coordinator's place")
    else:
        bind, endpoint = _addresses(flags, STANDBY_PORT, towards=coordinator)
    elsewhere = _standby_place(flags) if cluster is None else cluster.coordinator.standby
    places = [place for place in (coordinator, elsewhere) if place not in ("", endpoint)] or [coordinator]
    return ReplicaSettings(
        name=name,
        of=COORDINATOR_NAME,
        cluster=str(flags["cluster"] or DEFAULT_CLUSTER) if cluster is None else cluster.name,
        endpoint=endpoint,
        bind=bind,
        coordinators=(places[0],),
        standby="".join(places[1:]),
        currency="",
        data=Path(data) if data else Path("data") / name if cluster is None else cluster.data,
        branches={} if cluster is None else {branch: info.endpoint for branch, info in cluster.branches.items()},
        keys=keys,
        acks=str(flags["synchronous"] or "") if cluster is None else cluster.coordinator.synchronous,
    )


def _load_alone(config: str, flags: dict[str, str | int | bool | None]) -> ClusterConfig:
    """The config, after a look that no flag contradicts it."""
    from zbank.config import load_config

    given = [f"--{flag.replace('_', '-')}" for flag, value in flags.items() if value is not None]
    if given:
        raise click.UsageError(f"{', '.join(given)} and --config: that stands in the file, change it there")
    return load_config(config)


def _branch_of(cluster: ClusterConfig, name: str) -> BranchConfig:
    found = cluster.branches.get(name)
    if found is None:
        raise InvalidConfig(f"{cluster.path}: branches.{name} is missing: the file has {', '.join(cluster.branches)}")
    return found


def _check_branch_flags(name: str, flags: dict[str, str | int | None]) -> None:
    from zbank.config import COORDINATOR_NAME
    from zbank.domain.account import check_branch_name
    from zbank.domain.money import currency
    from zbank.transport.keys import check_name

    try:
        check_branch_name(name)
        if flags["currency"] is not None:
            currency(str(flags["currency"]))
        if flags["synchronous"] is not None:
            check_name(str(flags["synchronous"]))
    except InvalidInput as error:
        raise click.UsageError(str(error)) from error
    if name.lower() == COORDINATOR_NAME:
        raise click.UsageError(f"--name: {name!r} is the coordinator's: choose another one")


def _addresses(flags: dict[str, str | int | None], default_port: int, towards: str = "") -> tuple[str, str]:
    """(what to listen on, what to advertise); says the latter, and where it comes from when it was not given. `towards`: the
    endpoint of somebody who has to reach it."""
    from zbank.config import parse_endpoint, url_host

    bind = _bind(flags, default_port)
    host = url_host(str(flags["host"] or DEFAULT_HOST))
    port = int(flags["port"] or default_port)
    listens = f"listens on {bind}" if port else f"listens on a free port of {host}"
    if flags["advertise"] is not None:
        endpoint = checked_endpoint(str(flags["advertise"]), "--advertise", port)
        click.echo(f"advertises {_shown(endpoint)}, {listens}")
    elif host in LISTEN_EVERYWHERE:
        address, what = _own_address(parse_endpoint(towards).host if towards else "")
        endpoint = f"tcp://{address}:{port}"
        click.echo(f"advertises {_shown(endpoint)}, {what} (--advertise says otherwise), {listens}")
    else:
        endpoint = bind
        click.echo(f"advertises {_shown(endpoint)}" + ("" if port else ", on a free port"))
    return bind, endpoint


def _bind(flags: dict[str, str | int | None], default_port: int) -> str:
    """What to listen on. Raises UsageError."""
    from zbank.config import parse_endpoint, url_host

    host = url_host(str(flags["host"] or DEFAULT_HOST))
    try:
        return str(parse_endpoint(f"tcp://{host}:{int(flags['port'] or default_port)}", 0))
    except InvalidInput as error:
        raise click.UsageError(f"--host: {error}") from error


def _shown(endpoint: str) -> str:
    """An address in words: a port that is not known yet is none."""
    return endpoint.removesuffix(":0")


def _own_address(towards: str) -> tuple[str, str]:
    """An address of this machine at which others find it, and which one that is, in words.

    The best is the one from which it reaches `towards` itself: it is right with several networks and VPNs, and where there is
    no router at all.
    """
    address = _address_towards(towards) if towards else ""
    if address and not ipaddress.ip_address(address).is_loopback:
        return address, f"this machine's address towards {towards}"
    address = _address_towards(NOBODY)
    return (address, "this machine's outward address") if address else (socket.gethostname(), "this machine's name")


def _address_towards(host: str) -> str:
    """This machine's address on the way to another; "" = there is no way, or none by IPv4. No packet is sent: connecting a UDP
    socket only asks the routing table."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((host, 9))
            return str(probe.getsockname()[0])
        except (OSError, UnicodeError):  # a name that cannot be one, too
            return ""
