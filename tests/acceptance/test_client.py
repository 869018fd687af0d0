"""The client against real actors: money moves, processes die and come back, the same id gives the same outcome."""

from __future__ import annotations

from concurrent.futures import Future

import pytest

from tests.acceptance.cluster import Cluster
from zbank import TransferRequest, TransferResult
from zbank.errors import Refused, RemoteFault, Unreachable, ZbankError
from zbank.protocol.messages import StatusInfo
from zbank.transport.views import ActorDown


def test_the_usual_day(cluster: Cluster) -> None:
    with cluster.client() as bank:
        assert sorted(info.name for info in bank.branches()) == ["Delhi", "Mumbai"]
        local = bank.transfer("Mumbai/1001", "Mumbai/1002", "25.50", memo="rent", effective_on="2026-01-31")
        between = bank.transfer("Mumbai/1001", "Delhi/1002", "50", id="order 7")
        again = bank.transfer("Mumbai/1001", "Delhi/1002", "50", id="order 7")
        assert (local.status, between.status, again.status) == ("committed",) * 3
        assert (between.replayed, again.replayed, again.id) == (False, True, between.id)
        assert bank.balance("Mumbai/1001") == "9924.50"
        assert bank.balance("Delhi/1002") == "5050.00"

        poor = bank.transfer("Mumbai/1002", "Delhi/1002", "999999")
        assert poor.status == "aborted"
        assert poor.refusal is not None
        assert poor.refusal.code == "insufficient_funds"
        with pytest.raises(RemoteFault) as conflict:
            bank.transfer("Mumbai/1001", "Delhi/1002", "51", id="order 7")
        assert conflict.value.remote_code == "idempotency_conflict"
        with pytest.raises(RemoteFault) as missing:
            bank.account("Mumbai/nobody")
        assert missing.value.remote_code == "account_not_found"

        page = bank.statement("Mumbai/1001", limit=2)
        assert [entry.amount for entry in page.entries] == ["-50.00", "-25.50"]
        assert (page.entries[1].memo, page.entries[1].effective_on) == ("rent", "2026-01-31")
        older = bank.statement("Mumbai/1001", limit=2, cursor=page.cursor)
        assert [entry.balance for entry in older.entries] == ["10000.00"]

        view = bank.show("order 7")
        assert (view.status, view.to_json()["amount"]) == ("committed", "50.00")
        assert [one.branch for one in view.participants] == ["Delhi", "Mumbai"]
        assert bank.show("never seen").status == "unknown"


def test_accounts_are_opened_changed_and_listed(cluster: Cluster) -> None:
    with cluster.client() as bank:
        opened = bank.open_account("Delhi", number="77", owner="Asha", overdraft_limit="10.00")
        assert opened.to_json()["available"] == "10.00"
        with pytest.raises(Refused) as exists:
            bank.open_account("Delhi", number="77")
        assert exists.value.refusal_code == "account_exists"
        bank.change_account("Delhi/77", status="frozen", overdraft_limit=0)
        account = bank.account("Delhi/77")
        assert (account.status, account.overdraft_limit) == ("frozen", "0.00")
        frozen = bank.deposit("Delhi/77", 1)
        assert frozen.refusal is not None
        assert frozen.refusal.code == "account_frozen"
        accounts = list(bank.accounts())
        assert {"Delhi/77", "Delhi/cash", "Mumbai/1001"} <= {one.account for one in accounts}
        assert sum(one.balance_minor for one in accounts) == 0


def test_cancel_comes_first_or_too_late(cluster: Cluster) -> None:
    with cluster.client() as bank:
        assert bank.cancel("never", account="Mumbai/1001").status == "aborted"
        assert bank.transfer("Mumbai/1001", "Delhi/1001", 1, id="never").status == "aborted"
        assert bank.cancel("never at all").status == "aborted"
        assert bank.transfer("Mumbai/1001", "Delhi/1001", 1, id="done").status == "committed"
        assert bank.cancel("done", account="Mumbai/1001").status == "committed"


def test_a_batch_across_kills_pays_each_line_once(cluster: Cluster) -> None:
    """kill -9 of the coordinator and of a branch under a stream of transfers; then every id asked for again."""
    requests = [
        TransferRequest("Mumbai/1001", "Delhi/1001" if i % 2 else "Mumbai/1002", 1, id=f"line {i}") for i in range(600)
    ]
    with cluster.client(timeout_s=20) as bank:
        bank.balance("Mumbai/1001")
        futures: list[Future[TransferResult]] = []
        for i, one in enumerate(requests):
            futures.append(bank.submit_transfer(one.source, one.destination, one.amount, id=one.id))
            if i in (200, 400):
                name = "coordinator" if i == 200 else "Mumbai"
                futures[i - 150].exception(20)
                cluster.kill(name)
                cluster.start(name)
        for future in futures:
            future.exception(30)
        cluster.wait_registered()
        results = bank.transfer_many(requests)
        assert {_status(result) for result in results} == {"committed"}
        assert bank.balance("Mumbai/1001") == "9400.00"
        assert bank.balance("Mumbai/1002") == "5300.00"
        assert bank.balance("Delhi/1001") == "10300.00"


def test_one_branch_alone_and_who_is_down(cluster: Cluster) -> None:
    with cluster.client("Mumbai") as alone, cluster.client() as bank:
        assert bank.transfer("Delhi/1001", "Delhi/1002", 1).status == "committed"
        cluster.kill("coordinator")
        assert alone.transfer("Mumbai/1001", "Mumbai/1002", 1).status == "committed"
        assert bank.transfer("Delhi/1001", "Delhi/1002", 1).status == "committed"
        with pytest.raises(Unreachable, match=r"coordinator"):
            alone.transfer("Mumbai/1001", "Delhi/1002", 1)
        down, mumbai = alone.status()[:2]
        assert isinstance(down, ActorDown)
        assert isinstance(mumbai, StatusInfo)
        assert (down.role, mumbai.name) == ("coordinator", "Mumbai")


def _status(result: TransferResult | ZbankError) -> str:
    return result.status if isinstance(result, TransferResult) else repr(result)
