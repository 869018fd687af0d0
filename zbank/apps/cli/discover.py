"""`zbank discover`: the banks that announce themselves on the local network."""

from __future__ import annotations

import click

from zbank.apps.cli.output import Column, emit_json, show_table
from zbank.apps.cli.shell import EXIT_DONE, EXIT_REFUSED, complain, json_option

COLUMNS = (Column("cluster"), Column("coordinator"), Column("protocol", right=True))
DEFAULT_WAIT_S = 2.5
MAX_WAIT_S = 60.0


@click.command()
@click.option(
    "--wait",
    "wait_s",
    type=click.FloatRange(0.2, MAX_WAIT_S),
    default=DEFAULT_WAIT_S,
    show_default=True,
    metavar="SECONDS",
    help="How long to listen for answers.",
)
@json_option
def discover(wait_s: float, as_json: bool) -> int:
    """List the clusters whose coordinators announce themselves on the local network.

    Anybody can announce anything: a bank is proved by its keys, when you connect. Exits with 1 when there is none.

    \b
    Examples:
      zbank discover
      zbank discover --json --wait 5
    """
    from zbank.transport.multicast import look

    found = look(wait_s)
    if as_json:
        shown = [{"cluster": one.cluster, "endpoint": one.endpoint, "protocol_version": one.version} for one in found]
        emit_json({"clusters": shown})
    elif found:
        show_table(COLUMNS, [(one.cluster, one.endpoint, str(one.version)) for one in found])
    if not found:
        advice = "a coordinator is announced when it listens beyond its own machine and has zbank[discovery]"
        return complain(f"failed: no coordinator announces itself on this network: {advice}", EXIT_REFUSED)
    return EXIT_DONE
