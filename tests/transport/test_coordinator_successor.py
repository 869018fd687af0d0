"""The coordinator's replica took its place: what it knows, what it tells, and that the old one does no harm (PROTOCOL R3)."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.transport.actors import branch
from tests.transport.office import ASHA, THE_STANDBY, Office, office, opened
from tests.transport.test_coordinator_replica import code_of, token
from tests.unit.protocol_support import BOSS, CUSTOMER, SECOND_US, check_books, from_branch, id_of, of_kind
from zbank.config import COORDINATOR_NAME
from zbank.errors import FenceLost, StorageFull
from zbank.protocol.coordinator_state import CoordinatorState
from zbank.protocol.gate import SILENT_US
from zbank.protocol.machine import EPOCH_LEAP, Effect
from zbank.protocol.messages import (
    STALE,
    Abort,
    AckedBy,
    ActsPage,
    BranchRetired,
    Commit,
    Fault,
    GetActs,
    GetStatus,
    GetTokens,
    Inquiry,
    NameAcks,
    Named,
    Outcome,
    Prepare,
    RetireBranch,
    RevokeToken,
    StatusInfo,
    TokensPage,
    Txn,
    Vote,
)

__all__ = ["office"]

NONE_ANY_MORE = NameAcks(COORDINATOR_NAME, "", b"")


def all_register(office: Office) -> list[Effect]:
    """Both branches come to the successor; gives what was told to clients until all is at rest."""
    told: list[Effect] = []
    for name in office.branches:
        effects = office.send(office.registration(name), from_branch(name))
        told += office.until_told(effects)
    return told


def balances(office: Office) -> tuple[int, int]:
    """What was paid, as each branch has it."""
    for desk in office.branches.values():
        check_books(desk.branch)
    paid = [desk.branch.book.accounts["1"].balance_minor - 100_00 for desk in office.branches.values()]
    return -paid[0], paid[1]


def shown(state: CoordinatorState) -> dict[str, object]:
    """All that it knows but the epoch, and what a promotion changes."""
    return {
        "branches": state.branches,
        "tokens": state.tokens.by_id,
        "version": state.tokens.version,
        "keys": state.acts.keys,
        "former": state.former,
        "promotions": state.promotions,
        "retired": state.retired,
        "open": state.open,
        "number": state.number,
    }


@pytest.mark.parametrize("posted", [False, True])
def test_all_is_there(office: Office, posted: bool) -> None:
    for n in (1, 2):
        office.send(token(n))
    office.send(RevokeToken(id_of(901), "asha"))
    office.until_told(office.pay(1))
    office.decide(2)
    office.exchange()
    for _ in range(3):
        office.tick()
    if posted:
        office.standby.engine.post()
    before = shown(office.coordinator.coordinator)
    acts = office.coordinator.ask(GetActs(100))
    tokens = office.coordinator.ask(GetTokens(-1, 0))
    assert isinstance(acts, ActsPage)
    assert isinstance(tokens, TokensPage)
    before_word = office.coordinator.coordinator.acks[COORDINATOR_NAME]
    office.promote()
    state = office.coordinator.coordinator
    assert shown(state) == before
    assert office.coordinator.ask(GetTokens(-1, 0)) == tokens
    after = office.coordinator.ask(GetActs(100))
    assert isinstance(after, ActsPage)
    assert after.acts[1:] == acts.acts
    assert (after.acts[0].act, after.acts[0].by) == ("coordinator_promoted", "asha")
    leapt = EPOCH_LEAP * before_word.generation
    assert leapt < state.epoch <= leapt + 3
    word = state.acks[COORDINATOR_NAME]
    assert (word.replica, word.instance) == ("", b"")


def test_a_branch_that_was_retired_stays_so(office: Office, tmp_path: Path) -> None:
    office.branches["Pune"] = branch(tmp_path, name="Pune", clock=office.clock)
    office.register("Pune")
    office.until_told(office.tick())
    (told,) = office.until_told(office.send(RetireBranch("Pune", "asha")))
    assert isinstance(told.message, BranchRetired)
    office.promote()
    assert office.coordinator.coordinator.retired.keys() == {"Pune"}
    assert office.coordinator.coordinator.branches.keys() == {"Mumbai", "Delhi"}


@pytest.mark.parametrize("by", ["registering", "asking"])
def test_what_was_decided_is_done_once(office: Office, by: str) -> None:
    """Nobody has heard of it; the replica had its row."""
    office.decide(1)
    txn = office.coordinator.coordinator.open[id_of(1)].txn
    office.exchange()
    office.left.clear()  # lost with the machine
    office.promote()
    if by == "asking":
        (answer,) = office.send(Inquiry(txn, id_of(1)), from_branch("Mumbai"))
        assert isinstance(answer.message, Commit)
    (told,) = [*all_register(office), *office.until_told(office.pay(1))]
    assert isinstance(told.message, Outcome)
    assert told.message.status == "committed"
    (again,) = office.until_told(office.pay(1))
    assert isinstance(again.message, Outcome)
    assert balances(office) == (10, 10)
    for _ in range(3):
        office.sort(office.coordinator.tick(SECOND_US))
    assert office.coordinator.coordinator.open == {}


@pytest.mark.parametrize("decided", [False, True], ids=["undecided", "decided by the old one alone"])
def test_what_the_replica_had_not_is_aborted_and_can_be_asked_again(office: Office, decided: bool) -> None:
    asked = office.pay(1)
    txn = of_kind(Prepare, asked)[0][1].txn
    for name, message in of_kind(Prepare, asked):
        assert isinstance(name, str)
        votes = office.branches[name].turn((BOSS, 0, message))
        for vote in votes if decided else ():
            office.send(vote.message, from_branch(name))
    assert (id_of(1) in office.coordinator.coordinator.open) is decided
    office.on_the_way.clear()
    office.left.clear()
    office.promote()
    (answer,) = office.send(Inquiry(txn, id_of(1)), from_branch("Delhi"))
    assert answer.message == Abort(txn, id_of(1))
    assert all(id_of(1) in desk.branch.prepared for desk in office.branches.values())
    all_register(office)  # and ask at once about what is in doubt
    assert all(txn in desk.branch.tombstones and not desk.branch.prepared for desk in office.branches.values())
    assert balances(office) == (0, 0)
    (told,) = office.until_told(office.pay(1))
    assert isinstance(told.message, Outcome)
    assert told.message.status == "committed"
    assert balances(office) == (10, 10)


def test_the_id_can_be_asked_again_while_branches_are_in_doubt_of_it(office: Office) -> None:
    office.hear(office.pay(1))
    office.on_the_way.clear()
    office.promote()
    for name in office.branches:
        office.send(office.registration(name), from_branch(name))  # what it is told is lost
    (told,) = office.until_told(office.pay(1))
    assert isinstance(told.message, Outcome)
    assert told.message.status == "committed"
    assert balances(office) == (10, 10)


class TestTheOldOne:
    """It still runs, and does not know."""

    prepares: list[Effect]

    @property
    def txn(self) -> Txn:
        """Of the payment that it has asked for votes on."""
        return of_kind(Prepare, self.prepares)[0][1].txn

    @pytest.fixture
    def late(self, office: Office) -> Office:
        """It has decided a payment alone, and asked for votes on another; the branches are with the successor."""
        self.prepares = office.pay(2)
        office.decide(1)
        office.on_the_way.clear()
        office.left.clear()
        office.promote()
        all_register(office)
        assert office.zombie is not None
        office.zombie.tick(SILENT_US + 1)
        for name in office.branches:
            office.zombie.engine.machine.peer_down(name, office.clock.now())  # as the loop says of who was silent
        return office

    def test_its_late_prepare_is_stale_and_ends_it(self, late: Office) -> None:
        assert late.zombie is not None
        for name, message in of_kind(Prepare, self.prepares):
            assert isinstance(name, str)
            answers = late.branches[name].turn((BOSS, 0, message))
            ((_, vote),) = of_kind(Vote, answers)
            assert vote.answer == STALE
            with pytest.raises(FenceLost):
                late.zombie.turn((from_branch(name), 0, vote))

    @pytest.mark.parametrize("restarted", [False, True])
    def test_it_tells_nobody_anything(self, late: Office, restarted: bool) -> None:
        assert late.zombie is not None
        if restarted:
            late.zombie = late.zombie.restarted(late.zombie.wanted_acks)
        for _ in range(10):
            for message in (late.registration("Mumbai"), Inquiry(self.txn, id_of(2))):
                for effect in late.zombie.turn((from_branch("Mumbai"), 0, message)):
                    assert isinstance(effect.message, Fault)
            for effect in late.zombie.turn((CUSTOMER, 1, token(1))):
                assert code_of(effect.message) == "out_of_office"
            assert late.zombie.tick(SECOND_US) == []

    def test_none_any_more_is_refused_while_no_branch_is_there(self, late: Office) -> None:
        """They are with the successor, as far as it can know."""
        assert late.zombie is not None
        (answer,) = late.zombie.turn((ASHA, 1, NONE_ANY_MORE))
        assert code_of(answer.message) == "branches_away"
        assert late.zombie.tick(SECOND_US) == []

    @pytest.mark.parametrize("before", [False, True], ids=["comes after the word", "comes before the word"])
    def test_a_branch_that_knows_the_successor_ends_its_service(self, late: Office, before: bool) -> None:
        """Also when an operator lets it go on alone: what it decided is told to nobody."""
        zombie = late.zombie
        assert zombie is not None
        if before:
            told = zombie.turn((from_branch("Mumbai"), 0, late.registration("Mumbai")))
            assert [code_of(effect.message) for effect in told] == ["out_of_office"]
        else:
            zombie.engine.machine.directory.up.add("Pune")  # type: ignore[attr-defined]
        told = zombie.turn((ASHA, 1, NONE_ANY_MORE))
        if before:
            assert [code_of(effect.message) for effect in told] == ["out_of_office"]
        else:
            assert of_kind(Named, told)
        told = zombie.turn((from_branch("Mumbai"), 0, late.registration("Mumbai")))
        assert [code_of(effect.message) for effect in told] == ["out_of_office"]
        assert zombie.engine.has_stopped
        answers = zombie.turn((from_branch("Mumbai"), 0, Inquiry(self.txn, id_of(1))))
        assert [code_of(answer.message) for answer in answers] == ["out_of_office"]
        later = [effect for _ in range(5) for effect in zombie.tick(SECOND_US)]
        assert not of_kind(Commit, later)
        assert not of_kind(Outcome, later)
        (status,) = zombie.turn((CUSTOMER, 1, GetStatus()))
        assert isinstance(status.message, StatusInfo)
        assert any("another one took its place" in alarm for alarm in status.message.alarms)


def test_a_second_promotion_goes_on_from_the_first(office: Office) -> None:
    word = office.coordinator.coordinator.acks[COORDINATOR_NAME]
    office.promote()
    first = office.coordinator.coordinator
    assert first.took_over is not None
    assert (first.took_over.epoch, first.took_over.own_epoch) == (1, 1 + EPOCH_LEAP * word.generation), "later by a later word"
    assert first.acks[COORDINATOR_NAME] == AckedBy("", b"", office.coordinator.store.seq - 1)


FATES = st.lists(
    st.sampled_from(
        ["pay", "again", "lose", "exchange", "tick", "stop", "restart", "restart replica", "full", "branch hears", "inquire"]
    ),
    max_size=30,
)


@settings(max_examples=60)
@given(FATES)
def test_whenever_it_is_promoted_what_was_told_is_true(fates: list[str]) -> None:
    """Each payment ends the same at both branches, once, and as anybody was told by either coordinator."""
    with TemporaryDirectory() as folder, closing(opened(Path(folder))) as office:
        told: dict[bytes, str] = {}
        count = 0
        for fate in fates:
            before = len(office.left)
            if fate == "pay":
                count += 1
                office.pay(count)
            elif fate == "again" and count:
                office.pay(count)
            elif fate == "lose":
                office.on_the_way.clear()
            elif fate == "exchange":
                office.exchange()
            elif fate == "tick":
                office.tick(SECOND_US // 2)
            elif fate == "stop":
                office.alone(SILENT_US + 1)
            elif fate == "restart":
                office.coordinator = office.coordinator.restarted(office.coordinator.wanted_acks)
                for name in office.branches:
                    office.send(office.registration(name), from_branch(name))
            elif fate == "restart replica":
                office.standby = office.standby.restarted()
            elif fate == "full":
                office.standby.store.failures.append(StorageFull("no room"))
            elif fate == "inquire":
                inquire(office)
            if fate == "branch hears":
                office.hear(office.left[-6:])
            note(told, office.left[before:])
        late = office.replica_hears()  # its last words, which are on the way when it is promoted
        office.standby.store.failures.clear()
        office.promote()
        assert office.zombie is not None
        for message in late:
            left = office.zombie.turn((THE_STANDBY, 0, message))
            note(told, left)
            office.hear(left)
        note(told, all_register(office))
        for _ in range(2):
            inquire(office)
            for n in range(1, count + 1):
                note(told, office.until_told(office.pay(n)))
        assert set(told) == {id_of(n) for n in range(1, count + 1)}
        assert set(told.values()) <= {"committed"}
        assert balances(office) == (10 * count, 10 * count)


def note(told: dict[bytes, str], effects: list[Effect]) -> None:
    """What clients hear is final."""
    for effect in effects:
        if isinstance(effect.message, Outcome) and isinstance(effect.to, bytes):
            assert told.setdefault(effect.message.id, effect.message.status) == effect.message.status


def inquire(office: Office) -> None:
    """Branches ask about what is in doubt."""
    for name, desk in office.branches.items():
        for held in list(desk.branch.prepared.values()):
            office.hear(office.send(Inquiry(held.txn, held.id), from_branch(name)))
