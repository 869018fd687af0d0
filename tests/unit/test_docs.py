"""The documentation against the code: every command and flag in it exists, and so does every file that it names."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click
import pytest

from tests.docs import PAGES, ROOT, Span, blocks, heading_anchors, links, spans, split_commands, typed_lines
from zbank.apps import launcher
from zbank.apps.cli import main
from zbank.config import load_config

SHELL = ("sh", "console")
ABSENT = "not in this build"  # a line with these words may name what does not exist, and nothing that does
FOREIGN_OPTIONS = {"--dest_host", "--dest_port"}  # of the scripts that readers may know
NAMED_FILE = re.compile(r"(?:zbank|tests|config|docs|examples|benchmarks)/[\w./-]*|run_cluster\.py|Makefile|[A-Z]+\.md")
TYPED = [
    (page, *typed)
    for page in PAGES
    for block in blocks(page, *SHELL)
    if "curl " not in block.text  # tests/acceptance/test_rest_docs.py runs those
    for typed in typed_lines(block)
]
SPANS = [span for page in PAGES for span in spans(page)]


def launcher_options() -> set[str]:
    """The flags of run_cluster.py, from its help."""
    source = Path(launcher.__file__).read_text("utf-8")
    return set(re.findall(r'add_argument\(\s*"(--[a-z-]+)"', source))


def cli_options() -> set[str]:
    """Every flag of every zbank command."""
    commands = [main, *main.commands.values()]
    commands += [inner for outer in commands[1:] if isinstance(outer, click.Group) for inner in outer.commands.values()]
    return {option for command in commands for parameter in command.params for option in parameter.opts} | {"--help"}


def test_there_is_something_to_check() -> None:
    assert len(PAGES) >= 8
    assert sum(words[0] == "zbank" for _, _, words in TYPED) >= 40
    assert {"--config", "--branches", "--fresh", "--data"} <= launcher_options()
    assert {"--endpoint", "--in-flight", "--json", "--version"} <= cli_options()


@pytest.mark.parametrize(
    ("place", "words"),
    [pytest.param(place, words, id=f"{place} {' '.join(words[:3])}") for _, place, words in TYPED],
)
def test_what_a_reader_types_would_be_taken(
    place: str, words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "payroll.csv").touch()  # the example of docs/cli.md
    if words[0] in ("zbank", "/opt/zbank/bin/zbank"):
        check_whole_command([word.replace("/etc/zbank/cluster.toml", "config/branch.toml") for word in words[1:]])
    elif words[0] == "make":
        check_make(words[1:])
    elif words[0] == "docker":
        check_docker(words)
    elif words[:2] == ["python", "run_cluster.py"]:
        launcher._parse_arguments(words[2:])
    elif words[:2] == ["python", "-m"]:
        module = words[2].replace(".", "/")
        assert words[2] == "apsw" or any((ROOT / f"{module}{end}").exists() for end in (".py", "/__main__.py")), place
    else:
        known = {"git", "cd", ".", "python3", ".venv/bin/pip", "export", "ssh", "scp", "rm", "sudo"}
        known |= {"/opt/zbank/bin/pip", "install", "chmod", "chown", "systemctl", "systemd-sysusers"}
        assert words[0] in known, f"{place}: {words[0]} is typed nowhere else: check it and add it here"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_a_page_installs_is_enough_for_what_it_tells(page: Path) -> None:
    text = page.read_text("utf-8")
    for extra in ("rest", "dashboard"):
        if f"zbank {extra}" in text:
            installed = re.findall(r"pip install '?\.(?:\[([a-z,]+)\])?'?$", text, re.MULTILINE)
            assert all(extra in found.split(",") for found in installed), f"{page.name}: zbank {extra} needs [{extra}]"


def find_command(words: list[str]) -> tuple[click.Command | None, list[str]]:
    """The command that these words begin with, of a group the one within, and the words after it; None if there is none."""
    command: click.Command | None = main
    while isinstance(command, click.Group) and words and not words[0].startswith("-"):
        command, words = command.commands.get(words[0]), words[1:]
    return command, words


def check_whole_command(arguments: list[str]) -> None:
    """Parse a command line as click does, without running it."""
    if arguments[1:] == ["--help"] or arguments == ["--help"]:
        return
    command, rest = find_command(arguments)
    assert command is not None, f"there is no zbank {' '.join(arguments)}"
    with command.make_context(arguments[0], rest):
        pass
    if "--config" in arguments:
        load_config(ROOT / arguments[arguments.index("--config") + 1])


def check_make(arguments: list[str]) -> None:
    """The target is one of the Makefile's; ARGS is taken by run_cluster.py."""
    assert re.search(rf"^{re.escape(arguments[0])}:", (ROOT / "Makefile").read_text("utf-8"), re.M), arguments
    for argument in arguments[1:]:
        name, _, value = argument.partition("=")
        assert name in {"ARGS", "PYTHON", "MINUTES"}, arguments
        if name == "ARGS":
            launcher._parse_arguments(shlex.split(value))


def check_docker(words: list[str]) -> None:
    """A command of compose, about services that there are; what one of them runs is a zbank command."""
    assert words[:4] == ["docker", "compose", "-f", "deploy/compose.yaml"], words
    what, *rest = words[4:]
    if what == "run" and rest[:5] == ["--rm", "--entrypoint", "sh", "keys", "-c"]:
        assert rest[5].startswith("cp -p /parts/"), words
    elif what == "run":
        flag, service, *command = rest
        assert (flag, service in ("keys", "operator")) == ("--rm", True), words
        check_whole_command(["keys", *command] if service == "keys" else command)
    else:
        assert what in ("up", "stop", "start", "logs", "cp"), words
        named = {word.partition(":")[0] for word in rest if not word.startswith(("-", "copy-of-"))}
        assert named <= set(re.findall(r"^  ([a-z-]+):$", (ROOT / "deploy" / "compose.yaml").read_text("utf-8"), re.M)), words


@pytest.mark.parametrize(
    "span",
    [span for span in SPANS if re.match(r"(zbank|make|python run_cluster\.py) ", span.text)],
    ids=lambda span: f"{span.place} {span.text}",
)
def test_a_command_in_the_text_exists(span: Span) -> None:
    (words,) = split_commands(span.text)
    exists, _ = find_command(words[1:]) if words[0] == "zbank" else (None, [])
    if ABSENT in span.around:
        assert exists is None, f"zbank {words[1]} is in this build: say so"
    elif words[0] == "make":
        check_make(words[1:])
    elif words[0] == "zbank" and words[1] != "COMMAND" and not words[1].startswith("-"):
        assert exists is not None, f"there is no zbank {words[1]}"
        options = {option for parameter in exists.params for option in parameter.opts} | {"--help"}
        assert {word for word in words if word.startswith("--")} <= options


@pytest.mark.parametrize(
    "span", [span for span in SPANS if span.text.startswith("--")], ids=lambda span: f"{span.place} {span.text}"
)
def test_a_flag_in_the_text_exists(span: Span) -> None:
    flag = span.text.split()[0]
    known = flag in cli_options() | launcher_options() | FOREIGN_OPTIONS
    assert known != (ABSENT in span.around), f"{flag}: say '{ABSENT}' of it exactly when it is not"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for place, target in links(page):
        path, _, anchor = target.partition("#")
        assert "://" not in path, f"{place}: {target}: these pages need no network"
        found = (page.parent / path).resolve() if path else page
        assert found.exists(), f"{place}: {target} is not there"
        assert not anchor or anchor in heading_anchors(found), f"{place}: there is no heading #{anchor} in {found.name}"


@pytest.mark.parametrize(
    "span", [span for span in SPANS if NAMED_FILE.fullmatch(span.text)], ids=lambda span: f"{span.place} {span.text}"
)
def test_a_file_in_the_text_exists(span: Span) -> None:
    assert (ROOT / span.text).exists()


def test_every_page_is_reached_from_the_readme() -> None:
    told = {(ROOT / target.partition("#")[0]).resolve() for _, target in links(PAGES[0])}
    assert set(PAGES[1:]) <= told


def test_every_command_is_told() -> None:
    told = "\n".join(page.read_text("utf-8") for page in PAGES)
    assert [name for name in main.commands if not re.search(rf"\bzbank {name}\b", told)] == []


@pytest.mark.parametrize("text", ["zbank promote", "zbank transfer --sideways a b 1", "zbank balance", "make nothing"])
def test_the_checks_catch_what_is_wrong(text: str) -> None:
    words = shlex.split(text)
    check = check_whole_command if words[0] == "zbank" else check_make
    with pytest.raises((AssertionError, click.UsageError)):
        check(words[1:])
