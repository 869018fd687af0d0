"""`zbank promote coordinator` and `zbank acks coordinator`: what is said, what is asked for, and the exit codes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from msgspec.structs import replace

from tests.unit.test_standby import STANDBY, WITH_STANDBY
from zbank.apps.cli import main, promote_coordinator
from zbank.apps.cli.shell import Bank
from zbank.errors import NoAnswer, RemoteFault, Unreachable
from zbank.protocol.messages import AckedBy, ReplicaInfo, StatusInfo

HOME = "tcp://127.0.0.1:9000"
INSTANCE = b"s" * 16
WORDS = "promote coordinator"
INFO = ReplicaInfo("coordinator-standby", "coordinator", STANDBY, INSTANCE, 1, 8712, 0, 100_000, acks=4)


def status(role: str, name: str, acks: AckedBy | None = None, accounts: int = -1, *, stopped: bool = False) -> StatusInfo:
    """How an actor does."""
    base = StatusInfo(role, name, "test", INSTANCE, 1, 8712, 5, 1, accounts, 0, 0, 0, 0, (), 1, (), "0")
    return replace(base, acks=acks, stopped=stopped)


REPLICA = status("replica", "coordinator-standby", AckedBy("coordinator-standby", INSTANCE, 4))
FOLLOWER = status("replica", "coordinator-standby")
LEADS = status("coordinator", "coordinator", AckedBy("", b"", 9))
OF_BRANCH = status("replica", "Mumbai-replica", accounts=3)


class Actor:
    """What answers at an address."""

    key = None

    def __init__(self, town: Town, place: str) -> None:
        self.town, self.place = town, place

    def __enter__(self) -> Actor:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def on_behalf_of(self, name: str) -> Actor:
        return self

    def contact_status(self) -> StatusInfo:
        found = self.town.at.get(self.place)
        if found is None:
            raise Unreachable(f"no answer from {self.place}")
        return found

    def promote_contact(self, of: str, instance: bytes) -> ReplicaInfo:
        assert (of, instance) == ("coordinator", INSTANCE)
        self.town.asked.append(self.place)
        if self.town.error is not None:
            raise self.town.error
        self.town.at[self.place] = self.town.then
        return INFO

    def replicas(self) -> list[ReplicaInfo]:
        if self.town.stopped:
            raise RemoteFault("out_of_office", "coordinator has stopped", 1000)
        return [INFO]

    def status(self) -> list[StatusInfo]:
        return [status("coordinator", "coordinator", self.town.word, stopped=self.town.stopped)]

    def name_acks(self, of: str, replica: ReplicaInfo | None) -> AckedBy:
        if self.town.error is not None:
            raise self.town.error
        name, instance = ("", b"") if replica is None else (replica.name, replica.instance)
        self.town.word = AckedBy(name, instance, 4)
        self.town.stopped = False
        return self.town.word


class Town:
    """All that answers, and what was asked for."""

    def __init__(self) -> None:
        self.at: dict[str, StatusInfo | None] = {STANDBY: REPLICA}
        self.then: StatusInfo | None = LEADS  #: what is at the place once it was promoted
        self.asked: list[str] = []
        self.error: Exception | None = None
        self.stopped = False
        self.word = AckedBy("coordinator-standby", INSTANCE, 2)


@pytest.fixture
def town(monkeypatch: pytest.MonkeyPatch) -> Town:
    found = Town()
    monkeypatch.setattr(Bank, "connect", lambda bank: Actor(found, bank.endpoint))
    monkeypatch.setattr(promote_coordinator, "LOOK_EVERY_S", 0.001)
    return found


@pytest.fixture
def by_config(tmp_path: Path) -> tuple[str, str]:
    (tmp_path / "cluster.toml").write_text(WITH_STANDBY)
    return ("--config", str(tmp_path / "cluster.toml"))


def run(*arguments: str, stdin: str = "") -> Result:
    return CliRunner(env={"ZBANK_ENDPOINT": None, "ZBANK_KEYS": None}).invoke(main, list(arguments), input=stdin)


def promote(*flags: str) -> Result:
    return run("promote", "coordinator", *flags, "--confirm", WORDS)


def test_it_is_told_what_it_means_and_done(town: Town, by_config: tuple[str, str]) -> None:
    done = promote(*by_config)
    assert (done.exit_code, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        f"coordinator-standby at {STANDBY} is the synchronous replica of coordinator, and stands at row 8712: nothing that the",
        "coordinator ever told anybody is lost, and the old one can tell nobody anything any more, even if it still runs.",
        "From then on the coordinator stands on one disk, until another replica is named: `zbank acks coordinator NAME`.",
        f"coordinator-standby is the coordinator now, at {STANDBY}. Who has this address in its config finds it.",
        "Do not start the old one again: it could answer nobody.",
    ]
    assert town.asked == [STANDBY]


def test_as_json(town: Town, by_config: tuple[str, str]) -> None:
    done = promote(*by_config, "--json")
    assert json.loads(done.stdout) == {
        "coordinator": "coordinator",
        "replica": "coordinator-standby",
        "position": 8712,
        "address": STANDBY,
        "leads": True,
    }


@pytest.mark.parametrize("flag", [("--at", STANDBY), ("--at", "127.0.0.1"), ("--endpoint", f"{HOME},{STANDBY}")])
def test_it_is_found_by_flags(town: Town, flag: tuple[str, str]) -> None:
    assert promote(*flag).exit_code == 0
    assert town.asked == [STANDBY]


def test_it_is_found_at_either_place(town: Town, by_config: tuple[str, str]) -> None:
    """The second time it is at the former coordinator's place."""
    town.at = {HOME: REPLICA}
    assert promote(*by_config).exit_code == 0
    assert town.asked == [HOME]


def test_a_coordinator_that_still_runs_is_no_hindrance_to_ask(town: Town, by_config: tuple[str, str]) -> None:
    town.at[HOME] = LEADS
    town.error = RemoteFault("coordinator_up", "coordinator was heard of a moment ago: stop it first")
    done = promote(*by_config)
    assert done.exit_code == 1
    assert done.stderr == "failed: coordinator_up: coordinator was heard of a moment ago: stop it first\n"
    assert town.asked == [STANDBY]


def test_who_is_not_the_synchronous_one_is_called_so(town: Town, by_config: tuple[str, str]) -> None:
    town.at[STANDBY] = FOLLOWER
    town.error = RemoteFault("not_synchronous", "what it lacks nobody knows")
    done = promote(*by_config)
    assert "It is not the synchronous replica of coordinator: it will refuse" in done.stdout
    assert (done.exit_code, done.stderr) == (1, "failed: not_synchronous: what it lacks nobody knows\n")


@pytest.mark.parametrize("words", ["", "promote Mumbai", "yes"])
def test_without_the_words_nothing_is_done(town: Town, by_config: tuple[str, str], words: str) -> None:
    done = run("promote", "coordinator", *by_config, "--confirm", words)
    assert (done.exit_code, town.asked) == (1, [])
    assert done.stderr == "refused: nothing was done: the words are 'promote coordinator'\n"


@pytest.mark.parametrize(
    ("at", "says"),
    [
        ({HOME: LEADS}, f"no answer from {STANDBY}; at {HOME} answers the coordinator"),
        ({STANDBY: LEADS}, f"at {STANDBY} answers the coordinator; no answer from {HOME}"),
        ({}, f"no answer from {STANDBY}; no answer from {HOME}"),
        ({STANDBY: OF_BRANCH}, f"at {STANDBY} answers Mumbai-replica, no replica of the coordinator; no answer from {HOME}"),
    ],
)
def test_where_there_is_none_it_is_said_what_there_is(
    town: Town, by_config: tuple[str, str], at: dict[str, StatusInfo | None], says: str
) -> None:
    town.at = at
    done = promote(*by_config)
    assert (done.exit_code, done.stdout, town.asked) == (1, "", [])
    assert done.stderr == f"refused: there is nothing to promote: {says}\n"


def test_one_place_where_nobody_is(town: Town) -> None:
    done = promote("--at", "tcp://127.0.0.1:9")
    assert (done.exit_code, done.stderr) == (1, "failed: unreachable: no answer from tcp://127.0.0.1:9\n")


def test_one_that_was_promoted_and_does_not_lead(town: Town, by_config: tuple[str, str], monkeypatch: Any) -> None:
    monkeypatch.setattr(promote_coordinator, "LEADS_S", 0.05)
    town.then = REPLICA
    done = promote(*by_config)
    assert done.exit_code == 3
    assert done.stderr == "unknown: coordinator-standby takes over, but does not lead yet: look at its log\n"


def test_no_answer_is_no_refusal(town: Town, by_config: tuple[str, str]) -> None:
    town.error = NoAnswer("it is not known whether coordinator-standby is the coordinator now; look at it again")
    assert promote(*by_config).exit_code in (1, 3)


class TestAcks:
    """`zbank acks coordinator`."""

    def test_none_while_it_has_stopped(self, town: Town) -> None:
        town.stopped = True
        done = run("acks", "coordinator", "none")
        assert (done.exit_code, done.stderr) == (0, "")
        assert done.stdout.splitlines() == [
            "coordinator stands on its own disk alone: what it answers from now on may be lost with it.",
            "coordinator-standby may lack decisions from now on, and not know it: never promote it, and remove its data.",
        ]

    def test_who_is_at_its_other_place_while_it_has_stopped(self, town: Town, by_config: tuple[str, str]) -> None:
        """It has begun anew, and is another one by its data."""
        town.stopped = True
        done = run("acks", "coordinator", "coordinator-standby", *by_config)
        assert (done.exit_code, done.stderr) == (0, "")
        assert town.word == AckedBy("coordinator-standby", INSTANCE, 4)

    def test_another_one_while_it_has_stopped(self, town: Town) -> None:
        town.stopped = True
        done = run("acks", "coordinator", "coordinator-2")
        assert done.exit_code == 1
        assert done.stderr == (
            "failed: out_of_office: coordinator has stopped. If that one is lost for good: `zbank acks coordinator none` "
            "lets it go on alone, and then you can name coordinator-2\n"
        )

    def test_where_it_may_have_been_replaced(self, town: Town) -> None:
        town.stopped = True
        town.error = RemoteFault("branches_away", "no branch is connected to coordinator")
        done = run("acks", "coordinator", "none")
        assert (done.exit_code, done.stderr) == (1, "failed: branches_away: no branch is connected to coordinator\n")

    def test_naming_one(self, town: Town) -> None:
        town.word = AckedBy("", b"", 2)
        done = run("acks", "coordinator", "coordinator-standby")
        assert (done.exit_code, done.stderr) == (0, "")
        said = "coordinator answers nothing before coordinator-standby has it on its disk, and stops while"
        assert done.stdout == f"{said} coordinator-standby is away.\n"
