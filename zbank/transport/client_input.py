"""What a caller writes, turned into requests: names, amounts, ids and dates are checked here, before anything is sent.

Amounts need the currency of a branch. While that is not known yet (before the first answer of the cluster), the request
carries a `build` function, and what is wrong with its amounts arrives through its future.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from functools import lru_cache
from typing import NamedTuple

from zbank.domain import account as accounts
from zbank.domain.legs import CASH, MAX_MEMO_CHARS, Leg, check_legs
from zbank.domain.money import AmountInput, currency, parse_amount, parse_limit, parse_signed_amount
from zbank.errors import InvalidInput
from zbank.ids import ID_BYTES, id_from_text, new_id
from zbank.protocol.messages import FAR_US, MAX_PAGE, MAX_SEARCH_CHARS, AnyMessage, ChangeAccount, OpenAccount, Transfer
from zbank.protocol.token_messages import MAX_ROLE_CHARS, MAX_TOKEN_ACCOUNTS
from zbank.transport.client_request import THE_COORDINATOR, Near, TransferWrite

Id = bytes | str | None  #: as a caller gives it
Day = date | str | None

MAX_OWNER_CHARS = 100
MAX_HELLO_CHARS = 64
MAX_CURSOR_CHARS = 64
MAX_SECRET_CHARS = 1_000
_ENDPOINT = re.compile(r"tcp://(\[[0-9A-Fa-f:.]+\]|[^\s:/\[\]]+):([0-9]{1,5})")
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", re.ASCII)

parse_account = lru_cache(maxsize=65_536)(accounts.parse_account)


def check_endpoint(endpoint: str) -> str:
    """The endpoint itself; raises InvalidInput unless it is `tcp://host:port`."""
    match = _ENDPOINT.fullmatch(endpoint)
    if match is None or not 1 <= int(match[2]) <= 65_535:
        raise InvalidInput(f"{endpoint!r} is no endpoint: write tcp://host:port, as in tcp://127.0.0.1:9000")
    return endpoint


def check_places(endpoints: str) -> list[str]:
    """The endpoints of a text that has one, or several with commas between. Raises InvalidInput."""
    return [check_endpoint(one.strip()) for one in endpoints.split(",")]


def check_names(cluster: str, name: str) -> None:
    """Raise InvalidInput unless both are text that fits into a Hello."""
    check_text(cluster, "a cluster's name", MAX_HELLO_CHARS)
    check_text(name, "a client's name", MAX_HELLO_CHARS)


def timeout_us(timeout_s: float) -> int:
    """Microseconds; raises InvalidInput unless the timeout is above zero and at most a day."""
    if not 0 < timeout_s <= 86_400:
        raise InvalidInput(f"a timeout is above 0 and at most 86400 seconds, this one is {timeout_s}")
    return int(timeout_s * 1_000_000)


def near(max_lag_s: float | None, after: Mapping[str, int]) -> Near:
    """What somebody who reads at replicas wants. Raises InvalidInput."""
    if max_lag_s is not None and not 0 <= max_lag_s <= 86_400:
        raise InvalidInput(f"a lag is 0 to 86400 seconds, this one is {max_lag_s}")
    for branch, seq in after.items():
        accounts.check_branch_name(branch)
        if not 0 <= seq < FAR_US:
            raise InvalidInput(f"{seq} is no row of a journal")
    return Near(-1 if max_lag_s is None else int(max_lag_s * 1_000_000), dict(after))


def id_bytes(id: bytes | str | None) -> bytes:
    """The 16 bytes of an id as a caller gives it; None = a fresh one. Raises InvalidInput."""
    if id is None:
        return new_id()
    if isinstance(id, str):
        return id_from_text(id)
    if not isinstance(id, bytes) or len(id) != ID_BYTES:
        raise InvalidInput(f"an id is text or {ID_BYTES} bytes")
    return id


def date_text(effective_on: date | str | None) -> str:
    """`YYYY-MM-DD`, or "" for none; raises InvalidInput for anything else."""
    if effective_on is None or effective_on == "":
        return ""
    text = effective_on.strftime("%Y-%m-%d") if isinstance(effective_on, date) else effective_on
    try:
        if _DATE.fullmatch(text):
            date.fromisoformat(text)
            return text
    except (ValueError, TypeError):
        pass
    raise InvalidInput(f"{effective_on!r} is no date: write YYYY-MM-DD, as in 2026-01-31")


def check_text(text: str, what: str, most: int) -> str:
    """The text itself; raises InvalidInput unless it is encodable text of at most `most` characters."""
    if not isinstance(text, str) or len(text) > most:
        raise InvalidInput(f"{what} is text of at most {most} characters")
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise InvalidInput(f"{what} has characters that are no text (lone surrogates)") from error
    return text


def check_page(limit: int, cursor: str) -> None:
    """Raise InvalidInput unless a page can have so many lines, and a cursor can look so."""
    if not 1 <= limit <= MAX_PAGE:
        raise InvalidInput(f"a page has 1 to {MAX_PAGE} lines, not {limit}")
    check_text(cursor, "a cursor", MAX_CURSOR_CHARS)


def check_account_filter(search: str, status: str) -> None:
    """Raise InvalidInput unless accounts can be searched so: "" means all."""
    check_text(search, "a search", MAX_SEARCH_CHARS)
    if status and status not in accounts.STATUSES:
        raise InvalidInput(_no_status(status))


def _no_status(status: str) -> str:
    return f"{status!r} is no status: it is one of {', '.join(accounts.STATUSES)}"


def check_span(from_us: int, until_us: int) -> None:
    """Raise InvalidInput unless both are times that a message can say."""
    for at_us in (from_us, until_us):
        if not 0 <= at_us <= FAR_US:
            raise InvalidInput(f"a time is microseconds UTC, 0 to {FAR_US}, not {at_us}")


def check_token(holder: str, role: str, account_names: Sequence[str], expires_us: int) -> None:
    """Raise InvalidInput for what no token can be; whether it makes sense says the coordinator."""
    if not check_text(holder, "a holder's name", MAX_HELLO_CHARS):
        raise InvalidInput("a token has a holder: give a name")
    if not check_text(role, "a role", MAX_ROLE_CHARS):
        raise InvalidInput("a token has a role")
    if isinstance(account_names, str) or len(account_names) > MAX_TOKEN_ACCOUNTS:
        raise InvalidInput(f"a token is for a list of at most {MAX_TOKEN_ACCOUNTS} accounts")
    for name in account_names:
        parse_account(name)
    check_span(expires_us, expires_us)


class Asker(NamedTuple):
    """What a request says of who asks, and why."""

    caller: str = ""  #: in whose name; "" = the connection's own
    request_id: str = ""  #: for the logs


class Sides:
    """Who gives and gets how much, before the currency is known."""

    __slots__ = ("accounts", "amounts", "pair")

    def __init__(self, accounts: Sequence[tuple[str, str]], amounts: Sequence[AmountInput], pair: bool) -> None:
        self.accounts = accounts  #: (branch, number) of each leg
        self.amounts = amounts  #: signed, one a leg; of a pair one, unsigned: the first account gives, the second gets
        self.pair = pair

    def legs(self, code: str) -> tuple[Leg, ...]:
        """The legs in minor units of `code`; raises InvalidInput or InvalidAmount."""
        money = currency(code)
        if self.pair:
            minor = parse_amount(self.amounts[0], money)
            (branch, number), (to_branch, to_number) = self.accounts
            legs: tuple[Leg, ...] = (Leg(branch, number, -minor), Leg(to_branch, to_number, minor))
        else:
            legs = tuple(
                Leg(branch, number, parse_signed_amount(amount, money))
                for (branch, number), amount in zip(self.accounts, self.amounts, strict=True)
            )
        check_legs(legs)
        return legs


def pair(source: str, destination: str, amount: AmountInput) -> Sides:
    """An ordinary transfer."""
    return Sides((parse_account(source), parse_account(destination)), (amount,), pair=True)


def deposit(account: str, amount: AmountInput) -> Sides:
    """From the cash of the account's branch."""
    branch, number = parse_account(account)
    return Sides(((branch, CASH), (branch, number)), (amount,), pair=True)


def withdrawal(account: str, amount: AmountInput) -> Sides:
    """To the cash of the account's branch."""
    branch, number = parse_account(account)
    return Sides(((branch, number), (branch, CASH)), (amount,), pair=True)


def many_sided(legs: Sequence[tuple[str, AmountInput]]) -> Sides:
    """A transfer of any legs."""
    if not legs:
        raise InvalidInput("a transfer has 2 to 256 legs, this one has none")
    return Sides([parse_account(account) for account, _ in legs], [amount for _, amount in legs], pair=False)


def transfer_write(
    sides: Sides,
    id: bytes | str | None,
    memo: str,
    code: str | None,
    effective_on: date | str | None,
    limit_us: int,
    currencies: Mapping[str, str],
    asker: Asker,
) -> TransferWrite:
    """The request of a transfer. `code` None = the currency of the first account's branch, by `currencies` or later.

    Raises InvalidInput or InvalidAmount.
    """
    id_16 = id_bytes(id)
    check_text(memo, "a memo", MAX_MEMO_CHARS)
    day = date_text(effective_on) if effective_on else ""
    first = sides.accounts[0][0]
    target = first
    for branch, _ in sides.accounts:
        if branch != first:
            target = THE_COORDINATOR
    known = code or currencies.get(first)
    if known:
        return TransferWrite(target, id_16, Transfer(id_16, sides.legs(known), known, memo, day, *asker), limit_us)

    def build(found: str) -> AnyMessage:
        return Transfer(id_16, sides.legs(found), found, memo, day, *asker)

    return TransferWrite(target, id_16, None, limit_us, build, first)


def open_account(
    branch: str, number: str, owner: str, overdraft_limit: AmountInput, code: str | None, id_16: bytes, asker: Asker
) -> Callable[[str], OpenAccount]:
    """What makes the OpenAccount once the currency is known. Raises InvalidInput for what is wrong without it."""
    accounts.check_branch_name(branch)
    if number:
        accounts.check_account_number(number)
    check_text(owner, "an owner", MAX_OWNER_CHARS)

    def build(found: str) -> OpenAccount:
        limit_minor = parse_limit(overdraft_limit, currency(code or found))
        return OpenAccount(id_16, number, owner, code or found, limit_minor, *asker)

    return build


def change_account(
    number: str, status: str | None, overdraft_limit: AmountInput | None, id_16: bytes, asker: Asker
) -> Callable[[str], ChangeAccount]:
    """What makes the ChangeAccount once the currency is known. Raises InvalidInput for what is wrong without it."""
    if status is None and overdraft_limit is None:
        raise InvalidInput("nothing to change: give a status or an overdraft limit")
    if status is not None and status not in accounts.STATUSES:
        raise InvalidInput(_no_status(status))

    def build(found: str) -> ChangeAccount:
        limit_minor = -1 if overdraft_limit is None else parse_limit(overdraft_limit, currency(found))
        return ChangeAccount(id_16, number, status or "", limit_minor, *asker)

    return build
