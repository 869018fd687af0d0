"""What a settled id answers, for ever (PROTOCOL P6, P7)."""

from __future__ import annotations

from zbank.domain.refusal import Refusal
from zbank.protocol.fold import Settled
from zbank.protocol.machine import CONFLICTING_ID
from zbank.protocol.messages import COMMITTED, Fault, Outcome


def outcome_of(settled: Settled, *, replayed: bool) -> Outcome:
    """The outcome that a settled id has for good."""
    refusal = None if settled.outcome == COMMITTED else Refusal(settled.code, settled.detail)
    return Outcome(settled.id, settled.outcome, refusal, settled.number, settled.at_us, replayed, True)


def fits(settled: Settled, digest: bytes, caller: str) -> bool:
    """Whether the id was settled for this caller and this content (a cancel settles any content)."""
    return settled.caller == caller and settled.digest in (digest, b"")


def replay(settled: Settled, digest: bytes, caller: str) -> Outcome | Fault:
    """The answer to a request whose id is settled."""
    return outcome_of(settled, replayed=True) if fits(settled, digest, caller) else CONFLICTING_ID
