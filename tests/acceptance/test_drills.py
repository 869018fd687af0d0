"""`run_cluster.py --drills` and `zbank drill …` as a class meets them: real processes, every drill to its end."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import signal
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.acceptance.cluster import Cluster, wait_until
from tests.acceptance.test_launcher import START_LIMIT_S, Launcher
from tests.docs import ROOT, blocks
from zbank.protocol.attempts import VOTE_LIMIT_US
from zbank.protocol.messages import StatusInfo

READ_LIMIT_S = 60.0
THINK_S = VOTE_LIMIT_US / 1_000_000 + 1
PAYER, PAYEE = "Mumbai/1001", "Delhi/1002"


class Expected(NamedTuple):
    """What must come of a drill, known without the drill's own script."""

    outcome: str
    paid: str  #: what has left the payer
    kinds: dict[str, str]  #: the rows about the transfer, by actor
    crashed: tuple[str, ...] = ()


DONE = {"coordinator": "decided ended", "Mumbai": "prepared committed", "Delhi": "prepared committed"}
TWICE = {
    "coordinator": "decided ended",
    "Mumbai": "prepared aborted prepared committed",
    "Delhi": "prepared aborted prepared committed",
}
EXPECTED = {
    "all-goes-well": Expected("committed", "10", DONE),
    "coordinator-dies-after-votes": Expected("committed", "10", TWICE, ("coordinator",)),
    "coordinator-dies-after-decision": Expected("committed", "10", DONE, ("coordinator",)),
    "branch-dies-after-yes": Expected("committed", "10", DONE, ("Delhi",)),
    "decision-lost": Expected("committed", "10", DONE),
    "ack-lost": Expected("committed", "10", DONE),
    "coordinator-away": Expected("committed", "10", DONE, ("coordinator",)),
    "branch-cut-off": Expected("committed", "20", DONE),
    "same-payment-twice": Expected("committed", "10", DONE),
    "no-money": Expected(
        "aborted", "0", {"coordinator": "", "Mumbai": "refused", "Delhi": "prepared aborted prepared aborted"}
    ),
    "payee-says-no": Expected("aborted", "0", {"coordinator": "", "Mumbai": "prepared aborted", "Delhi": "aborted"}),
}
LONG = {"branch-cut-off"}


@pytest.fixture(scope="module")
def launcher(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Launcher]:
    """The demo with gates, started as the README says."""
    running = Launcher(Cluster(tmp_path_factory.mktemp("drills")), "--drills")
    try:
        running.wait_for("Ctrl-C stops everything")
        yield running
    finally:
        running.close()


@pytest.fixture
def bank(launcher: Launcher) -> Cluster:
    """Its command line."""
    return launcher.cluster


def play(bank: Cluster, name: str) -> list[dict[str, Any]]:
    """A whole drill; its JSON lines."""
    done = bank.cli("drill", "run", name, "--json")
    assert (done.returncode, done.stderr) == (0, "")
    return [json.loads(line) for line in done.stdout.splitlines()]


def balances(bank: Cluster) -> tuple[Decimal, Decimal]:
    with bank.client() as client:
        return Decimal(client.balance(PAYER)), Decimal(client.balance(PAYEE))


def check_at_rest(bank: Cluster) -> None:
    """Nothing under way, nothing held, all books exact: asked from outside."""

    def at_rest() -> bool:
        with bank.client() as client:
            actors = [actor for actor in client.status() if isinstance(actor, StatusInfo)]
            held = [account for account in client.accounts() if account.held_minor]
        assert all(actor.total_minor == 0 for actor in actors)
        busy = sum(actor.in_flight for actor in actors) or sum(actor.clearing_minor for actor in actors) or held
        return len(actors) == 3 and not busy

    wait_until(at_rest, what="a bank at rest")


def rows_known(bank: Cluster, step: dict[str, Any]) -> dict[str, str]:
    """The kinds of all rows about the transfer, by actor. The coordinator's last one may be written after the last look."""
    known = {one["actor"]: " ".join(row["kind"] for row in one["rows"]) for one in step["known"]}
    if known["coordinator"].endswith("decided"):
        wait_until(lambda: has_ended_all(bank), what="the coordinator's last row")
        known["coordinator"] += " ended"
    return known


def has_ended_all(bank: Cluster) -> bool:
    """By the coordinator's journal."""
    query = "SELECT kind FROM journal WHERE kind IN ('decided', 'ended') ORDER BY seq DESC LIMIT 1"
    with closing(sqlite3.connect(f"file:{bank.data / 'coordinator.db'}?mode=ro", uri=True)) as store:
        return bool(store.execute(query).fetchone() == ("ended",))


@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.long] * (name in LONG)) for name in EXPECTED])
def test_every_drill_goes_as_it_says(bank: Cluster, launcher: Launcher, name: str) -> None:
    expected = EXPECTED[name]
    before = balances(bank)
    pids = launcher.pids()
    beginning, *steps, result = play(bank, name)
    assert result["what"] == "result"
    assert (result["outcome"], result["ok"]) == (expected.outcome, True)
    assert status_of(bank, beginning["id"]) == expected.outcome

    after = balances(bank)
    assert before[0] - after[0] == Decimal(expected.paid)
    assert after[1] - before[1] == Decimal(expected.paid) - (1 if name == "branch-cut-off" else 0)
    check_at_rest(bank)

    assert rows_known(bank, steps[-1]) == expected.kinds
    numbers = [step["number"] for step in steps if step.get("number") is not None]
    assert numbers == list(range(1, steps_by_drill(bank)[name] + 1))
    for actor in expected.crashed:
        wait_until(lambda: launcher.pids()[actor] != pids[actor], what=f"{actor} is started again")  # noqa: B023
    assert {name for name, pid in launcher.pids().items() if pid != pids[name]} == set(expected.crashed)


def test_all_drills_are_listed_and_tested(bank: Cluster) -> None:
    listed = steps_by_drill(bank)
    assert set(listed) == set(EXPECTED)
    table = bank.cli("drill", "list").stdout
    assert all(name in table for name in listed)


def steps_by_drill(bank: Cluster) -> dict[str, int]:
    """How many steps each drill has, as the list says."""
    listed = (json.loads(line) for line in bank.cli("drill", "list", "--json").stdout.splitlines())
    return {one["name"]: one["steps"] for one in listed}


def test_the_launcher_tells_of_them(launcher: Launcher) -> None:
    assert "    zbank drill list\n" in launcher.output
    assert "    zbank drill run all-goes-well --step\n" in launcher.output


class Stepped:
    """A drill with --step whose Enter key the test presses."""

    def __init__(self, bank: Cluster, name: str) -> None:
        self.process = subprocess.Popen(
            bank.command("drill", "run", name, "--step", "--json"),
            cwd=bank.folder,
            env=bank.environment() | {"ZBANK_ENDPOINT": bank.endpoint},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            bufsize=1,
        )
        self.id = ""

    def read(self) -> dict[str, Any]:
        """The next line that is told."""
        assert self.process.stdout is not None
        assert select.select([self.process.stdout], [], [], READ_LIMIT_S)[0], "nothing is told"
        line = self.process.stdout.readline()
        assert line, self.process.communicate()[1]
        told: dict[str, Any] = json.loads(line)
        self.id = told.get("id", self.id)
        return told

    def enter(self) -> None:
        """Press Enter."""
        assert self.process.stdin is not None
        self.process.stdin.write("\n")

    def go_to(self, number: int) -> dict[str, Any]:
        """Press Enter until the step of this number is told."""
        while (told := self.read()).get("number") != number:
            if told["what"] != "waiting":
                self.enter()
        return told

    def close(self) -> None:
        """End it, whatever it does."""
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def begin(bank: Cluster) -> Iterator[Any]:
    begun: list[Stepped] = []

    def start(name: str) -> Stepped:
        begun.append(Stepped(bank, name))
        return begun[-1]

    yield start
    for one in begun:
        one.close()


def test_time_stands_still_while_people_think(bank: Cluster, begin: Any) -> None:
    drill = begin("all-goes-well")
    voted = drill.go_to(3)
    assert [mark["label"] for mark in voted["marks"]] == ["vote yes"]
    time.sleep(THINK_S)  # not to wait for something: this is the thought, longer than the coordinator waits for votes
    drill.enter()
    out, error = drill.process.communicate("\n" * 20, timeout=READ_LIMIT_S)
    assert (drill.process.returncode, error) == (0, "")
    steps = [json.loads(line) for line in out.splitlines()]
    assert steps[-1]["ok"]
    assert rows_known(bank, steps[-2]) == DONE
    attempts = {mark["detail"] for step in steps for mark in step.get("marks", ()) if mark["label"] == "commit"}
    assert len(attempts) == 1, "one attempt: the coordinator has not given up meanwhile"
    with bank.client() as client:
        assert [actor.alarms for actor in client.status() if isinstance(actor, StatusInfo)] == [()] * 3


def status_of(bank: Cluster, id: str) -> str:
    with bank.client() as client:
        return client.show(id).status


def test_when_the_conductor_is_killed_the_bank_goes_on(bank: Cluster, begin: Any) -> None:
    drill = begin("decision-lost")
    decided = drill.go_to(5)
    assert any(mark["label"].startswith("decided") for mark in decided["marks"])
    second = bank.cli("drill", "run", "all-goes-well")
    assert (second.returncode, second.stdout) == (1, "")
    assert second.stderr.startswith("failed: drill: another drill is running")
    drill.process.send_signal(signal.SIGKILL)
    wait_until(lambda: status_of(bank, drill.id) == "committed", what="the commit that was held")
    check_at_rest(bank)


def test_ctrl_c_lets_an_actor_that_is_kept_down_go_on(bank: Cluster, begin: Any) -> None:
    drill = begin("coordinator-dies-after-votes")
    crashed = drill.go_to(6)
    assert [mark["kind"] for mark in crashed["marks"]] == ["crash"]
    drill.process.send_signal(signal.SIGINT)
    _, error = drill.process.communicate(timeout=READ_LIMIT_S)
    assert (drill.process.returncode, error.strip()) == (130, "interrupted")
    wait_until(lambda: bank.cli("transfer", PAYER, PAYEE, "1").returncode == 0, what="a coordinator in office")
    check_at_rest(bank)
    assert status_of(bank, drill.id) == "unknown", "never decided: no branch has kept anything of it"


def test_a_drill_that_goes_otherwise_says_what_happened_instead(bank: Cluster, begin: Any) -> None:
    drill = begin("all-goes-well")
    drill.go_to(3)
    assert bank.cli("freeze", PAYEE).returncode == 0
    try:
        _, error = drill.process.communicate("\n" * 20, timeout=READ_LIMIT_S)
        assert drill.process.returncode == 1
        assert error == (
            "failed: drill: Delhi has forced nothing for prepare from coordinator, and not prepared as it should\n"
        )
    finally:
        assert bank.cli("unfreeze", PAYEE).returncode == 0
    check_at_rest(bank)


@contextmanager
def emptied(bank: Cluster, account: str) -> Iterator[None]:
    """An account without money, which gets it back."""
    with bank.client() as client:
        left = client.balance(account)
    assert bank.cli("withdraw", account, left).returncode == 0
    try:
        yield
    finally:
        assert bank.cli("deposit", account, left).returncode == 0


@pytest.mark.parametrize(
    ("drill", "account", "needed"), [("all-goes-well", PAYER, "10.00"), ("branch-cut-off", PAYEE, "1.00")]
)
def test_without_money_it_says_so(bank: Cluster, drill: str, account: str, needed: str) -> None:
    with emptied(bank, account):
        done = bank.cli("drill", "run", drill)
    assert (done.returncode, done.stdout) == (1, "")
    says = f"{account} has 0.00 INR left, this drill needs {needed}: pay some in with: zbank deposit {account} 1000"
    assert says in done.stderr


def test_to_be_refused_takes_no_money(bank: Cluster) -> None:
    with emptied(bank, PAYER):
        *_, result = play(bank, "no-money")
    assert (result["outcome"], result["ok"]) == ("aborted", True)


def test_a_terminal_shows_what_the_readme_shows(bank: Cluster) -> None:
    leader, follower = pty.openpty()
    process = subprocess.Popen(
        bank.command("drill", "run", "coordinator-dies-after-votes"),
        cwd=bank.folder,
        env=bank.environment() | {"ZBANK_ENDPOINT": bank.endpoint, "COLUMNS": "80", "TERM": "xterm"},
        stdin=follower,
        stdout=follower,
        stderr=follower,
    )
    os.close(follower)
    shown = b""
    try:
        while select.select([leader], [], [], READ_LIMIT_S)[0]:
            try:
                shown += os.read(leader, 65_536)
            except OSError:  # the terminal is closed at the other end
                break
        assert process.wait(READ_LIMIT_S) == 0
    finally:
        process.kill()
        process.wait()
        os.close(leader)
    assert b"\x1b[" in shown, "colours"
    text = re.sub(r"\x1b\[[0-9;]*m", "", shown.decode()).replace("\r", "")
    assert max(map(len, text.splitlines())) <= 80
    (said,) = (block.text for block in blocks(ROOT / "README.md", "console") if "zbank drill run" in block.text)
    assert without_numbers(said.partition("\n")[2]) in without_numbers(text)


def without_numbers(text: str) -> str:
    """Row numbers and epochs are other ones each time, and with them the blanks after."""
    return re.sub(r"(#|epoch )\d+ *", r"\1", text)


def test_a_bank_without_drills_says_so(shared_cluster: Cluster) -> None:
    done = shared_cluster.cli("drill", "run", "all-goes-well")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("failed: drill: this bank was not started with --drills")
    assert done.stderr.count("\n") == 1


def test_another_banks_data_folder_is_noticed(shared_cluster: Cluster, bank: Cluster, tmp_path: Path) -> None:
    mixed = shared_cluster.cli("drill", "run", "all-goes-well", "--data", str(bank.data))
    assert mixed.returncode == 1
    assert "is not the one with data in" in mixed.stderr
    nothing = shared_cluster.cli("drill", "run", "all-goes-well", "--data", str(tmp_path))
    assert nothing.returncode == 1
    assert f"{tmp_path} holds no data of a bank" in nothing.stderr


def test_a_launcher_with_an_open_address_refuses_drills(tmp_path: Path) -> None:
    stage = Cluster(tmp_path)
    text = stage.config.read_text("utf-8")
    stage.config.write_text(text.replace("[branches.Delhi]", '[branches.Delhi]\nbind = "tcp://0.0.0.0:1"'), "utf-8")
    launcher = Launcher(stage, "--drills")
    try:
        assert launcher.process.wait(START_LIMIT_S) == 2
    finally:
        launcher.close()
    assert "branches.Delhi: tcp://0.0.0.0:1 can be reached from other machines: with --drills" in launcher.output
    assert launcher.output.count("\n") == 1
