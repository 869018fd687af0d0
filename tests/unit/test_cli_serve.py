"""`zbank branch` and `zbank coordinator`: from file or flags to the settings of the actor."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from zbank.apps import branch as branch_app
from zbank.apps import coordinator as coordinator_app
from zbank.apps import replica as replica_app
from zbank.apps import replica_keeper
from zbank.apps.branch import BranchSettings
from zbank.apps.cli import main, serve
from zbank.apps.cli.serve import NOBODY
from zbank.apps.coordinator import CoordinatorSettings
from zbank.apps.replica import ReplicaSettings

CLUSTER = """
[cluster]
name = "lan"
data = "here"
[coordinator]
endpoint = "tcp://10.0.0.1:9000"
bind = "tcp://0.0.0.0:9000"
[branches.Mumbai]
endpoint = "tcp://10.0.0.1:9100"
bind = "tcp://0.0.0.0:9100"
currency = "INR"
time_zone = "Asia/Kolkata"
preload = true
[branches.Oslo]
endpoint = "tcp://10.0.0.2:9100"
currency = "NOK"
"""

Started = list[BranchSettings | CoordinatorSettings]
Kept = list[tuple[dict[str, list[str]], dict[str, str], bool, str]]  #: commands, environment, prefixed, who is waited for


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> Started:
    """What would have run."""
    seen: Started = []

    def note(settings: BranchSettings | CoordinatorSettings) -> int:
        seen.append(settings)
        return 0

    monkeypatch.setattr(branch_app, "run", note)
    monkeypatch.setattr(coordinator_app, "run", note)
    return seen


@pytest.fixture
def config(tmp_path: Path) -> str:
    file = tmp_path / "cluster.toml"
    file.write_text(CLUSTER)
    return str(file)


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, list(arguments))


def test_branch_from_the_file(started: Started, config: str) -> None:
    assert run("branch", "--config", config, "--name", "Mumbai").exit_code == 0
    assert started == [
        BranchSettings(
            name="Mumbai",
            cluster="lan",
            endpoint="tcp://10.0.0.1:9100",
            bind="tcp://0.0.0.0:9100",
            coordinators=("tcp://10.0.0.1:9000",),
            currency="INR",
            data=Path("here"),
            peers={"Oslo": "tcp://10.0.0.2:9100"},
            preload=True,
        )
    ]


def test_branch_by_flags_alone(started: Started) -> None:
    result = run("branch", "--name", "Mumbai")
    assert result.stdout == "advertises tcp://127.0.0.1:9100\n"
    assert started == [
        BranchSettings(
            name="Mumbai",
            cluster="demo",
            endpoint="tcp://127.0.0.1:9100",
            bind="tcp://127.0.0.1:9100",
            coordinators=("tcp://127.0.0.1:9000",),
            currency="INR",
            data=Path("data/Mumbai"),
            peers={},
            preload=False,
        )
    ]


def test_branch_by_all_flags(started: Started) -> None:
    result = run(
        *("branch", "--name", "Oslo", "--host", "0.0.0.0", "--port", "9200", "--advertise", "10.0.0.2", "--preload"),
        *("--coordinator", "10.0.0.1", "--currency", "NOK", "--cluster", "lan"),
        *("--data", "/srv/oslo"),
    )
    assert result.exit_code == 0, result.stderr
    assert started == [
        BranchSettings(
            name="Oslo",
            cluster="lan",
            endpoint="tcp://10.0.0.2:9200",
            bind="tcp://0.0.0.0:9200",
            coordinators=("tcp://10.0.0.1:9000",),
            currency="NOK",
            data=Path("/srv/oslo"),
            peers={},
            preload=True,
        )
    ]


@pytest.mark.parametrize("host", ["0.0.0.0", "*"])
def test_listening_everywhere_advertises_the_outward_address_and_says_so(started: Started, host: str) -> None:
    result = run("branch", "--name", "Mumbai", "--host", host)
    [settings] = started
    assert settings.bind == f"tcp://{host}:9100"
    assert "0.0.0.0" not in settings.endpoint
    assert f"advertises {settings.endpoint}, this machine's " in result.stdout
    assert " (--advertise says otherwise)" in result.stdout


@pytest.mark.parametrize(
    ("routes", "advertised", "what"),
    [
        ({"10.0.0.1": "10.0.0.2"}, "10.0.0.2", "this machine's address towards 10.0.0.1"),
        ({"10.0.0.1": "10.0.0.2", NOBODY: "192.168.1.2"}, "10.0.0.2", "this machine's address towards 10.0.0.1"),
        ({"10.0.0.1": "127.0.0.1", NOBODY: "192.168.1.2"}, "192.168.1.2", "this machine's outward address"),
        ({NOBODY: "192.168.1.2"}, "192.168.1.2", "this machine's outward address"),
        ({}, socket.gethostname(), "this machine's name"),
    ],
    ids=["no router", "two networks", "on one machine", "no way to it yet", "no network"],
)
def test_a_branch_advertises_the_address_from_which_it_reaches_the_coordinator(
    started: Started, monkeypatch: pytest.MonkeyPatch, routes: dict[str, str], advertised: str, what: str
) -> None:
    monkeypatch.setattr(serve, "_address_towards", lambda host: routes.get(host, ""))
    result = run("branch", "--name", "Mumbai", "--host", "0.0.0.0", "--coordinator", "10.0.0.1")
    assert started[0].endpoint == f"tcp://{advertised}:9100"
    assert f"{what} (--advertise says otherwise)" in result.stdout


def test_the_way_to_this_machine_itself_is_found_without_a_packet() -> None:
    assert serve._address_towards("127.0.0.1") == "127.0.0.1"
    assert serve._address_towards("::1") == ""
    assert serve._address_towards("nobody.invalid") == ""
    assert serve._address_towards("no..name") == ""


def test_ipv6(started: Started) -> None:
    assert run("coordinator", "--host", "::1").exit_code == 0
    assert started[0].endpoint == "tcp://[::1]:9000"


def test_coordinator_from_the_file(started: Started, config: str) -> None:
    assert run("coordinator", "--config", config, "--data", "/srv/c").exit_code == 0
    assert started == [
        CoordinatorSettings(
            cluster="lan",
            endpoint="tcp://10.0.0.1:9000",
            bind="tcp://0.0.0.0:9000",
            data=Path("/srv/c"),
            branches=("Mumbai", "Oslo"),
            feed_in="tcp://0.0.0.0:9001",
            feed_out="tcp://0.0.0.0:9002",
        )
    ]


def test_coordinator_by_flags(started: Started) -> None:
    assert run("coordinator", "--port", "9500").stdout == "advertises tcp://127.0.0.1:9500\n"
    assert started == [
        CoordinatorSettings(
            cluster="demo",
            endpoint="tcp://127.0.0.1:9500",
            bind="tcp://127.0.0.1:9500",
            data=Path("data/coordinator"),
            branches=(),
            feed_in="tcp://127.0.0.1:9501",
            feed_out="tcp://127.0.0.1:9502",
        )
    ]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["branch"], "missing option '--name'"),
        (["branch", "--name", "1st"], "'1st' is no branch name"),
        (["branch", "--name", "Coordinator"], "'Coordinator' is the coordinator's"),
        (["branch", "--name", "A", "--currency", "RUPEE"], "RUPEE"),
        (["branch", "--name", "A", "--port", "70000"], "70000 is not in the range"),
        (["branch", "--name", "A", "--host", "a b"], "--host: 'tcp://a b:9100' is no address"),
        (["branch", "--name", "A", "--advertise", "tcp://0.0.0.0:9100"], "--advertise: 'tcp://0.0.0.0:9100'"),
        (["branch", "--name", "A", "--coordinator", "http://x"], "--coordinator: 'http://x:9000' is no address"),
    ],
)
def test_wrong_flags_start_nothing(started: Started, arguments: list[str], said: str) -> None:
    result = run(*arguments)
    assert result.exit_code == 2
    assert said in result.stderr
    assert result.stderr.count("\n") == 1
    assert started == []


def test_a_branch_that_is_not_in_the_file(started: Started, config: str) -> None:
    result = run("branch", "--config", config, "--name", "Mumbay")
    assert (result.exit_code, result.stderr) == (
        2,
        f"config: {config}: branches.Mumbay is missing: the file has Mumbai, Oslo\n",
    )


def test_flags_that_stand_in_the_file(started: Started, config: str) -> None:
    result = run("branch", "--config", config, "--name", "Mumbai", "--port", "9100", "--preload")
    assert result.exit_code == 2
    assert "--port, --preload and --config: that stands in the file" in result.stderr


# --- replicas beside a branch ------------------------------------------------------------------------------------------


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch) -> Kept:
    """What would have been kept running beside a branch."""
    seen: Kept = []

    @contextmanager
    def note(commands: dict[str, list[str]], environment: dict[str, str], *, prefix: bool, synchronous: str) -> Iterator[None]:
        seen.append((commands, environment, prefix, synchronous))
        yield

    monkeypatch.setattr(replica_keeper, "kept", note)
    return seen


def with_replicas(config: str, count: int) -> str:
    """The same file, and so many replicas of Mumbai."""
    Path(config).write_text(CLUSTER.replace("preload = true", f"preload = true\nreplicas = {count}"))
    return config


def test_the_files_replicas_run_beside_a_branch(started: Started, kept: Kept, config: str) -> None:
    assert run("branch", "--config", with_replicas(config, 2), "--name", "Mumbai", "--data", "/srv").exit_code == 0
    [(commands, environment, prefix, _)] = kept
    assert list(commands) == ["Mumbai-replica-1", "Mumbai-replica-2"]
    assert commands["Mumbai-replica-2"][1:] == [
        *("-m", "zbank.apps.cli", "replica", "--config", config, "--data", "/srv", "--of", "Mumbai"),
        *("--name", "Mumbai-replica-2", "--host", "0.0.0.0", "--advertise", "10.0.0.1"),
    ]
    assert (environment["ZBANK_LOG"], environment["ZBANK_LOG_LEVEL"], prefix) == ("text", "info", True)
    assert len(started) == 1


@pytest.mark.parametrize("flags", [("--replicas", "0"), ("--drills",)])
def test_without_the_files_replicas(started: Started, kept: Kept, config: str, flags: tuple[str, ...]) -> None:
    assert run("branch", "--config", with_replicas(config, 2), "--name", "Mumbai", *flags).exit_code == 0
    assert kept == []
    assert len(started) == 1


def test_replicas_by_flags(started: Started, kept: Kept) -> None:
    result = run("branch", "--name", "Oslo", "--replicas", "1", "--currency", "NOK", "--cluster", "lan", "--log", "json")
    assert result.exit_code == 0, result.stderr
    [(commands, environment, prefix, _)] = kept
    assert commands["Oslo-replica-1"][3:] == [
        *("replica", "--cluster", "lan", "--coordinator", "tcp://127.0.0.1:9000", "--currency", "NOK"),
        *("--of", "Oslo", "--name", "Oslo-replica-1", "--host", "127.0.0.1"),
    ]
    assert (environment["ZBANK_LOG"], prefix) == ("json", False)


def test_the_synchronous_replica_of_the_file(started: Started, kept: Kept, config: str) -> None:
    Path(config).write_text(CLUSTER.replace("preload = true", "preload = true\nreplicas = 2\nacks = 1"))
    assert run("branch", "--config", config, "--name", "Mumbai").exit_code == 0
    assert run("branch", "--config", config, "--name", "Mumbai", "--drills").exit_code == 0
    assert run("branch", "--config", config, "--name", "Oslo").exit_code == 0
    assert [settings.acks for settings in started if isinstance(settings, BranchSettings)] == ["Mumbai-replica-1", "", ""]
    assert [who for *_, who in kept] == ["Mumbai-replica-1"]


def test_the_synchronous_replica_by_flags(started: Started, kept: Kept) -> None:
    """Its replicas hear of it: one may take the branch's place."""
    result = run("branch", "--name", "Oslo", "--replicas", "1", "--synchronous", "Oslo-backup")
    assert result.exit_code == 0, result.stderr
    assert isinstance(started[0], BranchSettings)
    assert started[0].acks == "Oslo-backup"
    [(commands, _, _, who)] = kept
    assert who == "Oslo-backup"
    assert " --synchronous Oslo-backup " in " ".join(commands["Oslo-replica-1"])


@pytest.mark.parametrize(
    ("command", "says"),
    [
        (("branch", "--name", "Oslo", "--synchronous", "a b"), "'a b' is no name of a key"),
        (("replica", "--of", "Oslo", "--synchronous", "a b"), "'a b' is no name of a key"),
        (("branch", "--name", "Oslo", "--synchronous", "b", "--drills"), "--drills are played without replicas"),
    ],
    ids=str,
)
def test_a_synchronous_replica_that_cannot_be(started: Started, command: tuple[str, ...], says: str) -> None:
    result = run(*command)
    assert (result.exit_code, started) == (2, [])
    assert says in result.stderr


@pytest.mark.parametrize("count", ["-1", "17", "x"])
def test_numbers_of_replicas_that_are_none(started: Started, count: str) -> None:
    result = run("branch", "--name", "Oslo", "--replicas", count)
    assert (result.exit_code, started) == (2, [])
    assert "--replicas" in result.stderr


def test_a_replica_advertises_an_address_without_a_port(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[ReplicaSettings] = []

    def note(settings: ReplicaSettings) -> int:
        seen.append(settings)
        return 0

    monkeypatch.setattr(replica_app, "run", note)
    result = run("replica", "--of", "Oslo", "--host", "0.0.0.0", "--advertise", "10.0.0.2")
    assert result.stdout == "advertises tcp://10.0.0.2, listens on a free port of 0.0.0.0\n"
    assert run("replica", "--of", "Oslo").stdout == "advertises tcp://127.0.0.1, on a free port\n"
    assert [(settings.endpoint, settings.bind) for settings in seen] == [
        ("tcp://10.0.0.2:0", "tcp://0.0.0.0:0"),
        ("tcp://127.0.0.1:0", "tcp://127.0.0.1:0"),
    ]
    assert run("branch", "--name", "Oslo", "--advertise", "10.0.0.2:0").exit_code == 2


@pytest.mark.parametrize(
    ("flags", "looks"),
    [
        ((), False),
        (("--host", "::1"), False),
        (("--host", "0.0.0.0"), True),
        (("--host", "10.0.0.1"), True),
        (("--host", "0.0.0.0", "--coordinator", "10.0.0.1"), False),
    ],
    ids=str,
)
def test_a_branch_that_others_reach_looks_for_its_coordinator_unless_told(
    started: Started, flags: tuple[str, ...], looks: bool
) -> None:
    result = run("branch", "--name", "Mumbai", *flags)
    assert isinstance(started[0], BranchSettings)
    assert started[0].looks == looks
    assert ("looks for its coordinator at tcp://127.0.0.1:9000 and on the local network" in result.stdout) == looks
