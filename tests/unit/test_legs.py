"""Legs: what may be a transfer by content alone, its home branch and its digest."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zbank.domain.account import parse_account
from zbank.domain.legs import (
    CLEARING,
    MAX_LEGS,
    MAX_MINOR,
    SUSPENSE,
    Leg,
    branches_of,
    check_legs,
    content_digest,
    home_branch,
)
from zbank.errors import InvalidAmount, InvalidInput

leg = st.builds(
    Leg, st.sampled_from(["Delhi", "Mumbai", "Pune"]), st.sampled_from(["1", "2", "cash"]), st.integers(-100, 100)
)


def balanced(legs: list[Leg]) -> list[Leg]:
    """The legs and one more that makes the sum zero."""
    return [*legs, Leg("Agra", "sink", -sum(one.amount_minor for one in legs))]


transfers = st.lists(leg.filter(lambda one: one.amount_minor != 0), min_size=1, max_size=8).map(balanced)
good_transfers = transfers.filter(lambda legs: legs[-1].amount_minor != 0)


def pay(source: str, destination: str, amount_minor: int) -> list[Leg]:
    return [Leg(*parse_account(source), -amount_minor), Leg(*parse_account(destination), amount_minor)]


@given(good_transfers)
def test_legs_that_sum_to_zero_are_a_transfer(legs: list[Leg]) -> None:
    check_legs(legs)
    home = home_branch(legs)
    assert home in branches_of(legs)
    assert any(one.branch == home and one.amount_minor < 0 for one in legs)


@pytest.mark.parametrize(
    ("legs", "error", "why"),
    [
        ([], InvalidInput, "this one has 0"),
        ([Leg("Mumbai", "1", 5)], InvalidInput, "2 to 256 legs, this one has 1"),
        (pay("Mumbai/1", "Delhi/1", 5) * (MAX_LEGS // 2 + 1), InvalidInput, "this one has 258"),
        (pay("Mumbai/1", "Delhi/1", 0), InvalidAmount, "not zero, the one on Mumbai/1 is"),
        (pay("Mumbai/1", "Mumbai/1", 5), InvalidInput, "both sides of the transfer are Mumbai/1"),
        (pay("Mumbai/1", f"Delhi/{CLEARING}", 5), InvalidInput, "Delhi/clearing is the bank's own"),
        (pay(f"Mumbai/{SUSPENSE}", "Delhi/1", 5), InvalidInput, "Mumbai/suspense is the bank's own"),
        ([Leg("Mumbai", "1", -5), Leg("Delhi", "1", 4)], InvalidAmount, "sum to -1 minor units"),
        ([Leg("Mumbai", "1", MAX_MINOR), Leg("Delhi", "1", MAX_MINOR)], InvalidAmount, "sum to"),
    ],
)
def test_legs_that_are_no_transfer(legs: list[Leg], error: type[InvalidInput], why: str) -> None:
    with pytest.raises(error, match=why):
        check_legs(legs)


def test_suspense_is_settled_within_its_branch() -> None:
    check_legs(pay(f"Mumbai/{SUSPENSE}", "Mumbai/1", 5))
    with pytest.raises(InvalidInput, match="settled within branch Mumbai only"):
        check_legs([Leg("Mumbai", SUSPENSE, -5), Leg("Mumbai", "1", 4), Leg("Delhi", "1", 1)])


def test_the_home_is_the_branch_of_the_first_debit_by_account() -> None:
    assert home_branch(pay("Mumbai/1", "Delhi/1", 5)) == "Mumbai"
    assert home_branch([Leg("Pune", "1", -1), Leg("Agra", "1", 3), Leg("Mumbai", "1", -2)]) == "Mumbai"


@given(good_transfers, st.randoms(use_true_random=False))
def test_the_order_of_the_legs_does_not_matter(legs: list[Leg], source: random.Random) -> None:
    shuffled = source.sample(legs, len(legs))
    assert home_branch(shuffled) == home_branch(legs)
    assert content_digest(shuffled, "INR", "", "") == content_digest(legs, "INR", "", "")
    assert branches_of(shuffled) == branches_of(legs)


def test_the_digest_tells_all_content_apart() -> None:
    base = pay("Mumbai/1", "Delhi/1", 5)
    digests = {
        content_digest(base, "INR", "", ""),
        content_digest(base, "USD", "", ""),
        content_digest(base, "INR", "rent", ""),
        content_digest(base, "INR", "", "2026-01-31"),
        content_digest(base, "INR", "2026-01-31", ""),
        content_digest(pay("Mumbai/1", "Delhi/1", 6), "INR", "", ""),
        content_digest(pay("Mumbai/2", "Delhi/1", 5), "INR", "", ""),
        content_digest(pay("Delhi/1", "Mumbai/1", 5), "INR", "", ""),
        content_digest(base * 2, "INR", "", ""),
    }
    assert len(digests) == 9
    assert {len(digest) for digest in digests} == {16}
