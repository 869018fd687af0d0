"""`zbank branch` and `zbank coordinator`: from a config file or flags to the settings of an actor, which then runs."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import TYPE_CHECKING

import click

from zbank.apps.cli.shell import DEFAULT_ENDPOINT, checked_endpoint, keys_folder, log_options
from zbank.errors import InvalidConfig, InvalidInput

if TYPE_CHECKING:
    from zbank.config import ClusterConfig

DEFAULT_CLUSTER = "demo"
DEFAULT_CURRENCY = "INR"
DEFAULT_HOST = "127.0.0.1"
COORDINATOR_PORT = 9000
BRANCH_PORT = 9100
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
@click.option("--drills", is_flag=True, help="With the gates of `zbank drill`; only on an address of this machine.")
@log_options
def branch(
    config: str | None, name: str, data: str | None, preload: bool, drills: bool, **flags: str | int | None
) -> int:
    """Run one branch until SIGTERM or Ctrl-C.

    \b
    Examples:
      zbank branch --config config/cluster.toml --name Mumbai
      zbank branch --name Mumbai --host 0.0.0.0 --port 9100 --preload --coordinator tcp://192.168.1.50:9000
    """
    from zbank.apps.branch import BranchSettings, run
    from zbank.apps.serving import listens_here_only

    if config is not None:
        cluster = _load_alone(config, flags | {"preload": preload or None})
        found = cluster.branches.get(name)
        if found is None:
            known = ", ".join(cluster.branches)
            raise InvalidConfig(f"{cluster.path}: branches.{name} is missing: the file has {known}")
        settings = BranchSettings(
            name=name,
            cluster=cluster.name,
            endpoint=found.endpoint,
            bind=found.bind,
            coordinators=(cluster.coordinator.endpoint,),
            currency=found.currency,
            data=Path(data) if data else cluster.data,
            peers={peer: other.endpoint for peer, other in cluster.branches.items() if peer != name},
            preload=found.preload,
            drills=drills,
            keys=keys_folder(config),
        )
    else:
        _check_branch_flags(name, flags)
        bind, endpoint = _addresses(flags, BRANCH_PORT)
        looks = flags["coordinator"] is None and not listens_here_only(bind)
        if looks:
            click.echo(f"looks for its coordinator at {DEFAULT_ENDPOINT} and on the local network (--coordinator names it)")
        settings = BranchSettings(
            name=name,
            cluster=str(flags["cluster"] or DEFAULT_CLUSTER),
            endpoint=endpoint,
            bind=bind,
            coordinators=(
                checked_endpoint(str(flags["coordinator"] or DEFAULT_ENDPOINT), "--coordinator", COORDINATOR_PORT),
            ),
            currency=str(flags["currency"] or DEFAULT_CURRENCY),
            data=Path(data) if data else Path("data") / name,
            peers={},
            preload=preload,
            drills=drills,
            keys=keys_folder(config),
            looks=looks,
        )
    return run(settings)


@click.command()
@click.option("--config", metavar="FILE", help="Cluster file; everything else is in it.")
@click.option("--host", help=f"Address to listen on; 0.0.0.0 for all.  [{DEFAULT_HOST}]")
@click.option("--port", type=_port, help=f"Port to listen on.  [{COORDINATOR_PORT}]")
@click.option("--advertise", metavar="ADDRESS", help="Address at which others reach it.  [where it listens]")
@click.option("--cluster", metavar="NAME", help=f"Name of the cluster.  [{DEFAULT_CLUSTER}]")
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
    from zbank.config import COORDINATOR_NAME

    if config is not None:
        cluster = _load_alone(config, flags)
        settings = CoordinatorSettings(
            cluster=cluster.name,
            endpoint=cluster.coordinator.endpoint,
            bind=cluster.coordinator.bind,
            data=Path(data) if data else cluster.data,
            branches=tuple(cluster.branches),
            drills=drills,
            keys=keys_folder(config),
        )
    else:
        bind, endpoint = _addresses(flags, COORDINATOR_PORT)
        settings = CoordinatorSettings(
            cluster=str(flags["cluster"] or DEFAULT_CLUSTER),
            endpoint=endpoint,
            bind=bind,
            data=Path(data) if data else Path("data") / COORDINATOR_NAME,
            branches=(),
            drills=drills,
            keys=keys_folder(config),
        )
    return run(settings)


def _load_alone(config: str, flags: dict[str, str | int | bool | None]) -> ClusterConfig:
    """The config, after a look that no flag contradicts it."""
    from zbank.config import load_config

    given = [f"--{flag.replace('_', '-')}" for flag, value in flags.items() if value is not None]
    if given:
        raise click.UsageError(f"{', '.join(given)} and --config: that stands in the file, change it there")
    return load_config(config)


def _check_branch_flags(name: str, flags: dict[str, str | int | None]) -> None:
    from zbank.config import COORDINATOR_NAME
    from zbank.domain.account import check_branch_name
    from zbank.domain.money import currency

    try:
        check_branch_name(name)
        if flags["currency"] is not None:
            currency(str(flags["currency"]))
    except InvalidInput as error:
        raise click.UsageError(str(error)) from error
    if name.lower() == COORDINATOR_NAME:
        raise click.UsageError(f"--name: {name!r} is the coordinator's: choose another one")


def _addresses(flags: dict[str, str | int | None], default_port: int) -> tuple[str, str]:
    """(what to listen on, what to advertise); says the latter, and where it comes from when it was not given."""
    from zbank.config import parse_endpoint, url_host

    host = url_host(str(flags["host"] or DEFAULT_HOST))
    port = int(flags["port"] or default_port)
    try:
        bind = str(parse_endpoint(f"tcp://{host}:{port}"))
    except InvalidInput as error:
        raise click.UsageError(f"--host: {error}") from error
    if flags["advertise"] is not None:
        endpoint = checked_endpoint(str(flags["advertise"]), "--advertise", port)
        click.echo(f"advertises {endpoint}, listens on {bind}")
    elif host in LISTEN_EVERYWHERE:
        endpoint = f"tcp://{_outward_address()}:{port}"
        click.echo(
            f"advertises {endpoint}, this machine's outward address (--advertise says otherwise), listens on {bind}"
        )
    else:
        endpoint = bind
        click.echo(f"advertises {endpoint}")
    return bind, endpoint


def _outward_address() -> str:
    """This machine's address on the way out. No packet is sent: connecting a UDP socket only asks the routing table."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # RFC 5737: an address of documentation, nobody's
            return str(probe.getsockname()[0])
        except OSError:
            return socket.gethostname()
