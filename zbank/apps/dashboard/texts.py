"""How money, times and names are written on the pages. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from typing import Any

from zbank.domain.money import currency

AMOUNT = re.compile(r"[0-9]{1,15}(?:\.[0-9]{1,6})?")
ACCOUNT = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,31}/[A-Za-z0-9][A-Za-z0-9._-]{0,33}")
GROUPED = re.compile(r"[0-9]{1,3}(?:,[0-9]{2,3})*,[0-9]{3}(?:\.[0-9]*)?")  #: by thousands, or by lakhs: 1,00,000
UUID = re.compile(r"[0-9a-f]{8}-?(?:[0-9a-f]{4}-?){3}[0-9a-f]{12}", re.IGNORECASE)

_MARKDOWN = re.compile(r"([\\`*_{}\[\]()#+\-.!|<>~:$&\"'])")


def plain(text: str) -> str:
    """Text of other people's, safe in Markdown: every sign stands for itself, no HTML, no link, no emoji code."""
    return _MARKDOWN.sub(lambda found: f"&#{ord(found[0])};", text.replace("\n", " "))


def money(amount: str | None, currency: str | None = "") -> str:
    """`35,000.00 INR` of decimal text; a dash when it is not known."""
    if amount is None:
        return "–"
    return f"{Decimal(amount):,} {currency or ''}".strip().replace("-", "−")


def parse_amount(text: str, code: str) -> str:
    """Decimal text of what a person typed, in the currency `code`: `1,250.5` → `1250.50`. Raises ValueError."""
    found = text.strip().replace(" ", "")
    if "," in found:
        if GROUPED.fullmatch(found) is None:  # 12,50 may mean twelve and a half: nobody guesses with money
            raise ValueError(f"“{text.strip()}” can be read in two ways: write 1250.50 or 1,250.50.")
        found = found.replace(",", "")
    if not found:
        raise ValueError("Give an amount.")
    if AMOUNT.fullmatch(found) is None:
        raise ValueError(f"“{text.strip()}” is no amount: write digits with a point, as in 50.00.")
    if Decimal(found) == 0:
        raise ValueError("The amount is zero.")
    decimals = currency(code).exponent
    if len(found.partition(".")[2]) > decimals:
        raise ValueError(f"“{text.strip()}” is too precise: {code} has {count(decimals, 'decimal')}.")
    return f"{Decimal(found):.{decimals}f}"


def parse_signed(text: str, code: str) -> str:
    """The same with a sign: `-30`, `+20.00`, `20`. Raises ValueError."""
    found = text.strip().replace("−", "-")
    sign = "-" if found.startswith("-") else ""
    return sign + parse_amount(found.removeprefix("-").removeprefix("+"), code)


def parse_account(text: str | None, what: str = "account") -> str:
    """`Branch/number` of what a person chose or typed. Raises ValueError."""
    found = (text or "").strip()
    if not found:
        raise ValueError(f"Choose the {what}.")
    if ACCOUNT.fullmatch(found) is None:
        raise ValueError(f"“{found}” is no account: write branch and number, as in Mumbai/1001.")
    return found


def decimal_or_none(text: str) -> Decimal | None:
    """A signed amount as a person types it; None while it is none."""
    try:
        found = Decimal(text.strip().replace("−", "-").replace(",", ""))
    except InvalidOperation:
        return None
    return found if found.is_finite() else None


def clock_time(text: str | None) -> str:
    """`2026-11-27 02:00:00` of a time of the bank, UTC; a dash when there is none."""
    if not text:
        return "–"
    return datetime.fromisoformat(text).astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S")


def age(seconds: float) -> str:
    """`4 s`, `3 min`, `2 h 5 min`, `3 d 4 h`."""
    whole = int(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min"
    if whole < 86_400:
        return f"{whole // 3600} h {whole % 3600 // 60} min"
    return f"{whole // 86_400} d {whole % 86_400 // 3600} h"


def size(count_bytes: int) -> str:
    """`1.7 MB`."""
    amount = float(count_bytes)
    for unit in ("B", "kB", "MB"):
        if amount < 1000:
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1000
    return f"{amount:.1f} GB"


def milliseconds(amount: float | None) -> str:
    """`0.84 ms`, `13.3 ms`, `1.24 s`; a dash when it is not known."""
    if amount is None:
        return "–"
    if amount >= 1000:
        return f"{amount / 1000:.2f} s"
    return f"{amount:.2f} ms" if amount < 10 else f"{amount:.1f} ms"


def count(number: int, one: str, many: str = "") -> str:
    """`1 branch`, `3 branches`."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def route(transfer: dict[str, Any]) -> str:
    """`Mumbai/1001 → Delhi/1002`, or the number of legs."""
    if transfer["from"] and transfer["to"]:
        return f"{transfer['from']} → {transfer['to']}"
    legs = transfer["legs"]
    return count(len(legs), "leg") if legs else "not known"


def sentence(text: str) -> str:
    """A detail of the bank's as the beginning of a sentence."""
    return text[:1].upper() + text[1:]


def actor_name(actor: dict[str, Any]) -> str:
    """What an actor is called; a coordinator that does not answer has not told its name."""
    return str(actor["name"] or actor["role"])


def by_currency(actors: Iterable[dict[str, Any]], field: str) -> dict[str, Decimal]:
    """Sums of a money field of the branches."""
    found: dict[str, Decimal] = {}
    for actor in actors:
        if actor["currency"] and actor[field] is not None:
            found[actor["currency"]] = found.get(actor["currency"], Decimal()) + Decimal(actor[field])
    return found


def sums(amounts: dict[str, Decimal]) -> str:
    """Money of one currency or more."""
    return " + ".join(money(str(amount), code) for code, amount in sorted(amounts.items())) or "–"


def is_customers(account: dict[str, Any]) -> bool:
    """Not one of the bank's own."""
    return account["number"] not in ("cash", "clearing", "suspense")
