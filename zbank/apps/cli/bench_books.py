"""What a load leaves behind, checked from outside: is every unit of money where the answers said it would be?"""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

from zbank.apps.cli.bench_load import AMOUNT, Record, Route
from zbank.domain.legs import CASH, CLEARING
from zbank.domain.money import currency, format_amount
from zbank.errors import Refused, ZbankError
from zbank.ids import format_id, new_id

if TYPE_CHECKING:
    from zbank import Client
    from zbank.protocol.messages import BranchInfo

FUNDS = 1_000_000  #: whole units paid into each account before the load
OPENING_THREADS = 16
FUNDING_BATCH = 256
QUIET_LIMIT_S = 30.0
QUIET_PAUSE_S = 0.1
FOUND_ENTRIES_LIMIT = 250_000  #: entries looked up one by one; beyond it the exact balances have to do
PAGE_ENTRIES = 1000
SHOWN_PROBLEMS = 3


@dataclass(frozen=True, slots=True)
class Check:
    """One question to the books, and its answer."""

    name: str
    ok: bool
    detail: str


def open_accounts(client: Client, branches: Sequence[BranchInfo], count: int) -> list[list[str]]:
    """Open `count` accounts at each branch, pay FUNDS into each; their names by branch. Raises ZbankError."""
    run = new_id()[-4:].hex()  # each run has accounts of its own
    by_branch = [[f"{branch.name}/bench-{run}-{n:06d}" for n in range(count)] for branch in branches]
    names = [name for accounts in by_branch for name in accounts]

    def open_one(name: str) -> None:
        branch, number = name.split("/")
        client.open_account(branch, number=number, owner="bench")

    with ThreadPoolExecutor(OPENING_THREADS) as pool:
        for _ in pool.map(open_one, names):
            pass
    _fund(client, names)
    return by_branch


def _fund(client: Client, names: Sequence[str]) -> None:
    from zbank import TransferRequest

    for start in range(0, len(names), FUNDING_BATCH):
        part = names[start : start + FUNDING_BATCH]
        requests = [TransferRequest(_cash_of(name), name, FUNDS, memo="bench") for name in part]
        for name, result in zip(part, client.transfer_many(requests), strict=True):
            if isinstance(result, ZbankError):
                raise result
            if result.status != "committed":
                code, detail = (
                    (result.refusal.code, result.refusal.detail) if result.refusal else ("unknown", result.reason)
                )
                raise Refused(code, f"the first deposit into {name} did not go through: {detail}")


def _cash_of(account: str) -> str:
    return f"{account.split('/')[0]}/{CASH}"


def check_books(
    client: Client,
    branches: Sequence[BranchInfo],
    accounts: Sequence[str],
    routes: Sequence[Route],
    records: Sequence[Record],
) -> list[Check]:
    """Every check, in turn. `branches` are all of the bank, `accounts` those of this load."""
    quiet = _wait_quiet(client)  # first: what is prepared cannot be cancelled, it has to end
    moves, settled = _settle(client, routes, records)
    checks = [settled, quiet]
    checks += _check_sums(client, branches)
    checks.append(_check_balances(client, accounts, routes, moves))
    checks.append(_check_entries(client, accounts, routes, moves))
    return checks


Moves = list[tuple[bytes, int]]  #: (id, route) of everything that was committed


def _settle(client: Client, routes: Sequence[Route], records: Sequence[Record]) -> tuple[Moves, Check]:
    """What was committed; where no outcome was told the bank is asked to cancel, which gives one for good."""
    moves = [move for record in records for move in record.committed()]
    open_ends = [end for record in records for end in record.unsettled]
    left: Counter[str] = Counter()
    for request_id, route in open_ends:
        try:
            result = client.cancel(request_id, account=routes[route][0])
        except ZbankError as error:
            left[error.code] += 1
            continue
        left[result.status] += 1
        if result.status == "committed":
            moves.append((request_id, route))
    stuck = len(open_ends) - left["committed"] - left["aborted"]
    if not open_ends:
        return moves, Check("outcomes", True, "every outcome was told")
    detail = f"{len(open_ends)} were not told: {left['committed']} were committed, {left['aborted']} never happen"
    return moves, Check("outcomes", stuck == 0, detail + (f", {stuck} are still not known" if stuck else ""))


def _wait_quiet(client: Client) -> Check:
    """Wait until nothing is in flight anywhere. A coordinator that is away does not count: the branches know what they
    have prepared."""
    from zbank.protocol.messages import BRANCH, StatusInfo

    end = time.monotonic() + QUIET_LIMIT_S
    while True:
        actors = client.status()
        silent = [actor for actor in actors if not isinstance(actor, StatusInfo) and actor.role == BRANCH]
        moving = sum(actor.in_flight for actor in actors if isinstance(actor, StatusInfo))
        clearing = sum(actor.clearing_minor for actor in actors if isinstance(actor, StatusInfo))
        if not silent and not moving and not clearing:
            return Check("at rest", True, "nothing is in flight")
        if time.monotonic() > end:
            names = ", ".join(actor.name for actor in silent)
            detail = f"no answer from {names}" if silent else f"{moving} in flight, clearing at {clearing} minor units"
            return Check("at rest", False, f"{detail} after {QUIET_LIMIT_S:.0f} s")
        time.sleep(QUIET_PAUSE_S)


def _check_sums(client: Client, branches: Sequence[BranchInfo]) -> list[Check]:
    """Each branch's accounts sum to zero, per currency; all clearing accounts together as well."""
    sums: dict[tuple[str, str], int] = defaultdict(int)
    clearing: dict[str, int] = defaultdict(int)
    count = 0
    for branch in branches:
        for account in client.accounts(branch.name):
            count += 1
            sums[branch.name, account.currency] += account.balance_minor
            if account.number == CLEARING:
                clearing[account.currency] += account.balance_minor
    off = [f"{name}: {_money(total, code)}" for (name, code), total in sums.items() if total]
    unmatched = [_money(total, code) for code, total in clearing.items() if total]
    return [
        Check("each branch sums to zero", not off, "; ".join(off) or f"{count} accounts of {len(branches)} branches"),
        Check("clearing cancels", not unmatched, "; ".join(unmatched) or "all clearing accounts together are zero"),
    ]


def _money(amount_minor: int, code: str) -> str:
    return f"{format_amount(amount_minor, currency(code))} {code}"


def _check_balances(client: Client, accounts: Sequence[str], routes: Sequence[Route], moves: Moves) -> Check:
    """Each account of the load holds what was paid in, plus and minus exactly the committed moves."""
    expected = dict.fromkeys(accounts, FUNDS)
    for _, route in moves:
        source, destination = routes[route]
        if source in expected:
            expected[source] -= AMOUNT
        if destination in expected:
            expected[destination] += AMOUNT
    wrong = []
    with ThreadPoolExecutor(OPENING_THREADS) as pool:
        for account in pool.map(client.account, accounts):
            whole = 10 ** currency(account.currency).exponent
            if account.balance_minor != expected[account.account] * whole:
                due = _money(expected[account.account] * whole, account.currency)
                wrong.append(f"{account.account} has {account.balance} {account.currency}, not {due}")
    return Check("balances", not wrong, _some(wrong) or f"{len(accounts)} accounts hold exactly what they should")


def _check_entries(client: Client, accounts: Sequence[str], routes: Sequence[Route], moves: Moves) -> Check:
    """Each committed transfer stands on the statement of its account, and nothing else does but the first deposit."""
    by_account: dict[str, set[str]] = {account: set() for account in accounts}
    for request_id, route in moves:
        for account in routes[route]:
            if account in by_account:
                by_account[account].add(format_id(request_id))
    looked_up = 0
    wrong = []
    for account, expected in by_account.items():
        if looked_up >= FOUND_ENTRIES_LIMIT:
            break
        found = _entry_ids(client, account)
        looked_up += len(found)
        missing = len(expected.difference(found))
        extra = len(found) - 1 - (len(expected) - missing)  # the one is the first deposit
        if missing or extra:
            wrong.append(f"{account}: {missing} missing, {extra} that nobody was told of")
    return Check(
        "entries", not wrong, _some(wrong) or f"{looked_up} entries found one by one, none missing, none too many"
    )


def _entry_ids(client: Client, account: str) -> list[str]:
    ids: list[str] = []
    cursor = ""
    while True:
        page = client.statement(account, limit=PAGE_ENTRIES, cursor=cursor)
        ids.extend(entry.id for entry in page.entries)
        cursor = page.cursor
        if not cursor:
            return ids


def _some(problems: Iterable[str]) -> str:
    listed = list(problems)
    more = len(listed) - SHOWN_PROBLEMS
    return "; ".join(listed[:SHOWN_PROBLEMS]) + (f"; and {more} more" if more > 0 else "")
