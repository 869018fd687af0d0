"""How a replica follows the journal of one actor, a branch or the coordinator (PROTOCOL R1, R3).

Rows come by two ways, and in three steps:

    heard ────────── from the feed: chained to what is here, nothing more is known of them
    confirmed ────── the branch itself names the chain value of the last one heard: it has the same rows
    taken ────────── folded and forced, in one turn; what is asked is answered from these alone

What the feed loses, the branch is asked for. A branch that has not what stands here, or has something else, is an alarm: a
replica is a prefix of its branch, or says that it is not. A synchronous replica, and one of the coordinator, has no use for
the feed: it asks for rows again and again, and the question says what is on its disk.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Collection, Iterable
from typing import ClassVar, Generic, Protocol, TypeVar

from zbank.clock import Now
from zbank.errors import CorruptStore, ZbankError
from zbank.protocol.codec import chain_value, decode_record
from zbank.protocol.fold import Row
from zbank.protocol.machine import NOTHING, Effect, Machine, Sender, State, Step, Taken
from zbank.protocol.messages import (
    BRANCH,
    FEED,
    MAX_ROWS,
    NEVER_US,
    REPLICA,
    AckedBy,
    AnyMessage,
    Fault,
    GetRows,
    Held,
    Registered,
    RegisterReplica,
    ReplicaInfo,
    Request,
    RowInfo,
    Rows,
    Standing,
)
from zbank.protocol.records import Record

ASK_EVERY_US = 100_000  #: the branch, where it stands: a lost tail of the feed leaves no gap
CONFIRM_EVERY_US = 50_000  #: while rows are heard
ANSWER_LIMIT_US = 1_000_000  #: then it is asked again
AT_ONCE_US = 50_000  #: an answer with no rows that comes sooner was not waited with
TELL_EVERY_US = 1_000_000  #: the coordinator, where this replica stands
MAX_HEARD = 20_000  #: rows that wait for the branch's word; more are asked for in time
MAX_HEARD_BYTES = 16 << 20  #: of them: anybody with a branch's key can publish rows that are as long as rows may be
SILENT_ALARM_US = 10_000_000


class TakesOver(ZbankError):
    """Not an error: this replica's process is to go on as whom it followed."""

    code = "takes_over"

    def __init__(self, epoch: int, by: str, detail: str) -> None:
        super().__init__(detail)
        self.epoch = epoch  #: of the new office, at the least
        self.by = by  #: the operator


class Followed(State, Protocol):
    """The fold of the journal that is followed."""

    name: str  #: of whose it is
    seq: int
    epoch: int


Fold = TypeVar("Fold", bound=Followed)


class Follower(Machine, Generic[Fold]):
    """What every replica's state machine does."""

    role: ClassVar[str] = REPLICA
    of_role: ClassVar[str]  #: of whom it follows

    def __init__(
        self,
        name: str,
        endpoint: str,
        instance: bytes,
        state: Fold,
        chain: bytes,
        before: Follower[Fold] | None = None,
        *,
        can_lead: bool = True,
    ) -> None:
        """`chain` is the value of the last row in the store. `before` is the machine that was thrown away (T2). `can_lead`: it
        has what it needs to take its branch's place."""
        super().__init__(state)
        self.state = state
        self._name = name
        self._endpoint = endpoint
        self._instance = instance
        self._can_lead = can_lead
        self._chain = chain  #: of the last row taken
        self._heard: list[Taken] = []
        self._heard_bytes = 0
        self._has_gap = False
        self._asked_rows = True  #: not only whether what was heard is true
        self._asked_us = -1  #: when the answer that is awaited was asked for; -1 = none is
        self._due_us = 0  #: when to ask next
        self._told_us = 0
        self._told_word: AckedBy | None = None  #: what the coordinators were told then
        self._of_us = 0  #: when the branch sent its last word, by its own clock
        self._begun_us = -1
        self._branch_seq: int = before._branch_seq if before else 0
        self._level_us: int = before._level_us if before else -1  #: all that the branch had then is here; -1 = never yet
        self._goal: tuple[int, int] | None = None  #: with this row, all that the branch had at this time is here
        self._coordinators: dict[str, None] = dict(before._coordinators) if before else {}

    @property
    def _whom(self) -> str:
        """Whom it follows, in words."""
        return f"branch {self.state.name}" if self.of_role == BRANCH else f"the {self.of_role}"

    @abstractmethod
    def _word(self) -> AckedBy | None:
        """By the rows that are here: who acknowledges what the followed one does."""

    def start(self, version: str) -> list[Record]:
        """A replica records nothing of its own."""
        return []

    # --- deciding ---------------------------------------------------------------------------------------------------

    def decide(self, sender: Sender, n: int, message: AnyMessage, now: Now) -> Step:
        """What follows from a message."""
        if isinstance(message, Rows):
            return self._rows(sender, message, now)
        if isinstance(message, Registered):
            self._coordinators[sender.caller] = None
            return NOTHING
        if not isinstance(message, Request):
            return NOTHING
        detail = f"{self._name} is a replica of {self.state.name} and only answers questions: send this to {self.state.name}"
        return Step(None, (Effect(sender.address, n, Fault(code="not_for_me", detail=detail)),))

    def decline(self, sender: Sender, n: int, message: AnyMessage, fault: Fault) -> Collection[Effect]:
        """Nothing that a replica takes on needs room but rows, and those are asked for again."""
        return ()

    def _rows(self, sender: Sender, message: Rows, now: Now) -> Step:
        if sender.role == FEED:
            return self._hear(message, now)
        if sender.role == self.of_role and sender.caller == self.state.name:
            return self._confirmed(message, now)
        return NOTHING

    # --- following --------------------------------------------------------------------------------------------------

    def _tip(self) -> tuple[int, bytes]:
        """Row and chain value of the last row that was heard or taken."""
        if self._heard:
            row = self._heard[-1].row
            return row.seq, row.chain
        return self.state.seq, self._chain

    def _hear(self, message: Rows, now: Now) -> Step:
        """Chain what the feed says to what is here; whether it is true, the branch says."""
        if self._is_synchronous:  # rows come as answers, and nothing is published
            return NOTHING
        seq, chain = self._tip()
        if message.after > seq:
            self._has_gap = True
        if message.after != seq or len(self._heard) >= MAX_HEARD or self._heard_bytes >= MAX_HEARD_BYTES:
            return NOTHING
        try:
            heard = _chained(seq, chain, message.rows)
        except CorruptStore:  # it is not from this branch, or from a newer version of it: its own word will tell
            return NOTHING
        self._heard += heard
        self._heard_bytes += _bytes_of(heard)
        return self._ask(now) if now.mono_us >= self._due_us - ASK_EVERY_US + CONFIRM_EVERY_US else NOTHING

    def _ask(self, now: Now) -> Step:
        """Ask the branch what follows the last row heard: it names that row's chain value. While the feed brings what
        follows, that value is enough: else the branch would send most rows twice."""
        limit_us = ANSWER_LIMIT_US if self._branch_seq else ASK_EVERY_US  # the first questions may go before it can be reached
        if self._asked_us >= 0 and now.mono_us - self._asked_us < limit_us:
            return NOTHING
        self._asked_us = now.mono_us
        self._due_us = now.mono_us + ASK_EVERY_US
        limit = 0 if self._heard and not self._has_gap else MAX_ROWS
        self._has_gap = False
        self._asked_rows = limit > 0
        return Step(None, (Effect(self.state.name, 0, GetRows(self._tip()[0], limit, self._held(self.state.seq))),))

    @property
    def _is_synchronous(self) -> bool:
        """By its own rows: whoever wrote them waits for this replica (R3)."""
        word = self._word()
        return word is not None and (word.replica, word.instance) == (self._name, self._instance)

    def _held(self, seq: int) -> Held | None:
        """The acknowledgement: rows up to this one are on the disk when this step's messages leave."""
        return Held(self._instance, seq, self._chain, self._of_us) if self._is_synchronous and not self._heard else None

    def _confirmed(self, message: Rows, now: Now) -> Step:
        """The branch's own word on a row: take all up to it, and what follows."""
        asked_us, self._asked_us = self._asked_us, -1
        self._of_us = message.sent_us
        self._branch_seq = message.seq
        state = self.state
        count = message.after - state.seq  # rows heard that would be confirmed
        if not 0 <= count <= len(self._heard):
            return NOTHING  # the answer to a question from before: the next one comes soon
        chain = self._heard[count - 1].row.chain if count else self._chain
        if message.chain != chain:
            return self._differs(message, count, now)
        try:
            more = _chained(message.after, chain, message.rows)
        except CorruptStore as error:
            self.alarms["diverged"] = f"{self._whom} has rows that this version cannot read: {error}"
            return NOTHING
        for code in ("diverged", "ahead"):
            self.alarms.pop(code, None)
        taken = self._heard[:count] + more
        if more:  # what was heard of these rows, or after other ones, is said by now
            rest = self._heard[count:]
            same = len(rest) > len(more) and rest[len(more) - 1].row.chain == more[-1].row.chain
            self._heard = rest[len(more) :] if same else []
        else:
            self._heard = self._heard[count:]
        self._heard_bytes = _bytes_of(self._heard)
        if taken:
            self._chain = taken[-1].row.chain
        reached = taken[-1].row.seq if taken else state.seq
        if self._goal is None and asked_us >= 0:
            self._goal = (message.seq, asked_us)
        if self._goal is not None and reached >= self._goal[0]:
            self._level_us = max(self._level_us, self._goal[1])
            self._goal = None
        if not self._is_synchronous and (reached >= message.seq or not self._asked_rows):
            return Step(taken=taken)
        if not taken and now.mono_us - asked_us < AT_ONCE_US:  # it did not wait: to whom this replica is the one no more
            return NOTHING
        # More is there than one answer holds, or will be. The fold is behind until this step is applied: ask by number.
        self._asked_us = now.mono_us
        self._asked_rows = True
        after = self._heard[-1].row.seq if self._heard else reached
        return Step(None, (Effect(state.name, 0, GetRows(after, MAX_ROWS, self._held(reached))),), taken)

    def _differs(self, message: Rows, count: int, now: Now) -> Step:
        """The branch has not the same row there. What was only heard is dropped; what was taken is an alarm."""
        if count:
            self._heard, self._heard_bytes = [], 0
            return self._ask(now)
        self._goal = None
        seq = self.state.seq
        if message.chain:
            text = f"row {seq} of {self._whom} is another one than here: it was restored, or another took its place"
            self.alarms["diverged"] = text
        else:
            text = f"this replica is ahead of its {self.of_role}: it has row {seq}, {self.state.name} ends at {message.seq}"
            self.alarms["ahead"] = f"{text}: was it restored from an old copy?"
        return NOTHING

    # --- time and peers ---------------------------------------------------------------------------------------------

    def tick(self, now: Now) -> Step:
        """Ask the branch, tell the coordinators."""
        effects: list[Effect] = []
        if now.mono_us >= self._due_us or self._has_gap:
            effects += self._ask(now).effects
        word = self._word()
        if now.mono_us - self._told_us >= TELL_EVERY_US or word != self._told_word:  # an operator waits for that
            self._told_us, self._told_word = now.mono_us, word
            told = RegisterReplica(self.info(now))
            effects += [Effect(name, 0, told) for name in self._coordinators]
        if self._begun_us < 0:
            self._begun_us = now.mono_us
        silent = min(self.lag_us(now), now.mono_us - self._begun_us) > SILENT_ALARM_US
        if silent:
            self.alarms["silent"] = f"{self._whom} is silent: what is shown here grows old"
        else:
            self.alarms.pop("silent", None)
        return Step(None, effects)

    def peer_down(self, name: str, now: Now) -> None:
        """Somebody is silent: asked again in time."""

    def lag_us(self, now: Now) -> int:
        """Everything that the branch had so long ago is here."""
        return max(0, now.mono_us - self._level_us) if self._level_us >= 0 else NEVER_US

    def standing(self, now: Now) -> Standing:
        """As of when answers are that are given now."""
        state = self.state
        return Standing(state.epoch, state.seq, max(0, self._branch_seq - state.seq), self.lag_us(now))

    def info(self, now: Now) -> ReplicaInfo:
        """Where this replica stands, for the directory."""
        at = self.standing(now)
        word = self._word()
        return ReplicaInfo(
            name=self._name,
            of=self.state.name,
            endpoint=self._endpoint,
            instance=self._instance,
            epoch=at.epoch,
            seq=at.seq,
            behind=at.behind,
            lag_us=at.lag_us,
            can_lead=self._can_lead,
            acks=word.generation if word is not None and self._is_synchronous else 0,
        )


def _bytes_of(taken: Iterable[Taken]) -> int:
    return sum(len(one.row.body) for one in taken)


def _chained(seq: int, chain: bytes, rows: Iterable[RowInfo]) -> list[Taken]:
    """Rows that follow a row, with their numbers and chain values. Raises CorruptStore for what is no record."""
    taken: list[Taken] = []
    for info in rows:
        seq += 1
        chain = chain_value(chain, info.epoch, seq, info.at_us, info.kind, info.id, info.body)
        record = decode_record(info.body)
        taken.append(Taken(Row(seq, info.epoch, info.at_us, info.kind, info.id, info.body, chain), record))
    return taken

