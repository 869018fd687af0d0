"""The dashboard's pure parts: texts, rates out of counters, charts' rows, diagrams."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zbank.apps.dashboard.history import Histogram, History, Sample, sample_of
from zbank.apps.dashboard.texts import (
    age,
    clock_time,
    count,
    decimal_or_none,
    milliseconds,
    money,
    parse_account,
    parse_amount,
    parse_signed,
    plain,
    route,
    size,
)
from zbank.apps.dashboard.views.drills import picture_of
from zbank.apps.dashboard.views.trace import bars_of, sequence_of
from zbank.domain.money import currency, format_amount
from zbank.domain.money import parse_amount as minor_of

# --- texts ------------------------------------------------------------------------------------------------------------


@given(st.integers(1, 10**15))
def test_an_amount_survives_being_shown_and_typed_again(minor: int) -> None:
    text = format_amount(minor, currency("INR"))
    assert parse_amount(money(text), "INR") == text
    assert minor_of(parse_amount(text, "INR"), currency("INR")) == minor


@pytest.mark.parametrize(
    ("typed", "code", "found"),
    [
        ("50", "INR", "50.00"),
        (" 1,250.5 ", "INR", "1250.50"),
        ("1,00,000", "INR", "100000.00"),
        ("7", "JPY", "7"),
        ("1.234", "KWD", "1.234"),
    ],
)
def test_amounts(typed: str, code: str, found: str) -> None:
    assert parse_amount(typed, code) == found


@pytest.mark.parametrize(
    ("typed", "says"),
    [
        ("", "Give an amount"),
        ("0.00", "zero"),
        ("-5", "is no amount"),
        ("1e3", "is no amount"),
        ("12,50", "two ways"),
        ("1.005", "too precise: INR has 2 decimals"),
        ("٣", "is no amount"),
        ("nan", "is no amount"),
        ("9" * 16, "is no amount"),
    ],
)
def test_amounts_that_are_none(typed: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        parse_amount(typed, "INR")


def test_signed_amounts() -> None:
    assert [parse_signed(text, "INR") for text in ("-30", "−30", "+2.5", "2.5")] == ["-30.00", "-30.00", "2.50", "2.50"]
    assert [decimal_or_none(text) for text in ("-1", "x", "nan", "", "1,000")] == [Decimal(-1), None, None, None, Decimal(1000)]


def test_accounts() -> None:
    assert parse_account(" Mumbai/1001 ") == "Mumbai/1001"
    for text in (None, "", "Mumbai", "Mumbai/", "/1001", "Mumbai/10 01", "<b>/1"):
        with pytest.raises(ValueError, match=r"account|Choose"):
            parse_account(text)


@given(st.text(max_size=60))
def test_other_peoples_text_is_never_markup(text: str) -> None:
    assert not set(plain(text)) & set("*_`[]<>$:~|\n")


def test_small_words() -> None:
    assert money("-15000.5", "INR") == "−15,000.5 INR"
    assert money(None) == "–"
    assert [age(s) for s in (4.9, 61, 3700, 90_000)] == ["4 s", "1 min", "1 h 1 min", "1 d 1 h"]
    assert [size(n) for n in (12, 1_720_320, 2 * 10**9)] == ["12 B", "1.7 MB", "2.0 GB"]
    assert [milliseconds(ms) for ms in (None, 0.844, 13.31, 1240.0)] == ["–", "0.84 ms", "13.3 ms", "1.24 s"]
    assert [count(n, "branch", "branches") for n in (1, 2)] == ["1 branch", "2 branches"]
    assert clock_time("2026-11-27T02:00:00.123Z") == "2026-11-27 02:00:00"
    assert clock_time(None) == "–"
    legs = [{"account": "Mumbai/1001", "amount": "1"}] * 3
    assert route({"from": None, "to": None, "legs": legs}) == "3 legs"


# --- history ----------------------------------------------------------------------------------------------------------


def figures(name: str, committed: int, *, role: str = "branch", decide: list[int] | None = None) -> dict[str, Any]:
    counts = {"local committed": committed} if role == "branch" else {"between branches committed": committed}
    histograms = [{"name": "force", "bounds_ms": [1.0, 2.0], "counts": [committed, 0, 0], "total_ms": 1.0}]
    if decide:
        histograms.append({"name": "decide", "bounds_ms": [1.0, 2.0], "counts": decide, "total_ms": 1.0})
    return {"role": role, "name": name, "up": True, "counts": counts, "histograms": histograms}


def test_rates_are_differences() -> None:
    history = History()
    history.add(sample_of([figures("Mumbai", 100), figures("Delhi", 7)], 10.0, 1000.0))
    assert history.now() is None
    history.add(sample_of([figures("Mumbai", 120), figures("Delhi", 7)], 12.0, 1002.0))
    point = history.now()
    assert point is not None
    assert (point.per_second, point.by_branch) == (10.0, {"Mumbai": 10.0, "Delhi": 0.0})
    assert [one.wall_s for one in history.points(60.0)] == [1002.0]


@pytest.mark.parametrize("back", [3, 500])
def test_an_actor_that_was_away_or_began_anew_makes_no_peak(back: int) -> None:
    history = History()
    history.add(sample_of([figures("Mumbai", 100)], 10.0, 0.0))
    history.add(sample_of([{"role": "branch", "name": "Mumbai", "up": False}], 11.0, 1.0))
    history.add(sample_of([figures("Mumbai", back)], 12.0, 2.0))
    assert [point.per_second for point in history.points(60.0)] == [0.0, 0.0]


def test_latencies_are_those_of_the_window() -> None:
    history = History()
    history.add(sample_of([figures("coordinator", 0, role="coordinator", decide=[100, 0, 0])], 10.0, 0.0))
    assert history.latency_ms(60.0) is None
    history.add(sample_of([figures("coordinator", 10, role="coordinator", decide=[100, 10, 0])], 12.0, 2.0))
    found = history.latency_ms(60.0)
    assert found is not None
    assert 1.0 < found[0] < found[1] <= 2.0
    assert history.force_ms("coordinator", 0.5) is not None
    assert history.force_ms("nobody", 0.5) is None


@given(st.lists(st.integers(0, 50), min_size=3, max_size=3), st.floats(0.01, 0.99))
def test_quantiles_lie_within_their_class(counts: list[int], share: float) -> None:
    found = Histogram((1.0, 2.0), tuple(counts)).quantile(share)
    if not sum(counts):
        assert found is None
        return
    assert found is not None
    rank = share * sum(counts)
    low, high = (0.0, 1.0) if rank <= counts[0] else (1.0, 2.0)
    if rank <= counts[0] + counts[1]:
        assert low <= found <= high
    else:
        assert found == 2.0


def test_a_histogram_that_shrank_counts_from_zero() -> None:
    before, after = Histogram((1.0,), (5, 5)), Histogram((1.0,), (1, 2))
    assert after.since(before) == after
    assert Histogram((1.0,), (6, 9)).since(before).counts == (1, 4)
    assert Sample(0.0, 0.0, {}, {}, None, {}).decide is None


# --- pictures ---------------------------------------------------------------------------------------------------------

TIMELINE = [
    {"phase": "prepare", "actor": "Delhi", "start_ms": 0.0, "end_ms": 1.9},
    {"phase": "prepare", "actor": "Mumbai", "start_ms": 0.0, "end_ms": 2.3},
    {"phase": "decide", "actor": "coordinator", "start_ms": 2.3, "end_ms": 2.9},
    {"phase": "apply", "actor": "Delhi", "start_ms": 2.9, "end_ms": 3.7},
    {"phase": "apply", "actor": "Mumbai", "start_ms": 2.9, "end_ms": 4.2},
]
SETTLED: dict[str, Any] = {
    "amount": "50.00",
    "currency": "INR",
    "status": "committed",
    "timeline": TIMELINE,
    "participants": [
        {"branch": "Delhi", "state": "committed", "vote": "yes", "prepare_ms": 1.9, "apply_ms": 1.4},
        {"branch": "Mumbai", "state": "committed", "vote": "yes", "prepare_ms": 2.3, "apply_ms": 1.9},
    ],
}


def test_the_bars_of_a_commit() -> None:
    bars, rows, forced_ms = bars_of(TIMELINE)
    assert rows == ["Request", "Coordinator", "Delhi", "Mumbai"]
    assert forced_ms == 2.9
    assert [(bar["row"], bar["start"], bar["end"]) for bar in bars if bar["row"] in ("Request", "Coordinator")] == [
        ("Request", 0.0, 4.2),
        ("Coordinator", 2.3, 2.9),
    ]


def test_the_sequence_of_a_commit() -> None:
    lines = sequence_of(SETTLED).splitlines()
    assert lines[0] == "sequenceDiagram"
    assert lines[-1] == "K-->>C: committed"
    order = [lines.index(line) for line in lines if "yes, on disk" in line or "decision COMMIT" in line or "ack" in line]
    assert order == sorted(order)
    assert len(order) == 5
    assert any("600" in line or "0.60 ms to disk" in line for line in lines)


def test_the_sequence_while_a_branch_has_not_acked() -> None:
    waits = {"branch": "Mumbai", "state": "prepared", "vote": "yes", "prepare_ms": 2.3, "apply_ms": None}
    lines = sequence_of({**SETTLED, "participants": [SETTLED["participants"][0], waits]}).splitlines()
    assert sum("ack" in line for line in lines) == 1
    assert not any("committed" in line for line in lines)


def test_the_picture_of_a_drill() -> None:
    told: list[dict[str, Any]] = [
        {"what": "drill", "places": ["client", "coordinator", "Mumbai", "Delhi"]},
        {
            "what": "step",
            "marks": [
                {"kind": "arrow", "actor": "client", "target": "coordinator", "label": "transfer"},
                {"kind": "row", "actor": "Mumbai", "target": "", "label": "prepared #9"},
                {"kind": "lost", "actor": "Mumbai", "target": "coordinator", "label": "vote yes"},
                {"kind": "time", "actor": "", "target": "", "label": "2.0 s pass"},
                {"kind": "arrow", "actor": "stranger", "target": "coordinator", "label": "prepare"},
            ],
        },
        {"what": "result"},
    ]
    assert picture_of(told).splitlines()[5:] == [
        "P0->>P1: transfer",
        "Note over P2: on disk: prepared #35;9",
        "P2-xP1: vote yes (lost)",
        "Note over P0,P3: … 2.0 s pass …",
    ]
    assert picture_of(told[1:]) == ""
