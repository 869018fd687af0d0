"""What must hold of the books of a small bank whose branches are replaced: at every moment, and at rest."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from tests.simulation.failover_actor import Actor
from zbank.protocol.branch_state import BranchState
from zbank.protocol.codec import decode_record
from zbank.protocol.fold import Row
from zbank.protocol.records import AnyRecord, Committed, Decided, Redelivered


class Breach(AssertionError):
    """Something does not hold."""


def record_of(row: Row) -> AnyRecord:
    """What a row says."""
    return decode_record(row.body)


def check_books(actor: Actor) -> None:
    """The books of a branch, or of its replica, at every moment."""
    fold = actor.engine.machine.fold
    if not isinstance(fold, BranchState):
        return
    if fold.total_minor:
        raise Breach(f"the books of {actor.name} sum to {fold.total_minor}")
    below = [one.number for one in fold.book.accounts.values() if one.balance_minor < 0 and not one.is_system]
    if below:
        raise Breach(f"{actor.name}'s accounts {below} are below zero")


def judge_rest(branches: Iterable[Actor], boss: Actor) -> dict[bytes, Decided]:
    """All has come to rest: nothing is open, clearing is zero, and what was decided is done once at each of both branches.
    Gives what was decided."""
    decided = {record.id: record for record in map(record_of, boss.journal()) if isinstance(record, Decided)}
    clearing_minor = 0
    for actor in branches:
        fold = actor.engine.machine.fold
        assert isinstance(fold, BranchState)
        clearing_minor += fold.clearing_minor
        if fold.prepared or fold.promotion is not None:
            raise Breach(f"{actor.name} is not at rest: {len(fold.prepared)} prepared, promotion {fold.promotion}")
        done = Counter(
            record.id for record in map(record_of, actor.journal()) if isinstance(record, Committed | Redelivered)
        )
        if done != Counter(decided.keys()):
            raise Breach(f"{actor.name} has done {len(done)} of {len(decided)} decided transfers, or some twice")
        actor.engine.post()
        actor.store.verify()
    if clearing_minor:
        raise Breach(f"all clearing accounts together have {clearing_minor}")
    return decided
