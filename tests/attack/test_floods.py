"""Floods of strangers and of insiders: the bank goes on, its memory stays bounded, and who floods is put out.

How much of its speed a well-behaved client keeps is measured in benchmarks/security.py.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from decimal import Decimal
from pathlib import Path

import pytest
import zmq

from benchmarks.floods import KINDS, OF_INSIDERS, OF_STRANGERS
from tests.acceptance.cluster import ROOT, Cluster, wait_until
from tests.attack.intruder import ANSWER_MS, Intruder, books, statuses, watching_money
from zbank import Client
from zbank.errors import ZbankError
from zbank.ids import new_id
from zbank.protocol.messages import CLIENT, GetStatus, StatusInfo

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="NOT TESTED: memory is looked up in /proc")

MAX_GROWTH_MIB = 200
PAYMENTS = 60
MOST_ASKED = 3
PUT_OUT = ("till-4 (teller) is put out", "is ended: more than")


def rss_mib(bank: Cluster, name: str) -> float:
    """Memory that a process has in use."""
    pages = Path(f"/proc/{bank.processes[name].pid}/statm").read_text().split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE") / 2**20


class Payer:
    """A well-behaved client that pays on and on. What it is not told it asks again, as a machine in need may be slow."""

    def __init__(self, bank: Cluster) -> None:
        self.paid = 0
        self.refused: list[object] = []
        self._bank = bank
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        with self._bank.client(timeout_s=20) as client:
            while not self._stop.is_set():
                self._pay(client, "Delhi/1001" if self.paid % 2 else "Mumbai/1002")

    def _pay(self, client: Client, to: str) -> None:
        id = new_id()
        try:
            for _ in range(MOST_ASKED):
                done = client.transfer("Mumbai/1001", to, "0.01", id=id)
                if done.status != "unknown":
                    break
        except ZbankError as error:
            self.refused.append(error)
            return
        if done.status == "committed":
            self.paid += 1
        else:
            self.refused.append(done)

    def wait(self, count: int) -> None:
        """Until so many more were paid."""
        goal = self.paid + count
        wait_until(lambda: self.paid >= goal or bool(self.refused), limit_s=60, what=f"{count} payments")

    def close(self) -> None:
        self._stop.set()
        self._thread.join()


@contextmanager
def paying(bank: Cluster) -> Iterator[Payer]:
    payer = Payer(bank)
    try:
        yield payer
    finally:
        payer.close()


@contextmanager
def flooding(kind: str, endpoint: str, *by: str) -> Iterator[None]:
    command = [sys.executable, "-m", "benchmarks.floods", kind, endpoint, *by]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"begun\n"
        yield
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


@pytest.mark.parametrize("kind", [*KINDS])
def test_the_bank_goes_on_beside_a_flood(own_bank: Cluster, kind: str) -> None:
    bank = own_bank
    with paying(bank) as payer:
        payer.wait(10)
        before = rss_mib(bank, "Mumbai")
        with flooding(kind, bank.endpoints["Mumbai"], "Mumbai", str(bank.keys), "till-4"):
            for _ in range(4):
                payer.wait(PAYMENTS // 4)
                assert rss_mib(bank, "Mumbai") < before + MAX_GROWTH_MIB
            if kind in ("forbidden", "endless"):
                wait_until(lambda: any(text in bank.output("Mumbai") for text in PUT_OUT), what="the flood's end")
        payer.wait(10)
        assert not payer.refused
    assert all(process.poll() is None for process in bank.processes.values())
    assert "Traceback" not in bank.output("Mumbai")
    with bank.client() as client:  # that somebody was silent is an alarm until he is heard again
        wait_until(lambda: not any(actor.alarms for actor in statuses(client)), what="the end of all alarms")
    assert sum(Decimal(balance) for name, balance in books(bank).items() if "/" in name) == 0


@pytest.mark.parametrize("kind", ["connections", "noise", "garbage", "endless", "unread"])
def test_a_bank_without_keys_goes_on_too(tmp_path: Path, kind: str) -> None:
    """Anybody on its own machine may then say anything: it is slower, and goes on."""
    bank = Cluster(tmp_path)
    try:
        bank.start_all()
        with paying(bank) as payer:
            payer.wait(10)
            before = rss_mib(bank, "Mumbai")
            with flooding(kind, bank.endpoints["Mumbai"], "Mumbai"):
                payer.wait(PAYMENTS)
                assert rss_mib(bank, "Mumbai") < before + 2 * MAX_GROWTH_MIB
            assert not payer.refused
        assert "Traceback" not in bank.output("Mumbai")
    finally:
        bank.close()


def test_every_flood_is_told_whose_it_is() -> None:
    assert set(OF_STRANGERS) | set(OF_INSIDERS) == set(KINDS)
    assert all(flood.__doc__ for flood in KINDS.values())


def test_5000_connections_at_once(own_bank: Cluster) -> None:
    """More than one address may have: those above the limit are ended, those that stand go on, and so does the branch."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 5_000
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, wanted + 1_000), hard))
    held: list[socket.socket] = []
    place = ("127.0.0.1", int(own_bank.endpoints["Mumbai"].rpartition(":")[2]))

    def hold() -> None:
        with suppress(OSError):
            held.append(socket.create_connection(place, timeout=5))

    try:
        with Intruder(own_bank, "Mumbai", "till-4") as teller, paying(own_bank) as payer:
            teller.greeted()
            payer.wait(5)
            # Many at a time: one that finds no room in the queue of the kernel waits for a second, and so would all after it.
            with ThreadPoolExecutor(64) as pool:
                for _ in range(min(wanted, hard - 1_000)):
                    pool.submit(hold)
            payer.wait(20)
            assert isinstance(teller.ask(GetStatus()), StatusInfo)
            assert not payer.refused
            wait_until(lambda: "too many connections" in own_bank.output("Mumbai"), what="the word that these are too many")
    finally:
        for one in held:
            one.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    with own_bank.client(timeout_s=10) as client:
        wait_until(lambda: _hears(client), 60, "an answer to somebody new")


def _hears(client: Client) -> bool:
    try:
        return bool(client.balance("Mumbai/1001"))
    except ZbankError:
        return False


def test_a_subscriber_gets_nowhere(bank: Cluster) -> None:
    """The actors' own ports take no SUB at all (of the feed see test_feed.py)."""
    assert bank.keys is not None
    from zbank.transport.keyfolder import Keys

    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    try:
        with watching_money(bank):
            sub = context.socket(zmq.SUB)
            pair = Keys(bank.keys, "till-4").pair
            sub.curve_publickey, sub.curve_secretkey = pair.public.encode(), pair.secret.encode()
            sub.curve_serverkey = Keys(bank.keys, "Mumbai").pair.public.encode()
            seen = sub.get_monitor_socket(zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_DISCONNECTED)
            for n in range(10_000):
                sub.subscribe(f"topic {n}" * 20)
            sub.connect(bank.endpoints["Mumbai"])
            assert seen.poll(ANSWER_MS)
            assert int.from_bytes(seen.recv_multipart()[0][:2], sys.byteorder) == zmq.EVENT_DISCONNECTED
            sub.disable_monitor()
            seen.close(linger=0)
    finally:
        context.destroy(linger=0)


def test_msgpack_bombs_cost_their_sender_an_error(bank: Cluster) -> None:
    before = rss_mib(bank, "Mumbai")
    bombs = [
        b"\xdd\xff\xff\xff\xff",
        b"\xdf\xff\xff\xff\xff",
        b"\xc6\xff\xff\xff\xff" + bytes(100),
        b"\xdb\xff\xff\xff\xff",
        b"\xc9\xff\xff\xff\xff\x01",
        b"\x91" * 100_000,
        b"\x81\x01" * 50_000,
        b"\xdc\xff\xff" * 100,
        b"\xd6\xff\x00\x00\x00\x00",
    ]
    with watching_money(bank), Intruder(bank, "Mumbai", "till-4") as teller:
        teller.greeted(CLIENT)
        for bomb in bombs:
            teller.socket.send(bomb)
            (answer,) = teller.hear()
            assert getattr(answer, "code", "") == "bad_frame", answer
        assert isinstance(teller.ask(GetStatus()), StatusInfo)
    assert rss_mib(bank, "Mumbai") < before + 80


def test_what_is_larger_than_a_frame_may_be_ends_the_connection(bank: Cluster) -> None:
    with Intruder(bank, "Mumbai", "till-4") as teller:
        teller.greeted()
        seen = teller.socket.get_monitor_socket(zmq.EVENT_DISCONNECTED)
        teller.socket.send(bytes((1 << 20) + 1))
        assert seen.poll(ANSWER_MS), "the connection goes on"
        teller.socket.disable_monitor()
        seen.close(linger=0)
