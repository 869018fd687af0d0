"""How a coordinator, or a replica of it, does: what both tell of the same state."""

from __future__ import annotations

from collections.abc import Iterable

from zbank.protocol.coordinator_state import CoordinatorState
from zbank.protocol.machine import About
from zbank.protocol.messages import StatusInfo


def coordinator_status(
    state: CoordinatorState, about: About, role: str, name: str, alarms: Iterable[str], in_flight: int
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
        accounts=-1,
        total_minor=0,
        clearing_minor=0,
        unposted=state.unposted,
        in_flight=in_flight,
        in_doubt=(),
        journal_bytes=about.journal_bytes,
        alarms=tuple(alarms),
        version=about.version,
        acks=state.acks.get(state.name),
        stopped=about.stopped,
    )
