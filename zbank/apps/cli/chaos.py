"""`zbank chaos`: does a bank of real processes keep its word while everything around it breaks?"""

from __future__ import annotations

import signal
from pathlib import Path

import click

from zbank.apps.cli.output import emit_json, show_facts
from zbank.apps.cli.shell import EXIT_DONE, EXIT_REFUSED, complain, json_option

MAX_MINUTES = 60.0  #: all that customers were told is kept in memory


@click.command()
@click.option(
    "--minutes", type=click.FloatRange(0.1, MAX_MINUTES), default=1.0, show_default=True, help="How long to break things."
)
@click.option("--seed", type=click.IntRange(0, 2**31 - 1), help="Of the schedule and the load.  [a fresh one, shown]")
@click.option("--branches", type=click.IntRange(2, 8), default=3, show_default=True, help="How many to start.")
@click.option("--report", metavar="FILE", type=click.Path(dir_okay=False, path_type=Path), help="Write it as Markdown, too.")
@click.option("--keep", is_flag=True, help="Keep data and logs, also when nothing was found.")
@json_option
def chaos(minutes: float, seed: int | None, branches: int, report: Path | None, keep: bool, as_json: bool) -> int:
    """Start a bank of its own, load it, break it in every way, mend it, and check every promise from outside.

    It kills processes, pauses them, cuts, delays and breaks connections, and fills a disk (as root on Linux). It needs no
    running bank and touches none. Exits with 1 and says what, when anything was found; data and logs are kept then.

    \b
    Examples:
      zbank chaos
      zbank chaos --minutes 10 --seed 7 --report chaos.md
    """
    from zbank.apps.chaos.run import Order, run
    from zbank.ids import new_id

    if report is not None and not report.absolute().parent.is_dir():
        raise click.UsageError(f"--report: the folder of {report} is not there")
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: no process and no mount stays behind
    order = Order(minutes, int.from_bytes(new_id()[-3:]) if seed is None else seed, branches, keep)
    click.echo(f"seed {order.seed}, {minutes:g} min, {branches} branches", err=as_json)
    done = run(order, lambda line: click.echo(line, err=as_json))
    if report is not None:
        report.write_text(done.to_markdown(), encoding="utf-8")
    if as_json:
        emit_json(done.to_json())
    else:
        show_facts(done.facts())
    if not done.findings:
        return EXIT_DONE
    again = f"zbank chaos --seed {order.seed} --minutes {minutes:g} --branches {branches}"
    told = f"{len(done.findings)} findings, data and logs are in {done.directory}"
    return complain(f"failed: {told}; the same faults again: {again}", EXIT_REFUSED)
