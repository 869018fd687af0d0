"""The tokens of a coordinator as its forced records have them: a second fold, written apart from the first."""

from __future__ import annotations

from msgspec.structs import replace

from zbank.protocol import tokens
from zbank.protocol.coordinator_state import CoordinatorState
from zbank.protocol.fold import Row
from zbank.protocol.messages import AnyMessage, Fault, GetTokens, MakeToken, RevokeToken, TokenInfo, TokensPage
from zbank.protocol.records import AnyRecord, TokenMade, TokenRevoked

Listed = tuple[tuple[int, TokenInfo], ...]  #: with the row that made it, in that order


class TokenLedger:
    """All tokens of one coordinator, now and at every row before."""

    def __init__(self, coordinator: str) -> None:
        self.coordinator = coordinator
        self.tokens: dict[bytes, TokenInfo] = {}
        self.version = 0
        self.versions: dict[int, Listed] = {0: ()}
        self.forgotten: set[bytes] = set()
        self.was_full = False
        self._made_seq: dict[bytes, int] = {}
        self._shown: dict[bytes, list[TokenInfo]] = {}  #: by id: what was ever so
        self._new_versions = {0}  #: that may be told in this turn: as it is, or between two of the turn's requests
        self._new_ends: set[bytes] = set()  #: revoked in this turn
        self._told_ends: dict[bytes, int] = {}  #: when somebody was told that it is revoked

    def enter(self, row: Row, record: AnyRecord) -> None:
        """One more forced record."""
        if isinstance(record, TokenMade):
            assert record.id not in self._shown, f"token {record.id.hex()} is made twice"
            if len(self.tokens) >= tokens.MAX_TOKENS:
                self._forget()
            said = (record.holder, record.role, record.accounts, record.secret_digest, row.at_us, record.caller)
            self.tokens[record.id] = TokenInfo(record.id, *said, record.expires_us, 0)
            self._made_seq[record.id] = row.seq
            self.was_full |= len(self.tokens) >= tokens.MAX_TOKENS
        elif isinstance(record, TokenRevoked):
            before = self.tokens[record.id]
            assert not before.revoked_us, f"token {record.id.hex()} is revoked twice"
            self.tokens[record.id] = replace(before, revoked_us=row.at_us)
            self._new_ends.add(record.id)
        else:
            return
        self._shown.setdefault(record.id, []).append(self.tokens[record.id])
        self.version = row.seq
        self.versions[row.seq] = tuple((self._made_seq[id], token) for id, token in self.tokens.items())
        self._new_versions.add(row.seq)

    def _forget(self) -> None:
        over = [token for token in self.tokens.values() if token.revoked_us]
        assert over, f"{self.coordinator} makes more tokens than it may"
        first = min(over, key=lambda token: (token.revoked_us, self._made_seq[token.id]))
        del self.tokens[first.id]
        self.forgotten.add(first.id)

    def turned(self) -> None:
        """The turn is over: from now on only what is so now may be told."""
        self._new_versions = {self.version}
        self._new_ends.clear()

    # --- what leaves ---------------------------------------------------------------------------------------------------

    def sent(self, message: AnyMessage, *, is_stale: bool) -> None:
        """This leaves the coordinator: it is forced, and (unless it may come from a process out of office) it is so now."""
        if isinstance(message, TokenInfo):
            known = self._shown.get(message.id, [])
            assert message in known, f"{self.coordinator} says {message}, and its journal {known}"
            is_new = message == known[-1] or message.id in self._new_ends
            assert is_new or is_stale, f"{self.coordinator} says that {message.id.hex()} is good, and it was revoked"
        elif isinstance(message, TokensPage):
            assert message.version in self.versions, (
                f"{self.coordinator} has no version {message.version} of its tokens"
            )
            assert message.version in self._new_versions or is_stale, (
                f"{self.coordinator} tells version {message.version} of its tokens: it is {self.version}"
            )
            every = [token for _, token in self.versions[message.version]]
            assert all(token in every for token in message.tokens), f"{message} is not {every}"

    # --- what arrives --------------------------------------------------------------------------------------------------

    def told(
        self, asked: MakeToken | RevokeToken, info: TokenInfo, asked_us: int, now_us: int, *, is_stale: bool
    ) -> list[str]:
        """Somebody is told what a token is. Gives what was met, for the counters."""
        if isinstance(asked, MakeToken):
            said = (info.id, info.made_by, info.holder, info.role, info.accounts, info.secret_digest, info.expires_us)
            wanted = (asked.id, asked.caller, asked.holder, asked.role, asked.accounts, asked.secret_digest)
            assert said == (*wanted, asked.expires_us), f"{asked} is told {info}"
        else:
            assert info.id == asked.id
            assert info.revoked_us, f"{asked} is told {info}"
        self._is_not_back(info, asked_us, is_stale=is_stale)
        if info.revoked_us:
            self._told_ends.setdefault(info.id, now_us)
            return (
                ["a token that was made is revoked when it is asked for again"] if isinstance(asked, MakeToken) else []
            )
        return []

    def told_page(self, asked: GetTokens, page: TokensPage, asked_us: int, *, is_stale: bool) -> list[str]:
        """A page of tokens, now that it is known what was asked: none is left out."""
        every = self.versions[page.version]
        later = [] if asked.known_version == page.version else [one for one in every if one[0] > asked.after]
        count = len(page.tokens)
        assert list(page.tokens) == [token for _, token in later[:count]], f"{asked} is told {page}: it is {later}"
        following = later[count - 1][0] if count < len(later) and count else 0
        assert page.next == following, f"{asked} goes on at {page.next}, not at {following}"
        assert count == len(later) or count, f"{asked} is told nothing: there are {later}"
        for token in page.tokens:
            self._is_not_back(token, asked_us, is_stale=is_stale)
        return [f"a page of tokens{', and there are more' if page.next else ''}"] if page.tokens else []

    def _is_not_back(self, info: TokenInfo, asked_us: int, *, is_stale: bool) -> None:
        over_us = self._told_ends.get(info.id)
        is_back = not info.revoked_us and over_us is not None and over_us < asked_us
        assert not is_back or is_stale, f"token {info.id.hex()} was told as revoked, and now as good"

    def told_no(self, asked: MakeToken | RevokeToken, fault: Fault) -> list[str]:
        """Somebody is told that there is no such token, or can be none. Gives what was met."""
        shown = self._shown.get(asked.id, [])
        match fault.code:
            case "idempotency_conflict":
                is_other = any(token.made_by != asked.caller for token in shown)
                assert is_other or asked.id in self.forgotten, f"{asked} conflicts, and there is only {shown}"
                return [] if is_other else ["a token that was forgotten is asked for again"]
            case "limit_exceeded":
                assert self.was_full, f"{asked} is told {fault}, and there were never so many"
            case code:
                assert code == "token_not_found", f"a sound token is answered {code}: {fault.detail}"
        return []

    # --- after a restart -----------------------------------------------------------------------------------------------

    def recovered(self, state: CoordinatorState) -> list[str]:
        """The tokens of a process that has started again are those of the journal. Gives what was met."""
        book = state.tokens
        found = [
            TokenInfo(
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
            for token in book.by_id.values()
        ]
        assert found == list(self.tokens.values()), f"{self.coordinator} has the tokens {found}: {self.tokens}"
        assert book.version == self.version, f"{self.coordinator} is at version {book.version}, not {self.version}"
        assert book.digests == {token.secret_digest for token in found}
        self.turned()
        ends = {bool(token.revoked_us) for token in found}
        return [f"a token that is {'revoked' if is_over else 'good'} after a restart" for is_over in ends]
