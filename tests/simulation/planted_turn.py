"""Planted bugs of the turn, the store and the fold: T1–T6, R5, K1."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack, suppress
from typing import Any

import apsw
from msgspec.structs import replace as changed

from tests.simulation.planted import bug, dispatch, replace
from zbank.clock import Now
from zbank.errors import StorageFull
from zbank.protocol import branch_state, coordinator_state, needs, outcomes, participant, votes
from zbank.protocol.branch_meta import BranchMeta
from zbank.protocol.branch_state import BranchState
from zbank.protocol.codec import GENESIS
from zbank.protocol.coordinator import Coordinator
from zbank.protocol.coordinator_state import CoordinatorState
from zbank.protocol.fold import Posting
from zbank.protocol.machine import Effect, Machine, Timekeeper
from zbank.protocol.messages import Prepare, Transfer
from zbank.protocol.participant import Participant
from zbank.protocol.records import Decided
from zbank.storage import opening, sql
from zbank.storage.sqlite import JournalStore
from zbank.transport.engine import Engine, Incoming


@bug("effects before the force", "T1")
def _effects_first(stack: ExitStack) -> None:
    """What a turn decided leaves at once; the rows are forced with the next tick."""
    old_force = Engine._force

    def turn(self: Engine, batch: Sequence[Incoming], now: Now) -> list[Effect]:
        with ExitStack() as unforced:
            replace(unforced, Engine, "_force", lambda self: None)
            effects: list[Effect] = old_turn(self, batch, now)
            return effects

    def tick(self: Engine, now: Now) -> list[Effect]:
        old_force(self)
        effects: list[Effect] = old_tick(self, now)
        return effects

    def post(self: Engine) -> None:
        old_force(self)
        old_post(self)

    old_turn = replace(stack, Engine, "turn", turn)
    old_tick = replace(stack, Engine, "tick", tick)
    old_post = replace(stack, Engine, "post", post)


@bug("a turn decides on the state before the batch", "T1")
def _stale_state(stack: ExitStack) -> None:
    """All messages of a batch are decided before any record is applied."""

    def turn(self: Engine, batch: Sequence[Incoming], now: Now) -> list[Effect]:
        later: list[tuple[Any, int]] = []

        def journal(engine: Engine, record: Any, at_us: int) -> None:
            later.append((record, at_us))

        def force(engine: Engine) -> None:
            for record, at_us in later:
                old_journal(engine, record, at_us)
            later.clear()
            old_force(engine)

        with ExitStack() as late:
            old_journal = replace(late, Engine, "_journal", journal)
            old_force = replace(late, Engine, "_force", force)
            effects: list[Effect] = old_turn(self, batch, now)
            return effects

    old_turn = replace(stack, Engine, "turn", turn)


@bug("state kept after a failed commit", "T2")
def _state_kept(stack: ExitStack) -> None:
    def recover(self: Engine, thrown_away: Machine | None) -> Machine:
        if thrown_away is None:
            machine: Machine = old(self, None)
            return machine
        self._seq, self._chain = self._store.seq, self._store.chain
        thrown_away.fold.seq = self._seq  # type: ignore[attr-defined]
        return thrown_away

    old = replace(stack, Engine, "_recover", recover)


@bug("outcomes of a failed commit are told", "T2")
def _told_anyway(stack: ExitStack) -> None:
    def force(self: Engine) -> None:
        with suppress(StorageFull):
            old(self)

    old = replace(stack, Engine, "_force", force)


@bug("a chain begins anew after a rollback", "T5")
def _chain_anew(stack: ExitStack) -> None:
    def recover(self: Engine, thrown_away: Machine | None) -> Machine:
        machine: Machine = old(self, thrown_away)
        if thrown_away is not None:
            self._chain = GENESIS
        return machine

    old = replace(stack, Engine, "_recover", recover)


@bug("txn numbers begin anew after a rollback", "T2")
def _numbers_anew(stack: ExitStack) -> None:
    def init(self: Coordinator, state: CoordinatorState, **more: Any) -> None:
        old(self, state, **more)
        self._collector.last_n = 0

    old = replace(stack, Coordinator, "__init__", init)


@bug("commits are not synced", "T1")
def _not_synced(stack: ExitStack) -> None:
    lax = [("synchronous", "NORMAL", 1) if name == "synchronous" else (name, *rest) for name, *rest in opening._PRAGMAS]
    replace(stack, opening, "_PRAGMAS", tuple(lax))


@bug("what a failed sync left in the WAL is trusted", "T2")
def _doomed_wal(stack: ExitStack) -> None:
    def checkpoint(self: JournalStore, mode: int) -> None:
        if hasattr(self, "at_us") and not hasattr(self, "_opened"):
            self._opened = True  # type: ignore[attr-defined]
            return  # the one at the start
        old(self, mode)

    old = replace(stack, JournalStore, "_checkpoint", checkpoint)


@bug("settled ids are looked up in memory only", "T3")
def _ids_in_memory(stack: ExitStack) -> None:
    replace(stack, needs, "_id", lambda state, id, wanted: None)


@bug("void txns are looked up in memory only", "T3")
def _void_in_memory(stack: ExitStack) -> None:
    def prepare(state: BranchState, message: Prepare, wanted: Any) -> None:
        old(state, message, wanted)
        wanted.txns.discard(message.txn)

    old = dispatch(stack, needs._WANT, Prepare, prepare)


@bug("posting forgets what is prepared", "T4")
def _prepared_not_posted(stack: ExitStack) -> None:
    def posting(self: BranchState) -> Posting:
        found: Posting = old(self)
        found.opened = []
        return found

    old = replace(stack, BranchState, "posting", posting)


@bug("holds are lost at restart", "T4")
def _holds_not_posted(stack: ExitStack) -> None:
    def posting(self: BranchState) -> Posting:
        found: Posting = old(self)
        found.accounts = [changed(account, held_minor=0) for account in found.accounts]
        return found

    old = replace(stack, BranchState, "posting", posting)


@bug("posting forgets what was voided", "T4")
def _void_not_posted(stack: ExitStack) -> None:
    def posting(self: BranchState) -> Posting:
        found: Posting = old(self)
        found.tombstones = []
        return found

    old = replace(stack, BranchState, "posting", posting)


@bug("posting forgets how far coordinators were seen", "T4")
def _marks_not_posted(stack: ExitStack) -> None:
    def encode(meta: BranchMeta) -> bytes:
        return bytes(old(changed(meta, coordinators={}, number=0)))

    old = replace(stack, branch_state, "_encode_meta", encode)


@bug("a decision is posted as ended", "T4")
def _decision_closed(stack: ExitStack) -> None:
    def posting(self: CoordinatorState) -> Posting:
        found: Posting = old(self)
        found.opened = []
        return found

    old = replace(stack, CoordinatorState, "posting", posting)


@bug("decisions are forgotten at restart", "P5")
def _decisions_forgotten(stack: ExitStack) -> None:
    def decided(self: CoordinatorState, record: Any) -> None:
        old(self, record)
        self._new_settled.clear()

    old = dispatch(stack, coordinator_state._APPLY, Decided, decided)


@bug("no duplicate detection", "T6")
def _no_duplicates(stack: ExitStack) -> None:
    def transfer(self: Participant, sender: Any, n: int, message: Transfer, now: Now) -> Any:
        self.state.settled.pop(message.id, None)
        return old(self, sender, n, message, now)

    old = dispatch(stack, participant._DECIDE, Transfer, transfer)


@bug("an id with other content gets the first one's outcome", "T6")
def _content_ignored(stack: ExitStack) -> None:
    for module in (outcomes, participant, votes):
        replace(stack, module, "fits", lambda settled, digest, caller: settled.caller == caller)


@bug("the fence is not looked at", "R5")
def _no_fence(stack: ExitStack) -> None:
    open_fence = "UPDATE actor SET epoch = ?, seq = ?, chain = ? WHERE name = ? AND (epoch = ? OR 1) AND (seq = ? OR 1)"
    replace(stack, sql, "FENCE", open_fence)
    replace(stack, JournalStore, "_load", lambda self, statement, values: self._read(statement, values))


@bug("a process reads tables that another one has written", "R5")
def _foreign_tables(stack: ExitStack) -> None:
    replace(stack, JournalStore, "_load", lambda self, statement, values: self._read(statement, values))


@bug("a start takes the epoch of the one before", "P11")
def _same_epoch(stack: ExitStack) -> None:
    def take_office(self: JournalStore) -> int:
        self._commit(max(self.epoch, 1), self.seq, self.chain, ())
        return self.epoch

    replace(stack, JournalStore, "take_office", take_office)


@bug("the time on rows goes back with the wall clock", "K1")
def _time_goes_back(stack: ExitStack) -> None:
    replace(stack, Timekeeper, "read", lambda self, now: now.wall_us)


@bug("stopping on a full disk is an error", "T2")
def _close_on_full_disk(stack: ExitStack) -> None:
    """Found by the simulation: seed 1037."""

    def close(self: JournalStore) -> None:
        with suppress(apsw.ConnectionClosedError):
            if self._usable:
                self._connection.close(True)
        self._usable = False

    replace(stack, JournalStore, "close", close)
