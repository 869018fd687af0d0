"""Replicas as real processes: they follow, they answer, they come back; with keys and without."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.cluster import Cluster, wait_until
from tests.acceptance.rest import Rest
from zbank import Client
from zbank.apps import keymaking
from zbank.errors import NoAnswer, RemoteFault, Unreachable
from zbank.protocol.messages import ReplicaInfo
from zbank.storage.sqlite import Identity, JournalStore

REPLICA = "Mumbai-replica"


@pytest.fixture(scope="module", params=[False, True], ids=["open", "secure"])
def bank(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A bank with a replica of Mumbai."""
    cluster = Cluster(tmp_path_factory.mktemp("replica"), secure=request.param)
    if cluster.keys is not None:
        keymaking.add(cluster.keys, REPLICA, "replica", ())
    try:
        cluster.start_all()
        start_replica(cluster)
        yield cluster
    finally:
        cluster.close()


def spawn_replica(cluster: Cluster, name: str = REPLICA, *flags: str) -> None:
    """Start a replica of Mumbai."""
    cluster.spawn_actor(name, "--config", str(cluster.config), *flags, role=("replica", "--of", "Mumbai", "--name", name))


def start_replica(cluster: Cluster, name: str = REPLICA, *flags: str) -> None:
    """Start a replica of Mumbai, and wait until it is level. The coordinator remembers one that was stopped, by the port that
    it had found free."""
    with cluster.client() as client:
        before = replica_of(client, name)
        spawn_replica(cluster, name, *flags)
        wait_until(lambda: is_level(client, name) and is_another(client, name, before), what=f"a level {name}")


def replica_of(client: Client, name: str = REPLICA) -> ReplicaInfo | None:
    """What the coordinator says of a replica."""
    return next((info for info in client.replicas() if info.name == name), None)


def is_another(client: Client, name: str, before: ReplicaInfo | None) -> bool:
    """It was started since."""
    info = replica_of(client, name)
    return info is not None and (before is None or info.endpoint != before.endpoint)


def is_level(client: Client, name: str = REPLICA) -> bool:
    """It has all that its branch has, as of a moment ago."""
    info = replica_of(client, name)
    return info is not None and info.behind == 0 and info.lag_us < 3_000_000


def journals(cluster: Cluster) -> tuple[JournalStore, JournalStore]:
    """The stopped branch's and replica's stores."""
    return tuple(  # type: ignore[return-value]
        JournalStore.open(cluster.data / f"{file}.db", Identity("test", role, "Mumbai"), bytes(16), reserve_bytes=0)
        for file, role in (("Mumbai", "branch"), (REPLICA, "replica"))
    )


def test_who_writes_reads_what_was_written(bank: Cluster) -> None:
    with bank.client() as client:
        before = client.account("Mumbai/1001").balance_minor
        for _ in range(20):
            done = client.transfer("Mumbai/1001", "Mumbai/1002", "1")
            seen = client.at_replicas(after=done.positions).account("Mumbai/1001")
            before -= 1_00
            assert seen.balance_minor == before
            assert seen.as_of is not None
            assert seen.as_of.position >= done.positions["Mumbai"]
        for _ in range(20):  # a slow branch's position is not known when it is told before that has applied it
            across = client.transfer("Delhi/1001", "Mumbai/1001", "20")
            if across.applied:
                break
            before += 20_00
        assert set(across.positions) == {"Mumbai", "Delhi"}
        near = client.at_replicas(after=across.positions, max_lag_s=60)
        assert near.account("Mumbai/1001").balance_minor == before + 20_00
        page = near.statement("Mumbai/1001", limit=1)
        assert page.entries[0].id == across.id
        assert [view.number for view in near.accounts("Mumbai")] == [view.number for view in client.accounts("Mumbai")]


def test_a_branch_without_a_replica_says_so(bank: Cluster) -> None:
    with bank.client() as client, pytest.raises(RemoteFault, match="branch Delhi has no replica") as caught:
        client.at_replicas().balance("Delhi/1001")
    assert caught.value.remote_code == "replica_not_found"


def test_a_position_that_does_not_come_ends_in_words(bank: Cluster) -> None:
    with bank.client() as client:
        near = client.at_replicas(after={"Mumbai": 999_999_999}, timeout_s=1.0)

        def is_told() -> bool:
            try:
                near.balance("Mumbai/1001")
            except RemoteFault as error:
                return "not to row 999999999, within 1 s" in error.detail
            except (NoAnswer, Unreachable):  # it is slow to answer: not even that is known
                return False
            pytest.fail("there is no such row")

        wait_until(is_told, what="words on the row that does not come")


def test_it_catches_up_after_kill_9_and_after_a_pause_of_its_branch(bank: Cluster) -> None:
    bank.kill(REPLICA)
    with bank.client() as client:
        for _ in range(50):
            last = client.transfer("Mumbai/1001", "Mumbai/1002", "0.01").positions["Mumbai"]
        start_replica(bank)
        wait_until(lambda: (info := replica_of(client)) is not None and info.seq >= last, what="it has all of that")
        bank.kill("Mumbai")
        near = client.at_replicas(max_lag_s=0.5)
        assert client.at_replicas().account("Mumbai/1001").as_of is not None, "it answers while its branch is down"

        def is_stale() -> bool:
            try:
                near.balance("Mumbai/1001")
            except RemoteFault as error:
                return error.remote_code == "stale"
            return False

        wait_until(is_stale, what="a refusal of what is too old")
        bank.start("Mumbai")
        wait_until(lambda: is_level(client), what="a level replica")
        done = client.transfer("Mumbai/1001", "Mumbai/1002", "1")
        assert client.at_replicas(after=done.positions).balance("Mumbai/1001") == client.balance("Mumbai/1001")


def test_it_is_its_branch_byte_by_byte(bank: Cluster) -> None:
    with bank.client() as client:
        wait_until(lambda: is_level(client), what="a level replica")
    for name in (REPLICA, "Mumbai"):
        assert bank.stop(name) == 0
    mine, copied = journals(bank)
    try:
        assert copied.seq >= mine.seq - 3  # the branch may have noted something on its way out
        assert copied.verify() == copied.seq
        assert [copied.row(seq) for seq in range(1, copied.seq + 1)] == [mine.row(seq) for seq in range(1, copied.seq + 1)]
    finally:
        mine.close()
        copied.close()
    bank.start("Mumbai")
    start_replica(bank)


def test_the_command_line_reads_at_it(bank: Cluster) -> None:
    done = json.loads(bank.cli("transfer", "Mumbai/1001", "Mumbai/1002", "1", "--json").stdout)
    row = str(done["positions"]["Mumbai"])
    balance = bank.cli("balance", "Mumbai/1001").stdout.strip()
    shown = bank.cli("balance", "Mumbai/1001", "--replica", "--after", row, "--max-lag", "60").stdout
    assert shown.startswith(f"{balance} (as of row {row}, ")
    page = json.loads(bank.cli("statement", "Mumbai/1001", "--replica", "--limit", "1", "--json").stdout)
    assert page["account"]["as_of"]["position"] >= int(row)
    assert bank.cli("accounts", "Mumbai", "--replica").stdout == bank.cli("accounts", "Mumbai").stdout
    assert "give --replica as well" in bank.cli("balance", "Mumbai/1001", "--after", row).stderr
    assert "name the branch" in bank.cli("accounts", "--replica", "--after", row).stderr
    stale = bank.cli("balance", "Mumbai/1001", "--replica", "--max-lag", "0")
    assert (stale.returncode, "was level with its branch" in stale.stderr) == (1, True)


def test_rest_reads_at_it_when_that_will_do(bank: Cluster) -> None:
    with closing(Rest(bank)) as rest:
        paid = {"from": "Mumbai/1001", "to": "Mumbai/1002", "amount": "1"}
        row = rest.post("/v1/transfers", paid, key="near-1").json["positions"]["Mumbai"]
        path = "/v1/branches/Mumbai/accounts/1001"
        assert "as_of" not in rest.get(path).json

        def at_replica(query: str, read: Callable[[Any], Any] = lambda told: told) -> Any:
            """What the replica answers; for one that is slow to answer, or has not come so far, the branch does."""
            told: Any = None

            def is_its_own() -> bool:
                nonlocal told
                told = read(rest.get(query).json)
                return "as_of" in told

            wait_until(is_its_own, what="an answer of the replica")
            return told

        near = at_replica(f"{path}?max_staleness_s=60&position={row}")
        assert near["as_of"]["position"] >= row
        assert {**near, "as_of": None} == {**rest.get(path).json, "as_of": None}
        assert at_replica(f"{path}/balance?position={row}")["as_of"]["position"] >= row
        entries = f"{path}/entries?max_staleness_s=60&limit=1"
        assert at_replica(entries, lambda told: told["account"])["as_of"]["lag_s"] < 60
        at_replica("/v1/branches/Mumbai/accounts?max_staleness_s=60", lambda told: told["accounts"][0])
        fallen_back = rest.get(f"{path}?max_staleness_s=0").json
        assert "as_of" not in fallen_back, "no replica is so fresh: the branch answers"
        delhi = rest.get("/v1/branches/Delhi/accounts/1001?max_staleness_s=60").json
        assert "as_of" not in delhi, "it has no replica: the branch answers"
        who = f'{{branch="Mumbai",name="{REPLICA}"}}'

        def is_shown() -> bool:
            (shown,) = rest.get("/v1/replicas").json["replicas"]
            assert (shown["name"], shown["branch"]) == (REPLICA, "Mumbai")
            metrics = rest.get("/metrics").body.decode()
            lag = re.search(rf"zbank_replica_lag_seconds{re.escape(who)} (\S+)", metrics)
            assert lag is not None
            at_rest = f"zbank_replica_behind_rows{who} 0.0\n" in metrics and shown["position"] >= row
            stands = f"zbank_replica_position{who} {float(shown['position'])}\n" in metrics
            return bool(at_rest and stands and float(lag[1]) < 3)

        wait_until(is_shown, what="where it stands, which it tells once a second")


def test_status_shows_it(bank: Cluster) -> None:

    def is_shown() -> bool:
        done = bank.cli("status", "--json")
        assert done.returncode == 0
        (shown,) = json.loads(done.stdout)["replicas"]
        assert (shown["name"], shown["of"]) == (REPLICA, "Mumbai")
        return bool(shown["behind"] == 0 and shown["lag_s"] < 5)

    wait_until(is_shown, what="a level replica in the status")
    assert "Mumbai-replica" in bank.cli("status").stdout


def test_what_is_wrong_is_said(bank: Cluster, tmp_path: Path) -> None:
    unknown = bank.cli("replica", "--config", str(bank.config), "--of", "Pune")
    assert unknown.returncode == 2
    assert "branches.Pune is missing: the file has Mumbai, Delhi" in unknown.stderr
    taken = bank.cli("replica", "--config", str(bank.config), "--of", "Mumbai", "--name", "Mumbai", "--data", str(bank.data))
    assert taken.returncode in (1, 2)
    assert "Traceback" not in taken.stderr
