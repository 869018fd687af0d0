"""The replay's scheduler against a bank that answers late, in any order, and often not at all."""

from __future__ import annotations

import random
import threading
from concurrent.futures import Future
from types import TracebackType

import pytest

from examples.berka import replay as replay_module
from examples.berka.mapping import Step
from examples.berka.replay import Replayed, ReplayStalled, replay
from zbank.domain.refusal import INSUFFICIENT_FUNDS, Refusal
from zbank.errors import RemoteFault, Unreachable, ZbankError
from zbank.ids import format_id
from zbank.transport.views import TransferResult

JOIN_LIMIT_S = 10.0
Answer = str | ZbankError  #: a status, "applying" for committed but not applied, or a fault


class MoodyBank:
    """Commits each id once; answers from a thread of its own, in random order, by its list of moods."""

    def __init__(self, seed: int, moods: list[Answer], refuse: frozenset[bytes] = frozenset()) -> None:
        self._random = random.Random(seed)
        self._moods = moods
        self._refuse = refuse
        self._waiting: list[tuple[bytes, str, Future[TransferResult]]] = []
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._answer_all)
        self.committed: dict[str, list[bytes]] = {}  #: ids by account, in order
        self.most_in_flight = 0
        self.faults: list[str] = []

    def submit_transfer(
        self, source: str, destination: str, amount: str, *, id: bytes, memo: str, currency: str, effective_on: str
    ) -> Future[TransferResult]:
        future: Future[TransferResult] = Future()
        account = destination if source.endswith("/cash") else source
        with self._changed:
            if any(other == account for _, other, _ in self._waiting):
                self.faults.append(f"two in flight on {account}")
            self._waiting.append((id, account, future))
            self.most_in_flight = max(self.most_in_flight, len(self._waiting))
            self._changed.notify()
        return future

    def _answer_all(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._closed)
                if self._closed:
                    return
                id, account, future = self._waiting.pop(self._random.randrange(len(self._waiting)))
            self._answer(id, account, future)

    def _answer(self, id: bytes, account: str, future: Future[TransferResult]) -> None:
        mood = self._random.choice(self._moods)
        name = format_id(id)
        if id in self._refuse:
            refusal = Refusal(INSUFFICIENT_FUNDS, "0.00 is available")
            future.set_result(TransferResult(name, "aborted", refusal))
            return
        done = self.committed.setdefault(account, [])
        if mood != "pending" and not isinstance(mood, Exception) and id not in done:
            done.append(id)  # "unknown" may well be done
        if isinstance(mood, Exception):
            future.set_exception(mood)
        elif mood == "applying":
            future.set_result(TransferResult(name, "committed"))
        else:
            future.set_result(TransferResult(name, mood, applied=mood == "committed", reason="asked too early"))

    def __enter__(self) -> MoodyBank:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join(JOIN_LIMIT_S)
        assert not self._thread.is_alive()


def make_chains(accounts: int, steps: int) -> list[tuple[Step, ...]]:
    """Deposits: so many accounts, with so many steps each."""
    return [
        tuple(
            Step(1000 * account + n, f"Prague/{account}", "Prague/cash", 100, 100 * (n + 1), "cash in", "1993-01-01")
            for n in range(steps)
        )
        for account in range(accounts)
    ]


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replay_module, "RETRY_AFTER_S", 0.001)


@pytest.mark.parametrize("seed", range(3))
def test_every_step_is_done_once_and_in_order_whatever_the_answers(seed: int) -> None:
    chains = make_chains(20, 15)
    moods: list[Answer] = ["committed"] * 4
    moods += ["unknown", "pending", "applying", RemoteFault("busy", "too much to do", 1), Unreachable("nobody there")]
    with MoodyBank(seed, moods) as bank:
        report = replay(bank, chains, in_flight=7)
    assert bank.faults == []
    assert bank.committed == {chain[0].account: [step.id for step in chain] for chain in chains}
    assert report.done == 300
    assert report.retries > 0
    assert report.failures == []
    assert 1 < bank.most_in_flight <= 7


def test_a_refusal_ends_that_account_alone_and_is_told() -> None:
    chains = make_chains(3, 5)
    with MoodyBank(1, ["committed"], refuse=frozenset({chains[1][2].id})) as bank:
        report = replay(bank, chains, in_flight=3)
    assert report.done == 5 + 2 + 5
    (failure,) = report.failures
    assert "movement 1002 of Prague/1" in failure
    assert INSUFFICIENT_FUNDS in failure


def test_a_fault_that_no_repeat_can_mend_is_told() -> None:
    with MoodyBank(1, [RemoteFault("idempotency_conflict", "this id stands for another transfer")]) as bank:
        report = replay(bank, make_chains(2, 2), in_flight=2)
    assert report.done == 0
    assert len(report.failures) == 2
    assert "idempotency_conflict" in report.failures[0]


def test_a_bank_that_stays_silent_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replay_module, "PROGRESS_EVERY_S", 0.01)

    def on_progress(report: Replayed) -> None:
        if report.retries:  # it has heard something: from here on it may lose its patience
            monkeypatch.setattr(replay_module, "STALL_LIMIT_S", 0.05)

    with MoodyBank(1, ["pending"]) as bank, pytest.raises(ReplayStalled, match=r"0 movements .*asked too early"):
        replay(bank, make_chains(2, 2), in_flight=2, on_progress=on_progress)


def test_two_phase_commits_are_counted_and_progress_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replay_module, "PROGRESS_EVERY_S", 0.0)
    told: list[int] = []
    chain = make_chains(1, 1)[0]
    abroad = (Step(9, "Prague/9", "Clearing/YZ", -100, 0, "transfer to YZ/77", "1993-01-01"),)

    def on_progress(report: Replayed) -> None:
        told.append(report.done)

    with MoodyBank(1, ["committed"]) as bank:
        report = replay(bank, [chain, abroad, ()], in_flight=1, on_progress=on_progress)
    assert (report.done, report.done_between_branches) == (2, 1)
    assert told[-1] == 2
