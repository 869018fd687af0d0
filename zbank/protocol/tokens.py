"""Tokens at the coordinator: who may act through the REST bridge, and in whose name.

A secret is made where it will be used and never comes here: the journal keeps its digest. A token is one record when it is
made and one when it is revoked, each with who did it; both may be asked for again and again.
"""

from __future__ import annotations

from typing import Protocol

from msgspec import Struct
from msgspec.structs import replace

from zbank.domain.account import parse_account
from zbank.errors import InvalidInput
from zbank.protocol.fold import Settled
from zbank.protocol.machine import CONFLICTING_ID
from zbank.protocol.messages import (
    AUDITOR,
    OPERATOR,
    TELLER,
    AnyMessage,
    Fault,
    GetTokens,
    MakeToken,
    RevokeToken,
    TokenInfo,
    TokensPage,
)
from zbank.protocol.records import Record, TokenMade, TokenRevoked

CUSTOMER = "customer"  # the accounts named with it, and nothing else
ROLES = (CUSTOMER, TELLER, AUDITOR, OPERATOR)

MAX_TOKENS = 5_000  #: above it the longest revoked are forgotten; their ids never are
LAST_US = 221_845_392_000_000_000  #: the year 9000: later times cannot be written as text
PAGE_TOKENS = 250  #: so many fit a frame whatever they hold

Answered = tuple[Record | None, AnyMessage]


class Token(Struct, array_like=True, gc=False):
    """A token as the coordinator remembers it."""

    id: bytes
    holder: str
    role: str
    accounts: tuple[str, ...]
    secret_digest: bytes
    made_seq: int  #: of its row
    made_us: int
    made_by: str
    expires_us: int  #: 0 = never
    revoked_us: int = 0  #: 0 = it is good


class TokenBook:
    """All tokens: the part of a coordinator's fold that is about them. `made` and `revoked` alone change it."""

    def __init__(self, tokens: list[Token] | None = None, version: int = 0) -> None:
        self.by_id = {token.id: token for token in tokens or ()}  #: in the order they were made
        self.version = version  #: row of the last change
        self.digests = {token.secret_digest for token in self.by_id.values()}

    def made(self, record: TokenMade, seq: int, at_us: int) -> None:
        """Fold a new token."""
        self.version = seq
        if len(self.by_id) >= MAX_TOKENS:
            self._forget_one()
        self.digests.add(record.secret_digest)
        self.by_id[record.id] = Token(
            record.id,
            record.holder,
            record.role,
            record.accounts,
            record.secret_digest,
            seq,
            at_us,
            record.caller,
            record.expires_us,
        )

    def revoked(self, record: TokenRevoked, seq: int, at_us: int) -> None:
        """Fold the end of a token."""
        self.version = seq
        self.by_id[record.id].revoked_us = at_us

    def is_full(self) -> bool:
        """There is no room, and no revoked token to give way."""
        return len(self.by_id) >= MAX_TOKENS and self._longest_revoked() is None

    def _longest_revoked(self) -> Token | None:
        over = [token for token in self.by_id.values() if token.revoked_us]
        return min(over, key=lambda token: (token.revoked_us, token.made_seq), default=None)

    def _forget_one(self) -> None:
        token = self._longest_revoked()
        if token is not None:
            del self.by_id[token.id]
            self.digests.discard(token.secret_digest)


class _Fold(Protocol):
    tokens: TokenBook
    settled: dict[bytes, Settled]


def make(state: _Fold, caller: str, message: MakeToken, at_us: int) -> Answered:
    """Make a token; the same again is the same token."""
    book = state.tokens
    known = book.by_id.get(message.id)
    if known is not None:
        same = (known.holder, known.role, known.accounts, known.secret_digest, known.expires_us, known.made_by) == (
            message.holder,
            message.role,
            message.accounts,
            message.secret_digest,
            message.expires_us,
            caller,
        )
        return None, _info(known) if same else CONFLICTING_ID
    if message.id in state.settled:  # a transfer; or a token that was revoked and forgotten, and never is good again
        return None, CONFLICTING_ID
    problem = _problem(message)
    if not problem and message.secret_digest in book.digests:
        problem = "this secret is in use: make another one"
    if problem:
        return None, Fault(code="malformed", detail=problem)
    if book.is_full():
        return None, Fault(code="limit_exceeded", detail=f"there are {MAX_TOKENS} tokens already: revoke some")
    record = TokenMade(
        message.id, caller, message.holder, message.role, message.accounts, message.secret_digest, message.expires_us
    )
    info = TokenInfo(
        message.id,
        message.holder,
        message.role,
        message.accounts,
        message.secret_digest,
        at_us,
        caller,
        message.expires_us,
        0,
    )
    return record, info


def revoke(state: _Fold, caller: str, message: RevokeToken, at_us: int) -> Answered:
    """End a token, for good; again and again if asked to."""
    token = state.tokens.by_id.get(message.id)
    if token is None:
        return None, Fault(code="token_not_found", detail="there is no such token: `zbank tokens list` shows all")
    if token.revoked_us:
        return None, _info(token)
    return TokenRevoked(message.id, caller), replace(_info(token), revoked_us=at_us)


def page(state: _Fold, message: GetTokens) -> TokensPage:
    """Tokens in the order they were made; none when the asker has this version already."""
    book = state.tokens
    if message.known_version == book.version:
        return TokensPage(book.version, (), 0)
    later = [token for token in book.by_id.values() if token.made_seq > message.after]
    shown = later[:PAGE_TOKENS]
    following = shown[-1].made_seq if len(later) > len(shown) else 0
    return TokensPage(book.version, tuple(_info(token) for token in shown), following)


def _problem(message: MakeToken) -> str:
    """What is wrong with a token; "" when nothing is."""
    if message.role not in ROLES:
        return f"{message.role!r} is no role: it is one of {', '.join(ROLES)}"
    if message.expires_us > LAST_US:
        return "the token expires after the year 9000: let it never expire, which is 0"
    if not message.holder.isprintable():
        return "the holder's name has characters that cannot be printed"
    if message.role == CUSTOMER and not message.accounts:
        return "a customer's token names the accounts it is for: Branch/number"
    if message.role != CUSTOMER and message.accounts:
        return f"a token of role {message.role} is for all accounts: name none"
    try:
        for account in message.accounts:
            parse_account(account)
    except InvalidInput as error:
        return error.detail
    return ""


def _info(token: Token) -> TokenInfo:
    return TokenInfo(
        token.id,
        token.holder,
        token.role,
        token.accounts,
        token.secret_digest,
        token.made_us,
        token.made_by,
        token.expires_us,
        token.revoked_us,
    )
