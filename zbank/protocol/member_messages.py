"""A branch leaves the bank for good: asked for by an operator, said by the branch, noted by the coordinator."""

from __future__ import annotations

from zbank.domain.legs import BranchName
from zbank.domain.refusal import Refusal
from zbank.protocol.wire import Count, Message, Name, RetiredInfo


class RetireBranch(Message, frozen=True, tag="retire_branch"):
    """To the coordinator: close this branch for good. Answered by BranchRetired; may be asked for again and again."""

    branch: BranchName
    caller: Name = ""  #: in whose name, when the sender speaks for others


class BranchRetired(Message, frozen=True, tag="branch_retired"):
    """The branch has left, now or before."""

    info: RetiredInfo


class Retire(Message, frozen=True, tag="retire"):
    """Coordinator to branch: if there is nothing on your books and nothing promised, close for good."""

    by: Name  #: who asked for it
    epoch: Count  #: of the coordinator: one that comes late from an earlier term of office counts for nothing


class RetireAnswer(Message, frozen=True, tag="retire_answer"):
    """Branch to coordinator: closed for good, and forced; or why not. Said unasked to a coordinator that may not know."""

    by: Name  #: who asked for it
    refusal: Refusal | None = None  #: why the branch goes on; None = it is closed
