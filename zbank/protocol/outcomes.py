"""What a settled id answers, for ever (PROTOCOL P6, P7)."""

from __future__ import annotations

from zbank.domain.refusal import Refusal
from zbank.protocol.fold import Settled
from zbank.protocol.machine import CONFLICTING_ID
from zbank.protocol.messages import COMMITTED, Fault, Outcome


def outcome_of(settled: Settled, *, is_ended: bool = False) -> Outcome:
    """The outcome that a settled id has for good, as it is told again.

    `is_ended`: who answers knows that every branch has applied it. A branch knows so much of itself alone (P10).
    """
    refusal = None if settled.outcome == COMMITTED else Refusal(settled.code, settled.detail)
    applied = is_ended or settled.txn is None or settled.outcome != COMMITTED
    return Outcome(settled.id, settled.outcome, refusal, settled.number, settled.at_us, True, applied)


def fits(settled: Settled, digest: bytes, caller: str) -> bool:
    """Whether the id was settled for this caller and this content (a cancel settles any content)."""
    return settled.caller == caller and settled.digest in (digest, b"")


def replay(settled: Settled, digest: bytes, caller: str, *, is_ended: bool = False) -> Outcome | Fault:
    """The answer to a request whose id is settled; `is_ended` as in `outcome_of`."""
    return outcome_of(settled, is_ended=is_ended) if fits(settled, digest, caller) else CONFLICTING_ID
