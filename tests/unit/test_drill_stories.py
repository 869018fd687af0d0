"""The drills as text and picture, and that nobody meets them who did not ask for them."""

from __future__ import annotations

import io
import re
import string
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from tests.docs import ROOT
from zbank.apps import branch as branch_app
from zbank.apps import coordinator as coordinator_app
from zbank.apps.cli import main
from zbank.apps.drills import script
from zbank.apps.drills.books import Accounts, Line
from zbank.apps.drills.control import ForcedRow
from zbank.apps.drills.picture import NICE, PLAIN, Picture, Signs
from zbank.apps.drills.script import AnyStep, Drill
from zbank.apps.drills.shown import (
    ARROW,
    CRASH,
    LOST,
    OFFICE,
    ROW,
    TIME,
    Announced,
    Beginning,
    Known,
    Mark,
    Result,
    Shown,
    Telling,
)
from zbank.apps.drills.stories import DRILLS
from zbank.apps.drills.teller import Teller
from zbank.apps.serving import listens_here_only

WORDS = {"home", "other", "payer", "payee", "amount", "cut_s", "txn", "lost"}
PLACES = ("client", "coordinator", "Mumbai", "Delhi")
STEPS = [
    pytest.param(drill, step, id=f"{drill.name}-{n}") for drill in DRILLS.values() for n, step in enumerate(drill.steps)
]


def fields(text: str) -> set[str]:
    """The words in braces."""
    return {name for _, name, _, _ in string.Formatter().parse(text) if name is not None}


@pytest.mark.parametrize(("drill", "step"), STEPS)
def test_every_text_can_be_told_and_every_rule_exists(drill: Drill, step: AnyStep) -> None:
    assert fields(step.text) | fields(step.before) <= WORDS
    assert not step.rule or f"**{step.rule}. " in (ROOT / "docs" / "protocol.md").read_text("utf-8")


@pytest.mark.parametrize("drill", DRILLS.values(), ids=DRILLS)
def test_a_drill_is_told_whole(drill: Drill) -> None:
    assert re.fullmatch(r"[a-z]+(-[a-z]+)*", drill.name)
    assert fields(drill.question) | fields(drill.lesson) <= WORDS
    assert drill.title
    crashed = [step.actor for step in drill.steps if isinstance(step, script.Crash)]
    restarted = [step.actor for step in drill.steps if isinstance(step, script.Restart)]
    assert crashed == restarted, "who is killed comes back in the same drill"


def drawn(marks: list[Mark], signs: Signs = NICE) -> list[str]:
    picture = Picture(PLACES, 80, signs)
    return [picture.heading().plain, *(line.plain for line in picture.lines("7", marks))]


def test_the_picture() -> None:
    marks = [
        Mark(ARROW, "client", "coordinator", "transfer"),
        Mark(ARROW, "coordinator", "Delhi", "prepare"),
        Mark(ROW, "Delhi", label="prepared #12"),
        Mark(LOST, "Delhi", "coordinator", "vote yes"),
        Mark(CRASH, "Mumbai", label="killed"),
        Mark(TIME, label="0.5 s pass"),
        Mark(ARROW, "Pune", "Delhi", "not in the picture"),
        Mark(OFFICE, "Mumbai", label="epoch 2"),
    ]
    assert drawn(marks) == [
        "      client         coordinator        Mumbai            Delhi",
        "   7     ├─── transfer ──▶│                │                │",
        "         │                ├─── prepare ────┼───────────────▶│",
        "         │                │                │                ▣ prepared #12",
        "         │                │   ✗────────────┼─── vote yes ───┤",
        "         │                │                ✗ killed         │",
        "         │  … 0.5 s pass …                                  │",
        "         │                │                ● epoch 2        │",
    ]
    assert drawn(marks[:2], signs=PLAIN)[1:] == [
        "   7     |--- transfer -->|                |                |",
        "         |                |--- prepare ----+--------------->|",
    ]


@pytest.mark.parametrize("columns", [80, 100, 300])
def test_nothing_is_wider_than_a_hundred_columns(
    columns: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    tell(*a_drill())
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= min(columns, 100)
    assert any("▣ prepared #12" in line for line in lines)
    assert "NOT as they should be" not in "\n".join(lines)


def test_an_encoding_without_signs(monkeypatch: pytest.MonkeyPatch) -> None:
    page = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(page, "ascii", write_through=True))
    tell(*a_drill())
    text = page.getvalue().decode("ascii")
    assert "# prepared #12" in text
    assert '"unknown"' in text


def test_wrong_books_are_said(capsys: pytest.CaptureFixture[str]) -> None:
    beginning, shown, _, result = a_drill()
    assert isinstance(result, Result)
    accounts = Accounts("INR", (Line("Mumbai/1001", "10.00", "9.00", "0.00"),), (), "1.00", 1, 0, "0.00")
    tell(beginning, shown, Result("aborted", "committed", accounts, "Lesson.", False))
    told = " ".join(capsys.readouterr().out.split())
    for words in ("and it should be 0.00", "and it should be committed", "are under way", "NOT as they should be"):
        assert words in told


def a_drill() -> tuple[Telling, ...]:
    """A short one."""
    known = Known("Delhi", True, 3, ("has promised; " * 12,), (ForcedRow(12, 3, "prepared", "coordinator-1-1"),))
    down = Known("coordinator", False, 0, (), ())
    marks = (Mark(ARROW, "coordinator", "Delhi", "prepare"), Mark(ROW, "Delhi", label="prepared #12"))
    accounts = Accounts(
        "INR", (Line("Mumbai/1001", "10.00", "0.00", "0.00"),), (("Mumbai", "0.00"),), "0.00", 0, 0, "0.00"
    )
    return (
        Beginning("a-drill", "A drill", "What? " * 40, PLACES, "Mumbai", "Delhi", "an id"),
        Shown(1, "send", marks, "The client says “unknown”. " * 20, "P5", (known, down)),
        Announced("We wait. " * 20),
        Result("committed", "committed", accounts, "Lesson. " * 30, True),
    )


def tell(*told: Telling) -> None:
    teller = Teller()
    for one in told:
        teller.tell(one)
    teller.ask_for_enter()


def test_the_lab_lists_them_all() -> None:
    listed = CliRunner().invoke(main, ["drill", "list"]).output
    assert f"$ zbank drill list\n{listed}```" in (ROOT / "docs" / "lab.md").read_text("utf-8")
    assert "eleven drills" in (ROOT / "README.md").read_text("utf-8")
    assert len(DRILLS) == 11


# --- nobody meets them who did not ask ----------------------------------------------------------------------------------


def test_without_the_flag_nothing_of_drills_is_even_imported() -> None:
    program = """
import sys
import zbank.apps.branch, zbank.apps.coordinator, zbank.apps.launcher, zbank.apps.cli
print(*(name for name in sys.modules if name.startswith("zbank.apps.drills")))
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "\n", "")


@pytest.mark.parametrize("flags", [(), ("--drills",)])
def test_the_flag_reaches_the_actors(flags: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[bool] = []

    def note(settings: branch_app.BranchSettings | coordinator_app.CoordinatorSettings) -> int:
        seen.append(settings.drills)
        return 0

    monkeypatch.setattr(branch_app, "run", note)
    monkeypatch.setattr(coordinator_app, "run", note)
    config = str(ROOT / "config" / "cluster.toml")
    for command in (
        ("branch", "--name", "Mumbai", "--config", config),
        ("branch", "--name", "Mumbai"),
        ("coordinator", "--config", config),
        ("coordinator",),
    ):
        assert CliRunner().invoke(main, [*command, *flags]).exit_code == 0
    assert seen == [bool(flags)] * 4


@pytest.mark.parametrize(
    ("bind", "here_only"),
    [
        ("tcp://127.0.0.1:9100", True),
        ("tcp://127.3.4.5:9100", True),
        ("tcp://[::1]:9100", True),
        ("tcp://localhost:9100", True),
        ("tcp://0.0.0.0:9100", False),
        ("tcp://*:9100", False),
        ("tcp://[::]:9100", False),
        ("tcp://192.168.1.10:9100", False),
        ("tcp://example.org:9100", False),
    ],
)
def test_who_can_reach_an_address(bind: str, here_only: bool) -> None:
    assert listens_here_only(bind) == here_only


def test_an_actor_with_drills_that_others_can_reach_does_not_start(tmp_path: Path) -> None:
    command = ["branch", "--name", "Mumbai", "--host", "0.0.0.0", "--drills", "--data", str(tmp_path / "data")]
    done = subprocess.run(
        [sys.executable, "-m", "zbank.apps.cli", *command], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "cannot_drill: branch Mumbai of cluster demo listens at tcp://0.0.0.0:9100" in done.stderr
    assert not (tmp_path / "data").exists()
