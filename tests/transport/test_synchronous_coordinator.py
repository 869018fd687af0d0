"""A coordinator and its synchronous replica: what leaves the one by another way than a turn's effects (PROTOCOL R3)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import zmq

from tests.transport.actors import INSTANCE, Desk
from tests.transport.test_loop import ANY_PORT, Served
from tests.transport.test_synchronous import THE_ONE
from tests.unit.protocol_support import CUSTOMER, SECOND_US, from_branch, id_of, register
from zbank.protocol import gate
from zbank.protocol.gate import SILENT_US
from zbank.protocol.machine import Sender
from zbank.protocol.messages import (
    BRANCH,
    COORDINATOR,
    REPLICA,
    Fault,
    GetRows,
    Held,
    MakeToken,
    NameAcks,
    Promote,
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
    desk.turn((Sender(b"copy", REPLICA, OF_MUMBAI.name), 0, RegisterReplica(OF_MUMBAI)))
    desk.engine.machine.peer_down("Mumbai")
    acknowledge(desk)
    desk.turn((CUSTOMER, 1, Promote("Mumbai", OF_MUMBAI.name, OF_MUMBAI.instance)))
    former = coordinator.call(BRANCH, "Mumbai")
    former.send(register("Mumbai"))
    coordinator.turn(10)
    assert not former.socket.poll(50)
    coordinator.call(REPLICA, ITS.name).send(having_all(desk))
    told = [message for _, message in former.receive()]
    assert [message.code for message in told if isinstance(message, Fault)] == ["superseded"]
