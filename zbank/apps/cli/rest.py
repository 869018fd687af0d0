"""`zbank rest`: the REST bridge, from a config file or flags."""

from __future__ import annotations

import logging
from pathlib import Path

import click

from zbank.apps.cli.shell import (
    DEFAULT_ENDPOINT,
    EXIT_USAGE,
    checked_places,
    complain,
    is_typed,
    keys_folder,
    log_options,
)

DEFAULT_HOST = "127.0.0.1"
DEFAULT_PORT = 5000
COORDINATOR_PORT = 9000
MISSING = "the REST bridge needs packages that are not installed: pip install 'zbank[rest]'"


@click.command()
@click.option("--config", metavar="FILE", help="Cluster file: the coordinator's address, and [rest].")
@click.option("--endpoint", envvar="ZBANK_ENDPOINT", metavar="ADDRESS", help=f"The coordinator.  [{DEFAULT_ENDPOINT}]")
@click.option("--cluster", metavar="NAME", help="Find the coordinator of this cluster on the local network.")
@click.option("--host", help=f"Address to listen on; 0.0.0.0 for all, then tokens are demanded.  [{DEFAULT_HOST}]")
@click.option("--port", type=click.IntRange(1, 65535), help=f"Port to listen on.  [{DEFAULT_PORT}]")
@click.option(
    "--threads", type=click.IntRange(1, 512), default=64, show_default=True, help="Requests that are worked on at once."
)
@click.option(
    "--rate-limit",
    type=click.IntRange(0, 1_000_000),
    default=1000,
    show_default=True,
    help="Requests a second of one token; 0 = no limit.",
)
@click.option(
    "--key", default="rest", show_default=True, metavar="NAME", help="The bridge's key, where the bank has keys."
)
@click.option(
    "--trusted-proxy", metavar="ADDRESS", help="A proxy in front (TLS): who asks is who it says. Tokens are demanded then."
)
@click.option(
    "--trusted-host", "trusted_hosts", multiple=True, metavar="NAME", help="A name it is called by; others are refused.  [any]"
)
@click.option("--drills", is_flag=True, help="Drills can be played: to learn two-phase commit, not for real money.")
@click.option("--data", metavar="DIR", help="With --drills: folder of the bank's data files.  [from --config, or data]")
@log_options
def rest(
    config: str | None,
    endpoint: str | None,
    cluster: str | None,
    host: str | None,
    port: int | None,
    threads: int,
    rate_limit: int,
    key: str,
    trusted_proxy: str | None,
    trusted_hosts: tuple[str, ...],
    drills: bool,
    data: str | None,
) -> int:
    """Run the REST bridge until SIGTERM or Ctrl-C. Its documentation is at /docs, the OpenAPI document at /openapi.json.

    \b
    Examples:
      zbank rest --config config/cluster.toml
      zbank rest --endpoint tcp://192.168.1.10:9000 --port 8080
      zbank tokens make --holder ops --role operator && zbank rest --host 0.0.0.0
    """
    try:
        from zbank.apps.api.bridge import RestSettings
        from zbank.apps.api.serve import run
    except ImportError as error:
        return complain(f"{MISSING} ({error})", EXIT_USAGE)
    cluster_name, folder = "", data or "data"
    if config is not None:
        from zbank.config import RestConfig, load_config

        if cluster is not None:
            raise click.UsageError("give --cluster or --config, not both")
        file = load_config(config)
        section = file.rest or RestConfig()
        place, cluster_name = file.coordinator.places, file.name
        host, port = host or section.host, port or section.port
        trusted_proxy = trusted_proxy or section.trusted_proxy
        trusted_hosts = trusted_hosts or section.trusted_hosts
        folder = data or str(file.data)
    else:
        place, cluster_name = _find(endpoint, cluster)
    settings = RestSettings(
        host=host or DEFAULT_HOST,
        port=port or DEFAULT_PORT,
        endpoint=place,
        cluster=cluster_name,
        threads=threads,
        rate_limit_per_s=rate_limit,
        drills=Path(folder) if drills else None,
        keys=keys_folder(config),
        key=key,
        trusted_proxy=trusted_proxy or "",
        trusted_hosts=trusted_hosts,
    )
    if drills and not settings.is_here_only:
        return complain(f"with --drills the bridge must be of this machine alone, not at {settings.host}", EXIT_USAGE)
    return run(settings)


def _find(endpoint: str | None, cluster: str | None) -> tuple[str, str]:
    """The coordinator's address, and its cluster's name ("" = any), where no file tells them."""
    if cluster is not None and is_typed("endpoint"):
        raise click.UsageError("give --cluster or --endpoint, not both")
    if cluster is not None or not endpoint:
        from zbank.apps.cli.finding import wait_for_coordinator

        found = wait_for_coordinator(cluster, keys_folder(None), logging.getLogger("zbank").info)
        if found is not None:
            return found.endpoint, found.cluster
    return checked_places(endpoint or DEFAULT_ENDPOINT, "--endpoint", COORDINATOR_PORT), ""
