"""What an actor looks at before it serves: its door, its keys, who may read its files."""

from __future__ import annotations

import os
import random
import stat
from pathlib import Path

import pytest

from zbank.apps import coordinator, keymaking, serving
from zbank.apps.chaos.ports import free_ports
from zbank.apps.coordinator import CoordinatorSettings
from zbank.transport.loop import ActorLoop


def settings(folder: Path, *, host: str = "127.0.0.1", keys: Path | None = None) -> CoordinatorSettings:
    port = free_ports(1, random.Random(5)).start
    return CoordinatorSettings("demo", f"tcp://127.0.0.1:{port}", f"tcp://{host}:{port}", folder, (), keys=keys)


@pytest.fixture(autouse=True)
def returns_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """An actor that has nothing to serve: it starts whole, and ends."""
    monkeypatch.setattr(ActorLoop, "run", lambda _self: None)
    monkeypatch.setattr(os, "umask", lambda _mask: 0)


def test_a_door_that_lets_strangers_in_serves_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    keymaking.make_all(tmp_path / "keys", "demo", ("Mumbai",))
    assert coordinator.run(settings(tmp_path, keys=tmp_path / "keys")) == serving.EXIT_DONE
    monkeypatch.setattr(serving, "lets_strangers_in", lambda *_: "no key was let in")
    assert coordinator.run(settings(tmp_path, keys=tmp_path / "keys")) == serving.EXIT_FAILED
    assert "not_closed: coordinator coordinator of cluster demo does not serve: no key was let in" in caplog.text


def test_without_keys_it_listens_on_its_own_machine_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert coordinator.run(settings(tmp_path, host="0.0.0.0")) == serving.EXIT_USAGE
    assert "`zbank keys init --config FILE`" in caplog.text
    assert not list(tmp_path.iterdir()), "nothing was begun"


def test_files_that_others_could_read_are_taken_away_from_them(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert coordinator.run(settings(tmp_path)) == serving.EXIT_DONE
    files = list(tmp_path.glob("coordinator.db*"))
    assert files
    for file in files:
        file.chmod(0o644)
    assert coordinator.run(settings(tmp_path)) == serving.EXIT_DONE
    assert {stat.S_IMODE(file.stat().st_mode) for file in tmp_path.glob("coordinator.db*")} == {0o600}
    assert "coordinator.db could be read by others" in caplog.text


@pytest.mark.parametrize("missing", ["coordinator.secret", "keys.toml"])
def test_keys_that_are_not_there_are_named(tmp_path: Path, missing: str, caplog: pytest.LogCaptureFixture) -> None:
    keymaking.make_all(tmp_path / "keys", "demo", ("Mumbai",))
    (tmp_path / "keys" / missing).unlink()
    assert coordinator.run(settings(tmp_path, keys=tmp_path / "keys")) == serving.EXIT_USAGE
    assert f"{missing} is missing" in caplog.text
