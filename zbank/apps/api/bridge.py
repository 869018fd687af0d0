"""What all requests of one bridge share: the client, the tokens, the figures, the limits."""

from __future__ import annotations

import ipaddress
import re
import threading
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from flask import Request
from limits import RateLimitItemPerMinute, RateLimitItemPerSecond
from limits.storage import MemoryStorage
from limits.strategies import FixedWindowRateLimiter

from zbank import Client
from zbank.apps.api.access import ANYBODY, DRILL, PROMOTE, Principal
from zbank.apps.api.feed import EventFeed
from zbank.apps.api.metrics import Metrics
from zbank.apps.api.problems import FORBIDDEN, TOO_MANY, UNAUTHORIZED, Problem
from zbank.apps.api.tokens import TokenList, TokensUnknown
from zbank.errors import ZbankError
from zbank.ids import SECRET_PREFIX
from zbank.protocol.messages import COORDINATOR, StatusInfo
from zbank.transport.views import ActorDown

if TYPE_CHECKING:
    from zbank.apps.api.stage import Stage

MAX_SECRET_CHARS = 200
FAILURES_A_MINUTE = 20  #: bad tokens from one address; then it is told to wait
HERE_ONLY = frozenset({"localhost", "127.0.0.1", "[::1]"})  #: what a browser on this machine calls this machine


class RestSettings(NamedTuple):
    """What one bridge needs to know."""

    host: str
    port: int
    endpoint: str  #: of the coordinator
    cluster: str = ""  #: its name; "" = any
    threads: int = 64  #: requests that are worked on at once
    max_streams: int = 16  #: event streams; each holds one of the threads
    rate_limit_per_s: int = 1_000  #: requests of one token, or of one address without one; 0 = no limit
    timeout_s: float = 10.0  #: for an answer of the bank
    keys: Path | None = None  #: folder of the bank's keys; None = it has none
    key: str = ""  #: which of them is the bridge's
    drills: Path | None = None  #: the bank's data folder, where drills may be played; None = they may not

    trusted_proxy: str = ""  #: address of a proxy in front, whose word on who asks counts; "" = there is none
    trusted_hosts: tuple[str, ...] = ()  #: names that it is called by, in requests' Host; () = any

    @property
    def is_here_only(self) -> bool:
        """Nobody outside this machine can ask."""
        if self.trusted_proxy:
            return False
        try:
            return ipaddress.ip_address(self.host.strip("[]")).is_loopback
        except ValueError:
            return self.host == "localhost"


class Bridge:
    """One running bridge."""

    def __init__(self, bank: Client, settings: RestSettings) -> None:
        self.bank = bank
        self.settings = settings
        self.tokens = TokenList(bank, is_open_allowed=settings.is_here_only)
        self.metrics = Metrics(bank)
        self.feed = EventFeed(bank)
        self.streams = threading.BoundedSemaphore(settings.max_streams)
        self.stage = _stage_of(settings)  #: where drills are played; None = they are not
        #: acts that nobody can do here, whatever the role; by its key the bridge is no operator (zbank.transport.access)
        self.out_of_reach = frozenset(
            ({DRILL} if self.stage is None else set()) | (set() if bank.key is None else {PROMOTE})
        )
        self.stopping = threading.Event()  #: event streams end when it is set
        self._readiness: dict[str, str] | None = None  #: as told last
        self._asking = threading.Lock()
        self._limiter = FixedWindowRateLimiter(MemoryStorage())
        self._rate = RateLimitItemPerSecond(max(1, settings.rate_limit_per_s))
        self._guesses = RateLimitItemPerMinute(FAILURES_A_MINUTE)

    def close(self) -> None:
        """End the streams and stop following the tokens. The client is its maker's to close."""
        self.stopping.set()
        self.tokens.close()
        if self.stage is not None:
            self.stage.close()

    def check_host(self, host: str) -> None:
        """Raise Problem `wrong_host` when this bridge is called by a name that is not its own."""
        names = self.settings.trusted_hosts
        if names and host not in names and re.sub(r":[0-9]+$", "", host) not in names:
            detail = f"this bridge is not called {host[:100]}: ask it by a name that it was told (--trusted-host)"
            raise Problem("wrong_host", detail)

    def admit(self, request: Request, act: str | None) -> Principal:
        """Who asks, if they may do this now.

        Raises Problem `unauthorized`, `forbidden` or `too_many_requests`, and TokensUnknown.
        """
        if act is None:  # open to all
            if not self.settings.is_here_only:
                self.limit(f"address {request.remote_addr}")
            return ANYBODY
        authorization = request.headers.get("Authorization")
        principal = self._nobody(request) if authorization is None else self._holder(authorization, request)
        if not principal.may(act):
            raise Problem(FORBIDDEN, f"a {principal.role} may not do this")
        return principal

    def limit(self, key: str) -> None:
        """Count a request. Raises Problem `too_many_requests`."""
        if self.settings.rate_limit_per_s and not self._limiter.hit(self._rate, key):
            detail = f"more than {self.settings.rate_limit_per_s} requests in a second: slow down"
            raise Problem(TOO_MANY, detail, retry_after_s=1)

    def _nobody(self, request: Request) -> Principal:
        """Without a token: anybody, where and while that is allowed."""
        nobody = self.tokens.nobody()
        if nobody is None:
            self.limit(f"address {request.remote_addr}")
            raise Problem(UNAUTHORIZED, "give a token: Authorization: Bearer zbank_…")
        # Else a page of some site could use the open bank of who looks at it: by a name that was made to lead here, or by a
        # form that needs no answer.
        origin = request.headers.get("Origin", f"http://{request.host}")
        if not (_is_here(request.host) and _is_here(origin.rpartition("//")[2])):
            raise Problem(FORBIDDEN, "without tokens the bank is open to this machine alone: call it localhost")
        return nobody

    def _holder(self, authorization: str, request: Request) -> Principal:
        """Who holds the token. Who guesses is told to wait, and makes the coordinator no work."""
        scheme, _, secret = authorization.partition(" ")
        guesses = f"guesses {request.remote_addr}"
        principal = None
        if scheme.lower() == "bearer" and len(secret) <= MAX_SECRET_CHARS and secret.startswith(SECRET_PREFIX):
            try:
                principal = self.tokens.principal(secret, may_ask=self._limiter.test(self._guesses, guesses))
            except TokensUnknown:
                self._limiter.hit(self._guesses, guesses)  # it may have been one, and has cost as much
                raise
        if principal is None:
            if not self._limiter.hit(self._guesses, guesses):
                raise Problem(TOO_MANY, "too many wrong tokens from your address: wait a minute", retry_after_s=60)
            raise Problem(UNAUTHORIZED, "this token is not good (any more): ask an operator for another one")
        self.limit(f"token {principal.token_id}")
        return principal

    def readiness(self) -> dict[str, str]:
        """By actor, why it cannot be used; empty when all serve. Whoever asks while somebody else does gets what was told
        last: that a branch is silent takes seconds to find out, and anybody may ask this.
        """
        if self._asking.acquire(blocking=self._readiness is None):
            try:
                self._readiness = self._ask_all()
            finally:
                self._asking.release()
        assert self._readiness is not None
        return self._readiness

    def _ask_all(self) -> dict[str, str]:
        try:
            actors = self.bank.status()
        except ZbankError as error:
            return {COORDINATOR: error.detail}
        down = {actor.name or actor.role: actor.reason for actor in actors if isinstance(actor, ActorDown)}
        down |= {actor.name: "; ".join(actor.alarms) for actor in actors if isinstance(actor, StatusInfo) and actor.stopped}
        if not self.tokens.is_known:
            down["tokens"] = "the coordinator has not told them yet"
        return down


def _stage_of(settings: RestSettings) -> Stage | None:
    if settings.drills is None:
        return None
    from zbank.apps.api.stage import Stage  # drills need sockets that not every machine has

    return Stage(settings.endpoint, settings.cluster, settings.drills)


def _is_here(host: str) -> bool:
    """Is this, with or without a port, what a browser on this machine calls this machine?"""
    return host in HERE_ONLY or host.rpartition(":")[0] in HERE_ONLY
