"""All movements through a running bank: in order on each account, many accounts at once.

The rule: an account's next movement is sent only when the one before is known to be committed and applied. What is not
known (no answer in time) or not done (a server was busy) is sent again under the same id, which is always safe. A
refusal is final, and ends that account's replay: it means that the bank and the plan do not agree.
"""

from __future__ import annotations

import heapq
import queue
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Protocol

from examples.berka.mapping import CURRENCY, Step
from zbank.errors import NoAnswer, RemoteFault, Unreachable, ZbankError
from zbank.transport.views import TransferResult

DEFAULT_IN_FLIGHT = 384
RETRY_AFTER_S = 0.1
STALL_LIMIT_S = 60.0  #: so long without any movement done, the replay gives up
PROGRESS_EVERY_S = 1.0
_TRANSIENT = frozenset({"busy", "branch_unavailable", "storage_full", "out_of_office", "stopping"})


class Bank(Protocol):
    """What the replay needs of `zbank.Client`."""

    def submit_transfer(
        self, source: str, destination: str, amount: str, *, id: bytes, memo: str, currency: str, effective_on: str
    ) -> Future[TransferResult]:
        """Send one transfer and return at once."""


class ReplayStalled(ZbankError):
    """Nothing went on for STALL_LIMIT_S; says what the last answer was. The replay can be started again."""

    code = "replay_stalled"


@dataclass(slots=True)
class Replayed:
    """How a replay went."""

    done: int = 0  #: movements committed
    done_between_branches: int = 0  #: those of them that took two-phase commit
    seconds: float = 0.0
    retries: int = 0  #: requests sent again, for being unknown or not done
    failures: list[str] = field(default_factory=list)  #: one sentence for each account that could not go on


def replay(
    bank: Bank,
    chains: Sequence[Sequence[Step]],
    *,
    in_flight: int = DEFAULT_IN_FLIGHT,
    on_progress: Callable[[Replayed], None] = lambda _: None,
) -> Replayed:
    """Send every step of every chain and wait for all. Refusals become `failures`. Raises ReplayStalled."""
    return _Replay(bank, chains, in_flight, on_progress).run()


class _Replay:
    """The scheduler: each chain is ready, in flight, or waits to be sent again; never two of these at once."""

    def __init__(
        self, bank: Bank, chains: Sequence[Sequence[Step]], in_flight: int, on_progress: Callable[[Replayed], None]
    ) -> None:
        self._bank = bank
        self._chains = chains
        self._limit = in_flight
        self._on_progress = on_progress
        self._position = [0] * len(chains)  # index of each chain's next step
        self._ready = deque(index for index, chain in enumerate(chains) if chain)
        self._later: list[tuple[float, int]] = []  # heap of (when, chain)
        self._arrived: queue.SimpleQueue[tuple[int, Future[TransferResult]]] = queue.SimpleQueue()  # `_limit` at most
        self._flying = 0
        self._progress_s = self._stall_s = time.monotonic()
        self._last_trouble = "no answer at all"
        self.report = Replayed()

    def run(self) -> Replayed:
        started_s = time.monotonic()
        while self._ready or self._flying or self._later:
            self._wake()
            while self._ready and self._flying < self._limit:
                self._send(self._ready.popleft())
            self._receive()
            self.report.seconds = time.monotonic() - started_s
            self._tell()
        self._on_progress(self.report)
        return self.report

    def _wake(self) -> None:
        """Make ready what has waited long enough."""
        now_s = time.monotonic()
        while self._later and self._later[0][0] <= now_s:
            self._ready.append(heapq.heappop(self._later)[1])

    def _send(self, index: int) -> None:
        step = self._chains[index][self._position[index]]
        future = self._bank.submit_transfer(
            step.source,
            step.destination,
            step.amount,
            id=step.id,
            memo=step.memo,
            currency=CURRENCY,
            effective_on=step.effective_on,
        )
        self._flying += 1
        future.add_done_callback(lambda done: self._arrived.put((index, done)))  # runs in the client's thread

    def _receive(self) -> None:
        """Wait for an answer, or until something is due, and take in all that is there."""
        due_s = self._later[0][0] if self._later else time.monotonic() + PROGRESS_EVERY_S
        try:
            self._take(*self._arrived.get(timeout=max(0.0, min(due_s - time.monotonic(), PROGRESS_EVERY_S))))
            while True:
                self._take(*self._arrived.get_nowait())
        except queue.Empty:
            pass

    def _take(self, index: int, future: Future[TransferResult]) -> None:
        self._flying -= 1
        step = self._chains[index][self._position[index]]
        try:
            result = future.result()
        except (Unreachable, NoAnswer) as error:
            self._again(index, str(error))
        except RemoteFault as error:
            if error.remote_code in _TRANSIENT:
                self._again(index, f"{error.remote_code}: {error}", error.retry_after_ms / 1000)
            else:
                self._fail(step, f"{error.remote_code}: {error}")
        else:
            if result.status == "committed" and result.applied:
                self._advance(index, step)
            elif result.status == "aborted":
                self._fail(step, f"refused: {result.refusal}")
            else:
                self._again(index, result.reason or f"{result.status}, not yet applied at every branch")

    def _advance(self, index: int, step: Step) -> None:
        self.report.done += 1
        self.report.done_between_branches += step.between_branches
        self._stall_s = time.monotonic()
        self._position[index] += 1
        if self._position[index] < len(self._chains[index]):
            self._ready.append(index)

    def _again(self, index: int, trouble: str, after_s: float = 0.0) -> None:
        self.report.retries += 1
        self._last_trouble = trouble
        heapq.heappush(self._later, (time.monotonic() + max(after_s, RETRY_AFTER_S), index))

    def _fail(self, step: Step, reason: str) -> None:
        """The chain is neither ready nor waiting any more: it ends here."""
        self.report.failures.append(f"movement {step.trans_id} of {step.account} on {step.effective_on}: {reason}")

    def _tell(self) -> None:
        now_s = time.monotonic()
        if now_s - self._stall_s > STALL_LIMIT_S:
            raise ReplayStalled(
                f"nothing went on for {STALL_LIMIT_S:.0f} s, {self.report.done} movements are done; "
                f"the last answer was: {self._last_trouble}"
            )
        if now_s - self._progress_s >= PROGRESS_EVERY_S:
            self._progress_s = now_s
            self._on_progress(self.report)
