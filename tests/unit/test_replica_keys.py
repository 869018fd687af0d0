"""Whether a replica's keys let it take its branch's place."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

from zbank.apps import keymaking
from zbank.apps.replica import ReplicaSettings, _can_lead


def settings(keys: Path | None, of: str = "Mumbai") -> ReplicaSettings:
    """Of a replica with these keys."""
    where = "tcp://127.0.0.1:0"
    return ReplicaSettings("copy", of, "demo", where, where, (where,), "INR", Path("data"), {}, keys)


def test_a_replica_leads_by_a_good_key_of_its_branch_alone(tmp_path: Path) -> None:
    keymaking.make_all(tmp_path, "demo", ["Mumbai", "Delhi"], ["copy"])
    secret = tmp_path / "Mumbai.secret"
    old = secret.read_bytes()
    assert _can_lead(settings(None))
    assert _can_lead(settings(tmp_path))
    keymaking.rotate(tmp_path, "Mumbai", timedelta(0))
    assert _can_lead(settings(tmp_path))
    secret.write_bytes(old)  # that of before the rotation
    assert not _can_lead(settings(tmp_path))
    keymaking.revoke(tmp_path, "Delhi")
    assert not _can_lead(settings(tmp_path, "Delhi"))
    secret.unlink()
    assert not _can_lead(settings(tmp_path))


def test_a_replica_of_the_coordinator_needs_the_coordinators_key(tmp_path: Path) -> None:
    keymaking.make_all(tmp_path, "demo", ["Mumbai"], ["coordinator-standby"])
    assert _can_lead(settings(tmp_path, "coordinator"))
    (tmp_path / "coordinator.secret").unlink()
    assert not _can_lead(settings(tmp_path, "coordinator"))
