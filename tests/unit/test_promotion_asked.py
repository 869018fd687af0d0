"""What a coordinator says to whoever wants a replica promoted, and that asking again is safe (PROTOCOL R2)."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from tests.unit.protocol_support import CUSTOMER, SECOND_US, CoordinatorDesk, coordinator_desk, id_of
from zbank.protocol.machine import Sender
from zbank.protocol.messages import REPLICA, Fault, Lead, Promote, Promoting, RegisterReplica, ReplicaInfo
from zbank.protocol.records import BranchPromoted

COPY = ReplicaInfo("Mumbai-replica", "Mumbai", "tcp://127.0.0.1:9200", id_of(77), 1, 8, 0, 100_000)
ITSELF = Sender(b"copy", REPLICA, COPY.name)
MEANT = Promote("Mumbai", COPY.name, COPY.instance, "ops")


@pytest.fixture
def desk() -> CoordinatorDesk:
    """Mumbai is down, and its replica is known."""
    desk = coordinator_desk().joined()
    desk.tick(60 * SECOND_US)  # it was not just started
    desk.ask(RegisterReplica(COPY), ITSELF)
    desk.down("Mumbai")
    return desk


def code_of(desk: CoordinatorDesk, message: Promote) -> str:
    answer = desk.ask(message)
    assert isinstance(answer, Fault), answer
    return answer.code


def test_only_what_was_seen_is_promoted(desk: CoordinatorDesk) -> None:
    before = len(desk.lines)
    assert code_of(desk, replace(MEANT, branch="Lima")) == "branch_not_found"
    assert code_of(desk, replace(MEANT, branch="Delhi")) == "replica_not_found"
    assert code_of(desk, replace(MEANT, replica="another")) == "replica_not_found"
    assert code_of(desk, replace(MEANT, instance=id_of(78))) == "replica_not_found"
    desk.ask(RegisterReplica(replace(COPY, can_lead=False)), ITSELF)
    assert code_of(desk, MEANT) == "cannot_lead"
    desk.ask(RegisterReplica(COPY), ITSELF)
    desk.tick(6 * SECOND_US)
    assert code_of(desk, MEANT) == "replica_not_found", "it is silent"
    assert len(desk.lines) == before
    assert code_of(coordinator_desk().joined(), MEANT) == "replica_not_found"


def test_not_beside_a_branch_that_is_up() -> None:
    desk = coordinator_desk().joined()
    desk.ask(RegisterReplica(COPY), ITSELF)
    assert code_of(desk, MEANT) == "branch_up"


def test_it_is_recorded_once_in_the_callers_name_and_told_alike_however_often(desk: CoordinatorDesk) -> None:
    """Also when the replica has heard of it and is none any more, and after a new start of the coordinator."""
    first = desk.ask(MEANT)
    assert first == Promoting(COPY)
    assert isinstance(desk.last, BranchPromoted)
    assert (desk.last.caller, desk.last.instance) == ("ops", COPY.instance)
    rows = len(desk.lines)
    assert desk.ask(MEANT) == first
    assert isinstance(desk.ask(RegisterReplica(COPY), ITSELF), Lead)
    assert desk.ask(MEANT) == first
    assert len(desk.lines) == rows
    late = desk.restarted().ask(MEANT, CUSTOMER)
    assert isinstance(late, Promoting)
    assert (late.info.name, late.info.instance, late.info.seq) == (COPY.name, COPY.instance, 0)


def test_a_former_promotion_is_no_excuse_for_another_one(desk: CoordinatorDesk) -> None:
    desk.ask(MEANT)
    desk.ask(RegisterReplica(COPY), ITSELF)
    assert code_of(desk, replace(MEANT, replica="another")) == "replica_not_found"
    assert code_of(desk, replace(MEANT, instance=id_of(78))) == "replica_not_found"
