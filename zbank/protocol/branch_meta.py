"""The parts of a branch's state, and its small state as it is posted."""

from __future__ import annotations

from msgspec import Struct

from zbank.domain.book import Movement
from zbank.protocol.messages import AckedBy, Txn
from zbank.protocol.records import Content


class PreparedTxn(Struct, gc=False):
    """A transfer this branch voted yes for and whose decision it does not know."""

    id: bytes
    txn: Txn
    content: Content
    movements: list[Movement]  #: of this branch, with the clearing one
    amounts: dict[str, int]  #: their net by account: what is held
    seq: int  #: of its Prepared row


class CoordinatorMark(Struct, array_like=True):
    """How far this branch has seen one coordinator (PROTOCOL P11)."""

    epoch: int
    number: int  #: highest commit number applied
    word: int = 0  #: row of its last word on its own synchronous replica, as far as this branch knows


class Retirement(Struct, array_like=True, frozen=True):
    """This branch is closed for good."""

    by: str  #: who asked the coordinator for it
    at_us: int


class BranchMeta(Struct):
    """The small state of a branch, as it is posted."""

    currency: str
    number: int
    next_number: int
    account_count: int
    coordinators: dict[str, CoordinatorMark]
    promotion: Promotion | None = None
    retired: Retirement | None = None
    acks: AckedBy | None = None


class Promotion(Struct, array_like=True):
    """A promotion that is not reconciled with every coordinator yet."""

    seq: int  #: the last row that was taken over, by the first of several in a row
    reconciled: list[str]  #: coordinators that have told all
