"""The coordinator's words on synchronous replicas when branches leave, are lost, or know more than it does (PROTOCOL R3)."""

from __future__ import annotations

from msgspec.structs import replace

from tests.unit.protocol_support import (
    BOSS,
    SECOND_US,
    CoordinatorDesk,
    branch_desk,
    from_branch,
    id_of,
    of_kind,
    register,
)
from tests.unit.test_naming_acks import COPY, ITSELF, MEANT, desk
from zbank.protocol.gate import keeps_all
from zbank.protocol.machine import Effect, Sender
from zbank.protocol.messages import (
    REPLICA,
    AckedBy,
    BranchInfo,
    Directory,
    Fault,
    GetDirectory,
    Lead,
    NameAcks,
    Named,
    Promote,
    Promoting,
    Registered,
    RegisterReplica,
    ReplicaInfo,
    Retire,
    RetireAnswer,
    RetireBranch,
)
from zbank.protocol.records import AcksNamed, BranchLeft

__all__ = ["desk"]


def named(desk: CoordinatorDesk, message: NameAcks = MEANT) -> AckedBy:
    answer = next(effect.message for effect in desk.send(message) if isinstance(effect.message, Named))
    assert isinstance(answer, Named)
    return answer.acks


def code_of(desk: CoordinatorDesk, message: NameAcks) -> str:
    answer = desk.ask(message)
    assert isinstance(answer, Fault), answer
    return answer.code


def words(effects: list[Effect]) -> list[AckedBy | None]:
    """What Mumbai is told, for each time it is told anything."""
    told = [message for to, message in of_kind(Registered, effects) if to == "Mumbai"]
    return [info.acks for message in told for info in message.branches if info.name == "Mumbai"]


def replicas(desk: CoordinatorDesk) -> dict[str, ReplicaInfo]:
    directory = desk.ask(GetDirectory())
    assert isinstance(directory, Directory)
    return {info.name: info for info in directory.replicas}


# --- who is named --------------------------------------------------------------------------------------------------------


def test_a_replica_of_a_branch_that_has_left_is_named_by_nobody(desk: CoordinatorDesk) -> None:
    wanting = replace(register("Mumbai"), acks="Mumbai-other")
    desk.ask(wanting, from_branch("Mumbai"))
    desk.send(RetireBranch("Mumbai"))
    desk.send(RetireAnswer("ops"), from_branch("Mumbai"))
    assert isinstance(desk.last, BranchLeft)
    other = replace(COPY, name="Mumbai-other", instance=id_of(78))
    desk.send(RegisterReplica(other), Sender(b"other", REPLICA, other.name))
    assert isinstance(desk.last, BranchLeft)


def test_who_is_the_branch_itself_cannot_be_its_synchronous_replica(desk: CoordinatorDesk) -> None:
    desk.tick(60 * SECOND_US)
    desk.ask(RegisterReplica(COPY), ITSELF)
    desk.down("Mumbai")
    assert isinstance(desk.ask(Promote("Mumbai", COPY.name, COPY.instance, "ops")), Promoting)
    back = replace(register("Mumbai"), acks=COPY.name)
    back = replace(back, info=replace(back.info, instance=COPY.instance, epoch=9))
    desk.send(back, from_branch("Mumbai"))
    assert code_of(desk, MEANT) == "foreign_store"
    before = len(desk.lines)
    (answer,) = desk.send(RegisterReplica(COPY), ITSELF)
    assert isinstance(answer.message, Lead)
    assert len(desk.lines) == before, "what its config wants is no reason either"


def test_who_may_have_rows_that_became_void_is_not_named_because_a_config_wants_it(desk: CoordinatorDesk) -> None:
    desk.tick(60 * SECOND_US)
    desk.ask(RegisterReplica(COPY), ITSELF)
    desk.down("Mumbai")
    assert isinstance(desk.ask(Promote("Mumbai", COPY.name, COPY.instance, "ops")), Promoting)
    back = replace(register("Mumbai"), acks="Mumbai-other")
    back = replace(back, info=replace(back.info, instance=COPY.instance, epoch=9))
    desk.send(back, from_branch("Mumbai"))
    further = replace(COPY, name="Mumbai-other", instance=id_of(78), seq=9)
    desk.send(RegisterReplica(further), Sender(b"other", REPLICA, further.name))
    assert not isinstance(desk.last, AcksNamed)


# --- who keeps all -------------------------------------------------------------------------------------------------------


def test_a_copy_under_another_name_does_not_keep_all() -> None:
    """It says the same of itself as the one whose file was copied, and follows no more."""
    word = AckedBy(COPY.name, COPY.instance, 7)
    assert keeps_all(word, replace(COPY, acks=7))
    assert not keeps_all(word, replace(COPY, acks=7, name="Mumbai-copy"))


def test_who_once_had_more_rows_does_not_keep_all_before_it_has_them_again(desk: CoordinatorDesk) -> None:
    """Its file was put back from a copy. It has acknowledged what it has not any more."""
    word = named(desk)
    desk.ask(RegisterReplica(replace(COPY, seq=20, acks=word.generation)), ITSELF)
    assert keeps_all(word, replicas(desk)[COPY.name])
    for seq in (15, 16, 19):
        desk.ask(RegisterReplica(replace(COPY, seq=seq, acks=word.generation)), ITSELF)
        assert not keeps_all(word, replicas(desk)[COPY.name])
    desk.ask(RegisterReplica(replace(COPY, seq=20, acks=word.generation)), ITSELF)
    assert keeps_all(word, replicas(desk)[COPY.name])
    begun_anew = replace(COPY, seq=0, instance=id_of(78))
    desk.ask(RegisterReplica(begun_anew), ITSELF)
    assert replicas(desk)[COPY.name] == begun_anew


# --- a word that is lost -------------------------------------------------------------------------------------------------


def test_a_word_is_told_again_until_the_replica_has_it_in_its_rows(desk: CoordinatorDesk) -> None:
    word = named(desk)
    assert words(desk.send(RegisterReplica(COPY), ITSELF)) == [word]
    assert words(desk.send(RegisterReplica(replace(COPY, acks=word.generation)), ITSELF)) == []
    none = named(desk, NameAcks("Mumbai", "", b"", "ops"))
    assert words(desk.send(RegisterReplica(replace(COPY, acks=word.generation)), ITSELF)) == [none]
    assert words(desk.send(RegisterReplica(COPY), ITSELF)) == []


# --- a coordinator that is behind ----------------------------------------------------------------------------------------


def test_a_branch_that_knows_a_later_word_finds_out_a_coordinator_that_is_behind(desk: CoordinatorDesk) -> None:
    word = named(desk)
    knows = register("Mumbai")
    desk.send(replace(knows, info=replace(knows.info, acks=word)), from_branch("Mumbai"))
    assert not desk.coordinator.directory.behind
    later = replace(word, generation=word.generation + 1)
    desk.send(replace(knows, info=replace(knows.info, acks=later)), from_branch("Mumbai"))
    assert "restored from an old copy" in desk.coordinator.directory.behind
    assert code_of(desk, MEANT) == "out_of_office"


def test_a_coordinator_that_is_behind_names_nobody(desk: CoordinatorDesk) -> None:
    knows = replace(register("Mumbai"), acks=COPY.name, coordinator_epoch=9)
    desk.send(knows, from_branch("Mumbai"))
    before = len(desk.lines)
    desk.send(RegisterReplica(COPY), ITSELF)
    assert len(desk.lines) == before


# --- a branch that has left ----------------------------------------------------------------------------------------------


def test_a_branch_that_has_left_is_told_so(desk: CoordinatorDesk) -> None:
    desk.send(RetireBranch("Mumbai"))
    effects = desk.send(RetireAnswer("ops"), from_branch("Mumbai"))
    told = [message for to, message in of_kind(Registered, effects) if to == "Mumbai"]
    assert [[info.name for info in message.branches] for message in told] == [["Delhi", "Pune"]]


def test_a_branch_that_has_left_answers_questions_without_its_synchronous_replica() -> None:
    """Nobody can name another one, or none, for what is in no directory."""
    branch = branch_desk("Mumbai")
    info = BranchInfo("Mumbai", "tcp://Mumbai:9100", "INR", bytes(16), 1, True, AckedBy(COPY.name, COPY.instance, 7))
    branch.send(Registered("coordinator", 1, (info,)), BOSS)
    branch.tick()
    branch.send(Retire("ops", 1), BOSS)
    branch.tick()
    assert branch.machine.acks == info.acks, "its last word waits for it"
    branch.send(Registered("coordinator", 1, ()), BOSS)
    branch.tick()
    assert branch.machine.acks is None
    assert branch.restarted().machine.acks is None
    before = len(branch.lines)
    branch.send(Registered("coordinator", 1, ()), BOSS)
    branch.tick()
    assert len(branch.lines) == before
