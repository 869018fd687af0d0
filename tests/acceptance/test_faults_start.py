"""An actor that must not start: its exit code, and one plain line that says what is wrong and what to do."""

from __future__ import annotations

import re
import shutil
import socket
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.acceptance.cluster import CLUSTER_NAME, STOP_LIMIT_S, Cluster, free_ports

RUN_LIMIT_S = 40.0


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The data of a small cluster that ran and was stopped."""
    cluster = Cluster(tmp_path_factory.mktemp("kept"))
    try:
        cluster.start_all()
        with cluster.client() as bank:
            assert bank.transfer("Mumbai/1001", "Delhi/1001", 1).status == "committed"
        for name in ("coordinator", *cluster.branches):
            assert cluster.stop(name) == 0
        yield cluster.data
    finally:
        cluster.close()


@pytest.fixture
def stopped(tmp_path: Path, kept: Path) -> Iterator[Cluster]:
    """A cluster with that data; nothing runs."""
    cluster = Cluster(tmp_path)
    shutil.copytree(kept, cluster.data)
    try:
        yield cluster
    finally:
        cluster.close()


def run_to_end(cluster: Cluster, name: str) -> tuple[int, str]:
    """Start an actor that is expected to end by itself; its exit code and its last line."""
    cluster.start(name, ready=False)
    code = cluster.processes[name].wait(RUN_LIMIT_S)
    output = cluster.output(name)
    assert "Traceback" not in output
    return code, output.strip().splitlines()[-1]


def set_config(cluster: Cluster, old: str, new: str) -> None:
    text = cluster.config.read_text()
    assert old in text
    cluster.config.write_text(text.replace(old, new))


@pytest.mark.parametrize(("name", "section"), [("Mumbai", "[branches.Mumbai]"), ("coordinator", "[coordinator]")])
def test_a_port_that_is_taken_is_named_with_the_key_to_change(stopped: Cluster, name: str, section: str) -> None:
    port = int(stopped.endpoints[name].rpartition(":")[2])
    with closing(socket.create_server(("127.0.0.1", port))):
        code, line = run_to_end(stopped, name)
    assert code == 2
    assert f"cannot listen at tcp://127.0.0.1:{port}: Address already in use" in line
    assert f"change endpoint (or bind) of {section} in the config file" in line


def _of_another_branch(cluster: Cluster) -> None:
    shutil.copy(cluster.data / "Delhi.db", cluster.data / "Mumbai.db")


def _of_the_coordinator(cluster: Cluster) -> None:
    shutil.copy(cluster.data / "coordinator.db", cluster.data / "Mumbai.db")


def _of_another_cluster(cluster: Cluster) -> None:
    set_config(cluster, f'name = "{CLUSTER_NAME}"', 'name = "prod"')


def _of_another_program(cluster: Cluster) -> None:
    (cluster.data / "Mumbai.db").unlink()
    with closing(sqlite3.connect(cluster.data / "Mumbai.db")) as other:
        other.execute("CREATE TABLE customers (name TEXT)")
        other.commit()


def _garbage(cluster: Cluster) -> None:
    (cluster.data / "Mumbai.db").write_bytes(bytes(range(256)) * 64)


def _empty(cluster: Cluster) -> None:
    (cluster.data / "Mumbai.db").write_bytes(b"")


def _cut_short(cluster: Cluster) -> None:
    file = cluster.data / "Mumbai.db"
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def _a_row_changed(cluster: Cluster) -> None:
    """By somebody who knows SQL: a record that is not posted yet, made longer."""
    with closing(sqlite3.connect(cluster.data / "Mumbai.db")) as database:
        database.execute("DROP TRIGGER journal_rows_never_change")
        database.execute("UPDATE posted SET watermark = 0, meta = x''")
        database.execute("UPDATE journal SET body = CAST(body || x'00' AS BLOB) WHERE seq = 5")
        database.commit()


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (_of_another_branch, "foreign_store: .*Mumbai.db belongs to the branch Delhi of cluster test, .*data directory"),
        (_of_the_coordinator, "foreign_store: .*Mumbai.db belongs to the coordinator coordinator of cluster test"),
        (_of_another_cluster, "foreign_store: .*belongs to the branch Mumbai of cluster test, .* of cluster prod"),
        (_of_another_program, "foreign_store: .*Mumbai.db is a database of another program: move it away"),
        (_garbage, "corrupt_store: .*Mumbai.db is damaged or no database .*: restore a backup; to begin anew move"),
        (_empty, "corrupt_store: .*Mumbai.db is empty or cut short: restore a backup"),
        (_cut_short, "corrupt_store: .*Mumbai.db.* restore a backup"),
        (_a_row_changed, "corrupt_store: .*Mumbai.db: row 5 of the journal was changed, .*: restore a backup"),
    ],
)
def test_data_that_is_not_this_branchs_or_damaged_is_not_touched(
    stopped: Cluster, spoil: Callable[[Cluster], None], says: str
) -> None:
    spoil(stopped)
    before = (stopped.data / "Mumbai.db").read_bytes()
    code, line = run_to_end(stopped, "Mumbai")
    assert code == 2, line
    assert re.search(f"ERROR: {says}", line), line
    if spoil is not _a_row_changed:  # that is found by the replay, when the new epoch is written already
        assert (stopped.data / "Mumbai.db").read_bytes() == before


@pytest.mark.parametrize("posted", [True, False])
def test_data_in_another_currency_is_refused(stopped: Cluster, posted: bool) -> None:
    """Also when the branch died before its first posting, and the journal alone tells."""
    if not posted:
        for file in stopped.data.glob("Mumbai.db*"):
            file.unlink()
        stopped.start("Mumbai")
        stopped.kill("Mumbai")
    set_config(stopped, 'currency = "INR"', 'currency = "EUR"')
    code, line = run_to_end(stopped, "Mumbai")
    assert code == 2, line
    assert "foreign_store: the data of branch Mumbai is in INR, its configuration says EUR: set currency back" in line
    set_config(stopped, 'currency = "EUR"', 'currency = "INR"')
    stopped.start("Mumbai")
    with stopped.client("Mumbai") as bank:
        assert bank.balance("Mumbai/1002") == "5000.00"


def test_a_second_process_on_the_same_data_is_told_who_has_it(stopped: Cluster) -> None:
    stopped.start("Mumbai")
    first = stopped.processes["Mumbai"]
    port = stopped.endpoints["Mumbai"].rpartition(":")[2]
    set_config(stopped, f'endpoint = "tcp://127.0.0.1:{port}"', f'endpoint = "tcp://127.0.0.1:{free_ports(1)}"')
    try:
        code, _ = run_to_end(stopped, "Mumbai")
        assert code == 1, "it may end in time: starting again may help"
        assert f"Mumbai.db is in use by another process (process id {first.pid})" in stopped.output("Mumbai")
        assert first.poll() is None
    finally:
        first.kill()
        first.wait(STOP_LIMIT_S)


def test_a_new_branch_is_made_whole_or_not_at_all(stopped: Cluster) -> None:
    """A file half made by a process that died is not taken for a store; the next start makes it anew."""
    for file in stopped.data.glob("Mumbai.db*"):
        file.unlink()
    (stopped.data / "Mumbai.db.new").write_bytes(b"half a file")
    stopped.start("Mumbai")
    with stopped.client("Mumbai") as bank:
        assert bank.balance("Mumbai/1001") == "10000.00"
