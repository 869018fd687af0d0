"""From the request to the decision: votes are collected, and an attempt ends in one of its ways (PROTOCOL P3–P6).

None of what is remembered here is durable: a restart presumes abort.
"""

from __future__ import annotations

from collections.abc import Callable

from zbank.clock import Now
from zbank.domain.refusal import Refusal
from zbank.protocol.attempts import ABORTING, COLLECTING, RESEND_US, RETRY_US, WAITING, Attempt, Waiter, new_attempt
from zbank.protocol.coordinator_state import CoordinatorState, OpenDecision
from zbank.protocol.directory import enumerated
from zbank.protocol.finishing import Finisher
from zbank.protocol.machine import BUSY_RETRY_MS, CONFLICTING_ID, NOTHING, Effect, Step
from zbank.protocol.messages import (
    ABORTED,
    BUSY,
    COMMITTED,
    CONFLICT,
    KNOWN,
    OCCUPIED,
    REFUSED,
    STOPPED,
    STORAGE_FULL,
    VOID,
    YES,
    Abort,
    Ack,
    AnyMessage,
    Fault,
    Outcome,
    Position,
    StillPending,
    Transfer,
    Txn,
    Vote,
)
from zbank.protocol.records import BranchVote, Content, Decided
from zbank.protocol.wire import MAX_COMMIT_NUMBER


class Collector:
    """All transfers that are not decided."""

    def __init__(self, state: CoordinatorState, finisher: Finisher, last_n: int) -> None:
        self.last_n = last_n  #: of the txns of this epoch
        self.positions: dict[str, Position] = {}  #: where each branch's journal stood when it last spoke
        self._state = state
        self._finisher = finisher
        self._attempts: dict[bytes, Attempt] = {}

    def __len__(self) -> int:
        return len(self._attempts)

    def get(self, id: bytes) -> Attempt | None:
        """The undecided transfer of this id."""
        return self._attempts.get(id)

    def count_of(self, branch: str) -> int:
        """How many undecided transfers this branch has a leg of."""
        return sum(branch in attempt.branches for attempt in self._attempts.values())

    def begin(self, transfer: Transfer, content: Content, waiter: Waiter, now: Now) -> list[Effect]:
        """Ask all its branches for their votes."""
        attempt = new_attempt(transfer, content, self._new_txn(), waiter, now.mono_us)
        self._attempts[transfer.id] = attempt
        return self._send_prepares(attempt, now)

    def _new_txn(self) -> Txn:
        self.last_n += 1
        return Txn(self._state.name, self._state.epoch, self.last_n)

    def _send_prepares(self, attempt: Attempt, now: Now) -> list[Effect]:
        attempt.next_us = now.mono_us + RESEND_US
        prepare = attempt.prepare
        return [Effect(branch, 0, prepare) for branch in attempt.to_ask()]

    def voted(self, branch: str, vote: Vote, now: Now) -> Step:
        """Count a vote; the last yes decides, anything else ends the attempt one way or another."""
        attempt = self._attempts.get(vote.id)
        if attempt is None or attempt.txn != vote.txn or attempt.phase != COLLECTING or branch not in attempt.branches:
            return NOTHING  # a late or repeated vote; whoever is in doubt by it inquires
        return _VOTED.get(vote.answer, Collector._voted_busy)(self, attempt, branch, vote, now)

    def _voted_yes(self, attempt: Attempt, branch: str, vote: Vote, now: Now) -> Step:
        if attempt.is_conflicting and branch == attempt.home:
            return Step(None, self._give_up(attempt, CONFLICTING_ID))
        if max(self._state.number, vote.number) >= MAX_COMMIT_NUMBER:
            # A decision numbered above it would be refused by every branch, and all that shares a frame with it.
            detail = f"no commit number is left above {branch}'s {vote.number}: not done; its data needs an operator"
            return Step(None, self._give_up(attempt, Fault(code="branch_unavailable", detail=detail)))
        position = self.positions.get(branch)
        epoch, turn_us = (position.epoch, position.turn_us) if position else (0, 0)
        attempt.votes[branch] = BranchVote(branch, epoch, vote.seq, now.mono_us - attempt.request_us, turn_us)
        attempt.number = max(attempt.number, vote.number)
        if len(attempt.votes) < len(attempt.branches):
            first = attempt.home_first and branch == attempt.home
            return Step(None, self._send_prepares(attempt, now)) if first else NOTHING
        return self._decide_commit(attempt, now)

    def _decide_commit(self, attempt: Attempt, now: Now) -> Step:
        """The line of no return: from the force of this record on, the transfer is done (P5)."""
        state = self._state
        number = max(state.number, attempt.number) + 1
        id = attempt.transfer.id
        votes = tuple(attempt.votes.values())
        record = Decided(id, attempt.txn, number, attempt.content, votes, now.mono_us - attempt.request_us)
        del self._attempts[id]
        decision = OpenDecision(id, attempt.txn, number, attempt.content, state.seq + 1)
        return Step(record, self._finisher.begin(decision, attempt.waiters, attempt.request_us, now))

    def _voted_refused(self, attempt: Attempt, branch: str, vote: Vote, now: Now) -> Step:
        if vote.refusal is None:
            return NOTHING
        return self._refuse(attempt, vote.refusal, now, settled_at_home=vote.final and branch == attempt.home)

    def _refuse(self, attempt: Attempt, refusal: Refusal, now: Now, *, settled_at_home: bool) -> Step:
        """Abort with an outcome. It is told once the home branch has it forced (P6)."""
        others = [branch for branch in attempt.branches if branch != attempt.home]
        effects = [Effect(branch, 0, Abort(attempt.txn, attempt.transfer.id)) for branch in others]
        if settled_at_home:
            effects += self._tell(attempt, Outcome(attempt.transfer.id, ABORTED, refusal, 0, 0, False, True))
            return Step(None, effects)
        attempt.phase = ABORTING
        attempt.refusal = refusal
        effects.append(self._abort_at_home(attempt, now))
        return Step(None, effects)

    def _abort_at_home(self, attempt: Attempt, now: Now) -> Effect:
        attempt.next_us = now.mono_us + RESEND_US
        content = attempt.content
        abort = Abort(attempt.txn, attempt.transfer.id, attempt.refusal, content.digest, content.caller)
        return Effect(attempt.home, 0, abort)

    def _voted_known(self, attempt: Attempt, branch: str, vote: Vote, now: Now) -> Step:
        outcome = vote.outcome
        if outcome is None or not _is_final(outcome, vote.id):
            return NOTHING
        if outcome.refusal is not None and branch != attempt.home:
            return self._refuse(attempt, outcome.refusal, now, settled_at_home=False)
        return Step(None, self._give_up(attempt, outcome))

    def _voted_occupied(self, attempt: Attempt, branch: str, vote: Vote, now: Now) -> Step:
        other = vote.other
        if other is None:
            return NOTHING
        if self._is_dead(other):
            void = Effect(branch, 0, Abort(other, attempt.transfer.id))
            return Step(None, (void, Effect(branch, 0, attempt.prepare)))
        if branch != attempt.home:
            return NOTHING  # asked again until the deadline
        return self._try_later(attempt, now)

    def _try_later(self, attempt: Attempt, now: Now) -> Step:
        """This txn is void; the id may be tried under the next one."""
        effects = self._aborts(attempt)
        attempt.phase = WAITING
        attempt.votes = {}
        attempt.number = 0
        attempt.home_first = True
        attempt.is_conflicting = False
        attempt.next_us = now.mono_us + RETRY_US
        return Step(None, effects)

    def _voted_void(self, attempt: Attempt, branch: str, vote: Vote, now: Now) -> Step:
        return self._try_later(attempt, now)

    def _voted_conflict(self, attempt: Attempt, branch: str, vote: Vote, now: Now) -> Step:
        """The id stands for something else there, so this txn can only end. What is told, home says: it may know what
        became of this very transfer, and that was told before (P2, P7).
        """
        if branch != attempt.home and attempt.home not in attempt.votes:
            attempt.is_conflicting = True
            return NOTHING
        return Step(None, self._give_up(attempt, CONFLICTING_ID))

    def _voted_busy(self, attempt: Attempt, branch: str, vote: Vote, now: Now) -> Step:
        if vote.answer == STORAGE_FULL:
            detail = f"branch {branch} has no room on its disk: not done; send the same id again when there is room"
            return Step(None, self._give_up(attempt, Fault(code=STORAGE_FULL, detail=detail)))
        if vote.answer == STOPPED:
            detail = f"branch {branch} has stopped, its synchronous replica is away: not done; send the same id again later"
            return Step(None, self._give_up(attempt, Fault(code="branch_unavailable", detail=detail)))
        detail = f"branch {branch} has its hands full: not done; send the same id again in a moment"
        return Step(None, self._give_up(attempt, Fault(code=BUSY, detail=detail, retry_after_ms=BUSY_RETRY_MS)))

    def _aborts(self, attempt: Attempt) -> list[Effect]:
        return [Effect(branch, 0, Abort(attempt.txn, attempt.transfer.id)) for branch in attempt.branches]

    def _give_up(self, attempt: Attempt, answer: AnyMessage) -> list[Effect]:
        """End an attempt without giving the id an outcome. An Abort that gets lost is made up for by inquiry."""
        aborts = self._aborts(attempt) if attempt.phase == COLLECTING else []
        return aborts + self._tell(attempt, answer)

    def _tell(self, attempt: Attempt, answer: AnyMessage) -> list[Effect]:
        del self._attempts[attempt.transfer.id]
        return [Effect(address, n, answer) for address, n in attempt.waiters]

    def abort_acked(self, branch: str, ack: Ack, now: Now) -> Step:
        """The home branch has the tombstone, or knows better: now the client is told (P6)."""
        attempt = self._attempts.get(ack.id)
        if attempt is None or attempt.txn != ack.txn or attempt.phase != ABORTING or branch != attempt.home:
            return NOTHING
        if ack.outcome is not None:
            return Step(None, self._tell(attempt, ack.outcome)) if _is_final(ack.outcome, ack.id) else NOTHING
        if ack.other is None:
            return Step(None, self._tell(attempt, CONFLICTING_ID))
        if self._is_dead(ack.other):
            return Step(None, (Effect(branch, 0, Abort(ack.other, ack.id)), self._abort_at_home(attempt, now)))
        return NOTHING  # another coordinator's txn holds the id: asked again until the deadline

    def _is_dead(self, other: Txn) -> bool:
        """A txn of mine that holds an id which I am trying under another txn: I gave it up, or I would have joined it."""
        return other.coordinator == self._state.name and other.epoch <= self._state.epoch

    def inquired(self, branch: str, txn: Txn, id: bytes, now: Now) -> Effect | None:
        """The answer to an inquiry about an undecided txn; None when there is none of the id that binds."""
        attempt = self._attempts.get(id)
        if attempt is None:
            return None
        if attempt.txn == txn and attempt.phase == COLLECTING:
            return Effect(branch, 0, StillPending(txn, id))
        if attempt.phase == ABORTING and branch == attempt.home:
            return self._abort_at_home(attempt, now)
        return None

    def void(self, branch: str) -> None:
        """This branch is another one now, which may lack the rows that its votes stood on: it is asked again (R2)."""
        for attempt in self._attempts.values():
            attempt.votes.pop(branch, None)

    def for_branch(self, branch: str, now: Now) -> list[Effect]:
        """What a branch that has come back is asked again."""
        effects: list[Effect] = []
        for attempt in self._attempts.values():
            if attempt.phase == COLLECTING and branch in attempt.to_ask():
                effects.append(Effect(branch, 0, attempt.prepare))
            elif attempt.phase == ABORTING and branch == attempt.home:
                effects.append(self._abort_at_home(attempt, now))
        return effects

    def due(self, now: Now) -> list[Effect]:
        """What to send again, and what to give up."""
        effects: list[Effect] = []
        for attempt in list(self._attempts.values()):
            if now.mono_us >= min(attempt.next_us, attempt.deadline_us):
                effects += self._attempt_due(attempt, now)
        return effects

    def _attempt_due(self, attempt: Attempt, now: Now) -> list[Effect]:
        if now.mono_us >= attempt.deadline_us:
            missing = [attempt.home] if attempt.phase == ABORTING else attempt.to_ask()
            detail = f"no answer from {enumerated(missing)} in time: not done, or not known; send the same id again"
            return self._give_up(attempt, Fault(code="branch_unavailable", detail=detail))
        if attempt.phase == ABORTING:
            return [self._abort_at_home(attempt, now)]
        if attempt.phase == WAITING:
            attempt.phase = COLLECTING
            attempt.txn = self._new_txn()
        return self._send_prepares(attempt, now)


def _is_final(outcome: Outcome, id: bytes) -> bool:
    """Whether a client may be told this of its id: committed, or aborted for a reason, and nothing else (P6)."""
    if outcome.id != id:
        return False
    return outcome.status == (COMMITTED if outcome.refusal is None else ABORTED)


_VOTED: dict[str, Callable[[Collector, Attempt, str, Vote, Now], Step]] = {
    YES: Collector._voted_yes,
    REFUSED: Collector._voted_refused,
    KNOWN: Collector._voted_known,
    OCCUPIED: Collector._voted_occupied,
    VOID: Collector._voted_void,
    CONFLICT: Collector._voted_conflict,
    BUSY: Collector._voted_busy,
    STORAGE_FULL: Collector._voted_busy,
    STOPPED: Collector._voted_busy,
}
