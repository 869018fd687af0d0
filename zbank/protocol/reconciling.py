"""A promoted branch before it opens: it learns what was decided and what it has lost of it (PROTOCOL R2).

Its journal ends where the replica's did. Of what its former self did after that, two things are not lost: commits that a
coordinator decided. Each coordinator is asked for those whose vote or ack stood on a lost row, and they are posted whatever
the accounts say. Nobody is served before: a yes, a balance or an abort might contradict what was told.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

from zbank.clock import Now
from zbank.domain.book import branch_movements, net
from zbank.domain.legs import CLEARING
from zbank.protocol.branch_state import BranchState
from zbank.protocol.machine import BUSY_RETRY_MS, NOTHING, Effect, Sender, Step
from zbank.protocol.messages import (
    COMMITTED,
    AnyMessage,
    Commit,
    Fault,
    GetAccount,
    GetDecisions,
    Inquiry,
    Look,
    Redeliver,
    Redelivering,
    StillPending,
)
from zbank.protocol.records import Content, Reconciled, Redelivered

Decline = Callable[[Sender, int, AnyMessage, Fault], Collection[Effect]]

AGAIN_US = 2_000_000  #: an answer that does not come, or not whole, is asked for again


class Reconciler:
    """The memory of a branch that reconciles; with no promotion at hand it does nothing."""

    def __init__(self, state: BranchState, coordinator_count: int, before: Reconciler | None = None) -> None:
        """`coordinator_count`: so many must have told all. `before` was thrown away with what had come to it (T2): whom it
        had asked is asked again in time, from the start."""
        self._state = state
        self._count = coordinator_count
        self._looks: dict[str, Look] = {}  #: by coordinator: what is asked for
        self._came: dict[str, int] = {}  #: by coordinator: commits that came since it was asked
        # Also one that had told all, when it was that which could not be recorded.
        self._asked_us: dict[str, int] = {**dict.fromkeys(before._looks, 0), **before._asked_us} if before else {}

    @property
    def fault(self) -> Fault:
        """What customers are told meanwhile."""
        detail = (
            f"branch {self._state.name} has just been promoted and asks what was decided: not done, or not known; "
            "send the same id again in a moment"
        )
        return Fault(code="busy", detail=detail, retry_after_ms=BUSY_RETRY_MS)

    def put_off(self, sender: Sender, n: int, message: AnyMessage, decline: Decline) -> Step | None:
        """The answer to what has to wait until this branch is reconciled; None for what has not."""
        if self._state.promotion is None:
            return None
        if isinstance(message, Inquiry):  # a vote that this branch lacks may have been counted
            return Step(None, (Effect(sender.address, n, StillPending(message.txn, message.id)),))
        if isinstance(message, GetAccount):
            return Step(None, (Effect(sender.address, n, self.fault),))
        if isinstance(message, Commit):
            held = self._state.prepared.get(message.id)
            return NOTHING if held is None or held.txn != message.txn else None  # it is told with its legs, too
        declined = decline(sender, n, message, self.fault)
        return Step(None, declined) if declined else None

    def met(self, coordinator: str, now: Now) -> list[Effect]:
        """Registered with a coordinator: ask it, unless it has told all."""
        promotion = self._state.promotion
        if promotion is None or coordinator in promotion.reconciled:
            return []
        return [self._ask(coordinator, Look(), now)]

    def due(self, now: Now) -> list[Effect]:
        """Ask again, from the start: what is known already changes nothing."""
        if self._state.promotion is None:
            return []
        late = [name for name, asked_us in self._asked_us.items() if now.mono_us - asked_us >= AGAIN_US]
        return [effect for name in late for effect in self.met(name, now)]

    def lost(self, coordinator: str) -> None:
        """A coordinator is silent: it is asked when it registers this branch again."""
        self._asked_us.pop(coordinator, None)

    def _ask(self, coordinator: str, look: Look, now: Now) -> Effect:
        self._looks[coordinator] = look
        self._came[coordinator] = 0
        self._asked_us[coordinator] = now.mono_us
        return Effect(coordinator, 0, self._question(coordinator))

    def _question(self, coordinator: str) -> GetDecisions:
        promotion = self._state.promotion
        assert promotion is not None
        return GetDecisions(self._state.name, promotion.seq, self._looks[coordinator])

    def redeliver(self, coordinator: str, message: Redeliver) -> tuple[Step, str]:
        """A commit. Gives what to do, and an alarm: "" = none."""
        state = self._state
        if state.promotion is None:
            return NOTHING, ""
        self._came[coordinator] = self._came.get(coordinator, 0) + 1
        settled = state.settled.get(message.id)
        if settled is not None:
            is_same = settled.outcome == COMMITTED and settled.txn == message.txn
            return NOTHING, "" if is_same else f"{message.txn} was committed elsewhere and is {settled.outcome} here"
        content = Content(
            message.legs, message.currency, message.memo, message.effective_on, message.digest, message.caller
        )
        held = state.prepared.get(message.id)
        suspended: tuple[str, ...] = ()
        if held is None or held.txn != message.txn:
            amounts = net(branch_movements(message.legs, state.name))
            released = {} if held is None else held.amounts  # of a txn that was given up
            suspended = tuple(
                number
                for number, amount_minor in amounts.items()
                if number != CLEARING and not state.book.can_bear(number, amount_minor, released.get(number, 0))
            )
        return Step(Redelivered(message.id, message.txn, message.number, content, suspended)), ""

    def redelivering(self, coordinator: str, message: Redelivering, now: Now) -> Step:
        """The end of an answer: what came is counted, and either the rest is asked for or this coordinator is done with."""
        promotion = self._state.promotion
        if promotion is None or coordinator in promotion.reconciled:
            return NOTHING
        if coordinator not in self._asked_us or coordinator not in self._looks:
            return NOTHING
        if message.asked != self._question(coordinator):  # by who was promoted before this one, or by an earlier try
            return NOTHING
        if message.count != self._came[coordinator]:  # something was lost on the way
            return Step(None, (self._ask(coordinator, self._looks[coordinator], now),))
        if message.look is not None:
            return Step(None, (self._ask(coordinator, message.look, now),))
        del self._asked_us[coordinator]
        return Step(Reconciled(coordinator, is_last=len(promotion.reconciled) + 1 >= self._count))
