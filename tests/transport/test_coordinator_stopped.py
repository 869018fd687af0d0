"""A coordinator that has stopped for want of its replica keeps nobody: not with it, nor out when it is back (PROTOCOL R3)."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from tests.transport.office import ASHA, THE_STANDBY, Office, office
from tests.transport.test_coordinator_replica import OF_MUMBAI, SECOND, code_of, token
from tests.unit.protocol_support import from_branch, of_kind
from zbank.config import COORDINATOR_NAME
from zbank.protocol.coordinator import Coordinator
from zbank.protocol.gate import SILENT_US
from zbank.protocol.machine import EPOCH_LEAP, Sender
from zbank.protocol.messages import (
    REPLICA,
    Abort,
    Fault,
    Inquiry,
    NameAcks,
    Prepare,
    Registered,
    RegisterReplica,
    StillPending,
)

__all__ = ["office"]

THE_SECOND = Sender(b"second", REPLICA, SECOND.name)


def up(office: Office) -> set[str]:
    """The branches that the coordinator has."""
    machine = office.coordinator.engine.machine
    assert isinstance(machine, Coordinator)
    return machine.directory.up


def test_who_was_turned_away_is_called_back(office: Office) -> None:
    """An answer that has waited for the replica goes to whatever connection the branch has by then, and is believed there."""
    office.send(token(1))
    office.register("Mumbai")
    office.coordinator.engine.machine.peer_down("Mumbai", office.clock.now())
    office.alone(SILENT_US + 1)
    office.register("Mumbai")
    assert code_of(office.left[-1].message) == "out_of_office"
    assert up(office) == {"Delhi"}
    left = [effect for _ in range(5) for effect in [*office.exchange(), *office.tick()]]
    assert "Mumbai" in [to for to, _ in of_kind(Registered, left)], "it believes that it was taken in"
    assert [(to, fault.code) for to, fault in of_kind(Fault, left)] == [("Mumbai", "hello_first")], "and is told better, once"
    office.register("Mumbai")
    assert up(office) == {"Delhi", "Mumbai"}


@pytest.mark.parametrize("leaves", [False, True])
def test_who_is_called_back_was_turned_away_and_is_there(office: Office, leaves: bool) -> None:
    office.alone(SILENT_US + 1)
    office.register("Mumbai")
    if leaves:
        office.coordinator.engine.machine.peer_down("Mumbai", office.clock.now())
    left = [effect for _ in range(5) for effect in office.tick()]
    assert [to for to, _ in of_kind(Fault, left)] == ([] if leaves else ["Mumbai"])


def test_a_second_replica_is_heard_of_and_turned_away(office: Office) -> None:
    """Were it taken in, it would never look for a successor; the operator may name it all the same."""
    asked = RegisterReplica(SECOND)
    assert of_kind(Registered, office.send(asked, THE_SECOND))
    office.alone(SILENT_US + 1)
    assert [code_of(effect.message) for effect in office.send(asked, THE_SECOND)] == ["out_of_office"]
    office.send(NameAcks(COORDINATOR_NAME, SECOND.name, SECOND.instance), ASHA)
    assert office.coordinator.coordinator.acks[COORDINATOR_NAME].replica == SECOND.name
    assert of_kind(Registered, office.send(asked, THE_SECOND))
    office.alone(SILENT_US + 1)
    office.on_the_way.clear()
    registered = office.standby_registration()
    office.send(registered, THE_STANDBY)
    assert [code_of(effect.message) for effect in office.on_the_way] == ["out_of_office"], "it is the other one now"


def test_a_branch_in_doubt_is_turned_away(office: Office) -> None:
    """Nothing is decided here any more. Were it answered that this is pending, it would be content to ask again and again."""
    for _ in range(3):
        office.tick()
    name, prepare = of_kind(Prepare, office.pay(1))[0]
    assert isinstance(name, str)
    asked = Inquiry(prepare.txn, prepare.transfer.id)
    (answer,) = office.send(asked, from_branch(name))
    assert isinstance(answer.message, StillPending)
    office.alone(SILENT_US + 1)
    assert [code_of(effect.message) for effect in office.send(asked, from_branch(name))] == ["out_of_office"]
    for _ in range(3):
        office.tick()
    (answer,) = office.send(asked, from_branch(name))
    assert isinstance(answer.message, StillPending | Abort)


def test_a_coordinator_that_is_behind_takes_no_replica_in(office: Office) -> None:
    """Of a branch, of its own, or the very one that it waits for: a branch knows of a later one, and they are to find it."""
    of_mumbai = RegisterReplica(OF_MUMBAI), Sender(b"copy", REPLICA, OF_MUMBAI.name)
    of_its_own = RegisterReplica(SECOND), THE_SECOND
    for message, sender in (of_mumbai, of_its_own):
        office.send(message, sender)
    office.tick()
    assert {to for to, _ in of_kind(Registered, office.left)} >= {b"copy", b"second"}
    mumbai = office.registration("Mumbai")
    office.send(replace(mumbai, coordinator_epoch=mumbai.coordinator_epoch + EPOCH_LEAP), from_branch("Mumbai"))
    for message, sender in (of_mumbai, of_its_own):
        assert [code_of(effect.message) for effect in office.send(message, sender)] == ["out_of_office"]
    registered = office.standby_registration()
    office.on_the_way.clear()
    office.send(registered, THE_STANDBY)
    assert [code_of(effect.message) for effect in office.on_the_way] == ["out_of_office"]
