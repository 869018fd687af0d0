"""The conductor of `zbank chaos` on a played cluster: who is judged for an end, and what a disk does that will not obey."""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import Any, cast

import pytest

from zbank.apps.chaos import conductor as module
from zbank.apps.chaos.cluster import ChaosCluster
from zbank.apps.chaos.conductor import MAX_ENDS, STEADY_S, Conductor
from zbank.apps.chaos.disk import NoDisk, SmallDisk
from zbank.apps.chaos.faults import DISK_FULL, KILL, PAUSE_SHORT, RESTART, Fault
from zbank.apps.chaos.load import Load
from zbank.apps.chaos.proxy import Proxy

CRASHED = 70
NO_ROOM = 1


class PlayedCluster:
    """Actors that run until a test or a fault ends them."""

    def __init__(self) -> None:
        self.actors = ("coordinator", "Mumbai", "Pune")
        self.codes: dict[str, int | None] = dict.fromkeys(self.actors)
        self.starts: list[str] = []
        self.ages_s: dict[str, float] = dict.fromkeys(self.actors, 0.0)
        self.starts_with: Callable[[str], int | None] = lambda name: None  # the code that it ends with at once

    def exit_code(self, name: str) -> int | None:
        return self.codes[name]

    def had_no_room(self, name: str) -> bool:
        return self.codes[name] == NO_ROOM

    def age_s(self, name: str) -> float:
        return self.ages_s[name]

    def last_lines(self, name: str) -> str:
        return f"the last words of {name}"

    def start(self, name: str) -> None:
        assert self.codes[name] is not None, f"{name} was started twice"
        self.starts.append(name)
        self.codes[name] = self.starts_with(name)

    def send(self, name: str, number: signal.Signals) -> None:
        pass

    def kill(self, name: str) -> None:
        if self.codes[name] is None:
            self.codes[name] = -signal.SIGKILL

    def terminate(self, name: str) -> None:
        if self.codes[name] is None:
            self.codes[name] = 0

    def wait_end(self, name: str) -> list[str]:
        code = self.codes[name]
        return [] if code == 0 else [f"{name} was told to stop: {code}"]


class PlayedDisk:
    """A disk that does as it is told, or not."""

    def __init__(self) -> None:
        self.refuses = False
        self.is_full = False

    def fill(self) -> None:
        self._set(True)

    def free(self) -> None:
        self._set(False)

    def _set(self, full: bool) -> None:
        if self.refuses:
            raise NoDisk("is stuck")
        self.is_full = full


class Stage:
    """A conductor with all that it conducts."""

    def __init__(self) -> None:
        self.cluster = PlayedCluster()
        self.disk = PlayedDisk()
        self.said: list[str] = []
        played: Any = _Nothing()
        self.conductor = Conductor(
            cast(ChaosCluster, self.cluster),
            cast(Proxy, played),
            cast(Load, played),
            cast(SmallDisk, self.disk),
            self.said.append,
        )

    def crash(self, name: str, code: int = CRASHED) -> None:
        self.cluster.codes[name] = code


class _Nothing:
    """A proxy and a load that nobody asks for anything here."""

    calm_since_s = 0.0

    def check(self) -> None:
        pass

    def heal(self) -> None:
        pass


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch) -> Stage:
    monkeypatch.setattr(module, "DISK_EVERY_S", 0.0)
    return Stage()


def fault(kind: str, *actors: str) -> Fault:
    return Fault(kind, 0.0, 1.0, actors)


def test_who_is_restarted_is_judged_by_its_end(stage: Stage) -> None:
    restart = fault(RESTART, "Mumbai")
    stage.conductor.begin(restart)
    stage.crash("Mumbai", 3)
    stage.conductor.end(restart)
    assert stage.conductor.findings == ["Mumbai was told to stop: 3"]
    assert stage.cluster.starts == ["Mumbai"]


def test_who_was_down_already_is_not_judged_for_a_restart(stage: Stage) -> None:
    full, restart = fault(DISK_FULL, "Pune"), fault(RESTART, "Pune")
    stage.conductor.begin(full)
    stage.crash("Pune", NO_ROOM)
    stage.conductor.begin(restart)
    stage.conductor.end(full)
    stage.conductor.tick()
    assert stage.cluster.starts == [], "the end of the restart starts it, not the room on the disk"
    stage.crash("Pune", CRASHED)  # whatever its old exit code is
    stage.conductor.end(restart)
    assert stage.cluster.starts == ["Pune"]
    assert stage.conductor.findings == []
    assert stage.conductor.made[RESTART] == 0, "it hit nobody"
    assert f"{restart.describe()}: is down already" in stage.said


@pytest.mark.parametrize("kind", [KILL, RESTART, PAUSE_SHORT])
def test_who_ended_just_before_a_fault_is_found(stage: Stage, kind: str) -> None:
    stage.crash("Mumbai")
    stage.conductor.begin(fault(kind, "Mumbai"))
    assert [finding.partition(" (")[0] for finding in stage.conductor.findings] == ["Mumbai ended by itself"]
    assert stage.conductor.made[kind] == 1


def test_who_ends_at_once_again_and_again_stays_down(stage: Stage) -> None:
    stage.cluster.starts_with = lambda name: CRASHED
    stage.crash("Mumbai")
    for _ in range(2 * MAX_ENDS):
        stage.conductor.tick()
    assert len(stage.conductor.findings) == MAX_ENDS
    assert stage.cluster.starts == ["Mumbai"] * (MAX_ENDS - 1)
    assert stage.conductor.down == {"Mumbai"}


def test_who_ends_now_and_then_is_started_again_each_time(stage: Stage) -> None:
    stage.cluster.ages_s["Mumbai"] = STEADY_S
    for _ in range(2 * MAX_ENDS):
        stage.crash("Mumbai")
        stage.conductor.tick()
    assert len(stage.conductor.findings) == 2 * MAX_ENDS
    assert stage.cluster.starts == ["Mumbai"] * 2 * MAX_ENDS
    assert stage.conductor.down == set()


def test_who_has_no_room_to_start_waits_for_it_and_is_no_finding(stage: Stage) -> None:
    stage.cluster.starts_with = lambda name: NO_ROOM if stage.disk.is_full else None
    full, kill = fault(DISK_FULL, "Pune"), fault(KILL, "Pune")
    stage.conductor.begin(full)
    stage.conductor.begin(kill)
    stage.conductor.end(kill)
    for _ in range(2 * MAX_ENDS):
        stage.conductor.tick()
    assert stage.cluster.starts == ["Pune"]
    assert stage.conductor.down == {"Pune"}
    stage.conductor.end(full)
    stage.conductor.tick()
    assert stage.cluster.starts == ["Pune", "Pune"]
    assert stage.cluster.codes["Pune"] is None
    assert stage.conductor.findings == []
    assert (stage.conductor.made[DISK_FULL], stage.conductor.made[KILL]) == (1, 1)


def test_a_disk_that_cannot_be_filled_is_skipped_and_told_once(stage: Stage) -> None:
    stage.disk.refuses = True
    full = fault(DISK_FULL, "Pune")
    stage.conductor.begin(full)
    stage.conductor.tick()
    stage.conductor.tick()
    assert stage.conductor.made[DISK_FULL] == 0
    assert stage.conductor.skipped == ["a full disk: is stuck"]
    assert stage.said.count("the disk is stuck") == 1


def test_a_disk_that_cannot_be_freed_is_tried_again_until_it_is(stage: Stage) -> None:
    full = fault(DISK_FULL, "Pune")
    stage.conductor.begin(full)
    stage.crash("Pune", NO_ROOM)
    stage.disk.refuses = True
    stage.conductor.heal()
    stage.conductor.tick()
    assert stage.conductor.skipped == ["a full disk: is stuck"]
    assert stage.cluster.starts == []
    stage.disk.refuses = False
    stage.conductor.tick()
    assert not stage.disk.is_full
    assert stage.cluster.starts == ["Pune"]
    assert stage.conductor.findings == []
