"""How the dashboard tells how a replica does."""

from __future__ import annotations

from typing import Any

import pytest

from zbank.apps.dashboard.replicas import standing


def replica(lag_s: float | None, behind: int = 0) -> dict[str, Any]:
    """As the bridge tells it."""
    told = {"name": "Mumbai-replica-1", "branch": "Mumbai", "endpoint": "tcp://127.0.0.1:9200", "epoch": 3}
    return told | {"position": 8712, "behind": behind, "lag_s": lag_s}


@pytest.mark.parametrize(
    ("lag_s", "behind", "dot", "state", "shows", "rows"),
    [
        (0.0, 0, "good", "level", "0.0 s ago", "0"),
        (0.42, 1234, "good", "level", "0.4 s ago", "1,234"),
        (3.0, 0, "good", "level", "3.0 s ago", "0"),
        (3.5, 12, "wait", "lags", "3 s ago", "12"),
        (10.5, 0, "bad", "silent", "10 s ago", "–"),
        (7_300.0, 0, "bad", "silent", "2 h 1 min ago", "–"),
        (None, 8712, "wait", "not level yet", "–", "8,712"),
    ],
)
def test_lag_in_plain_words(lag_s: float | None, behind: int, dot: str, state: str, shows: str, rows: str) -> None:
    at = standing(replica(lag_s, behind), branch_is_up=True)
    assert (at.dot, at.state, at.shows, at.behind) == (dot, state, shows, rows)
    assert bool(at.note) == (state in ("silent", "not level yet"))


def test_a_silent_one_says_who_may_be_down() -> None:
    assert standing(replica(25), branch_is_up=True).note == (
        "Mumbai-replica-1 has not caught up with Mumbai for 25 s. Mumbai answers, so Mumbai-replica-1 or the way between them "
        "is down, or its rows are not Mumbai's any more: its log says more."
    )
    assert standing(replica(25), branch_is_up=False).note == (
        "Mumbai-replica-1 shows Mumbai as it was 25 s ago: Mumbai does not answer. It catches up by itself."
    )
