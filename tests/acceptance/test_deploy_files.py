"""deploy/ without an engine to run it: the compose file and the systemd units against their schemas, and against zbank."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, NoReturn

import pytest

from tests.deploy_files import (
    CONFIG,
    DEPLOY,
    INSTANCE,
    UNITS,
    Instruction,
    check_command,
    compose,
    dockerfile,
    final,
    services,
    unit,
    volumes,
)
from zbank.config import BranchConfig, CoordinatorConfig, load_config, parse_endpoint

CHECKER = shutil.which("check-jsonschema", path=f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}")
ANALYZE = shutil.which("systemd-analyze")
SYSUSERS = shutil.which("systemd-sysusers")
USERS = DEPLOY / "systemd" / "zbank.sysusers"
SERVICES = services()
PARTS = {name: one for name, one in SERVICES.items() if "ZBANK_PART" in one.get("environment", {})}
MAX_EXPOSURE = 15  #: of 100, as `systemd-analyze security` counts


def cannot(what: str) -> NoReturn:
    """Leave a test out, and say so; where .ci/run should have brought what is missing, fail."""
    if os.environ.get("CI"):
        pytest.fail(f"{what}: .ci/run and `make test` install it")
    pytest.skip(f"NOT TESTED: {what}")


def zbank_command(service: dict[str, Any]) -> list[str]:
    """What a service runs, without `zbank`."""
    if "entrypoint" not in service:
        return list(service["command"])
    assert service["entrypoint"] == ["sh", "/opt/zbank/keys.sh"]
    return ["keys", *service["command"]]


# --- compose.yaml -----------------------------------------------------------------------------------------------------


def test_the_compose_file_fits_its_schema() -> None:
    if CHECKER is None:
        cannot("check-jsonschema is not installed")
    command = [CHECKER, "--builtin-schema", "vendor.compose-spec", str(DEPLOY / "compose.yaml")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_runs_a_command_that_there_is(name: str) -> None:
    check_command(zbank_command(SERVICES[name]))
    assert final("ENTRYPOINT") == '["zbank"]'


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_may_do_little(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert "privileged" not in service
    assert ("cap_add" in service) == ("user" in service) == (name == "keys")
    published = service.get("ports", [])
    assert bool(published) == (name in ("rest", "dashboard"))
    assert all(port.startswith("127.0.0.1:") for port in published)
    for condition in service.get("depends_on", {}).values():
        assert condition["condition"] in ("service_started", "service_healthy", "service_completed_successfully")


def test_the_cluster_file_is_that_of_the_services() -> None:
    cluster = load_config(DEPLOY / "cluster.toml")
    hosts: dict[str, CoordinatorConfig | BranchConfig] = {"coordinator": cluster.coordinator, **cluster.branches}
    replicas = cluster.replicas
    for part, service in PARTS.items():
        assert service["environment"]["ZBANK_PART"] in {*hosts, *replicas, "rest", "dashboard"}
        mounted = next(one for one in service["volumes"] if isinstance(one, dict))
        assert (mounted["source"], mounted["target"], mounted["read_only"]) == ("./cluster.toml", CONFIG, True)
        if service["environment"]["ZBANK_PART"] in hosts:
            actor = hosts[service["environment"]["ZBANK_PART"]]
            assert parse_endpoint(actor.endpoint).host == part
            assert parse_endpoint(actor.bind).host == "0.0.0.0"
            assert volumes(service)["/data"] == f"data-{part}", "each has its own"
    assert {one["environment"]["ZBANK_PART"] for one in PARTS.values()} == {*hosts, *replicas, "rest", "dashboard"}
    assert cluster.rest is not None
    assert cluster.dashboard is not None
    assert cluster.dashboard.rest_url == f"http://rest:{cluster.rest.port}"
    assert PARTS["rest"]["ports"] == [f"127.0.0.1:{cluster.rest.port}:{cluster.rest.port}"]
    assert PARTS["dashboard"]["ports"] == [f"127.0.0.1:{cluster.dashboard.port}:{cluster.dashboard.port}"]


def test_each_part_has_its_own_keys_and_no_others() -> None:
    handed_out = volumes(SERVICES["keys"])
    assert handed_out.pop("/keys") == "keys"
    for name, service in SERVICES.items():
        if name == "keys":
            continue
        has_keys = volumes(service).get("/keys")
        if name == "dashboard":
            assert has_keys is None
            continue
        part = service.get("environment", {}).get("ZBANK_PART", name)
        assert has_keys == handed_out.pop(f"/parts/{part}") + ":ro"
        assert service["depends_on"]["keys"]["condition"] == "service_completed_successfully"
    assert handed_out == {}
    assert SERVICES["keys"]["network_mode"] == "none"


def test_who_can_reach_whom() -> None:
    networks = compose()["networks"]
    assert networks["bank"] == {"internal": True}
    assert {name for name, one in SERVICES.items() if "web" in one.get("networks", ())} == {"rest", "dashboard"}
    assert SERVICES["dashboard"]["networks"] == ["web"]
    used = {name.removesuffix(":ro") for one in SERVICES.values() for name in volumes(one).values()}
    assert used == set(compose()["volumes"])


def test_the_image_has_a_user_of_its_own_and_no_tools() -> None:
    assert final("USER") == "10001:10001"
    assert final("VOLUME") == "/data"
    last = max(n for n, one in enumerate(dockerfile()) if one.word == "FROM")
    stage = dockerfile()[last:]
    (run,) = [one.text for one in stage if one.word == "RUN"]
    assert "pip uninstall" in run
    assert not [word for word in ("apt-get", "gcc", "pip install") if word in run]
    assert Instruction("COPY", "--from=build /opt/zbank /opt/zbank") in stage


# --- systemd ----------------------------------------------------------------------------------------------------------


def test_there_are_units_to_check() -> None:
    names = {"zbank-coordinator", "zbank-branch@", "zbank-replica@", "zbank-rest", "zbank-dashboard"}
    assert {path.stem for path in UNITS} == names


@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.stem)
def test_a_unit_starts_a_command_that_there_is(path: Path) -> None:
    settings = unit(path)
    (line,) = settings["ExecStart"]
    program, *words = shlex.split(line.replace("%i", INSTANCE))
    assert program == "/opt/zbank/bin/zbank"
    if words[-1] == "$ZBANK_FLAGS":
        words[-1:] = []
        (told,) = re.findall("^# ZBANK_FLAGS=(.*)", path.read_text("utf-8"), re.MULTILINE)
        check_command([*words, *shlex.split(told)])
    check_command(words)
    assert settings["Restart"] == ["on-failure"]
    assert settings["RestartPreventExitStatus"] == ["2"]


@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.stem)
def test_a_unit_is_as_shut_in_as_the_others(path: Path) -> None:
    def fence(one: Path) -> str:
        return one.read_text("utf-8").partition("# What it may do")[2].partition("\n[Install]")[0]

    assert fence(path) == fence(UNITS[0])
    settings = unit(path)
    assert settings["ProtectSystem"] == ["strict"]
    assert settings["SystemCallFilter"][0] == "@system-service"
    assert ("User" in settings) != ("DynamicUser" in settings)
    users = USERS.read_text("utf-8")
    assert all(f"u {user} " in users for user in settings.get("User", ()))
    is_actor = "StateDirectory" in settings
    assert ("AF_NETLINK" in settings["RestrictAddressFamilies"][0]) is is_actor, "libzmq aborts without when it listens"


@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.stem)
def test_systemd_takes_a_unit_and_finds_it_shut_in(path: Path, tmp_path: Path) -> None:
    if ANALYZE is None:
        cannot("systemd-analyze is not installed (apt-get install systemd)")
    copy = tmp_path / path.name.replace("@", f"@{INSTANCE}")
    copy.write_text(path.read_text("utf-8").replace("/opt/zbank/bin/zbank", shutil.which("true") or "/bin/true"))
    done = subprocess.run([ANALYZE, "verify", "--man=no", str(copy)], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    command = [ANALYZE, "security", "--offline=true", f"--threshold={MAX_EXPOSURE}", "--no-pager", str(copy)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_systemd_makes_the_users(tmp_path: Path) -> None:
    if SYSUSERS is None:
        cannot("systemd-sysusers is not installed (apt-get install systemd)")
    if os.geteuid() != 0:
        pytest.skip("NOT TESTED: only root may make users, in a folder as well")
    (tmp_path / "etc").mkdir()
    command = [SYSUSERS, f"--root={tmp_path}", str(USERS)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    made = {line.partition(":")[0] for line in (tmp_path / "etc" / "passwd").read_text("utf-8").splitlines()}
    assert {"zbank", "zbank-rest"} <= made
