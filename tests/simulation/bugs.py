"""The whole table of planted bugs, from all modules that fill it."""

from __future__ import annotations

import pkgutil
from importlib import import_module
from pathlib import Path

from tests.simulation.planted import BUGS, Bug


def all_bugs() -> dict[str, Bug]:
    """Every planted bug, by its name."""
    for module in pkgutil.iter_modules([str(Path(__file__).parent)], "tests.simulation."):
        if module.name.startswith("tests.simulation.planted_"):
            import_module(module.name)
    return {bug.name: bug for bug in BUGS}
