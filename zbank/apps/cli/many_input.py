"""The file of `zbank transfer-many`: CSV with a header, or JSON lines; read as a stream, a bad line is a value."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from zbank.errors import InvalidInput
from zbank.ids import id_from_text

REQUIRED = ("id", "from", "to", "amount")
OPTIONAL = ("memo", "currency", "effective_on")
COLUMNS = (*REQUIRED, *OPTIONAL)
MAX_LINE_CHARS = 10_000


@dataclass(frozen=True, slots=True)
class Order:
    """One line that can be sent."""

    line: int  #: in the file, from 1
    key: str  #: the id as it stands in the file
    id: bytes
    source: str
    destination: str
    amount: str | int | Decimal
    memo: str
    currency: str | None
    effective_on: str | None


@dataclass(frozen=True, slots=True)
class BadLine:
    """One line that cannot."""

    line: int
    key: str  #: "" where there is none
    problem: str


def read_orders(lines: Iterable[str]) -> Iterator[Order | BadLine]:
    """All orders of a file, by its lines, in turn. An id may stand in one line only.

    Raises InvalidInput when the file as a whole cannot be used: it is empty, or its header lacks a column.
    """
    seen: dict[bytes, int] = {}
    for line, fields in _read_fields(_Lines(lines)):
        item = fields if isinstance(fields, BadLine) else _order(line, fields)
        if isinstance(item, Order):
            first = seen.setdefault(item.id, line)
            if first != line:
                item = BadLine(
                    line, item.key, f"the id {item.key!r} stands in line {first} already: each payment needs its own"
                )
        yield item


class _Lines:
    """The lines, with a count, and without the mark that some programs put at the start of a file."""

    def __init__(self, lines: Iterable[str]) -> None:
        self._lines = iter(lines)
        self.count = 0

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = next(self._lines)
        self.count += 1
        return line.removeprefix("\ufeff") if self.count == 1 else line


def _read_fields(lines: _Lines) -> Iterator[tuple[int, dict[str, Any] | BadLine]]:
    """(line, fields by name or what is wrong), whichever of the two forms it is; the first character tells."""
    for first in lines:
        if not first.strip():
            continue
        if first.lstrip().startswith("{"):
            yield from _json_fields(first, lines)
        else:
            yield from _csv_fields(_header(first, lines.count), lines)
        return
    raise InvalidInput(
        f"the file is empty: it needs a header with {', '.join(REQUIRED)}, or JSON lines with these keys"
    )


def _json_fields(first: str, lines: _Lines) -> Iterator[tuple[int, dict[str, Any] | BadLine]]:
    text: str | None = first
    while text is not None:
        if text.strip():
            yield lines.count, _json_object(lines.count, text)
        text = next(lines, None)


def _json_object(line: int, text: str) -> dict[str, Any] | BadLine:
    if len(text) > MAX_LINE_CHARS:
        return BadLine(line, "", f"longer than {MAX_LINE_CHARS} characters")
    try:
        value = json.loads(text, parse_float=Decimal)
    except (ValueError, RecursionError) as error:
        return BadLine(line, "", f"is no JSON: {error}")
    if not isinstance(value, dict):
        return BadLine(line, "", "is no JSON object")
    return value


def _header(text: str, line: int) -> list[str]:
    names = [name.strip().lower() for name in next(csv.reader([text]))]
    missing = [name for name in REQUIRED if name not in names]
    if missing:
        raise InvalidInput(
            f"line {line}: the header lacks {', '.join(missing)}: "
            "a CSV file begins with a line such as id,from,to,amount,memo"
        )
    unknown = [name for name in names if name not in COLUMNS]
    if unknown or len(set(names)) != len(names):
        problem = f"unknown columns {', '.join(map(repr, unknown))}" if unknown else "a column twice"
        raise InvalidInput(f"line {line}: the header has {problem}: known are {', '.join(COLUMNS)}")
    return names


def _csv_fields(names: list[str], lines: _Lines) -> Iterator[tuple[int, dict[str, Any] | BadLine]]:
    rows = csv.reader(lines, strict=True)
    while True:
        start = lines.count + 1
        try:
            row = next(rows)
        except StopIteration:
            return
        except csv.Error as error:
            yield start, BadLine(start, "", f"is no CSV: {error}")
            continue
        if not any(cell.strip() for cell in row):
            continue
        if len(row) != len(names):
            yield start, BadLine(start, "", f"has {len(row)} cells, the header has {len(names)}")
            continue
        yield start, {name: cell.strip() for name, cell in zip(names, row, strict=True) if cell.strip()}


def _order(line: int, fields: dict[str, Any]) -> Order | BadLine:
    key = fields.get("id")
    shown = key if isinstance(key, str) else ""
    unknown = [name for name in fields if name not in COLUMNS]
    if unknown:
        return BadLine(line, shown, f"unknown keys {', '.join(map(repr, unknown))}: known are {', '.join(COLUMNS)}")
    missing = [name for name in REQUIRED if fields.get(name) in (None, "")]
    if missing:
        return BadLine(line, shown, f"lacks {', '.join(missing)}")
    amount = fields["amount"]
    if isinstance(amount, bool) or not isinstance(amount, str | int | Decimal):
        return BadLine(line, shown, f"amount {amount!r} is no decimal")
    texts = {name: fields.get(name) or "" for name in COLUMNS if name != "amount"}
    for name, value in texts.items():
        if not isinstance(value, str):
            return BadLine(line, shown, f"{name} is no text: write it in quotes")
        if any("\ud800" <= char <= "\udfff" for char in value):
            return BadLine(line, "", f"{name} is not valid UTF-8")
    try:
        sent_id = id_from_text(texts["id"])
    except InvalidInput as error:
        return BadLine(line, shown, str(error))
    return Order(
        line,
        texts["id"],
        sent_id,
        texts["from"],
        texts["to"],
        amount,
        texts["memo"],
        texts["currency"] or None,
        texts["effective_on"] or None,
    )
