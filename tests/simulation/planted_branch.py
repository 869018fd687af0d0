"""Planted bugs of a branch: P1, P3, P4, P6–P9, P11."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any
from unittest.mock import patch

from tests.simulation.planted import bug, dispatch, replace
from zbank.clock import Now
from zbank.domain.book import Book
from zbank.domain.refusal import Refusal
from zbank.protocol import participant, votes
from zbank.protocol.branch_state import BranchState
from zbank.protocol.inquiry import Inquirer
from zbank.protocol.machine import Effect, Sender, Step
from zbank.protocol.messages import (
    ABORTED,
    BRANCH,
    COMMITTED,
    COORDINATOR,
    REFUSED,
    YES,
    Abort,
    Ack,
    Beat,
    Cancel,
    Commit,
    Inquiry,
    Outcome,
    Prepare,
    Registered,
    StillPending,
    Vote,
)
from zbank.protocol.participant import Participant
from zbank.protocol.records import Aborted, Committed, Record
from zbank.transport import access


@bug("a branch aborts on its own timeout while prepared", "P4")
def _impatient(stack: ExitStack) -> None:
    def tick(self: Participant, now: Now) -> Step:
        step: Step = old(self, now)
        doubtful = self._inquirer.in_doubt(now)
        if not doubtful:
            return step
        return Step(Aborted(doubtful[0].id, doubtful[0].txn), step.effects)

    old = replace(stack, Participant, "tick", tick)


@bug("holds are not counted", "P4")
def _holds_ignored(stack: ExitStack) -> None:
    def check(self: Book, amounts: Any, currency_code: str) -> Refusal | None:
        held = {number: account.held_minor for number, account in self.accounts.items()}
        for account in self.accounts.values():
            account.held_minor = 0
        try:
            refusal: Refusal | None = old(self, amounts, currency_code)
            return refusal
        finally:
            for number, held_minor in held.items():
                self.accounts[number].held_minor = held_minor

    old = replace(stack, Book, "check", check)


@bug("an overdraft limit is lowered below what is held", "P4")
def _limit_lowered(stack: ExitStack) -> None:
    def check_change(self: Book, number: str, status: str, overdraft_limit_minor: int) -> Refusal | None:
        account = self.accounts.get(number)
        held_minor = account.held_minor if account else 0
        if account:
            account.held_minor = 0
        try:
            refusal: Refusal | None = old(self, number, status, overdraft_limit_minor)
            return refusal
        finally:
            if account:
                account.held_minor = held_minor

    old = replace(stack, Book, "check_change", check_change)


@bug("a freeze stops a commit that was promised", "P4")
def _freeze_stops(stack: ExitStack) -> None:
    def commit(self: Participant, sender: Sender, n: int, message: Commit, now: Now) -> Step:
        held = self.state.prepared.get(message.id)
        frozen = held and any(self.state.book.accounts[number].status == "frozen" for number in held.amounts)
        if frozen and held and held.txn == message.txn:
            return Step(Aborted(message.id, message.txn), (Effect(sender.address, n, Ack(message.txn, message.id, 1)),))
        step: Step = old(self, sender, n, message, now)
        return step

    old = dispatch(stack, participant._DECIDE, Commit, commit)


@bug("the vote leaves and nothing is recorded", "P4")
def _empty_promise(stack: ExitStack) -> None:
    def first(state: BranchState, message: Prepare) -> tuple[Record | None, Vote]:
        _, vote = old(state, message)
        return None, vote

    old = replace(stack, votes, "first", first)


@bug("home refuses without a tombstone", "P6")
def _no_tombstone(stack: ExitStack) -> None:
    def first(state: BranchState, message: Prepare) -> tuple[Record | None, Vote]:
        record, vote = old(state, message)
        return (None, vote) if vote.answer == REFUSED else (record, vote)

    old = replace(stack, votes, "first", first)


@bug("a cancel does not see that the id is prepared", "P6")
def _blind_cancel(stack: ExitStack) -> None:
    def cancel(self: Participant, sender: Sender, n: int, message: Cancel, now: Now) -> Step:
        held = self.state.prepared.pop(message.id, None)
        try:
            step: Step = old(self, sender, n, message, now)
            return step
        finally:
            if held:
                self.state.prepared[message.id] = held

    old = dispatch(stack, participant._DECIDE, Cancel, cancel)


@bug("a stale Prepare prepares again", "P9")
def _stale_prepare(stack: ExitStack) -> None:
    def prepare(self: Participant, sender: Sender, n: int, message: Prepare, now: Now) -> Step:
        self.state.tombstones.discard(message.txn)
        step: Step = old(self, sender, n, message, now)
        return step

    old = dispatch(stack, participant._DECIDE, Prepare, prepare)


@bug("a settled id prepares again", "P9")
def _settled_prepares(stack: ExitStack) -> None:
    def prepare(self: Participant, sender: Sender, n: int, message: Prepare, now: Now) -> Step:
        self.state.settled.pop(message.transfer.id, None)
        step: Step = old(self, sender, n, message, now)
        return step

    old = dispatch(stack, participant._DECIDE, Prepare, prepare)


@bug("a second txn of an id takes the first one's place", "P3")
def _not_occupied(stack: ExitStack) -> None:
    def prepare(self: Participant, sender: Sender, n: int, message: Prepare, now: Now) -> Step:
        held = self.state.prepared.get(message.transfer.id)
        if held and held.txn != message.txn:
            vote = votes.plain(self.state, message, YES, seq=held.seq)
            return Step(None, (Effect(sender.address, n, vote),))
        step: Step = old(self, sender, n, message, now)
        return step

    old = dispatch(stack, participant._DECIDE, Prepare, prepare)


@bug("a decision is applied twice", "P9")
def _applied_twice(stack: ExitStack) -> None:
    def commit(self: Participant, sender: Sender, n: int, message: Commit, now: Now) -> Step:
        settled = self.state.settled.get(message.id)
        if settled and settled.txn == message.txn and settled.outcome == COMMITTED and sender.role == COORDINATOR:
            # What the first commit did, done again: the promise is still thought to be there.
            promised = self._promised.get(message.txn) if hasattr(self, "_promised") else None
            if promised is not None:
                self.state.prepared[message.id] = promised
                self.state.book.hold(promised.amounts)
                ack = Ack(message.txn, message.id, settled.seq)
                record = Committed(message.id, message.txn, message.number)
                return Step(record, (Effect(sender.address, n, ack),))
        held = self.state.prepared.get(message.id)
        if held is not None:
            self.__dict__.setdefault("_promised", {})[held.txn] = held
        step: Step = old(self, sender, n, message, now)
        return step

    old = dispatch(stack, participant._DECIDE, Commit, commit)


@bug("a late Abort undoes what the id came to", "P9")
def _late_abort(stack: ExitStack) -> None:
    def abort(self: Participant, sender: Sender, n: int, message: Abort, now: Now) -> Step:
        if message.refusal is not None:
            self.state.settled.pop(message.id, None)
        step: Step = old(self, sender, n, message, now)
        return step

    old = dispatch(stack, participant._DECIDE, Abort, abort)


@bug("an Abort of one txn frees another of the same id", "P3")
def _wrong_txn_freed(stack: ExitStack) -> None:
    def abort(self: Participant, sender: Sender, n: int, message: Abort, now: Now) -> Step:
        held = self.state.prepared.get(message.id)
        txn = held.txn if held and message.refusal is None else message.txn
        step: Step = old(self, sender, n, Abort(txn, message.id, message.refusal, message.digest, message.caller), now)
        return step

    old = dispatch(stack, participant._DECIDE, Abort, abort)


@bug("the ack of an abort leaves before its force", "P6")
def _early_ack(stack: ExitStack) -> None:
    def abort(self: Participant, sender: Sender, n: int, message: Abort, now: Now) -> Step:
        step: Step = old(self, sender, n, message, now)
        if message.refusal is None or not isinstance(step.record, Aborted):
            return step
        return Step(None, step.effects)  # the row is left to a later time, which never comes

    old = dispatch(stack, participant._DECIDE, Abort, abort)


@bug("an old epoch is accepted", "P11")
def _old_epoch(stack: ExitStack) -> None:
    def prepare(self: Participant, sender: Sender, n: int, message: Prepare, now: Now) -> Step:
        mark = self.state.coordinators.pop(message.txn.coordinator, None)
        try:
            step: Step = old(self, sender, n, message, now)
            return step
        finally:
            if mark is not None:
                self.state.coordinators[message.txn.coordinator] = mark

    old = dispatch(stack, participant._DECIDE, Prepare, prepare)


@bug("who voted yes answers abort to an inquiry", "P8")
def _false_abort(stack: ExitStack) -> None:
    def inquiry(self: Participant, sender: Sender, n: int, message: Inquiry, now: Now) -> Step:
        held = self.state.prepared.get(message.id)
        if held is not None and held.txn == message.txn:
            return Step(None, (Effect(sender.address, n, Abort(message.txn, message.id)),))
        step: Step = old(self, sender, n, message, now)
        return step

    old = dispatch(stack, participant._DECIDE, Inquiry, inquiry)


@bug("who never voted answers abort and keeps no tombstone", "P8")
def _light_abort(stack: ExitStack) -> None:
    def inquiry(self: Participant, sender: Sender, n: int, message: Inquiry, now: Now) -> Step:
        step: Step = old(self, sender, n, message, now)
        return Step(None, step.effects)

    old = dispatch(stack, participant._DECIDE, Inquiry, inquiry)


@bug("nobody inquires", "P8")
def _no_inquiry(stack: ExitStack) -> None:
    def met(self: Inquirer, message: Registered) -> list[Effect]:
        old(self, message)
        return []

    replace(stack, Inquirer, "due", lambda self, now: [])
    old = replace(stack, Inquirer, "met", met)


@bug("all prepared counts as commit", "P8")
def _guessed_commit(stack: ExitStack) -> None:
    """A branch in doubt that hears that another is prepared too commits on its own."""

    def pending(self: Participant, sender: Sender, n: int, message: StillPending, now: Now) -> Step:
        held = self.state.prepared.get(message.id)
        if held is None or held.txn != message.txn or sender.role == COORDINATOR:
            return Step()
        return Step(Committed(message.id, message.txn, self.state.number + 1))

    dispatch(stack, participant._DECIDE, StillPending, pending)


@bug("a branch tells what only the coordinator may: applied everywhere", "P10")
def _applied_everywhere(stack: ExitStack) -> None:
    """Found by the simulation: seed 21."""
    from zbank.protocol.outcomes import outcome_of

    replace(stack, votes, "outcome_of", lambda settled: outcome_of(settled, is_ended=True))


@bug("a branch that is not registered any more is answered its beats", "P10")
def _unregistered(stack: ExitStack) -> None:
    """Found by the simulation: seed 547. A late Register of an older connection cut the branch off."""
    kinds = access.UNTIL_BOUND[COORDINATOR, BRANCH] | {Beat}
    stack.enter_context(patch.dict(access.UNTIL_BOUND, {(COORDINATOR, BRANCH): kinds}))


@bug("commit numbers are not taken over", "C1")
def _number_kept(stack: ExitStack) -> None:
    def committed(self: BranchState, record: Committed) -> None:
        number = self.number
        old(self, record)
        self.number = number

    from zbank.protocol import branch_state

    old = dispatch(stack, branch_state._APPLY, Committed, committed)


@bug("a refusal is told by a branch that did not record it", "P1")
def _unrecorded_refusal(stack: ExitStack) -> None:
    def refuse(self: Participant, sender: Sender, n: int, *rest: Any) -> Step:
        step: Step = old(self, sender, n, *rest)
        assert any(isinstance(e.message, Outcome) and e.message.status == ABORTED for e in step.effects)
        return Step(None, step.effects)

    old = replace(stack, Participant, "_refuse", refuse)
