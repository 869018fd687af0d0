"""Money: integer minor units inside, decimal text outside, and nothing in between that could round.

All text that becomes an amount passes through this file. What is not exactly an amount of the currency is refused, and
the refusal says why.
"""

from __future__ import annotations

import re
from decimal import Decimal
from functools import lru_cache

import iso4217
from msgspec import Struct

from zbank.domain.legs import MAX_MINOR
from zbank.errors import InvalidAmount, InvalidInput

MAX_AMOUNT_CHARS = 40  #: a longer text is refused unread; the largest amount has 21 characters
_SHOWN_CHARS = 24  #: how much of a refused text an error repeats

_AMOUNT = re.compile(r"(-?)(0|[1-9][0-9]*)(?:\.([0-9]+))?", re.ASCII)

AmountInput = str | int | Decimal  #: text "50.00", an int of whole units, or an exact Decimal; never a float


class Currency(Struct, frozen=True):
    """A currency of ISO 4217."""

    code: str  #: three capital letters
    exponent: int  #: decimals of an amount: 2 for INR, 0 for JPY, 3 for KWD


@lru_cache(maxsize=512)
def currency(code: str) -> Currency:
    """The currency of an ISO 4217 code.

    Raises InvalidInput for an unknown code, and for one without minor units (gold, test codes): no account has those.
    """
    try:
        found = iso4217.Currency(code)
    except ValueError:
        found = None
    if found is None or found.code != code:
        raise InvalidInput(f"{_shown(code)} is no currency: write the three capital letters of ISO 4217, as in INR")
    if found.exponent is None:
        raise InvalidInput(f"{code} has no minor units in ISO 4217: accounts cannot be kept in it")
    return Currency(code, found.exponent)


def parse_amount(value: AmountInput, money: Currency) -> int:
    """The minor units of an amount, 1 to 2**63 - 1.

    `value` is text ("50", "50.00"), an int of whole units, or a Decimal that is exact in this currency. Raises
    InvalidAmount, saying why, for anything else: zero and negative ones too.
    """
    minor = _parse(value, money, signed=False)
    if minor == 0:
        raise InvalidAmount("the amount is zero: give one above zero")
    return minor


def parse_signed_amount(value: AmountInput, money: Currency) -> int:
    """The minor units of a leg: as `parse_amount`, but a leading "-" is allowed (a debit). Zero is not."""
    minor = _parse(value, money, signed=True)
    if minor == 0:
        raise InvalidAmount("the amount of a leg is zero: a leg credits (50.00) or debits (-50.00)")
    return minor


def parse_limit(value: AmountInput, money: Currency) -> int:
    """The minor units of a limit: as `parse_amount`, but zero is allowed."""
    return _parse(value, money, signed=False)


def format_amount(minor: int, money: Currency) -> str:
    """Decimal text with exactly the currency's decimals: `format_amount(-5, INR)` is "-0.05"."""
    sign = "-" if minor < 0 else ""
    if money.exponent == 0:
        return f"{sign}{abs(minor)}"
    whole, part = divmod(abs(minor), _scale(money))
    return f"{sign}{whole}.{part:0{money.exponent}d}"


def _scale(money: Currency) -> int:
    """Minor units in one whole unit."""
    scale: int = 10**money.exponent
    return scale


def _parse(value: AmountInput, money: Currency, *, signed: bool) -> int:
    if isinstance(value, str):
        minor = _parse_text(value, money)
    elif isinstance(value, int) and not isinstance(value, bool):
        minor = value * _scale(money)
    elif isinstance(value, Decimal):
        minor = _parse_decimal(value, money)
    else:
        raise InvalidAmount(
            f"an amount is text, an int of whole units or a Decimal, never a {type(value).__name__}: write '50.00'"
        )
    if minor < 0 and not signed:
        raise InvalidAmount("the amount is negative: give one above zero")
    if abs(minor) > MAX_MINOR:
        raise InvalidAmount(f"the amount is too large: {format_amount(MAX_MINOR, money)} {money.code} is the most")
    return minor


def _parse_text(text: str, money: Currency) -> int:
    match = _AMOUNT.fullmatch(text) if len(text) <= MAX_AMOUNT_CHARS else None
    if match is None:
        raise InvalidAmount(_why_no_amount(text))
    sign, whole, decimals = match.groups(default="")
    if len(decimals) > money.exponent:
        raise InvalidAmount(_too_precise(_shown(text), money))
    minor = int(whole + decimals.ljust(money.exponent, "0"))
    return -minor if sign else minor


def _parse_decimal(value: Decimal, money: Currency) -> int:
    if not value.is_finite():
        raise InvalidAmount("the Decimal is not finite: NaN and Infinity are no amounts")
    if not value:
        return 0
    if abs(value.adjusted()) > MAX_AMOUNT_CHARS:  # before any work that grows with the exponent
        raise InvalidAmount("the Decimal is far too large or too small to be an amount")
    numerator, denominator = value.as_integer_ratio()  # exact, whatever the decimal context
    minor, rest = divmod(numerator * _scale(money), denominator)
    if rest:
        raise InvalidAmount(_too_precise("the Decimal", money))
    return minor


def _too_precise(what: str, money: Currency) -> str:
    most = f"{money.exponent} decimals" if money.exponent else "no decimals"
    return f"{what} is too precise: {money.code} has {most}"


def _why_no_amount(text: str) -> str:
    """One sentence on a text that is no amount; the commonest slips are named."""
    good = "write digits with a point, as in 50 or 50.00"
    if not text:
        return f"the amount is empty: {good}"
    if len(text) > MAX_AMOUNT_CHARS:
        return f"the amount has {len(text)} characters, {MAX_AMOUNT_CHARS} is the most"
    shown = _shown(text)
    if text != text.strip():
        return f"{shown} has spaces around the amount: {good}"
    if not text.isascii():
        return f"{shown} has characters other than the digits 0-9: {good}"
    if text.startswith("+"):
        return f"{shown} begins with a plus sign: leave it out"
    if text.lower().lstrip("-") in {"nan", "snan", "inf", "infinity"}:
        return f"{shown} is not a finite number: {good}"
    if "," in text or "_" in text or "'" in text:
        return f"{shown} has a separator in the number: {good}"
    if re.fullmatch(r"-?[0-9.]+[eE][+-]?[0-9]+", text):
        return f"{shown} is in exponent form: {good}"
    if re.fullmatch(r"-?0[0-9]+(\.[0-9]*)?", text):
        return f"{shown} begins with a needless zero: {good}"
    if re.fullmatch(r"-?(\.[0-9]+|[0-9]+\.)", text):
        return f"{shown} lacks a digit before or after the point: {good}"
    return f"{shown} is no amount: {good}"


def _shown(text: object) -> str:
    if not isinstance(text, str):
        return f"a value of type {type(text).__name__}"
    return repr(text if len(text) <= _SHOWN_CHARS else text[:_SHOWN_CHARS] + "…")
