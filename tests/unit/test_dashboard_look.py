"""The dashboard's look: colours that can be read, and a configuration that keeps to itself."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from zbank.apps import dashboard
from zbank.apps.dashboard import look

FOLDER = Path(dashboard.__file__).parent
CONFIG: dict[str, Any] = tomllib.loads((FOLDER / ".streamlit" / "config.toml").read_text("utf-8"))
AA = 4.5  #: contrast of small text, WCAG 2.2, 1.4.3
CARDS = {"light": "#ffffff", "dark": "#131c2a"}


def luminance(colour: str) -> float:
    """Relative luminance (WCAG 2.2)."""
    parts = [int(colour[n : n + 2], 16) / 255 for n in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("mode", ["light", "dark"])
def test_texts_can_be_read(mode: str) -> None:
    theme = CONFIG["theme"][mode]
    background, card = theme["backgroundColor"], CARDS[mode]
    pairs = [(theme[name], place) for name in ("textColor", "linkColor") for place in (background, card)]
    badges = ("green", "red", "orange", "gray", "blue")
    pairs += [(theme[f"{name}TextColor"], theme[f"{name}BackgroundColor"]) for name in badges]
    pairs.append((theme["dataframeHeaderTextColor"], theme["dataframeHeaderBackgroundColor"]))
    sidebar = theme["sidebar"]
    pairs += [(sidebar["textColor"], sidebar["backgroundColor"]), (sidebar["textColor"], sidebar["secondaryBackgroundColor"])]
    if mode == "light":
        pairs.append(("#ffffff", theme["primaryColor"]))  # on buttons
    for text, place in pairs:
        assert contrast(text, place) >= AA, (text, place)


def test_so_can_those_that_stand_in_the_style() -> None:
    found = re.findall(r"[^-]color: light-dark\((#[0-9a-f]{6}), (#[0-9a-f]{6})\)", look.CSS)
    assert len(found) >= 6
    for light, dark in found:
        assert contrast(light, CONFIG["theme"]["light"]["backgroundColor"]) >= AA
        assert contrast(dark, CARDS["dark"]) >= AA


@pytest.mark.parametrize("mode", ["light", "dark"])
def test_lines_of_charts_can_be_seen(mode: str) -> None:
    for colour in CONFIG["theme"][mode]["chartCategoricalColors"]:
        assert contrast(colour, CARDS[mode]) >= 3.0, colour  # WCAG 2.2, 1.4.11


def test_it_keeps_to_itself() -> None:
    assert CONFIG["browser"]["gatherUsageStats"] is False
    assert CONFIG["server"]["address"] == "127.0.0.1"
    assert CONFIG["client"]["showErrorDetails"] == "none"
    sources = [path.read_text("utf-8") for path in FOLDER.rglob("*.py")]
    assert not [text for text in sources if "unsafe_allow_html" in text]
    assert {path.name for path in (FOLDER / "assets").iterdir()} == {"icon.png", "icon.svg", "logo.svg"}


def test_it_reaches_the_bank_over_rest_alone() -> None:
    """Of the rest of zbank it takes time, fresh keys and currencies."""
    allowed = re.compile(r"zbank\.(apps\.dashboard(\.\w+)*|clock|ids|domain\.money)")
    for path in FOLDER.rglob("*.py"):
        for module in re.findall(r"^\s*(?:from|import) (zbank[\w.]*)", path.read_text("utf-8"), re.M):
            assert allowed.fullmatch(module), f"{path.name}: {module}"
