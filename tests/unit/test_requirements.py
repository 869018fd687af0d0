"""What is installed is pinned and hashed: every dependency of setup.cfg, and all that they need."""

from __future__ import annotations

import configparser
import re
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]
PIN = re.compile(r"^([A-Za-z0-9._-]+)==(\S+?)(?: ; (.+?))?(?: \\)?$")
FILES = {"run": ("rest", "dashboard", "discovery"), "dev": ("rest", "dashboard", "discovery", "dev")}


def pins(name: str) -> dict[str, set[str]]:
    """Versions by package; each line has its hashes."""
    found: dict[str, set[str]] = {}
    text = (ROOT / "requirements" / f"{name}.txt").read_text("utf-8")
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    for line, following in zip(lines, [*lines[1:], ""], strict=True):
        match = PIN.match(line)
        if match:
            found.setdefault(match[1].lower().replace("_", "-"), set()).add(match[2])
            assert following.startswith("    --hash=sha256:"), f"{line} has no hash"
        else:
            assert line.startswith("    --hash=sha256:"), line
    return found


@pytest.mark.parametrize("name", [*FILES])
def test_every_dependency_is_pinned_with_hashes_as_setup_cfg_wants_it(name: str) -> None:
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    wanted = config["options"]["install_requires"] + "".join(config["options.extras_require"][extra] for extra in FILES[name])
    pinned = pins(name)
    for text in filter(None, map(str.strip, wanted.splitlines())):
        if text.startswith("#"):
            continue
        requirement = Requirement(text)
        versions = pinned[requirement.name.lower().replace("_", "-")]
        assert all(requirement.specifier.contains(version) for version in versions), text


def test_what_runs_is_the_same_in_tests() -> None:
    run, dev = pins("run"), pins("dev")
    assert run.items() <= dev.items()
    assert {"setuptools", "pyzmq", "msgpack", "flask", "streamlit"} <= run.keys()


def test_the_makefile_installs_nothing_else() -> None:
    text = (ROOT / "Makefile").read_text("utf-8")
    assert text.count("--require-hashes -r requirements/") == 2
    assert "-e '.[" not in text
