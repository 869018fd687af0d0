"""What the bridge knows of tokens: the coordinator's list, followed by a thread; and who a request comes from by it.

A token that was just made is known at its first use: an unknown one makes the bridge ask. A revoked one is refused within
FOLLOW_S. While the coordinator is away the list known last holds, for STALE_S.
"""

from __future__ import annotations

import hmac
import logging
import threading
import time

from zbank import Client
from zbank.apps.api.access import ANYBODY, Principal
from zbank.clock import Clock
from zbank.errors import ZbankError
from zbank.ids import format_id
from zbank.protocol.messages import TokenInfo
from zbank.transport.client_tokens import secret_digest

FOLLOW_S = 0.5
WAIT_S = 1.0  #: for another thread that asks already
ASK_AGAIN_S = 0.1  #: for unknown tokens the list is asked for at most so often
STALE_S = 900.0

log = logging.getLogger("zbank.rest")


class TokensUnknown(ZbankError):
    """The coordinator was not reached (lately): nobody can be let in, and nobody be told that a token is no good."""

    code = "unavailable"


class TokenList:
    """The tokens of one bridge. Any thread may ask it."""

    def __init__(self, bank: Client, *, is_open_allowed: bool) -> None:
        """`is_open_allowed`: while no token was ever made, anybody may do anything (this machine's demo)."""
        self._bank = bank
        self._clock = Clock()
        self._is_open_allowed = is_open_allowed
        self._by_digest: dict[bytes, TokenInfo] = {}
        self._version = -1
        self._heard_s = -STALE_S
        self._asked_s = -STALE_S
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="zbank-tokens", daemon=True)

    def start(self) -> None:
        """Begin to follow the coordinator's list."""
        self._thread.start()

    def close(self) -> None:
        """Stop following. The thread may still wait for the coordinator: it ends at the latest with the client."""
        self._stop.set()

    @property
    def is_known(self) -> bool:
        """The list was heard of lately enough to go by it."""
        return time.monotonic() - self._heard_s < STALE_S

    @property
    def is_any(self) -> bool:
        """A token was made, good or revoked meanwhile."""
        return bool(self._by_digest)

    @property
    def is_open(self) -> bool:
        """No token was ever made, and here that means: anybody may do anything."""
        return self._is_open_allowed and self.is_known and not self._by_digest

    def principal(self, secret: str, *, may_ask: bool) -> Principal | None:
        """Who holds this secret; None when nobody (any more) does. Raises TokensUnknown.

        `may_ask`: the coordinator may be asked about one that is not known, which may have been made just now.
        """
        digest = secret_digest(secret)
        token = self._by_digest.get(digest)
        if token is None and may_ask:
            if not self.refresh(came_s=time.monotonic()):
                raise TokensUnknown("the coordinator, which alone may know this token, cannot be asked now: try again later")
            token = self._by_digest.get(digest)
        self._check_known()
        if token is None or not hmac.compare_digest(token.secret_digest, digest) or token.revoked_us:
            return None
        if token.expires_us and self._clock.now().wall_us >= token.expires_us:
            return None
        return Principal(token.holder, token.role, frozenset(token.accounts), format_id(token.id))

    def nobody(self) -> Principal | None:
        """Who asks without a token: anybody, where that is allowed; else None. Raises TokensUnknown."""
        if not self.is_known:
            self.refresh(came_s=time.monotonic())
        self._check_known()
        return ANYBODY if self.is_open else None

    def refresh(self, *, came_s: float | None = None) -> bool:
        """Ask the coordinator; False when there is no answer. That is left to the next time: the list known last holds.

        `came_s`: when somebody came for whom it is asked. A question that was put since then does for this one, too; one put
        before does not, however late its answer came: it may not tell of the token that was made in between.
        """
        if not self._lock.acquire(timeout=WAIT_S):
            return False  # somebody else is asking, and gets no answer
        try:
            if came_s is not None:
                if self._asked_s >= came_s:
                    return self._heard_s >= came_s
                time.sleep(max(0.0, self._asked_s + ASK_AGAIN_S - time.monotonic()))
            self._asked_s = time.monotonic()
            try:
                found = self._bank.tokens(self._version)
            except ZbankError as error:
                log.debug("the tokens cannot be had: %s", error)
                return False
            self._heard_s = time.monotonic()
            # A lower version is that of a coordinator that was replaced: what was revoked since stands as good there.
            if found is not None and found[0] >= self._version:
                version, tokens = found
                self._by_digest = {token.secret_digest: token for token in tokens}
                self._version = version
            return True
        finally:
            self._lock.release()

    def _check_known(self) -> None:
        if not self.is_known:
            raise TokensUnknown("the coordinator does not answer, so it is not known who may do what: try again later")

    def _follow(self) -> None:
        while not self._stop.wait(FOLLOW_S):
            self.refresh()
