"""What the launcher finds in the data folder, and what it removes."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from zbank.apps.launcher_setup import promoted, remove_data, without_replicas
from zbank.config import ClusterConfig, load_config
from zbank.storage.opening import Identity
from zbank.storage.sqlite import JournalStore

FILE = """
[cluster]
name = "demo"
data = "data"
[coordinator]
endpoint = "tcp://127.0.0.1:9000"
[branches.Mumbai]
endpoint = "tcp://127.0.0.1:9100"
currency = "INR"
replicas = 2
[branches.Delhi]
endpoint = "tcp://127.0.0.1:9101"
currency = "INR"
"""


@pytest.fixture
def config(tmp_path: Path) -> ClusterConfig:
    """Two branches, two replicas of the first."""
    (tmp_path / "cluster.toml").write_text(FILE)
    (tmp_path / "data").mkdir()
    return msgspec.structs.replace(load_config(tmp_path / "cluster.toml"), data=tmp_path / "data")


def make(config: ClusterConfig, file: str, role: str, name: str, cluster: str = "demo") -> None:
    """Data of somebody."""
    store = JournalStore.open(config.data / f"{file}.db", Identity(cluster, role, name), bytes(16), reserve_bytes=0)
    store.take_office()
    store.close()


def test_fresh_removes_all_data_of_this_cluster_and_of_all_its_replicas(config: ClusterConfig) -> None:
    make(config, "coordinator", "coordinator", "coordinator")
    make(config, "Mumbai", "branch", "Mumbai")
    make(config, "Mumbai-replica-1", "branch", "Mumbai")  # it took the branch's place
    make(config, "Mumbai-replica-2", "replica", "Mumbai")
    make(config, "Mumbai-backup", "replica", "Mumbai")  # started by hand
    make(config, "Mumbai-2026", "branch", "Mumbai")  # a copy of somebody's, who needs it
    make(config, "Pune-replica-1", "replica", "Pune")  # of no branch of this file
    make(config, "Delhi-replica-1", "replica", "Delhi", "other")
    (config.data / "Mumbai.db.superseded").write_text("a replica took its place")
    assert promoted(config) == {"Mumbai-replica-1": "Mumbai"}
    removed = remove_data(config)
    assert sorted(map(str, removed)) == [
        "branch Mumbai of cluster demo",
        "branch Mumbai of cluster demo",
        "coordinator coordinator of cluster demo",
        "replica Mumbai of cluster demo",
        "replica Mumbai of cluster demo",
    ]
    left = {path.name for path in config.data.iterdir() if path.suffix not in (".lock", ".reserve")}
    assert left == {"Mumbai-2026.db", "Pune-replica-1.db", "Delhi-replica-1.db"}
    assert remove_data(config) == []


def test_without_replicas(config: ClusterConfig) -> None:
    assert list(config.replicas) == ["Mumbai-replica-1", "Mumbai-replica-2"]
    assert without_replicas(config).replicas == {}
