"""The load generator: its bound, its notes, its arithmetic."""

from __future__ import annotations

import itertools
import queue
import random
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any, cast

import pytest

from zbank import Client, TransferResult
from zbank.apps.cli import bench_load
from zbank.apps.cli.bench import choose_branches
from zbank.apps.cli.bench_books import check_books
from zbank.apps.cli.bench_load import Record, make_routes, percentile, run_load
from zbank.domain.refusal import Refusal
from zbank.errors import InvalidInput, RemoteFault, ZbankError
from zbank.ids import format_id, new_id
from zbank.protocol.messages import BRANCH, BranchInfo, StatusInfo


def committed(request_id: bytes) -> TransferResult:
    return TransferResult(format_id(request_id), "committed", applied=True)


class AnsweringClient:
    """Commits everything from a thread of its own, as a real client's I/O thread does, once so many requests are there; notes
    the most in flight."""

    def __init__(self, faults: int = 0, begins_with: int = 1) -> None:
        self.open: queue.SimpleQueue[tuple[Future[TransferResult], bytes] | None] = queue.SimpleQueue()
        self.faults = faults
        self.sent = 0
        self.answered = 0
        self.most = 0
        self.ids: set[bytes] = set()
        self.counting = threading.Lock()
        self.begins = threading.Event()  #: to answer
        self.begins_with = begins_with

    def submit_transfer(self, source: str, destination: str, amount: Any, *, id: bytes) -> Future[TransferResult]:
        future: Future[TransferResult] = Future()
        with self.counting:
            self.sent += 1
            self.most = max(self.most, self.sent - self.answered)
            self.open.put((future, id))
            if self.sent >= self.begins_with:
                self.begins.set()
        return future

    def transfer_many(self, requests: list[Any]) -> list[TransferResult | ZbankError]:
        with self.counting:
            self.sent += len(requests)
            self.ids |= {request.id for request in requests}
        return [committed(request.id) for request in requests]

    def answer(self) -> None:
        self.begins.wait(LIMIT_S)
        while (item := self.open.get()) is not None:
            future, request_id = item
            with self.counting:
                self.answered += 1
            if self.faults:
                self.faults -= 1
                future.set_exception(RemoteFault("busy", "later"))
                continue
            self.ids.add(request_id)
            future.set_result(committed(request_id))


@contextmanager
def answering(faults: int = 0, begins_with: int = 1) -> Iterator[AnsweringClient]:
    client = AnsweringClient(faults, begins_with)
    thread = threading.Thread(target=client.answer)
    thread.start()
    try:
        yield client
    finally:
        client.open.put(None)
        thread.join()


ROUTES = [("A/1", "A/2"), ("A/2", "A/1")]
LIMIT_S = 20.0  #: for what must come


def test_it_keeps_in_flight_and_notes_every_request(monkeypatch: pytest.MonkeyPatch) -> None:
    """By a clock that goes on with each look at it, so that as many fit into the time however slow the machine is."""
    looks = itertools.count()
    monkeypatch.setattr(bench_load, "perf_counter", lambda: next(looks) * 0.0002)
    with answering(begins_with=8) as client:
        [record] = run_load([cast("Client", client)], ROUTES, in_flight=8, seconds=1.0, batch=0, timeout_s=1)
        assert 1 < client.most <= 8
        assert record.outcomes == Counter(committed=client.sent)
        assert {request_id for request_id, _ in record.committed()} == client.ids
        assert 0 < len(record.latencies_s) < client.sent
        assert {route for _, route in record.committed()} == {0, 1}


def test_a_fault_is_noted_and_the_slot_goes_on() -> None:
    with answering(faults=3) as client:
        [record] = run_load([cast("Client", client)], ROUTES, in_flight=4, seconds=0.5, batch=0, timeout_s=1)
        assert record.outcomes["failed: busy"] == len(record.unsettled) == 3
        assert record.outcomes["committed"] == client.sent - 3 > 0


def test_batches() -> None:
    client = AnsweringClient()
    records = run_load([cast("Client", client)], ROUTES, in_flight=2, seconds=0.1, batch=16, timeout_s=1)
    assert len(records) == 2
    assert sum(record.outcomes["committed"] for record in records) == client.sent == len(client.ids)


def test_notes() -> None:
    record = Record()
    ids = [new_id() for _ in range(5)]
    record.note(0, ids[0], committed(ids[0]))
    record.note(1, ids[1], TransferResult(format_id(ids[1]), "aborted", refusal=Refusal("insufficient_funds", "no")))
    record.note(2, ids[2], TransferResult(format_id(ids[2]), "unknown", reason="no answer"))
    record.note(3, ids[3], RemoteFault("busy", "later"))
    record.note(4, ids[4], committed(ids[4]))
    assert list(record.committed()) == [(ids[0], 0), (ids[4], 4)]
    assert record.unsettled == [(ids[2], 2), (ids[3], 3)]
    assert record.outcomes == {"committed": 2, "refused: insufficient_funds": 1, "unknown": 1, "failed: busy": 1}


@pytest.mark.parametrize(
    ("share", "value"), [(0.5, 50.0), (0.95, 95.0), (0.99, 99.0), (1.0, 100.0), (0.0, 1.0), (0.001, 1.0)]
)
def test_percentile(share: float, value: float) -> None:
    assert percentile([float(n) for n in range(1, 101)], share) == value


def test_percentile_of_few() -> None:
    assert percentile([], 0.5) == 0.0
    assert percentile([3.0], 0.99) == 3.0


def test_local_routes_stay_at_their_branch() -> None:
    routes = make_routes([["A/1", "A/2", "A/3"], ["B/1", "B/2"]], False, random.Random(1))
    assert all(source[0] == destination[0] and source != destination for source, destination in routes)
    assert {source[0] for source, _ in routes} == {"A", "B"}


def test_crossing_routes_cross_both_ways() -> None:
    routes = make_routes([["A/1", "A/2"], ["B/1", "B/2"]], True, random.Random(1))
    assert {source[0] + destination[0] for source, destination in routes} == {"AB", "BA"}


def branch(name: str, currency: str = "INR", up: bool = True) -> BranchInfo:
    return BranchInfo(name, "tcp://127.0.0.1:1", currency, bytes(16), 1, up)


EVERYWHERE = [branch("A"), branch("B", "NOK"), branch("C", up=False), branch("D")]


@pytest.mark.parametrize(
    ("named", "work", "names"),
    [
        (None, "local", ["A"]),
        (None, "transfer", ["A", "D"]),
        ("D,B", "deposit", ["D", "B"]),
        ("D, A", "transfer", ["D", "A"]),
    ],
)
def test_choice_of_branches(named: str | None, work: str, names: list[str]) -> None:
    assert [info.name for info in choose_branches(EVERYWHERE, named, work)] == names


@pytest.mark.parametrize(
    ("named", "work", "said"),
    [
        ("A,X", "local", "there is no branch X: this bank has A, B, C, D"),
        ("A,B", "transfer", "one currency"),
        ("A,A", "transfer", "needs 2 running branches"),
    ],
)
def test_branches_that_do_not_do(named: str, work: str, said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        choose_branches(EVERYWHERE, named, work)


def test_no_branch_at_all() -> None:
    with pytest.raises(InvalidInput, match="needs 1 running branch"):
        choose_branches([], None, "local")


class DecidingClient:
    """A bank in which a transfer that nobody was told of is prepared still, and commits after the second look at it."""

    def __init__(self) -> None:
        self.looks = 0

    def status(self) -> list[StatusInfo]:
        self.looks += 1
        in_flight = int(self.looks < 2)
        return [
            StatusInfo(
                role=BRANCH,
                name="A",
                cluster="",
                instance=bytes(16),
                epoch=1,
                seq=0,
                number=0,
                uptime_us=0,
                accounts=2,
                total_minor=0,
                clearing_minor=0,
                unposted=0,
                in_flight=in_flight,
                in_doubt=(),
                journal_bytes=0,
                alarms=(),
                version="",
            )
        ]

    def account(self, name: str) -> None:
        raise AssertionError(f"{name}: there are no accounts here")

    def cancel(self, request_id: bytes, *, account: str) -> TransferResult:
        return TransferResult(format_id(request_id), "committed" if self.looks >= 2 else "pending")


def test_what_is_still_being_decided_is_waited_for_before_the_books_are_judged() -> None:
    record = Record()
    record.note(0, new_id(), TransferResult("", "unknown", reason="no answer"))
    checks = check_books(cast(Client, DecidingClient()), [], [], ROUTES, [record])
    assert [check for check in checks if not check.ok] == []
    assert checks[0].detail == "1 were not told: 1 were committed, 0 never happen"
