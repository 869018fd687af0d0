"""Planted bugs of callers, tokens, lists, events and figures: T1, T2, T4–T6, P2, K1."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

from msgspec.structs import replace as changed

from tests.simulation.planted import bug, dispatch, replace
from zbank.clock import Now
from zbank.errors import StorageFull
from zbank.protocol import coordinator, coordinator_state, outcomes, participant, tokens, votes
from zbank.protocol.attempts import Attempt
from zbank.protocol.coordinator import Coordinator
from zbank.protocol.coordinator_state import CoordinatorMeta
from zbank.protocol.finishing import Finishing
from zbank.protocol.forwarding import Forwarder
from zbank.protocol.machine import Effect, Sender, Step
from zbank.protocol.messages import (
    PENDING,
    AnyMessage,
    Cancel,
    EventsPage,
    GetEvents,
    ListTransfers,
    MakeToken,
    Outcome,
    RevokeToken,
)
from zbank.protocol.participant import Participant
from zbank.protocol.records import Record
from zbank.storage import events, transfers
from zbank.storage.pages import Pages
from zbank.storage.reads import answer_read
from zbank.storage.sqlite import JournalStore
from zbank.transport import engine
from zbank.transport.engine import Engine

# --- callers -----------------------------------------------------------------------------------------------------------


@bug("another caller's id gets the first one's outcome", "T6")
def _caller_ignored(stack: ExitStack) -> None:
    for module in (outcomes, participant, votes):
        replace(stack, module, "fits", lambda settled, digest, caller: settled.digest in (digest, b""))


@bug("another caller joins a transfer that runs", "T6")
def _joins_anybody(stack: ExitStack) -> None:
    def join(self: Coordinator, sender: Sender, n: int, running: Attempt | Finishing, digest: bytes) -> Step:
        content = running.content if isinstance(running, Attempt) else running.decision.content
        step: Step = old(self, sender._replace(caller=content.caller), n, running, digest)
        return step

    old = replace(stack, Coordinator, "_join", join)


@bug("nobody hears in whose name a client speaks", "T6")
def _names_unheard(stack: ExitStack) -> None:
    for module in (participant, coordinator):
        replace(stack, module, "in_whose_name", lambda sender, message: sender)


@bug("a forwarded transfer loses its caller", "T6")
def _forwarded_nameless(stack: ExitStack) -> None:
    def forward(self: Forwarder, sender: Sender, *rest: Any) -> Step:
        step: Step = old(self, sender._replace(caller=""), *rest)
        return step

    old = replace(stack, Forwarder, "forward", forward)


@bug("a cancel tells another caller that an id is prepared", "T6")
def _cancel_tells(stack: ExitStack) -> None:
    def cancel(self: Participant, sender: Sender, n: int, message: Cancel, now: Now) -> Step:
        if message.id in self.state.prepared:
            return Step(None, (Effect(sender.address, n, Outcome(message.id, PENDING, None, 0, 0, False, False)),))
        step: Step = old(self, sender, n, message, now)
        return step

    old = dispatch(stack, participant._DECIDE, Cancel, cancel)


# --- tokens ------------------------------------------------------------------------------------------------------------


@bug("posting forgets the tokens", "T4")
def _tokens_not_posted(stack: ExitStack) -> None:
    def encode(meta: CoordinatorMeta) -> bytes:
        return bytes(old(changed(meta, tokens=[], token_version=0)))

    old = replace(stack, coordinator_state, "_encode_meta", encode)


@bug("a revoked token is good again after a restart", "T4")
def _revoked_not_posted(stack: ExitStack) -> None:
    def encode(meta: CoordinatorMeta) -> bytes:
        good = [changed(token, revoked_us=0) for token in meta.tokens]
        return bytes(old(changed(meta, tokens=good)))

    old = replace(stack, coordinator_state, "_encode_meta", encode)


@bug("a token is told as made before its force", "T1")
def _token_told_early(stack: ExitStack) -> None:
    """Its row is written with the next tick."""

    def make(self: Coordinator, sender: Sender, n: int, message: MakeToken, now: Now) -> Step:
        late: dict[bytes, Record] = self.__dict__.setdefault("_late", {})
        step: Step = old_make(self, sender, n, message, now)
        if step.record is not None:
            late[message.id] = step.record
        return Step(None, step.effects)

    def tick(self: Coordinator, now: Now) -> Step:
        step: Step = old_tick(self, now)
        late: dict[bytes, Record] = self.__dict__.get("_late", {})
        if step.record is not None or not late:
            return step
        return Step(late.pop(next(iter(late))), step.effects)

    old_make = dispatch(stack, coordinator._DECIDE, MakeToken, make)
    old_tick = replace(stack, Coordinator, "tick", tick)


@bug("a token is told as revoked and nothing is recorded", "T1")
def _revoked_unrecorded(stack: ExitStack) -> None:
    def revoke(self: Coordinator, sender: Sender, n: int, message: RevokeToken, now: Now) -> Step:
        step: Step = old(self, sender, n, message, now)
        return Step(None, step.effects)

    old = dispatch(stack, coordinator._DECIDE, RevokeToken, revoke)


@bug("a token that was revoked and forgotten is made again", "T6")
def _made_again(stack: ExitStack) -> None:
    def make(state: Any, caller: str, message: MakeToken, at_us: int) -> tokens.Answered:
        state.settled.pop(message.id, None)
        answered: tokens.Answered = old(state, caller, message, at_us)
        return answered

    old = replace(stack, tokens, "make", make)


# --- lists, events, figures --------------------------------------------------------------------------------------------


@bug("events of rows that a full disk refused are told", "T1")
def _refused_rows_told(stack: ExitStack) -> None:
    def force(self: Engine) -> None:
        rows = list(self._rows)
        try:
            old_force(self)
        except StorageFull:
            self.__dict__["_refused_rows"] = rows
            raise

    def answer(self: Engine, message: Any, now: Now) -> AnyMessage:
        found: AnyMessage = old_answer(self, message, now)
        rows = [row for row in self.__dict__.get("_refused_rows", []) if row.seq > self._store.seq]
        if not isinstance(found, EventsPage) or message.after < 0 or not found.is_last or not rows:
            return found
        told = [event for row in rows for event in events._events(row, self._store.identity.name)]
        return changed(found, events=(*found.events, *told))

    old_force = replace(stack, Engine, "_force", force)
    old_answer = replace(stack, Engine, "_answer", answer)


@bug("events pass over a row where a page begins", "T5")
def _row_passed_over(stack: ExitStack) -> None:
    def journal(self: Pages, after: int, limit: int) -> Any:
        return old(self, after + 1 if after else 0, limit)

    old = replace(stack, Pages, "journal", journal)


@bug("a position beyond the journal's end stays there", "T5")
def _beyond_the_end(stack: ExitStack) -> None:
    def page(store: JournalStore, message: GetEvents) -> EventsPage:
        found: EventsPage = old(store, message)
        return changed(found, seq=max(found.seq, message.after))

    old = replace(stack, engine, "events_page", page)


@bug("what happened at the end of a time is of it too", "K1")
def _until_too_late(stack: ExitStack) -> None:
    def span(self: Pages, from_us: int, until_us: int) -> tuple[int, int]:
        found: tuple[int, int] = old(self, from_us, min(until_us + 1, 2**63 - 1))
        return found

    old = replace(stack, Pages, "span", span)


@bug("a transfer is listed by each of its branches", "P2")
def _listed_anywhere(stack: ExitStack) -> None:
    def fits(self: Any, content: Any) -> bool:
        self._message = changed(self._message, is_home=False)
        return bool(old(self, content))

    old = replace(stack, transfers._Page, "_fits", fits)


@bug("two legs on one account are two transfers of its list", "T4")
def _listed_twice(stack: ExitStack) -> None:
    def take(self: Any, pages: Pages, entry: Any) -> None:
        found, self.found = self.found, []
        old(self, pages, entry)
        self.found = found + self.found

    old = replace(stack, transfers._Page, "take_entry", take)


@bug("a list is read from tables that are behind", "T4")
def _list_unposted(stack: ExitStack) -> None:
    def answer(self: Engine, message: Any, now: Now) -> AnyMessage:
        if isinstance(message, ListTransfers):
            return answer_read(self._store, message)
        found: AnyMessage = old(self, message, now)
        return found

    old = replace(stack, Engine, "_answer", answer)


@bug("figures count rows that were rolled back", "T2")
def _rolled_back_counted(stack: ExitStack) -> None:
    def journal(self: Engine, record: Any, at_us: int) -> None:
        old(self, record, at_us)
        self.figures.row(*self._records.pop())

    old = replace(stack, Engine, "_journal", journal)
