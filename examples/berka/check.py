"""The bank's books against its own files: every entry of every account, and every sum.

A `Client` is asked for everything from outside; nothing here knows how the replay went. What is not equal becomes one
sentence.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from examples.berka.mapping import CLEARING_BRANCH, Plan, Step, amount_text
from zbank import Client
from zbank.domain.legs import CASH, CLEARING
from zbank.ids import format_id
from zbank.protocol.messages import MAX_PAGE, StatusInfo
from zbank.transport.views import EntryView

READERS = 8  #: statements read at once
REST_LIMIT_S = 30.0  #: so long the cluster may take to finish what is still being applied
LOOK_AGAIN_S = 0.05


@dataclass(slots=True)
class Checked:
    """What was compared, and what was not equal."""

    entries: int = 0  #: statement lines of the bank's own accounts, each with its balance
    accounts: int = 0
    bank_entries: int = 0  #: statement lines of the other banks' accounts
    banks: int = 0
    branches: int = 0
    differences: list[str] = field(default_factory=list)


def check(client: Client, plan: Plan) -> Checked:
    """Compare everything. Faults (a branch that is away) are raised as the client raises them."""
    checked = Checked(branches=len(plan.branches))
    checked.differences += _wait_for_rest(client, plan.branches)
    _check_statements(client, plan, checked)
    _check_banks(client, plan, checked)
    checked.differences += _check_sums(client, plan)
    return checked


def _wait_for_rest(client: Client, branches: Sequence[str]) -> Iterator[str]:
    """Wait until nothing is in flight anywhere; then every branch must say that its books sum to zero."""
    limit_s = time.monotonic() + REST_LIMIT_S
    while True:
        states = client.status()
        actors = [state for state in states if isinstance(state, StatusInfo)]
        busy = [actor.name for actor in actors if actor.in_flight or actor.in_doubt]
        if (len(actors) == len(states) and not busy) or time.monotonic() > limit_s:
            break
        time.sleep(LOOK_AGAIN_S)
    for state in states:
        if not isinstance(state, StatusInfo):
            yield f"{state.role} {state.name or state.endpoint} is away: {state.reason}"
    yield from (f"{name} still has transfers in flight" for name in busy)
    yield from (f"{actor.name} says that its books sum to {actor.total_minor}" for actor in actors if actor.total_minor)
    yield from (f"{actor.name} has an alarm: {alarm}" for actor in actors for alarm in actor.alarms)
    yield from (f"{name} is not in the cluster" for name in set(branches) - {actor.name for actor in actors})


def _check_statements(client: Client, plan: Plan, checked: Checked) -> None:
    """Each account's statement, line by line: order, date, amount, memo, other side, and the bank's own balance."""

    def differences(chain: Sequence[Step]) -> list[str]:
        return list(compare(chain, read_statement(client, chain[0].account)))

    with ThreadPoolExecutor(READERS) as pool:
        for chain, found in zip(plan.chains, pool.map(differences, plan.chains), strict=True):
            checked.accounts += 1
            checked.entries += len(chain)
            checked.differences += found


def compare(chain: Sequence[Step], entries: Sequence[EntryView]) -> Iterator[str]:
    """What is not equal between an account's movements and its statement, oldest first; only the first such line."""
    account = chain[0].account
    for number, (step, entry) in enumerate(zip(chain, entries, strict=False), 1):
        expected = (*_line(step), amount_text(step.balance_minor))
        found = (*_entry_line(entry), entry.balance)
        if found != expected:
            yield f"{account}, line {number} (movement {step.trans_id}): expected {expected}, the statement has {found}"
            return
    if len(entries) != len(chain):
        yield f"{account}: {len(chain)} movements, but {len(entries)} lines on the statement"


def compare_bank(account: str, steps: Sequence[Step], entries: Sequence[EntryView]) -> Iterator[str]:
    """What is not equal between the transfers with another bank and the statement of its account.

    The order is free, but each line must be there once, and each balance be the sum of the lines up to it.
    """
    expected = {_line(step, other_side=True): -step.amount_minor for step in steps}
    balance_minor = 0
    for number, entry in enumerate(entries, 1):
        amount_minor = expected.pop(_entry_line(entry), None)
        if amount_minor is None:
            yield f"{account}, line {number}: {_entry_line(entry)} is none of the transfers with this bank"
            return
        balance_minor += amount_minor
        if entry.balance != amount_text(balance_minor):
            yield f"{account}, line {number}: the balance is {entry.balance}, not {amount_text(balance_minor)}"
            return
    if expected:
        yield f"{account}: {len(expected)} transfers are not on the statement"


_Line = tuple[str, str, str, str, tuple[str, ...]]  # id, date, amount, memo, counterparties


def _line(step: Step, *, other_side: bool = False) -> _Line:
    """A movement as it stands on the account's statement, or on that of its counter side."""
    counterparty, amount_minor = (step.account, -step.amount_minor) if other_side else (step.other, step.amount_minor)
    return format_id(step.id), step.effective_on, amount_text(amount_minor), step.memo, (counterparty,)


def _entry_line(entry: EntryView) -> _Line:
    return entry.id, entry.effective_on, entry.amount, entry.memo, entry.counterparties


def _check_banks(client: Client, plan: Plan, checked: Checked) -> None:
    """The other banks' accounts against all transfers with them."""
    by_bank: dict[str, list[Step]] = {o.account: [] for o in plan.openings if o.branch == CLEARING_BRANCH}
    for step in _steps(plan):
        if step.between_branches:
            by_bank[step.other].append(step)
    for account, steps in by_bank.items():
        checked.differences += compare_bank(account, steps, read_statement(client, account))
        checked.banks += 1
        checked.bank_entries += len(steps)


def _check_sums(client: Client, plan: Plan) -> Iterator[str]:
    """Final balances of all accounts, system accounts included; each branch's sum; the clearing accounts' sum."""
    expected = final_balances(plan)
    clearing_minor = 0
    for branch in plan.branches:
        found: dict[str, int] = {}
        for view in client.accounts(branch):
            found[view.account] = view.balance_minor
            if view.held_minor:
                yield f"{view.account} holds {view.held} although nothing is in flight"
        for number in (CASH, CLEARING):
            name = f"{branch}/{number}"
            found[name] = client.account(name).balance_minor
        clearing_minor += found[f"{branch}/{CLEARING}"]
        if sum(found.values()):
            yield f"the accounts of {branch} sum to {amount_text(sum(found.values()))}, not to zero"
        should = {account: minor for account, minor in expected.items() if account.startswith(f"{branch}/")}
        for account in sorted(found.keys() | should.keys()):
            if found.get(account) != should.get(account, 0):
                have = amount_text(found[account]) if account in found else "no such account"
                yield f"{account}: expected {amount_text(should.get(account, 0))}, has {have}"
    if clearing_minor:
        yield f"the clearing accounts sum to {amount_text(clearing_minor)}, not to zero"


def final_balances(plan: Plan) -> dict[str, int]:
    """Hellers on every account when all is done: the bank's last balances, and what they make of the counter sides."""
    balances = {opening.account: 0 for opening in plan.openings}
    for branch in plan.branches:
        balances[f"{branch}/{CASH}"] = balances[f"{branch}/{CLEARING}"] = 0
    for step in _steps(plan):
        balances[step.other] -= step.amount_minor
        if step.between_branches:
            branch = step.account.partition("/")[0]
            balances[f"{branch}/{CLEARING}"] -= step.amount_minor
            balances[f"{CLEARING_BRANCH}/{CLEARING}"] += step.amount_minor
    for chain in plan.chains:
        balances[chain[-1].account] = chain[-1].balance_minor
    return balances


def read_statement(client: Client, account: str) -> list[EntryView]:
    """All entries of an account, oldest first."""
    entries: list[EntryView] = []
    cursor = ""
    while True:
        page = client.statement(account, newest_first=False, limit=MAX_PAGE, cursor=cursor)
        entries += page.entries
        cursor = page.cursor
        if not cursor:
            return entries


def _steps(plan: Plan) -> Iterable[Step]:
    return (step for chain in plan.chains for step in chain)
