"""A load of transfers that goes on through faults: local and inter-branch ones, some of them refused, many in flight.

A customer who was told no outcome asks again with the same id until there is one; now and then one asks again who knows
the outcome already. All that is told is kept in the history.
"""

from __future__ import annotations

import random
import threading
import time
from array import array
from collections import deque
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import Future

from zbank import Client, TransferRequest, TransferResult
from zbank.apps.branch import PRELOAD
from zbank.apps.chaos.books import read_books
from zbank.apps.chaos.history import History, Legs, judge_answers, judge_books, unrest
from zbank.errors import ClientClosed, ZbankError

PACE_PER_SECOND = 400  #: requests sent at the most
MAX_OPEN = 4_000  #: transfers without an outcome: with so many nobody begins another one
ASK_AGAIN_S = 1.0  #: a customer who was told no outcome waits so long
REPEAT_SHARE = 0.05  #: of the requests are sent again by somebody who knows the outcome
AGAIN_SHARE = 0.75  #: of the requests are from those who ask again, as long as somebody waits for that
REFUSED_SHARE = 0.02  #: of the transfers are over more than anybody ever has
TOO_MUCH = 1_000_000  #: whole units
LARGE_SHARE = 0.2  #: go between the branches' last accounts and are over so much that it depends on the moment whether
LARGE = (500, 6_000)  #: they are refused: an outcome that was forgotten would be another one the next time
SETTLE_LIMIT_S = 30.0
LOOK_AGAIN_S = 0.1
LATE_S = 0.1  #: who is later than this does not hurry to catch up
BATCH = 4_096

NEVER_S = float("inf")


class Load:
    """Runs in a thread of its own from the start until `stop`."""

    def __init__(self, client: Client, branches: Sequence[str], seed: int, *, in_flight: int, timeout_s: float) -> None:
        """`client` stays the caller's; its requests time out after `timeout_s`. Each branch has the demo accounts."""
        self.history = History()
        self.latencies_s = array("d")  #: of the requests that were answered by an outcome
        self.calm_latencies_s = array("d")  #: of those among them that no fault disturbed
        self.calm_since_s = NEVER_S  #: monotonic; set by who makes the faults: what begins later is undisturbed
        self.stage = "moving money"  #: what it does just now
        self._client = client
        self._branches = tuple(branches)
        self._places = [f"{branch}/{number}" for branch in branches for number, _ in PRELOAD]
        self._large_places = [f"{branch}/{PRELOAD[-1][0]}" for branch in branches]
        self._chance = random.Random(seed)  # for whose turn it is, which also depends on time
        self._content = random.Random(seed)  # for what the n-th transfer is, which does not
        self._seed = seed
        self._timeout_s = timeout_s
        self._in_flight = in_flight
        self._free = threading.Semaphore(in_flight)
        self._ids: list[str] = []
        self._again: deque[tuple[float, str]] = deque()  # (monotonic time, id) of who asks again then; in this order
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="load", daemon=True)
        self._thread.start()

    # --- running ------------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        due_s = time.monotonic()
        while not self._stopping.is_set():
            now_s = time.monotonic()
            if due_s > now_s:
                self._stopping.wait(due_s - now_s)
                continue
            due_s = max(due_s, now_s - LATE_S) + 1 / PACE_PER_SECOND
            if not self._free.acquire(timeout=LOOK_AGAIN_S):
                continue
            id = self._next(now_s)
            if id is None or not self._send(id, now_s):
                self._free.release()

    def _next(self, now_s: float) -> str | None:
        """Whose turn it is; None when all wait."""
        chance = self._chance.random()
        waits = not self._again or self._again[0][0] > now_s
        if self._ids and chance < REPEAT_SHARE:
            return self._chance.choice(self._ids)
        full = self.history.open_count >= MAX_OPEN
        if not waits and (full or chance < AGAIN_SHARE):
            return self._again.popleft()[1]
        if full:
            return None
        id = f"{self._seed}/{len(self._ids)}"
        self._ids.append(id)
        self.history.ask(id, self._make_legs(), now_s)
        return id

    def _make_legs(self) -> Legs:
        chance = self._content
        sort = chance.random()
        if sort < LARGE_SHARE:
            *payers, payee = chance.sample(self._large_places, min(len(self._branches), chance.choice((2, 3))))
            paid = [(payer, chance.randint(*LARGE)) for payer in payers]  # either may refuse, home branch or not
            return (*((payer, -amount) for payer, amount in paid), (payee, sum(amount for _, amount in paid)))
        chosen = chance.sample(self._places, chance.choice((2, 2, 2, 3)))
        amounts = [chance.randint(1, 9) for _ in chosen[1:]]
        if sort < LARGE_SHARE + REFUSED_SHARE:
            amounts[0] = TOO_MUCH
        return ((chosen[0], -sum(amounts)), *zip(chosen[1:], amounts, strict=True))

    def _send(self, id: str, now_s: float) -> bool:
        try:
            future = self._client.submit_legs(self.history.asked[id], id=id)
        except ZbankError as error:
            self._take(id, error)
            return False
        future.add_done_callback(lambda future: self._done(id, now_s, future))
        return True

    def _done(self, id: str, sent_s: float, future: Future[TransferResult]) -> None:
        """Called by the client's thread."""
        error = future.exception()
        if error is not None and not isinstance(error, ZbankError):
            raise error
        now_s = time.monotonic()
        if self._take(id, error if error is not None else future.result()):
            self.latencies_s.append(now_s - sent_s)
            if sent_s >= self.calm_since_s:
                self.calm_latencies_s.append(now_s - sent_s)
        self._free.release()

    def _take(self, id: str, answer: TransferResult | ZbankError) -> bool:
        now_s = time.monotonic()
        if isinstance(answer, ClientClosed):  # the whole run was given up
            self._stopping.set()
            return False
        final = self.history.answer(id, answer, now_s)
        if not final and id not in self.history.told:
            self._again.append((now_s + ASK_AGAIN_S, id))
        return final

    def stop(self) -> None:
        """Send no more, and wait until what is out has ended. Raises ZbankError when that does not happen."""
        if self._stopping.is_set():
            return
        self._stopping.set()
        self._thread.join()
        end_s = time.monotonic() + self._timeout_s + SETTLE_LIMIT_S
        for _ in range(self._in_flight):
            if not self._free.acquire(timeout=max(0.0, end_s - time.monotonic())):
                raise RequestLost(f"a request did not end within its timeout of {self._timeout_s:g} s")

    # --- judging ------------------------------------------------------------------------------------------------------

    def settle(self, limit_s: float = SETTLE_LIMIT_S) -> None:
        """Stop, and ask for every id again until each has an outcome, or the time is over: told twice, it is the same."""
        self.stage = "waiting for the last answers"
        self.stop()
        self.stage = "asking for every transfer again"
        ask = [*self._ids]
        end_s = time.monotonic() + limit_s
        while ask:
            ask = [id for start in range(0, len(ask), BATCH) for id in self._ask_all(ask[start : start + BATCH])]
            if ask and time.monotonic() > end_s:
                return
            if ask:
                time.sleep(LOOK_AGAIN_S)

    def _ask_all(self, ids: Sequence[str]) -> list[str]:
        """Ask for these once more; gives those that got no outcome."""
        requests = [TransferRequest(id=id, legs=self.history.asked[id]) for id in ids]
        answers = self._client.transfer_many(requests)
        now_s = time.monotonic()
        return [id for id, answer in zip(ids, answers, strict=True) if not self.history.answer(id, answer, now_s)]

    def judge(self, others: Collection[str] = ()) -> list[str]:
        """Settle, wait until the bank is at rest, read its books: the findings. `others` are ids of other payments."""
        findings: list[str] = []
        try:
            self.settle()
            self.stage = "waiting until the bank is at rest"
            findings += (f"not at rest: {reason}" for reason in wait_at_rest(self._client, 1 + len(self._branches)))
            self.stage = "reading the books"
            findings += judge_books(self.history, read_books(self._client), others)
        except ZbankError as error:
            findings.append(f"the bank cannot be judged: {error.detail}")
        return judge_answers(self.history) + findings


class RequestLost(ZbankError):
    """The client never ended a request, which it promises to."""

    code = "request_lost"


def wait_at_rest(client: Client, count: int, limit_s: float = SETTLE_LIMIT_S) -> list[str]:
    """Wait until all `count` actors are there with nothing in flight, in doubt or alarming; [], or why it is not so.

    Raises ClientClosed.
    """
    reasons: list[str] = []

    def at_rest() -> bool:
        try:
            reasons[:] = unrest(client.status(), count)
        except ClientClosed:
            raise
        except ZbankError as error:
            reasons[:] = [error.detail]
        return not reasons

    wait_until(at_rest, limit_s)
    return reasons


def wait_until(condition: Callable[[], bool], limit_s: float) -> bool:
    """Ask again and again until it holds; False when it does not within the limit."""
    end_s = time.monotonic() + limit_s
    while not condition():
        if time.monotonic() > end_s:
            return False
        time.sleep(LOOK_AGAIN_S)
    return True
