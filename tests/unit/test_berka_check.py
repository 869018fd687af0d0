"""The comparison finds what is not equal: each kind of error in a statement, planted."""

from __future__ import annotations

import msgspec
import pytest

from examples.berka.check import compare, compare_bank, final_balances
from examples.berka.mapping import Opening, Plan, Step, amount_text
from zbank.ids import format_id, id_from_key
from zbank.transport.views import EntryView

CHAIN = (
    Step(1, "Prague/576", "Prague/cash", 90_000, 90_000, "cash in", "1993-01-01"),
    Step(2, "Prague/576", "Clearing/YZ", -10_050, 79_950, "transfer to YZ/77", "1993-01-02"),
    Step(3, "Prague/576", "Clearing/YZ", 20_000, 99_950, "transfer from YZ/78", "1993-01-02"),
)
PLAN = Plan(
    ("Clearing", "Prague"), (Opening("Clearing", "YZ", "Bank YZ", 20_000), Opening("Prague", "576", "", 0)), (CHAIN,)
)


def entry(step: Step, *, balance_minor: int | None = None) -> EntryView:
    """The line that a right statement has for a step; with a balance, the line on its counter side."""
    own = balance_minor is None
    return EntryView(
        id=format_id(step.id),
        at_us=0,
        effective_on=step.effective_on,
        amount=amount_text(step.amount_minor if own else -step.amount_minor),
        balance=amount_text(step.balance_minor if balance_minor is None else balance_minor),
        currency="CZK",
        memo=step.memo,
        counterparties=(step.other if own else step.account,),
        seq=step.trans_id,
    )


RIGHT = [entry(step) for step in CHAIN]
BANK_RIGHT = [entry(CHAIN[2], balance_minor=-20_000), entry(CHAIN[1], balance_minor=-9_950)]  # any order


def test_a_right_statement_has_no_differences() -> None:
    assert list(compare(CHAIN, RIGHT)) == []
    assert list(compare_bank("Clearing/YZ", CHAIN[1:], BANK_RIGHT)) == []
    assert list(compare_bank("Clearing/YZ", CHAIN[:0:-1], BANK_RIGHT)) == []


@pytest.mark.parametrize(
    "wrong",
    [
        {"id": format_id(id_from_key("another"))},
        {"effective_on": "1993-01-03"},
        {"amount": "-100.51"},
        {"balance": "799.49"},
        {"memo": ""},
        {"counterparties": ("Clearing/AB",)},
    ],
)
def test_a_wrong_line_is_found(wrong: dict[str, object]) -> None:
    statement = [RIGHT[0], msgspec.structs.replace(RIGHT[1], **wrong), RIGHT[2]]
    (difference,) = compare(CHAIN, statement)
    assert "Prague/576, line 2 (movement 2)" in difference

    bank_statement = [BANK_RIGHT[0], msgspec.structs.replace(BANK_RIGHT[1], **wrong)]
    assert len(list(compare_bank("Clearing/YZ", CHAIN[1:], bank_statement))) == 1


def test_a_missing_a_doubled_and_a_swapped_line_are_found() -> None:
    for statement in (RIGHT[:2], [*RIGHT, RIGHT[2]], [RIGHT[0], RIGHT[2], RIGHT[1]], []):
        assert len(list(compare(CHAIN, statement))) == 1
    for statement in (BANK_RIGHT[:1], [*BANK_RIGHT, BANK_RIGHT[1]], []):
        assert len(list(compare_bank("Clearing/YZ", CHAIN[1:], statement))) == 1


def test_final_balances_follow_from_the_plan_and_sum_to_zero() -> None:
    balances = final_balances(PLAN)
    assert balances == {
        "Prague/576": 99_950,
        "Prague/cash": -90_000,
        "Prague/clearing": -9_950,
        "Clearing/YZ": -9_950,
        "Clearing/clearing": 9_950,
        "Clearing/cash": 0,
    }
