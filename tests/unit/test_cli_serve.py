"""`zbank branch` and `zbank coordinator`: from file or flags to the settings of the actor."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from zbank.apps import branch as branch_app
from zbank.apps import coordinator as coordinator_app
from zbank.apps.branch import BranchSettings
from zbank.apps.cli import main
from zbank.apps.coordinator import CoordinatorSettings

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
    assert (
        f"advertises {settings.endpoint}, this machine's outward address (--advertise says otherwise)" in result.stdout
    )


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
