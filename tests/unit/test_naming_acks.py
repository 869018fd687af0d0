"""How a coordinator names the synchronous replica of a branch, and what it refuses (PROTOCOL R3)."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from tests.unit.protocol_support import (
    SECOND_US,
    CoordinatorDesk,
    coordinator_desk,
    from_branch,
    id_of,
    of_kind,
    register,
)
from zbank.protocol.gate import keeps_all
from zbank.protocol.machine import Sender
from zbank.protocol.messages import (
    REPLICA,
    AckedBy,
    Directory,
    Fault,
    GetDirectory,
    NameAcks,
    Named,
    Promote,
    Promoting,
    Registered,
    RegisterReplica,
    ReplicaInfo,
)

COPY = ReplicaInfo("Mumbai-replica", "Mumbai", "tcp://127.0.0.1:9200", id_of(77), 1, 8, 0, 100_000)
ITSELF = Sender(b"copy", REPLICA, COPY.name)
MEANT = NameAcks("Mumbai", COPY.name, COPY.instance, "ops")


@pytest.fixture
def desk() -> CoordinatorDesk:
    """Mumbai and its replica are there."""
    desk = coordinator_desk().joined()
    desk.ask(RegisterReplica(COPY), ITSELF)
    return desk


def word_of(desk: CoordinatorDesk) -> AckedBy | None:
    """What the directory says of Mumbai."""
    directory = desk.ask(GetDirectory())
    assert isinstance(directory, Directory)
    return next(info.acks for info in directory.branches if info.name == "Mumbai")


def named(desk: CoordinatorDesk, message: NameAcks = MEANT) -> AckedBy:
    """The word that is recorded."""
    ((_, answer),) = of_kind(Named, desk.send(message))
    return answer.acks


def code_of(desk: CoordinatorDesk, message: NameAcks) -> str:
    answer = desk.ask(message)
    assert isinstance(answer, Fault), answer
    return answer.code


def test_each_word_has_a_generation_and_is_in_the_directory(desk: CoordinatorDesk) -> None:
    assert word_of(desk) is None
    first = named(desk)
    assert first == AckedBy(COPY.name, COPY.instance, len(desk.lines))
    second = named(desk)
    assert second.generation > first.generation
    assert word_of(desk) == second == word_of(desk.restarted())


def test_only_what_was_seen_is_named(desk: CoordinatorDesk) -> None:
    before = len(desk.lines)
    assert code_of(desk, replace(MEANT, of="Lima")) == "branch_not_found"
    assert code_of(desk, replace(MEANT, of="Delhi")) == "replica_not_found"
    assert code_of(desk, replace(MEANT, replica="another")) == "replica_not_found"
    assert code_of(desk, replace(MEANT, instance=id_of(78))) == "replica_not_found"
    desk.tick(6 * SECOND_US)
    assert code_of(desk, MEANT) == "replica_not_found", "it is silent"
    assert len(desk.lines) == before


@pytest.mark.parametrize("message", [MEANT, NameAcks("Mumbai", "", b"", "ops")])
def test_a_branch_that_cannot_follow_is_told_nothing(desk: CoordinatorDesk, message: NameAcks) -> None:
    """It may be lost: then its replica has all, and a later word would hide that."""
    word = named(desk)
    desk.down("Mumbai")
    assert code_of(desk, message) == "branch_unavailable"
    assert word_of(desk) == word


def test_who_keeps_all_is_named_by_the_last_word_and_has_it_in_its_rows(desk: CoordinatorDesk) -> None:
    assert not keeps_all(word_of(desk), COPY)
    word = named(desk)
    assert not keeps_all(word, COPY), "it has not come so far"
    follows = replace(COPY, acks=word.generation)
    assert keeps_all(word, follows)
    assert not keeps_all(word, replace(follows, instance=id_of(78))), "other data of that name"
    named(desk, NameAcks("Mumbai", "", b"", "ops"))
    assert not keeps_all(word_of(desk), follows)
    assert not keeps_all(AckedBy("", b"", 0), replace(COPY, instance=b"")), "nobody is named"


def test_after_a_promotion_the_branch_stands_alone(desk: CoordinatorDesk) -> None:
    named(desk)
    desk.tick(60 * SECOND_US)
    desk.send(RegisterReplica(COPY), ITSELF)
    desk.down("Mumbai")
    assert isinstance(desk.ask(Promote("Mumbai", COPY.name, COPY.instance, "ops")), Promoting)
    word = word_of(desk)
    assert word is not None
    assert (word.replica, word.instance) == ("", b"")


def test_the_branch_hears_of_it_at_once(desk: CoordinatorDesk) -> None:
    ((to, registered),) = of_kind(Registered, desk.send(MEANT))
    assert to == "Mumbai"
    assert next(info.acks for info in registered.branches if info.name == "Mumbai") == word_of(desk)


def test_the_one_that_the_config_wants_is_named_when_it_comes_and_once(desk: CoordinatorDesk) -> None:
    desk.ask(replace(register("Mumbai"), acks=COPY.name), from_branch("Mumbai"))
    desk.send(RegisterReplica(COPY), ITSELF)
    word = word_of(desk)
    assert word is not None
    assert (word.replica, word.instance) == (COPY.name, COPY.instance)
    begun_anew = replace(COPY, instance=id_of(78))
    desk.send(RegisterReplica(begun_anew), ITSELF)
    assert word_of(desk) == word, "it may lack what the former data had: an operator has to say so"
    assert named(desk, replace(MEANT, instance=begun_anew.instance)) == word_of(desk)
