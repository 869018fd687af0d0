"""What `python -m tests.simulation` answers to wrong values, to Ctrl-C, and with a bug planted."""

from __future__ import annotations

import json
import re
import shlex
from typing import Any

import pytest

from tests.simulation import many
from tests.simulation.__main__ import main
from tests.simulation.bugs import all_bugs
from tests.simulation.planted import BUGS
from tests.simulation.run import play

SEED = 9  #: any
FOUND = "one yes is enough"  #: a bug that few seeds survive


def first_failing() -> str:
    """The first seed that fails with it."""
    return str(next(seed for seed in range(50) if not passes_with(FOUND, seed)))


def passes_with(name: str, seed: int) -> bool:
    with all_bugs()[name].planted():
        return not play(seed)[0].violation


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--seeds", "x"], "argument --seeds: 'x' is not a whole number of 1 or more"),
        (["--workers", "1.5"], "argument --workers: '1.5' is not a whole number of 1 or more"),
        (["--minutes", "nan"], "argument --minutes: 'nan' is not a number of minutes, as 10 or 0.5"),
        (["--start", "-"], "argument --start: a seed is a whole number from 0 to 2^62, not '-'"),
        (["--replay", str(2**62)], f"argument --replay: a seed is a whole number from 0 to 2^62, not '{2**62}'"),
        (["--plant", "none"], "there is no planted bug 'none'; there are:\n  a branch aborts on its own timeout"),
    ],
)
def test_a_wrong_value_is_told_what_a_right_one_is(
    arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert f"error: {says}" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--without", "--only"])
def test_a_key_that_never_happens_proves_nothing(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    known = next(iter(play(SEED)[0].happenings))
    assert main(["--replay", str(SEED), option, known]) == 0
    capsys.readouterr()
    assert main(["--replay", str(SEED), option, known, option, "wish 9999"]) == 2
    told = capsys.readouterr()
    assert f'this run of seed {SEED} never comes to "wish 9999": ' in told.err
    assert (told.out, known in told.err) == ("", False)


def test_a_failure_stays_one_with_a_key_that_never_happens(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--plant", FOUND, "--replay", first_failing(), "--without", "wish 9999"]) == 1
    told = capsys.readouterr()
    assert 'never comes to "wish 9999" before its failure: ' in told.err
    assert told.out.endswith("FAIL\n")


@pytest.mark.parametrize("more", [[], ["--trace"], ["--json"]])
def test_ctrl_c_while_one_seed_is_played(
    more: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(seed: int, without: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(many, "play", interrupted)
    assert main(["--replay", "1", *more]) == 130
    assert capsys.readouterr() == ("", "interrupted\n")


def test_ctrl_c_while_a_failure_is_looked_into_keeps_what_was_found(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: Any) -> Any:
        raise KeyboardInterrupt

    seed = first_failing()
    monkeypatch.setattr("tests.simulation.__main__.shrink", interrupted)
    assert main(["--plant", FOUND, "--start", seed, "--workers", "1"]) == 1
    verdict = capsys.readouterr().out.splitlines()[-1]
    assert verdict.endswith(f"broke a rule: {seed} (stopped by Ctrl-C while a failure was looked into)")


# --- planted bugs ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_planted_bug_is_found_and_its_commands_find_it_again(
    workers: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--plant", FOUND, "--workers", workers]) == 1
    printed = capsys.readouterr().out
    assert f"\n  planted    {FOUND}\n" in printed
    assert re.search(r"1 broke a rule: \d+ \(stopped at the first failure\)$", printed)
    commands = [shlex.split(typed)[3:] for typed in re.findall(r"^  replay +(.*)$", printed, re.M)]
    assert len(commands) == 2
    for words in commands:
        assert words[2:4] == ["--plant", FOUND]
        assert main([*words, "--json"]) == 1
        assert json.loads(capsys.readouterr().out)["planted"] == FOUND
        assert main([*words[:2], *words[4:]]) in (0, 2), "without the bug it passes, or never comes so far"
        capsys.readouterr()


def test_a_planted_bug_that_is_not_found_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    name = "nobody inquires"
    seed = next(seed for seed in range(50) if passes_with(name, seed))
    assert main(["--plant", name, "--start", str(seed), "--seeds", "1", "--workers", "1"]) == 0
    assert ", nothing broken, the planted bug not found" in capsys.readouterr().out.splitlines()[-1]


def test_all_planted_bugs_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--list-bugs"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert sorted(line.split(maxsplit=1)[1] for line in lines) == sorted(bug.name for bug in BUGS)
    assert "P10  told as applied before the acks" in lines
    assert main(["--list-bugs", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)) == len(lines)
