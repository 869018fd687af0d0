"""What a replica and its branch say to each other, and where a replica stands (PROTOCOL R1).

The same `Rows` come two ways. Over the feed they are pushed, and nothing depends on them: any branch's key may publish there,
and what a slow reader cannot take is lost. Asked for by `GetRows`, they come from the branch itself, with the chain value of
the row before them; what a replica heard from the feed counts once that value says that the branch has the same.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from zbank.domain.legs import BranchName
from zbank.protocol.wire import (
    FAR_US,
    AckedBy,
    CommitNumber,
    Count,
    CurrencyCode,
    Date,
    Digest,
    Endpoint,
    Id,
    Legs,
    Memo,
    Message,
    Name,
    ReplicaInfo,
    Txn,
)

MAX_ROWS = 1_000  #: in one answer
MAX_ROW_BYTES = 64 * 1024  #: of one record; a transfer with 256 legs takes a third of it

ChainValue = Annotated[bytes, Meta(max_length=32)]


class RowInfo(Struct, array_like=True, frozen=True, gc=False, forbid_unknown_fields=True):
    """A row of a journal: its `seq` and chain value follow from the rows before."""

    epoch: Count
    at_us: Count
    kind: Name
    id: Id | None
    body: Annotated[bytes, Meta(max_length=MAX_ROW_BYTES)]


class Held(Struct, array_like=True, frozen=True, gc=False, forbid_unknown_fields=True):
    """A synchronous replica's acknowledgement: all rows up to this one are on its disk (PROTOCOL R3)."""

    instance: Id  #: of its store
    seq: Count
    chain: ChainValue  #: of that row
    of_us: Count = 0  #: `sent_us` of the last Rows that it got: the branch sees by it that this did not lie about somewhere


class GetRows(Message, frozen=True, tag="rows?"):
    """What stands in your journal after this row? Answered by Rows: at once, or with `held` when there is something."""

    after: Count
    limit: Annotated[int, Meta(ge=0, le=MAX_ROWS)]
    held: Held | None = None  #: from a synchronous replica: its question for more is the acknowledgement of what came


class Rows(Message, frozen=True, tag="rows"):
    """Rows of a branch's journal. In the feed: those of one force."""

    after: Count  #: the row before the first of these
    chain: ChainValue  #: of that row; b"" = the branch has no such row
    rows: Annotated[tuple[RowInfo, ...], Meta(max_length=MAX_ROWS)]
    epoch: Count  #: of the branch, now
    seq: Count  #: of the branch's last row
    sent_us: Count = 0  #: by the branch's monotonic clock; 0 in the feed


class RegisterReplica(Message, frozen=True, tag="replica"):
    """Replica to coordinator, again and again: here I am, and so far I have come. Answered by Registered."""

    info: ReplicaInfo


class Promote(Message, frozen=True, tag="promote"):
    """Operator to coordinator: let this replica take the place of its branch. Answered by Promoting or Fault."""

    branch: BranchName
    replica: Name
    instance: Id  #: of the replica's store, as the operator saw it
    caller: Name = ""  #: as in Transfer


class Promoting(Message, frozen=True, tag="promoting"):
    """It is recorded: the replica takes over as soon as it hears of it."""

    info: ReplicaInfo


class NameAcks(Message, frozen=True, tag="acks"):
    """Operator to coordinator: nothing more leaves this actor before this replica has it. Answered by Named or Fault."""

    of: Name  #: the branch, or the coordinator itself
    replica: Name  #: "" = none
    instance: Annotated[bytes, Meta(max_length=16)]  #: of the replica's store, as the operator saw it
    caller: Name = ""  #: as in Transfer


class Named(Message, frozen=True, tag="named"):
    """It is recorded: the branch follows as soon as it hears of it."""

    acks: AckedBy


class Lead(Message, frozen=True, tag="lead"):
    """Coordinator to a replica, in place of Registered: you are the branch now."""

    epoch: Count  #: at the least
    by: Name  #: the operator


class Look(Struct, array_like=True, frozen=True, gc=False, forbid_unknown_fields=True):
    """How far a coordinator's journal was looked through, backwards."""

    before: Count = FAR_US  #: the rows before this one are to come
    votes: Count = 0  #: decisions seen whose vote the branch has
    acks: Count = 0  #: endings seen whose ack the branch has


class GetDecisions(Message, frozen=True, tag="decisions?"):
    """A promoted branch to a coordinator: what was decided of which I lack the vote, or the commit?

    Answered by some Redeliver, in no order that matters, and then Redelivering.
    """

    branch: BranchName
    seq: Count  #: the last row that it has of its former self
    look: Look


class Redeliver(Message, frozen=True, tag="redeliver"):
    """A commit, with all that it says."""

    txn: Txn
    id: Id
    number: CommitNumber
    legs: Legs
    currency: CurrencyCode
    memo: Memo
    effective_on: Date
    digest: Digest
    caller: Name


class Redelivering(Message, frozen=True, tag="redelivering"):
    """How many of the commits asked for came before this, and whether that was all."""

    count: Count
    look: Look | None  #: to go on with; None = that was all
    asked: GetDecisions  #: what this answers


class Standing(Message, frozen=True, tag="standing"):
    """First in each frame of answers of a replica: as of when they are."""

    epoch: Count
    seq: Count  #: row of its branch's journal that all answers of this frame stand on
    behind: Count  #: rows that the branch is known to have more
    lag_us: Count  #: they show everything that the branch had so long ago


class Feed(Struct, array_like=True, frozen=True, gc=False, forbid_unknown_fields=True):
    """Where the feed is, at the coordinator's."""

    feed_in: Endpoint | None = None  #: branches publish there
    feed_out: Endpoint | None = None  #: replicas subscribe there
