"""A replica of the coordinator: the second place where everything that it decided stands (PROTOCOL R3).

Nobody stands above a coordinator who could say that a replica of it takes its place. So an operator asks the replica itself,
and it agrees only when nothing can be lost: when it is the synchronous one by its own rows, and has not heard the coordinator
for a while. From that moment on it acknowledges nothing, and without that the old coordinator can answer nobody.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

from zbank.clock import Now
from zbank.domain.account import Account
from zbank.protocol.coordinator_state import CoordinatorState
from zbank.protocol.coordinator_status import coordinator_status
from zbank.protocol.fold import Settled
from zbank.protocol.following import Follower, TakesOver
from zbank.protocol.gate import SILENT_US
from zbank.protocol.machine import EPOCH_LEAP, NOTHING, About, Effect, Sender, Step, Wanted, in_whose_name
from zbank.protocol.messages import (
    COORDINATOR,
    REPLICA,
    AckedBy,
    AnyMessage,
    Fault,
    Promote,
    Promoting,
    Registered,
    Rows,
    StatusInfo,
    Txn,
)
from zbank.protocol.records import Record


class CoordinatorReplica(Follower[CoordinatorState]):
    """The state machine of a coordinator's replica."""

    of_role: ClassVar[str] = COORDINATOR

    def __init__(
        self,
        name: str,
        endpoint: str,
        instance: bytes,
        state: CoordinatorState,
        chain: bytes,
        before: Follower[CoordinatorState] | None = None,
        *,
        can_lead: bool = True,
    ) -> None:
        """As `Follower`."""
        super().__init__(name, endpoint, instance, state, chain, before, can_lead=can_lead)
        was = before if isinstance(before, CoordinatorReplica) else None
        self._heard_us: int | None = was._heard_us if was is not None else None  #: the coordinator, when last; None = not yet
        self._promotion: TakesOver | None = was._promotion if was is not None else None

    def _word(self) -> AckedBy | None:
        return self.state.acks.get(self.state.name)

    def want(self, message: AnyMessage, wanted: Wanted) -> None:
        """It looks at nothing but what is in memory."""

    def load(self, settled: Iterable[Settled], tombstones: Iterable[Txn], accounts: Iterable[Account]) -> None:
        """Nothing is wanted."""

    def touches(self, record: Record) -> Iterable[str]:
        """A coordinator has no accounts."""
        return ()

    def decide(self, sender: Sender, n: int, message: AnyMessage, now: Now) -> Step:
        """What follows from a message. Once it is to lead, it takes no row, and acknowledges none."""
        if isinstance(message, Promote):
            return Step(None, (Effect(sender.address, n, self._promote(message, in_whose_name(sender, message).caller, now)),))
        if isinstance(message, Rows | Registered) and sender.role == COORDINATOR:
            self._heard_us = now.mono_us
            if self._promotion is not None:
                return NOTHING
        return super().decide(sender, n, message, now)

    def tick(self, now: Now) -> Step:
        """As every replica; or lead, a moment after whoever asked for it was told. Raises TakesOver."""
        if self._heard_us is None:
            self._heard_us = now.mono_us  # it may be there, and not have answered yet
        if self._promotion is not None:
            raise self._promotion
        return super().tick(now)

    def _promote(self, message: Promote, by: str, now: Now) -> Promoting | Fault:
        """An operator wants it to be the coordinator."""
        state = self.state
        if message.branch != state.name or message.instance != self._instance:
            detail = f"this is {self._name}, a replica of {state.name}, data {self._instance.hex()[-8:]}: another one is meant"
            return Fault(code="not_for_me", detail=detail)
        info = self.info(now)
        if self._promotion is not None:  # asked again
            return Promoting(info)
        if not info.acks:
            detail = f"{self._name} is not the synchronous replica of {state.name}, by its own rows: what it lacks nobody knows"
            return Fault(code="not_synchronous", detail=detail)
        if self._heard_us is None or now.mono_us - self._heard_us <= SILENT_US:
            detail = f"{state.name} was heard of a moment ago: stop it first, so that it cannot go on beside its successor"
            return Fault(code="coordinator_up", detail=detail)
        if not self._can_lead:
            secret = f"copy {state.name}.secret (and keys.toml) into its keys folder, and start it again"
            return Fault(code="cannot_lead", detail=f"replica {self._name} has no good key of {state.name}: {secret}")
        # Who is promoted by a later word has the later epoch: one that was replaced, and leads by mistake, has never the same,
        # and no branch that has met one of them takes the other for it.
        epoch = state.epoch + EPOCH_LEAP * info.acks
        self._promotion = TakesOver(epoch, by, f"{self._name} takes the place of {state.name}")
        return Promoting(info)

    def status(self, about: About, now: Now) -> StatusInfo:
        """How this replica does."""
        return coordinator_status(self.state, about, REPLICA, self._name, self.alarms.values(), len(self.state.open))
