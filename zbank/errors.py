"""Every exception of zbank, in one tree.

A refusal is a business "no" and a value (`zbank.domain.refusal`). What stands here are faults: something could not be
done, or not be known. `Faulty` input, a peer that erred and a disk that failed are different types, because a caller does
different things about them. Each type knows the stable `code` that goes over the wire.
"""

from __future__ import annotations

from typing import ClassVar


class ZbankError(Exception):
    """Base of all. `str(error)` is one plain sentence: what happened, to what, and what to do next."""

    code: ClassVar[str] = "error"

    @property
    def detail(self) -> str:
        """The sentence alone."""
        return str(self)


# --- the caller erred -------------------------------------------------------------------------------------------------


class InvalidInput(ZbankError):
    """A value that breaks the rules of its kind (amount, account name, id, legs): nothing was done."""

    code = "malformed"


class InvalidAmount(InvalidInput):
    """An amount that is not an exact positive decimal of its currency within 63 bits."""

    code = "invalid_amount"


class InvalidConfig(ZbankError):
    """A config file or flag that cannot be used; names file, key, what is wrong and what would be right."""

    code = "invalid_config"


# --- the peer erred ---------------------------------------------------------------------------------------------------


class BadFrame(ZbankError):
    """Bytes from a peer that are no batch of messages within the limits. Costs the sender an error and nobody else anything."""

    code = "bad_frame"


class ProtocolViolation(ZbankError):
    """A well-formed message that contradicts what is known for certain (a commit of a txn that was aborted)."""

    code = "protocol_violation"


# --- the store --------------------------------------------------------------------------------------------------------


class StoreError(ZbankError):
    """The store cannot go on. Unless a subclass says otherwise the process must exit and replay."""

    code = "store_failed"


class StorageFull(StoreError):
    """No room; the commit was rolled back, verified. The actor rebuilds from the store and goes on when there is room."""

    code = "storage_full"


class FenceLost(StoreError):
    """Another process has taken this actor's office (PROTOCOL R5): exit at once, answer nothing."""

    code = "fence_lost"


class Superseded(ZbankError):
    """A replica took this branch's place: what this process wrote after that is void."""

    code = "superseded"


class ForeignStore(StoreError):
    """The file belongs to another actor, cluster or program, or to a newer version."""

    code = "foreign_store"


class CorruptStore(StoreError):
    """The file is damaged or its hash chain does not hold."""

    code = "corrupt_store"


# --- what a client meets ----------------------------------------------------------------------------------------------


class RemoteFault(ZbankError):
    """A server's "not done, or not known": never an outcome. The same id may be sent again.

    `remote_code` is the stable code from the wire; `retry_after_ms` is a hint, 0 when there is none.
    """

    code = "remote_fault"

    def __init__(self, remote_code: str, detail: str, retry_after_ms: int = 0) -> None:
        super().__init__(detail)
        self.remote_code = remote_code
        self.retry_after_ms = retry_after_ms


class Unreachable(ZbankError):
    """Nobody answered at an address, and nothing of the request left this process: it was not done."""

    code = "unreachable"


class NoAnswer(ZbankError):
    """A read got no answer within its time. (A write that got none ends as status `unknown` instead.)"""

    code = "no_answer"


class ClientClosed(ZbankError):
    """The client was closed before this request ended."""

    code = "client_closed"


class Refused(ZbankError):
    """A business "no" where no result object can carry it (opening or changing an account). `refusal_code` is stable."""

    code = "refused"

    def __init__(self, refusal_code: str, detail: str) -> None:
        super().__init__(detail)
        self.refusal_code = refusal_code
