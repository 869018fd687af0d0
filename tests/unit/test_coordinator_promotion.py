"""Which replica a coordinator puts in its branch's place, and which it does not (PROTOCOL R2, R3)."""

from __future__ import annotations

from tests.unit.protocol_support import (
    SECOND_US,
    CoordinatorDesk,
    coordinator_desk,
    from_branch,
    register,
)
from zbank.protocol.machine import EPOCH_LEAP, Sender
from zbank.protocol.messages import (
    CLIENT,
    REPLICA,
    AnyMessage,
    BranchInfo,
    Fault,
    Lead,
    NameAcks,
    Promote,
    Promoting,
    Register,
    Registered,
    RegisterReplica,
    ReplicaInfo,
)
from zbank.protocol.records import BranchPromoted

OFFICER = Sender(b"officer", CLIENT, "asha")


def replica(name: str, *, seq: int, epoch: int = 1, instance: str = "", can_lead: bool = True) -> ReplicaInfo:
    """What a replica of Mumbai tells of itself."""
    data = (instance or name).ljust(16).encode()
    return ReplicaInfo(name, "Mumbai", f"tcp://{name}:9200", data, epoch, seq, 0, 0, can_lead)


def tell(desk: CoordinatorDesk, info: ReplicaInfo) -> AnyMessage:
    """It says so to the coordinator; the answer."""
    sender = Sender(info.name, REPLICA, info.name)
    return desk.ask(RegisterReplica(info), sender)


def promote(desk: CoordinatorDesk, info: ReplicaInfo) -> AnyMessage:
    """An operator wants it, as soon as its branch is silent."""
    desk.down("Mumbai")
    (effect,) = desk.send(Promote("Mumbai", info.name, info.instance), OFFICER)
    return effect.message


def lead(desk: CoordinatorDesk, info: ReplicaInfo) -> Lead:
    """The replica is promoted, hears of it, and registers as the branch."""
    assert isinstance(promote(desk, info), Promoting)
    told = tell(desk, info)
    assert isinstance(told, Lead)
    new = BranchInfo("Mumbai", info.endpoint, "INR", info.instance, told.epoch + 1, True)
    desk.send(Register(new, 0, 0), from_branch("Mumbai"))
    return told


def code_of(answer: AnyMessage) -> str:
    assert isinstance(answer, Fault), answer
    return answer.code


def bank() -> CoordinatorDesk:
    """A coordinator that has long been there, and whose branches are."""
    desk = coordinator_desk().joined()
    desk.tick(60 * SECOND_US)
    return desk


def test_a_copy_of_the_promoted_replicas_file_does_not_become_the_branch_as_well() -> None:
    desk = bank()
    one, copy = replica("one", seq=80), replica("copy", seq=80, instance="one")
    tell(desk, one)
    tell(desk, copy)
    lead(desk, one)
    assert isinstance(tell(desk, copy), Registered)
    assert code_of(promote(desk, copy)) == "foreign_store"


def test_a_copy_of_the_promoted_replicas_file_is_not_named_as_the_synchronous_one() -> None:
    """It could never take the branch's place."""
    desk = bank()
    one, copy = replica("one", seq=80), replica("copy", seq=80, instance="one")
    tell(desk, copy)
    tell(desk, one)
    lead(desk, one)
    (refused,) = desk.send(NameAcks("Mumbai", copy.name, copy.instance), OFFICER)
    assert code_of(refused.message) == "foreign_store"
    again = desk.restarted()
    assert isinstance(tell(again, copy), Registered)
    assert isinstance(tell(again, one), Lead)


def test_a_replica_that_followed_the_lost_branch_through_another_start_never_leads() -> None:
    """The lost branch was cut off, and started again there: its epoch grows with each start, and its rows are void."""
    desk = bank()
    one, two = replica("one", seq=80, epoch=2), replica("two", seq=70, epoch=2)
    for info in (one, two):
        tell(desk, info)
    lead(desk, one)
    astray = replica("two", seq=95, epoch=40)
    tell(desk, astray)
    assert code_of(promote(desk, astray)) == "diverged"


def test_a_replica_that_was_further_than_the_promoted_one_never_leads() -> None:
    """What stands on its rows was voided: commits that the promoted branch took part in under the same row numbers
    would not be asked for, and be lost."""
    desk = bank()
    one, two, three = replica("one", seq=80), replica("two", seq=90), replica("three", seq=70)
    for info in (one, two, three):
        tell(desk, info)
    told = lead(desk, one)
    assert code_of(promote(desk, two)) == "diverged"
    follows = replica("three", seq=200, epoch=told.epoch + 1)
    tell(desk, follows)
    again = lead(desk, follows)
    assert again.epoch > told.epoch + 1
    desk = desk.restarted()
    desk.tick(60 * SECOND_US)
    tell(desk, two)  # its rows are fewer than those which the last one took over, but void all the same
    assert code_of(promote(desk, two)) == "diverged"


def test_a_replica_that_is_a_prefix_of_the_promoted_one_may_lead_after_it() -> None:
    desk = bank()
    one, two = replica("one", seq=80), replica("two", seq=70)
    tell(desk, one)
    tell(desk, two)
    lead(desk, one)
    assert isinstance(promote(desk, two), Promoting)
    assert isinstance(tell(desk, two), Lead)
    assert isinstance(tell(desk, one), Registered)


def test_the_new_epoch_is_above_all_that_any_replica_has_seen() -> None:
    """The coordinator was restarted after the branch was lost: it does not know the branch's last epoch."""
    desk = bank().restarted()
    desk.tick(60 * SECOND_US)
    one, two = replica("one", seq=80, epoch=5), replica("two", seq=70, epoch=9)
    tell(desk, one)
    tell(desk, two)
    assert isinstance(promote(desk, one), Promoting)
    assert isinstance(desk.last, BranchPromoted)
    assert desk.last.epoch == 9 + EPOCH_LEAP


def test_nobody_is_promoted_before_the_branch_could_register_again() -> None:
    """A coordinator that has just been started does not know that the branch is well."""
    desk = bank().restarted()
    one = replica("one", seq=80)
    tell(desk, one)
    assert code_of(promote(desk, one)) == "busy"
    desk.tick(SECOND_US)
    desk.send(register("Mumbai"), from_branch("Mumbai"))
    desk.tick(5 * SECOND_US)
    tell(desk, one)
    (effect,) = desk.send(Promote("Mumbai", one.name, one.instance), OFFICER)
    assert code_of(effect.message) == "branch_up"
    desk.roll_back()  # its memory is rebuilt, its term of office goes on
    assert isinstance(promote(desk, one), Promoting)
