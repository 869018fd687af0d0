"""Accounts: names that are good or refused, and what is available."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zbank.domain.account import OPEN, Account, check_account_number, check_branch_name, parse_account
from zbank.domain.legs import MAX_NAME_CHARS, MAX_NUMBER_CHARS
from zbank.errors import InvalidInput


def account(number: str, balance_minor: int = 0, held_minor: int = 0, overdraft_limit_minor: int = 0) -> Account:
    return Account(
        number=number,
        owner="",
        currency="INR",
        status=OPEN,
        overdraft_limit_minor=overdraft_limit_minor,
        balance_minor=balance_minor,
        held_minor=held_minor,
        incoming_minor=0,
        opened_at_us=0,
    )


@pytest.mark.parametrize("name", ["Mumbai", "central-Bohemia", "a", "B_2", "x" * MAX_NAME_CHARS])
def test_branch_names(name: str) -> None:
    assert check_branch_name(name) == name


@pytest.mark.parametrize("name", ["", "4th", "-x", "a b", "a/b", "a.b", "Zürich", "a\n", "x" * (MAX_NAME_CHARS + 1)])
def test_texts_that_are_no_branch_names(name: str) -> None:
    with pytest.raises(InvalidInput, match="is no branch name: it is a letter, then"):
        check_branch_name(name)


@pytest.mark.parametrize("number", ["1001", "cash", "DE89370400440532013000", "a.b-c_d", "9" * MAX_NUMBER_CHARS])
def test_account_numbers(number: str) -> None:
    assert check_account_number(number) == number


@pytest.mark.parametrize("number", ["", ".1", "-1", "1 2", "1/2", "1\n", "\uff11", "9" * (MAX_NUMBER_CHARS + 1)])
def test_texts_that_are_no_account_numbers(number: str) -> None:
    with pytest.raises(InvalidInput, match="is no account number"):
        check_account_number(number)


def test_an_account_is_branch_and_number() -> None:
    assert parse_account("Mumbai/1001") == ("Mumbai", "1001")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "write Branch/number, as in Mumbai/1001"),
        ("Mumbai", "write Branch/number"),
        ("Mumbai/", "is no account number"),
        ("/1001", "is no branch name"),
        ("Mumbai/1001/2", "is no account number"),
        ("Mumbai /1001", "is no branch name"),
    ],
)
def test_texts_that_are_no_accounts(text: str, why: str) -> None:
    with pytest.raises(InvalidInput, match=why):
        parse_account(text)


@given(st.text(max_size=50))
def test_any_text_is_an_account_or_refused(text: str) -> None:
    try:
        branch, number = parse_account(text)
    except InvalidInput:
        return
    assert f"{branch}/{number}" == text


def test_available_is_balance_less_held_plus_overdraft_limit() -> None:
    assert account("1001", balance_minor=100, held_minor=30, overdraft_limit_minor=50).available_minor == 120


def test_system_accounts() -> None:
    assert all(account(number).is_system for number in ("cash", "clearing", "suspense"))
    assert not account("1001").is_system
