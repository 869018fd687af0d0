"""What a replica and its branch say to each other, and where a replica stands (PROTOCOL R1).

The same `Rows` come two ways. Over the feed they are pushed, and nothing depends on them: any branch's key may publish there,
and what a slow reader cannot take is lost. Asked for by `GetRows`, they come from the branch itself, with the chain value of
the row before them; what a replica heard from the feed counts once that value says that the branch has the same.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from zbank.protocol.wire import Count, Endpoint, Id, Message, Name, ReplicaInfo

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


class GetRows(Message, frozen=True, tag="rows?"):
    """To a branch: what stands in your journal after this row? Answered by Rows."""

    after: Count
    limit: Annotated[int, Meta(ge=0, le=MAX_ROWS)]


class Rows(Message, frozen=True, tag="rows"):
    """Rows of a branch's journal. In the feed: those of one force."""

    after: Count  #: the row before the first of these
    chain: ChainValue  #: of that row; b"" = the branch has no such row
    rows: Annotated[tuple[RowInfo, ...], Meta(max_length=MAX_ROWS)]
    epoch: Count  #: of the branch, now
    seq: Count  #: of the branch's last row


class RegisterReplica(Message, frozen=True, tag="replica"):
    """Replica to coordinator, again and again: here I am, and so far I have come. Answered by Registered."""

    info: ReplicaInfo


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
