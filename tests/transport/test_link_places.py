"""An actor's connection to its coordinator, which may be at either of two places (PROTOCOL R3)."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import suppress

import pytest
import zmq

from tests.transport.test_links import MUMBAI, Far
from zbank.protocol.messages import COORDINATOR, REPLICA, Beat, Fault, Hello, Register, Registered
from zbank.transport.links import (
    BEAT_EVERY_US,
    GREET_EVERY_US,
    REGISTERING,
    SILENT_AFTER_US,
    TRY_US,
    UP,
    Link,
    branch_hello,
)
from zbank.transport.sockets import Dialer

GONE = Fault("out_of_office", "coordinator has stopped", 1000)


class TwoPlaces:
    """A link that was told of the first place, and knows of the second one."""

    def __init__(self) -> None:
        self.first, self.second = Far(COORDINATOR), Far(COORDINATOR)
        for far in (self.first, self.second):
            far.link.close()
        where = [self.second.endpoint]
        register = lambda _name: Register(MUMBAI, 0, 0)  # noqa: E731
        self.link = Link(
            Dialer(self.first.context), self.first.endpoint, branch_hello("demo", "Mumbai"), COORDINATOR, register,
            announced=lambda: where,
        )  # fmt: skip
        self.first.link = self.second.link = self.link
        self.now_us = 10_000_000
        self.link.tick(self.now_us)

    def pass_time(self, us: int) -> bool:
        """Time passes at once; True when the link just went down."""
        self.now_us += us
        self.first.now_us = self.second.now_us = self.now_us
        return self.link.tick(self.now_us)

    def take(self, far: Far, kind: type) -> None:
        """The next message of a kind arrives there."""
        far.now_us = self.now_us
        while not isinstance(far.hear(), kind):
            pass
        self.now_us = max(self.now_us, far.now_us)

    def greet(self, far: Far, role: str = COORDINATOR, name: str = "coordinator") -> None:
        """The next Hello there is answered; not one of a connection from before."""
        while True:
            self.take(far, Hello)
            with suppress(zmq.ZMQError):
                far.say(far.welcome(role, name))
                return

    def refuse(self, far: Far) -> None:
        """It greets, and has stopped."""
        self.greet(far)
        self.take(far, Register)
        far.say(GONE)

    def serve(self, far: Far) -> None:
        """The coordinator is there, and takes it in."""
        self.greet(far)
        self.take(far, Register)
        far.say(Registered("coordinator", 1, (MUMBAI,)))
        assert (self.link.state, self.link.endpoint) == (UP, far.endpoint)

    def close(self) -> None:
        self.link.close()
        for far in (self.first, self.second):
            far.router.close(linger=0)
            far.context.term()


@pytest.fixture
def places(caplog: pytest.LogCaptureFixture) -> Iterator[TwoPlaces]:
    caplog.set_level(logging.INFO, "zbank")
    found = TwoPlaces()
    yield found
    found.close()


def test_who_falls_silent_is_looked_for_at_the_other_place(places: TwoPlaces) -> None:
    places.serve(places.first)
    assert not places.pass_time(SILENT_AFTER_US)
    assert places.pass_time(1), "it just went down"
    places.serve(places.second)
    assert places.pass_time(SILENT_AFTER_US + 1)
    places.serve(places.first)


def test_who_greets_and_takes_nobody_in_is_left(places: TwoPlaces) -> None:
    """It has stopped: it answers Hello, and nothing that it says can leave."""
    while places.link.endpoint == places.first.endpoint:
        places.greet(places.first)
        places.take(places.first, Register)
        assert places.link.state == REGISTERING
        places.pass_time(GREET_EVERY_US)
    assert places.now_us - 10_000_000 <= TRY_US + 2 * GREET_EVERY_US
    places.serve(places.second)


def test_who_does_not_answer_beats_is_left(places: TwoPlaces) -> None:
    """As a coordinator that has stopped does to who was there before."""
    places.serve(places.first)
    went_down = [places.pass_time(BEAT_EVERY_US) for _ in range(SILENT_AFTER_US // BEAT_EVERY_US + 1)]
    assert went_down[-1]
    assert places.link.endpoint == places.second.endpoint


def test_who_refuses_what_it_took_before_is_left(places: TwoPlaces) -> None:
    """As a coordinator that has stopped does to replicas of branches, which tell it where they stand each second."""
    places.serve(places.first)
    began_us = places.now_us
    while places.link.endpoint == places.first.endpoint:
        places.first.say(GONE)
        assert places.link.state == REGISTERING
        went_down = places.pass_time(TRY_US // 2)
    assert went_down, "it is told once it is looked for elsewhere"
    assert places.now_us - began_us <= 2 * TRY_US
    places.serve(places.second)


def test_who_is_well_is_not_left(places: TwoPlaces) -> None:
    places.serve(places.first)
    for _ in range(10):
        assert not places.pass_time(SILENT_AFTER_US - 1_000_000)
        places.first.say(Beat(True))
    assert places.link.endpoint == places.first.endpoint


def test_a_replica_is_said_once_and_left(places: TwoPlaces, caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(3):
        places.pass_time(SILENT_AFTER_US + 1)
        places.greet(places.second, REPLICA, "coordinator-standby")
        assert places.link.endpoint == places.second.endpoint
        places.pass_time(TRY_US // 2 + 1)
        assert places.link.endpoint == places.first.endpoint, "nothing is waited for there"
    where = places.first.endpoint
    assert caplog.messages == [
        f"coordinator-standby at {places.second.endpoint} is a replica: it has not taken the place of the coordinator",
        f"no answer from {where} (at {places.second.endpoint} is a replica of it, which was not promoted): "
        "is the coordinator running there? If so, check the address, the port and the firewall",
    ]
    assert places.link.complaint == caplog.messages[1]
    places.serve(places.first)
    assert places.link.complaint == ""


def test_out_of_office_for_a_moment_is_nothing_to_complain_of(places: TwoPlaces, caplog: pytest.LogCaptureFixture) -> None:
    """As at a start: the coordinator waits for its replica, and the branch was faster."""
    places.refuse(places.first)
    places.pass_time(GREET_EVERY_US)
    places.serve(places.first)
    assert [record.levelname for record in caplog.records] == ["INFO"]


@pytest.mark.parametrize("count", [1, 2])
def test_out_of_office_at_all_places_is_said_once(
    places: TwoPlaces, caplog: pytest.LogCaptureFixture, count: int
) -> None:
    if count == 1:
        places.link._announced = None
    for _ in range(9):
        if places.link.endpoint == places.first.endpoint:
            places.refuse(places.first)
        else:
            places.greet(places.second, REPLICA, "coordinator-standby")
        places.pass_time(GREET_EVERY_US)
    assert f"{places.first.endpoint}: out_of_office: coordinator has stopped" in caplog.messages
    assert len([record for record in caplog.records if record.levelno >= logging.ERROR]) == 1


def test_where_there_is_one_place_a_replica_there_is_a_mistake(places: TwoPlaces) -> None:
    places.link._announced = None
    places.greet(places.first, REPLICA, "coordinator-standby")
    assert places.link.complaint == f"a replica answers at {places.first.endpoint}, not a coordinator: check the address"


def test_where_the_other_place_is_this_one_it_is_not_begun_anew(places: TwoPlaces) -> None:
    """As where the network announces what was told: it is only slow to take this one in."""
    places.link._announced = lambda: [places.first.endpoint]
    places.greet(places.first)
    places.take(places.first, Register)
    socket = places.link.socket
    places.pass_time(TRY_US + 1)
    assert places.link.socket is socket
