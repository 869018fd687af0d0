"""What the bridge knows of tokens: one that was just made is known at its first use, whatever else is asked meanwhile."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import cast

import pytest

from tests.acceptance.cluster import wait_until
from zbank import Client
from zbank.apps.api import tokens as tokens_module
from zbank.apps.api.access import Principal
from zbank.apps.api.tokens import TokenList, TokensUnknown
from zbank.errors import Unreachable
from zbank.ids import new_secret
from zbank.protocol.messages import TokenInfo
from zbank.transport.client_tokens import secret_digest

LIMIT_S = 20


class Bank:
    """A client whose questions about tokens wait, once they were put, until they are let go."""

    def __init__(self) -> None:
        self.made: list[TokenInfo] = []
        self.asked = 0
        self.is_away = False
        self.go_on = threading.Event()
        self.go_on.set()

    def tokens(self, known_version: int) -> tuple[int, list[TokenInfo]] | None:
        found = list(self.made)
        self.asked += 1
        assert self.go_on.wait(LIMIT_S)
        if self.is_away:
            raise Unreachable("nobody")
        return None if len(found) == known_version else (len(found), found)

    def make(self) -> str:
        """A new token of this bank; its secret."""
        secret = new_secret()
        self.made.append(TokenInfo(bytes(16), "till", "teller", (), secret_digest(secret), 1, "ops", 0, 0))
        return secret


@pytest.fixture
def bank() -> Bank:
    return Bank()


@pytest.fixture
def tokens(bank: Bank, monkeypatch: pytest.MonkeyPatch) -> Iterator[TokenList]:
    monkeypatch.setattr(tokens_module, "WAIT_S", LIMIT_S)
    listed = TokenList(cast("Client", bank), is_open_allowed=False)
    assert listed.refresh()
    yield listed
    bank.go_on.set()
    listed.close()


def test_a_question_that_was_put_before_a_token_was_made_says_nothing_of_it(bank: Bank, tokens: TokenList) -> None:
    bank.go_on.clear()
    with ThreadPoolExecutor() as pool:
        follower = pool.submit(tokens.refresh)
        wait_until(lambda: bank.asked == 2, what="the question that was under way")
        secret = bank.make()
        user: Future[Principal | None] = pool.submit(tokens.principal, secret, may_ask=True)
        bank.go_on.set()
        found = user.result(LIMIT_S)
        assert follower.result(LIMIT_S)
    assert found is not None
    assert (found.caller, found.role) == ("till", "teller")


def test_one_question_does_for_all_who_came_before_it(bank: Bank, tokens: TokenList) -> None:
    bank.go_on.clear()
    barrier = threading.Barrier(7)

    def guess() -> Principal | None:
        barrier.wait(LIMIT_S)
        return tokens.principal(new_secret(), may_ask=True)

    with ThreadPoolExecutor(8) as pool:
        follower = pool.submit(tokens.refresh)
        wait_until(lambda: bank.asked == 2, what="the question that was under way")
        guesses = [pool.submit(guess) for _ in range(6)]
        barrier.wait(LIMIT_S)
        bank.go_on.set()
        assert [one.result(LIMIT_S) for one in guesses] == [None] * 6
        assert follower.result(LIMIT_S)
    assert bank.asked < 2 + 6


def test_whether_a_token_is_good_is_not_guessed(bank: Bank, tokens: TokenList) -> None:
    """Nobody answers: that it is not good is not known. Those that are known go on."""
    known, new = bank.make(), new_secret()
    assert tokens.principal(known, may_ask=True) is not None
    bank.is_away = True
    with pytest.raises(TokensUnknown, match="cannot be asked now"):
        tokens.principal(new, may_ask=True)
    assert tokens.principal(known, may_ask=True) is not None
    assert tokens.principal(new, may_ask=False) is None, "who guesses makes the coordinator no work"
