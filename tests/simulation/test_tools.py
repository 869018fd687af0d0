"""The simulator's own tools: runs repeat exactly, failures shrink, reports can be acted on."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.simulation import many, report, trace
from tests.simulation.__main__ import main
from tests.simulation.many import Totals, play_in_time, results
from tests.simulation.run import Result, play
from tests.simulation.shrink import NOISE, AllBut, ddmin, rule_of, shrink
from tests.simulation.sometimes import MESSAGES, SITUATIONS, STANDARD_SEEDS
from tests.simulation.violation import Violation
from tests.simulation.world import Line, World
from zbank.domain.legs import Leg
from zbank.domain.refusal import Refusal
from zbank.protocol import messages
from zbank.protocol.messages import Beat, Prepare, Transfer, Txn, Vote
from zbank.protocol.participant import Participant

ROOT = Path(__file__).parents[2]
SEED = 9  #: any
TXN = Txn("coordinator", 2, 7)
ID = (12).to_bytes(16, "big")


def facts(result: Result, world: World) -> dict[str, Any]:
    """All of a run but how long it took."""
    return {name: getattr(result, name) for name in Result.__struct_fields__ if name != "real_s"} | {
        "digest": trace.digest(world.trace)
    }


def first(wanted: Callable[[Result], object]) -> tuple[Result, World]:
    """The first seed whose run is so."""
    for seed in range(50):
        result, world = play(seed)
        if wanted(result):
            return result, world
    raise AssertionError("none of 50 seeds is so")


def command(*arguments: str, hash_seed: int = 0) -> subprocess.CompletedProcess[str]:
    """`python -m tests.simulation` as a user starts it."""
    return subprocess.run(
        [sys.executable, "-m", "tests.simulation", *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONHASHSEED": str(hash_seed)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.fixture
def forgetful(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bug in the real code: branches forget what they have settled when they are asked again (breaks T6)."""
    from zbank.protocol import participant

    old = participant._DECIDE[Transfer]

    def transfer(self: Participant, sender: Any, n: int, message: Transfer, now: Any) -> Any:
        self.state.settled.pop(message.id, None)
        return old(self, sender, n, message, now)

    monkeypatch.setitem(participant._DECIDE, Transfer, transfer)


# --- the same seed is the same run ---------------------------------------------------------------------------------------


def test_a_seed_twice_is_the_same_run() -> None:
    assert facts(*play(SEED)) == facts(*play(SEED))


def test_a_seed_is_the_same_run_whatever_python_hashes_strings_to() -> None:
    first, second = (command("--replay", str(SEED), "--json", hash_seed=hash_seed) for hash_seed in (1, 2))
    found, again = json.loads(first.stdout), json.loads(second.stdout)
    del found["real_s"], again["real_s"]
    assert found == again
    assert found["digest"] == trace.digest(play(SEED)[1].trace)


def test_another_seed_is_another_run() -> None:
    assert trace.digest(play(SEED)[1].trace) != trace.digest(play(SEED + 1)[1].trace)


def test_leaving_one_out_leaves_the_other_decisions_alone() -> None:
    whole, world = first(lambda result: "kill" in result.happenings.values())
    planned = {key for key, kind in whole.happenings.items() if kind not in (*NOISE, "point")}
    out = next(key for key, kind in whole.happenings.items() if kind == "kill")
    result, other = play(whole.seed, {out})
    assert {key for key, kind in result.happenings.items() if kind not in (*NOISE, "point")} == planned - {out}
    until_us = next(line[0] for line in world.trace if line[1] == out)
    assert until_us > 0
    before = [[line for line in some.trace if line[0] < until_us] for some in (world, other)]
    assert trace.digest(before[0]) == trace.digest(before[1])


def test_to_keep_what_happened_is_to_leave_out_all_else() -> None:
    whole, world = play(SEED)
    assert facts(*play(SEED, AllBut(whole.happenings))) == facts(whole, world)
    assert play(SEED, AllBut([]))[0].happenings == {}


# --- shrinking -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("culprits", [{"5"}, {"0", "99"}, {"17", "18", "60"}, set()])
def test_ddmin_finds_the_few_that_matter(culprits: set[str]) -> None:
    asked = []

    def fails(keys: Sequence[str]) -> Sequence[str] | None:
        asked.append(keys)
        return keys if culprits <= set(keys) else None

    assert ddmin([str(n) for n in range(100)], fails) == sorted(culprits, key=int)
    assert len(asked) < 100


def test_ddmin_takes_what_no_longer_happens_as_left_out() -> None:
    def fails(keys: Sequence[str]) -> Sequence[str] | None:
        if "3" not in keys:
            return None
        return [key for key in keys if int(key) <= 3]  # what comes later is never reached

    assert ddmin([str(n) for n in range(50)], fails) == ["3"]


def test_ddmin_where_either_of_two_is_enough() -> None:
    found = ddmin([str(n) for n in range(32)], lambda keys: keys if {"4", "30"} & set(keys) else None)
    assert found in (["4"], ["30"])


def test_a_planted_bug_shrinks_to_a_few_happenings(forgetful: None) -> None:
    whole, world = first(lambda result: result.violation)
    shrunk = shrink(play_in_time, whole, world)
    assert shrunk.is_smallest
    assert 0 < len(shrunk.happenings) <= 5 < len(whole.happenings)
    assert rule_of(shrunk.violation) == rule_of(whole.violation)
    again, _ = play(whole.seed, AllBut(shrunk.happenings))
    assert (again.violation, again.happenings) == (shrunk.violation, shrunk.happenings)
    for key in shrunk.happenings:
        assert rule_of(play(whole.seed, AllBut(shrunk.happenings.keys() - {key}))[0].violation) != rule_of(
            whole.violation
        )


def test_shrinking_stops_when_its_runs_or_its_time_are_over(forgetful: None) -> None:
    whole, world = first(lambda result: result.violation)
    few = shrink(play_in_time, whole, world, max_runs=3)
    assert (few.runs, few.is_smallest) == (3, False)
    assert few.violation
    none = shrink(play_in_time, whole, world, max_s=0)
    assert (none.runs, none.is_smallest, none.happenings) == (0, False, whole.happenings)


# --- many seeds ------------------------------------------------------------------------------------------------------------


def test_workers_give_the_same_results_in_seed_order() -> None:
    alone = list(results(20, 3, 1, None))
    shared = list(results(20, 3, 2, None))
    assert [result.seed for result in shared] == [20, 21, 22]
    for one, other in zip(alone, shared, strict=True):
        one.real_s = other.real_s = 0
        assert one == other


def test_a_long_run_ends_when_its_time_is_over() -> None:
    end_s = time.monotonic() + 0.5
    found = [result.seed for result in results(5, None, 1, end_s)]
    assert found == list(range(5, 5 + len(found)))
    assert found
    assert list(results(5, None, 1, time.monotonic())) == []


def test_a_run_that_does_not_end_is_a_violation(monkeypatch: pytest.MonkeyPatch) -> None:
    def endless(seed: int, without: Any) -> Any:
        while True:
            pass

    monkeypatch.setattr(many, "play", endless)
    with pytest.raises(Violation, match=r"a run ends within 0.05 s of real time: it was at .*test_tools.py:\d+"):
        play_in_time(1, limit_s=0.05)


# --- reports ---------------------------------------------------------------------------------------------------------------


def test_a_failure_is_reported_with_a_command_that_fails_the_same_way(
    forgetful: None, capsys: pytest.CaptureFixture[str]
) -> None:
    seed = first(lambda result: result.violation)[0].seed
    assert main(["--start", str(seed), "--seeds", "1", "--workers", "1"]) == 1
    printed = capsys.readouterr().out
    assert re.search(rf"^FAILED: seed {seed}( at commit [0-9a-f]{{7,}}( \+ changes)?)?$", printed, re.M)
    assert printed.splitlines()[-1] == f"FAIL: of 1 seeds from {seed}, 1 broke a rule: {seed}"
    rule = re.findall(r"^  violation +(.*):", printed, re.M)[0]
    commands = re.findall(r"^  replay +(.*)$", printed, re.M)
    assert len(commands) == 2
    for typed in commands:
        words = shlex.split(typed)
        assert words[1:3] == ["-m", "tests.simulation"]
        assert main([*words[3:], "--json"]) == 1
        assert json.loads(capsys.readouterr().out)["violation"].startswith(rule)
    assert "--only" in commands[1]


def test_a_replay_shows_the_trace_and_the_failure(forgetful: None, capsys: pytest.CaptureFixture[str]) -> None:
    whole, world = first(lambda result: result.violation)
    only = [word for key in shrink(play_in_time, whole, world).happenings for word in ("--only", key)]
    assert main(["--replay", str(whole.seed), *only, "--trace"]) == 1
    printed = capsys.readouterr().out
    shown, _, failed = printed.partition("FAILED: ")
    assert re.search(r"^\*? +\d+\.\d{3}  customers > (\w+)  Transfer \w\w ", shown, re.M)
    assert shlex.join(only) in failed
    assert failed.endswith("\n\nFAIL\n")
    assert main(["--replay", str(whole.seed), "--only", report.NOTHING]) == 0
    assert capsys.readouterr().out.endswith("\n\nPASS: nothing broken\n")


def test_exit_codes_and_output_of_the_command() -> None:
    passed = command("--seeds", "2", "--start", "9", "--workers", "2")
    assert (passed.returncode, passed.stderr) == (0, "")
    assert passed.stdout.splitlines()[-1].startswith("PASS: 2 seeds from 9, nothing broken")
    assert max(map(len, passed.stdout.splitlines())) <= report.WIDTH
    counted = json.loads(command("--seeds", "2", "--start", "9", "--json").stdout)
    assert (counted["passed"], counted["totals"]["seeds"], counted["failures"]) == (True, 2, [])
    assert counted["totals"]["events"] == sum(play(seed)[0].events for seed in (9, 10))


@pytest.mark.parametrize(
    "arguments",
    [
        ["--seeds", "0"],
        ["--minutes", "0"],
        ["--seeds", "1", "--minutes", "1"],
        ["--trace"],
        ["--without", "wish 1"],
        ["--replay", "1", "--seeds", "2"],
        ["--replay", "1", "--only", "wish 1", "--without", "wish 2"],
        ["--replay", "-1"],
    ],
)
def test_wrong_usage_exits_with_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert "error: " in capsys.readouterr().err


def test_a_standard_run_fails_when_a_situation_is_never_met() -> None:
    met = Counter({counter: 1 for situation in SITUATIONS for counter in situation.counters})

    def summary(seeds: int, reached: Counter[str]) -> report.Summary:
        return report.Summary("", 0, 2, 1.0, Totals(seeds=seeds, sometimes=reached), {}, [])

    whole = summary(STANDARD_SEEDS, met)
    assert (whole.passed, whole.verdict) == (
        True,
        f"PASS: {STANDARD_SEEDS} seeds from 0, nothing broken, every situation met",
    )
    less = summary(STANDARD_SEEDS, met - Counter({"vote void": 1, "Vote lost": 1}))
    assert not less.passed
    assert less.verdict.startswith("FAIL: ")
    lines = list(report.summary_lines(less))
    assert {"  a stale Prepare after the abort: vote void", "  any message lost: Vote lost"} <= set(lines)
    few = summary(STANDARD_SEEDS - 1, met - Counter({"Vote lost": 1}))
    assert few.passed
    assert "1 situations not met" in few.verdict


def test_the_table_of_situations_speaks_of_real_messages() -> None:
    assert set(MESSAGES) <= set(messages.__all__)
    counters = [counter for situation in SITUATIONS for counter in situation.counters]
    assert len({situation.fault for situation in SITUATIONS}) == len(SITUATIONS)
    assert {"Prepare lost", "after the force of decided", "cut one way"} <= set(counters)


# --- traces ----------------------------------------------------------------------------------------------------------------


def test_a_trace_is_told_in_short_words() -> None:
    legs = (Leg("Delhi", "1001", -5), Leg("Pune", "1002", 5))
    asked = Prepare(TXN, Transfer(ID, legs, "INR"), b"", "")
    beat = Beat(False)
    yes = Vote(TXN, ID, "yes", 1, 2)
    no = Vote(TXN, ID, "refused", 1, 2, refusal=Refusal("insufficient_funds", ""))
    last = [no]
    lines: list[Line] = [
        (1_500, "arrived", "coordinator", "Delhi", [beat, asked]),
        (2_000, "arrived", "coordinator", "Delhi", [beat]),
        (2_500, "lost", "Delhi", "coordinator", [yes]),
        (3_000, "Delhi ends: the disk of /tmp/zbank-simulation-x1y/Delhi.db is full", "", "", ()),
        (3_250, "overtaken", "Pune", "coordinator", last),
        (3_250, "arrived", "Pune", "coordinator", last),
    ]
    assert list(trace.lines(lines, {"coordinator-2-8"})) == [
        "        1.500  coordinator > Delhi  Prepare 0c (coordinator-2-7) Delhi/1001 -5 Pune/1002 +5",
        "        2.500  Delhi > coordinator  lost: Vote yes 0c (coordinator-2-7)",
        "        3.000  -- Delhi ends: the disk of Delhi.db is full",
        "        3.250  Pune > coordinator  late: Vote refused 0c (coordinator-2-7) because insufficient_funds",
    ]
    assert [line[0] for line in trace.lines(lines, {"0c"})] == ["*", "*", " ", "*"]


def test_endless_retries_are_told_a_few_times() -> None:
    lines: list[Line] = [
        (1_000 * n, "arrived", "Delhi", "Pune", [Beat(False), Vote(TXN, ID, "busy", n, n)]) for n in range(30)
    ]
    lines.append((99_000, "the faults are over", "", "", ()))
    told = trace.sparse(trace.lines(lines))
    assert [line.split()[0] for line in told] == ["0.000", "1.000", "2.000", "3.000", "99.000"]


def test_what_a_violation_names() -> None:
    assert trace.named(f"a: {TXN} of {ID.hex()} at Mumbai") == {"coordinator-2-7", "0c"}
    assert trace.named(f"a: {TXN!r}") == {"coordinator-2-7"}


def test_the_digest_sees_everything_but_the_folder_of_the_run() -> None:
    line = (1, "the disk of /tmp/zbank-simulation-aa/Delhi.db is full", "", "", ())
    same = (1, "the disk of /dev/shm/zbank-simulation-bb/Delhi.db is full", "", "", ())
    assert trace.digest([line]) == trace.digest([same])
    assert trace.digest([line]) != trace.digest([(2, *line[1:])])
