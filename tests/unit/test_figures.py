"""What an actor counts: never what was not forced, never a time that nobody measured."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from tests.unit.protocol_support import id_of, legs_of, txn_of
from zbank.protocol.figures import BOUNDS_US, Figures, Histogram
from zbank.protocol.messages import CountInfo, FiguresInfo, HistogramInfo
from zbank.protocol.records import BranchAck, BranchVote, Content, Decided, Ended, Ending, Started

CONTENT = Content(legs_of(Mumbai_1=-5, Delhi_1=5), "INR", "", "", b"d" * 16, "")


def decided(n: int, decided_us: int, *voted_us: int) -> Decided:
    votes = tuple(BranchVote(f"Branch{place}", 1, 1, took_us, 0) for place, took_us in enumerate(voted_us))
    return Decided(id_of(n), txn_of(n), n, CONTENT, votes, decided_us)


def ended(n: int, *acked_us: int) -> Ended:
    acks = tuple(BranchAck(f"Branch{place}", 1, 1, took_us, 0) for place, took_us in enumerate(acked_us))
    return Ended((Ending(id_of(n), acks),))


def histogram(info: FiguresInfo, name: str) -> HistogramInfo | None:
    return next((one for one in info.histograms if one.name == name), None)


@given(st.lists(st.integers(0, 10_000_000), max_size=50))
def test_a_class_holds_what_is_not_above_its_bound(times_us: list[int]) -> None:
    """And the one more what is above all bounds: each time is counted once."""
    found = Histogram()
    for took_us in times_us:
        found.add(took_us)
    spans = list(pairwise((-1, *BOUNDS_US, 2**63)))
    assert found.counts == [sum(low < took_us <= high for took_us in times_us) for low, high in spans]
    assert found.info("x") == HistogramInfo("x", BOUNDS_US, tuple(found.counts), sum(times_us))


def test_nothing_has_happened() -> None:
    """Histograms that never counted are left out."""
    assert Figures().info("branch", "Mumbai") == FiguresInfo("branch", "Mumbai", (), ())


def test_turns_messages_and_rows() -> None:
    figures = Figures()
    for messages in (3, 0, 2):
        figures.turn(messages)
    figures.row("started", Started("1"))
    figures.row("started", Started("1"))
    counts = figures.info("branch", "Mumbai").counts
    assert counts == (CountInfo("messages", 5), CountInfo("rows started", 2), CountInfo("turns", 3))


def test_the_times_of_a_transfer() -> None:
    """From the request to each vote and to the decision; from the decision to each ack."""
    figures = Figures()
    figures.row("decided", decided(1, 700, 300, 600))
    figures.row("ended", ended(1, 900, 2_700))
    info = figures.info("coordinator", "main")
    totals = {one.name: (sum(one.counts), one.total_us) for one in info.histograms}
    assert totals == {"vote": (2, 900), "decide": (1, 700), "apply": (2, 2_200)}


def test_acks_of_a_decision_of_before_are_not_timed() -> None:
    """Neither when this process did not make the decision, nor when its memory was rebuilt since (acked_us -1)."""
    figures = Figures()
    figures.row("ended", ended(1, 900))
    figures.row("decided", decided(2, 700))
    figures.row("ended", ended(2, -1, -1))
    figures.row("ended", ended(2, 900))
    assert histogram(figures.info("coordinator", "main"), "apply") is None
