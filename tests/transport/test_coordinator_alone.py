"""A coordinator goes on without its replica, by an operator's word: what it had decided is told once that can do no harm."""

from __future__ import annotations

import pytest

from tests.transport.office import ASHA, THE_STANDBY, Office, office
from tests.transport.test_coordinator_replica import code_of
from tests.transport.test_coordinator_successor import NONE_ANY_MORE, all_register, balances
from tests.unit.protocol_support import BOSS, SECOND_US, from_branch, id_of, of_kind
from zbank.config import COORDINATOR_NAME
from zbank.errors import StorageFull
from zbank.protocol.gate import SILENT_US
from zbank.protocol.machine import Effect
from zbank.protocol.messages import (
    REPLICA,
    Abort,
    Commit,
    Fault,
    GetTransfer,
    Inquiry,
    NameAcks,
    Named,
    Outcome,
    Prepare,
    Registered,
    RegisterReplica,
    ReplicaInfo,
    StillPending,
    TransferInfo,
)

__all__ = ["office"]

SECOND = ReplicaInfo("second", COORDINATOR_NAME, "tcp://second:9010", b"second".ljust(16), 0, 0, 0, 0)
BOTH = ["Delhi", "Mumbai"]


@pytest.fixture
def decided(office: Office) -> Office:
    """It has decided the first payment alone, nobody has heard of it, and its replica is silent."""
    office.decide(1)
    office.on_the_way.clear()
    office.left.clear()
    office.alone(SILENT_US + 1)
    assert office.coordinator.engine.has_stopped
    return office


def go_on(office: Office) -> list[Effect]:
    """An operator lets it go on alone; gives what left."""
    left = office.send(NONE_ANY_MORE, ASHA)
    assert of_kind(Named, left)
    return left


def told(effects: list[Effect]) -> list[tuple[str, str]]:
    """To whom a commit went, or that it was done."""
    said = [effect for effect in effects if isinstance(effect.message, Commit | Outcome)]
    return sorted((str(effect.to), type(effect.message).__name__) for effect in said)


def called(effects: list[Effect]) -> list[str]:
    """Who is to register again."""
    return sorted(str(to) for to, fault in of_kind(Fault, effects) if fault.code == "hello_first")


def test_what_it_had_decided_is_told_when_all_its_branches_have_heard_of_the_word(decided: Office) -> None:
    office = decided
    left = go_on(office)
    assert told(left) == [], "of what waited for the replica"
    office.hear(left)  # the word
    effects = office.alone(SECOND_US)
    assert (told(effects), called(effects)) == ([], BOTH)
    assert told(office.register("Mumbai")) == []
    effects = office.alone(SECOND_US)
    assert (told(effects), called(effects)) == ([], ["Delhi"])
    left = office.send(office.registration("Delhi"), from_branch("Delhi"))
    assert told(left) == [("Delhi", "Commit")]
    office.hear(left)
    left = office.alone(SECOND_US)
    assert ("Mumbai", "Commit") in told(left)
    assert [outcome.status for _, outcome in of_kind(Outcome, office.until_told(left))] == ["committed"]
    assert balances(office) == (10, 10)
    assert called(office.alone(SECOND_US)) == []


def test_nobody_is_told_that_it_is_done_before(decided: Office) -> None:
    """Not who asks again, not a branch in doubt, not who looks."""
    office = decided
    txn = office.coordinator.coordinator.open[id_of(1)].txn
    go_on(office)
    for _ in range(5):
        assert told(office.pay(1)) == []
        (answer,) = office.send(Inquiry(txn, id_of(1)), from_branch("Mumbai"))
        assert answer.message == StillPending(txn, id_of(1))
        (answer,) = office.send(GetTransfer(id_of(1)))
        assert code_of(answer.message) == "busy"
        assert told(office.alone(SECOND_US)) == []
    for name in BOTH:
        office.register(name)  # it hears of the word,
    for name in BOTH:
        office.hear(office.send(office.registration(name), from_branch(name)))  # and has it
    office.until_told(office.alone(SECOND_US))
    (answer,) = office.send(GetTransfer(id_of(1)))
    assert isinstance(answer.message, TransferInfo)
    assert answer.message.status == "committed"
    assert balances(office) == (10, 10)


@pytest.mark.parametrize("first", ["Mumbai", "Delhi"])
def test_a_successor_that_has_aborted_it_is_never_contradicted(decided: Office, first: str) -> None:
    """One branch has met the successor, the other one has not."""
    office = decided
    office.promote()
    zombie = office.zombie
    assert zombie is not None
    other = next(name for name in BOTH if name != first)
    office.until_told(office.send(office.registration(other), from_branch(other)))  # and asks what became of it
    assert office.branches[other].branch.prepared == {}
    zombie.turn((from_branch(first), 0, office.registration(first)))
    assert of_kind(Named, zombie.turn((ASHA, 1, NONE_ANY_MORE)))
    left: list[Effect] = []
    for count in range(8):
        effects = [*zombie.tick(SECOND_US), *zombie.turn((from_branch(first), 0, office.registration(first)))]
        if count > 4:
            effects += zombie.turn((from_branch(other), 0, office.registration(other)))
        left += effects
        for effect in effects:
            if effect.to == first:
                office.branches[first].turn((BOSS, 0, effect.message))
    assert told(left) == []
    assert zombie.engine.machine.closed is not None, "the other branch has told it"
    assert len(office.branches[first].branch.prepared) == 1, "it waits, and is told nothing wrong"


def test_a_successor_serves_nobody_once_a_branch_comes_that_heard_of_the_word(decided: Office) -> None:
    office = decided
    txn = office.coordinator.coordinator.open[id_of(1)].txn
    office.hear(go_on(office))
    office.promote()
    for name in BOTH:
        (answer,) = office.send(office.registration(name), from_branch(name))
        assert code_of(answer.message) == "out_of_office"
        (answer,) = office.send(Inquiry(txn, id_of(1)), from_branch(name))
        assert code_of(answer.message) == "out_of_office"


def test_a_vote_that_comes_with_the_word_decides_and_is_told_later(office: Office) -> None:
    prepares = of_kind(Prepare, office.pay(1))
    office.alone(SILENT_US + 1)
    votes = [
        (from_branch(str(name)), 0, answer.message)
        for name, prepare in prepares
        for answer in office.branches[str(name)].turn((BOSS, 0, prepare))
    ]
    left = office.coordinator.turn(*votes, (ASHA, 1, NONE_ANY_MORE))
    assert of_kind(Named, left)
    assert id_of(1) in office.coordinator.coordinator.open
    assert told(left) == []


@pytest.mark.parametrize("posted", [False, True])
def test_it_remembers_over_a_restart(decided: Office, posted: bool) -> None:
    office = decided
    office.hear(go_on(office))
    if posted:
        office.coordinator.engine.post()
    office.coordinator = office.coordinator.restarted(office.coordinator.wanted_acks)
    assert told(office.register("Mumbai")) == [], "it has the word; Delhi may not"
    assert called(office.alone(SECOND_US)) == [], "who is not there is not called"
    left = office.send(office.registration("Delhi"), from_branch("Delhi"))
    assert told(left) == [("Delhi", "Commit")]


def test_another_replica_in_its_place_is_no_different(decided: Office) -> None:
    office = decided
    second = THE_STANDBY._replace(address=b"second", role=REPLICA, caller=SECOND.name)
    office.send(RegisterReplica(SECOND), second)
    office.send(NameAcks(COORDINATOR_NAME, SECOND.name, SECOND.instance), ASHA)
    assert office.coordinator.coordinator.replaced_seq == office.coordinator.store.seq
    assert office.coordinator.engine.machine.withholds(id_of(1))


def test_the_first_replica_makes_nobody_wait(office: Office) -> None:
    """Nor does one that is named where there was none: nobody can have taken the place."""
    assert office.coordinator.coordinator.replaced_seq == 0
    office.promote()
    all_register(office)
    office.send(RegisterReplica(SECOND), THE_STANDBY._replace(address=b"second", caller=SECOND.name))
    office.send(NameAcks(COORDINATOR_NAME, SECOND.name, SECOND.instance), ASHA)
    assert office.coordinator.coordinator.replaced_seq == 0


def test_a_branch_takes_no_decision_of_an_office_that_it_could_not_record(decided: Office) -> None:
    """Its disk was full when it met the successor. Else the former coordinator would not learn that it had been there."""
    office = decided
    txn = office.coordinator.coordinator.open[id_of(1)].txn
    office.promote()
    delhi = office.branches["Delhi"]
    (registered,) = of_kind(Registered, office.send(office.registration("Delhi"), from_branch("Delhi")))
    delhi.store.failures.append(StorageFull("no room"))
    delhi.turn((BOSS, 0, registered[1]))
    known = office.registration("Delhi").coordinator_epoch
    (abort,) = office.send(Inquiry(txn, id_of(1)), from_branch("Delhi"))
    assert abort.message == Abort(txn, id_of(1))
    assert delhi.turn((BOSS, 0, abort.message)) == []
    assert id_of(1) in delhi.branch.prepared
    delhi.tick(SECOND_US)
    assert office.registration("Delhi").coordinator_epoch == registered[1].epoch > known
    delhi.turn((BOSS, 0, abort.message))
    assert id_of(1) not in delhi.branch.prepared


def test_what_could_not_be_recorded_of_the_last_office_alone_is_recorded_later(decided: Office) -> None:
    """A branch that was with the successor, with no room to note that, and has done nothing there, may go back."""
    office = decided
    office.promote()
    zombie, delhi = office.zombie, office.branches["Delhi"]
    assert zombie is not None
    (registered,) = of_kind(Registered, office.send(office.registration("Delhi"), from_branch("Delhi")))
    delhi.store.failures.append(StorageFull("no room"))
    delhi.turn((BOSS, 0, registered[1]))
    zombie.turn((from_branch("Delhi"), 0, office.registration("Delhi")))
    ((_, named),) = of_kind(Named, zombie.turn((ASHA, 1, NONE_ANY_MORE)))
    (again,) = of_kind(Registered, zombie.turn((from_branch("Delhi"), 0, office.registration("Delhi"))))
    delhi.turn((BOSS, 0, again[1]))
    delhi.tick(SECOND_US)
    known = office.registration("Delhi")
    assert (known.coordinator_epoch, known.coordinator_word) == (again[1].epoch, named.acks.generation)
