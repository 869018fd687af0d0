"""What actors say to each other: registration, two-phase commit, inquiry."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from zbank.domain.refusal import Refusal
from zbank.protocol.client_messages import Outcome, Transfer
from zbank.protocol.replica_messages import Feed
from zbank.protocol.wire import BranchInfo, CommitNumber, Count, Digest, Id, Message, Name, Txn


class Register(Message, frozen=True, tag="register"):
    """Branch to coordinator, after Welcome: here I am (DESIGN §5, PROTOCOL P11)."""

    info: BranchInfo
    coordinator_epoch: Count  #: the highest epoch of this coordinator that the branch knows of
    coordinator_number: CommitNumber  #: the highest commit number of this coordinator that the branch has applied
    acks: Name = ""  #: the replica that its config wants as the synchronous one; "" = none
    coordinator_word: Count = 0  #: the latest `Registered.word` of this coordinator that the branch knows of


class Registered(Message, frozen=True, tag="registered"):
    """Coordinator to branch, or to a replica: you are in the directory."""

    coordinator: Name
    epoch: Count
    branches: tuple[BranchInfo, ...]
    feed: Feed = Feed()
    word: Count = 0  #: row of the coordinator's last word on its own synchronous replica; 0 = there was none


class Beat(Message, frozen=True, tag="beat"):
    """Application heartbeat, both ways: the actor's loop turns. Answered by Beat with `answer` set."""

    answer: bool


class Position(Message, frozen=True, tag="position"):
    """First in each frame of a branch that carries votes or acks: where its journal stands after the force (P11)."""

    epoch: Count
    seq: Count
    chain: Annotated[bytes, Meta(min_length=32, max_length=32)]
    turn_us: Count  #: how long this turn took, from the first message read to the force


class Forward(Message, frozen=True, tag="forward"):
    """Coordinator to branch: a local transfer that was handed to the wrong door (P1). Answered by Outcome or Fault."""

    caller: Name
    transfer: Transfer


class Prepare(Message, frozen=True, tag="prepare"):
    """Coordinator to branch: can you, and will you whatever happens, do your legs of this transfer?"""

    txn: Txn
    transfer: Transfer  #: all legs, also those of others: for statements, inquiries, redelivery
    digest: Digest  #: of the content
    caller: Name


YES = "yes"
REFUSED = "refused"
KNOWN = "known"
OCCUPIED = "occupied"
VOID = "void"  # this txn was voided here (tombstone): it can never prepare here; the id may be tried under another txn
STALE = "stale"  # a newer epoch of this coordinator is in office: the sender must leave
CONFLICT = "conflict"  # the id stands for other content, or belongs to another caller
BUSY = "busy"
STORAGE_FULL = "storage_full"
STOPPED = "stopped"  # the branch waits for its synchronous replica


class Vote(Message, frozen=True, tag="vote"):
    """The answer to Prepare. Only `yes` binds."""

    txn: Txn
    id: Id
    answer: Name  #: YES, REFUSED, KNOWN, OCCUPIED, VOID, STALE, CONFLICT, BUSY, STORAGE_FULL or STOPPED
    number: CommitNumber  #: the branch's commit number (C1)
    seq: Count  #: journal position that this answer stands on
    outcome: Outcome | None = None  #: with KNOWN
    refusal: Refusal | None = None  #: with REFUSED
    final: bool = False  #: with REFUSED: the id's tombstone is forced here (this is the home branch)
    other: Txn | None = None  #: with OCCUPIED: the txn that holds the id here


class Commit(Message, frozen=True, tag="commit"):
    """The decision commit, from the coordinator or, after an inquiry, from a participant that knows it."""

    txn: Txn
    id: Id
    number: CommitNumber


class Abort(Message, frozen=True, tag="abort"):
    """The decision abort. With a refusal it also settles the id for good, at the home branch (P6)."""

    txn: Txn
    id: Id
    refusal: Refusal | None = None
    digest: Digest = b""  #: with a refusal
    caller: Name = ""  #: with a refusal


class Ack(Message, frozen=True, tag="ack"):
    """The branch has done what Commit or Abort said, and forced it."""

    txn: Txn
    id: Id
    seq: Count
    outcome: Outcome | None = None  #: to an Abort with a refusal: what the id now is here
    other: Txn | None = None  #: the txn that occupies the id; with neither, the id stands for other content


class Inquiry(Message, frozen=True, tag="inquiry"):
    """A branch in doubt asks the coordinator or a participant (P8). Answered by Commit, Abort or StillPending."""

    txn: Txn
    id: Id


class StillPending(Message, frozen=True, tag="pending"):
    """The answer to an Inquiry while nothing can be said: collecting, prepared here too, or not reconciled."""

    txn: Txn
    id: Id
