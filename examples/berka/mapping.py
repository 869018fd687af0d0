"""From the bank's files to accounts and transfers of a zbank cluster: pure.

The 8 regions are branches and each account of the bank is an account there. The 13 other banks are accounts of one more
branch, `Clearing`. A transfer to or from another bank moves money between branches (two-phase commit); cash, interest
and fees move it between the account and its branch's `cash`. Every id comes from the bank's own number of the movement,
so that a replay that was stopped can be started again: what was done stays done once.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice

from examples.berka.data import History, Movement
from zbank.domain.account import check_branch_name
from zbank.domain.legs import CASH
from zbank.domain.money import currency, format_amount
from zbank.ids import id_from_key

CURRENCY = "CZK"
CLEARING_BRANCH = "Clearing"
_CZK = currency(CURRENCY)

# What the bank's codes say, from the description that was published with the data.
_OPERATIONS = {
    "VKLAD": "cash in",
    "VYBER": "cash out",
    "VYBER KARTOU": "card withdrawal",
    "PREVOD NA UCET": "transfer to",
    "PREVOD Z UCTU": "transfer from",
}
_BY_THE_BANK = {  # what the bank books of itself, in the files with any operation
    "UROK": "interest",
    "SLUZBY": "fee for statements",
    "SANKC. UROK": "interest on a negative balance",
}
_PURPOSES = {
    "SIPO": "household payment",
    "POJISTNE": "insurance payment",
    "DUCHOD": "pension",
    "UVER": "loan payment",
}


@dataclass(frozen=True, slots=True)
class Opening:
    """An account to open."""

    branch: str
    number: str
    owner: str
    overdraft_limit_minor: int  #: hellers; the least that the replay can never exceed

    @property
    def account(self) -> str:
        """`Branch/number`."""
        return f"{self.branch}/{self.number}"

    @property
    def id(self) -> bytes:
        """Of the request that opens it."""
        return id_from_key(f"berka:account:{self.account}")

    @property
    def overdraft_limit(self) -> str:
        """As decimal text."""
        return format_amount(self.overdraft_limit_minor, _CZK)


@dataclass(frozen=True, slots=True)
class Step:
    """One movement of one account as a transfer, with what the statement must say afterwards."""

    trans_id: int
    account: str  #: whose statement it is, `Branch/number`
    other: str  #: the counter side: `Branch/cash` or `Clearing/XY`
    amount_minor: int  #: signed, hellers: + credits `account`
    balance_minor: int  #: of `account` afterwards: the bank's own balance column
    memo: str
    effective_on: str  #: YYYY-MM-DD

    @property
    def id(self) -> bytes:
        """Of the transfer."""
        return id_from_key(f"berka:{self.trans_id}")

    @property
    def between_branches(self) -> bool:
        """A transfer with another bank, done by two-phase commit."""
        return self.other.startswith(f"{CLEARING_BRANCH}/")

    @property
    def source(self) -> str:
        """The account that pays."""
        return self.account if self.amount_minor < 0 else self.other

    @property
    def destination(self) -> str:
        """The account that is paid."""
        return self.other if self.amount_minor < 0 else self.account

    @property
    def amount(self) -> str:
        """What is moved, as decimal text, above zero."""
        return format_amount(abs(self.amount_minor), _CZK)


@dataclass(frozen=True, slots=True)
class Plan:
    """A whole replay."""

    branches: tuple[str, ...]  #: sorted; `Clearing` too
    openings: tuple[Opening, ...]
    chains: tuple[tuple[Step, ...], ...]  #: one an account, in posting order; each step waits for the one before

    @property
    def steps(self) -> int:
        """How many movements there are."""
        return sum(map(len, self.chains))

    @property
    def steps_between_branches(self) -> int:
        """How many of them are two-phase commits."""
        return sum(step.between_branches for chain in self.chains for step in chain)


def make_plan(histories: Sequence[History], limit: int | None = None) -> Plan:
    """The plan of all movements, or of the first `limit` of them by date.

    Accounts and limits are always those of the whole: so a longer replay can go on where a shorter one ended.
    """
    chosen = {movement.row.trans_id for movement in islice(_by_date(histories), limit)}
    chains = (
        tuple(_step(history, movement) for movement in history.movements if movement.row.trans_id in chosen)
        for history in histories
    )
    regions = {branch_name(history.region) for history in histories}
    return Plan(
        branches=tuple(sorted({*regions, CLEARING_BRANCH})),
        openings=(*_bank_openings(histories), *map(_opening, histories)),
        chains=tuple(chain for chain in chains if chain),
    )


def branch_name(region: str) -> str:
    """A region's name as a branch name: `central Bohemia` is `central-Bohemia`."""
    return check_branch_name("-".join(region.split()))


def amount_text(minor: int) -> str:
    """Hellers as decimal text, `-12.30`."""
    return format_amount(minor, _CZK)


def _by_date(histories: Iterable[History]) -> list[Movement]:
    """All movements by day; of one account in posting order (the sort is stable)."""
    movements = [movement for history in histories for movement in history.movements]
    return sorted(movements, key=lambda movement: movement.row.day)


def _opening(history: History) -> Opening:
    """The account of one history. Its overdraft limit is just what the bank let it have."""
    lowest_minor = min(movement.balance_minor for movement in history.movements)
    owner = f"Berka account {history.account_id}, {history.district}"
    return Opening(branch_name(history.region), str(history.account_id), owner, max(0, -lowest_minor))


def _bank_openings(histories: Iterable[History]) -> list[Opening]:
    """An account for each other bank.

    Accounts move at their own pace, so a bank may have to pay everything before it is paid anything: its overdraft
    limit is the sum of all that it pays.
    """
    pays_minor: dict[str, int] = {}
    for history in histories:
        for movement in history.movements:
            if movement.row.is_transfer:
                bank = movement.row.bank
                pays_minor[bank] = pays_minor.get(bank, 0) + max(0, movement.amount_minor)
    return [Opening(CLEARING_BRANCH, bank, f"Bank {bank}", pays_minor[bank]) for bank in sorted(pays_minor)]


def _step(history: History, movement: Movement) -> Step:
    branch = branch_name(history.region)
    row = movement.row
    return Step(
        trans_id=row.trans_id,
        account=f"{branch}/{history.account_id}",
        other=f"{CLEARING_BRANCH}/{row.bank}" if row.is_transfer else f"{branch}/{CASH}",
        amount_minor=movement.amount_minor,
        balance_minor=movement.balance_minor,
        memo=_memo(movement),
        effective_on=row.day.isoformat(),
    )


def _memo(movement: Movement) -> str:
    """What the movement was, in words, with the counter account: `transfer to YZ/87144583, household payment`."""
    row = movement.row
    if row.symbol in _BY_THE_BANK:
        return _BY_THE_BANK[row.symbol]
    operation = _OPERATIONS.get(row.operation, row.operation)
    if row.is_transfer:
        operation = f"{operation} {row.bank}/{row.counter_account}"
    purpose = _PURPOSES.get(row.symbol, row.symbol)
    return ", ".join(word for word in (operation, purpose) if word)
