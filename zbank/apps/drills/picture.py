"""The sequence picture of a drill: a lifeline for each place, an arrow for each message, a sign for each forced row."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import NamedTuple

from rich.text import Text

from zbank.apps.drills.shown import ARROW, CRASH, CUT, HEALED, LOST, NOBODY, OFFICE, ROW, SAYS, TIME, Mark

FIRST_COLUMN = 9  #: where the first lifeline stands
LAST_LABEL = 18  #: room at the right of the last lifeline, for `▣ committed #9999`
NUMBER_END = 4  #: where a step's number ends

LIFELINE = "dim"
STYLES = {
    ARROW: "cyan",
    LOST: "bold red",
    NOBODY: "bold red",
    ROW: "bold green",
    CRASH: "bold red",
    OFFICE: "bold green",
    CUT: "bold yellow",
    HEALED: "bold yellow",
    SAYS: "bold yellow",
    TIME: "yellow",
}


class Signs(NamedTuple):
    """The characters of the picture."""

    line: str
    across: str
    dash: str
    from_left: str
    from_right: str
    to_right: str
    to_left: str
    forced: str
    dead: str
    office: str
    dots: str
    open_quote: str
    close_quote: str


NICE = Signs("│", "┼", "─", "├", "┤", "▶", "◀", "▣", "✗", "●", "…", "“", "”")
PLAIN = Signs("|", "+", "-", "|", "|", ">", "<", "#", "X", "o", "...", '"', '"')


class Canvas:
    """One line of characters, each with a style."""

    def __init__(self, width: int) -> None:
        self._cells = [(" ", "")] * width

    def put(self, column: int, text: str, style: str) -> None:
        """Write a text over what is there; what does not fit is cut off."""
        for offset, character in enumerate(text):
            if 0 <= column + offset < len(self._cells):
                self._cells[column + offset] = (character, style)

    def text(self) -> Text:
        """The line, without blanks at its end."""
        line = Text(no_wrap=True)
        for style, cells in groupby(self._cells, key=lambda cell: cell[1]):
            line.append("".join(character for character, _ in cells), style)
        line.rstrip()
        return line


class Picture:
    """Draws marks, line by line; remembers who is down."""

    def __init__(self, places: Sequence[str], width: int, signs: Signs = NICE) -> None:
        """`places` from left to right, `width` in characters."""
        self._signs = signs
        self._width = width
        self._gap = (width - FIRST_COLUMN - LAST_LABEL) // (len(places) - 1)
        self._at = {place: FIRST_COLUMN + number * self._gap for number, place in enumerate(places)}
        self._down: set[str] = set()

    def heading(self) -> Text:
        """The names over the lifelines."""
        canvas = Canvas(self._width)
        for place, at in self._at.items():
            canvas.put(max(0, at - len(place) // 2), place, "bold")
        return canvas.text()

    def pause(self) -> Text:
        """A line in which nothing happens."""
        return self._lifelines("").text()

    def lines(self, number: str, marks: Sequence[Mark]) -> Iterator[Text]:
        """The lines of a step, its number before the first that is no row of the step before. What happens to who is not in
        the picture is left out."""
        for mark in marks:
            if mark.kind == TIME or {mark.actor, mark.target or mark.actor} <= self._at.keys():
                numbered = mark.kind != ROW
                yield self._draw(number if numbered else "", mark)
                number = "" if numbered else number

    def _lifelines(self, number: str) -> Canvas:
        canvas = Canvas(self._width)
        canvas.put(NUMBER_END - len(number), number, "bold")
        for place, at in self._at.items():
            if place not in self._down:
                canvas.put(at, self._signs.line, LIFELINE)
        return canvas

    def _draw(self, number: str, mark: Mark) -> Text:
        signs, style = self._signs, STYLES[mark.kind]
        if mark.kind == OFFICE:
            self._down.discard(mark.actor)
        canvas = self._lifelines(number)
        at = self._at.get(mark.actor, FIRST_COLUMN)
        if mark.kind == TIME:
            canvas.put(at + 2, f" {signs.dots} {mark.label} {signs.dots} ", style)
        elif mark.kind == ROW:
            canvas.put(at, f"{signs.forced} {mark.label}", style)
        elif mark.kind in (CRASH, CUT):
            canvas.put(at, f"{signs.dead} {mark.label}", style)
        elif mark.kind in (OFFICE, HEALED):
            canvas.put(at, f"{signs.office} {mark.label}", style)
        elif mark.kind == SAYS:
            said = f"{signs.open_quote}{mark.label}{signs.close_quote}"
            canvas.put(at - len(said) // 2, said, style)
        else:
            self._arrow(canvas, mark, style)
        if mark.kind == CRASH:
            self._down.add(mark.actor)
        return canvas.text()

    def _arrow(self, canvas: Canvas, mark: Mark, style: str) -> None:
        """An arrow from lifeline to lifeline; one that is lost ends on its way."""
        signs = self._signs
        source, target = self._at[mark.actor], self._at[mark.target]
        step = 1 if source < target else -1
        end = target - step * (self._gap // 4 if mark.kind == LOST else 1)
        alive = {at for place, at in self._at.items() if place not in self._down}
        for column in range(source + step, end, step):
            canvas.put(column, signs.across if column in alive else signs.dash, style)
        canvas.put(source, signs.from_left if step > 0 else signs.from_right, style)
        head = signs.to_right if step > 0 else signs.to_left
        canvas.put(end, head if mark.kind == ARROW else signs.dead, style)
        label = f" {mark.label} "[: self._gap - 3]
        space = self._gap - 1 - len(label)
        canvas.put(source + 1 + space // 2 if step > 0 else source - len(label) - (space + 1) // 2, label, style)
