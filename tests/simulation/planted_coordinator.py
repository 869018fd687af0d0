"""Planted bugs of a coordinator: P1–P3, P5–P7, P10, P11, C1."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

from msgspec.structs import replace as changed

from tests.simulation.planted import bug, dispatch, replace
from zbank.clock import Now
from zbank.domain.legs import Leg, branches_of
from zbank.domain.refusal import Refusal
from zbank.protocol import attempts, collecting, coordinator
from zbank.protocol.attempts import Attempt
from zbank.protocol.collecting import Collector
from zbank.protocol.coordinator import Coordinator
from zbank.protocol.finishing import Finisher, Finishing
from zbank.protocol.forwarding import Forwarder
from zbank.protocol.machine import Effect, Sender, Step
from zbank.protocol.messages import (
    ABORTED,
    BUSY,
    KNOWN,
    OCCUPIED,
    STORAGE_FULL,
    YES,
    Abort,
    Fault,
    Inquiry,
    Outcome,
    Transfer,
    Txn,
    Vote,
)
from zbank.protocol.records import Decided

BAD_LUCK = Refusal("insufficient_funds", "somebody said something that is not yes")


@bug("abort presumed while collecting", "P5")
def _presumed(stack: ExitStack) -> None:
    replace(stack, Collector, "inquired", lambda self, branch, txn, id, now: None)


@bug("an inquiry is answered from memory", "P5")
def _answered_from_memory(stack: ExitStack) -> None:
    def want(self: Coordinator, message: Any, wanted: Any) -> None:
        if not isinstance(message, Inquiry):
            old(self, message, wanted)

    old = replace(stack, Coordinator, "want", want)


@bug("the decision is told and not recorded", "P5")
def _unrecorded(stack: ExitStack) -> None:
    def decide(self: Collector, attempt: Attempt, now: Now) -> Step:
        step: Step = old(self, attempt, now)
        return Step(None, step.effects)

    old = replace(stack, Collector, "_decide_commit", decide)


@bug("one yes is enough", "P3")
def _one_yes(stack: ExitStack) -> None:
    def yes(self: Collector, attempt: Attempt, branch: str, vote: Vote, now: Now) -> Step:
        step: Step = old(self, attempt, branch, vote, now)
        return step if attempt.transfer.id not in self._attempts else self._decide_commit(attempt, now)

    old = dispatch(stack, collecting._VOTED, YES, yes)


@bug("votes of an attempt that was given up are counted", "P3")
def _old_votes(stack: ExitStack) -> None:
    def later(self: Collector, attempt: Attempt, now: Now) -> Step:
        votes = dict(attempt.votes)
        step: Step = old(self, attempt, now)
        attempt.votes = votes
        return step

    old = replace(stack, Collector, "_try_later", later)


@bug("a vote counts for whatever txn the id has now", "P3")
def _any_txn(stack: ExitStack) -> None:
    def voted(self: Collector, branch: str, vote: Vote, now: Now) -> Step:
        attempt = self._attempts.get(vote.id)
        step: Step = old(self, branch, changed(vote, txn=attempt.txn) if attempt else vote, now)
        return step

    old = replace(stack, Collector, "voted", voted)


@bug("occupied treated as refused", "P3")
def _occupied_refused(stack: ExitStack) -> None:
    def occupied(self: Collector, attempt: Attempt, branch: str, vote: Vote, now: Now) -> Step:
        return self._refuse(attempt, BAD_LUCK, now, settled_at_home=True)

    dispatch(stack, collecting._VOTED, OCCUPIED, occupied)


@bug("known treated as refused", "P3")
def _known_refused(stack: ExitStack) -> None:
    def known(self: Collector, attempt: Attempt, branch: str, vote: Vote, now: Now) -> Step:
        return self._refuse(attempt, BAD_LUCK, now, settled_at_home=True)

    dispatch(stack, collecting._VOTED, KNOWN, known)


@bug("any txn that occupies the id is aborted", "P3")
def _kill_others(stack: ExitStack) -> None:
    def occupied(self: Collector, attempt: Attempt, branch: str, vote: Vote, now: Now) -> Step:
        if vote.other is None:
            return Step()
        return Step(None, (Effect(branch, 0, Abort(vote.other, vote.id)), Effect(branch, 0, attempt.prepare)))

    dispatch(stack, collecting._VOTED, OCCUPIED, occupied)


@bug("the transfer's id is used as the txn's", "P3")
def _id_as_txn(stack: ExitStack) -> None:
    def begin(self: Collector, transfer: Transfer, *rest: Any) -> list[Effect]:
        n = int.from_bytes(transfer.id[-7:], "big")
        with ExitStack() as fixed:
            replace(fixed, Collector, "_new_txn", lambda self: Txn(self._state.name, 1, n))
            return list(old(self, transfer, *rest))

    old = replace(stack, Collector, "begin", begin)


@bug("the tombstone is asked for at another branch than home", "P2")
def _elsewhere(stack: ExitStack) -> None:
    def elsewhere(legs: tuple[Leg, ...]) -> str:
        home = str(old(legs))
        return next(branch for branch in branches_of(legs) if branch != home)

    old = replace(stack, attempts, "home_branch", elsewhere)


@bug("told abort without a tombstone", "P6")
def _told_early(stack: ExitStack) -> None:
    def refuse(self: Collector, attempt: Attempt, refusal: Refusal, now: Now, *, settled_at_home: bool) -> Step:
        step: Step = old(self, attempt, refusal, now, settled_at_home=True)
        return step

    old = replace(stack, Collector, "_refuse", refuse)


@bug("busy is told as an outcome", "P6")
def _busy_is_outcome(stack: ExitStack) -> None:
    def busy(self: Collector, attempt: Attempt, branch: str, vote: Vote, now: Now) -> Step:
        return Step(None, self._give_up(attempt, Outcome(vote.id, ABORTED, BAD_LUCK, 0, 0, False, True)))

    dispatch(stack, collecting._VOTED, BUSY, busy)
    dispatch(stack, collecting._VOTED, STORAGE_FULL, busy)


@bug("a deadline is told as an outcome", "P6")
def _deadline_is_outcome(stack: ExitStack) -> None:
    def give_up(self: Collector, attempt: Attempt, answer: Any) -> list[Effect]:
        if isinstance(answer, Fault) and answer.code == "branch_unavailable":
            answer = Outcome(attempt.transfer.id, ABORTED, BAD_LUCK, 0, 0, False, True)
        return list(old(self, attempt, answer))

    old = replace(stack, Collector, "_give_up", give_up)


@bug("a request with other content joins the one that runs", "P7")
def _joins_anything(stack: ExitStack) -> None:
    def join(self: Coordinator, sender: Sender, n: int, running: Attempt | Finishing, digest: bytes) -> Step:
        content = running.content if isinstance(running, Attempt) else running.decision.content
        step: Step = old(self, sender, n, running, content.digest)
        return step

    old = replace(stack, Coordinator, "_join", join)


@bug("asked twice, a transfer runs twice", "P7")
def _runs_twice(stack: ExitStack) -> None:
    def transfer(self: Coordinator, sender: Sender, n: int, message: Transfer, now: Now) -> Step:
        with ExitStack() as blind:
            replace(blind, Collector, "get", lambda self, id: None)
            replace(blind, Finisher, "get", lambda self, id: None)
            self.state.settled.pop(message.id, None)
            step: Step = old(self, sender, n, message, now)
            return step

    old = dispatch(stack, coordinator._DECIDE, Transfer, transfer)


@bug("told as applied before the acks", "P10")
def _told_before_acks(stack: ExitStack) -> None:
    def begin(self: Finisher, decision: Any, waiters: Any, request_us: int, now: Now) -> list[Effect]:
        effects: list[Effect] = old(self, decision, waiters, request_us, now)
        told: list[Effect] = self._tell(self._open[decision.id], applied=True)
        return effects + told

    old = replace(stack, Finisher, "begin", begin)


@bug("one ack ends a transfer", "P5")
def _one_ack(stack: ExitStack) -> None:
    def acked(self: Finisher, finishing: Finishing, branch: str, *rest: Any) -> Step:
        finishing.unacked[:] = [branch] if branch in finishing.unacked else []
        step: Step = old(self, finishing, branch, *rest)
        return step

    old = replace(stack, Finisher, "acked", acked)


@bug("decisions are not sent again", "P5")
def _never_again(stack: ExitStack) -> None:
    replace(stack, Finisher, "due", lambda self, up, now: [])
    replace(stack, Finisher, "for_branch", lambda self, branch: [])


@bug("commit numbers ignore the votes", "C1")
def _own_numbers(stack: ExitStack) -> None:
    def decide(self: Collector, attempt: Attempt, now: Now) -> Step:
        attempt.number = 0
        step: Step = old(self, attempt, now)
        assert isinstance(step.record, Decided)
        return step

    old = replace(stack, Collector, "_decide_commit", decide)


@bug("a forwarded transfer is told done when it is handed on", "P1")
def _forwarded_done(stack: ExitStack) -> None:
    def forward(self: Forwarder, sender: Sender, n: int, message: Transfer, *rest: Any) -> Step:
        step: Step = old(self, sender, n, message, *rest)
        done = Outcome(message.id, "committed", None, 1, 0, False, True)
        return Step(None, (*step.effects, Effect(sender.address, n, done)))

    old = replace(stack, Forwarder, "forward", forward)
