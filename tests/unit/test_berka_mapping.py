"""From movements to accounts and transfers."""

from __future__ import annotations

from datetime import date

from examples.berka.data import History, Movement, Row
from examples.berka.mapping import CLEARING_BRANCH, Plan, branch_name, make_plan
from tests.berka_data import berka_histories
from zbank.domain.account import check_account_number, check_branch_name
from zbank.domain.legs import MAX_MEMO_CHARS


def movement(
    trans_id: int, day: int, amount_minor: int, balance_minor: int, operation: str, symbol: str = ""
) -> Movement:
    """A movement in January 1993; transfers are with account 77 of bank YZ."""
    is_transfer = operation.startswith("PREVOD ")
    bank, counter = ("YZ", "77") if is_transfer else ("", "")
    posted = Row(trans_id, 576, date(1993, 1, day), amount_minor, balance_minor, operation, symbol, bank, counter)
    return Movement(posted, amount_minor)


HISTORY = History(
    576,
    "central Bohemia",
    "Kladno",
    (
        movement(1, 1, 90_000, 90_000, "VKLAD"),
        movement(2, 2, -120_050, -30_050, "PREVOD NA UCET", "SIPO"),
        movement(3, 3, 500_000, 469_950, "PREVOD Z UCTU", "DUCHOD"),
        movement(4, 31, 1_001, 470_951, "", "UROK"),
        movement(5, 31, -1_460, 469_491, "VYBER", "SLUZBY"),
    ),
)


def test_a_region_becomes_a_branch_and_its_accounts_stand_there() -> None:
    plan = make_plan([HISTORY])
    assert plan.branches == ("Clearing", "central-Bohemia")
    bank, account = plan.openings
    assert (bank.account, bank.overdraft_limit) == ("Clearing/YZ", "5000.00")
    assert (account.account, account.overdraft_limit) == ("central-Bohemia/576", "300.50")


def test_each_movement_is_a_transfer_with_its_other_side() -> None:
    (chain,) = make_plan([HISTORY]).chains
    mine, cash, bank = "central-Bohemia/576", "central-Bohemia/cash", "Clearing/YZ"
    assert [(step.source, step.destination, step.amount, step.memo) for step in chain] == [
        (cash, mine, "900.00", "cash in"),
        (mine, bank, "1200.50", "transfer to YZ/77, household payment"),
        (bank, mine, "5000.00", "transfer from YZ/77, pension"),
        (cash, mine, "10.01", "interest"),
        (mine, cash, "14.60", "fee for statements"),
    ]
    assert [step.between_branches for step in chain] == [False, True, True, False, False]
    assert chain[1].effective_on == "1993-01-02"


def test_ids_come_from_the_banks_own_numbers() -> None:
    first, again = make_plan([HISTORY]), make_plan([HISTORY])
    assert [step.id for step in first.chains[0]] == [step.id for step in again.chains[0]]
    ids = [opening.id for opening in first.openings] + [step.id for step in first.chains[0]]
    assert len(set(ids)) == len(ids)


def test_a_limit_takes_the_first_by_date_and_leaves_the_accounts_as_they_are() -> None:
    other = History(9, "Prague", "Praha", (movement(6, 1, 100, 100, "VKLAD"), movement(7, 30, 1, 101, "", "UROK")))
    whole = make_plan([HISTORY, other])
    part = make_plan([HISTORY, other], 4)
    assert part.openings == whole.openings
    assert part.branches == whole.branches
    assert [[step.trans_id for step in chain] for chain in part.chains] == [[1, 2, 3], [6]]


def test_an_account_without_movements_within_the_limit_is_not_replayed() -> None:
    assert [len(chain) for chain in make_plan([HISTORY], 1).chains] == [1]


def test_the_real_bank_fits_into_nine_branches() -> None:
    histories, _ = berka_histories()
    plan = make_plan(histories)
    assert len(plan.branches) == 9
    assert all(check_branch_name(name) == name for name in plan.branches)
    assert (plan.steps, plan.steps_between_branches) == (47_527, 9_813)
    assert len({step.id for chain in plan.chains for step in chain}) == 47_527
    assert len({opening.account for opening in plan.openings}) == 1201 + 13
    assert all(check_account_number(opening.number) for opening in plan.openings)
    assert sum(opening.branch == CLEARING_BRANCH for opening in plan.openings) == 13
    assert max(len(step.memo) for chain in plan.chains for step in chain) <= MAX_MEMO_CHARS


def test_no_order_of_the_real_accounts_exceeds_an_overdraft_limit() -> None:
    histories, _ = berka_histories()
    plan = make_plan(histories)
    limits = {opening.account: opening.overdraft_limit_minor for opening in plan.openings}
    assert sum(limit > 0 for account, limit in limits.items() if not account.startswith(CLEARING_BRANCH)) == 25
    assert _worst_of_banks(plan) == {a: limit for a, limit in limits.items() if a.startswith(CLEARING_BRANCH)}
    for chain in plan.chains:
        assert min(step.balance_minor for step in chain) >= -limits[chain[0].account]


def _worst_of_banks(plan: Plan) -> dict[str, int]:
    """What each bank pays in all."""
    paid: dict[str, int] = {}
    for chain in plan.chains:
        for step in chain:
            if step.between_branches:
                paid[step.other] = paid.get(step.other, 0) + max(0, step.amount_minor)
    return paid


def test_region_names_are_made_fit() -> None:
    assert branch_name("central Bohemia") == "central-Bohemia"
    assert branch_name("Prague") == "Prague"
