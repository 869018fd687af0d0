"""Planted bugs of what a coordinator and its replica promise (R3, P11): `office` must catch every one."""

from __future__ import annotations

from collections.abc import Collection
from contextlib import ExitStack
from typing import Any

from msgspec.structs import replace as changed

from tests.simulation.planted import Bug, bug, dispatch, replace
from tests.simulation.synchronous_bugs import (
    alone_when_silent,
    at_once,
    force_late,
    outlived_by_words,
    words_not_posted,
)
from zbank.clock import Now
from zbank.protocol import coordinator, coordinator_replica, coordinator_state, participant
from zbank.protocol.coordinator import Coordinator
from zbank.protocol.coordinator_replica import CoordinatorReplica
from zbank.protocol.coordinator_state import CoordinatorState
from zbank.protocol.directory import Directory
from zbank.protocol.following import Follower
from zbank.protocol.machine import Effect, Machine, Sender, Step
from zbank.protocol.messages import (
    Abort,
    AnyMessage,
    Commit,
    Fault,
    Inquiry,
    Outcome,
    Prepare,
    Promote,
    Registered,
    TokenInfo,
)
from zbank.protocol.participant import Participant
from zbank.protocol.records import Promoted
from zbank.transport.engine import Engine
from zbank.transport.followers import Followers

BUGS: list[Bug] = []

# Not among them: a replica that knows itself by its name alone. One that was begun anew has then fetched all that was ever told
# before it knows that word, and the coordinator waits for the other instance, and tells nothing more. And one that still
# acknowledges when it has agreed to lead: its connection has been silent for longer than any lasts, so that no rows come by it.


# --- the coordinator ---------------------------------------------------------------------------------------------------


@bug("a coordinator waits for no replica", "R3", BUGS)
def _open_gate(stack: ExitStack) -> None:
    replace(stack, Coordinator, "acks", property(lambda self: None))


bug("a coordinator whose replica is silent goes on alone", "R3", BUGS)(alone_when_silent)


@bug("decisions wait for no replica", "R3", BUGS)
def _decisions_at_once(stack: ExitStack) -> None:
    at_once(stack, Commit, Outcome)


@bug("tokens wait for no replica", "R3", BUGS)
def _tokens_at_once(stack: ExitStack) -> None:
    at_once(stack, TokenInfo)


@bug("a coordinator that has stopped answers heartbeats", "R3", BUGS)
def _beats(stack: ExitStack) -> None:
    """Whoever is there stays there."""
    replace(stack, Engine, "has_stopped", property(lambda self: False))


@bug("a coordinator that has stopped takes other replicas in", "R3", BUGS)
def _takes_replicas_in(stack: ExitStack) -> None:
    _takes_in(stack, while_behind=False)


@bug("a coordinator that is behind takes replicas in", "P11", BUGS)
def _takes_replicas_in_behind(stack: ExitStack) -> None:
    _takes_in(stack, while_behind=True)


def _takes_in(stack: ExitStack, *, while_behind: bool) -> None:
    def turned_away(self: Followers, sender: Sender, n: int, machine: Machine, fault: Fault | None) -> Collection[Effect]:
        told: Collection[Effect] = old(self, sender, n, machine, fault)
        return () if (machine.closed is not None) == while_behind else told

    old = replace(stack, Followers, "turned_away", turned_away)


@bug("who was turned away is not called back", "P11", BUGS)
def _not_called_back(stack: ExitStack) -> None:
    replace(stack, Directory, "call_back", lambda self: [])


@bug("a coordinator goes on alone at a word, whoever is there", "R3", BUGS)
def _takes_the_word(stack: ExitStack) -> None:
    replace(stack, Directory, "_may_be_replaced", lambda self: False)


bug("the coordinator's posting forgets the words", "T4", BUGS)(words_not_posted)


# --- its replica -------------------------------------------------------------------------------------------------------


bug("a coordinator's replica acknowledges before its force", "R3", BUGS)(force_late)


@bug("a replica leads though it is not the synchronous one", "R3", BUGS)
def _any_leads(stack: ExitStack) -> None:
    def promote(self: CoordinatorReplica, message: Promote, by: str, now: Now) -> AnyMessage:
        with ExitStack() as lied:
            replace(lied, Follower, "_is_synchronous", True)
            answer: AnyMessage = old(self, message, by, now)
            return answer

    old = replace(stack, CoordinatorReplica, "_promote", promote)


@bug("a replica leads while it hears the coordinator", "R3", BUGS)
def _too_early(stack: ExitStack) -> None:
    replace(stack, coordinator_replica, "SILENT_US", -1)


# --- who takes the place -----------------------------------------------------------------------------------------------


@bug("the epoch of a successor does not leap", "R3", BUGS)
def _no_leap(stack: ExitStack) -> None:
    """The former one is started again, and has the same."""
    replace(stack, coordinator_replica, "EPOCH_LEAP", 0)


@bug("a successor waits for itself", "R3", BUGS)
def _waits_for_itself(stack: ExitStack) -> None:
    outlived_by_words(stack, Promoted)


@bug("a successor forgets whose place it took", "P11", BUGS)
def _forgets_whose_place(stack: ExitStack) -> None:
    def promoted(state: CoordinatorState, record: Promoted) -> None:
        old(state, record)
        state.took_over = None

    old = dispatch(stack, coordinator_state._APPLY, Promoted, promoted)


@bug("a coordinator that is behind serves", "P11", BUGS)
def _never_behind(stack: ExitStack) -> None:
    replace(stack, Directory, "_why_behind", lambda self, message: "")


@bug("a successor knows no decision that it has not made", "P5", BUGS)
def _aborts_what_it_does_not_know(stack: ExitStack) -> None:
    def resume(self: Coordinator, now: Now) -> None:
        took_over = self.state.took_over
        kept = self.state.open
        if took_over is not None:
            self.state.open = {id: one for id, one in kept.items() if one.seq > took_over.seq}
        old_resume(self, now)
        self.state.open = kept

    def inquiry(self: Coordinator, sender: Sender, n: int, message: Inquiry, now: Now) -> Step:
        took_over = self.state.took_over
        if took_over is not None and message.txn.epoch <= took_over.epoch:
            return coordinator._told(sender, n, Abort(message.txn, message.id))
        step: Step = old(self, sender, n, message, now)
        return step

    old_resume = replace(stack, Coordinator, "resume", resume)
    old = dispatch(stack, coordinator._DECIDE, Inquiry, inquiry)


# --- the branches ------------------------------------------------------------------------------------------------------


@bug("a branch does not remember a coordinator's word on itself", "P11", BUGS)
def _word_unknown(stack: ExitStack) -> None:
    def registered(self: Participant, sender: Sender, n: int, message: Any, now: Now) -> Step:
        step: Step = old(self, sender, n, changed(message, word=0), now)
        return step

    old = dispatch(stack, participant._DECIDE, Registered, registered)


@bug("a branch votes for a former coordinator", "P11", BUGS)
def _votes_for_former(stack: ExitStack) -> None:
    def prepare(self: Participant, sender: Sender, n: int, message: Any, now: Now) -> Step:
        marks = self.state.coordinators
        self.state.coordinators = {}
        try:
            step: Step = old(self, sender, n, message, now)
            return step
        finally:
            self.state.coordinators = marks

    old = dispatch(stack, participant._DECIDE, Prepare, prepare)
