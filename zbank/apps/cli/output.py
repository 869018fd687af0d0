"""What commands print: JSON, and tables that are pretty on a terminal and plain, at full width, in a pipe."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice
from typing import Any, Literal, NamedTuple

import click

from zbank.apps.cli.shell import printable

MEASURED_ROWS = 1000  #: rows that decide the widths; longer tables stream
FOLDED_CHARS = 16  #: words are not folded into less
GAP_CHARS = 2  #: between columns, as the box below has it

Row = Sequence[str]


class Column(NamedTuple):
    """One column of a table."""

    header: str
    right: bool = False  #: numbers stand at the right
    fold: bool = False  #: words, which may go over several lines on a narrow terminal; all else stays whole


def emit_json(value: Any) -> None:
    """One JSON document."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))


def emit_json_line(value: Any) -> None:
    """One JSON document on one line, out at once."""
    click.echo(json.dumps(value, ensure_ascii=False))


def emit_json_list(key: str, values: Iterable[Any]) -> None:
    """`{key: [value, …]}` as one document that is written while it is made: a branch may have a million accounts."""
    click.echo(f'{{"{key}": [', nl=False)
    separator = "\n  "
    for value in values:
        click.echo(separator + json.dumps(value, ensure_ascii=False), nl=False)
        separator = ",\n  "
    click.echo("\n]}")


def on_terminal() -> bool:
    """A person reads stdout."""
    return sys.stdout.isatty()


def show_table(columns: Sequence[Column], rows: Iterable[Row]) -> int:
    """Print a table; gives the number of its rows back. Nothing is ever cut off."""
    stream = (tuple(printable(cell) for cell in row) for row in rows)
    first = list(islice(stream, MEASURED_ROWS))
    following = next(stream, None)
    if following is None and on_terminal() and _show_pretty(columns, first):
        return len(first)
    return _show_plain(columns, first, chain([] if following is None else [following], stream))


def _show_pretty(columns: Sequence[Column], rows: Sequence[Row]) -> bool:
    """Print with colours and rules, unless the terminal is too narrow for what must stay whole."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    widths = [
        min(width, FOLDED_CHARS) if column.fold else width
        for column, width in zip(columns, _widths(columns, rows), strict=True)
    ]
    if sum(widths) + GAP_CHARS * (len(widths) - 1) > console.width:
        return False
    table = Table(box=box.SIMPLE_HEAD, header_style="bold", pad_edge=False, padding=(0, 1, 0, 0), show_edge=False)
    for column, width in zip(columns, widths, strict=True):
        justify: Literal["left", "right"] = "right" if column.right else "left"
        table.add_column(column.header, justify=justify, overflow="fold", no_wrap=not column.fold, min_width=width)
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    console.print(table)
    return True


def _widths(columns: Sequence[Column], rows: Sequence[Row]) -> list[int]:
    headers = tuple(column.header for column in columns)
    return [max(map(len, cells)) for cells in zip(headers, *rows, strict=True)]


def _show_plain(columns: Sequence[Column], first: Sequence[Row], rest: Iterable[Row]) -> int:
    headers = tuple(column.header for column in columns)
    count = 0
    for line in _plain_lines(columns, _widths(columns, first), chain([headers], first, rest)):
        click.echo(line)
        count += 1
    return count - 1


def _plain_lines(columns: Sequence[Column], widths: Sequence[int], rows: Iterable[Row]) -> Iterator[str]:
    for row in rows:
        cells = (
            cell.rjust(width) if column.right else cell.ljust(width)
            for column, width, cell in zip(columns, widths, row, strict=True)
        )
        yield "  ".join(cells).rstrip()


def show_facts(facts: Iterable[tuple[str, str]]) -> None:
    """Lines of `name  value`; an empty name goes on with the fact before."""
    listed = [(name, printable(value)) for name, value in facts]
    width = max((len(name) for name, _ in listed), default=0)
    for name, value in listed:
        click.echo(f"{name:<{width}}  {value}")
