"""What a coordinator remembers of transfers that are not decided: none of it durable, a restart presumes abort (P5)."""

from __future__ import annotations

from msgspec import Struct

from zbank.domain.legs import branches_of, home_branch
from zbank.domain.refusal import Refusal
from zbank.protocol.machine import BUSY_RETRY_MS, Address
from zbank.protocol.messages import Fault, Prepare, Transfer, Txn
from zbank.protocol.records import BranchVote, Content

COLLECTING = "collecting"  # Prepares are out; nothing is decided
WAITING = "waiting"  # this attempt is void; the next one starts at `next_us`
ABORTING = "aborting"  # refused; the home branch is to force the id's tombstone before the client is told

MAX_IN_FLIGHT = 20_000  #: transfers, decided ones among them
VOTE_LIMIT_US = 4_000_000  #: from the request to the last vote
RESEND_US = 500_000
RETRY_US = 200_000  #: from a void attempt to the next

Waiter = tuple[Address, int]  #: whom to tell, and the envelope number of the request


class Attempt(Struct):
    """A transfer that is not decided. Times are monotonic microseconds."""

    transfer: Transfer
    content: Content
    branches: tuple[str, ...]
    home: str
    txn: Txn
    phase: str
    waiters: list[Waiter]
    request_us: int
    deadline_us: int
    next_us: int  #: when to send again what is unanswered, or to start the next attempt
    home_first: bool  #: ask the home branch alone until it says yes
    is_conflicting: bool  #: elsewhere the id stands for something else: home's vote says what is told
    votes: dict[str, BranchVote]
    number: int  #: highest commit number among the votes
    refusal: Refusal | None

    @property
    def prepare(self) -> Prepare:
        """The message that asks for a vote."""
        return Prepare(self.txn, self.transfer, self.content.digest, self.content.caller)

    def to_ask(self) -> list[str]:
        """The branches whose vote is missing and that may be asked now."""
        if self.home_first and self.home not in self.votes:
            return [self.home]
        return [branch for branch in self.branches if branch not in self.votes]


def new_attempt(transfer: Transfer, content: Content, txn: Txn, waiter: Waiter, now_us: int) -> Attempt:
    """A first attempt, nothing sent yet."""
    return Attempt(
        transfer=transfer,
        content=content,
        branches=branches_of(transfer.legs),
        home=home_branch(transfer.legs),
        txn=txn,
        phase=COLLECTING,
        waiters=[waiter],
        request_us=now_us,
        deadline_us=now_us + VOTE_LIMIT_US,
        next_us=0,
        home_first=False,
        is_conflicting=False,
        votes={},
        number=0,
        refusal=None,
    )


def busy(count: int) -> Fault | None:
    """Why no transfer can begin when so many are under way; None when one can."""
    if count < MAX_IN_FLIGHT:
        return None
    detail = "the coordinator has its hands full: send the same id again in a moment"
    return Fault(code="busy", detail=detail, retry_after_ms=BUSY_RETRY_MS)
