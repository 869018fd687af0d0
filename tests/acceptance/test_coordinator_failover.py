"""The coordinator's machine is gone, or only seems so; its replica takes its place, and nothing that was told is lost
(PROTOCOL R3)."""

from __future__ import annotations

import signal
from collections.abc import Collection, Iterator
from pathlib import Path

import pytest

from tests.acceptance.cluster import wait_until
from tests.acceptance.load import ClusterLoad, own_status
from tests.acceptance.standby import FORMER, Office, RestByConfig
from zbank.apps.chaos.books import read_books
from zbank.apps.chaos.history import judge_answers, judge_books, unrest
from zbank.config import STANDBY_NAME
from zbank.errors import RemoteFault, ZbankError
from zbank.protocol.messages import StatusInfo

pytestmark = pytest.mark.timeout(180)


@pytest.fixture
def office(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Office]:
    """A bank that is open; with keys where the test says so."""
    found = Office(tmp_path, secure=getattr(request, "param", False))
    try:
        found.start_all()
        yield found
    finally:
        found.close()


ALONE = "no synchronous replica"


def check(office: Office, load: ClusterLoad, others: Collection[str] = ()) -> None:
    """What was told is what the books say, and nothing is left open: nothing in flight, none in doubt, clearing at zero. A
    coordinator that stands alone says so. `others`: ids of other payments."""
    load.settle()
    with office.client() as client:

        def is_at_rest() -> bool:
            return all(ALONE in reason for reason in unrest(client.status(), 1 + len(office.branches)))

        wait_until(is_at_rest, what="the bank is at rest")
        assert judge_books(load.history, read_books(client), others) == []
    assert judge_answers(load.history) == []
    assert {told.status for told in load.history.told.values()} == {"committed", "aborted"}


@pytest.mark.parametrize("office", [True], indirect=True, ids=["secure"])
def test_its_machine_is_lost_in_the_middle_of_a_load(office: Office) -> None:
    """The customers, who know both places, go on by themselves."""
    load = ClusterLoad(office, seed=11, timeout_s=5.0)
    try:
        load.wait_told(60)
        office.lose("coordinator", "coordinator")
        office.promote()
        load.wait_told(150)
        code, said, _ = office.zbank("acts")
        assert code == 0
        assert "coordinator promoted" in said
        office.start_replica(FORMER)
        office.name_acks(FORMER)
        load.wait_told(60)
        check(office, load)
    finally:
        load.close()
    office.verify(STANDBY_NAME, FORMER)


def test_one_that_only_seemed_lost_does_no_harm_and_follows_its_successor(office: Office) -> None:
    """It was paused, and wakes when another one leads; then it is begun anew as a replica, and leads again after that one."""
    bridge = RestByConfig(office)
    load = ClusterLoad(office, seed=12, timeout_s=5.0)
    try:
        load.wait_told(60)
        office.send_signal("coordinator", signal.SIGSTOP)
        office.promote()
        load.wait_told(60)
        wait_until(bridge.is_ready, what="the bridge is ready again")
        office.wait_open()
        office.send_signal("coordinator", signal.SIGCONT)
        asked = what_the_old_one_says(office)
        load.wait_told(60)
        wait_until(lambda: bridge.pay("1", "after-the-promotion").status == 201, what="a payment by the bridge")
        paid = bridge.pay("1", "after-the-promotion")
        assert paid.is_replayed
        with office.at(office.standby) as client:
            wait_until(lambda: all(info.up for info in client.branches()), what="both branches with the new one")
        assert own_status(office, "Mumbai").epoch == 1, "nobody was started again"

        office.lose("coordinator", "coordinator")
        office.start_replica(FORMER)
        office.name_acks(FORMER)
        office.lose(STANDBY_NAME, STANDBY_NAME)
        office.promote()
        load.wait_told(60)
        office.wait_open()
        wait_until(bridge.is_ready, what="the bridge is ready again")
        with office.client() as client:
            again = [client.transfer("Mumbai/1001", "Delhi/1002", "1", id=id) for id in asked]
        assert {one.status for one in again} == {"committed"}, "asked again, it is done once"
        check(office, load, [paid.json["id"], *(one.id for one in again)])
    finally:
        load.close()
        bridge.close()
    office.verify(FORMER)


def what_the_old_one_says(office: Office) -> list[str]:
    """Somebody who knows its place alone asks it, until it says that it is out of office; gives the ids. No outcome is told."""
    asked: list[str] = []
    with office.at(office.endpoint, timeout_s=1.0) as client:

        def is_out_of_office() -> bool:
            asked.append(f"asked of the old one {len(asked)}")
            try:
                result = client.transfer("Mumbai/1001", "Delhi/1002", "1", id=asked[-1])
            except RemoteFault as error:
                return error.remote_code == "out_of_office"
            except ZbankError:
                return False
            assert result.status == "unknown", result
            return False

        wait_until(is_out_of_office, what="the old one is out of office")
        assert own_status_at(office, office.endpoint).stopped
        office.name_acks("none")  # of the successor, which stands alone anyway
        refused = office.cli("acks", "coordinator", "none", endpoint=office.endpoint)
        assert refused.returncode == 1
        assert "branches_away" in refused.stderr
    return asked


def own_status_at(office: Office, place: str) -> StatusInfo:
    """What the actor at this place says of itself."""
    with office.at(place) as client:
        return client.contact_status()


def test_without_its_replica_it_stops_and_local_payments_go_on(office: Office) -> None:
    with office.client() as client:
        assert client.transfer("Mumbai/1001", "Delhi/1001", "1").status == "committed"
        office.send_signal(STANDBY_NAME, signal.SIGSTOP)

        def has_stopped() -> bool:
            told = own_status(office, "coordinator")
            return told.stopped and "standby does not answer" in "".join(told.alarms)

        wait_until(has_stopped, what="it has stopped")
        with pytest.raises(RemoteFault) as refused:
            client.transfer("Mumbai/1001", "Delhi/1001", "2", id="while it is stopped")
        assert refused.value.remote_code == "out_of_office"
        assert client.transfer("Mumbai/1001", "Mumbai/1002", "3").status == "committed"
        assert client.deposit("Delhi/1001", "4").status == "committed"
        code, said, _ = office.zbank("status")
        assert "STOPPED" in said
        assert "its synchronous replica coordinator-standby does not answer" in said
        assert code == 0
        office.send_signal(STANDBY_NAME, signal.SIGCONT)

        def goes_on() -> bool:
            try:
                return client.transfer("Mumbai/1001", "Delhi/1001", "2", id="while it is stopped").status == "committed"
            except RemoteFault as error:
                if error.remote_code not in ("out_of_office", "branch_unavailable", "busy"):
                    raise
                return False

        wait_until(goes_on, what="it goes on")
        assert client.balance("Delhi/1001") == "10007.00"
        assert client.balance("Mumbai/1001") == "9994.00"
        said = office.zbank("status")[1]
        assert "alarm" not in said


def test_an_operator_lets_it_go_on_alone(office: Office) -> None:
    """Its replica dies under payments. What it had decided by then is told once its branches have heard of the word."""
    with office.client(timeout_s=1.0) as client:
        office.send_signal(STANDBY_NAME, signal.SIGSTOP)
        ids = [f"while it dies {n}" for n in range(20)]
        asked = [client.submit_transfer("Mumbai/1001", "Delhi/1001", "1", id=id) for id in ids]
        office.kill(STANDBY_NAME)
        wait_until(lambda: own_status(office, "coordinator").stopped, what="it has stopped")
        told = [one.result() for one in asked if one.done() and one.exception() is None]
        assert "committed" not in {result.status for result in told}

    def goes_on() -> bool:
        code, _, complaint = office.zbank("acks", "coordinator", "none")
        assert code == 0 or "branches_away" in complaint, complaint
        return code == 0

    wait_until(goes_on, what="the word is taken")
    with office.client(timeout_s=20.0) as client:
        ends = {client.transfer("Mumbai/1001", "Delhi/1001", "1", id=id).status for id in ids}
        assert ends == {"committed"}
        assert client.balance("Delhi/1001") == "10020.00"
        assert client.balance("Mumbai/1001") == "9980.00"
