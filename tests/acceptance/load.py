"""A load of transfers that goes on through faults, and the judgement over it from outside the bank.

Everything a customer was told is kept; `Load.settle` asks for every id again, and `check` compares all that was told with
what stands in the books.
"""

from __future__ import annotations

import random
import threading
from collections import Counter, defaultdict
from collections.abc import Collection
from concurrent.futures import Future
from pathlib import Path
from typing import NamedTuple

from tests.acceptance.cluster import Cluster, wait_until
from zbank import Client, TransferRequest, TransferResult
from zbank.errors import ClientClosed, RemoteFault, Unreachable, ZbankError
from zbank.ids import format_id, id_from_text
from zbank.protocol.messages import BRANCH, GetStatus, StatusInfo
from zbank.storage.sqlite import Identity, JournalStore
from zbank.transport.client_base import as_it_is
from zbank.transport.client_request import THE_COORDINATOR
from zbank.transport.views import EntryView

NUMBERS = ("1001", "1002")
SETTLE_LIMIT_S = 30.0
PAUSE_S = 0.05  #: after a fault: a customer who is told "not now" does not ask a thousand times a second
FINAL = ("committed", "aborted")
NOT_DONE = {"branch_unavailable", "busy", "storage_full", "out_of_office"}  #: faults that a load may meet in a broken bank


class Told(NamedTuple):
    """A final outcome, as far as it must never change."""

    status: str
    refusal_code: str
    number: int


class Load:
    """Local and inter-branch transfers, some of them refused, many in flight, until it is stopped."""

    def __init__(self, cluster: Cluster, seed: int, *, in_flight: int = 64, timeout_s: float = 6.0) -> None:
        self.cluster = cluster
        self.requests: dict[str, TransferRequest] = {}
        self.told: dict[str, Told] = {}
        self.faults: Counter[str] = Counter()
        self.surprises: list[str] = []  #: answers that no fault explains
        self._chance = random.Random(seed)
        self._seed = seed
        self._timeout_s = timeout_s
        self._client = cluster.client(timeout_s=timeout_s)
        self._free = threading.Semaphore(in_flight)
        self._in_flight = in_flight
        self._stopping = threading.Event()
        self._pausing = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    # --- running -------------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        while not self._stopping.is_set():
            if self._pausing.is_set():
                self._pausing.clear()
                self._stopping.wait(PAUSE_S)
            if not self._free.acquire(timeout=0.1):
                continue
            request = self._next()
            id = str(request.id)
            self.requests[id] = request
            try:
                future = self._client.submit_legs(request.legs or (), id=id)
            except ClientClosed:  # the test failed, and is over
                return
            future.add_done_callback(lambda future, id=id: self._done(id, future))  # type: ignore[misc]

    def _next(self) -> TransferRequest:
        chance = self._chance
        places = [f"{branch}/{number}" for branch in self.cluster.branches for number in NUMBERS]
        chosen = chance.sample(places, chance.choice((2, 2, 2, 3)))
        amounts = [chance.randint(1, 9) for _ in chosen[1:]]
        if chance.random() < 0.05:
            amounts[0] = 1_000_000  # nobody has that
        id = f"{self._seed}/{len(self.requests)}"
        legs = [(chosen[0], -sum(amounts)), *zip(chosen[1:], amounts, strict=True)]
        return TransferRequest(id=id, legs=[(place, amount) for place, amount in legs])

    def _done(self, id: str, future: Future[TransferResult]) -> None:
        self._free.release()
        error = future.exception()
        if error is None:
            self._note(id, future.result())
            return
        self._pausing.set()
        code = error.remote_code if isinstance(error, RemoteFault) else type(error).__name__
        self.faults[code] += 1
        if not isinstance(error, Unreachable) and code not in NOT_DONE:
            self.surprises.append(f"{id}: {error!r}")

    def _note(self, id: str, result: TransferResult) -> None:
        if result.status not in FINAL:
            self.faults[result.status] += 1
            return
        told = Told(result.status, result.refusal.code if result.refusal else "", result.number)
        known = self.told.setdefault(id, told)
        if known != told:
            self.surprises.append(f"{id}: told {known}, and now {told}")

    def wait_told(self, more: int, limit_s: float = 20.0) -> None:
        """Wait until so many more outcomes were told."""
        until = len(self.told) + more
        wait_until(lambda: len(self.told) >= until, limit_s, f"{more} more outcomes ({self.faults})")

    def stop(self) -> None:
        """Send no more; what is out ends by itself."""
        if self._stopping.is_set():
            return
        self._stopping.set()
        self._thread.join(10)
        for _ in range(self._in_flight):
            assert self._free.acquire(timeout=self._timeout_s + 5), "a request never ended"

    def close(self) -> None:
        """Leave nothing behind, whatever state it is in."""
        self._stopping.set()
        self._client.close()
        self._thread.join(10)

    # --- judging -------------------------------------------------------------------------------------------------------

    def settle(self) -> None:
        """Stop, and ask for every id again until each has an outcome: told twice, it is the same."""
        self.stop()
        asked_again = list(self.requests.values())

        def all_told() -> bool:
            nonlocal asked_again
            results = self._client.transfer_many(asked_again)
            for request, result in zip(asked_again, results, strict=True):
                if isinstance(result, TransferResult):
                    self._note(str(request.id), result)
            asked_again = [
                request
                for request, result in zip(asked_again, results, strict=True)
                if isinstance(result, ZbankError) or result.status not in FINAL
            ]
            return not asked_again

        wait_until(all_told, SETTLE_LIMIT_S, "an outcome for every id")
        assert not self.surprises, self.surprises[:5]

    def check(self, also: Collection[str] = ()) -> None:
        """Settle; then the books of the resting bank must say exactly what was told; `also` are ids of other payments."""
        self.settle()
        assert set(self.told) == set(self.requests)
        assert {told.status for told in self.told.values()} == set(FINAL)
        wait_at_rest(self.cluster, self._client)
        posted = books(self._client)
        for id, request in self.requests.items():
            expected: dict[str, int] = {}
            if self.told[id].status == "committed":
                expected = {place: int(amount) * 100 for place, amount in request.legs or ()}
            assert posted.pop(_uuid(id), {}) == expected, f"{id}: {self.told[id]}"
        assert set(posted) == self._preloads() | set(map(_uuid, also)), "somebody paid what nobody asked for"

    def _preloads(self) -> set[str]:
        return {
            entry.id
            for branch in self.cluster.branches
            for number in NUMBERS
            for entry in self._client.statement(f"{branch}/{number}", newest_first=False, limit=1).entries
        }


def _uuid(id: str) -> str:
    return format_id(id_from_text(id))


def own_status(cluster: Cluster, name: str) -> StatusInfo:
    """What an actor says of itself, asked at its own port."""
    with cluster.client(name, timeout_s=4) as client:
        target = THE_COORDINATOR if name == "coordinator" else name
        found: StatusInfo = client._read(target, GetStatus(), StatusInfo, as_it_is)
    return found


def wait_at_rest(cluster: Cluster, client: Client) -> None:
    """Wait until nothing is in flight, in doubt or alarming anywhere."""

    def at_rest() -> bool:
        found = client.status()
        if not all(isinstance(actor, StatusInfo) for actor in found) or len(found) != 1 + len(cluster.branches):
            return False
        infos = [actor for actor in found if isinstance(actor, StatusInfo)]
        assert all(info.total_minor == 0 for info in infos)
        busy = any(info.in_flight or info.in_doubt or info.alarms for info in infos)
        return not busy and sum(info.clearing_minor for info in infos if info.role == BRANCH) == 0

    wait_until(at_rest, SETTLE_LIMIT_S, "rest")


def books(client: Client) -> dict[str, dict[str, int]]:
    """By transfer: what it posted to which customer's account. Everything that must hold of the books is checked."""
    posted: dict[str, dict[str, int]] = defaultdict(dict)
    clearing: Counter[str] = Counter()
    totals: Counter[str] = Counter()
    for account in client.accounts():
        totals[account.branch] += account.balance_minor
        assert account.held_minor == 0, f"{account.account} holds {account.held} at rest"
        balance_minor = 0
        for entry in _entries(client, account.account):
            amount_minor = round(float(entry.amount) * 100)
            balance_minor += amount_minor
            assert round(float(entry.balance) * 100) == balance_minor, f"{account.account}: {entry}"
            if account.number == "clearing":
                clearing[entry.id] += amount_minor
            elif account.number != "cash":
                assert account.account not in posted[entry.id], f"{entry.id} is posted twice to {account.account}"
                posted[entry.id][account.account] = amount_minor
        assert balance_minor == account.balance_minor
    assert set(totals.values()) == {0}, totals
    assert set(clearing.values()) <= {0}, "clearing does not cancel, transfer by transfer"
    return dict(posted)


def _entries(client: Client, account: str) -> list[EntryView]:
    found: list[EntryView] = []
    cursor = ""
    while True:
        page = client.statement(account, newest_first=False, limit=1000, cursor=cursor)
        found += page.entries
        cursor = page.cursor
        if not cursor:
            return found


def verify_files(cluster: Cluster) -> None:
    """Stop every actor, then check chain, tables and sums of each file from the first row on."""
    for name in ("coordinator", *cluster.branches):
        assert cluster.stop(name) == 0, cluster.output(name)
        role = "coordinator" if name == "coordinator" else BRANCH
        flags = cluster.flags.get(name, ())
        data = Path(flags[flags.index("--data") + 1]) if "--data" in flags else cluster.data
        store = JournalStore.open(data / f"{name}.db", Identity(cluster="test", role=role, name=name), bytes(16))
        try:
            assert store.verify() > 0
        finally:
            store.close()
