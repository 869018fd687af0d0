"""A drill told in a terminal: step by step with words, then the books, then the picture of the whole."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from textwrap import wrap

from rich.console import Console
from rich.rule import Rule
from rich.text import Text

from zbank.apps.drills.books import Accounts
from zbank.apps.drills.picture import NICE, PLAIN, Picture
from zbank.apps.drills.shown import REST, Announced, Beginning, Known, Result, Shown, Telling

MIN_WIDTH, MAX_WIDTH = 80, 100
INDENT = 6  #: of the words under the picture
_PLAIN_SIGNS = str.maketrans({NICE.forced: PLAIN.forced, "“": '"', "”": '"', "→": "->", "…": "..."})
NOTHING_KNOWN = "nothing about this transfer"


class Teller:
    """Tells one drill on stdout; with colours where that is a terminal."""

    def __init__(self) -> None:
        width = min(max(Console().width, MIN_WIDTH), MAX_WIDTH)
        self._console = Console(width=width, highlight=False, emoji=False, markup=False, legacy_windows=False)
        self._width = width
        self._nice = _can_show("│▶▣✗●“…")
        self._picture: Picture | None = None
        self._steps: list[Shown] = []
        self._beginning: Beginning | None = None

    def tell(self, told: Telling) -> None:
        """Print what is told next."""
        if isinstance(told, Beginning):
            self._begin(told)
        elif isinstance(told, Announced):
            self._words(told.text, "italic")
        elif isinstance(told, Shown):
            self._steps.append(told)
            self._show(told)
        else:
            self._end(told)

    def ask_for_enter(self) -> None:
        """Say what is waited for."""
        self._words("[Enter] goes on", "dim")

    def _draw(self, places: Sequence[str]) -> Picture:
        return Picture(places, self._width, NICE if self._nice else PLAIN)

    def _begin(self, told: Beginning) -> None:
        self._beginning = told
        self._console.print(Rule(Text(told.title, "bold"), align="left", style="dim"))
        self._words(told.question, "italic")
        forced = NICE.forced if self._nice else PLAIN.forced
        self._words(
            f"{told.home} pays and is the home of the transfer, {told.other} is paid. Time stands still between the steps. "
            f"{forced} is a journal row, forced to disk, with its number; [P5] is a rule in docs/protocol.md.",
            "dim",
        )
        self._console.print()
        self._picture = self._draw(told.places)
        self._console.print(self._picture.heading())

    def _show(self, told: Shown) -> None:
        assert self._picture is not None
        if told.step == REST and not told.marks:
            return
        if told.marks:
            self._console.print(self._picture.pause())
        for line in self._picture.lines(_number(told), told.marks):
            self._console.print(line)
        if told.text:
            self._words(told.text, rule=f"[{told.rule}]" if told.rule else "")
        if told.step != REST:
            self._known(told.known)

    def _words(self, text: str, style: str = "", *, rule: str = "", hanging: int = 0) -> None:
        """Paragraphs under the picture; further lines of each stand further in by `hanging`."""
        if not self._nice:
            text = _plain(text)
        for paragraph in text.split("\n"):
            begin, further = " " * INDENT, " " * (INDENT + hanging)
            for line in wrap(paragraph, self._width - 1, initial_indent=begin, subsequent_indent=further):
                self._console.print(Text(line, style), end="")
                self._console.print(Text(f" {rule}" if rule and paragraph.endswith(line.strip()) else "", "dim"))

    def _known(self, known: Sequence[Known]) -> None:
        """Who knows what, and what of it is on whose disk."""
        if not known:
            return
        names = max(len(one.actor) for one in known) + 2
        self._console.print()
        for one in known:
            if not one.there:
                self._words(f"{one.actor:<{names}}is down", "bold red")
                continue
            knows = "; ".join(one.knows) or NOTHING_KNOWN
            rows = ", ".join(f"#{row.seq} {row.kind}" for row in one.rows) or NOTHING_KNOWN
            self._words(f"{one.actor:<{names}}knows    {knows}", hanging=names + 9)
            self._words(f"{'':<{names}}on disk  {rows}", "green" if one.rows else "", hanging=names + 9)
        self._console.print()

    def _end(self, told: Result) -> None:
        assert self._beginning is not None
        self._console.print()
        self._console.print(Rule(Text("The whole picture", "bold"), align="left", style="dim"))
        picture = self._draw(self._beginning.places)
        self._console.print(picture.heading())
        for step in self._steps:
            for line in picture.lines(_number(step), step.marks):
                self._console.print(line)
        self._console.print()
        self._console.print(Rule(Text("The end", "bold"), align="left", style="dim"))
        self._known(self._steps[-1].known)
        self._words(f"transfer  {self._beginning.id}")
        right = told.outcome == told.should_be
        self._words(
            f"outcome   {told.outcome}" + ("" if right else f", and it should be {told.should_be}"), _style(right)
        )
        self._books(told.accounts)
        self._console.print()
        self._words(told.lesson, "bold")

    def _books(self, accounts: Accounts) -> None:
        for line in accounts.lines:
            right = line.after == line.should_be
            text = f"{line.account:<20} {line.before:>12} → {line.after:>12} {accounts.currency}"
            self._words(text + ("" if right else f", and it should be {line.should_be}"), _style(right))
        clearing = ", ".join(f"{name} {amount}" for name, amount in accounts.clearing)
        what = "that much is on its way" if accounts.on_its_way else "nothing is on its way"
        self._words(f"clearing  {clearing}; together {accounts.clearing_sum}: {what}", hanging=10)
        if accounts.in_flight or accounts.in_doubt:
            self._words(
                f"{accounts.in_flight} transfers are under way, {accounts.in_doubt} are in doubt: drills are for a bank that "
                "nobody else uses",
                _style(False),
            )
        if accounts.exact:
            self._words(
                "The books are exact: nothing is lost, nothing is paid twice, nothing is held any more.", "bold green"
            )
        else:
            self._words("The books are NOT as they should be.", "bold red")


def _number(step: Shown) -> str:
    return "" if step.number is None else str(step.number)


def _style(right: bool) -> str:
    return "" if right else "bold red"


def _plain(text: str) -> str:
    """The text for an encoding that lacks our signs."""
    return text.translate(_PLAIN_SIGNS).encode(sys.stdout.encoding or "ascii", "replace").decode("ascii", "replace")


def _can_show(text: str) -> bool:
    """Whether stdout's encoding has these characters."""
    try:
        text.encode(sys.stdout.encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True
