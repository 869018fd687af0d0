"""Tokens: who may act through the REST bridge. Made, revoked and listed at the coordinator, whose journal keeps them.

A secret never travels: only its digest does.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from zbank.protocol.wire import Count, Id, Message, Name

MAX_TOKEN_ACCOUNTS = 20
MAX_ROLE_CHARS = 16
TokenHolder = Annotated[str, Meta(min_length=1, max_length=64)]
TokenRole = Annotated[str, Meta(min_length=1, max_length=MAX_ROLE_CHARS)]
TokenAccounts = Annotated[tuple[str, ...], Meta(max_length=MAX_TOKEN_ACCOUNTS)]  #: `Branch/number` each
SecretDigest = Annotated[bytes, Meta(min_length=32, max_length=32)]  #: SHA-256 of the secret


class MakeToken(Message, frozen=True, tag="maketoken"):
    """To the coordinator: let the holder of a secret act through the REST bridge. Answered by TokenInfo."""

    id: Id  #: of the token; the same again is the same token
    caller: Name  #: who makes it
    holder: TokenHolder  #: in whose name its holder acts
    role: TokenRole
    accounts: TokenAccounts  #: a customer's own
    secret_digest: SecretDigest
    expires_us: Count  #: 0 = never


class RevokeToken(Message, frozen=True, tag="revoketoken"):
    """To the coordinator: this token is good for nothing any more. Answered by TokenInfo or Fault token_not_found."""

    id: Id
    caller: Name  #: who revokes it


class GetTokens(Message, frozen=True, tag="tokens?"):
    """To the coordinator: a page of all tokens, in the order they were made. Answered by TokensPage."""

    known_version: Annotated[int, Meta(ge=-1, le=2**63 - 1)]  #: of the list in hand; the same as now = an empty page
    after: Count  #: `next` of the page before; 0 = from the start


class TokenInfo(Message, frozen=True, tag="token"):
    """A token, without its secret."""

    id: Id
    holder: TokenHolder
    role: TokenRole
    accounts: TokenAccounts
    secret_digest: SecretDigest
    made_us: Count
    made_by: Name
    expires_us: Count  #: 0 = never
    revoked_us: Count  #: 0 = it is good


class TokensPage(Message, frozen=True, tag="tokens"):
    """A page of tokens."""

    version: Count  #: grows with each change of any token
    tokens: tuple[TokenInfo, ...]
    next: Count  #: `after` of the next page; 0 = this was the last
