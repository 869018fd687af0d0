"""Reading the real bank's files and finding the order in which it posted."""

from __future__ import annotations

import random
from datetime import date, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from examples.berka.data import (
    DATA_VARIABLE,
    TOLERANCE_MINOR,
    DataFault,
    DataMissing,
    Row,
    chain,
    count,
    data_directory,
    parse_day,
    parse_minor,
    read_histories,
    read_rows,
)
from tests.berka_data import berka_directory, berka_histories

HEADER = '"trans_id";"account_id";"date";"type";"operation";"amount";"balance";"k_symbol";"bank";"account"\r\n'
CASH_IN = '1;576;930101;"PRIJEM";"VKLAD";900.00;900.00;"";;\r\n'
TRANSFER_OUT = '2;576;930102;"VYDAJ";"PREVOD NA UCET";100.50;799.50;" ";"YZ";"30300313"\r\n'
FIRST_DAY = date(1993, 1, 1)


def row(trans_id: int, days: int, printed_minor: int, balance_minor: int) -> Row:
    """A cash movement so many days after the first."""
    return Row(trans_id, 1, FIRST_DAY + timedelta(days), printed_minor, balance_minor, "VKLAD", "", "", "")


# --- the real files ---------------------------------------------------------------------------------------------------


def test_the_real_accounts_chain_as_their_description_says() -> None:
    histories, unchained = berka_histories()
    assert len(histories) == 1201
    assert len(unchained) == 1229 - 1201
    assert count(histories) == (47_527, 9_813)
    assert len(read_rows(berka_directory() / "trans.asc")) == 49_102


def test_real_movements_are_real_money_and_within_the_tolerance() -> None:
    histories, _ = berka_histories()
    seen: set[int] = set()
    overdrawn = 0
    exact = 0
    for history in histories:
        balance_minor = 0
        for movement in history.movements:
            balance_minor += movement.amount_minor
            assert balance_minor == movement.balance_minor
            assert movement.amount_minor != 0
            assert (movement.amount_minor > 0) == (movement.row.printed_minor > 0)
            assert abs(movement.amount_minor - movement.row.printed_minor) <= TOLERANCE_MINOR
            seen.add(movement.row.trans_id)
        days = [movement.row.day for movement in history.movements]
        assert days == sorted(days)
        assert history.movements[0].amount_minor == history.movements[0].row.printed_minor  # every account starts empty
        overdrawn += any(movement.balance_minor < 0 for movement in history.movements)
        exact += all(movement.amount_minor == movement.row.printed_minor for movement in history.movements)
    assert len(seen) == 47_527
    assert overdrawn == 25
    assert exact == 342


def test_the_real_accounts_that_do_not_chain_are_cut_on_the_last_day() -> None:
    _, unchained = berka_histories()
    rows = read_rows(berka_directory() / "trans.asc")
    last_day = max(row.day for row in rows)
    for account_id in unchained:
        assert chain([row for row in rows if row.account_id == account_id and row.day < last_day]) is not None


# --- the search for the order -----------------------------------------------------------------------------------------


def test_rows_of_a_day_are_put_in_the_order_that_chains() -> None:
    rows = [row(1, 0, 10_000, 10_000), row(2, 1, -2_000, 13_000), row(3, 1, 5_000, 15_000)]
    movements = chain(rows)
    assert movements is not None
    assert [movement.row.trans_id for movement in movements] == [1, 3, 2]


def test_the_amount_is_the_difference_of_balances_not_what_is_printed() -> None:
    movements = chain([row(1, 0, 10_000, 10_000), row(2, 1, 1_990, 12_000)])
    assert movements is not None
    assert [movement.amount_minor for movement in movements] == [10_000, 2_000]


@pytest.mark.parametrize("printed_minor", [1_989, 2_011, -2_000])
def test_beyond_the_tolerance_nothing_chains(printed_minor: int) -> None:
    assert chain([row(1, 0, 10_000, 10_000), row(2, 1, printed_minor, 12_000)]) is None


def test_an_account_that_does_not_start_empty_does_not_chain() -> None:
    assert chain([row(1, 0, 1_000, 5_000)]) is None


def test_an_order_that_only_the_next_day_tells_is_found() -> None:
    # On day 1 both orders chain, within the tolerance, and end at different balances; day 2 fits only one of them.
    day_1 = [row(2, 1, 5, 1_005), row(3, 1, 5, 1_010)]
    for end_minor, rounding_minor, last in ((1_005, 10, 2), (1_010, -10, 3)):
        day_2 = row(4, 2, 900 + rounding_minor, end_minor + 900)
        found = chain([row(1, 0, 1_000, 1_000), *day_1, day_2])
        assert found is not None
        assert found[2].row.trans_id == last


@given(
    st.lists(
        st.tuples(st.integers(0, 1), st.integers(-50_000, 50_000), st.integers(-TOLERANCE_MINOR, TOLERANCE_MINOR)),
        min_size=1,
        max_size=20,
    ),
    st.randoms(use_true_random=False),
)
def test_any_history_shuffled_within_its_days_chains_again(
    steps: list[tuple[int, int, int]], shuffle: random.Random
) -> None:
    rows: list[Row] = []
    day = balance_minor = in_day = 0
    for number, (gap, amount_minor, rounding_minor) in enumerate(steps):
        in_day = 0 if gap else in_day + 1
        day += 1 if gap or in_day > 5 else 0
        balance_minor += amount_minor
        rows.append(row(number, day, amount_minor + rounding_minor, balance_minor))
    shuffled = sorted(rows, key=lambda each: (each.day, shuffle.random()))

    movements = chain(shuffled)

    assert movements is not None
    assert sorted(movement.row.trans_id for movement in movements) == list(range(len(rows)))
    running_minor = 0
    for movement in movements:
        running_minor += movement.amount_minor
        assert running_minor == movement.balance_minor
        assert abs(movement.amount_minor - movement.row.printed_minor) <= TOLERANCE_MINOR
    assert [movement.row.day for movement in movements] == [each.day for each in rows]


# --- files and fields -------------------------------------------------------------------------------------------------


def test_a_line_is_read_exactly_and_the_cut_last_line_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "trans.asc"
    path.write_bytes((HEADER + CASH_IN + TRANSFER_OUT + '3;576;930103;"PRIJE').encode("latin-1"))
    cash_in, transfer_out = read_rows(path)
    assert cash_in == Row(1, 576, date(1993, 1, 1), 90_000, 90_000, "VKLAD", "", "", "")
    assert transfer_out == Row(2, 576, date(1993, 1, 2), -10_050, 79_950, "PREVOD NA UCET", "", "YZ", "30300313")
    assert transfer_out.is_transfer
    assert not cash_in.is_transfer


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('1;576;930101;"PRIJEM";"VKLAD";900.0;900.00;"";;\r\n', "two decimals"),
        ('1;576;930231;"PRIJEM";"VKLAD";900.00;900.00;"";;\r\n', "day is out of range"),
        ('1;576;930101;"PRIJEM";"PREVOD Z UCTU";900.00;900.00;"";;\r\n', "names the other bank"),
        ('1;576;930101;"OTHER";"VKLAD";900.00;900.00;"";;\r\n', "OTHER"),
        ("1;576\r\n", "2 fields"),
    ],
)
def test_a_wrong_line_is_named(tmp_path: Path, line: str, reason: str) -> None:
    path = tmp_path / "trans.asc"
    path.write_bytes((HEADER + line).encode("latin-1"))
    with pytest.raises(DataFault, match=rf"trans\.asc, line 2: .*{reason}"):
        read_rows(path)


def test_a_small_bank_is_read_from_its_three_files(tmp_path: Path) -> None:
    district = ";".join(["55", '"Brno - m\xecsto"', '"south Moravia"', *["0"] * 13])
    (tmp_path / "district.asc").write_bytes(f"header\r\n{district}\r\n".encode("latin-1"))
    (tmp_path / "account.asc").write_bytes(b'header\r\n576;55;"POPLATEK MESICNE";930101\r\n')
    (tmp_path / "trans.asc").write_bytes((HEADER + CASH_IN + TRANSFER_OUT).encode("latin-1"))
    histories, unchained = read_histories(tmp_path)
    assert unchained == []
    assert [(h.account_id, h.region, h.district) for h in histories] == [(576, "south Moravia", "Brno - m\xecsto")]
    assert [movement.amount_minor for movement in histories[0].movements] == [90_000, -10_050]

    (tmp_path / "account.asc").write_bytes(b'header\r\n577;55;"POPLATEK MESICNE";930101\r\n')
    with pytest.raises(DataFault, match="account 576"):
        read_histories(tmp_path)


@pytest.mark.parametrize(("text", "minor"), [("0.00", 0), ("-12.30", -1230), ("5123.05", 512_305), ("-0.01", -1)])
def test_amounts_are_exact_hellers(text: str, minor: int) -> None:
    assert parse_minor(text) == minor


@pytest.mark.parametrize("text", ["", "1", "1.0", "1.000", "1,00", "+1.00", "1e2.00", " 1.00", "\u0661.00"])
def test_what_is_no_amount_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="two decimals"):
        parse_minor(text)


@pytest.mark.parametrize("text", ["", "93010", "19930101", "93-1-1", "931301"])
def test_what_is_no_day_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"no date|month"):
        parse_day(text)


def test_missing_files_say_what_to_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(DATA_VARIABLE, str(tmp_path))
    with pytest.raises(DataMissing, match=f"trans.asc.*set {DATA_VARIABLE}"):
        data_directory()
