"""What a page of several machines says to type, and on which of the two that stand for them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from tests.docs import Block, blocks

PLACES = {"192.168.1.10": "A", "192.168.1.11": "A", "192.168.1.12": "B"}  #: the guide's three machines, on two


class Typed(NamedTuple):
    """One line of a page, and where it is to be typed."""

    words: tuple[str, ...]
    machines: str  #: "A", "B", or both


def typed_lines(block: Block) -> Iterator[Typed]:
    """The lines of a block that say on which machine they are typed; the addresses are still the page's."""
    for line in block.text.splitlines():
        found = re.search(r"# (?:on (?P<place>[\d.]+|each)|(?P<anywhere>anywhere))", line)
        if found is not None:
            place = "192.168.1.12" if found["anywhere"] else found["place"]
            yield Typed(tuple(shlex.split(line, comments=True)), "AB" if place == "each" else PLACES[place])


def under(page: Path, heading: str) -> list[Typed]:
    """What is to be typed under a heading, in its order."""
    lines = page.read_text("utf-8").splitlines()
    first = lines.index(heading) + 1
    last = next((n for n, line in enumerate(lines[first:], first) if re.match(r"#{1,2} ", line)), len(lines))
    return [typed for block in blocks(page, "sh") if first < block.line <= last for typed in typed_lines(block)]
