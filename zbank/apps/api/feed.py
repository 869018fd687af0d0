"""The event streams' source: what the actors' journals tell, asked for once for all streams that stand at the same place."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator, Mapping
from typing import Any

from zbank import Client
from zbank.apps.api.access import Principal
from zbank.clock import format_time
from zbank.ids import format_id
from zbank.protocol.messages import Event
from zbank.transport.client_watch import COORDINATOR_KEY, EventBatch
from zbank.transport.views import amount_text

POLL_S = 0.1
REUSE_S = 0.08  #: a batch asked for so short ago serves another stream at the same place
BATCH_ROWS = 200
MAX_REMEMBERED = 10_000  #: transfers whose accounts a customer's stream remembers

_PLACE = re.compile(r"(?:\*|[A-Za-z][A-Za-z0-9_-]{0,31}):(?:-1|[0-9]{1,18})", re.ASCII)  # -1: who has not answered yet


def positions_text(positions: Mapping[str, int]) -> str:
    """Positions as an event id: `*:4,Delhi:12`."""
    return ",".join(f"{name}:{seq}" for name, seq in sorted(positions.items()))


def positions_from(text: str) -> dict[str, int] | None:
    """The positions of an event id; None when it is none of ours."""
    parts = text.split(",")
    if not all(_PLACE.fullmatch(part) for part in parts):
        return None
    return {name: int(seq) for name, seq in (part.split(":") for part in parts)}


class EventFeed:
    """Shared by all streams of a bridge."""

    def __init__(self, bank: Client) -> None:
        self._bank = bank
        self._lock = threading.Lock()
        self._last: tuple[float, dict[str, int], EventBatch] | None = None

    def now(self) -> dict[str, int]:
        """Where the journals stand. Raises what the client raises."""
        return self._bank.events(None).positions

    def since(self, positions: dict[str, int]) -> EventBatch:
        """What happened since. Raises what the client raises."""
        with self._lock:
            last = self._last
            if last is not None and last[1] == positions and time.monotonic() - last[0] < REUSE_S:
                return last[2]
            batch = self._bank.events(positions, limit=BATCH_ROWS)
            self._last = (time.monotonic(), dict(positions), batch)
            return batch


def told(batch: EventBatch, positions: dict[str, int]) -> Iterator[tuple[str, str, Event]]:
    """The events of a batch, each as (event id to go on from, actor, event). `positions`: where the batch began."""
    at = dict(positions)
    events = batch.events
    for n, (actor, event) in enumerate(events):
        # A row may tell two events: whoever leaves between them is told the first again rather than not the second.
        more = n + 1 < len(events) and events[n + 1][0] == actor and events[n + 1][1].seq == event.seq
        at[actor] = event.seq - 1 if more else event.seq
        yield positions_text(at), actor, event


def event_json(actor: str, event: Event) -> dict[str, Any]:
    """The Event object."""
    return {
        "kind": event.kind,
        "at": format_time(event.at_us),
        "actor": "coordinator" if actor == COORDINATOR_KEY else actor,
        "id": format_id(event.id),
        "txn": str(event.txn) if event.txn else None,
        "vote": event.vote or None,
        "number": event.number or None,
        "refusal": {"code": event.refusal.code, "detail": event.refusal.detail} if event.refusal else None,
        "legs": [
            {"account": leg.account, "amount": amount_text(leg.amount_minor, event.currency)} for leg in event.legs
        ]
        if event.currency
        else [],
        "currency": event.currency or None,
        "memo": event.memo,
    }


class Sight:
    """Which events one stream may tell its reader: a customer sees transfers with a leg on an own account."""

    def __init__(self, principal: Principal) -> None:
        self._principal = principal
        self._seen: dict[bytes, None] = {}

    def sees(self, event: Event) -> bool:
        """May this be told? Rows without legs are those of a transfer that was told before, or of nobody's."""
        if not self._principal.is_customer:
            return True
        if not event.legs:
            return event.id in self._seen
        if not self._principal.owns_any(leg.account for leg in event.legs):
            return False
        self._seen[event.id] = None
        if len(self._seen) > MAX_REMEMBERED:
            del self._seen[next(iter(self._seen))]
        return True
