"""`zbank dashboard`: the web pages, from a config file or flags."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from zbank.apps.cli.shell import EXIT_USAGE, complain

DEFAULT_HOST = "127.0.0.1"
DEFAULT_PORT = 8501
DEFAULT_URL = "http://127.0.0.1:5000"
HERE = ("localhost", "127.0.0.1", "[::1]")  #: what a browser on this machine calls this machine
MISSING = "the dashboard needs packages that are missing: pip install 'zbank[dashboard]', or run_cluster.py --no-dashboard"


@click.command()
@click.option("--config", metavar="FILE", help="Cluster file: [dashboard], and where [rest] is.")
@click.option("--rest-url", envvar="ZBANK_REST_URL", metavar="URL", help=f"The REST bridge to show.  [{DEFAULT_URL}]")
@click.option("--host", help=f"Address to listen on; 0.0.0.0 for all, then the bridge has to demand tokens.  [{DEFAULT_HOST}]")
@click.option("--port", type=click.IntRange(1, 65535), help=f"Port to listen on.  [{DEFAULT_PORT}]")
@click.option(
    "--trusted-host",
    "trusted_hosts",
    multiple=True,
    metavar="NAME",
    help="A name it is called by behind a proxy; then the bridge has to demand tokens.",
)
def dashboard(
    config: str | None, rest_url: str | None, host: str | None, port: int | None, trusted_hosts: tuple[str, ...]
) -> int:
    """Run the web dashboard until SIGTERM or Ctrl-C. It speaks to the bank over REST alone, from any machine.

    \b
    Examples:
      zbank dashboard --config config/cluster.toml
      zbank dashboard --rest-url http://192.168.1.50:5000 --port 8080
    """
    from importlib.util import find_spec

    if find_spec("streamlit") is None or find_spec("requests") is None:
        return complain(MISSING, EXIT_USAGE)
    if config is not None:
        from zbank.config import DashboardConfig, RestConfig, load_config, url_of

        cluster = load_config(config)
        section = cluster.dashboard or DashboardConfig()
        host, port = host or section.host, port or section.port
        trusted_hosts = trusted_hosts or section.trusted_hosts
        rest_url = rest_url or section.rest_url or url_of(cluster.rest or RestConfig())
    host, port = host or DEFAULT_HOST, port or DEFAULT_PORT
    script = Path(__file__).parents[1] / "dashboard" / "main.py"
    command = [sys.executable, "-m", "streamlit", "run", str(script), f"--server.port={port}", f"--server.address={host}"]
    if host in HERE or host == "::1":
        names = (*HERE, *trusted_hosts)
        command += [f"--server.allowedHosts={name}" for name in names]  # a page of some site cannot lead here by its name
    if trusted_hosts:
        command.append(f"--browser.serverAddress={trusted_hosts[0]}")  # pages of this name may open the WebSocket
    environment = {**os.environ, "ZBANK_REST_URL": rest_url or DEFAULT_URL}
    sys.stdout.flush()
    os.execve(sys.executable, command, environment)  # it is Streamlit's process from here on: its signals, its end
