"""How commands, bridge and figures show the synchronous replica of a branch, and a branch that has stopped without it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from click.testing import CliRunner
from msgspec.structs import replace

from zbank.apps.api.metrics import _states
from zbank.apps.api.shown_watch import ActorShown, BranchShown, ReplicaShown
from zbank.apps.api.views.cluster import _actor_json, _branch_json
from zbank.apps.api.views.replicas import list_replicas
from zbank.apps.cli import acks, branches, status
from zbank.apps.cli.shell import Bank
from zbank.apps.dashboard.look import actor_dot
from zbank.protocol.messages import NEVER_US, AckedBy, BranchInfo, Directory, ReplicaInfo, StatusInfo

WORD = AckedBy("Mumbai-replica-1", bytes(16), 7)
NONE = AckedBy("", b"", 8)
OWN = AckedBy("coordinator-standby", bytes(16), 4)
MUMBAI = BranchInfo("Mumbai", "tcp://127.0.0.1:9100", "INR", bytes(16), 3, up=True, acks=WORD)
FIRST = ReplicaInfo("Mumbai-replica-1", "Mumbai", "tcp://127.0.0.1:9200", bytes(16), 3, 8712, 0, 420_000, acks=7)
SECOND = replace(FIRST, name="Mumbai-replica-2", instance=bytes(range(16)), acks=0)
ALARM = "stopped: its synchronous replica Mumbai-replica-1 does not answer. Start it."
WELL = StatusInfo(
    "branch", "Mumbai", "demo", bytes(16), 1, 9, 0, 5, 2, 0, 30, 4, 2, (), 100, (), "0.1.0", acks=WORD
)
STOPPED = replace(WELL, alarms=(ALARM,), stopped=True)


class Known:
    """A client of a bank that is known, where a word is followed at once unless told otherwise."""

    coordinator = "tcp://127.0.0.1:9000"
    key = None

    def __init__(self, now: StatusInfo, *replicas: ReplicaInfo) -> None:
        self.now = now
        self._replicas = list(replicas)
        self.named: list[tuple[str, str]] = []
        self.caller = ""

    def __enter__(self) -> Known:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def on_behalf_of(self, caller: str) -> Known:
        self.caller = caller
        return self

    def status(self) -> list[StatusInfo]:
        return [self.now]

    def branches(self) -> list[BranchInfo]:
        return [replace(MUMBAI, acks=self.now.acks)]

    def retired_branches(self) -> list[Any]:
        return []

    def replicas(self) -> list[ReplicaInfo]:
        return self._replicas

    def directory(self) -> Directory:
        return Directory("coordinator", tuple(self.branches()), tuple(self._replicas), (), OWN)

    def name_acks(self, of: str, replica: ReplicaInfo | None) -> AckedBy:
        self.named.append((of, "" if replica is None else replica.name))
        word = AckedBy("", b"", 9) if replica is None else AckedBy(replica.name, replica.instance, 9)
        self.now = replace(self.now, acks=word, alarms=(), stopped=False)
        followed = word.replica
        self._replicas = [replace(info, acks=9 if info.name == followed else 0) for info in self._replicas]
        return word


def run(monkeypatch: pytest.MonkeyPatch, client: Known, command: Any, *arguments: str) -> tuple[int, str]:
    """A command against this client: its exit code, and all that it says."""
    monkeypatch.setattr(Bank, "connect", lambda self: client)
    done = CliRunner().invoke(command, list(arguments), standalone_mode=False)
    assert done.exception is None, done.exception
    return done.return_value, done.output


def test_status_marks_it(monkeypatch: pytest.MonkeyPatch) -> None:
    _, told = run(monkeypatch, Known(WELL, FIRST, SECOND), status.status)
    lines = told.splitlines()
    assert lines[3].split()[-1] == "synchronous"
    assert lines[4].split()[-1] == "yes"
    assert lines[5].split()[-1] == "0.4s"
    _, told = run(monkeypatch, Known(replace(WELL, acks=NONE), FIRST, SECOND), status.status)
    assert "synchronous" not in told
    _, plain = run(monkeypatch, Known(WELL, FIRST, SECOND), status.status, "--json")
    assert [one["synchronous"] for one in json.loads(plain)["replicas"]] == [True, False]
    standby = replace(FIRST, name=OWN.replica, of="coordinator", acks=OWN.generation)
    _, plain = run(monkeypatch, Known(WELL, SECOND, standby), status.status, "--json")
    assert [one["synchronous"] for one in json.loads(plain)["replicas"]] == [False, True]
    assert json.loads(plain)["actors"][0]["synchronous_replica"] == FIRST.name


def test_status_says_that_a_branch_has_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    _, told = run(monkeypatch, Known(STOPPED, FIRST), status.status)
    assert told.splitlines()[1].split()[3] == "STOPPED"
    assert told.splitlines()[-1] == f"alarm: Mumbai: {ALARM}"
    _, plain = run(monkeypatch, Known(STOPPED, FIRST), status.status, "--json")
    assert json.loads(plain)["actors"][0]["stopped"] is True


def test_the_list_of_branches_tells_it_to_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    _, plain = run(monkeypatch, Known(WELL), branches.branches.commands["list"], "--json")
    assert json.loads(plain)["branches"][0]["synchronous_replica"] == FIRST.name
    _, plain = run(monkeypatch, Known(replace(WELL, acks=NONE)), branches.branches.commands["list"], "--json")
    assert json.loads(plain)["branches"][0]["synchronous_replica"] is None


def test_naming_one_says_what_that_means(monkeypatch: pytest.MonkeyPatch) -> None:
    client = Known(WELL, FIRST, SECOND)
    code, told = run(monkeypatch, client, acks.acks, "Mumbai", SECOND.name)
    assert (code, client.named, bool(client.caller)) == (0, [("Mumbai", SECOND.name)], True)
    assert told.splitlines() == [
        "Mumbai answers nothing before Mumbai-replica-2 has it on its disk, and stops while Mumbai-replica-2 is away.",
        "Mumbai-replica-1 is an ordinary replica now: it follows, and nobody waits for it.",
    ]


def test_one_that_could_not_take_the_place_of_its_branch_is_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    _, told = run(monkeypatch, Known(WELL, replace(FIRST, can_lead=False)), acks.acks, "Mumbai", FIRST.name)
    assert told.endswith(
        "But Mumbai-replica-1 cannot take the place of Mumbai: it has not the secret of its key, Mumbai.secret.\n"
    )


def test_naming_none_says_what_that_means(monkeypatch: pytest.MonkeyPatch) -> None:
    client = Known(WELL, FIRST)
    code, told = run(monkeypatch, client, acks.acks, "Mumbai", "none")
    assert (code, client.named) == (0, [("Mumbai", "")])
    assert told.splitlines() == [
        "Mumbai stands on its own disk alone: what it answers from now on may be lost with it.",
        "Mumbai-replica-1 is an ordinary replica now: it follows, and nobody waits for it.",
    ]
    _, plain = run(monkeypatch, Known(replace(WELL, acks=None), FIRST), acks.acks, "Mumbai", "none", "--json")
    assert json.loads(plain) == {"of": "Mumbai", "synchronous": None, "generation": 9, "followed": True}


@pytest.mark.parametrize("lag_us", [NEVER_US, 5_100_000])
def test_a_branch_is_not_stopped_for_one_that_lags(monkeypatch: pytest.MonkeyPatch, lag_us: int) -> None:
    behind = replace(SECOND, lag_us=lag_us)
    client = Known(WELL, FIRST, behind)
    code, told = run(monkeypatch, client, acks.acks, "Mumbai", behind.name)
    assert (code, client.named) == (1, [])
    assert told.startswith("refused: not_level: Mumbai-replica-2 has not caught up with Mumbai, which would be stopped until")
    client = Known(STOPPED, FIRST, behind)
    code, _ = run(monkeypatch, client, acks.acks, "Mumbai", behind.name)
    assert (code, client.named) == (0, [("Mumbai", behind.name)]), "it is stopped anyway"


def test_who_is_no_replica_is_not_named(monkeypatch: pytest.MonkeyPatch) -> None:
    client = Known(WELL, FIRST, SECOND)
    code, told = run(monkeypatch, client, acks.acks, "Mumbai", "backup")
    assert (code, client.named) == (1, [])
    assert told.endswith("Mumbai has no replica backup: it has Mumbai-replica-1, Mumbai-replica-2\n")


def test_a_word_that_is_not_followed_in_time_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    class Slow(Known):
        def status(self) -> list[StatusInfo]:
            return [WELL]

    monkeypatch.setattr(acks, "FOLLOW_S", 0.0)
    code, told = run(monkeypatch, Slow(WELL, FIRST), acks.acks, "Mumbai", "none")
    assert code == 3
    assert told == "unknown: it is recorded, but Mumbai has not followed yet: look at `zbank status`\n"


def test_the_bridge_shows_it() -> None:
    asked: Any = type("Ask", (), {"bank": Known(WELL, FIRST, SECOND)})()
    answered: Any = list_replicas(asked)
    shown = answered.value["replicas"]
    assert [(one["name"], one["synchronous"]) for one in shown] == [(FIRST.name, True), (SECOND.name, False)]
    assert ReplicaShown.model_validate(shown[0])
    for word, name in ((WORD, FIRST.name), (NONE, None), (None, None)):
        branch, actor = _branch_json(replace(MUMBAI, acks=word)), _actor_json(replace(WELL, acks=word), {})
        assert branch["synchronous_replica"] == actor["synchronous_replica"] == name
        assert BranchShown.model_validate(branch)
        assert ActorShown.model_validate(actor)
    stopped = _actor_json(STOPPED, {"Mumbai": "INR"})
    assert (stopped["stopped"], stopped["alarms"]) == (True, [ALARM])


def test_the_dashboard_and_the_figures_say_that_it_has_stopped() -> None:
    assert actor_dot(_actor_json(STOPPED, {})) == '<span class="z-dot z-bad"></span>stopped'
    assert actor_dot(_actor_json(WELL, {})) == '<span class="z-dot z-good"></span>up'
    for actor, value in ((STOPPED, 1.0), (WELL, 0.0)):
        samples = [sample for family in _states([actor]) for sample in family.samples if sample.name == "zbank_stopped"]
        assert [(sample.labels, sample.value) for sample in samples] == [({"role": "branch", "name": "Mumbai"}, value)]
