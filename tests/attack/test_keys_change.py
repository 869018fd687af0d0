"""Keys are added, revoked and rotated while the bank runs, and it is noted."""

from __future__ import annotations

import json
import shutil
import threading
import time
from concurrent.futures import Future
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import zmq

from tests.acceptance.cluster import Cluster, wait_until
from tests.attack.intruder import Intruder
from zbank.apps import keymaking
from zbank.errors import InvalidConfig, ZbankError
from zbank.protocol.messages import GetStatus, StatusInfo

ALL = ("coordinator", "Mumbai", "Delhi")


def test_revoking_ends_the_connections_that_stand(own_bank: Cluster) -> None:
    with Intruder(own_bank, "Mumbai", "till-4") as teller, Intruder(own_bank, "Mumbai", "watch") as other:
        teller.greeted()
        other.greeted()
        watch = teller.socket.get_monitor_socket(zmq.EVENT_DISCONNECTED)
        done = own_bank.cli("keys", "revoke", "till-4")
        assert done.returncode == 0, done.stderr
        assert watch.poll(10_000), "the connection goes on"
        wait_until(teller.stays_out, what="the end of what was the connection")  # its events come before
        assert teller.stays_out()
        assert isinstance(other.ask(GetStatus()), StatusInfo), "others go on"
        teller.socket.disable_monitor()
        watch.close(linger=0)
    assert "the key of till-4 is not good any more" in own_bank.output("Mumbai")
    with pytest.raises(InvalidConfig, match="missing"):
        own_bank.client(key="till-4")


def test_a_new_key_is_good_within_a_second(own_bank: Cluster) -> None:
    assert own_bank.cli("keys", "add", "till-5", "--role", "teller").returncode == 0

    def pays_in() -> bool:
        try:
            with own_bank.client(key="till-5", timeout_s=3) as bank:
                return bank.deposit("Mumbai/1001", "1.00").status == "committed"
        except ZbankError:
            return False

    wait_until(pays_in, what="the new key's first deposit")


def test_keys_are_rotated_under_load(own_bank: Cluster) -> None:
    """Each in its turn, the coordinator's and the operator's own among them; nobody is told no, and nothing is lost."""
    stop = threading.Event()
    futures: list[Future[Any]] = []
    with own_bank.client(timeout_s=30) as bank:

        def load() -> None:
            while not stop.is_set():
                n = len(futures)
                to = "Delhi/1001" if n % 2 else "Mumbai/1002"
                futures.append(bank.submit_transfer("Mumbai/1001", to, "0.01", id=f"rotating-{n}"))
                time.sleep(0.005)

        thread = threading.Thread(target=load)
        thread.start()
        try:
            for name in ("Mumbai", "coordinator", "operator", "Delhi"):
                told = len(futures)
                assert own_bank.cli("keys", "rotate", name).returncode == 0
                if name != "operator":
                    said = f"the key of {name} was rotated"
                    wait_until(lambda name=name, said=said: said in own_bank.output(name), what=f"the new key of {name}")  # type: ignore[misc]
                wait_until(lambda told=told: len(futures) > told + 100, what="more transfers")  # type: ignore[misc]
                wait_until(lambda told=told: all(future.done() for future in futures[:told]), what="the old ones' ends")  # type: ignore[misc]
        finally:
            stop.set()
            thread.join()
        results = [future.result() for future in futures]
        assert {result.status for result in results} == {"committed"}
        assert bank.balance("Mumbai/1001") == f"{10000 - len(futures) / 100:.2f}"
    listed = json.loads(own_bank.cli("keys", "list", "--json").stdout)["keys"]
    assert sum(one["name"] == "Mumbai" for one in listed) == 2


def test_a_secret_that_comes_after_its_list_is_answered_by(own_bank: Cluster, tmp_path: Path) -> None:
    """As it is carried to another machine. Meanwhile the old key is over, and the branch dials the coordinator in vain."""
    assert own_bank.keys is not None
    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(own_bank.keys, elsewhere)
    keymaking.rotate(elsewhere, "Mumbai", timedelta(0))
    for name in ("keys.toml", "Mumbai.secret"):
        Path(shutil.copy(elsewhere / name, own_bank.keys / ".new")).replace(own_bank.keys / name)
        wait_until(lambda: "the key of Mumbai, which is over" in own_bank.output("coordinator"), what="a vain call")
    wait_until(lambda: "the key of Mumbai was rotated" in own_bank.output("Mumbai"), what="the new key")
    own_bank.wait_ready("Mumbai")


def test_what_happened_to_keys_and_tokens_stands_in_the_coordinators_journal(own_bank: Cluster) -> None:
    assert own_bank.cli("tokens", "make", "--holder", "ops", "--role", "operator").returncode == 0
    assert own_bank.cli("keys", "revoke", "till-4").returncode == 0

    def acts() -> list[Any]:
        found = json.loads(own_bank.cli("acts", "--json").stdout)["acts"]
        assert isinstance(found, list)
        return found

    wait_until(lambda: "key_ended" in {act["act"] for act in acts()}, what="the record of the end")
    told = acts()
    assert [act["about"].split(" of ", 1)[1] for act in told if act["act"] == "key_ended"] == ["teller till-4"]
    (made,) = [act for act in told if act["act"] == "token_made"]
    assert made["by"] == "operator", "the key's name, whatever the caller calls itself"
    assert sum(act["act"] == "key_listed" for act in told) == 9
    own_bank.kill("coordinator")
    own_bank.start("coordinator")
    assert acts() == told, "after a restart, and noted once"


def test_a_secret_is_in_no_log_and_no_argument(own_bank: Cluster) -> None:
    assert own_bank.keys is not None
    secrets = [path.read_text().splitlines()[-1] for path in own_bank.keys.glob("*.secret")]
    assert len(secrets) >= 9
    made = json.loads(own_bank.cli("tokens", "make", "--holder", "x", "--role", "teller", "--json").stdout)["secret"]
    for name in ALL:
        told = own_bank.output(name) + Path(f"/proc/{own_bank.processes[name].pid}/cmdline").read_text()
        assert not [secret for secret in (*secrets, made) if secret in told]
        data = own_bank.data / f"{name}.db"
        assert data.stat().st_mode & 0o077 == 0
        stored = data.read_bytes() + data.with_name(f"{name}.db-wal").read_bytes()
        assert not [secret for secret in (*secrets, made) if secret.encode() in stored]
