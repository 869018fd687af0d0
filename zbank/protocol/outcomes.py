"""What a settled id answers, for ever (PROTOCOL P6, P7)."""

from __future__ import annotations

from zbank.domain.refusal import Refusal
from zbank.protocol.branch_state import BranchState
from zbank.protocol.fold import Settled
from zbank.protocol.machine import CONFLICTING_ID
from zbank.protocol.messages import COMMITTED, Fault, Outcome, Place


def outcome_of(settled: Settled, *, is_ended: bool = False, branch: str = "") -> Outcome:
    """The outcome that a settled id has for good, as it is told again.

    `is_ended`: who answers knows that every branch has applied it. A branch knows so much of itself alone (P10).
    `branch`: whose journal settled it; "" = the coordinator's.
    """
    refusal = None if settled.outcome == COMMITTED else Refusal(settled.code, settled.detail)
    applied = is_ended or settled.txn is None or settled.outcome != COMMITTED
    places = (Place(branch, settled.seq),) if branch else ()
    return Outcome(settled.id, settled.outcome, refusal, settled.number, settled.at_us, True, applied, places)


def next_row(state: BranchState) -> tuple[Place, ...]:
    """The place of what a branch decides now."""
    return (Place(state.name, state.seq + 1),)


def fits(settled: Settled, digest: bytes, caller: str) -> bool:
    """Whether the id was settled for this caller and this content (a cancel settles any content)."""
    return settled.caller == caller and settled.digest in (digest, b"")


def replay(
    settled: Settled, digest: bytes, caller: str, *, is_ended: bool = False, branch: str = ""
) -> Outcome | Fault:
    """The answer to a request whose id is settled; `is_ended` and `branch` as in `outcome_of`."""
    return outcome_of(settled, is_ended=is_ended, branch=branch) if fits(settled, digest, caller) else CONFLICTING_ID
