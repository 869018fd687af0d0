"""One promotion after another: the promoted branch is lost as well, the former branch leads again (PROTOCOL R2, R3)."""

from __future__ import annotations

import signal
import threading
import time
from contextlib import suppress
from itertools import count

import pytest

from tests.acceptance.cluster import Cluster, wait_until
from tests.acceptance.test_failover import bank, check_books, place_of_replica, wait_back, wait_down, wait_serves
from tests.acceptance.test_replica import REPLICA, is_level, replica_of, spawn_replica
from zbank.errors import ZbankError

__all__ = ["bank"]

FORMER = "Mumbai-former"


def promote(cluster: Cluster, name: str) -> None:
    """By the command, as an operator does."""
    done = cluster.cli("promote", "Mumbai", "--replica", name, "--confirm", "promote Mumbai")
    assert (done.returncode, done.stderr) == (0, ""), cluster.output("coordinator")


def test_the_former_branch_leads_again_when_the_promoted_one_is_lost(bank: Cluster) -> None:
    with bank.client() as client:
        start = float(client.balance("Delhi/1001"))
        bank.kill("Mumbai")
        wait_down(client)
        promote(bank, REPLICA)
        wait_serves(client)
        bank.start("Mumbai", ready=False)
        wait_until(lambda: is_level(client, FORMER), what="the old branch follows the new one")
        bank.stop("Mumbai")  # and is behind when the new one is lost
        for _ in range(5):
            assert client.transfer("Mumbai/1001", "Delhi/1001", "3").status == "committed"
        bank.kill(REPLICA)
        bank.start("Mumbai", ready=False)
        wait_down(client)
        wait_until(lambda: replica_of(client, FORMER) is not None, what="the old branch is heard of")
        bank.kill("coordinator")  # what it knows of the first promotion, it knows from its journal
        bank.start("coordinator")
        wait_until(lambda: replica_of(client, FORMER) is not None, what="the old branch is heard of again")
        promote(bank, FORMER)
        wait_serves(client)
        bank.kill("Mumbai")
        bank.start("Mumbai", ready=False)
        wait_serves(client)
        assert float(client.balance("Delhi/1001")) == pytest.approx(start + 15)
        check_books(client)
        spawn_replica(bank)  # the first promoted one comes back: it is superseded in its turn
        wait_until(lambda: "superseded" in bank.output(REPLICA), what="the lost one hears that it is not the branch")
        assert client.transfer("Mumbai/1001", "Delhi/1001", "1").status == "committed"
        check_books(client)


@pytest.mark.parametrize("wait_s", [0.0, 0.05, 0.2, 0.5])
def test_the_promoted_branch_is_killed_while_it_takes_over(bank: Cluster, wait_s: float) -> None:
    with bank.client() as client:
        start = {name: float(client.balance(name)) for name in ("Mumbai/1001", "Delhi/1001")}
        gone = place_of_replica(client)
        bank.stop(REPLICA)
        for _ in range(20):
            assert client.transfer("Mumbai/1001", "Delhi/1001", "1").status == "committed"
        bank.kill("Mumbai")
        wait_down(client)
        spawn_replica(bank)
        wait_back(client, gone)
        client.promote("Mumbai", client.replicas()[0])
        time.sleep(wait_s)
        bank.kill(REPLICA)
        if wait_s == 0.2:
            bank.kill("coordinator")
            bank.start("coordinator", ready=False)
        spawn_replica(bank)
        wait_serves(client)
        assert float(client.balance("Mumbai/1001")) == pytest.approx(start["Mumbai/1001"] - 20 - 0.01)
        assert float(client.balance("Delhi/1001")) == pytest.approx(start["Delhi/1001"] + 20)
        check_books(client)


def test_the_old_branch_sleeps_through_the_promotion_while_payments_run(bank: Cluster) -> None:
    """It is stopped, not killed, and wakes when another one is the branch: what it did meanwhile is of its own alone."""
    told: list[tuple[bool, str]] = []
    over = threading.Event()

    def pay() -> None:
        with bank.client(timeout_s=3) as client:
            for n in count():
                if over.is_set():
                    return
                source, target = (("Mumbai/1001", "Delhi/1001"), ("Delhi/1001", "Mumbai/1002"))[n % 2]
                with suppress(ZbankError):
                    told.append((n % 2 == 0, client.transfer(source, target, "0.10").status))

    with bank.client() as client:
        # From here on this client knows where Mumbai was, and has never been there.
        start = float(client.balance("Delhi/1001"))
        payers = [threading.Thread(target=pay) for _ in range(2)]
        for payer in payers:
            payer.start()
        try:
            wait_until(lambda: len(told) >= 100, what="payments")
            bank.send_signal("Mumbai", signal.SIGSTOP)
            wait_down(client)
            promote(bank, REPLICA)
            bank.send_signal("Mumbai", signal.SIGCONT)
            wait_until(lambda: replica_of(client, FORMER) is not None, what="the old branch follows")
            before = len(told)

            def all_are_answered() -> bool:
                return len(told) >= before + 100 and not any(status == "unknown" for _, status in told[-10:])

            wait_until(all_are_answered, what="payments go on")
        finally:
            over.set()
            for payer in payers:
                payer.join()
        wait_serves(client)
        check_books(client)
        out, back = (sum(status == "committed" for is_out, status in told if is_out is way) for way in (True, False))
        unknown = sum(status == "unknown" for _, status in told)
        assert abs(float(client.balance("Delhi/1001")) - (start + (out - back) * 0.10)) <= unknown * 0.10 + 0.001
