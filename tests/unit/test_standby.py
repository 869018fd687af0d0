"""Where the coordinator's replica is told of: the cluster file, what is started by it, and the keys that are made for it."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner, Result

from tests.unit.test_config import GOOD, load
from zbank.apps import branch as branch_app
from zbank.apps import coordinator as coordinator_app
from zbank.apps import launcher, roles
from zbank.apps import replica as replica_app
from zbank.apps.branch import BranchSettings
from zbank.apps.cli import main
from zbank.apps.coordinator import CoordinatorSettings
from zbank.apps.launcher_setup import (
    check_ports_are_free,
    make_missing_keys,
    promoted,
    remove_data,
    with_branches,
    without_replicas,
)
from zbank.apps.replica import ReplicaSettings
from zbank.config import STANDBY_NAME, ClusterConfig, load_config
from zbank.errors import InvalidConfig
from zbank.protocol.following import TakesOver
from zbank.storage.sqlite import Identity, JournalStore
from zbank.transport.keys import read_list

PLACE = 'endpoint = "tcp://127.0.0.1:9000"'
STANDBY = "tcp://127.0.0.1:9010"
WITH_STANDBY = GOOD.replace(PLACE, f'{PLACE}\nstandby = "{STANDBY}"\nacks = 1')
Settings = BranchSettings | CoordinatorSettings | ReplicaSettings


def with_line(line: str) -> str:
    """The file with this line in [coordinator]."""
    return GOOD.replace(PLACE, f"{PLACE}\n{line}")


@pytest.fixture
def config(tmp_path: Path) -> ClusterConfig:
    """A cluster with a standby, and its data folder."""
    (tmp_path / "cluster.toml").write_text(WITH_STANDBY.replace('time_zone = "Asia/Kolkata"\n', ""))
    (tmp_path / "data").mkdir()
    return msgspec.structs.replace(load_config(tmp_path / "cluster.toml"), data=tmp_path / "data")


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[Settings]:
    """What would have run."""
    seen: list[Settings] = []

    def note(settings: Settings) -> int:
        seen.append(settings)
        return 0

    for app in (branch_app, coordinator_app, replica_app):
        monkeypatch.setattr(app, "run", note)
    return seen


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, list(arguments))


# --- the file ------------------------------------------------------------------------------------------------------------


def test_both_places_are_known(config: ClusterConfig) -> None:
    section = config.coordinator
    assert (section.standby, section.acks, section.synchronous) == (STANDBY, 1, STANDBY_NAME)
    assert section.places == f"tcp://127.0.0.1:9000,{STANDBY}"
    assert config.replicas == config.named_replicas == {STANDBY_NAME: "coordinator"}


def test_without_acks_it_only_follows(tmp_path: Path) -> None:
    (tmp_path / "cluster.toml").write_text(with_line(f'standby = "{STANDBY}"'))
    config = load_config(tmp_path / "cluster.toml")
    assert config.coordinator.synchronous == ""
    assert config.replicas == {STANDBY_NAME: "coordinator"}


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("acks = 1", 'coordinator.acks: needs a replica: write where it is, as in standby = "tcp://127.0.0.1:9010"'),
        (f'standby = "{STANDBY}"\nacks = 2', "coordinator.acks: 2 does not fit: it is 0, or 1: nothing is answered before"),
        ('standby = "127.0.0.1:9010"', "coordinator.standby: '127.0.0.1:9010' is no address: write tcp://host:port"),
        ('standby = "tcp://0.0.0.0:9010"', "coordinator.standby: 'tcp://0.0.0.0:9010' is an address to listen on"),
        ('standby = "tcp://127.0.0.1:9000"', "coordinator.standby: port 9000 of 127.0.0.1 is taken by coordinator.endpoint"),
        ('standby = "tcp://127.0.0.1:8999"', "coordinator.standby: port 9000 of 127.0.0.1 is taken by coordinator.endpoint"),
        ('standby = "tcp://127.0.0.1:9098"', "coordinator.standby: port 9100 of 127.0.0.1 is taken by branches.Mumbai"),
        ('standby = "tcp://127.0.0.1:65534"', "coordinator.standby: port 65536 of 127.0.0.1 is above 65535: give one of them"),
        ('standbi = "tcp://127.0.0.1:9010"', "coordinator.standbi: unknown key; did you mean 'standby'?"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(tmp_path: Path, line: str, says: str) -> None:
    assert load(tmp_path, with_line(line)).startswith(says)


def test_no_branch_has_its_name(tmp_path: Path) -> None:
    text = WITH_STANDBY.replace("[branches.Tokyo]", "[branches.Coordinator-Standby]")
    assert load(tmp_path, text).endswith("the name 'coordinator-standby' is taken: choose another one")


# --- the commands --------------------------------------------------------------------------------------------------------


def test_each_is_told_by_the_file(config: ClusterConfig, started: list[Settings]) -> None:
    where = ("--config", str(config.path))
    for command in (("coordinator",), ("branch", "--name", "Mumbai"), ("replica", "--of", "coordinator")):
        assert run(command[0], *where, *command[1:]).exit_code == 0
    coordinator, branch, standby = started
    assert isinstance(coordinator, CoordinatorSettings)
    assert coordinator.acks == STANDBY_NAME
    assert isinstance(branch, BranchSettings)
    assert (branch.coordinators, branch.standby) == (("tcp://127.0.0.1:9000",), STANDBY)
    assert isinstance(standby, ReplicaSettings)
    assert (standby.name, standby.of, standby.bind, standby.endpoint) == (STANDBY_NAME, "coordinator", STANDBY, STANDBY)
    assert (standby.coordinators, standby.standby) == (("tcp://127.0.0.1:9000",), "")


@pytest.mark.parametrize(
    ("port", "coordinators", "standby"),
    [
        ("9000", (STANDBY,), ""),  # the former coordinator, at the place where it was
        ("9020", ("tcp://127.0.0.1:9000",), STANDBY),
    ],
)
def test_another_replica_looks_at_both_places(
    config: ClusterConfig, started: list[Settings], port: str, coordinators: tuple[str, ...], standby: str
) -> None:
    where = ("--config", str(config.path), "--of", "coordinator", "--name", "coordinator-former", "--port", port)
    result = run("replica", *where)
    assert result.exit_code == 0, result.stderr
    (settings,) = started
    assert isinstance(settings, ReplicaSettings)
    assert settings.endpoint == f"tcp://127.0.0.1:{port}"
    assert (settings.coordinators, settings.standby) == (coordinators, standby)


def test_by_flags(started: list[Settings]) -> None:
    assert run("coordinator", "--synchronous", "coordinator-2").exit_code == 0
    assert run("replica", "--of", "coordinator", "--port", "9010", "--coordinator", "10.0.0.1").exit_code == 0
    assert run("branch", "--name", "Oslo", "--standby", "10.0.0.2").exit_code == 0
    coordinator, standby, branch = started
    assert isinstance(coordinator, CoordinatorSettings)
    assert coordinator.acks == "coordinator-2"
    assert isinstance(standby, ReplicaSettings)
    assert (standby.name, standby.coordinators, standby.endpoint) == (STANDBY_NAME, ("tcp://10.0.0.1:9000",), STANDBY)
    assert isinstance(branch, BranchSettings)
    assert branch.standby == "tcp://10.0.0.2:9010"


@pytest.mark.parametrize(
    ("command", "says"),
    [
        (("replica", "--of", "coordinator"), "give --port: others must find it there when it has taken the coordinator's"),
        (("branch", "--name", "Oslo", "--standby", "nowhere:x"), "--standby: 'tcp://nowhere:x:9010' is no address"),
        (("promote", "coordinator"), "say where the coordinator's replica is: --at ADDRESS, or --config FILE with a standby"),
        (("promote", "Mumbai"), "which of its replicas? --replica NAME"),
    ],
    ids=str,
)
def test_what_is_missing_is_said(started: list[Settings], command: tuple[str, ...], says: str) -> None:
    result = run(*command)
    assert (result.exit_code, started) == (2, [])
    assert says in result.stderr


def test_once_it_has_taken_over_it_goes_on_as_the_coordinator(config: ClusterConfig, started: list[Settings]) -> None:
    """At its own address, on its own file, with the feed at the next two ports; started by the same command."""
    identity = Identity("test", "replica", "coordinator")
    path = config.data / f"{STANDBY_NAME}.db"
    JournalStore.open(path, identity, bytes(16), reserve_bytes=0).close()
    roles._take_over(path, identity, TakesOver(1_000_001, "asha", ""))
    command = ("replica", "--config", str(config.path), "--of", "coordinator", "--data", str(config.data))
    assert run(*command).exit_code == 0
    (settings,) = started
    assert isinstance(settings, CoordinatorSettings)
    assert (settings.endpoint, settings.bind, settings.file) == (STANDBY, STANDBY, STANDBY_NAME)
    assert (settings.feed_in, settings.feed_out) == ("tcp://127.0.0.1:9011", "tcp://127.0.0.1:9012")
    assert set(settings.branches) == {"Mumbai", "Tokyo"}


# --- the launcher --------------------------------------------------------------------------------------------------------


def test_what_is_started(config: ClusterConfig) -> None:
    commands = launcher._commands(config, drills=False)
    assert list(commands)[:4] == ["coordinator", "Mumbai", "Tokyo", STANDBY_NAME]
    assert commands[STANDBY_NAME][3:4] == ["replica"]
    assert commands[STANDBY_NAME][-2:] == ["--of", "coordinator"]


def make(config: ClusterConfig, file: str, role: str, name: str) -> None:
    """Data of somebody."""
    store = JournalStore.open(config.data / f"{file}.db", Identity("test", role, name), bytes(16), reserve_bytes=0)
    store.take_office()
    store.close()


def test_a_coordinator_whose_place_was_taken_is_not_started(config: ClusterConfig) -> None:
    make(config, "coordinator", "coordinator", "coordinator")
    make(config, STANDBY_NAME, "coordinator", "coordinator")
    assert promoted(config) == {STANDBY_NAME: "coordinator"}
    commands = launcher._commands(config, drills=False)
    assert "coordinator" not in commands
    assert STANDBY_NAME in commands


@pytest.mark.parametrize("role", ["replica", "coordinator"])
def test_fresh_removes_its_data_whatever_it_became(config: ClusterConfig, role: str) -> None:
    make(config, "coordinator", "coordinator", "coordinator")
    make(config, STANDBY_NAME, role, "coordinator")
    make(config, "coordinator-former", "replica", "coordinator")
    assert len(remove_data(config)) == 3
    assert [path for path in config.data.iterdir() if path.suffix == ".db"] == []


def test_more_branches_and_the_same_standby(config: ClusterConfig) -> None:
    made = with_branches(config, 3)
    assert made.coordinator == config.coordinator
    assert len({branch.endpoint for branch in made.branches.values()} | {STANDBY}) == 4


def test_drills_are_played_without_it(config: ClusterConfig) -> None:
    plain = without_replicas(config).coordinator
    assert (plain.standby, plain.acks, plain.synchronous) == ("", 0, "")
    assert plain.places == "tcp://127.0.0.1:9000"


def test_its_port_has_to_be_free(config: ClusterConfig) -> None:
    nowhere = msgspec.structs.replace(config.coordinator, standby="tcp://192.0.2.1:9010")
    far = msgspec.structs.replace(config, coordinator=nowhere, branches={}, rest=None, dashboard=None)
    with pytest.raises(InvalidConfig, match=r"coordinator\.standby: cannot listen on 192\.0\.2\.1:9010 here"):
        check_ports_are_free(far)


# --- keys ----------------------------------------------------------------------------------------------------------------


def test_keys_are_made_for_it_and_it_is_said_who_needs_the_coordinators(config: ClusterConfig, tmp_path: Path) -> None:
    result = run("keys", "init", "--config", str(config.path), "--keys", str(tmp_path / "made"))
    assert result.exit_code == 0, result.stderr
    lines = {line.split()[0]: line for line in result.stdout.splitlines() if ".secret" in line}
    assert "only for the machine of replica coordinator-standby" in lines["coordinator-standby.secret"]
    assert lines["coordinator.secret"].endswith(
        "only for the machines of coordinator and of coordinator-standby, which can take its place"
    )
    assert lines["Mumbai.secret"].endswith("only for the machine of branch Mumbai")
    key = read_list(tmp_path / "made").of_name(STANDBY_NAME)
    assert key is not None
    assert (key.role, key.follows_coordinator) == ("replica", True)


def test_keys_that_were_made_before_there_was_a_standby_get_one_more(config: ClusterConfig) -> None:
    folder = make_missing_keys(without_replicas(config))
    assert read_list(folder).of_name(STANDBY_NAME) is None
    assert make_missing_keys(config) == folder
    assert read_list(folder).of_name(STANDBY_NAME) is not None
