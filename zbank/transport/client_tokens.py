"""The part of the Client that makes and revokes tokens of the REST bridge."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256

from zbank.errors import NoAnswer
from zbank.ids import format_id, new_id
from zbank.protocol.messages import ActInfo, ActsPage, GetActs, GetTokens, MakeToken, RevokeToken, TokenInfo, TokensPage
from zbank.transport import client_input as given
from zbank.transport.client_base import ClientBase, as_it_is
from zbank.transport.client_input import Id
from zbank.transport.client_request import THE_COORDINATOR, AccountWrite

MAX_RESTARTS = 10  #: of reading all tokens while they change


def secret_digest(secret: str) -> bytes:
    """What is kept of a token's secret: 32 bytes. The secret has 256 bits of its own, so one round of SHA-256 will do."""
    return sha256(secret.encode()).digest()


class TokenClient(ClientBase):
    """Tokens: who may act through the REST bridge, and in whose name."""

    def make_token(
        self,
        secret: str,
        *,
        holder: str,
        role: str,
        accounts: Sequence[str] = (),
        expires_us: int = 0,
        id: Id = None,
    ) -> TokenInfo:
        """Let the holder of `secret` (from `zbank.ids.new_secret`) act as `role`: "customer" of `accounts`, "teller",
        "auditor" or "operator". Only the secret's digest is sent.

        Raises RemoteFault `malformed` or `limit_exceeded`, and NoAnswer when it is not known whether the token was made.
        """
        given.check_token(holder, role, accounts, expires_us)
        given.check_text(secret, "a secret", given.MAX_SECRET_CHARS)
        id_16 = new_id() if id is None else given.id_bytes(id)
        message = MakeToken(id_16, self._asker.caller, holder, role, tuple(accounts), secret_digest(secret), expires_us)
        return self._change_tokens(message)

    def revoke_token(self, id: bytes | str) -> TokenInfo:
        """This token is good for nothing any more. Raises RemoteFault `token_not_found`, and as `make_token` does."""
        return self._change_tokens(RevokeToken(given.id_bytes(id), self._asker.caller))

    def acts(self, limit: int = 100) -> list[ActInfo]:
        """The latest acts of those in charge (`limit` 1 to 1000), the newest first."""
        given.check_page(limit, "")
        page: ActsPage = self._read(THE_COORDINATOR, GetActs(limit), ActsPage, as_it_is)
        return list(page.acts)

    def _change_tokens(self, message: MakeToken | RevokeToken) -> TokenInfo:
        def not_known(reason: str) -> NoAnswer:
            return NoAnswer(f"{reason}: it is not known what became of token {format_id(message.id)}; list the tokens")

        request: AccountWrite[TokenInfo] = AccountWrite(
            THE_COORDINATOR, message, self._timeout_us, (TokenInfo,), as_it_is, not_known
        )
        return self._io.call(request)

    def tokens(self, known_version: int = -1) -> tuple[int, list[TokenInfo]] | None:
        """All tokens that were made, revoked ones too, and their version; None when `known_version` is still the newest."""
        self._io.check_may_wait()
        for _ in range(MAX_RESTARTS):
            version, after, found = -1, 0, list[TokenInfo]()
            while True:
                asked = GetTokens(known_version if not found else -1, after)
                page: TokensPage = self._ask(THE_COORDINATOR, asked, TokensPage, as_it_is, self._survey_us()).result()
                if page.version == known_version and not found:
                    return None
                if version not in (-1, page.version):
                    break  # they have changed meanwhile
                version, after = page.version, page.next
                found += page.tokens
                if not after:
                    return version, found
        raise NoAnswer("the tokens change all the time: ask again")
