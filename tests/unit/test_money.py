"""Money: what is an amount, what is not and why, and that text and minor units round-trip exactly."""

from __future__ import annotations

import decimal
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zbank.domain.legs import MAX_MINOR
from zbank.domain.money import (
    MAX_AMOUNT_CHARS,
    Currency,
    currency,
    format_amount,
    parse_amount,
    parse_limit,
    parse_signed_amount,
)
from zbank.errors import InvalidAmount, InvalidInput

INR = currency("INR")
JPY = currency("JPY")
KWD = currency("KWD")

currencies = st.sampled_from([INR, JPY, KWD, currency("CLF")])
positive = st.integers(1, MAX_MINOR)
signed = st.integers(-MAX_MINOR, MAX_MINOR).filter(bool)


@pytest.mark.parametrize(("code", "exponent"), [("INR", 2), ("CZK", 2), ("JPY", 0), ("KWD", 3), ("CLF", 4)])
def test_currencies(code: str, exponent: int) -> None:
    assert currency(code) == Currency(code, exponent)


@pytest.mark.parametrize("code", ["", "inr", "INR ", "INR\n", "IN", "ZZZ", "356", "RUPEE"])
def test_unknown_currencies(code: str) -> None:
    with pytest.raises(InvalidInput, match="is no currency: write the three capital letters of ISO 4217"):
        currency(code)


@pytest.mark.parametrize("code", ["XAU", "XXX", "XTS"])
def test_currencies_without_minor_units(code: str) -> None:
    with pytest.raises(InvalidInput, match=f"{code} has no minor units"):
        currency(code)


@pytest.mark.parametrize(
    ("value", "money", "minor"),
    [
        ("50", INR, 5000),
        ("50.0", INR, 5000),
        ("50.00", INR, 5000),
        ("0.05", INR, 5),
        ("50", JPY, 50),
        ("1.234", KWD, 1234),
        ("92233720368547758.07", INR, MAX_MINOR),
        (50, INR, 5000),
        (50, JPY, 50),
        (Decimal("50"), INR, 5000),
        (Decimal("50.5"), INR, 5050),
        (Decimal("50.5000"), INR, 5050),
        (Decimal("1E3"), INR, 100_000),
        (Decimal("92233720368547758.07"), INR, MAX_MINOR),
        (Decimal("1." + "0" * 500), INR, 100),
    ],
)
def test_amounts(value: str | int | Decimal, money: Currency, minor: int) -> None:
    assert parse_amount(value, money) == minor


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ("", "empty"),
        (" 50", "spaces"),
        ("50 ", "spaces"),
        ("50\n", "spaces"),
        ("5 0", "no amount"),
        ("50.", "lacks a digit"),
        (".5", "lacks a digit"),
        (".", "no amount"),
        ("-", "no amount"),
        ("--5", "no amount"),
        ("5-", "no amount"),
        ("0x10", "no amount"),
        ("5.0.0", "no amount"),
        ("fifty", "no amount"),
        ("50\x00", "no amount"),
        ("+50", "plus sign"),
        ("-50", "negative"),
        ("1e3", "exponent form"),
        ("1E-3", "exponent form"),
        ("1_000", "separator"),
        ("1,000", "separator"),
        ("50,00", "separator"),
        ("NaN", "finite"),
        ("-Infinity", "finite"),
        ("inf", "finite"),
        ("\uff15\uff10", "digits 0-9"),
        ("\u0665\u0660", "digits 0-9"),
        ("50\u00a0", "spaces"),
        ("\u20b950", "digits 0-9"),
        ("007", "needless zero"),
        ("00", "needless zero"),
        ("0", "zero"),
        ("0.00", "zero"),
        ("-0", "zero"),
        ("1.005", "too precise: INR has 2 decimals"),
        ("1.500", "too precise: INR has 2 decimals"),
        ("92233720368547758.08", r"too large: 92233720368547758\.07 INR"),
        ("9" * MAX_AMOUNT_CHARS, "too large"),
        ("9" * 1_000_000, "has 1000000 characters"),
        (0, "zero"),
        (-5, "negative"),
        (10**5000, "too large"),
        (Decimal("NaN"), "finite"),
        (Decimal("sNaN"), "finite"),
        (Decimal("-Infinity"), "finite"),
        (Decimal("-0"), "zero"),
        (Decimal("0E-999999"), "zero"),
        (Decimal("-5"), "negative"),
        (Decimal("1.001"), "too precise"),
        (Decimal("1." + "0" * 500 + "1"), "too precise"),
        (Decimal("1E+999999"), "far too large"),
        (Decimal("1E-999999"), "far too large or too small"),
        (Decimal("92233720368547758.08"), "too large"),
        (50.0, "never a float"),
        (True, "never a bool"),
        (None, "never a NoneType"),
        (b"50", "never a bytes"),
    ],
    ids=lambda value: ascii(value)[:30] if not isinstance(value, int) else "",
)
def test_what_is_no_amount(value: str, why: str) -> None:
    with pytest.raises(InvalidAmount, match=why) as caught:
        parse_amount(value, INR)
    assert len(str(caught.value)) < 200
    assert "\n" not in str(caught.value)


def test_decimals_of_a_currency_that_has_none() -> None:
    with pytest.raises(InvalidAmount, match=r"'1\.5' is too precise: JPY has no decimals"):
        parse_amount("1.5", JPY)


def test_a_signed_amount_may_be_a_debit_but_not_zero() -> None:
    assert parse_signed_amount("-0.05", INR) == -5
    assert parse_signed_amount("0.05", INR) == 5
    assert parse_signed_amount(Decimal("-50.5"), INR) == -5050
    assert parse_signed_amount(-50, INR) == -5000
    assert parse_signed_amount("-92233720368547758.07", INR) == -MAX_MINOR
    for zero in ("0", "-0.00", 0, Decimal("-0")):
        with pytest.raises(InvalidAmount, match="zero"):
            parse_signed_amount(zero, INR)
    for bad in ("+5", "- 5", "-92233720368547758.08", "-1.005"):
        with pytest.raises(InvalidAmount):
            parse_signed_amount(bad, INR)


def test_a_limit_may_be_zero_but_not_negative() -> None:
    assert parse_limit("0", INR) == 0
    assert parse_limit("0.00", INR) == 0
    assert parse_limit("1000.00", INR) == 100_000
    with pytest.raises(InvalidAmount, match="negative"):
        parse_limit("-0.01", INR)


@pytest.mark.parametrize(
    ("minor", "money", "text"),
    [
        (0, INR, "0.00"),
        (5, INR, "0.05"),
        (-5, INR, "-0.05"),
        (-12345, INR, "-123.45"),
        (-7, JPY, "-7"),
        (7, KWD, "0.007"),
    ],
)
def test_format(minor: int, money: Currency, text: str) -> None:
    assert format_amount(minor, money) == text


@given(positive, currencies)
def test_amounts_round_trip_through_text(minor: int, money: Currency) -> None:
    assert parse_amount(format_amount(minor, money), money) == minor


@given(signed, currencies)
def test_signed_amounts_round_trip_through_text_and_decimal(minor: int, money: Currency) -> None:
    text = format_amount(minor, money)
    assert parse_signed_amount(text, money) == minor
    assert parse_signed_amount(Decimal(text), money) == minor


@given(st.text(max_size=30), currencies)
def test_any_text_is_an_amount_or_refused(text: str, money: Currency) -> None:
    try:
        minor = parse_amount(text, money)
    except InvalidAmount:
        return
    assert Decimal(text).scaleb(money.exponent) == minor


@given(st.decimals(allow_nan=True, allow_infinity=True), currencies)
def test_any_decimal_is_exact_or_refused(value: Decimal, money: Currency) -> None:
    try:
        minor = parse_signed_amount(value, money)
    except InvalidAmount:
        return
    assert Decimal(minor) == value.scaleb(money.exponent)


def test_the_decimal_context_of_the_caller_changes_nothing() -> None:
    with decimal.localcontext() as context:
        context.prec = 3
        assert parse_amount(Decimal("123456.78"), INR) == 12_345_678
