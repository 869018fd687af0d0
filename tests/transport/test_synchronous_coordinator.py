"""A coordinator and its synchronous replica: what leaves the one by another way than a turn's effects (PROTOCOL R3)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import zmq

from tests.transport.actors import INSTANCE, Desk
from tests.transport.test_loop import ANY_PORT, LIMIT_MS, MOST_TURNS, Served
from tests.transport.test_synchronous import THE_ONE
from tests.unit.protocol_support import CUSTOMER, SECOND_US, from_branch, id_of, register
from zbank.protocol import gate
from zbank.protocol.gate import SILENT_US
from zbank.protocol.machine import Sender
from zbank.protocol.messages import (
    BRANCH,
    CLIENT,
    COORDINATOR,
    REPLICA,
    Beat,
    Fault,
    GetRows,
    Held,
    MakeToken,
    NameAcks,
    Promote,
    Registered,
    RegisterReplica,
    ReplicaInfo,
)
from zbank.transport.sockets import make_router

ITS = ReplicaInfo("replica", "coordinator", "tcp://127.0.0.1:9010", INSTANCE, 1, 0, 0, 0)
OF_MUMBAI = ReplicaInfo("Mumbai-replica", "Mumbai", "tcp://127.0.0.1:9200", id_of(77), 1, 8, 0, 100_000)


@pytest.fixture
def context() -> Iterator[zmq.Context[zmq.Socket[bytes]]]:
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    yield context
    context.term()


@pytest.fixture
def coordinator(tmp_path: Path, context: zmq.Context[zmq.Socket[bytes]]) -> Iterator[Served]:
    """A coordinator with Mumbai, and a synchronous replica that has all so far."""
    desk = Desk(COORDINATOR, "coordinator", tmp_path)
    desk.turn((from_branch("Mumbai"), 0, register("Mumbai")))
    desk.turn((THE_ONE, 0, RegisterReplica(ITS)))
    desk.turn((CUSTOMER, 1, NameAcks("coordinator", ITS.name, ITS.instance)))
    acknowledge(desk)
    served = Served(desk, context, make_router(context, ANY_PORT))
    yield served
    served.close()


def having_all(desk: Desk) -> GetRows:
    """What the replica says when it has all rows."""
    held = Held(INSTANCE, desk.store.seq, desk.store.chain, desk.clock.now().mono_us)
    return GetRows(desk.store.seq, 10, held)


def acknowledge(desk: Desk) -> None:
    """Let out what waits."""
    desk.turn((THE_ONE, 0, having_all(desk)))


def hears_of_mumbai(coordinator: Served) -> None:
    """Its registration arrives."""
    for _ in range(MOST_TURNS):
        if coordinator.peers.route("Mumbai") is not None:
            return
        coordinator.turn(advance_us=0)
    pytest.fail("no registration came")


def test_who_is_busy_has_not_stopped(coordinator: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """Branches would look for another coordinator."""
    monkeypatch.setattr(gate, "MAX_WAITING", 20)
    desk = coordinator.desk
    for n in range(100, 130):
        sent = desk.turn((CUSTOMER, n, MakeToken(id_of(n), "", "ops", "operator", (), bytes(32), 0)))
    (effect,) = sent
    assert isinstance(effect.message, Fault)
    assert effect.message.code == "busy"
    assert not desk.engine.has_stopped
    desk.tick(SILENT_US + 1)
    assert desk.engine.has_stopped


def test_a_branch_is_told_that_another_took_its_place_once_that_is_on_both_disks(coordinator: Served) -> None:
    """It never serves its data again when it has heard that: were the row lost, nobody would be that branch."""
    desk = coordinator.desk
    desk.tick(60 * SECOND_US)
    acknowledge(desk)
    desk.turn((Sender(b"copy", REPLICA, OF_MUMBAI.name), 0, RegisterReplica(OF_MUMBAI)))
    desk.engine.machine.peer_down("Mumbai", desk.clock.now())
    desk.turn((CUSTOMER, 1, Promote("Mumbai", OF_MUMBAI.name, OF_MUMBAI.instance)))
    former = coordinator.call(BRANCH, "Mumbai")
    former.send(register("Mumbai"))
    coordinator.turn(10)
    assert not former.socket.poll(50)
    coordinator.call(REPLICA, ITS.name).send(having_all(desk))
    told = [message for _, message in former.receive()]
    assert [message.code for message in told if isinstance(message, Fault)] == ["superseded"]


@pytest.mark.parametrize("why", ["stopped", "behind"])
def test_who_serves_nothing_answers_no_beats_of_actors_so_that_they_look_elsewhere(coordinator: Served, why: str) -> None:
    desk = coordinator.desk
    there = {role: coordinator.call(role, name) for role, name in ((BRANCH, "Mumbai"), (REPLICA, "copy"), (CLIENT, ""))}
    there[BRANCH].send(register("Mumbai"))
    hears_of_mumbai(coordinator)
    acknowledge(desk)
    assert isinstance(there[BRANCH].receive()[0][1], Registered)
    for one in there.values():
        assert one.ask(Beat(False)) == [Beat(True)]
    if why == "stopped":
        coordinator.turn(5, advance_us=SILENT_US // 4)
    else:
        desk.turn((from_branch("Delhi"), 0, register("Delhi", coordinator_epoch=99)))
    coordinator.turn(2)
    assert desk.engine.has_stopped
    assert Beat(True) in there[CLIENT].ask(Beat(False))
    for one in (there[BRANCH], there[REPLICA]):
        one.send(Beat(False))
        coordinator.turn(5)
        answers = [message for _, message in one.receive()] if one.socket.poll(20) else []
        assert Beat(True) not in answers
    if why == "stopped":
        acknowledge(desk)
        coordinator.turn(2, advance_us=SECOND_US // 2)
        assert there[REPLICA].ask(Beat(False)) == [Beat(True)]


def test_who_slept_longer_than_others_wait_believes_nothing_that_was_said_before(coordinator: Served) -> None:
    """A branch and the replica spoke, then it slept: they may be with a successor by now, so it does not go on alone."""
    desk = coordinator.desk
    mumbai = coordinator.call(BRANCH, "Mumbai")
    mumbai.send(register("Mumbai"))
    hears_of_mumbai(coordinator)
    acknowledge(desk)
    assert isinstance(mumbai.receive()[0][1], Registered)
    assert coordinator.coordinator.directory.up == {"Mumbai"}
    mumbai.send(Beat(False))
    coordinator.call(REPLICA, ITS.name).send(having_all(desk))
    assert coordinator.router.poll(LIMIT_MS)
    coordinator.turn(3, advance_us=SILENT_US + 1)
    assert coordinator.coordinator.directory.up == set()
    assert coordinator.peers.route("Mumbai") is None
    answers = desk.turn((CUSTOMER, 1, NameAcks("coordinator", "", b"")))
    assert [answer.message.code for answer in answers if isinstance(answer.message, Fault)] == ["branches_away"]
    codes: list[str] = []
    while "hello_first" not in codes:
        mumbai.send(Beat(False))
        codes += [message.code for _, message in mumbai.receive() if isinstance(message, Fault)]
