"""Nothing leaves a coordinator before its synchronous replica has the row, and that one says when it leads (PROTOCOL R3)."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from tests.transport.actors import INSTANCE
from tests.transport.office import ASHA, PROMOTE, THE_STANDBY, Office, office
from tests.unit.protocol_support import BOSS, CUSTOMER, SECOND_US, from_branch, id_of, of_kind, txn_of
from zbank.config import COORDINATOR_NAME, STANDBY_NAME
from zbank.errors import StorageFull
from zbank.protocol.following import TakesOver
from zbank.protocol.gate import SILENT_US
from zbank.protocol.machine import EPOCH_LEAP, Effect, Sender
from zbank.protocol.messages import (
    REPLICA,
    AckedBy,
    ActsPage,
    AnyMessage,
    Commit,
    Directory,
    Fault,
    GetAccount,
    GetActs,
    GetDirectory,
    GetRows,
    GetStatus,
    GetTokens,
    GetTransfer,
    Held,
    Inquiry,
    MakeToken,
    NameAcks,
    Named,
    Outcome,
    Prepare,
    Promote,
    Promoting,
    Registered,
    RegisterReplica,
    ReplicaInfo,
    Rows,
    StatusInfo,
    StillPending,
    TokenInfo,
    TokensPage,
    TransferInfo,
)

__all__ = ["office"]

OF_MUMBAI = ReplicaInfo("copy", "Mumbai", "tcp://127.0.0.1:9200", id_of(77), 1, 8, 0, 100_000)
SECOND = ReplicaInfo("coordinator-2", COORDINATOR_NAME, "tcp://127.0.0.1:9020", id_of(78), 1, 3, 0, 100_000)


def token(n: int) -> MakeToken:
    """The n-th token."""
    return MakeToken(id_of(900 + n), "", "ops", "operator", (), bytes([n] * 32), 0)


def test_the_replica_gets_in_although_all_else_waits(tmp_path: Path) -> None:
    with closing(Office(tmp_path)) as office:
        office.register("Mumbai")
        assert [code_of(effect.message) for effect in office.left] == ["out_of_office"]
        registered = office.standby_registration()
        assert office.send(registered, THE_STANDBY) == []
        assert [type(effect.message) for effect in office.on_the_way] == [Registered]
        office.exchange()
        for _ in range(4):
            office.tick()
        assert office.coordinator.coordinator.acks[COORDINATOR_NAME].instance == INSTANCE
        assert office.register("Mumbai") == [], "nobody has all rows before the replica"
        office.tick()
        assert {to for to, _ in of_kind(Registered, office.left)} == {"Mumbai"}
        assert office.standby.store.journal() == office.coordinator.store.journal()


def decided(office: Office) -> list[Effect]:
    office.hear(office.pay(1))
    return office.left[2:]  # after the Prepares


def prepared(office: Office) -> list[Effect]:
    office.send(token(1))
    return office.pay(1)


def outcome(office: Office) -> list[Effect]:
    office.until_told(office.pay(1))
    office.left.clear()
    office.send(token(1))
    return office.pay(1)  # asked again


def after_a_row(message: AnyMessage, sender: Sender = CUSTOMER) -> Callable[[Office], list[Effect]]:
    """An answer that changes nothing by itself."""

    def act(office: Office) -> list[Effect]:
        office.send(token(1))
        return office.send(message, sender)

    return act


def promoting(office: Office) -> list[Effect]:
    office.send(RegisterReplica(OF_MUMBAI), Sender(b"copy", REPLICA, OF_MUMBAI.name))
    office.coordinator.engine.machine.peer_down("Mumbai", office.clock.now())
    office.left.clear()
    return office.send(Promote("Mumbai", OF_MUMBAI.name, OF_MUMBAI.instance))


def named(office: Office) -> list[Effect]:
    office.send(RegisterReplica(OF_MUMBAI), Sender(b"copy", REPLICA, OF_MUMBAI.name))
    office.left.clear()
    return office.send(NameAcks("Mumbai", OF_MUMBAI.name, OF_MUMBAI.instance))


#: what leaves, and what is done for that to leave
LEAVING: list[tuple[type[AnyMessage], Callable[[Office], list[Effect]]]] = [
    (Prepare, prepared),
    (Commit, decided),
    (Outcome, outcome),
    (TokenInfo, lambda office: office.send(token(1))),
    (TokensPage, after_a_row(GetTokens(-1, 0))),
    (ActsPage, after_a_row(GetActs(10))),
    (Directory, after_a_row(GetDirectory())),
    (TransferInfo, after_a_row(GetTransfer(id_of(1)))),
    (Registered, lambda office: office.send(token(1)) + office.register("Mumbai")),
    (Registered, after_a_row(RegisterReplica(OF_MUMBAI), Sender(b"copy", REPLICA, OF_MUMBAI.name))),
    (StillPending, after_a_row(Inquiry(txn_of(9, epoch=9), id_of(9)), from_branch("Mumbai"))),
    (Promoting, promoting),
    (Named, named),
]


@pytest.mark.parametrize(("kind", "act"), LEAVING, ids=[kind.__name__ for kind, _ in LEAVING])
def test_nothing_leaves_before_the_replica_has_the_row(
    office: Office, kind: type[AnyMessage], act: Callable[[Office], list[Effect]]
) -> None:
    for _ in range(5):  # a coordinator promotes nobody in its first moments
        office.tick(SECOND_US)
    assert act(office) == []
    assert office.standby.store.seq < office.coordinator.store.seq
    waited = [*office.exchange(), *office.tick(SECOND_US)]
    assert kind in [type(effect.message) for effect in waited]
    assert office.standby.store.seq == office.coordinator.store.seq


def test_a_payment_goes_through_both(office: Office) -> None:
    (told,) = office.until_told(office.pay(1))
    assert isinstance(told.message, Outcome)
    assert told.message.status == "committed"
    for desk, minor in ((office.branches["Mumbai"], -10), (office.branches["Delhi"], 10)):
        assert desk.branch.book.accounts["1"].balance_minor == 100_00 + minor


class TestWithoutTheReplica:
    """It is silent: the coordinator has stopped."""

    @pytest.fixture
    def stopped(self, office: Office) -> Office:
        """The replica is not heard of any more."""
        office.alone(SILENT_US + 1)
        office.left.clear()
        return office

    def test_requests_are_refused_and_its_status_says_why(self, stopped: Office) -> None:
        for message in (token(1), GetDirectory(), GetTokens(-1, 0), GetTransfer(id_of(1))):
            (answer,) = (effect.message for effect in stopped.send(message))
            assert isinstance(answer, Fault)
            assert (answer.code, answer.retry_after_ms) == ("out_of_office", 1000)
        (answer,) = (effect.message for effect in stopped.pay(1))
        assert isinstance(answer, Fault)
        assert answer.code == "out_of_office"
        (status,) = (effect.message for effect in stopped.send(GetStatus()))
        assert isinstance(status, StatusInfo)
        (alarm,) = status.alarms
        assert "its synchronous replica coordinator-standby does not answer" in alarm
        assert "If it took this one's place, stop this one" in alarm

    def test_a_branch_that_comes_is_sent_elsewhere_and_so_are_replicas_of_branches(self, stopped: Office) -> None:
        senders = {from_branch("Mumbai"): stopped.registration("Mumbai")}
        senders[Sender(b"copy", REPLICA, OF_MUMBAI.name)] = RegisterReplica(OF_MUMBAI)  # type: ignore[assignment]
        for sender, message in senders.items():
            (answer,) = stopped.send(message, sender)
            assert answer.to == sender.address
            assert isinstance(answer.message, Fault)
            assert answer.message.code == "out_of_office"
        assert stopped.coordinator.engine.has_stopped

    def test_a_branch_that_was_sent_elsewhere_does_not_hear_the_news(self, tmp_path: Path) -> None:
        """It would believe that it is registered, and never be."""
        with closing(Office(tmp_path)) as office:
            office.register("Mumbai")
            office.left.clear()
            office.join_standby()  # all who are there hear of that word
            assert office.coordinator.coordinator.acks
            assert of_kind(Registered, office.left) == []
            assert office.coordinator.coordinator.branches == {}

    def test_nothing_is_sent_again_for_nobody(self, office: Office) -> None:
        """What could not leave would only gather, for as long as it lasts."""
        office.decide(1)
        office.on_the_way.clear()
        before = office.coordinator.store.seq
        for _ in range(100):
            assert office.alone(SECOND_US) == []
        assert office.coordinator.store.seq == before
        left = of_kind(Commit, office.tick(SECOND_US))
        assert len(left) <= 2 * (1 + SILENT_US // SECOND_US), "as often as before it stopped"

    def test_it_goes_on_by_itself_when_the_replica_is_back(self, office: Office) -> None:
        office.decide(1)
        office.on_the_way.clear()
        office.alone(SILENT_US + 1)
        assert office.coordinator.engine.has_stopped
        (told,) = office.until_told(office.tick(SECOND_US))
        assert isinstance(told.message, Outcome)
        office.tick()
        assert not office.coordinator.engine.has_stopped
        (again,) = office.until_told(office.pay(2))
        assert isinstance(again.message, Outcome)

    def test_an_operator_may_do_without_it_or_name_another(self, stopped: Office) -> None:
        """Branches come again and again, so it is known that no replica has taken this one's place."""
        left = stopped.send(NameAcks(COORDINATOR_NAME, "", b""), ASHA)
        assert of_kind(Named, left)
        for name in stopped.branches:  # it hears of that, and tells that it has
            stopped.register(name)
            stopped.register(name)
        (told,) = stopped.until_told(stopped.pay(1))
        assert isinstance(told.message, Outcome)
        second = Sender(b"second", REPLICA, SECOND.name)
        stopped.send(RegisterReplica(SECOND), second)
        assert stopped.send(NameAcks(COORDINATOR_NAME, SECOND.name, SECOND.instance), ASHA) == []
        word = stopped.coordinator.coordinator.acks[COORDINATOR_NAME]
        assert word == AckedBy(SECOND.name, SECOND.instance, stopped.coordinator.store.seq)


class TestPromotion:
    """An operator asks the replica itself."""

    def test_not_while_the_coordinator_was_heard_of_a_moment_ago(self, office: Office) -> None:
        assert code_of(office.ask_standby(PROMOTE)) == "coordinator_up"
        office.standby.tick(SILENT_US)
        assert code_of(office.ask_standby(PROMOTE)) == "coordinator_up"
        office.standby.tick(1)
        assert isinstance(office.ask_standby(PROMOTE), Promoting)

    def test_not_a_moment_after_its_own_start(self, office: Office) -> None:
        """The coordinator may be there and not have answered yet."""
        office.standby.tick(60 * SECOND_US)
        office.standby = office.standby.restarted()
        for after_us in (0, SILENT_US):
            office.standby.tick(after_us)
            assert code_of(office.ask_standby(PROMOTE)) == "coordinator_up"
        office.standby.tick(1)
        assert isinstance(office.ask_standby(PROMOTE), Promoting)

    @pytest.mark.parametrize("word", ["none yet", "none any more", "another"])
    def test_not_unless_it_is_the_synchronous_one_by_its_own_rows(self, tmp_path: Path, word: str) -> None:
        with closing(Office(tmp_path, wanted_acks="" if word == "none yet" else STANDBY_NAME)) as office:
            office.join_standby()
            if word == "none any more":
                office.send(NameAcks(COORDINATOR_NAME, "", b""))
            elif word == "another":
                office.send(RegisterReplica(SECOND), Sender(b"second", REPLICA, SECOND.name))
                office.exchange()
                office.send(NameAcks(COORDINATOR_NAME, SECOND.name, SECOND.instance))
                office.standby.tick(0)
                office.send(GetRows(office.standby.store.seq, 10), THE_STANDBY)
                have_acked(office)
            for _ in range(3):
                office.tick()
            office.standby.tick(60 * SECOND_US)
            assert code_of(office.ask_standby(PROMOTE)) == "not_synchronous"

    @pytest.mark.parametrize(
        "message",
        [
            Promote(COORDINATOR_NAME, STANDBY_NAME, id_of(5)),
            Promote("Mumbai", STANDBY_NAME, INSTANCE),
        ],
    )
    def test_not_who_is_not_meant(self, office: Office, message: Promote) -> None:
        office.standby.tick(60 * SECOND_US)
        assert code_of(office.ask_standby(message)) == "not_for_me"

    def test_not_without_the_key_of_the_coordinator(self, office: Office) -> None:
        office.standby = office.standby.restarted()
        office.standby.can_lead = False
        office.standby.store.failures.append(StorageFull("no room"))
        office.send(token(1))
        office.exchange()  # its machine is built anew
        office.standby.tick(60 * SECOND_US)
        office.standby.tick(60 * SECOND_US)
        told = office.ask_standby(PROMOTE)
        assert code_of(told) == "cannot_lead"
        assert isinstance(told, Fault)
        assert "copy coordinator.secret" in told.detail

    def test_what_it_says_of_the_coordinator(self, office: Office) -> None:
        office.standby.turn((BOSS, 0, Rows(office.standby.store.seq, bytes(32), (), 1, 99)))
        office.standby.tick(60 * SECOND_US)
        office.standby.tick(60 * SECOND_US)
        alarms = office.standby.engine.machine.alarms
        assert alarms["diverged"].startswith(f"row {office.standby.store.seq} of the coordinator is another one than here")
        assert alarms["silent"] == "the coordinator is silent: what is shown here grows old"

    def test_questions_are_sent_to_the_coordinator(self, office: Office) -> None:
        told = office.ask_standby(GetAccount("1"), CUSTOMER)
        assert code_of(told) == "not_for_me"
        (status,) = (effect.message for effect in office.standby.turn((CUSTOMER, 1, GetStatus())) if effect.n)
        assert isinstance(status, StatusInfo)
        assert (status.role, status.name, status.accounts) == (REPLICA, STANDBY_NAME, -1)
        assert status.acks is not None
        assert status.acks.instance == INSTANCE

    @pytest.mark.parametrize("thrown_away", [False, True])
    def test_from_then_on_it_takes_no_row_and_acknowledges_none(self, office: Office, thrown_away: bool) -> None:
        office.send(token(1))
        (rows,) = office.on_the_way
        assert isinstance(rows.message, Rows)
        assert rows.message.rows
        before = office.standby.store.seq
        if thrown_away:  # for want of room, in the very turn
            office.standby.tick(SILENT_US + 1)
            assert isinstance(office.ask_standby(PROMOTE), Promoting)
            engine = office.standby.engine
            engine.machine = engine._recover(engine.machine)
        else:
            office.standby.tick(SILENT_US + 1)
            assert isinstance(office.ask_standby(PROMOTE), Promoting)
        assert office.standby.turn((BOSS, 0, rows.message), (BOSS, 0, Registered(COORDINATOR_NAME, 1, ()))) == []
        assert office.standby.store.seq == before
        assert isinstance(office.ask_standby(PROMOTE), Promoting), "asked again"
        with pytest.raises(TakesOver) as raised:
            office.standby.tick(0)
        assert raised.value.epoch == 1 + EPOCH_LEAP * office.coordinator.coordinator.acks[COORDINATOR_NAME].generation
        assert raised.value.by == "asha"

    def test_a_promotion_in_the_same_turn_as_rows_is_refused(self, office: Office) -> None:
        """They were on their way: the coordinator is there."""
        office.send(token(1))
        (rows,) = office.on_the_way
        office.standby.tick(60 * SECOND_US)
        effects = office.standby.turn((BOSS, 0, rows.message), (ASHA, 1, PROMOTE))
        assert [code_of(effect.message) for effect in effects if effect.n] == ["coordinator_up"]


def have_acked(office: Office) -> None:
    """As if another replica had all: what waits may leave, and others may have it."""
    store = office.coordinator.store
    held = Held(SECOND.instance, store.seq, store.chain)
    office.send(GetRows(store.seq, 10, held), Sender(b"second", REPLICA, SECOND.name))
    office.exchange()


def code_of(message: AnyMessage) -> str:
    """Of a fault."""
    assert isinstance(message, Fault), message
    return message.code
