"""How a branch, or a replica of one, does: what both tell of the same state."""

from __future__ import annotations

from collections.abc import Iterable

from zbank.domain.legs import SUSPENSE
from zbank.domain.money import currency, format_amount
from zbank.protocol import retiring
from zbank.protocol.branch_state import BranchState
from zbank.protocol.machine import About
from zbank.protocol.messages import InDoubt, StatusInfo


def branch_status(
    state: BranchState,
    about: About,
    role: str,
    name: str,
    alarms: Iterable[str],
    in_doubt: tuple[InDoubt, ...] = (),
) -> StatusInfo:
    """The status of who has this state."""
    return StatusInfo(
        role=role,
        name=name,
        cluster=about.cluster,
        instance=about.instance,
        epoch=state.epoch,
        seq=state.seq,
        number=state.number,
        uptime_us=about.uptime_us,
        accounts=state.account_count,
        total_minor=state.total_minor,
        clearing_minor=state.clearing_minor,
        unposted=state.unposted,
        in_flight=len(state.prepared),
        in_doubt=in_doubt,
        journal_bytes=about.journal_bytes,
        alarms=(*alarms, *_lasting(state), *retiring.notice(state)),
        version=about.version,
        customers_minor=state.customers_minor,
        acks=state.acks,
        stopped=about.stopped,
    )


def _lasting(state: BranchState) -> Iterable[str]:
    """What stays wrong until somebody sets it right."""
    if state.suspense_minor:
        unit = currency(state.book.currency_code)
        amount = format_amount(state.suspense_minor, unit)
        suspense = f"{state.name}/{SUSPENSE}"
        sides = f"{suspense} ACCOUNT" if state.suspense_minor > 0 else f"ACCOUNT {suspense}"
        settled = f"zbank transfer {sides} {format_amount(abs(state.suspense_minor), unit)}"
        yield f"{suspense} has {amount} {unit.code}: accounts could not bear what was decided. Settle it: `{settled}`"
