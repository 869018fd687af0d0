"""`zbank transfer-many`: pay what a file lists, many at a time, each line once however often the file is run."""

from __future__ import annotations

import contextlib
import signal
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import IO, TYPE_CHECKING, Any

import click

from zbank.apps.cli.many_input import BadLine, Order, read_orders
from zbank.apps.cli.output import emit_json_line, on_terminal
from zbank.apps.cli.shell import (
    EXIT_DONE,
    EXIT_REFUSED,
    EXIT_UNKNOWN,
    Bank,
    bank_options,
    complain,
    describe_error,
    json_option,
    printable,
)
from zbank.errors import InvalidInput, NoAnswer, Unreachable, ZbankError

if TYPE_CHECKING:
    from zbank import Client, TransferResult

DEFAULT_IN_FLIGHT = 64
MAX_IN_FLIGHT = 10_000
SILENT_LINES_LIMIT = 200  #: so many lines in a row without an answer: the bank is away, the rest waits for the next run

COMMITTED = "committed"
REPLAYED = "replayed"
REFUSED = "refused"
FAILED = "failed"
UNKNOWN = "unknown"


@dataclass(slots=True)
class Line:
    """What became of one line of the file."""

    line: int
    key: str
    status: str  #: COMMITTED, REPLAYED, REFUSED, FAILED or UNKNOWN
    text: str  #: for people
    result: dict[str, Any] | None = None  #: the Transfer object, where there is one
    silent: bool = False  #: nobody answered


@dataclass(slots=True)
class Summary:
    """Counts over all lines."""

    started: float = field(default_factory=time.monotonic)
    counts: dict[str, int] = field(
        default_factory=lambda: dict.fromkeys((COMMITTED, REPLAYED, REFUSED, FAILED, UNKNOWN), 0)
    )
    stopped: str = ""  #: why the rest of the file was not tried

    @property
    def exit_code(self) -> int:
        """3 if any is unknown, else 1 if any did not go through."""
        if self.counts[UNKNOWN]:
            return EXIT_UNKNOWN
        return EXIT_REFUSED if self.counts[REFUSED] or self.counts[FAILED] or self.stopped else EXIT_DONE

    def text(self) -> str:
        """One line."""
        counts = self.counts
        parts = [f"{counts[COMMITTED]} committed"]
        parts += [f"{counts[REPLAYED]} done before"] if counts[REPLAYED] else []
        parts += [f"{counts[status]} {status}" for status in (REFUSED, FAILED, UNKNOWN) if counts[status]]
        seconds = max(time.monotonic() - self.started, 1e-6)
        total = sum(counts.values())
        return f"{total} lines: {', '.join(parts)}; {seconds:.1f} s, {total / seconds:,.0f} a second"


@click.command("transfer-many")
@click.argument("file", type=click.File("r", encoding="utf-8", errors="surrogateescape"), metavar="FILE")
@click.option(
    "--in-flight",
    type=click.IntRange(1, MAX_IN_FLIGHT),
    default=DEFAULT_IN_FLIGHT,
    show_default=True,
    help="How many to send before the first is answered; 1 keeps strictly to the order of the file.",
)
@bank_options
@json_option
def transfer_many(bank: Bank, file: IO[str], in_flight: int, as_json: bool) -> int:
    """Pay what FILE lists: CSV with a header, or one JSON object a line; `-` reads stdin.

    Columns: id, from, to, amount, and if you like memo, currency, effective_on. The id (your own key, or a UUID) makes
    it safe to run the same file again: what was paid is not paid twice, what was unknown is settled. A bad line is
    reported and does not stop the rest.

    \b
    Exit codes: 1 a line was refused or failed · 3 the outcome of a line is not known: run the file again

    \b
    Examples:
      zbank transfer-many payroll.csv
      zbank transfer-many - --json < payments.jsonl
    \b
    payroll.csv:
      id,from,to,amount,memo
      pay-2026-06-0001,Mumbai/1001,Delhi/1002,50.00,June
    """
    summary = Summary()
    with bank.connect() as client, _gentle_interrupt(summary), _reporting(file, as_json) as report:
        client.branches()  # nobody there: one line, not one for each line of the file
        summary.started = time.monotonic()
        try:
            for line in pay_all(client, read_orders(file), in_flight, summary):
                summary.counts[line.status] += 1
                report(line)
        except InvalidInput as error:
            return complain(f"refused: {error.code}: {file.name}: {error.detail}")
    if as_json:
        emit_json_line({"summary": summary.counts})
    if summary.stopped:
        complain(f"stopped: {summary.stopped}; run the file again to go on")
    return complain(summary.text(), summary.exit_code)


def pay_all(client: Client, orders: Iterator[Order | BadLine], in_flight: int, summary: Summary) -> Iterator[Line]:
    """Send the orders, `in_flight` of them ahead of their answers; what became of each, in the order of the file.

    `summary.stopped`, set from outside or when the bank falls silent, ends the sending; what was sent is waited for.
    """
    waiting: deque[tuple[Order, Future[TransferResult]] | Line] = deque()
    silent = 0

    def finish() -> Line:
        nonlocal silent
        line = _result(waiting.popleft())  # Ctrl-C does not come between: see _gentle_interrupt
        silent = silent + 1 if line.silent else 0
        return line

    for order in orders:
        waiting.append(_send(client, order))
        if len(waiting) >= in_flight:
            yield finish()
        if silent >= SILENT_LINES_LIMIT:
            summary.stopped = f"no answer to {silent} lines in a row, at line {order.line}"
        if summary.stopped:
            break
    while waiting:
        yield finish()


@contextlib.contextmanager
def _gentle_interrupt(summary: Summary) -> Iterator[None]:
    """The first Ctrl-C stops the sending and lets what was sent end; the second one ends everything."""

    def stop(_number: int, _frame: object) -> None:
        summary.stopped = "interrupted"
        signal.signal(signal.SIGINT, before)

    before = signal.signal(signal.SIGINT, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _send(client: Client, order: Order | BadLine) -> tuple[Order, Future[TransferResult]] | Line:
    if isinstance(order, BadLine):
        return Line(order.line, order.key, REFUSED, f"refused: malformed: {order.problem}")
    try:
        return order, client.submit_transfer(
            order.source,
            order.destination,
            order.amount,
            id=order.id,
            memo=order.memo,
            currency=order.currency,
            effective_on=order.effective_on,
        )
    except ZbankError as error:
        return _error_line(order, error)


def _result(item: tuple[Order, Future[TransferResult]] | Line) -> Line:
    if isinstance(item, Line):
        return item
    order, future = item
    try:
        result = future.result()
    except ZbankError as error:
        return _error_line(order, error)
    what = f"{order.amount} from {order.source} to {order.destination}"
    if result.status == "committed":
        status, text = (REPLAYED, f"done before: {what}") if result.replayed else (COMMITTED, f"committed: {what}")
    elif result.status == "aborted":
        refusal = f"{result.refusal.code}: {result.refusal.detail}" if result.refusal else "aborted"
        status, text = REFUSED, f"refused: {refusal}"
    else:
        status, text = UNKNOWN, f"unknown: {result.reason or result.status}"
    return Line(order.line, order.key, status, text, result.to_json(), silent=result.status == "unknown")


def _error_line(order: Order, error: ZbankError) -> Line:
    status = REFUSED if isinstance(error, InvalidInput) else FAILED
    return Line(order.line, order.key, status, describe_error(error), silent=isinstance(error, Unreachable | NoAnswer))


# --- telling ----------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _reporting(file: IO[str], as_json: bool) -> Iterator[Callable[[Line], None]]:
    """How lines are told: plain or as JSON, with a progress bar where a person looks on."""
    tell: Callable[[Line], None] = _tell_json if as_json else _tell_plain
    if not sys.stderr.isatty():
        yield tell
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    total = _count_lines(file)
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, redirect_stdout=on_terminal()) as progress:
        task = progress.add_task("paying", total=total)

        def told(line: Line) -> None:
            tell(line)
            progress.advance(task)

        yield told


def _count_lines(file: IO[str]) -> int | None:
    """Lines with payments, by a quick look through the file; None where it cannot be read twice."""
    if not file.seekable():
        return None
    first = file.readline()
    count = sum(1 for line in file if line.strip())
    file.seek(0)
    return count + first.lstrip("\ufeff \t").startswith("{")


def _tell_plain(line: Line) -> None:
    click.echo(printable(f"line {line.line}: {line.key + ': ' if line.key else ''}{line.text}"))


def _tell_json(line: Line) -> None:
    plain: dict[str, Any] = {"line": line.line, "key": line.key or None, "result": line.status, "text": line.text}
    if line.result is not None:
        plain["transfer"] = line.result
    emit_json_line(plain)
