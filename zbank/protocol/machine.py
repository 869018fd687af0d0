"""What every actor's state machine has in common, and what the turn of an actor asks of it (PROTOCOL T1–T4).

`decide` looks at the state and a message and says what to record and what to send; it changes nothing that a restart
would need. `apply` alone changes that, one record at a time. A decision makes one record at the most.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Sequence
from typing import ClassVar, NamedTuple, Protocol

from msgspec import Struct

from zbank.clock import Now
from zbank.domain.account import Account
from zbank.domain.refusal import MAX_DETAIL_CHARS
from zbank.errors import ZbankError
from zbank.protocol.fold import Posting, Row, Settled
from zbank.protocol.messages import CLIENT, AckedBy, AnyMessage, Fault, Request, StatusInfo, Txn
from zbank.protocol.records import NotedKey, Record

Address = bytes | str  #: a routing id for a client's connection, the configured name for an actor


class Sender(NamedTuple):
    """Who a message came from, as the transport authenticated it; never what the message claims."""

    address: Address
    role: str  #: CLIENT, BRANCH or COORDINATOR
    caller: str  #: in whose name ids are used (T6); "" for clients of a cluster without keys


class Effect(Struct, frozen=True, gc=False):
    """A message to send after the force."""

    to: Address
    n: int  #: envelope number: that of the request answered, 0 between actors
    message: AnyMessage


class Taken(NamedTuple):
    """A row of another's journal, and what it says."""

    row: Row
    record: Record


class Step(Struct, frozen=True, gc=False):
    """What a decision comes to."""

    record: Record | None = None
    effects: Collection[Effect] = ()
    taken: Sequence[Taken] = ()  #: by a replica: rows to append as they are


NOTHING = Step()


def in_whose_name(sender: Sender, message: AnyMessage) -> Sender:
    """A client may speak for somebody whom it knows, as the REST bridge does for who holds a token: ids are then theirs."""
    caller = getattr(message, "caller", "")
    return sender._replace(caller=caller) if caller and sender.role == CLIENT else sender



class Wanted:
    """What the messages of a batch need from the store before they are decided (T3)."""

    def __init__(self) -> None:
        self.ids: set[bytes] = set()
        self.txns: set[Txn] = set()
        self.numbers: set[str] = set()


class About(NamedTuple):
    """What an actor's status tells that its state machine does not know."""

    cluster: str
    instance: bytes
    uptime_us: int
    journal_bytes: int
    version: str
    stopped: bool = False  #: it takes nothing on


class State(Protocol):
    """The fold of an actor's journal."""

    at_us: int

    def apply(self, seq: int, epoch: int, at_us: int, record: Record) -> None:
        """Fold one record."""

    @property
    def unposted(self) -> int:
        """Rows applied since the last posting."""

    def posting(self) -> Posting:
        """All that changed since the last posting (T4)."""

    def posted(self) -> None:
        """The last posting is in the store: forget what needs no memory any more."""

    def trim(self) -> None:
        """Keep what was only read within bounds; what is not posted yet stays."""


class Machine(ABC):
    """An actor's state machine, as the engine and the simulator drive it."""

    role: ClassVar[str]

    def __init__(self, fold: State) -> None:
        self.fold = fold
        self.alarms: dict[str, str] = {}  #: by code: what an operator should know
        self.time = Timekeeper(fold.at_us)

    @property
    def closed(self) -> Fault | None:
        """Why nothing may be told of what this actor keeps; None when it may."""
        return None

    def untold(self, message: AnyMessage) -> Fault | None:
        """Why this question is not answered from the store now; None when it is."""
        return self.closed

    def withholds(self, id: bytes) -> bool:
        """What was decided of this transfer may be told to nobody yet, whatever it waits for."""
        return False

    @property
    def acks(self) -> AckedBy | None:
        """Who must have on its disk what an effect stands on, before that leaves (PROTOCOL R3); None = nobody else."""
        return None

    @abstractmethod
    def want(self, message: AnyMessage, wanted: Wanted) -> None:
        """Add what `decide` of this message looks at and is not in memory."""

    @abstractmethod
    def load(self, settled: Iterable[Settled], tombstones: Iterable[Txn], accounts: Iterable[Account]) -> None:
        """Take in what the store had of what was wanted."""

    @abstractmethod
    def touches(self, record: Record) -> Iterable[str]:
        """The accounts that `apply` of this record changes, as far as they may not be in memory (replay)."""

    @abstractmethod
    def start(self, version: str) -> list[Record]:
        """The records of taking office, to be applied one by one."""

    @abstractmethod
    def decide(self, sender: Sender, n: int, message: AnyMessage, now: Now) -> Step:
        """What follows from a message."""

    @abstractmethod
    def decline(self, sender: Sender, n: int, message: AnyMessage, fault: Fault) -> Collection[Effect]:
        """The answer to a request that is not taken on now; nothing for messages that only bring news."""

    @abstractmethod
    def tick(self, now: Now) -> Step:
        """What follows from time passing; called about ten times a second."""

    @abstractmethod
    def peer_down(self, name: str, now: Now) -> None:
        """An actor of this name is silent."""

    @abstractmethod
    def status(self, about: About, now: Now) -> StatusInfo:
        """How this actor does."""

    def keys_seen(self, good: Iterable[NotedKey]) -> Step:
        """These keys may connect now: most actors do not mind."""
        return NOTHING

    def resume(self, now: Now) -> None:  # noqa: B027 - most actors have nothing to pick up
        """The state is restored and replayed: pick up what it left unfinished."""

    def forced(self, mono_us: int) -> None:  # noqa: B027 - most actors do not mind
        """All rows of the turn are on disk, since this moment. For who watches: nothing is decided by it."""

    def label_us(self, now: Now) -> int:
        """The time on rows written now: the wall clock, never going back (K1)."""
        at_us = self.time.read(now)
        if self.time.jumped:
            self.alarms["clock_jump"] = "the wall clock jumped forward: check the time, then restart this actor"
        return at_us


def fault_of(error: ZbankError) -> Fault:
    """The wire form of one of our own errors."""
    return Fault(code=error.code, detail=error.detail[:MAX_DETAIL_CHARS])


def not_for_me(role: str, sender: Sender, n: int, message: AnyMessage) -> Step:
    """A request that this kind of actor does not serve is answered so; news that it does not need is dropped."""
    if not isinstance(message, Request):
        return NOTHING
    fault = Fault(code="not_for_me", detail=f"a {role} does not take {type(message).__name__}")
    return Step(None, (Effect(sender.address, n, fault),))


CONFLICTING_ID = Fault(code="idempotency_conflict", detail="this id already stands for something else: use a fresh id")

JUMP_LIMIT_US = 10_000_000


EPOCH_LEAP = 1_000_000  #: of who was promoted, at least: its former self, however often it is started again, has a lower epoch


BUSY_RETRY_MS = 100  #: hint with `busy`


class Timekeeper:
    """Labels rows with wall time that never goes back, and notices a jump forward against the monotonic clock (K1)."""

    def __init__(self, last_us: int) -> None:
        self.last_us = last_us
        self._offset_us: int | None = None
        self.jumped = False

    def read(self, now: Now) -> int:
        """The label for a row written now, in microseconds UTC."""
        offset_us = now.wall_us - now.mono_us
        if self._offset_us is None:
            self._offset_us = offset_us
        elif offset_us - self._offset_us > JUMP_LIMIT_US:
            self.jumped = True
        elif offset_us < self._offset_us:
            self._offset_us = offset_us
        self.last_us = max(self.last_us, now.wall_us)
        return self.last_us
