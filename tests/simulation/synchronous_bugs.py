"""Planted bugs of what a branch and its synchronous replica promise each other (R3): `synchronous` must catch every one."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import ExitStack, suppress
from typing import Any

from msgspec.structs import replace as changed

from tests.simulation import synchronous_fate, synchronous_judge
from tests.simulation.planted import Bug, bug, dispatch, replace
from zbank.clock import Now
from zbank.errors import StorageFull
from zbank.protocol import branch_state, coordinator_state, participant
from zbank.protocol.branch_meta import BranchMeta
from zbank.protocol.branch_state import BranchState
from zbank.protocol.coordinator_state import CoordinatorMeta, CoordinatorState
from zbank.protocol.directory import Directory
from zbank.protocol.following import Follower
from zbank.protocol.gate import Gate
from zbank.protocol.machine import Effect, Machine, Sender, Step
from zbank.protocol.messages import (
    AccountInfo,
    AckedBy,
    AnyMessage,
    Fault,
    GetFigures,
    GetRows,
    Lead,
    Position,
    Registered,
    ReplicaInfo,
    Vote,
)
from zbank.protocol.participant import Participant
from zbank.protocol.records import AcksBy, AcksNamed, BranchPromoted, Promoted
from zbank.protocol.replica import BranchReplica
from zbank.transport import engine
from zbank.transport.engine import Engine, Incoming
from zbank.transport.followers import Followers
from zbank.transport.looks import READS

BUGS: list[Bug] = []

# Not among them: how far the replica of the word before had come, kept for the next one's, and a promoted branch that keeps
# the word on itself. Neither does harm: by the next word there is a row of its own, on which all stands that leaves later,
# and the coordinator's word of the promotion comes with the first registration.


# --- what counts as an acknowledgement ---------------------------------------------------------------------------------


@bug("a replica acknowledges before its force", "R3", BUGS)
def force_late(stack: ExitStack) -> None:
    """What a turn of it takes is forced with the next tick."""
    old_force = Engine._force

    def turn(self: Engine, batch: Sequence[Incoming], now: Now) -> list[Effect]:
        with ExitStack() as unforced:
            if isinstance(self.machine, Follower):
                replace(unforced, Engine, "_force", lambda self: None)
            effects: list[Effect] = old_turn(self, batch, now)
            return effects

    def tick(self: Engine, now: Now) -> list[Effect]:
        with suppress(StorageFull):
            old_force(self)
        effects: list[Effect] = old_tick(self, now)
        return effects

    old_turn = replace(stack, Engine, "turn", turn)
    old_tick = replace(stack, Engine, "tick", tick)


@bug("an acknowledgement counts whatever its chain value", "R3", BUGS)
def _any_chain(stack: ExitStack) -> None:
    replace(stack, Followers, "_has", lambda self, held: held.seq <= self._store.seq)


@bug("a replica is known by its name alone", "R3", BUGS)
def _by_name(stack: ExitStack) -> None:
    """One that was begun anew acknowledges, and is believed."""

    def is_synchronous(self: Follower[Any]) -> bool:
        word = self._word()
        return word is not None and word.replica == self._name

    def ask(self: Followers, sender: Sender, n: int, message: GetRows, acks: AckedBy | None, now_us: int) -> list[Effect]:
        if message.held is not None and acks is not None and sender.caller == acks.replica:
            message = changed(message, held=changed(message.held, instance=acks.instance))
        effects: list[Effect] = old(self, sender, n, message, acks, now_us)
        return effects

    replace(stack, Follower, "_is_synchronous", property(is_synchronous))
    old = replace(stack, Followers, "ask", ask)


@bug("an acknowledgement counts from whoever acknowledged before", "R3", BUGS)
def _from_anybody(stack: ExitStack) -> None:
    def ask(self: Followers, sender: Sender, n: int, message: GetRows, acks: AckedBy | None, now_us: int) -> list[Effect]:
        if message.held is not None and acks is not None:
            sender = sender._replace(caller=acks.replica)
            message = changed(message, held=changed(message.held, instance=acks.instance))
        effects: list[Effect] = old(self, sender, n, message, acks, now_us)
        return effects

    old = replace(stack, Followers, "ask", ask)


@bug("at a start all rows count as acknowledged", "R3", BUGS)
def _acked_at_start(stack: ExitStack) -> None:
    def see(self: Followers, machine: Machine, now_us: int) -> Fault | None:
        is_first = "_seen" not in self.__dict__
        self.__dict__["_seen"] = True
        self._gate.heed(machine.acks, now_us)
        if is_first:
            self._gate.acked_seq = self._store.seq
        fault: Fault | None = old(self, machine, now_us)
        return fault

    old = replace(stack, Followers, "see", see)


@bug("a replica that is to lead acknowledges once more", "R3", BUGS)
def _acks_after_lead(stack: ExitStack) -> None:
    """It hears that it is the branch, and takes no row any more: but it still asks, as if it had taken those that come."""

    def decide(self: BranchReplica, sender: Sender, n: int, message: AnyMessage, now: Now) -> Step:
        if isinstance(message, Lead) and "_leads" not in self.__dict__:
            self.__dict__["_leads"] = True
            return Step()
        step: Step = old(self, sender, n, message, now)
        return Step(None, step.effects) if "_leads" in self.__dict__ else step

    old = replace(stack, BranchReplica, "decide", decide)


# --- what waits --------------------------------------------------------------------------------------------------------


def at_once(stack: ExitStack, *kinds: type[AnyMessage]) -> None:
    """Messages of these kinds wait for no replica."""

    def let_out(self: Followers, acks: AckedBy | None, effects: Collection[Effect], *about: Any) -> list[Effect]:
        leaving = [effect for effect in effects if isinstance(effect.message, kinds)]
        rest = [effect for effect in effects if not isinstance(effect.message, kinds)]
        return leaving + list(old(self, acks, rest, *about))

    old = replace(stack, Followers, "let_out", let_out)


@bug("votes wait for no replica", "R3", BUGS)
def _votes_at_once(stack: ExitStack) -> None:
    at_once(stack, Position, Vote)


@bug("an account is shown before its replica has it", "R3", BUGS)
def _accounts_at_once(stack: ExitStack) -> None:
    at_once(stack, AccountInfo)


@bug("what is read after the force waits for no replica", "R3", BUGS)
def _reads_at_once(stack: ExitStack) -> None:
    replace(stack, engine, "AT_ONCE", READS)


@bug("what a tick says waits for no replica", "R3", BUGS)
def _ticks_at_once(stack: ExitStack) -> None:
    def do(self: Engine, step: Step, now: Now) -> list[Effect]:
        waiting: list[Effect] = old(self, Step(step.record), now)
        return [*step.effects, *waiting]

    old = replace(stack, Engine, "_do", do)


@bug("what waits stands on the row before its own", "R3", BUGS)
def _a_row_early(stack: ExitStack) -> None:
    def let_out(self: Gate, acks: AckedBy | None, seq: int, effects: Collection[Effect], cost: int) -> list[Effect]:
        leaving: list[Effect] = old(self, acks, seq - 1, effects, cost)
        return leaving

    old = replace(stack, Gate, "let_out", let_out)


# --- who stops ---------------------------------------------------------------------------------------------------------


@bug("a branch whose replica is silent goes on alone", "R3", BUGS)
def alone_when_silent(stack: ExitStack) -> None:
    def let_out(self: Followers, acks: AckedBy | None, *rest: Any) -> list[Effect]:
        is_silent = acks is not None and acks.instance and self._gate._is_silent(rest[-1])
        leaving: list[Effect] = old(self, None if is_silent else acks, *rest)
        return leaving

    old = replace(stack, Followers, "let_out", let_out)
    replace(stack, Gate, "stopped", lambda *_: None)


@bug("a branch whose replica is silent does not say that it has stopped", "R3", BUGS)
def _says_nothing(stack: ExitStack) -> None:
    replace(stack, Gate, "stopped", lambda *_: None)


@bug("a branch that has stopped does not say how it does", "R3", BUGS)
def _status_waits(stack: ExitStack) -> None:
    replace(stack, engine, "AT_ONCE", (GetFigures, GetRows))


@bug("a full disk makes a branch forget what it was told", "T2", BUGS)
def _forgets_what_it_was_told(stack: ExitStack) -> None:
    def init(self: Participant, state: BranchState, system: Any, count: int = 1, wanted: str = "", before: Any = None) -> None:
        old(self, state, system, count, wanted, None)

    old = replace(stack, Participant, "__init__", init)


# --- the word ----------------------------------------------------------------------------------------------------------


@bug("any word on a replica makes it lossless", "R3", BUGS)
def _any_word(stack: ExitStack) -> None:
    def lossless(word: AckedBy | None, info: ReplicaInfo) -> bool:
        return word is not None and word.instance == info.instance

    for module in (synchronous_fate, synchronous_judge):
        replace(stack, module, "lossless", lossless)


@bug("a replica knows the word from the coordinator, not from its rows", "R3", BUGS)
def _word_by_hearsay(stack: ExitStack) -> None:
    def decide(self: BranchReplica, sender: Sender, n: int, message: AnyMessage, now: Now) -> Step:
        if isinstance(message, Registered):
            self.__dict__["_told"] = {info.name: info.acks for info in message.branches}
        step: Step = old_decide(self, sender, n, message, now)
        return step

    def info(self: Follower[Any], now: Now) -> ReplicaInfo:
        word = self.__dict__.get("_told", {}).get(self.state.name)
        told: ReplicaInfo = old_info(self, now)
        return changed(told, acks=word.generation) if word is not None and word.instance == self._instance else told

    old_decide = replace(stack, BranchReplica, "decide", decide)
    old_info = replace(stack, Follower, "info", info)


@bug("a branch follows an older word", "R3", BUGS)
def _older_word(stack: ExitStack) -> None:
    def registered(self: Participant, sender: Sender, n: int, message: Registered, now: Now) -> Step:
        self._told_acks = None  # whatever comes now is the latest
        step: Step = old_registered(self, sender, n, message, now)
        return step

    def tick(self: Participant, now: Now) -> Step:
        step: Step = old(self, now)
        told = self._told_acks
        return Step(AcksBy(told), step.effects) if told is not None and told != self.state.acks else step

    old_registered = dispatch(stack, participant._DECIDE, Registered, registered)
    old = replace(stack, Participant, "tick", tick)


@bug("a branch's posting forgets the word", "T4", BUGS)
def _word_not_posted(stack: ExitStack) -> None:
    def encode(meta: BranchMeta) -> bytes:
        return bytes(old(changed(meta, acks=None)))

    old = replace(stack, branch_state, "_encode_meta", encode)


@bug("the coordinator's posting forgets the words", "T4", BUGS)
def words_not_posted(stack: ExitStack) -> None:
    def encode(meta: CoordinatorMeta) -> bytes:
        return bytes(old(changed(meta, acks={})))

    old = replace(stack, coordinator_state, "_encode_meta", encode)


@bug("the config's replica is named again when the operator wanted none", "R3", BUGS)
def _named_again(stack: ExitStack) -> None:
    def wanted(self: Directory, info: ReplicaInfo, here: str) -> AcksNamed | None:
        acks = self._state.acks
        word = acks.pop(info.of, None)
        named: AcksNamed | None = old(self, info, here)
        if word is not None:
            acks[info.of] = word
        return named if word is None or not word.replica else None

    old = replace(stack, Directory, "wanted", wanted)


def outlived_by_words(stack: ExitStack, kind: type[BranchPromoted | Promoted]) -> None:
    """A record of this kind leaves the words as they are."""

    def apply(state: CoordinatorState, record: BranchPromoted | Promoted) -> None:
        acks = dict(state.acks)
        old(state, record)
        state.acks = acks

    old = dispatch(stack, coordinator_state._APPLY, kind, apply)


@bug("the word outlives a promotion", "R3", BUGS)
def _word_outlives(stack: ExitStack) -> None:
    outlived_by_words(stack, BranchPromoted)


# --- the others --------------------------------------------------------------------------------------------------------


@bug("an ordinary replica is given rows that are not acknowledged", "R3", BUGS)
def _all_rows(stack: ExitStack) -> None:
    replace(stack, Followers, "_up_to", lambda self, sender, acks: self._store.seq)


@bug("a former branch is let in", "R2", BUGS)
def _former_is_let_in(stack: ExitStack) -> None:
    replace(stack, Directory, "refuse", lambda *_: None)
