"""The files of deploy/, taken apart: the Dockerfile, the compose file, the systemd units."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from ruamel.yaml import YAML

from tests.docs import ROOT
from tests.unit.test_docs import check_whole_command

DEPLOY = ROOT / "deploy"
CONFIG = "/etc/zbank/cluster.toml"  #: where containers and units have the cluster file
UNITS = sorted((DEPLOY / "systemd").glob("*.service"))
INSTANCE = "Mumbai"  #: for which the units of branches are tried


class Instruction(NamedTuple):
    """One instruction of a Dockerfile, its lines joined."""

    word: str
    text: str

    @property
    def words(self) -> list[str]:
        """The text as a command line: in JSON, or as a shell has it."""
        return list(json.loads(self.text)) if self.text.startswith("[") else shlex.split(self.text)


def dockerfile() -> list[Instruction]:
    """All instructions."""
    lines = [line for line in (DEPLOY / "Dockerfile").read_text("utf-8").splitlines() if not line.startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    return [Instruction(*line.split(" ", 1)) for line in joined.splitlines() if line.strip()]


def final(word: str) -> str:
    """The text of the last instruction of a kind."""
    return [one.text for one in dockerfile() if one.word == word][-1]


def health_command() -> list[str]:
    """What HEALTHCHECK runs."""
    return list(json.loads(final("HEALTHCHECK").partition("CMD ")[2]))


def build_context() -> Iterator[str]:
    """Paths that .dockerignore lets through to the build: it shuts out everything, and names what is not."""
    lines = [line for line in (ROOT / ".dockerignore").read_text("utf-8").splitlines() if not line.startswith("#")]
    assert lines[0] == "*"
    yield from (line[1:] for line in lines if line.startswith("!"))


def compose() -> dict[str, Any]:
    """The compose file, its anchors and merges resolved."""
    return dict(YAML(typ="safe").load((DEPLOY / "compose.yaml").read_text("utf-8")))


def services() -> dict[str, dict[str, Any]]:
    """The services of the compose file."""
    return dict(compose()["services"])


def volumes(service: dict[str, Any]) -> dict[str, str]:
    """Named volumes of a service, by where they are mounted; a read-only one ends in `:ro`."""
    named = [text.split(":", 1) for text in service.get("volumes", ()) if isinstance(text, str)]
    return {where.removesuffix(":ro"): name + (":ro" if where.endswith(":ro") else "") for name, where in named}


def unit(path: Path) -> dict[str, list[str]]:
    """The settings of a unit, each with all its values."""
    found: dict[str, list[str]] = {}
    for line in path.read_text("utf-8").splitlines():
        if line and line[0] not in "#[":
            name, _, value = line.partition("=")
            found.setdefault(name, []).append(value)
    return found


def check_command(words: list[str]) -> None:
    """A zbank command with its flags is one, and its config file is good."""
    assert words, "a command is missing"
    check_whole_command([word.replace(CONFIG, "deploy/cluster.toml") for word in words])
