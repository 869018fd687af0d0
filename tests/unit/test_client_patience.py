"""Who was silent a moment ago is not waited for long: the others are shown meanwhile."""

from __future__ import annotations

import time
from concurrent.futures import Future
from typing import Any

import pytest

from zbank.errors import NoAnswer
from zbank.protocol.messages import GetStatus, StatusInfo
from zbank.transport.client_base import SILENT_S, SURVEY_S, TRY_AGAIN_S, ClientBase


class Bank(ClientBase):
    """A client without a connection: its asks are answered, or not, as the test says."""

    def __init__(self) -> None:
        self._silent = {}
        self._timeout_us = 10_000_000
        self.answers = True
        self.limits_s: list[float] = []

    def _ask(self, target: str, message: Any, accepts: type, convert: Any, limit_us: int | None = None) -> Future[Any]:
        assert limit_us is not None
        self.limits_s.append(limit_us / 1_000_000)
        future: Future[Any] = Future()
        if self.answers:
            future.set_result(object())
        else:
            future.set_exception(NoAnswer("no answer"))
        return future

    def survey(self, target: str = "Delhi", *, is_up: bool = True, most_s: float = SURVEY_S) -> float:
        """The seconds that it was given."""
        told = self._ask_patiently(target, GetStatus(), StatusInfo, is_up=is_up, most_s=most_s)
        if self.answers:
            told()
        else:
            with pytest.raises(NoAnswer):
                told()
        return self.limits_s[-1]


@pytest.fixture
def now_s(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The monotonic clock, to be moved by hand."""
    clock = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    return clock


def test_the_silent_are_given_little_until_it_is_time_again(now_s: list[float]) -> None:
    bank = Bank()
    assert bank.survey() == SURVEY_S
    bank.answers = False
    assert [bank.survey() for _ in range(3)] == [SURVEY_S, SILENT_S, SILENT_S]
    assert bank.survey("Mumbai") == SURVEY_S, "another one"
    now_s[0] += TRY_AGAIN_S
    assert [bank.survey() for _ in range(2)] == [SURVEY_S, SILENT_S]


def test_who_answers_again_is_waited_for_again(now_s: list[float]) -> None:
    bank = Bank()
    bank.answers = False
    bank.survey()
    bank.answers = True
    assert [bank.survey() for _ in range(2)] == [SILENT_S, SURVEY_S]


def test_who_is_not_connected_to_the_coordinator_is_given_little(now_s: list[float]) -> None:
    bank = Bank()
    bank.answers = False
    assert [bank.survey(is_up=False) for _ in range(2)] == [SILENT_S] * 2
    assert bank.survey() == SURVEY_S, "it never had the whole time"


def test_a_question_with_less_time_never_gets_more(now_s: list[float]) -> None:
    bank = Bank()
    bank.answers = False
    assert [bank.survey(most_s=0.2) for _ in range(2)] == [0.2, 0.2]
