"""The shape of the code, checked: who imports whom, who reads clocks and randomness, and how long things are."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "zbank"
MAX_MODULE_LINES = 400
MAX_FUNCTION_LINES = 60

_BASE = {"errors", "ids", "clock"}
# Layer (a module or package of zbank) → the layers that it may import from, besides itself.
MAY_IMPORT: dict[str, set[str]] = {
    "errors": set(),
    "ids": {"errors"},
    "clock": {"errors"},
    "domain": _BASE,
    "config": _BASE | {"domain"},
    "protocol": _BASE | {"domain"},
    "storage": _BASE | {"domain", "protocol"},
    "transport": _BASE | {"domain", "protocol", "storage"},
    "apps": _BASE | {"config", "domain", "protocol", "storage", "transport"},
}
_SHORTCUTS = {"Client": "transport", "TransferRequest": "transport", "TransferResult": "transport"}  # of zbank/__init__
CLOCK_AND_RANDOMNESS = {"errors", "ids", "clock"}  # the only ones that may read the wall clock or randomness
PURE = {"domain", "protocol"}
NO_SOCKETS_OR_FILES = {"errors", "ids", "clock", "domain", "protocol"}  # config reads its file, storage its database

WORLD = {"apsw", "asyncio", "io", "multiprocessing", "os", "pathlib", "select", "selectors", "shutil", "signal"}
WORLD |= {"socket", "sqlite3", "subprocess", "tempfile", "threading", "zmq"}
IMPURE = WORLD | {"random", "secrets", "time", "uuid", "uuid_utils"}
IMPURE_OF_ZBANK = {"zbank.ids.new_id", "zbank.clock.Clock"}  # what hides randomness or a clock behind a name of ours
FORBIDDEN_READS = {
    "time.time",
    "time.time_ns",
    "time.localtime",
    "time.gmtime",
    "time.ctime",
    "datetime.now",
    "datetime.utcnow",
    "datetime.today",
    "datetime.datetime.now",
    "datetime.datetime.utcnow",
    "datetime.datetime.today",
    "date.today",
    "datetime.date.today",
    "os.urandom",
    "os.getrandom",
    "uuid.uuid1",
    "uuid.uuid4",
}
RANDOM_MODULES = {"random", "secrets", "uuid_utils"}


def sources(*places: str) -> list[Path]:
    """All Python files of these folders or files."""
    found: list[Path] = []
    for place in places:
        path = ROOT / place
        found += sorted(path.rglob("*.py")) if path.is_dir() else [path]
    return found


def layer_of(path: Path) -> str:
    """`domain` for zbank/domain/book.py, `ids` for zbank/ids.py."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(tree: ast.AST) -> Iterator[str]:
    """Dotted names that a module imports, with the imported name: `zbank.ids.new_id`, `time`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def dotted(node: ast.AST) -> str:
    """`a.b.c` of such an expression, "" of any other."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        before = dotted(node.value)
        return f"{before}.{node.attr}" if before else ""
    return ""


def wrong_imports(layer: str, tree: ast.AST) -> Iterator[str]:
    """Imports that this layer may not have."""
    for name in imports(tree):
        top, _, rest = name.partition(".")
        target = _SHORTCUTS.get(rest, rest.split(".")[0])
        if top == "zbank" and target not in {layer, "", "__version__"} | MAY_IMPORT[layer]:
            yield f"imports {name}"
        if layer in PURE and (top in IMPURE or name in IMPURE_OF_ZBANK):
            yield f"imports {name}: it is a pure layer"
        if layer in NO_SOCKETS_OR_FILES and top in WORLD:
            yield f"imports {name}: sockets and files are for transport and storage"


def wrong_reads(layer: str, tree: ast.AST) -> Iterator[str]:
    """Reads of the wall clock, of randomness or of files where there may be none."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            name = dotted(node.func)
            if layer in NO_SOCKETS_OR_FILES and name == "open":
                yield f"line {node.lineno}: opens a file"
            if name == "random.Random" and not node.args and layer not in CLOCK_AND_RANDOMNESS:
                yield f"line {node.lineno}: random.Random without a seed"
        if isinstance(node, ast.Attribute) and layer not in CLOCK_AND_RANDOMNESS:
            name = dotted(node)
            randomness = name.split(".")[0] in RANDOM_MODULES and name != "random.Random"
            if name in FORBIDDEN_READS or randomness:
                yield f"line {node.lineno}: {name}"
    if layer not in CLOCK_AND_RANDOMNESS:
        for name in imports(tree):
            if name in FORBIDDEN_READS or name.split(".")[0] in RANDOM_MODULES - {"random"}:
                yield f"imports {name}"
            if name.startswith("random.") and name != "random.Random":
                yield f"imports {name}"


def modules() -> list[Path]:
    return [path for path in sources("zbank") if path != PACKAGE / "__init__.py"]


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_and_reads(path: Path) -> None:
    layer, tree = layer_of(path), ast.parse(path.read_text(encoding="utf-8"))
    assert layer in MAY_IMPORT, f"{layer} has no place among the layers"
    assert [*wrong_imports(layer, tree), *wrong_reads(layer, tree)] == []


@pytest.mark.parametrize(
    ("layer", "code"),
    [
        ("domain", "import time"),
        ("domain", "from zbank.ids import new_id"),
        ("protocol", "from zbank.clock import Clock, Now"),
        ("domain", "from zbank.protocol.messages import Txn"),
        ("protocol", "import zbank.storage.sqlite"),
        ("protocol", "open('x')"),
        ("storage", "from zbank.transport import loop"),
        ("storage", "from zbank.config import load_config"),
        ("storage", "from zbank import Client"),
        ("transport", "import time\ntime.time()"),
        ("apps", "from datetime import datetime\ndatetime.now()"),
        ("apps", "import random\nrandom.random()"),
        ("apps", "import random\nrandom.Random()"),
        ("apps", "from random import choice"),
        ("apps", "import secrets"),
        ("apps", "from uuid import uuid4"),
        ("apps", "import os\nos.urandom(16)"),
        ("ids", "import socket"),
    ],
)
def test_the_rules_catch_what_they_forbid(layer: str, code: str) -> None:
    tree = ast.parse(code)
    names = [*wrong_imports(layer, tree), *wrong_reads(layer, tree)]
    assert names, f"{code!r} in {layer} was let through"


def test_what_is_allowed_is_let_through() -> None:
    code = "import random, time\nfrom zbank import __version__\nrandom.Random(1).random()\ntime.monotonic()"
    tree = ast.parse(code)
    assert [*wrong_imports("apps", tree), *wrong_reads("apps", tree)] == []


ALL = sources("zbank", "tests", "examples", "benchmarks", "run_cluster.py")


@pytest.mark.parametrize("path", ALL, ids=lambda path: str(path.relative_to(ROOT)))
def test_lengths_and_docstring(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    tree = ast.parse(text)
    assert len(text.splitlines()) <= MAX_MODULE_LINES
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            assert lines <= MAX_FUNCTION_LINES, f"{node.name} has {lines} lines"
    public = not path.stem.startswith("_") or path.stem in {"__init__", "__main__"}
    if public and text.strip():
        assert ast.get_docstring(tree), "the module has no docstring"
