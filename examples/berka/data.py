"""The bank's own files, read exactly and put in order: pure but for reading the files.

The rule: one account's movements, in the order in which the bank posted them, *chain*: each balance is the one before
plus the amount. Rows are by date, but within a day not always in posting order, and printed amounts are rounded to 0.10
while balances are not. So the order within each day is searched for, and the amount really posted is the difference of
consecutive balances.
Every account starts from zero: the first movement's balance is its amount.

Amounts are integers in hellers (CZK has two decimals, and so have both columns of the file).
"""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from itertools import groupby
from pathlib import Path

from zbank.errors import ZbankError

DATA_VARIABLE = "ZBANK_BERKA_DIR"
_PROJECT_ROOT = Path(__file__).resolve().parents[2]
_DEFAULT_DATA = _PROJECT_ROOT / ".." / "shared" / "data" / "berka"

TOLERANCE_MINOR = 10  #: printed amounts are rounded to 0.10
_SIGNS = {"PRIJEM": 1, "VYDAJ": -1, "VYBER": -1}  # by the type column: income, expense, and cash taken out
_DECIMAL = re.compile(r"(-?)([0-9]+)\.([0-9]{2})", re.ASCII)

TRANSFER_OUT = "PREVOD NA UCET"
TRANSFER_IN = "PREVOD Z UCTU"


class DataMissing(ZbankError):
    """The data directory, or a file of it, is not there."""

    code = "data_missing"


class DataFault(ZbankError):
    """A line that is not as the files' description says; names file and line."""

    code = "data_fault"


@dataclass(frozen=True, slots=True)
class Row:
    """One line of `trans.asc`."""

    trans_id: int
    account_id: int
    day: date
    printed_minor: int  #: signed, hellers, rounded to 0.10 by the bank
    balance_minor: int  #: after this movement, hellers
    operation: str  #: "VKLAD", "VYBER", "PREVOD NA UCET", …; "" for interest, fees and the like
    symbol: str  #: k_symbol: "UROK", "SLUZBY", …; "" for none
    bank: str  #: the other bank's code, only for transfers; "" for none
    counter_account: str  #: the account there; "" for none

    @property
    def is_transfer(self) -> bool:
        """Between banks (by two-phase commit), rather than cash, interest or a fee."""
        return self.operation in (TRANSFER_IN, TRANSFER_OUT)


@dataclass(frozen=True, slots=True)
class Movement:
    """A row in its place in the chain."""

    row: Row
    amount_minor: int  #: signed, hellers: what was really posted

    @property
    def balance_minor(self) -> int:
        """After this movement, as the bank itself wrote it."""
        return self.row.balance_minor


@dataclass(frozen=True, slots=True)
class History:
    """One account's whole chain."""

    account_id: int
    region: str  #: one of the 8 regions
    district: str
    movements: tuple[Movement, ...]  #: in posting order; never empty


def data_directory() -> Path:
    """Where the files are: `ZBANK_BERKA_DIR`, or the place beside the project.

    Raises DataMissing, saying what to set.
    """
    directory = Path(os.environ.get(DATA_VARIABLE) or _DEFAULT_DATA)
    for name in ("trans.asc", "account.asc", "district.asc"):
        if not (directory / name).is_file():
            raise DataMissing(
                f"no {name} in {os.path.normpath(directory)}: set {DATA_VARIABLE} to the directory that holds the "
                "bank's files (trans.asc, account.asc, district.asc)"
            )
    return directory


def parse_minor(text: str) -> int:
    """Hellers of a decimal with exactly two places, `-12.30` being -1230. Raises ValueError for anything else."""
    match = _DECIMAL.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is no amount with two decimals")
    sign, whole, cents = match.groups()
    value = int(whole) * 100 + int(cents)
    return -value if sign else value


def parse_day(text: str) -> date:
    """The day of `YYMMDD`; the files are of the twentieth century. Raises ValueError when it is no day."""
    if len(text) != 6 or not (text.isascii() and text.isdigit()):
        raise ValueError(f"{text!r} is no date YYMMDD")
    return date(1900 + int(text[:2]), int(text[2:4]), int(text[4:]))


def read_rows(path: Path) -> list[Row]:
    """All whole lines of `trans.asc`, in file order; a last line without its line end is cut short and left out."""
    return [_row(path, number, fields) for number, fields in _lines(path, columns=10)]


def read_histories(directory: Path) -> tuple[list[History], list[int]]:
    """(the accounts that chain, by first day and account; the ids of those that do not)."""
    homes = _read_homes(directory)
    by_account: dict[int, list[Row]] = {}
    for row in read_rows(directory / "trans.asc"):
        if row.account_id not in homes:
            raise DataFault(f"trans.asc: account {row.account_id} of movement {row.trans_id} is not in account.asc")
        by_account.setdefault(row.account_id, []).append(row)
    histories: list[History] = []
    unchained: list[int] = []
    for account_id, rows in by_account.items():
        movements = chain(rows)
        if movements is None:
            unchained.append(account_id)
        else:
            district, region = homes[account_id]
            histories.append(History(account_id, region, district, movements))
    histories.sort(key=lambda history: (history.movements[0].row.day, history.account_id))
    return histories, sorted(unchained)


def chain(rows: Sequence[Row]) -> tuple[Movement, ...] | None:
    """One account's rows in the order in which their balances chain from zero; None when there is no such order.

    Days stay in order, rows move only within their day; among several orders the one nearest to the file's wins.
    """
    ends: dict[int, tuple[Row, ...]] = {0: ()}  # balance at a day's end: one order of all rows so far that leads there
    for _, group in groupby(sorted(rows, key=lambda row: row.day), key=lambda row: row.day):
        today = tuple(group)
        reached: dict[int, tuple[Row, ...]] = {}
        for start_minor, before in ends.items():
            for end_minor, order in _orders_of_day(start_minor, today).items():
                reached.setdefault(end_minor, before + order)
        if not reached:
            return None
        ends = reached
    order = next(iter(ends.values()))
    starts = (0, *(row.balance_minor for row in order))
    return tuple(Movement(row, row.balance_minor - start) for start, row in zip(starts, order, strict=False))


def _orders_of_day(start_minor: int, rows: tuple[Row, ...]) -> dict[int, tuple[Row, ...]]:
    """For each balance at which the day can end, one order of its rows that leads there from the start."""
    ends: dict[int, tuple[Row, ...]] = {}
    seen: set[tuple[int, int]] = set()  # (balance, rows placed as bits): what follows depends on nothing else

    def place(balance_minor: int, placed: int, order: tuple[Row, ...]) -> None:
        if (balance_minor, placed) in seen:
            return
        seen.add((balance_minor, placed))
        if len(order) == len(rows):
            ends.setdefault(balance_minor, order)
        for index, row in enumerate(rows):
            fits = abs(balance_minor + row.printed_minor - row.balance_minor) <= TOLERANCE_MINOR
            if fits and not placed >> index & 1:
                place(row.balance_minor, placed | 1 << index, (*order, row))

    place(start_minor, 0, ())
    return ends


def _read_homes(directory: Path) -> dict[int, tuple[str, str]]:
    """(district, region) of each account of `account.asc`."""
    districts = {fields[0]: (fields[1], fields[2]) for _, fields in _lines(directory / "district.asc", columns=16)}
    homes: dict[int, tuple[str, str]] = {}
    for number, fields in _lines(directory / "account.asc", columns=4):
        if not fields[0].isdecimal() or fields[1] not in districts:
            raise DataFault(f"account.asc, line {number}: no account {fields[0]!r} or no district {fields[1]!r}")
        homes[int(fields[0])] = districts[fields[1]]
    return homes


def _row(path: Path, number: int, fields: list[str]) -> Row:
    """One line of `trans.asc`, checked."""
    try:
        kind, operation, symbol, bank, counter = fields[3], fields[4], fields[7].strip(), fields[8], fields[9]
        row = Row(
            trans_id=int(fields[0]),
            account_id=int(fields[1]),
            day=parse_day(fields[2]),
            printed_minor=_SIGNS[kind] * parse_minor(fields[5]),
            balance_minor=parse_minor(fields[6]),
            operation=operation,
            symbol=symbol,
            bank=bank,
            counter_account=counter if bank else "",
        )
    except (ValueError, KeyError) as error:
        raise DataFault(f"{path.name}, line {number}: {error}") from error
    if row.is_transfer != bool(bank):
        raise DataFault(f"{path.name}, line {number}: a transfer names the other bank, and only a transfer does")
    return row


def _lines(path: Path, *, columns: int) -> Iterator[tuple[int, list[str]]]:
    """(line number, fields) of each whole line after the header."""
    with path.open(encoding="latin-1", newline="") as file:
        numbered = ((number, line) for number, line in enumerate(file, 1) if line.endswith("\n"))
        for number, line in numbered:
            if number == 1:
                continue
            fields = next(csv.reader([line], delimiter=";"))
            if len(fields) != columns:
                raise DataFault(f"{path.name}, line {number}: {len(fields)} fields, {columns} expected")
            yield number, fields


def count(histories: Iterable[History]) -> tuple[int, int]:
    """(movements, those of them that are transfers between banks)."""
    movements = [movement for history in histories for movement in history.movements]
    return len(movements), sum(movement.row.is_transfer for movement in movements)
