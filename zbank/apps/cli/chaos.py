"""`zbank chaos`: does a bank of real processes keep its word while everything around it breaks?"""

from __future__ import annotations

import math
import os
import signal
from pathlib import Path
from types import FrameType

import click

from zbank.apps.cli.output import emit_json, show_facts
from zbank.apps.cli.shell import EXIT_DONE, EXIT_REFUSED, complain, json_option

MIN_MINUTES = 0.1
MAX_MINUTES = 60.0  #: all that customers were told is kept in memory


@click.command()
@click.option(
    "--minutes",
    type=click.FloatRange(MIN_MINUTES, MAX_MINUTES),
    callback=lambda _context, _option, value: _checked_minutes(value),
    default=1.0,
    show_default=True,
    help="How long to break things.",
)
@click.option("--seed", type=click.IntRange(0, 2**31 - 1), help="Of the schedule and the load.  [a fresh one, shown]")
@click.option("--branches", type=click.IntRange(2, 8), default=3, show_default=True, help="How many to start.")
@click.option(
    "--report", metavar="FILE", type=click.Path(dir_okay=False, path_type=Path), help="Write it as Markdown, too."
)
@click.option("--keep", is_flag=True, help="Keep data and logs, whatever comes out.")
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

    if report is not None:
        _check_writable(report)
    _stop_by_signals()
    order = Order(minutes, int.from_bytes(new_id()[-3:]) if seed is None else seed, branches, keep)
    click.echo(f"seed {order.seed}, {minutes:g} min, {branches} branches", err=as_json)
    done = run(order, lambda line: click.echo(line, err=as_json))
    if as_json:
        emit_json(done.to_json())
    else:
        show_facts(done.facts())
    if report is not None:  # last: should the disk be full by now, at least the terminal has it
        report.write_text(done.to_markdown(), encoding="utf-8")
    if not done.findings:
        return EXIT_DONE
    again = f"zbank chaos --seed {order.seed} --minutes {minutes:g} --branches {branches}"
    told = f"{len(done.findings)} findings, data and logs are in {done.directory}"
    return complain(f"failed: {told}; the same faults again: {again}", EXIT_REFUSED)


def _checked_minutes(value: float) -> float:
    """The range alone lets NaN through, and a run of NaN minutes breaks nothing and finds nothing."""
    if math.isnan(value):
        raise click.BadParameter(f"{value} is no time: give minutes from {MIN_MINUTES:g} to {MAX_MINUTES:g}")
    return value


def _check_writable(report: Path) -> None:
    """Find out before the run, and leave nothing behind. Raises UsageError."""
    try:
        is_new = not os.path.lexists(report)
        report.open("ab").close()
    except OSError as error:
        raise click.UsageError(f"--report: {report} cannot be written: {error.strerror}") from error
    if is_new:
        report.unlink()


def _stop_by_signals() -> None:
    """Ctrl-C, SIGTERM and a closed terminal end the run: no process and no mount stays behind.

    Only the first one counts, so that a second does not break off the clearing up. What is ignored (nohup) stays so.
    """
    stopping = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    numbers = [number for number in stopping if signal.getsignal(number) != signal.SIG_IGN]

    def stop(_number: int, _frame: FrameType | None) -> None:
        for number in numbers:
            signal.signal(number, signal.SIG_IGN)
        raise KeyboardInterrupt

    for number in numbers:
        signal.signal(number, stop)
