"""What passes between an actor's state machine and its store: journal rows one way, postings the other.

An actor folds its journal (DESIGN §1). Rows go to the store as they are decided; the folded state follows now and then
as a `Posting`, whole as of one row, and comes back at restart and on cache misses.
"""

from __future__ import annotations

from typing import NamedTuple

from msgspec import Struct

from zbank.domain.account import Account
from zbank.protocol.messages import Txn


class Row(NamedTuple):
    """One journal row. `chain` binds it to all rows before (PROTOCOL T5)."""

    seq: int  #: 1, 2, 3, … without gaps
    epoch: int  #: of the actor when it wrote the row
    at_us: int  #: wall clock, microseconds UTC, never going back
    kind: str  #: the record's tag
    id: bytes | None  #: the request or transfer the record is about; None when it is about none
    body: bytes  #: the record, msgpack
    chain: bytes  #: SHA-256, 32 bytes


class Settled(Struct, gc=False):
    """The final outcome of one client-chosen id (T6): kept for good."""

    id: bytes
    digest: bytes  #: of the content; b"" fits any (a cancel)
    caller: str
    outcome: str  #: "committed" or "aborted"
    code: str  #: refusal code; "" when committed
    detail: str  #: refusal detail; of an opened account its number
    txn: Txn | None  #: that settled it; None when no coordinator took part
    number: int  #: commit number; 0 when aborted
    seq: int  #: row that settled it
    source_seq: int  #: row that holds the content (Executed, Prepared, Decided); seq itself when there is no other
    at_us: int


class EntryRow(NamedTuple):
    """One posting on one account."""

    number: str  #: of the account
    seq: int  #: row that posted it
    leg: int  #: 0, 1, … among the entries of that row: (number, seq, leg) is unique
    amount_minor: int
    balance_minor: int  #: of the account after it
    source_seq: int  #: row that holds the content: legs, memo, date


class Posting(Struct):
    """All that the fold changed since the last posting, as of row `seq`: one commit with the watermark (T4)."""

    seq: int  #: the watermark
    meta: bytes  #: the actor's small state, whole, opaque to the store
    accounts: list[Account]  #: whole rows: insert or replace
    entries: list[EntryRow]
    settled: list[Settled]  #: new rows of `ids`
    tombstones: list[Txn]  #: txns that never prepare here (again)
    opened: list[tuple[bytes, int]]  #: (id, seq of the Prepared or Decided row): txns open as of the watermark
    closed: list[bytes]  #: ids of txns that were open at the watermark before and are no more
    ended: list[tuple[bytes, int]]  #: coordinator: (id, seq of the Ended row), to find the acks of a transfer again
