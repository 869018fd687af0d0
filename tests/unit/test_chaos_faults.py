"""The schedule of `zbank chaos`: the same for a seed, every kind in it, no two faults at one place at a time."""

from __future__ import annotations

import pytest

from zbank.apps.chaos.connection import Link
from zbank.apps.chaos.faults import BREAK, CALM_S, DISK_FULL, KINDS, PAUSE_LONG, Fault, moments, plan
from zbank.protocol.inquiry import ASK_OTHERS_AFTER_US

BRANCHES = ("Mumbai", "Delhi", "Pune")
SEEDS = range(30)


@pytest.mark.parametrize("seed", SEEDS)
def test_every_kind_happens_within_a_minute_and_ends_in_time(seed: int) -> None:
    faults = plan(seed, 60, BRANCHES, "Pune")
    assert {fault.kind for fault in faults} == set(KINDS)
    assert all(CALM_S <= fault.begin_s < fault.end_s + (fault.kind == BREAK) for fault in faults)
    assert max(fault.end_s for fault in faults) <= 60
    assert all(fault.actors == ("Pune",) for fault in faults if fault.kind == DISK_FULL)


@pytest.mark.parametrize("seed", SEEDS)
def test_no_two_faults_are_at_one_place_at_a_time(seed: int) -> None:
    faults = plan(seed, 300, BRANCHES, "Pune")
    for n, one in enumerate(faults):
        for other in faults[n + 1 :]:
            assert other.begin_s >= one.end_s or not one.places & other.places, (one, other)


def test_the_seed_decides() -> None:
    assert plan(5, 60, BRANCHES, None) == plan(5, 60, BRANCHES, None)
    assert plan(5, 60, BRANCHES, None) != plan(6, 60, BRANCHES, None)
    assert DISK_FULL not in {fault.kind for fault in plan(5, 60, BRANCHES, None)}


def test_a_long_pause_is_longer_than_every_limit() -> None:
    long = [fault for seed in SEEDS for fault in plan(seed, 60, BRANCHES, None) if fault.kind == PAUSE_LONG]
    assert min(fault.lasts_s for fault in long if fault.end_s < 60) > ASK_OTHERS_AFTER_US / 1e6


def test_over_many_seeds_every_actor_and_every_link_has_its_turn() -> None:
    faults = [fault for seed in SEEDS for fault in plan(seed, 120, BRANCHES, "Pune")]
    assert {name for fault in faults for name in fault.actors} == {"coordinator", *BRANCHES}
    links = {Link(one, other) for one in ("clients", *BRANCHES) for other in ("coordinator", *BRANCHES) if one != other}
    assert {fault.link for fault in faults if fault.link} == links


def test_moments_come_in_order_and_everything_that_lasts_ends() -> None:
    faults = plan(1, 60, BRANCHES, "Pune")
    found = list(moments(faults))
    assert [moment[0] for moment in found] == sorted(moment[0] for moment in found)
    begun: list[Fault] = []
    for _, begins, fault in found:
        if begins:
            begun.append(fault)
        else:
            begun.remove(fault)
    assert {fault.kind for fault in begun} <= {BREAK}


def test_a_person_can_read_it() -> None:
    for fault in plan(1, 300, BRANCHES, "Pune"):
        assert "\n" not in fault.describe()
        assert any(name in fault.describe() for name in ("coordinator", *BRANCHES))
