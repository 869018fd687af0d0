"""A local transfer that was handed to the coordinator: passed on to its branch, nothing recorded (PROTOCOL P1)."""

from __future__ import annotations

from typing import NamedTuple

from zbank.clock import Now
from zbank.protocol.machine import BUSY_RETRY_MS, NOTHING, Address, Effect, Sender, Step
from zbank.protocol.messages import Fault, Forward, Outcome, Transfer

FORWARD_LIMIT_US = 10_000_000
MAX_FORWARDS = 20_000
EPOCH_SHIFT = 32  #: an epoch forwards fewer than 2**32 requests
EPOCH_MASK = 2**30 - 1  #: an envelope's number has 64 bits, and an epoch may be high; one and the next differ all the same


class Waiting(NamedTuple):
    """A request that was handed on."""

    address: Address  #: of the client
    n: int  #: the client's number for it
    branch: str  #: that it was handed to
    id: bytes
    forget_us: int  #: monotonic


class Forwarder:
    """Who waits for which forwarded request."""

    def __init__(self) -> None:
        self._waiting: dict[int, Waiting] = {}  #: by number, oldest first
        self._last = 0

    def forward(self, sender: Sender, n: int, message: Transfer, branch: str, epoch: int, now: Now) -> Step:
        """Hand it on. The number is of this epoch, so that a late answer of an earlier one is nobody's."""
        if len(self._waiting) >= MAX_FORWARDS:
            busy = Fault(code="busy", detail="too many requests are being handed on", retry_after_ms=BUSY_RETRY_MS)
            return Step(None, (Effect(sender.address, n, busy),))
        self._last = max(self._last, (epoch & EPOCH_MASK) << EPOCH_SHIFT) + 1
        self._waiting[self._last] = Waiting(sender.address, n, branch, message.id, now.mono_us + FORWARD_LIMIT_US)
        return Step(None, (Effect(branch, self._last, Forward(sender.caller, message)),))

    def answered(self, branch: str, n: int, message: Outcome | Fault) -> Step:
        """The branch's answer, on its way back."""
        waiting = self._waiting.get(n)
        if waiting is None or waiting.branch != branch:
            return NOTHING
        if isinstance(message, Outcome) and message.id != waiting.id:
            return NOTHING
        del self._waiting[n]
        return Step(None, (Effect(waiting.address, waiting.n, message),))

    def forget(self, now: Now) -> None:
        """Drop what was never answered: the client has given up, or will ask again."""
        for number, waiting in list(self._waiting.items()):
            if now.mono_us < waiting.forget_us:
                break
            del self._waiting[number]
