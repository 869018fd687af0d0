"""A client's requests: what they ask of whom, which answers end them, and how they end when none comes.

A request ends exactly once, by resolving its future. A write that may have reached a server and got no answer ends as
`unknown`; only one that surely was not done ends with an error.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import Any, ClassVar, Generic, NamedTuple, TypeVar

from zbank.domain.legs import Leg
from zbank.errors import NoAnswer, RemoteFault, Unreachable, ZbankError
from zbank.ids import format_id
from zbank.protocol.messages import PENDING, UNKNOWN, AnyMessage, Cancel, Outcome, Standing, Transfer
from zbank.transport.views import TransferResult, lag_seconds

T = TypeVar("T")

#: Targets that are no branch: a branch name begins with a letter.
THE_COORDINATOR = "*coordinator"
THE_CONTACT = "*contact"  #: whoever answers at the client's own address; the answer is its Welcome

REPLICA_OF = "~"  #: before a branch's name: a replica of it

FAULT_RETRIES = frozenset({"busy", "stopping"})  #: faults after which the same request is sent again


COMING_US = 50_000  #: until a replica that has not come far enough is asked again


class Near(NamedTuple):
    """What somebody who reads at replicas wants."""

    max_lag_us: int = -1  #: everything that the branch had so long ago must be there; -1 = however old
    after: Mapping[str, int] = {}  #: by branch: the row that the replica must have


class Reply(Future[T]):
    """The future of a request. What has been asked of the bank cannot be taken back by `cancel()`: it returns False."""

    def cancel(self) -> bool:
        """False always: use `Client.cancel` to ask the bank for a cancellation."""
        return False


class Request(Generic[T]):
    """One thing asked. The core alone changes what stands here."""

    __slots__ = (
        "answered",
        "build",
        "currency_branch",
        "deadline_us",
        "done",
        "fault",
        "flying_at",
        "future",
        "message",
        "moves",
        "n",
        "peer",
        "queued",
        "retry_us",
        "sends",
        "sent_us",
        "since_us",
        "submitted_us",
        "target",
        "timeout_us",
    )

    is_write: ClassVar[bool] = False

    def __init__(
        self,
        target: str,
        message: AnyMessage | None,
        timeout_us: int,
        build: Callable[[str], AnyMessage] | None = None,
        currency_branch: str = "",
    ) -> None:
        self.target = target  #: a branch, THE_COORDINATOR or THE_CONTACT
        self.message = message  #: None until the currency of `currency_branch` is known; then `build` makes it
        self.build = build
        self.currency_branch = currency_branch
        self.timeout_us = timeout_us
        self.future: Reply[T] = Reply()
        self.n = 0
        self.flying_at: Any = None  #: the core's Peer that has it and has not answered
        self.peer: Any = None  #: the core's Peer it goes to; None while that is not known
        self.done = False
        self.queued = False  #: stands in the peer's outbox
        self.sends = 0  #: how often it was handed to a connected socket
        self.answered = 0  #: how many of these were answered by a fault
        self.sent_us = 0
        self.retry_us = 0  #: not before this (a server said busy); 0 = no such wish
        self.submitted_us = 0
        self.since_us = 0  #: a directory asked for before this is too old to say "no such branch"
        self.deadline_us = 0
        self.moves = 0  #: how often a server said `not_here`
        self.fault: ZbankError | None = None  #: the last fault, retried

    def landed(self) -> None:
        """It is not at any server any more: answered, given up, or to be sent anew."""
        if self.flying_at is not None:
            self.flying_at.flying -= 1
            self.flying_at = None

    def is_early(self) -> bool:
        """Whoever answers has not come so far that its answer counts: it is asked again."""
        return False

    def stale(self) -> RemoteFault | None:
        """Why no answer of whoever answers counts, for it is too old."""
        return None

    def accept(self, answer: AnyMessage) -> bool:
        """End with this answer; False (and nothing done) when it is not one to this request."""
        raise NotImplementedError

    def end_unknown(self, reason: str) -> None:
        """End without an answer, although a server may have got the request."""
        raise NotImplementedError

    def give_up(self, who: str, endpoint: str) -> None:
        """End because the time is over: nothing that ends it came from `who` at `endpoint`."""
        if self.sends > self.answered:
            self.end_unknown(f"no answer from {who} at {endpoint} within {self.timeout_us / 1e6:g} s")
        elif self.fault is not None:
            self.end_failed(self.fault)
        else:
            advice = "Check the address, the port and the firewall; and your keys, where the bank has some (ZBANK_KEYS)"
            self.end_failed(Unreachable(f"no answer from {endpoint}: is {who} running there? {advice}"))

    def end_failed(self, error: BaseException) -> None:
        """End with an error."""
        self.done = True
        self.future.set_exception(error)


class TransferWrite(Request[TransferResult]):
    """A Transfer or a Cancel: ends as TransferResult."""

    __slots__ = ("id",)
    is_write = True

    def __init__(
        self,
        target: str,
        id: bytes,
        message: Transfer | Cancel | None,
        timeout_us: int,
        build: Callable[[str], AnyMessage] | None = None,
        currency_branch: str = "",
    ) -> None:
        super().__init__(target, message, timeout_us, build, currency_branch)
        self.id = id

    def accept(self, answer: AnyMessage) -> bool:
        """By an Outcome of this id."""
        if type(answer) is not Outcome or answer.id != self.id:
            return False
        legs, currency = self._content()
        self.done = True
        self.future.set_result(
            TransferResult(
                format_id(self.id),
                answer.status,
                answer.refusal,
                legs,
                currency,
                answer.number,
                answer.at_us,
                answer.replayed,
                answer.applied,
                "the bank is still working on it" if answer.status == PENDING else "",
                {place.branch: place.seq for place in answer.places},
            )
        )
        return True

    def end_unknown(self, reason: str) -> None:
        """As a result with status `unknown`."""
        legs, currency = self._content()
        self.done = True
        self.future.set_result(TransferResult(format_id(self.id), UNKNOWN, legs=legs, currency=currency, reason=reason))

    def _content(self) -> tuple[tuple[Leg, ...], str]:
        message = self.message
        return (message.legs, message.currency) if type(message) is Transfer else ((), "")


class Ask(Request[T]):
    """Anything answered by one typed message; `convert` makes the result of it, or raises what the caller shall get."""

    __slots__ = ("accepts", "convert", "no_answer")

    def __init__(
        self,
        target: str,
        message: AnyMessage | None,
        timeout_us: int,
        accepts: tuple[type, ...],
        convert: Callable[[Any], T],
        no_answer: Callable[[str], ZbankError],
        build: Callable[[str], AnyMessage] | None = None,
        currency_branch: str = "",
    ) -> None:
        super().__init__(target, message, timeout_us, build, currency_branch)
        self.accepts = accepts
        self.convert = convert
        self.no_answer = no_answer

    def accept(self, answer: AnyMessage) -> bool:
        """By a message of one of the types in `accepts`."""
        if not isinstance(answer, self.accepts):
            return False
        try:
            result = self.convert(answer)
        except Exception as error:  # whatever it is, it is the caller's, and must not stop the I/O thread
            self.end_failed(error)
        else:
            self.done = True
            self.future.set_result(result)
        return True

    def end_unknown(self, reason: str) -> None:
        """With the error that `no_answer` makes of the reason."""
        self.end_failed(self.no_answer(reason))


class ReplicaAsk(Ask[T]):
    """A read at a replica: its answer counts when the replica has come far enough."""

    __slots__ = ("after", "at", "convert_at", "max_lag_us")

    def __init__(
        self,
        branch: str,
        message: AnyMessage,
        timeout_us: int,
        accepts: type,
        convert_at: Callable[[Any, Standing], T],
        near: Near,
    ) -> None:
        super().__init__(REPLICA_OF + branch, message, timeout_us, (accepts,), self._convert, NoAnswer)
        self.convert_at = convert_at
        self.after = near.after.get(branch, 0)
        self.max_lag_us = near.max_lag_us
        self.at: Standing | None = None  #: as of when the last answer was

    def accept(self, answer: AnyMessage) -> bool:
        """Not before the replica has come to the row that is waited for."""
        return not self.is_early() and super().accept(answer)

    def is_early(self) -> bool:
        """It has not come to the row that is waited for."""
        self.at = self.peer.standing
        if self.at is None or self.at.seq >= self.after:
            return False
        self.retry_us = self.peer.heard_us + COMING_US
        return True

    def stale(self) -> RemoteFault | None:
        """It lags more than was allowed."""
        if self.at is None or not 0 <= self.max_lag_us < self.at.lag_us:
            return None
        return RemoteFault("stale", f"the replica {_lag_text(self.at)}: ask the branch, or allow more")

    def _convert(self, answer: Any) -> T:
        if self.at is None:
            raise RemoteFault("not_a_replica", f"what answers at {self.peer.endpoint} is no replica: it says no \"as of\"")
        if (stale := self.stale()) is not None:
            raise stale
        return self.convert_at(answer, self.at)

    def end_unknown(self, reason: str) -> None:
        """It never came so far."""
        if self.at is not None and self.at.seq < self.after:
            text = f"the replica has come to row {self.at.seq}, not to row {self.after}, within {self.timeout_us / 1e6:g} s"
            self.end_failed(RemoteFault("stale", f"{text}, and {_lag_text(self.at)}"))
        else:
            super().end_unknown(reason)


def _lag_text(at: Standing) -> str:
    lag_s = lag_seconds(at.lag_us)
    return "was not level with its branch yet" if lag_s is None else f"was level with its branch {lag_s:.1f} s ago"


class AccountWrite(Ask[T]):
    """OpenAccount or ChangeAccount: an Ask that changes something."""

    __slots__ = ()
    is_write = True
