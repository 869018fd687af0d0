"""Paying once: whatever is clicked, however often, and whatever gets lost, one key goes out with one content."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zbank.apps.dashboard.paying import DONE, FORM, OVER, REFUSED, REVIEW, SENDING, UNKNOWN, Payment, Payments
from zbank.apps.dashboard.rest import AnswerLost, BridgeDown, Refused, Rest, SignInNeeded

BODY = {"from": "Mumbai/1001", "to": "Delhi/1002", "amount": "5.00", "memo": ""}
PATH = ("v1", "transfers")


def transfer(status: str, **more: Any) -> dict[str, Any]:
    refusal = {"code": "cancelled", "detail": "cancelled before it was executed"} if status == "aborted" else None
    return {"id": "x", "status": status, "refusal": refusal, "reason": None, **more}


class Bank(Rest):
    """Executes each key once. `fate` says what becomes of the next answers: told, lost before or after the bank had it."""

    def __init__(self, fate: list[str] | None = None) -> None:
        super().__init__("http://127.0.0.1:1")
        self.fate = fate or []
        self.executed: dict[str, Any] = {}
        self.cancelled: set[str] = set()
        self.asked = 0

    def do(self, method: str, *path: str, body: Any = None, key: str = "", query: Any = None) -> Any:
        self.asked += 1
        fate = self.fate.pop(0) if self.fate else "told"
        if fate == "lost before":
            raise AnswerLost("no answer")
        if fate == "busy":
            raise Refused(429, "too_many_requests", "slow down")
        if path[-1] == "cancel":
            key = query["key"]
            if key not in self.executed:
                self.cancelled.add(key)
        elif key not in self.cancelled:
            assert self.executed.setdefault(key, body) == body, "one key, two contents"
        if fate == "lost after":
            raise AnswerLost("no answer")
        if fate == "pending":
            return transfer("pending")
        return transfer("aborted" if key in self.cancelled else "committed")

    def get(self, *path: str, **query: Any) -> Any:
        if query["key"] in self.executed:
            return transfer("committed")
        raise Refused(404, "transfer_not_found", "nobody knows it")


def confirmed() -> Payment:
    payment = Payment()
    payment.review(PATH, BODY, "5.00 INR", [])
    payment.confirm()
    return payment


ACTS = ("review", "back", "confirm", "run", "run", "run", "check", "cancel", "reload")


@given(
    acts=st.lists(st.sampled_from(ACTS), max_size=40),
    fate=st.lists(st.sampled_from(["told", "lost before", "lost after", "pending", "busy"]), max_size=20),
)
def test_any_clicks_and_any_losses_make_one_payment_at_most(acts: list[str], fate: list[str]) -> None:
    bank, payment, kept = Bank(fate), Payment(), Payments()
    key = payment.key
    for act in acts:
        if act == "review":
            payment.review(PATH, BODY, "5.00 INR", [])
        elif act == "back":
            payment.back()
        elif act == "confirm":
            payment.confirm()
            if payment.state == SENDING:
                kept.keep("me", payment)
        elif act == "run":
            payment.send(bank)
        elif act == "check":
            payment.check_again()
        elif act == "cancel":
            payment.cancel(bank)
        elif found := kept.find("me", key):
            payment = found
        assert payment.key == key
    assert set(bank.executed) <= {key}
    if payment.state == DONE:
        assert bank.executed == {key: BODY}
    if payment.state == REFUSED:
        assert not bank.executed
    if payment.state in (FORM, REVIEW):
        assert bank.asked == 0


def test_from_the_form_to_the_outcome() -> None:
    bank, payment = Bank(), Payment()
    payment.send(bank)
    assert (payment.state, bank.asked) == (FORM, 0)
    payment.review(PATH, BODY, "5.00 INR", [("To", "Delhi/1002")])
    payment.review(("v1", "deposits"), {"amount": "6"}, "6 INR", [])  # a second click on Review
    assert (payment.state, payment.body, payment.path) == (REVIEW, BODY, PATH)
    payment.back()
    assert payment.state == FORM
    payment.confirm()
    assert payment.state == FORM
    payment.review(PATH, BODY, "5.00 INR", [])
    payment.confirm()
    payment.send(bank)
    assert payment.state == DONE
    payment.send(bank)
    assert bank.asked == 1


@pytest.mark.parametrize(
    ("error", "state", "text"),
    [
        (Refused(422, "insufficient_funds", "too little"), REFUSED, "too little"),
        (Refused(403, "forbidden", "not yours"), REFUSED, "not yours"),
        (Refused(429, "too_many_requests", "slow down"), UNKNOWN, "slow down"),
        (AnswerLost("gone"), UNKNOWN, "gone"),
    ],
)
def test_what_an_error_means(monkeypatch: pytest.MonkeyPatch, error: Exception, state: str, text: str) -> None:
    bank, payment = Bank(), confirmed()

    def fail(*_: Any, **__: Any) -> Any:
        raise error

    monkeypatch.setattr(bank, "do", fail)
    payment.send(bank)
    assert (payment.state, payment.text) == (state, text)


def test_a_token_that_is_no_good_leaves_the_payment_to_be_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    bank, payment = Bank(), confirmed()

    def fail(*_: Any, **__: Any) -> Any:
        raise SignInNeeded(401, "unauthorized", "who are you?")

    monkeypatch.setattr(bank, "do", fail)
    with pytest.raises(SignInNeeded):
        payment.send(bank)
    assert payment.state == SENDING


def test_a_key_of_which_nothing_else_is_left_is_looked_up() -> None:
    bank = Bank()
    payment = Payment(key="k", state=UNKNOWN)
    payment.look_up(bank)
    assert payment.state == UNKNOWN
    assert "nothing was paid" in payment.text
    bank.executed["k"] = BODY
    payment.look_up(bank)
    assert payment.state == DONE


def test_a_bridge_that_is_down_is_no_outcome(monkeypatch: pytest.MonkeyPatch) -> None:
    bank = Bank()

    def fail(*_: Any, **__: Any) -> Any:
        raise BridgeDown("down")

    monkeypatch.setattr(bank, "get", fail)
    payment = Payment(key="k", state=UNKNOWN)
    with pytest.raises(BridgeDown):
        payment.look_up(bank)
    assert payment.state == UNKNOWN


def test_payments_are_kept_for_their_owner_alone() -> None:
    kept, payment = Payments(), confirmed()
    kept.keep("me", payment)
    assert kept.find("me", payment.key) is payment
    assert kept.find("you", payment.key) is None
    assert kept.find("me", "another") is None


def test_keys_differ() -> None:
    assert len({Payment().key for _ in range(100)}) == 100
    assert set(OVER) == {DONE, REFUSED}
