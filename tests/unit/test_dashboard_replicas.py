"""How the dashboard tells how a replica does."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from zbank.apps.cli.promote import _what_it_costs
from zbank.apps.dashboard.replicas import cost, standing
from zbank.protocol.messages import AckedBy, BranchInfo, ReplicaInfo

INFO = ReplicaInfo("Mumbai-replica-1", "Mumbai", "tcp://127.0.0.1:9200", bytes(16), 3, 8712, 0, 4_230_000)


def replica(lag_s: float | None, behind: int = 0) -> dict[str, Any]:
    """As the bridge tells it."""
    told = {"name": "Mumbai-replica-1", "branch": "Mumbai", "endpoint": "tcp://127.0.0.1:9200", "epoch": 3}
    told |= {"instance": "01a206e4-6535-7290-a6cf-c388bb3b8b1c", "can_lead": True, "synchronous": False}
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


def test_what_a_promotion_costs_is_what_the_command_says() -> None:
    told = cost(replica(4.23), [replica(4.23)])
    assert told.stands == "Mumbai-replica-1 stands at row 8,712: it had all that its branch had 4.2 s ago."
    assert told.better == ""
    said = " ".join(_what_it_costs(None, INFO, [INFO])).replace("`", "")
    did, _, also = told.lost.partition(", also ")
    for part in (did.removeprefix("w"), also, told.kept.partition(": ")[2], told.before):
        assert part.rstrip(".") in said, part


def test_another_replica_that_has_more_is_named() -> None:
    more = replica(9) | {"name": "Mumbai-replica-2", "position": 9000}
    elsewhere = replica(9) | {"name": "Delhi-replica-1", "branch": "Delhi", "position": 9000}
    told = cost(replica(None, 1), [replica(None, 1), more, elsewhere])
    assert told.better == "Mumbai-replica-2 has more: better take that one."
    assert told.stands.endswith("it was never seen to have all that its branch had. It is known to lack 1 row.")


# --- the synchronous one ----------------------------------------------------------------------------------------------

FOLLOWS = replace(INFO, acks=7)
BRANCH = BranchInfo("Mumbai", "tcp://127.0.0.1:9100", "INR", bytes(16), 3, up=False, acks=AckedBy(INFO.name, INFO.instance, 7))
OTHER = replace(INFO, name="Mumbai-replica-2", instance=bytes(range(16)), seq=9000)


def test_the_synchronous_one_is_marked_and_a_stop_is_told_at_it() -> None:
    at = standing(replica(0.4) | {"synchronous": True}, branch_is_up=True)
    assert (at.dot, at.state, at.note) == ("good", "level, synchronous", "")
    away = standing(replica(25) | {"synchronous": True}, branch_is_up=True)
    assert away.state == "silent, synchronous"
    assert away.note == (
        "Mumbai has stopped: it answers nothing before Mumbai-replica-1, its synchronous replica, has it on its disk. Start "
        "Mumbai-replica-1; if it is lost for good: zbank acks Mumbai REPLICA, or zbank acks Mumbai none."
    )
    assert "Mumbai does not answer" in standing(replica(25) | {"synchronous": True}, branch_is_up=False).note


def test_with_the_synchronous_one_nothing_is_lost_says_the_command_and_says_the_page() -> None:
    said = " ".join(_what_it_costs(BRANCH, FOLLOWS, [FOLLOWS, OTHER])).replace("`", "")
    assert said.startswith("Mumbai-replica-1 is the synchronous replica of Mumbai: nothing that was acknowledged is lost.")
    for word in ("Whatever", "suspense", "must be stopped", "better take", "IS UP"):
        assert word not in said
    own, others = replica(4.2) | {"synchronous": True}, replica(0.1) | {"name": OTHER.name, "position": OTHER.seq}
    told = cost(own, [own, others])
    assert told.stands == "It is the synchronous replica of Mumbai."
    assert told.better == ""
    for part in (told.lost, told.before):
        assert part.partition("acknowledged. ")[2] in said, part
    assert _what_it_costs(replace(BRANCH, up=True), FOLLOWS, [FOLLOWS])[-1] == "Mumbai IS UP: stop it first."


@pytest.mark.parametrize(
    ("word", "chosen"),
    [
        (None, FOLLOWS),
        (AckedBy("", b"", 9), FOLLOWS),
        (AckedBy(INFO.name, INFO.instance, 9), FOLLOWS),  # it does not know of the later word
        (AckedBy(INFO.name, bytes(range(1, 17)), 7), FOLLOWS),  # another one of that name
        (AckedBy(INFO.name, INFO.instance, 7), INFO),  # it has not come so far
    ],
)
def test_else_the_loss_is_told_as_ever(word: AckedBy | None, chosen: ReplicaInfo) -> None:
    said = " ".join(_what_it_costs(replace(BRANCH, acks=word), chosen, [chosen]))
    assert "is lost, also what customers were told" in said
    assert "must be stopped" in said
    assert "synchronous" not in said


def test_in_the_place_of_another_one_the_synchronous_one_is_recommended() -> None:
    better = "Mumbai-replica-1 is the synchronous replica: take that one, with it nothing that was acknowledged is lost."
    lines = _what_it_costs(BRANCH, replace(OTHER, seq=1), [FOLLOWS, OTHER])
    assert better in lines
    assert not any("has more" in line for line in lines)
    own = replica(0.1) | {"name": OTHER.name, "position": 1}
    assert cost(own, [own, replica(4.2) | {"synchronous": True}]).better == better
