"""The end of a branch, at the coordinator: from an operator's wish to the record that it has left the directory.

    asked ── nothing with it is under way ──▶ Retire is sent, again and again ──▶ the branch is closed ──▶ BranchLeft
      └───────────── time is over ──────────────────┴──▶ told; what comes later is taken in all the same

None of the wish is durable. What binds is the branch's own record: when an answer is lost, by a crash of either, the branch
says it again as soon as it registers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from msgspec import Struct
from msgspec.structs import replace

from zbank.clock import Now
from zbank.protocol.attempts import RESEND_US, Waiter
from zbank.protocol.coordinator_state import CoordinatorState
from zbank.protocol.directory import Directory
from zbank.protocol.machine import BUSY_RETRY_MS, NOTHING, Effect, Step
from zbank.protocol.messages import AnyMessage, BranchRetired, Fault, Retire, RetireAnswer, RetiredInfo
from zbank.protocol.records import BranchLeft

LEAVE_LIMIT_US = 5_000_000  #: from the wish to its answer
MAX_WAITERS = 100


class Leaving(Struct):
    """A branch that somebody wants to close. Times are monotonic microseconds."""

    by: str
    waiters: list[Waiter]
    deadline_us: int
    next_us: int = 0  #: when to send again
    is_sent: bool = False  #: the branch was asked: it may have closed


class Leaver:
    """The branches that are about to leave."""

    def __init__(
        self,
        state: CoordinatorState,
        directory: Directory,
        in_use: Callable[[str], int],
        label_us: Callable[[Now], int],
        before: Leaver | None,
    ) -> None:
        """`in_use`: how many transfers with a branch are not ended; `label_us`: the time of rows that are written now.
        `before` is of the machine that was thrown away (T2): a branch says only once that it is closed."""
        self._state = state
        self._directory = directory
        self._in_use = in_use
        self._label_us = label_us
        self._leaving: dict[str, Leaving] = {}
        self._closed: dict[str, str] = before._closed if before else {}  #: branches that said so: who retired them

    def refuse(self, names: Iterable[str]) -> Fault | None:
        """Why no transfer between these branches begins in this moment; None when it may."""
        for name in names:
            if name in self._leaving or name in self._closed:
                detail = f"branch {name} is about to be retired: nothing was done; send the same id again in a moment"
                return Fault(code="busy", detail=detail, retry_after_ms=BUSY_RETRY_MS)
        return None

    def ask(self, name: str, by: str, waiter: Waiter, now: Now) -> Step:
        """Somebody wants this branch to be closed."""
        known = self._state.retired.get(name)
        if known is not None:
            return _told([waiter], BranchRetired(known))
        fault = self._directory.unavailable((name,), now)
        if fault is not None:
            if fault.code in ("branch_unavailable", "busy"):
                detail = (
                    f"branch {name} is not connected, and only itself can say that it is empty: nothing was done; "
                    "start it, then ask again"
                )
                fault = replace(fault, detail=detail)
            return _told([waiter], fault)
        leaving = self._leaving.get(name)
        if leaving is None:
            leaving = self._leaving[name] = Leaving(by, [], now.mono_us + LEAVE_LIMIT_US)
        if waiter not in leaving.waiters:
            if len(leaving.waiters) >= MAX_WAITERS:
                detail = "too many ask for this at once"
                return _told([waiter], Fault(code="busy", detail=detail, retry_after_ms=BUSY_RETRY_MS))
            leaving.waiters.append(waiter)
        return Step(None, self._send(name, leaving, now))

    def answered(self, name: str, message: RetireAnswer, now: Now) -> Step:
        """The branch has spoken."""
        if name not in self._state.branches:
            return NOTHING
        if message.refusal is None:
            self._closed[name] = message.by
            return self._leave(name, now)
        leaving = self._leaving.pop(name, None)
        if leaving is None:
            return NOTHING
        return _told(leaving.waiters, Fault(code=message.refusal.code, detail=message.refusal.detail))

    def void(self, name: str) -> list[Effect]:
        """This branch is another one now: it may lack the row by which the former one was closed (R2). It is asked anew."""
        self._closed.pop(name, None)
        leaving = self._leaving.pop(name, None)
        return [] if leaving is None else [*_told(leaving.waiters, self._too_late(name, leaving)).effects]

    def due(self, now: Now) -> Step:
        """Send again, give up; note what is closed and has nothing under way any more."""
        for name in list(self._closed):
            if name not in self._state.branches:
                del self._closed[name]  # that is recorded
                continue
            step = self._leave(name, now)
            if step.record is not None:
                return step
        effects: list[Effect] = []
        for name, leaving in list(self._leaving.items()):
            if now.mono_us >= leaving.deadline_us:
                del self._leaving[name]
                effects += _told(leaving.waiters, self._too_late(name, leaving)).effects
            elif now.mono_us >= leaving.next_us:
                effects += self._send(name, leaving, now)
        return Step(None, effects)

    def _send(self, name: str, leaving: Leaving, now: Now) -> list[Effect]:
        """Ask the branch, unless something is under way with it: new transfers wait meanwhile, so that ends soon."""
        if self._in_use(name):
            return []
        leaving.is_sent = True
        leaving.next_us = now.mono_us + RESEND_US
        return [Effect(name, 0, Retire(leaving.by, self._state.epoch))]

    def _leave(self, name: str, now: Now) -> Step:
        """Out of the directory, once nothing has to be sent to it any more."""
        if self._in_use(name):
            return NOTHING
        by = self._closed[name]
        leaving = self._leaving.pop(name, None)
        was = self._state.branches[name]
        info = RetiredInfo(was.name, was.endpoint, was.currency, was.instance, by, self._label_us(now))
        told = _told(leaving.waiters if leaving else [], BranchRetired(info)).effects
        return Step(BranchLeft(name, by), [*told, *self._directory.without(name)])

    def _too_late(self, name: str, leaving: Leaving) -> Fault:
        if leaving.is_sent:
            detail = f"no answer from {name} in time: it is not known whether it is retired; ask again"
            return Fault(code="branch_unavailable", detail=detail)
        detail = f"{self._in_use(name)} transfers with branch {name} are not over: nothing was done; ask again in a moment"
        return Fault(code="branch_in_use", detail=detail)


def _told(waiters: Iterable[Waiter], answer: AnyMessage) -> Step:
    return Step(None, [Effect(address, n, answer) for address, n in waiters])
