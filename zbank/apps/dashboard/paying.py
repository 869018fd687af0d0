"""Paying once. The key of a payment is made when its form is shown and stays its key until the outcome is known: a second
click, a rerun of the page, a reload, or asking again after a lost answer all mean the same transfer (PROTOCOL P7).

    form ── review ──▶ review ── confirm ──▶ sending ──▶ done | refused | unknown
      ▲                   │                    ▲                          │
      └────── back ───────┘                    └─────── check again ──────┘

Nothing here draws anything. What a page shows is decided by `state` alone.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any

from zbank.apps.dashboard.rest import AnswerLost, Refused, Rest, SignInNeeded
from zbank.ids import new_key

FORM = "form"
REVIEW = "review"
SENDING = "sending"
DONE = "done"
REFUSED = "refused"
UNKNOWN = "unknown"

OVER = (DONE, REFUSED)
REMEMBERED = 10_000


@dataclass
class Payment:
    """One form's payment, from the empty form to its outcome."""

    key: str = field(default_factory=new_key)
    state: str = FORM
    path: tuple[str, ...] = ()  #: of the bridge: what kind of payment it is
    body: dict[str, Any] = field(default_factory=dict)
    shown: list[tuple[str, str]] = field(default_factory=list)  #: what is paid, in words: (label, value)
    amount: str = ""  #: with the currency, as it is shown
    transfer: dict[str, Any] | None = None  #: the outcome, as far as it is known
    text: str = ""  #: why it was refused, or why the outcome is not known

    def review(self, path: tuple[str, ...], body: dict[str, Any], amount: str, shown: list[tuple[str, str]]) -> None:
        """The form is whole: show what would be done. Later clicks change nothing."""
        if self.state == FORM:
            self.path, self.body, self.amount, self.shown = path, body, amount, shown
            self.state = REVIEW

    def back(self) -> None:
        """To the form. Nothing was sent, so the key is still good."""
        if self.state == REVIEW:
            self.state = FORM

    def confirm(self) -> None:
        """From now on it is under way, under this key and no other; a second click finds it so."""
        if self.state == REVIEW:
            self.state = SENDING

    def check_again(self) -> None:
        """Ask again, under the same key."""
        if self.state == UNKNOWN:
            self.state = SENDING

    def send(self, rest: Rest) -> None:
        """Ask the bank, if it has to be asked. Raises SignInNeeded; all else becomes the state."""
        if self.state != SENDING:
            return
        try:
            told = rest.do("POST", *self.path, body=self.body, key=self.key)
        except AnswerLost as lost:
            self.state, self.text = UNKNOWN, lost.text
        except SignInNeeded:
            raise
        except Refused as refused:
            if refused.status == 429:  # it was not looked at: the key is as good as before
                self.state, self.text = UNKNOWN, refused.text
            else:
                self.state, self.text = REFUSED, refused.text
        else:
            self._take(told)

    def cancel(self, rest: Rest) -> None:
        """Make sure that it never happens, if it has not yet. Raises SignInNeeded; all else becomes the state."""
        if self.state != UNKNOWN:
            return
        try:
            self._take(rest.do("POST", "v1", "transfers", "by-key", "cancel", query={"key": self.key}))
        except AnswerLost as lost:
            self.text = lost.text
        except SignInNeeded:
            raise
        except Refused as refused:  # it was refused long ago, for another reason
            self.state, self.text = REFUSED, refused.text

    def look_up(self, rest: Rest) -> None:
        """What became of a payment of which only the key is left. Raises what `Rest.get` raises, but for not found."""
        try:
            self._take(rest.get("v1", "transfers", "by-key", key=self.key))
        except SignInNeeded:
            raise
        except Refused as refused:
            if refused.status != 404:
                raise
            self.state, self.transfer = UNKNOWN, None
            self.text = "No branch and no coordinator has heard of this payment: as it stands, nothing was paid."

    def _take(self, transfer: dict[str, Any]) -> None:
        self.transfer = transfer
        if transfer["status"] == "committed":
            self.state, self.text = DONE, ""
        elif transfer["status"] == "aborted":
            refusal = transfer["refusal"] or {}
            self.state, self.text = REFUSED, refusal.get("detail", "It was not done.")
        else:
            self.state, self.text = UNKNOWN, transfer["reason"] or "The bank is still at work on it."


class Payments:
    """Payments that were confirmed, for pages that were reloaded: by key and by whose they are. Any thread may ask."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._by_key: OrderedDict[tuple[str, str], Payment] = OrderedDict()

    def keep(self, owner: str, payment: Payment) -> None:
        """Remember it. The oldest are forgotten; their outcome can still be looked up at the bank."""
        with self._lock:
            self._by_key[owner, payment.key] = payment
            self._by_key.move_to_end((owner, payment.key))
            while len(self._by_key) > REMEMBERED:
                self._by_key.popitem(last=False)

    def find(self, owner: str, key: str) -> Payment | None:
        """The payment of this key, if it is this one's."""
        with self._lock:
            return self._by_key.get((owner, key))
