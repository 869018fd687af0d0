"""The supervisor with small real processes: output, restarts with back-off, clean stops, nothing left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from zbank.apps import supervisor as module
from zbank.apps.supervisor import RESTART_DELAYS_S, Supervisor, describe_exit

LIMIT_S = 20.0
QUIET = "import signal, sys, time; print('up', flush=True); signal.pause()"
CLEAN = """
import os, signal
signal.signal(signal.SIGTERM, lambda *_: (os.write(1, b"bye\\n"), os._exit(0)))  # the signal may come within a print
print("up", flush=True)
while True: signal.pause()
"""
DEAF = """
import signal
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("up", flush=True)
while True: signal.pause()
"""


class Stage:
    """A supervisor of some Python snippets, and all it said."""

    def __init__(self, **snippets: str) -> None:
        self.said: list[str] = []
        commands = {name: [sys.executable, "-c", snippet] for name, snippet in snippets.items()}
        self.supervisor = Supervisor(commands, os.environ, self.said.append)
        self.stopped = False

    def turn_until(self, condition: Callable[[], bool]) -> None:
        end_s = time.monotonic() + LIMIT_S
        while not condition():
            assert time.monotonic() < end_s, self.said
            self.supervisor.turn(0.05)

    def pid(self, name: str) -> int:
        (child,) = [child for child in self.supervisor.children if child.name == name]
        assert child.pid is not None
        return child.pid

    def stop(self, urgent: bool = False) -> None:
        if not self.stopped:
            self.stopped = True
            self.supervisor.stop(lambda: urgent)


def is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


@pytest.fixture
def stages() -> Iterator[list[Stage]]:
    made: list[Stage] = []
    yield made
    for stage in made:
        stage.stop(urgent=True)


def test_output_is_passed_on_with_names(stages: list[Stage]) -> None:
    code = "import sys; sys.stdout.write('one\\ntwo\\n'); sys.stderr.write('three\\n'); sys.stdout.write('cut')"
    stages.append(stage := Stage(short=code + "; sys.exit(2)", longer_name=QUIET))
    stage.turn_until(lambda: stage.supervisor.hopeless is not None and "longer_name | up" in stage.said)
    assert {line for line in stage.said if line.startswith("short")} == {
        "short       | one",
        "short       | two",
        "short       | three",
        "short       | cut",
    }


def test_an_endless_line_is_cut_not_collected(stages: list[Stage]) -> None:
    stages.append(stage := Stage(loud="import sys\nwhile True: sys.stdout.write('x' * 65536)"))
    stage.turn_until(lambda: len(stage.said) > 20)
    assert max(len(line) for line in stage.said) < 10 * module.MAX_LINE_BYTES


def test_what_was_killed_is_started_again(stages: list[Stage]) -> None:
    stages.append(stage := Stage(one=QUIET, two=QUIET))
    stage.turn_until(lambda: stage.said.count("one | up") == 1 and stage.said.count("two | up") == 1)
    first, other = stage.pid("one"), stage.pid("two")
    killed_s = time.monotonic()
    os.kill(first, signal.SIGKILL)
    stage.turn_until(lambda: stage.said.count("one | up") == 2)
    assert time.monotonic() - killed_s < 10.0, "the delay is 0.1 s; a busy machine takes its time to start a process"
    assert f"one ended (killed by SIGKILL): it starts again in {RESTART_DELAYS_S[0]:g} s" in stage.said
    assert f"one is started again (process id {stage.pid('one')})" in stage.said
    assert (stage.pid("one") != first, stage.pid("two")) == (True, other)


def test_what_keeps_crashing_waits_longer_and_says_so(stages: list[Stage]) -> None:
    stages.append(stage := Stage(bad="raise SystemExit(1)"))
    stage.turn_until(lambda: any("3 times in a row" in line for line in stage.said))
    ends = [line for line in stage.said if "ended" in line]
    assert ends == [
        "bad ended (exit code 1): it starts again in 0.1 s",
        "bad ended (exit code 1), 2 times in a row: it starts again in 0.5 s",
        "bad ended (exit code 1), 3 times in a row: it starts again in 1 s",
    ]


def test_who_ran_long_enough_starts_from_the_first_delay(stages: list[Stage], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "HEALTHY_S", 0.0)
    stages.append(stage := Stage(bad="raise SystemExit(1)"))
    stage.turn_until(lambda: len([line for line in stage.said if "ended" in line]) == 3)
    assert not any("in a row" in line for line in stage.said)


def test_wrong_usage_is_not_started_again(stages: list[Stage]) -> None:
    stages.append(stage := Stage(bad="print('no such key'); raise SystemExit(2)"))
    stage.turn_until(lambda: stage.supervisor.hopeless is not None)
    assert stage.supervisor.hopeless is not None
    assert stage.supervisor.hopeless.name == "bad"
    assert stage.said == ["bad | no such key"]


def test_stop_is_clean_and_passes_the_last_words_on(stages: list[Stage]) -> None:
    stages.append(stage := Stage(one=CLEAN, two=CLEAN))
    stage.turn_until(lambda: len(stage.said) == 2)
    pids = [stage.pid("one"), stage.pid("two")]
    stage.stop()
    assert sorted(stage.said[2:]) == ["one | bye", "two | bye"]
    assert not any(map(is_alive, pids))


def test_a_paused_child_is_stopped_too(stages: list[Stage]) -> None:
    stages.append(stage := Stage(one=CLEAN))
    stage.turn_until(lambda: len(stage.said) == 1)
    os.kill(stage.pid("one"), signal.SIGSTOP)
    stage.stop()
    assert stage.said[1:] == ["one | bye"]


@pytest.mark.parametrize("urgent", [True, False])
def test_who_does_not_stop_is_killed(stages: list[Stage], urgent: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "STOP_LIMIT_S", LIMIT_S if urgent else 0.3)
    stages.append(stage := Stage(one=DEAF))
    stage.turn_until(lambda: len(stage.said) == 1)
    pid = stage.pid("one")
    stage.stop(urgent=urgent)
    assert stage.said[1:] == ["one does not stop: killed"]
    assert not is_alive(pid)


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's help against orphans is Linux's")
def test_children_die_with_a_killed_launcher() -> None:
    code = (
        "import os, sys; from zbank.apps.supervisor import Supervisor\n"
        f"s = Supervisor({{'a': [sys.executable, '-c', {DEAF!r}]}}, os.environ, lambda line: None)\n"
        "s.turn(0.1); print(s.children[0].pid, flush=True)\n"
        "while True: s.turn(1)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as launcher:
        try:
            assert launcher.stdout is not None
            pid = int(launcher.stdout.readline())
            assert is_alive(pid)
        finally:
            launcher.kill()
    end_s = time.monotonic() + LIMIT_S
    while is_alive(pid):
        assert time.monotonic() < end_s
        time.sleep(0.02)


@pytest.mark.parametrize(
    ("code", "text"), [(0, "exit code 0"), (3, "exit code 3"), (-9, "killed by SIGKILL"), (-99, "killed by signal 99")]
)
def test_exits_in_words(code: int, text: str) -> None:
    assert describe_exit(code) == text
