"""The state of a coordinator: the fold of its journal. `apply` is the only way it changes (DESIGN §1)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from msgspec import Struct, field, msgpack
from msgspec.structs import replace

from zbank.domain.legs import DIGEST_BYTES
from zbank.errors import CorruptStore
from zbank.protocol.act_messages import ActInfo
from zbank.protocol.acts import ActBook
from zbank.protocol.codec import decode_meta, decode_record
from zbank.protocol.fold import Posting, Row, Settled
from zbank.protocol.messages import COMMITTED, AckedBy, RetiredInfo, Txn
from zbank.protocol.records import (
    AcksNamed,
    BranchJoined,
    BranchLeft,
    BranchPromoted,
    Content,
    Decided,
    Ended,
    KeysChanged,
    NotedKey,
    Promoted,
    Record,
    Started,
    TokenMade,
    TokenRevoked,
)
from zbank.protocol.tokens import Token, TokenBook

SETTLED_IN_MEMORY = 50_000


class OpenDecision(Struct, gc=False):
    """A commit that not every participant is known to have applied."""

    id: bytes
    txn: Txn
    number: int
    content: Content
    seq: int  #: of its Decided row


class TakenOver(Struct, array_like=True, frozen=True):
    """Where the journal of a former coordinator ends here, and this one's own begins."""

    epoch: int  #: the former one's
    seq: int  #: its last row here
    number: int  #: of its last commit here
    own_epoch: int  #: of the row after that


class CoordinatorMeta(Struct):
    """The small state of a coordinator, as it is posted."""

    number: int
    branches: dict[str, BranchJoined]
    tokens: list[Token] = field(default_factory=list)
    token_version: int = 0
    acts: list[ActInfo] = field(default_factory=list)
    keys: list[NotedKey] = field(default_factory=list)
    former: list[bytes] = field(default_factory=list)
    promotions: dict[str, BranchPromoted] = field(default_factory=dict)
    retired: list[RetiredInfo] = field(default_factory=list)
    acks: dict[str, AckedBy] = field(default_factory=dict)
    took_over: TakenOver | None = None
    replaced_seq: int = 0


_encode_meta = msgpack.Encoder().encode
_META = msgpack.Decoder(CoordinatorMeta)


class CoordinatorState:
    """Decisions and the directory. What is not posted yet is pinned in memory (PROTOCOL T4)."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.epoch = 0
        self.seq = 0
        self.at_us = 0
        self.number = 0  #: the highest commit number given (C1)
        self.branches: dict[str, BranchJoined] = {}
        self.promotions: dict[str, BranchPromoted] = {}  #: by branch: its last one
        self.former: list[bytes] = []  #: instances of stores that a promotion has put in another's place
        self.retired: dict[str, RetiredInfo] = {}  #: branches that have left for good, the latest last
        self.acks: dict[str, AckedBy] = {}  #: by branch, or by its own name: the last word on its synchronous replica
        self.took_over: TakenOver | None = None  #: from the coordinator whose place it took last
        self.replaced_seq = 0  #: the last word by which its synchronous replica is that no more; 0 = there was none
        self.tokens = TokenBook()
        self.acts = ActBook()
        self.open: dict[bytes, OpenDecision] = {}  #: by transfer id, oldest first
        self.settled: dict[bytes, Settled] = {}
        self._posted_seq = 0
        self._forget_changes()

    def restore(self, meta: bytes, watermark: int, epoch: int, at_us: int, open_rows: Iterable[Row]) -> None:
        """Take the state as of the watermark; the tail is then applied row by row. Raises CorruptStore for damaged data."""
        self._posted_seq = self.seq = watermark
        self.epoch = epoch
        self.at_us = at_us
        if not meta and not watermark:  # nothing was ever posted
            return
        kept = decode_meta(_META, meta)
        self.number = kept.number
        self.branches = kept.branches
        self.retired = {info.name: info for info in kept.retired}
        self.tokens = TokenBook(kept.tokens, kept.token_version)
        self.acts = ActBook(kept.acts, kept.keys)
        self.former = kept.former
        self.promotions = kept.promotions
        self.acks = kept.acks
        self.took_over = kept.took_over
        self.replaced_seq = kept.replaced_seq
        for row in open_rows:
            record = decode_record(row.body)
            if not isinstance(record, Decided):
                raise CorruptStore(f"row {row.seq} of the journal stands as open and is {row.kind}: restore a backup")
            self._open(record, row.seq)

    def apply(self, seq: int, epoch: int, at_us: int, record: Record) -> None:
        """Fold one record."""
        self.seq = seq
        self.epoch = epoch
        self.at_us = at_us
        _APPLY[type(record)](self, record)

    def _started(self, record: Started) -> None:
        pass  # the row's epoch says it all

    def _branch_joined(self, record: BranchJoined) -> None:
        self.acts.branch_joined(record, self.branches.get(record.name), self.seq, self.at_us)
        self.branches[record.name] = record

    def _branch_promoted(self, record: BranchPromoted) -> None:
        joined = self.branches[record.name]
        self.branches[record.name] = replace(joined, endpoint=record.endpoint, instance=record.instance)
        self.promotions[record.name] = record
        self.former = [one for one in (*self.former, record.former_instance) if one != record.instance]
        self.acts.branch_promoted(record, self.seq, self.at_us)
        if record.name in self.acks:  # the branch stands alone until another is named
            self.acks[record.name] = AckedBy("", b"", self.seq)

    def _branch_left(self, record: BranchLeft) -> None:
        self.acts.branch_left(record, self.seq, self.at_us)
        was = self.branches.pop(record.name)
        self.acks.pop(record.name, None)
        self.promotions.pop(record.name, None)  # nobody can be promoted to it any more; `former` stays
        self.retired[record.name] = RetiredInfo(was.name, was.endpoint, was.currency, was.instance, record.by, self.at_us)

    def _decided(self, record: Decided) -> None:
        self.number = max(self.number, record.number)
        self._open(record, self.seq)
        self._opened[record.id] = self.seq
        content = record.content
        self._settle(record.id, content.digest, content.caller, record.txn, record.number)

    def _settle(self, id: bytes, digest: bytes, caller: str, txn: Txn | None, number: int) -> None:
        """What an id stands for, for good (PROTOCOL T6): a decision, or a token that may be forgotten in time."""
        settled = Settled(
            id=id,
            digest=digest,
            caller=caller,
            outcome=COMMITTED,
            code="",
            detail="",
            txn=txn,
            number=number,
            seq=self.seq,
            source_seq=self.seq,
            at_us=self.at_us,
        )
        self.settled[id] = settled
        self._new_settled.append(settled)

    def _open(self, record: Decided, seq: int) -> None:
        self.open[record.id] = OpenDecision(record.id, record.txn, record.number, record.content, seq)

    def _ended(self, record: Ended) -> None:
        for ending in record.endings:
            del self.open[ending.id]
            if self._opened.pop(ending.id, None) is None:
                self._closed.append(ending.id)
            self._ends.append((ending.id, self.seq))

    def _token_made(self, record: TokenMade) -> None:
        self.tokens.made(record, self.seq, self.at_us)
        self.acts.token_made(record, self.seq, self.at_us)
        digest = record.secret_digest[:DIGEST_BYTES]  # no transfer has it
        self._settle(record.id, digest, record.caller, None, 0)

    def _token_revoked(self, record: TokenRevoked) -> None:
        self.acts.token_revoked(record, self.tokens.by_id[record.id].holder, self.seq, self.at_us)
        self.tokens.revoked(record, self.seq, self.at_us)

    def _keys_changed(self, record: KeysChanged) -> None:
        self.acts.keys_changed(record, self.seq, self.at_us)

    def _acks_named(self, record: AcksNamed) -> None:
        if record.of == self.name and self.name in self.acks and self.acks[self.name].replica:
            self.replaced_seq = self.seq
        self.acks[record.of] = AckedBy(record.replica, record.instance, self.seq)
        self.acts.acks_named(record, self.seq, self.at_us)

    def _promoted(self, record: Promoted) -> None:
        self.acks[self.name] = AckedBy("", b"", self.seq)  # who acknowledged is it: it stands alone until another is named
        self.took_over = TakenOver(record.former_epoch, self.seq - 1, self.number, self.epoch)
        self.acts.coordinator_promoted(record, self.seq, self.at_us)

    @property
    def unposted(self) -> int:
        """Rows applied since the last posting."""
        return self.seq - self._posted_seq

    def posting(self) -> Posting:
        """All that changed since the last posting (PROTOCOL T4)."""
        return Posting(
            seq=self.seq,
            meta=_encode_meta(self._meta()),
            accounts=[],
            entries=[],
            settled=self._new_settled,
            tombstones=[],
            opened=list(self._opened.items()),
            closed=self._closed,
            ended=self._ends,
        )

    def _meta(self) -> CoordinatorMeta:
        book = self.tokens
        acts = self.acts
        return CoordinatorMeta(
            self.number,
            self.branches,
            list(book.by_id.values()),
            book.version,
            list(acts.acts),
            list(acts.keys.values()),
            self.former,
            self.promotions,
            list(self.retired.values()),
            self.acks,
            self.took_over,
            self.replaced_seq,
        )

    def posted(self) -> None:
        """The last posting is in the store."""
        self._posted_seq = self.seq
        self._forget_changes()
        self.settled.clear()

    def trim(self) -> None:
        """Keep what was only read within bounds; what is not posted yet stays."""
        if len(self.settled) > SETTLED_IN_MEMORY + len(self._new_settled):
            self.settled = {settled.id: settled for settled in self._new_settled}

    def _forget_changes(self) -> None:
        self._new_settled: list[Settled] = []
        self._opened: dict[bytes, int] = {}
        self._closed: list[bytes] = []
        self._ends: list[tuple[bytes, int]] = []


_APPLY: dict[type[Record], Callable[[CoordinatorState, Any], None]] = {
    Started: CoordinatorState._started,
    BranchJoined: CoordinatorState._branch_joined,
    BranchPromoted: CoordinatorState._branch_promoted,
    BranchLeft: CoordinatorState._branch_left,
    Decided: CoordinatorState._decided,
    Ended: CoordinatorState._ended,
    TokenMade: CoordinatorState._token_made,
    TokenRevoked: CoordinatorState._token_revoked,
    KeysChanged: CoordinatorState._keys_changed,
    AcksNamed: CoordinatorState._acks_named,
    Promoted: CoordinatorState._promoted,
}
