"""A local transfer that was handed to the coordinator: passed on to its branch, nothing recorded (PROTOCOL P1)."""

from __future__ import annotations

from zbank.clock import Now
from zbank.protocol.attempts import Waiter
from zbank.protocol.machine import NOTHING, Effect, Sender, Step
from zbank.protocol.messages import Fault, Forward, Outcome, Transfer

FORWARD_LIMIT_US = 10_000_000
MAX_FORWARDS = 20_000
BUSY_RETRY_MS = 100
EPOCH_SHIFT = 32  #: an epoch forwards fewer than 2**32 requests


class Forwarder:
    """Who waits for which forwarded request."""

    def __init__(self) -> None:
        self._waiting: dict[int, tuple[Waiter, int]] = {}  #: by number, oldest first: the client, when to forget it
        self._last = 0

    def forward(self, sender: Sender, n: int, message: Transfer, branch: str, epoch: int, now: Now) -> Step:
        """Hand it on. The number is of this epoch, so that a late answer of an earlier one is nobody's."""
        if len(self._waiting) >= MAX_FORWARDS:
            busy = Fault(code="busy", detail="too many requests are being handed on", retry_after_ms=BUSY_RETRY_MS)
            return Step(None, (Effect(sender.address, n, busy),))
        self._last = max(self._last, epoch << EPOCH_SHIFT) + 1
        self._waiting[self._last] = (sender.address, n), now.mono_us + FORWARD_LIMIT_US
        return Step(None, (Effect(branch, self._last, Forward(sender.caller, message)),))

    def answered(self, n: int, message: Outcome | Fault) -> Step:
        """The branch's answer, on its way back."""
        waiting = self._waiting.pop(n, None)
        if waiting is None:
            return NOTHING
        (address, client_n), _ = waiting
        return Step(None, (Effect(address, client_n, message),))

    def forget(self, now: Now) -> None:
        """Drop what was never answered: the client has given up, or will ask again."""
        for number, (_, forget_us) in list(self._waiting.items()):
            if now.mono_us < forget_us:
                break
            del self._waiting[number]
