"""What the launcher finds in the data folder, and what it removes."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from zbank.apps.launcher_setup import promoted, remove_data, with_branches, without_replicas
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


def test_without_replicas_nobody_waits_for_one(config: ClusterConfig) -> None:
    config.path.write_text(FILE.replace("replicas = 2", "replicas = 2\nacks = 1"))
    mumbai = without_replicas(load_config(config.path)).branches["Mumbai"]
    assert (mumbai.replicas, mumbai.acks, mumbai.synchronous) == (0, 0, "")


@pytest.mark.parametrize(
    ("of_delhi", "of_branch3"),
    [
        ("replicas = 1\nacks = 1", (1, "Branch3-replica-1")),
        ('replicas = 2\nacks = 1\nsynchronous = "Delhi-replica-2"', (1, "Branch3-replica-1")),
        ('acks = 1\nsynchronous = "Delhi-backup"', (0, "")),  # of which there is only one
    ],
)
def test_a_branch_made_like_the_last_one_waits_for_a_replica_of_its_own(
    config: ClusterConfig, of_delhi: str, of_branch3: tuple[int, str]
) -> None:
    config.path.write_text(FILE + of_delhi)
    before = msgspec.structs.replace(load_config(config.path), data=config.data)
    made = with_branches(before, 3).branches
    assert (made["Branch3"].acks, made["Branch3"].synchronous) == of_branch3
    assert made["Delhi"].synchronous == before.branches["Delhi"].synchronous
