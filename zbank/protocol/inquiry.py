"""Whom a branch asks about what it is in doubt of, and when; what it answers to another (PROTOCOL P8). It asks for ever; it
never guesses.

Nothing here is journaled: after a restart all that is prepared simply counts as fresh.
"""

from __future__ import annotations

from zbank.clock import Now
from zbank.domain.legs import branches_of
from zbank.protocol.branch_meta import PreparedTxn
from zbank.protocol.branch_state import BranchState
from zbank.protocol.machine import Effect, Sender
from zbank.protocol.messages import (
    COMMITTED,
    COORDINATOR,
    Abort,
    AnyMessage,
    Commit,
    InDoubt,
    Inquiry,
    Registered,
    StillPending,
    Txn,
)
from zbank.protocol.records import Aborted, CoordinatorSeen, Record

INQUIRE_AFTER_US = 2_000_000  #: prepared for longer: in doubt
INQUIRE_EVERY_US = 1_000_000
ASK_OTHERS_AFTER_US = 5_000_000  #: in doubt for longer and the coordinator not there: ask the other participants
MAX_INQUIRIES_A_ROUND = 1_000
MAX_IN_DOUBT_TOLD = 100


class Inquirer:
    """The memory of an inquiring branch: since when it knows each prepared txn, and which coordinators are there."""

    def __init__(self, state: BranchState, before: Inquirer | None = None) -> None:
        """`before` was thrown away (T2): what coordinators told of their office they tell no second time."""
        self._state = state
        self._told: dict[str, CoordinatorSeen] = dict(before._told) if before else {}  #: by coordinator: its office
        self._since_us: dict[Txn, int] = {}  #: monotonic
        self._asked_us: int = 0
        self._first = 0  #: where the next round begins, when one cannot hold all
        self._met: dict[str, int] = {}  #: coordinators that this branch is registered with: their epochs

    def due(self, now: Now) -> list[Effect]:
        """The inquiries to send now."""
        self._observe(now)
        if now.mono_us - self._asked_us < INQUIRE_EVERY_US:
            return []
        self._asked_us = now.mono_us
        doubtful = [held for held in self._state.prepared.values() if self._age_us(held, now) >= INQUIRE_AFTER_US]
        if len(doubtful) > MAX_INQUIRIES_A_ROUND:  # in turns: those of a dead coordinator must not hide the others
            first = self._first % len(doubtful)
            self._first = first + MAX_INQUIRIES_A_ROUND
            doubtful = (doubtful[first:] + doubtful[:first])[:MAX_INQUIRIES_A_ROUND]
        effects: list[Effect] = []
        for held in doubtful:
            if self._age_us(held, now) >= ASK_OTHERS_AFTER_US:
                effects += self.now(held)
            else:
                effects.append(self._ask(held.txn.coordinator, held))
        return effects

    def unrecorded(self, coordinator: str) -> CoordinatorSeen | None:
        """The office of this coordinator, when that is told and not in the journal: there was no room. It can decide nothing
        here until it is: else who is met later would not know that this branch had met the other (P11)."""
        told, mark = self._told.get(coordinator), self._state.coordinators.get(coordinator)
        return told if told and (mark is None or mark.epoch < told.epoch or mark.word < told.word) else None

    def to_record(self) -> CoordinatorSeen | None:
        """Some office that could not be recorded when it was told."""
        return next((told for told in map(self.unrecorded, self._told) if told is not None), None)

    def met(self, message: Registered) -> list[Effect]:
        """Registered with a coordinator. When it was away, or began a new term: ask about all it left in doubt here."""
        coordinator, epoch = message.coordinator, message.epoch
        self._told[coordinator] = CoordinatorSeen(coordinator, epoch, message.word)
        if self._met.get(coordinator, -1) >= epoch:
            return []
        self._met[coordinator] = epoch
        held = [held for held in self._state.prepared.values() if held.txn.coordinator == coordinator]
        return [self._ask(coordinator, txn) for txn in held]

    def now(self, held: PreparedTxn) -> list[Effect]:
        """The inquiries about one txn, out of turn: to its coordinator, and while that is not there to the others."""
        whom = [held.txn.coordinator]
        if held.txn.coordinator not in self._met:
            whom += [branch for branch in branches_of(held.content.legs) if branch != self._state.name]
        return [self._ask(name, held) for name in whom]

    def lost(self, coordinator: str) -> None:
        """A coordinator is silent: the other participants will be asked."""
        self._met.pop(coordinator, None)

    def in_doubt(self, now: Now) -> tuple[InDoubt, ...]:
        """Prepared for longer than the inquiry time, oldest first, bounded."""
        self._observe(now)
        found: list[InDoubt] = []
        for held in self._state.prepared.values():
            age_us = self._age_us(held, now)
            if age_us < INQUIRE_AFTER_US or len(found) >= MAX_IN_DOUBT_TOLD:
                break
            found.append(InDoubt(txn=held.txn, id=held.id, age_us=age_us))
        return tuple(found)

    def _ask(self, whom: str, held: PreparedTxn) -> Effect:
        return Effect(whom, 0, Inquiry(held.txn, held.id))

    def _age_us(self, held: PreparedTxn, now: Now) -> int:
        return now.mono_us - self._since_us[held.txn]

    def _observe(self, now: Now) -> None:
        since_us = self._since_us
        self._since_us = {held.txn: since_us.get(held.txn, now.mono_us) for held in self._state.prepared.values()}


def may_tell(sender: Sender, held: PreparedTxn | None) -> bool:
    """Decisions come from the coordinator; when this branch has asked, also from a participant of the txn in doubt (P8)."""
    if sender.role == COORDINATOR:
        return True
    return held is not None and sender.caller in branches_of(held.content.legs)


def answer(state: BranchState, message: Inquiry) -> tuple[AnyMessage, Record | None]:
    """What a branch says to another participant that is in doubt, and what it has to force before it may say so.

    A branch that never voted voids the txn, and so may answer abort. Only one that has met this coordinator in this term of
    office can say that it never voted: one that has not may stand in for the branch that was asked, with other data.
    """
    txn, id = message.txn, message.id
    held = state.prepared.get(id)
    if held is not None and held.txn == txn:
        return StillPending(txn, id), None
    settled = state.settled.get(id)
    if settled is not None and settled.outcome == COMMITTED and settled.txn == txn:
        return Commit(txn, id, settled.number), None
    if settled is not None or txn in state.tombstones:
        return Abort(txn, id), None
    mark = state.coordinators.get(txn.coordinator)
    if mark is None or mark.epoch < txn.epoch:
        return StillPending(txn, id), None
    return Abort(txn, id), Aborted(id, txn)
