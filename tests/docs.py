"""README.md and docs/*.md taken apart: code blocks, code spans and links, each with its place."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))

_FENCE = re.compile(r"^ *```(?P<language>\w*)$")
_SPAN = re.compile(r"`([^`\n]+)`")
_LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
_END_OF_COMMAND = {"|", "&&", "||", ";", ">", "<", "&"}


class Block(NamedTuple):
    """One fenced code block."""

    page: Path
    line: int  #: of its first line, from 1
    language: str
    text: str


class Span(NamedTuple):
    """One piece of inline code, with the whole line around it."""

    place: str
    text: str
    around: str


def blocks(page: Path, *languages: str) -> list[Block]:
    """The code blocks of a page; of these languages, where some are given."""
    found: list[Block] = []
    opened: tuple[int, str] | None = None
    lines: list[str] = []
    for number, line in enumerate(page.read_text("utf-8").splitlines(), 1):
        fence = _FENCE.match(line)
        if fence is None:
            lines.append(line)
        elif opened is None:
            opened, lines = (number + 1, fence["language"]), []
        else:
            found.append(Block(page, *opened, "\n".join(lines) + "\n"))
            opened = None
    assert opened is None, f"{page.name}: a code block has no end"
    return [block for block in found if not languages or block.language in languages]


def prose(page: Path) -> Iterator[tuple[int, str]]:
    """(number, text) of each line outside code blocks."""
    inside = False
    for number, line in enumerate(page.read_text("utf-8").splitlines(), 1):
        if _FENCE.match(line):
            inside = not inside
        elif not inside:
            yield number, line


def spans(page: Path) -> list[Span]:
    """All inline code of a page."""
    return [
        Span(f"{page.name}:{number}", text.replace("\\|", "|"), line)
        for number, line in prose(page)
        for text in _SPAN.findall(line)
    ]


def links(page: Path) -> list[tuple[str, str]]:
    """(place, target) of every link and picture of a page."""
    return [(f"{page.name}:{number}", target) for number, line in prose(page) for target in _LINK.findall(line)]


def typed_lines(block: Block) -> list[tuple[str, list[str]]]:
    """(place, words) of each command that a reader is to type; comments are dropped."""
    found: list[tuple[str, list[str]]] = []
    for number, line in enumerate(block.text.splitlines(), block.line):
        if block.language == "console":
            if not line.startswith("$ "):
                continue
            line = line[2:]
        place = f"{block.page.name}:{number}"
        found.extend((place, words) for words in split_commands(line))
    return found


def split_commands(line: str) -> Iterator[list[str]]:
    """The words of each command of a shell line."""
    words: list[str] = []
    for word in [*shlex.split(line, comments=True), ";"]:
        if word not in _END_OF_COMMAND:
            words.append(word)
        elif words:
            yield words
            words = []


def heading_anchors(page: Path) -> set[str]:
    """The anchors that GitHub gives to the headings of a page."""
    headings = (re.match(r"#+ (.*)", line) for _, line in prose(page))
    return {re.sub(r"[^\w\- ]", "", heading[1].lower()).replace(" ", "-") for heading in headings if heading}
