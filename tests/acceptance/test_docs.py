"""What the README says, done: its commands and its Python, against a running cluster."""

from __future__ import annotations

import importlib.metadata
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.acceptance.cluster import COMMAND_LIMIT_S, Cluster, wait_until
from tests.docs import ROOT, Block, blocks, typed_lines
from zbank.apps import keymaking

README = ROOT / "README.md"
DEMO = "tcp://127.0.0.1:9000"
SHORTER = {"bench": ("--seconds", "0.3"), "chaos": ("--minutes", "0.1")}  # of two equal flags the last one counts


def block_after(heading: str, language: str, contains: str = "") -> Block:
    """The first such block of the language under a heading of the README."""
    start = README.read_text("utf-8").splitlines().index(heading) + 1
    return next(block for block in blocks(README, language) if block.line > start and contains in block.text)


def run_python(cluster: Cluster, text: str) -> str:
    """What a program prints; the demo's address in it is taken for the cluster's."""
    assert DEMO in text
    program = cluster.folder / "program.py"
    program.write_text(text.replace(DEMO, cluster.endpoint), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-W", "error", str(program)],
        env=cluster.environment(),
        capture_output=True,
        text=True,
        timeout=COMMAND_LIMIT_S,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_the_python_of_the_readme_prints_what_it_says(shared_cluster: Cluster) -> None:
    heading = "## Use it from Python"
    said = block_after(heading, "text").text
    program = block_after(heading, "python").text
    assert run_python(shared_cluster, program) == said
    assert run_python(shared_cluster, program) == said, "its ids make it safe to run again"


def test_the_python_of_the_client_page_runs(cluster: Cluster) -> None:
    first, second = (block.text.replace("Pune/", "Delhi/") for block in blocks(ROOT / "docs" / "python.md", "python"))
    assert run_python(cluster, first) == "done 70.00\n"
    assert run_python(cluster, second) == "committed first\ncommitted again\ncommitted again\n"


def test_a_record_is_read_as_the_architecture_page_does(cluster: Cluster) -> None:
    (block,) = blocks(ROOT / "docs" / "architecture.md", "python")
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", block.text],
        cwd=cluster.folder,
        env=cluster.environment(),
        capture_output=True,
        text=True,
        timeout=COMMAND_LIMIT_S,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert re.fullmatch(r"\d+ \w+\(.*\)\n\d+ \w+\(.*\)\n", done.stdout)


def test_the_commands_of_the_readme_work_one_after_the_other(cluster: Cluster) -> None:
    listed = typed_lines(block_after("## Use it from the command line", "sh"))
    assert len(listed) > 12
    keymaking.make_all(cluster.folder / "data" / "secure-keys", "demo", cluster.branches)  # as `make run ARGS=--secure` does
    for place, words in listed:
        assert words[0] == "zbank", place
        done = cluster.cli(*words[1:], *SHORTER.get(words[1], ()))
        assert (done.returncode, done.stderr) == (0, ""), f"{place}: {words}"
        assert done.stdout, place


def test_a_transfer_leaves_the_records_that_the_walk_shows(cluster: Cluster) -> None:
    assert cluster.cli("transfer", "Mumbai/1001", "Delhi/1002", "50").returncode == 0
    walk = block_after("## The walk of a transfer", "console", contains="apsw")
    answers = re.findall(r"\$ python -m apsw \"file:(\S+)\?mode=ro\" \"([^\"]+)\"\n((?:\d.*\n)+)", walk.text)
    assert len(answers) == 3
    for file, query, said in answers:
        query = query.replace("seq > 4", "seq > 3")  # the demo has a branch more, and so one record that it joined
        wait_until(lambda: kinds(ask(cluster, file, query)) == kinds(said), what=f"{file} with {said}")  # noqa: B023


def ask(cluster: Cluster, file: str, query: str) -> str:
    """What the SQLite shell of the README prints."""
    done = subprocess.run(
        [sys.executable, "-m", "apsw", f"file:{file}?mode=ro", query],
        cwd=cluster.folder,
        capture_output=True,
        text=True,
        timeout=COMMAND_LIMIT_S,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def kinds(printed: str) -> list[str]:
    """The second column."""
    return [line.split("|")[1] for line in printed.splitlines()]


@pytest.mark.skipif(
    not any(found.metadata["Name"] == "zbank" for found in importlib.metadata.distributions()),
    reason="zbank is not installed here, only on the path",
)
def test_a_folder_of_that_name_beside_a_program_does_not_hide_the_package(tmp_path: Path) -> None:
    """A program beside the clone: its folder, which holds a folder `zbank`, is searched first."""
    (tmp_path / "zbank").mkdir()
    (tmp_path / "program.py").write_text("from zbank import Client\nprint(Client.__name__)\n")
    done = subprocess.run(
        [sys.executable, "-I", "-c", f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import program"],
        capture_output=True,
        text=True,
        timeout=COMMAND_LIMIT_S,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("Client\n", "")
