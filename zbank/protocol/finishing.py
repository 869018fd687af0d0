"""From the decision to the end: every commit is sent until every participant has acked it (PROTOCOL P5, P10)."""

from __future__ import annotations

from collections.abc import Callable, Collection, Container, Mapping

from msgspec import Struct

from zbank.clock import Now
from zbank.domain.legs import branches_of
from zbank.protocol.attempts import RESEND_US, Waiter
from zbank.protocol.coordinator_state import OpenDecision
from zbank.protocol.machine import BUSY_RETRY_MS, NOTHING, Effect, Step, Timekeeper
from zbank.protocol.messages import COMMITTED, AnyMessage, Commit, Fault, GetTransfer, Outcome, Place, Position
from zbank.protocol.records import BranchAck, Ended, Ending

ACK_LIMIT_US = 1_000_000  #: how long "committed" waits for the acks (P10)
MAX_ENDINGS = 1_000  #: in one Ended record
REGISTER_AGAIN = Fault(code="hello_first", detail="register again: this coordinator has to know what you know")


class Finishing(Struct):
    """A decided commit whose acks are not all in. Times are monotonic microseconds."""

    decision: OpenDecision
    unacked: list[str]  #: branches, in order: a run repeats itself exactly
    acks: list[BranchAck]
    waiters: list[Waiter]
    request_us: int  #: -1 when the request was before a restart
    tell_us: int  #: when the client is told even though acks are missing
    next_us: int  #: when to send the decision again
    forced_us: int = -1  #: from the request to the decision on disk; -1 = not known


class Finisher:
    """All decisions that are not ended. None of what it knows is durable: a restart sends them all again."""

    def __init__(self, time: Timekeeper, unaware: Callable[[Collection[str]], Collection[str]]) -> None:
        """`unaware` gives those of some branches by whom a decision has to wait: `Directory.unaware`."""
        self._time = time
        self._unaware = unaware
        self._open: dict[bytes, Finishing] = {}
        self._endings: list[Ending] = []
        self._unforced: list[Finishing] = []  #: begun in this turn

    def __len__(self) -> int:
        return len(self._open)

    def get(self, id: bytes) -> Finishing | None:
        """The unfinished commit of a transfer."""
        return self._open.get(id)

    def withholds(self, id: bytes) -> bool:
        """This commit may be told to nobody yet."""
        finishing = self._open.get(id)
        return finishing is not None and bool(self._unaware(finishing.unacked))

    def untold(self, message: AnyMessage) -> Fault | None:
        """Why this question is not answered now; None when it is."""
        if not isinstance(message, GetTransfer) or not self.withholds(message.id):
            return None
        detail = "decided before another word on the coordinator's replica, which a branch has to hear first: ask again"
        return Fault(code="busy", detail=detail, retry_after_ms=BUSY_RETRY_MS)

    def count_of(self, branch: str) -> int:
        """How many commits this branch is not known to have applied."""
        return sum(branch in finishing.unacked for finishing in self._open.values())

    def begin(
        self,
        decision: OpenDecision,
        waiters: list[Waiter],
        request_us: int,
        now: Now,
        gone: Container[str] = (),
    ) -> list[Effect]:
        """Send a decision for the first time (in this term of office). Branches that are `gone` had acked it before."""
        unacked = [branch for branch in branches_of(decision.content.legs) if branch not in gone]
        if not unacked:
            self._endings.append(Ending(decision.id, ()))
            return []
        finishing = Finishing(
            decision=decision,
            unacked=unacked,
            acks=[],
            waiters=waiters,
            request_us=request_us,
            tell_us=now.mono_us + ACK_LIMIT_US,
            next_us=now.mono_us + RESEND_US,
        )
        self._open[decision.id] = finishing
        self._unforced.append(finishing)
        return self._commits(finishing, unacked)

    def acked(self, finishing: Finishing, branch: str, seq: int, position: Position | None, now: Now) -> Step:
        """A branch has applied it; the last ack tells the client."""
        if branch not in finishing.unacked:
            return NOTHING
        finishing.unacked.remove(branch)
        acked_us = now.mono_us - finishing.request_us if finishing.request_us >= 0 else -1
        epoch, turn_us = (position.epoch, position.turn_us) if position else (0, 0)
        finishing.acks.append(BranchAck(branch, epoch, seq, acked_us, turn_us))
        if finishing.unacked:
            return NOTHING
        id = finishing.decision.id
        del self._open[id]
        self._endings.append(Ending(id, tuple(finishing.acks), finishing.forced_us))
        return Step(None, self._tell(finishing, applied=True))

    def forced(self, mono_us: int) -> None:
        """What was begun in this turn is on disk since this moment."""
        for finishing in self._unforced:
            if finishing.request_us >= 0:
                finishing.forced_us = mono_us - finishing.request_us
        self._unforced.clear()

    def void(self, branch: str, decisions: Mapping[bytes, OpenDecision], now: Now) -> None:
        """This branch is another one now, which may lack the rows that its acks stood on: they count no more (R2)."""
        for finishing in self._open.values():
            if branch in branches_of(finishing.decision.content.legs) and branch not in finishing.unacked:
                finishing.unacked = sorted([*finishing.unacked, branch])
                finishing.acks = [ack for ack in finishing.acks if ack.branch != branch]
        for ending in [one for one in self._endings if any(ack.branch == branch for ack in one.acks)]:
            self._endings.remove(ending)
            acks = [ack for ack in ending.acks if ack.branch != branch]
            self.begin(decisions[ending.id], [], -1, now)
            self._open[ending.id].unacked, self._open[ending.id].acks = [branch], acks

    def for_branch(self, branch: str) -> list[Effect]:
        """Every decision that this branch has not acked."""
        return [effect for finishing in self._open.values() for effect in self._commits(finishing, {branch})]

    def due(self, up: set[str], now: Now) -> list[Effect]:
        """What to send again, and whom to tell that acks are missing. Who is unaware is to register again: it tells by that
        what it knows."""
        effects: list[Effect] = []
        unaware: dict[str, None] = {}
        for finishing in self._open.values():
            if now.mono_us >= finishing.next_us:
                finishing.next_us = now.mono_us + RESEND_US
                effects += self._commits(finishing, up)
                unaware |= dict.fromkeys(self._unaware(finishing.unacked))
            if finishing.waiters and now.mono_us >= finishing.tell_us and not self._unaware(finishing.unacked):
                effects += self._tell(finishing, applied=False)
                finishing.waiters = []
        return [*effects, *(Effect(name, 0, REGISTER_AGAIN) for name in unaware if name in up)]

    def end(self) -> Ended | None:
        """One record for what ended since the last one. Losing it costs only a resend, so it waits for others."""
        if not self._endings:
            return None
        ended = Ended(tuple(self._endings[:MAX_ENDINGS]))
        del self._endings[:MAX_ENDINGS]
        return ended

    def _commits(self, finishing: Finishing, branches: Collection[str]) -> list[Effect]:
        """The decision, for those of these branches that have not acked it; nothing while it has to wait."""
        if self._unaware(finishing.unacked):
            return []
        decision = finishing.decision
        commit = Commit(decision.txn, decision.id, decision.number)
        return [Effect(branch, 0, commit) for branch in finishing.unacked if branch in branches]

    def _tell(self, finishing: Finishing, *, applied: bool) -> list[Effect]:
        decision = finishing.decision
        places = tuple(Place(ack.branch, ack.seq) for ack in finishing.acks)
        outcome = Outcome(decision.id, COMMITTED, None, decision.number, self._time.last_us, False, applied, places)
        return [Effect(address, n, outcome) for address, n in finishing.waiters]
