"""The turn of an actor, without any socket: decide, apply, … then one force, only then the effects (PROTOCOL T1–T4).

The loop drives it with frames from the network; the simulator drives the same code with simulated ones.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Sequence
from itertools import islice
from typing import Any

from zbank import __version__
from zbank.clock import Clock, Now
from zbank.errors import CorruptStore, StorageFull
from zbank.ids import format_id
from zbank.protocol.codec import chain_value, decode_record, encode_record, record_kind
from zbank.protocol.figures import Figures
from zbank.protocol.fold import Row
from zbank.protocol.following import Follower
from zbank.protocol.machine import NOTHING, About, Effect, Machine, Sender, Step, Taken, Wanted
from zbank.protocol.messages import (
    BRANCH,
    COORDINATOR,
    REPLICA,
    Ack,
    AnyMessage,
    Fault,
    GetDecisions,
    GetEvents,
    GetFigures,
    GetRows,
    GetStatus,
    Position,
    Request,
    RetireAnswer,
    Vote,
)
from zbank.protocol.records import NotedKey, Record
from zbank.storage.decisions import lost_decisions
from zbank.storage.events import events_page
from zbank.storage.reads import answer_read
from zbank.storage.sqlite import JournalStore
from zbank.transport.followers import TURNED_AWAY, Followers
from zbank.transport.looks import AT_ONCE, LOOKS, READS, WHILE_STOPPED, AnyRead, ClientRead, rows_of

POST_EVERY_ROWS = 4096
POST_IDLE_ROWS = 512
REPLAY_ROWS = 1000
ROOM_EVERY_US = 1_000_000
FOLLOWED_US = 10_000_000  #: rows are published so long after a replica has asked for some
MAX_DRAIN_READ_ROWS = 20_000  #: read for clients between two drains; who asks for more is told `busy`
OVERLOADED = Fault(code="busy", detail="too much is waiting here: send the same id again in a moment", retry_after_ms=100)
NO_ROOM = Fault(
    code="storage_full",
    detail="the disk is full: not done, or not known; the same id may be sent again when there is room",
    retry_after_ms=1000,
)

_POSITIONED = (Vote, Ack, RetireAnswer)

Incoming = tuple[Sender, int, AnyMessage]

log = logging.getLogger("zbank")


class Engine:
    """One actor: its state machine, its store, and the turns that join them."""

    def __init__(self, store: JournalStore, build: Callable[[Machine | None], Machine], clock: Clock) -> None:
        """`build` makes the state machine with the store's posted state; it gets the one that was thrown away, if any."""
        self._store = store
        self._build = build
        self._clock = clock
        self._room = True
        self._room_checked_us = 0
        self._started_us = clock.now().mono_us
        self._rows: list[Row] = []
        self._records: list[tuple[str, Record]] = []  #: of the rows, with their kinds
        self._rows_read = 0
        self.followed_until_us = 0  #: somebody follows, by the monotonic clock: what is forced is published
        self.publish: Callable[[Sequence[Row], bytes], None] | None = None  #: is given rows just forced, and the value before
        self.on_rows: Callable[[Sequence[Row]], None] | None = None  #: the same, also when nobody follows
        self.figures = Figures()  #: what this process counts
        self._followers = Followers(store, self._started_us)
        self._stopped: Fault | None = None  #: why nothing is taken on, for want of the synchronous replica
        self._take_office()

    @property
    def name(self) -> str:
        """The actor's."""
        return self._store.identity.name

    @property
    def has_stopped(self) -> bool:
        """It is a coordinator that serves nothing, for want of its synchronous replica or of its newest data: actors may look
        for another."""
        return self.machine.role == COORDINATOR and (self._followers.stopped or self.machine.closed is not None)

    def _take_office(self) -> None:
        """A new epoch, forced before anything is served (P11, R5). A replica has no office: its epochs are its branch's."""
        if self._store.identity.role == REPLICA:
            self.machine = self._recover(None)
            return
        now = self._clock.now()
        self._epoch = self._store.take_office()
        self.machine = self._recover(None)
        for record in self.machine.start(__version__):
            self._journal(record, self.machine.label_us(now))
        self._force()

    def _recover(self, thrown_away: Machine | None) -> Machine:
        """The state as the store has it: what was posted, then the tail of the journal, row by row."""
        machine = self._build(thrown_away)
        store = self._store
        rows = store.replay()
        while chunk := list(islice(rows, REPLAY_ROWS)):
            _apply_again(machine, [Taken(row, decode_record(row.body)) for row in chunk], store)
        machine.resume(self._clock.now())
        if thrown_away is not None:
            machine.alarms.update(thrown_away.alarms)
        self._seq = store.seq
        self._chain = store.chain
        return machine

    # --- a turn ----------------------------------------------------------------------------------------------------

    def turn(self, batch: Sequence[Incoming], now: Now) -> list[Effect]:
        """Decide a batch, force it, and give what may leave now. A full disk gives refusals that are no outcomes."""
        machine = self.machine
        self.figures.turn(len(batch))
        self._load(batch)
        effects: list[Effect] = []
        at_once: list[Effect] = []  #: what stands on nothing that is recorded here
        reads: list[tuple[Sender, int, AnyRead]] = []
        at_us = machine.label_us(now)
        self._stopped = self._followers.see(machine, now.mono_us)
        for sender, n, message in batch:
            declined = self._not_taken_on(sender, n, message)
            if declined:
                (effects if self._stopped is None else at_once).extend(declined)
                continue
            if isinstance(message, READS):
                reads.append((sender, n, message))
                continue
            step = machine.decide(sender, n, message, now)
            if step.record is not None:
                self._journal(step.record, at_us)
            elif step.taken:
                self._take_over(step.taken)
            is_refused = self._followers.stopped and step.record is None and isinstance(message, WHILE_STOPPED)
            said = step.effects
            if isinstance(message, TURNED_AWAY) and (refusal := self._followers.turned_away(sender, n, machine, self._stopped)):
                is_refused, said = True, refusal
            (at_once if is_refused else effects).extend(said)
        try:
            self._force()
        except StorageFull:
            return self._declined(batch, now)
        for sender, n, read in reads:
            (at_once if isinstance(read, AT_ONCE) else effects).extend(self._read(sender, n, read, now))
        if log.isEnabledFor(logging.DEBUG):
            self._log_requests(batch)
        if machine.role == BRANCH:
            effects = self._positions(effects, now) + effects
        elif isinstance(machine, Follower):
            standing = machine.standing(now)
            asked = dict.fromkeys(effect.to for effect in (*at_once, *effects) if isinstance(effect.to, bytes))
            at_once = [*(Effect(to, 0, standing) for to in asked), *at_once]
        machine.fold.trim()
        return at_once + self._let_out(effects, batch, now)

    def tick(self, now: Now) -> list[Effect]:
        """What follows from time passing."""
        if now.mono_us - self._room_checked_us >= ROOM_EVERY_US:
            self._room_checked_us = now.mono_us
            self._check_room()
        self._stopped = self._followers.see(self.machine, now.mono_us)
        waits = self.machine.role == COORDINATOR and self._followers.stopped  # what would be sent again could not leave
        return self._do(NOTHING if waits else self.machine.tick(now), now)

    def keys_seen(self, good: Iterable[NotedKey], now: Now) -> list[Effect]:
        """These keys may connect now; who keeps the acts of those in charge records what has changed."""
        return self._do(self.machine.keys_seen(good), now)

    def said(self, effects: Collection[Effect], now: Now) -> list[Effect]:
        """What is to be said without a turn, and stands on what is recorded: what may leave, of that and of what waits."""
        return self._let_out(effects, (), now)

    def _do(self, step: Step, now: Now) -> list[Effect]:
        """What was decided without any message."""
        if step.record is not None:
            self._journal(step.record, self.machine.label_us(now))
        try:
            self._force()
        except StorageFull:
            return []
        return self._let_out(step.effects, (), now)

    def maintain(self, *, idle: bool = False) -> None:
        """Post when enough has gathered; called between drains, after the effects have left.

        When nothing waits (`idle`) less is enough: what is posted then delays nobody.
        """
        self._rows_read = 0
        enough = POST_IDLE_ROWS if idle else POST_EVERY_ROWS
        if self.machine.fold.unposted >= enough and self._room:
            self.post()

    def post(self) -> None:
        """Post all that is folded. Raises nothing for a full disk: the rows stay in memory until there is room."""
        if not self.machine.fold.unposted:
            return
        try:
            self._store.post(self.machine.fold.posting())
        except StorageFull:
            self._no_room()
            return
        self.machine.fold.posted()

    def close(self) -> None:
        """Post and close the store."""
        self.post()
        self._store.close()

    # --- those who follow --------------------------------------------------------------------------------------------

    def _not_taken_on(self, sender: Sender, n: int, message: AnyMessage) -> Collection[Effect]:
        """The refusal of what cannot be taken on now; nothing when it can."""
        if self._stopped is not None and sender.address and not isinstance(message, WHILE_STOPPED):  # else its own work
            declined = self.machine.decline(sender, n, message, self._stopped)
            if not declined and isinstance(message, Request):
                declined = (Effect(sender.address, n, self._stopped),)
            return declined
        return () if self._room or isinstance(message, READS) else self.machine.decline(sender, n, message, NO_ROOM)

    def _let_out(self, effects: Collection[Effect], batch: Sequence[Incoming], now: Now) -> list[Effect]:
        """What may leave; the rest waits for the synchronous replica."""
        return self._followers.let_out(self.machine.acks, effects, batch, self.machine.withholds, now.mono_us)

    # --- parts of a turn -------------------------------------------------------------------------------------------

    def _load(self, batch: Sequence[Incoming]) -> None:
        """Load what the batch needs, one query a kind (T3)."""
        machine = self.machine
        wanted = Wanted()
        for _, _, message in batch:
            machine.want(message, wanted)
        store = self._store
        settled = store.load_settled(wanted.ids) if wanted.ids else []
        for row in settled:
            if row.detail and row.outcome == "committed":  # a replayed opening shows its account
                wanted.numbers.add(row.detail)
        tombstones = store.load_tombstones(wanted.txns) if wanted.txns else ()
        accounts = store.load_accounts(wanted.numbers) if wanted.numbers else ()
        machine.load(settled, tombstones, accounts)

    def _journal(self, record: Record, at_us: int) -> None:
        """Give a record its row, and apply it."""
        self._seq = seq = self._seq + 1
        id = getattr(record, "id", None) or None
        kind = record_kind(record)
        body = encode_record(record)
        self._chain = chain = chain_value(self._chain, self._epoch, seq, at_us, kind, id, body)
        self._rows.append(Row(seq, self._epoch, at_us, kind, id, body, chain))
        self._records.append((kind, record))
        self.machine.fold.apply(seq, self._epoch, at_us, record)

    def _take_over(self, taken: Sequence[Taken]) -> None:
        """Rows of another's journal, as they are."""
        _apply_again(self.machine, taken, self._store)
        self._rows.extend(one.row for one in taken)
        self._records.extend((one.row.kind, one.record) for one in taken)
        self._seq, self._chain = taken[-1].row.seq, taken[-1].row.chain

    def _force(self) -> None:
        """One commit for all rows of the turn. If it is rolled back, memory is rebuilt from the store (T2)."""
        if not self._rows:
            return
        rows, self._rows = self._rows, []
        records, self._records = self._records, []
        begun_us = self._clock.now().mono_us
        before = self._store.chain
        try:
            self._store.append(rows)
        except StorageFull:
            self._no_room()
            self.machine = self._recover(self.machine)
            raise
        forced_us = self._clock.now().mono_us
        self.machine.forced(forced_us)
        if self.on_rows is not None:
            self.on_rows(rows)
        if self.publish is not None and forced_us < self.followed_until_us and self.machine.acks is None:
            self.publish(rows, before)
        self.figures.force.add(forced_us - begun_us)
        for kind, record in records:
            self.figures.row(kind, record)

    def _declined(self, batch: Sequence[Incoming], now: Now) -> list[Effect]:
        """The answers to a batch that was rolled back; whoever asked something is told at once, not left to wait."""
        effects: list[Effect] = []
        at_once: list[Effect] = []
        for sender, n, message in batch:
            declined = self._not_taken_on(sender, n, message)
            if not declined and isinstance(message, READS):
                (at_once if isinstance(message, AT_ONCE) else effects).extend(self._read(sender, n, message, now))
            elif not declined and isinstance(message, LOOKS):
                self._load([(sender, n, message)])
                effects += self.machine.decide(sender, n, message, now).effects
            elif not declined and isinstance(message, Request):
                at_once.append(Effect(sender.address, n, NO_ROOM))
            at_once.extend(declined)
        return at_once + self._let_out(effects, batch, now)

    def _read(self, sender: Sender, n: int, message: AnyRead, now: Now) -> list[Effect]:
        """Answer a read after the force, as far as the rows go that may be read between two drains."""
        if isinstance(message, GetRows):  # an actor asks one thing at a time
            self.followed_until_us = now.mono_us + FOLLOWED_US
            return self._followers.ask(sender, n, message, self.machine.acks, now.mono_us)
        if isinstance(message, GetDecisions):
            self.post()
            unposted = self.machine.fold.unposted  # it asks again
            return [] if unposted else [Effect(sender.address, n, one) for one in lost_decisions(self._store, message)]
        answer = self._answer(message, now) if self._rows_read < MAX_DRAIN_READ_ROWS else OVERLOADED
        self._rows_read += rows_of(message, answer)
        return [Effect(sender.address, n, answer)]

    def _answer(self, message: ClientRead, now: Now) -> AnyMessage:
        """Answer a read after the force: from the posted tables, from the journal, or from what is counted."""
        if isinstance(message, GetStatus):
            return self.machine.status(self.about(now), now)
        if isinstance(message, GetFigures):
            return self.figures.info(self.machine.role, self._store.identity.name)
        if isinstance(message, GetEvents):
            return events_page(self._store, message)
        if (untold := self.machine.untold(message)) is not None:
            return untold
        self.post()
        if self.machine.fold.unposted:
            return NO_ROOM
        return answer_read(self._store, message)

    def about(self, now: Now) -> About:
        """What the actor's status tells beside its state."""
        store = self._store
        return About(
            cluster=store.identity.cluster,
            instance=store.instance,
            uptime_us=now.mono_us - self._started_us,
            journal_bytes=store.journal_bytes,
            version=__version__,
            stopped=self._followers.stopped or self.has_stopped,
        )

    def _log_requests(self, batch: Sequence[Incoming]) -> None:
        """A line for each request that somebody wants to follow through all logs; it was forced, if it made a record."""
        for _, _, message in batch:
            asked: Any = getattr(message, "transfer", message)  # within Prepare and Forward
            request_id = getattr(asked, "request_id", "")
            if request_id:
                about = {"request_id": request_id, "transfer_id": format_id(asked.id), "caller": asked.caller}
                log.debug("%s %s has dealt with %s", self.machine.role, self.name, type(message).__name__, extra=about)

    def _positions(self, effects: list[Effect], now: Now) -> list[Effect]:
        """Where the journal stands, ahead of each batch of votes, acks and words on the branch's end (P11)."""
        coordinators = dict.fromkeys(effect.to for effect in effects if type(effect.message) in _POSITIONED)
        if not coordinators:
            return []
        turn_us = self._clock.now().mono_us - now.mono_us
        position = Position(self._epoch, self._seq, self._chain, turn_us)
        return [Effect(coordinator, 0, position) for coordinator in coordinators]

    def _check_room(self) -> None:
        room = self._store.has_room()
        if room and not self._room:
            log.warning("there is room on the disk again: going on")
            self.machine.alarms.pop("storage_full", None)
        elif not room and self._room:
            self._no_room()
        self._room = room

    def _no_room(self) -> None:
        if self._room:
            log.error("the disk is full: no new work is taken until there is room")
        self._room = False
        self.machine.alarms["storage_full"] = "the disk is full: no new work is taken until there is room"


def _apply_again(machine: Machine, taken: Sequence[Taken], store: JournalStore) -> None:
    """Fold rows that were decided before, or elsewhere."""
    numbers = {number for _, record in taken for number in machine.touches(record)}
    machine.load((), (), store.load_accounts(numbers))
    for row, record in taken:
        try:
            machine.fold.apply(row.seq, row.epoch, row.at_us, record)
        except (KeyError, AssertionError) as error:  # the chain vouches for the rows: it is the tables that do not fit
            raise CorruptStore(
                f"{store.path}: row {row.seq} of the journal does not follow from the tables ({error!r}): restore a backup"
            ) from error
