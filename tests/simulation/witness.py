"""The part of the judge that reads along: what actors say of their journals and of tokens, against the forced rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from tests.simulation.token_ledger import TokenLedger
from tests.simulation.violation import breach
from tests.simulation.watching import Chronicle, Question
from zbank.domain.legs import content_digest
from zbank.protocol.coordinator_state import CoordinatorState
from zbank.protocol.fold import Row
from zbank.protocol.messages import (
    AnyMessage,
    Fault,
    GetTokens,
    MakeToken,
    RevokeToken,
    TokenInfo,
    TokensPage,
    TransferListed,
)
from zbank.protocol.records import AnyRecord


class Witness:
    """All journals, and what was told of them."""

    def __init__(
        self, branches: Iterable[str], coordinators: Iterable[str], sometimes: Counter[str], replaced: set[str]
    ) -> None:
        """`sometimes` and `replaced` are the judge's."""
        self.tokens = {name: TokenLedger(name) for name in coordinators}
        self.chronicles = {name: Chronicle(name) for name in (*branches, *self.tokens)}
        self.counts = True  #: what is met; not so of the last look, which meets everything
        self._sometimes = sometimes
        self._replaced = replaced

    def entered(self, actor: str, row: Row, record: AnyRecord) -> None:
        """One more forced row."""
        self.chronicles[actor].enter(row, record)
        if actor in self.tokens:
            self.tokens[actor].enter(row, record)

    def turned(self, actor: str) -> None:
        """An actor's turn is over."""
        if actor in self.tokens:
            self.tokens[actor].turned()

    def sent(self, actor: str, message: AnyMessage) -> None:
        """This leaves an actor."""
        is_stale = actor in self._replaced
        self.chronicles[actor].sent(message, is_stale=is_stale)
        if actor in self.tokens:
            self.tokens[actor].sent(message, is_stale=is_stale)

    def tell_page(self, actor: str, question: Question, answer: AnyMessage) -> None:
        """A customer got what it asked of an actor."""
        is_stale = actor in self._replaced
        with breach("lists, events and figures are what is forced, and all of it"):
            met = self.chronicles[actor].told(question, answer, is_stale=is_stale)
        if isinstance(question.message, GetTokens) and isinstance(answer, TokensPage):
            with breach("tokens are what is forced"):
                met = self.tokens[actor].told_page(question.message, answer, question.at_us, is_stale=is_stale)
        if self.counts:
            self._sometimes.update(met)

    def tell_token(
        self, actor: str, asked: MakeToken | RevokeToken, info: TokenInfo, asked_us: int, now_us: int
    ) -> None:
        """A customer got the token that it made or revoked."""
        with breach("tokens are what is forced"):
            met = self.tokens[actor].told(asked, info, asked_us, now_us, is_stale=actor in self._replaced)
        self._sometimes.update(["a token is made" if isinstance(asked, MakeToken) else "a token is revoked", *met])

    def tell_no_token(self, actor: str, asked: MakeToken | RevokeToken, fault: Fault) -> None:
        """A customer was told that the token cannot be made, or that there is none."""
        with breach("tokens are what is forced"):
            met = self.tokens[actor].told_no(asked, fault)
        self._sometimes.update([f"{type(asked).__name__} is answered {fault.code}", *met])

    def recovered(self, state: CoordinatorState) -> None:
        """A coordinator has started again; to be called within a breach."""
        self._sometimes.update(self.tokens[state.name].recovered(state))
        self._sometimes["a token gives way"] += len(self.tokens[state.name].forgotten)

    def listed_at_home(
        self,
        lists: Mapping[str, Sequence[TransferListed]],
        told: Mapping[tuple[bytes, bytes, str], tuple[str, str, int]],
    ) -> None:
        """At the end, what every branch lists that it is the home of, against what customers were told."""
        found: dict[tuple[bytes, bytes], str] = {}
        with breach("the whole bank's list has each transfer once, as it was told"):
            for listed in (one for name in sorted(lists) for one in lists[name]):
                info = listed.info
                key = info.id, content_digest(info.legs, info.currency, info.memo, info.effective_on)
                assert key not in found, f"{info.id.hex()} is listed twice"
                found[key] = info.status
            blind = {id for name in lists for id in self.chronicles[name].blind}
            for (id, digest, caller), (status, _, _) in told.items():
                listed_as = found.get((id, digest))
                assert listed_as == status or (listed_as is None and id in blind), (
                    f"{id.hex()} of {caller!r} was told {status}, and is listed as {listed_as}"
                )
