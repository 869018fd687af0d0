"""The schedule of `zbank chaos`: the same for a seed, every kind in it, no two faults at one place at a time."""

from __future__ import annotations

import pytest

from zbank.apps.chaos.connection import Link
from zbank.apps.chaos.faults import BREAK, CALM_S, DISK_FULL, ENDS, KINDS, PAUSE_LONG, Fault, moments, plan
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
            started_on_full = one.kind == DISK_FULL and other.kind in ENDS
            assert other.begin_s >= one.end_s or not one.places & other.places or started_on_full, (one, other)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_disk_is_filled_under_an_actor_that_runs_and_that_is_ended_at_most_once_meanwhile(seed: int) -> None:
    faults = plan(seed, 300, BRANCHES, "Pune")
    for full in (fault for fault in faults if fault.kind == DISK_FULL):
        others = [fault for fault in faults if fault is not full and "Pune" in fault.actors]
        met = [fault for fault in others if fault.begin_s < full.end_s and fault.end_s > full.begin_s]
        assert all(fault.begin_s >= full.begin_s and fault.kind in ENDS for fault in met), (full, met)
        assert len(met) <= 1, (full, met)


def test_over_many_seeds_an_actor_starts_on_a_full_disk() -> None:
    started = 0
    for seed in SEEDS:
        faults = plan(seed, 300, BRANCHES, "Pune")
        ends = [fault for fault in faults if fault.kind in ENDS and "Pune" in fault.actors]
        full = [fault for fault in faults if fault.kind == DISK_FULL]
        started += sum(disk.begin_s < end.begin_s < end.end_s < disk.end_s - 1 for disk in full for end in ends)
    assert started >= 10


def test_the_seed_decides() -> None:
    assert plan(5, 60, BRANCHES, None) == plan(5, 60, BRANCHES, None)
    assert plan(5, 60, BRANCHES, None) != plan(6, 60, BRANCHES, None)
    assert DISK_FULL not in {fault.kind for fault in plan(5, 60, BRANCHES, None)}


def test_a_long_pause_is_longer_than_every_limit_whenever_the_run_ends() -> None:
    pauses = [fault for seed in SEEDS for fault in plan(seed, 60, BRANCHES, None) if fault.kind == PAUSE_LONG]
    assert min(pause.lasts_s for pause in pauses) * 1e6 > ASK_OTHERS_AFTER_US


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
