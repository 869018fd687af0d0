"""The client's core when its contact may be at several places: the coordinator's, and that of a replica of it (PROTOCOL R3)."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.test_client_core import HOME, Frame, S, numbers, sent, write
from zbank.errors import RemoteFault, Unreachable
from zbank.protocol.messages import (
    AnyMessage,
    Beat,
    BranchInfo,
    Directory,
    Fault,
    GetDirectory,
    Hello,
    Outcome,
    Transfer,
    Welcome,
)
from zbank.transport.client_core import ClientCore
from zbank.transport.client_peer import CONNECT_US, REFRESH_US, Peer
from zbank.transport.client_request import THE_COORDINATOR, TransferWrite

STANDBY = "tcp://127.0.0.1:9010"
MUMBAI = "tcp://127.0.0.1:9100"
BRANCHES = Directory("coordinator", (BranchInfo("Mumbai", MUMBAI, "INR", b"i" * 16, 1, True),))
LEAP = 1_000_000
GONE = Fault("out_of_office", "its synchronous replica does not answer", 1000)


def coordinator(epoch: int = 1) -> Welcome:
    """What a coordinator answers."""
    return Welcome(1, "demo", "coordinator", "coordinator", b"c" * 16, epoch, "", "")


REPLICA = Welcome(1, "demo", "replica", "coordinator-standby", b"r" * 16, 1, "", HOME)


class Bank:
    """A core, the time, and what leaves it; the test answers."""

    def __init__(self, *places: str) -> None:
        self.now_us = 0
        self.core = ClientCore(places, "", "", 0)
        self.left: dict[str, Frame] = {}  #: by place: what has left, and was not looked at

    def peer(self, place: str) -> Peer:
        """The connection to a place."""
        return self.core.peers[place]

    def out(self, place: str) -> Frame:
        """What leaves for a place."""
        return [*self.left.pop(place, []), *sent(self.peer(place), self.now_us)]

    def say(self, place: str, n: int, message: AnyMessage) -> None:
        """An answer arrives."""
        self.core.on_frame(self.peer(place), [(n, message)], self.now_us)

    def greet(self, place: str, welcome: AnyMessage, directory: AnyMessage | None = BRANCHES) -> None:
        """The place answers the Hello that left, and the question for the directory if there is one."""
        self.say(place, numbers(self.out(place), Hello)[-1], welcome)
        if directory is not None and place in self.core.peers:
            frame = self.out(place)
            self.left[place] = [(n, message) for n, message in frame if not isinstance(message, GetDirectory)]
            for n in numbers(frame, GetDirectory):
                self.say(place, n, directory)

    def wait(self, seconds: float) -> None:
        """Time passes; nobody answers anything."""
        end_us = self.now_us + int(seconds * S)
        while self.now_us < end_us:
            self.now_us = min(max(self.core.next_due_us, self.now_us + 1), end_us)
            self.core.on_time(self.now_us)
            for place, peer in self.core.peers.items():
                if not peer.blocked:
                    self.left[place] = self.out(place)

    def ask(self, number: int = 1, target: str = THE_COORDINATOR, timeout_us: int = 10 * S) -> TransferWrite:
        """A transfer."""
        request = write(number, target, timeout_us)
        self.core.submit(request, self.now_us)
        return request

    def close(self, place: str) -> None:
        """The connection breaks: nothing can be sent there."""
        _, batch = self.peer(place).take()
        self.peer(place).not_sent(batch)


def outcome(request: TransferWrite) -> Outcome:
    """It is done."""
    return Outcome(request.id, "committed", None, 1, 1, False, True)


@pytest.fixture
def bank() -> Bank:
    """The coordinator is at the first place, an unpromoted replica at the second."""
    found = Bank(HOME, STANDBY)
    found.greet(STANDBY, REPLICA, None)
    found.greet(HOME, coordinator())
    return found


@pytest.mark.parametrize("order", [(HOME, STANDBY), (STANDBY, HOME)])
def test_both_places_are_asked_at_once_and_the_coordinator_is_chosen(order: tuple[str, str]) -> None:
    bank = Bank(HOME, STANDBY)
    request = bank.ask()
    for place in order:
        bank.greet(place, coordinator() if place == HOME else REPLICA)
    assert numbers(bank.out(HOME), Transfer) == [request.n]
    assert bank.out(STANDBY) == []


@pytest.mark.parametrize("order", [(HOME, STANDBY), (STANDBY, HOME)])
def test_of_two_coordinators_that_with_the_higher_epoch_is_chosen(order: tuple[str, str]) -> None:
    """The first one's place was taken; it still runs, and answers who greets it."""
    bank = Bank(HOME, STANDBY)
    request = bank.ask()
    for place in order:
        bank.greet(place, coordinator(1 if place == HOME else LEAP))
    bank.out(HOME)
    assert numbers(bank.out(STANDBY), Transfer) == [request.n]
    bank.say(STANDBY, request.n, outcome(request))
    assert request.future.result(0).status == "committed"


def test_a_place_where_nobody_is_delays_nobody() -> None:
    bank = Bank(HOME, STANDBY)
    request = bank.ask(timeout_us=S // 2)
    bank.close(HOME)
    bank.greet(STANDBY, coordinator(LEAP))
    assert numbers(bank.out(STANDBY), Transfer) == [request.n]
    assert bank.now_us == 0


def test_a_transfer_in_flight_goes_on_at_the_new_place_with_its_id(bank: Bank) -> None:
    request = bank.ask()
    (_,) = numbers(bank.out(HOME), Transfer)
    bank.wait(REFRESH_US / S + 0.6)
    bank.greet(STANDBY, REPLICA, None)  # not promoted yet
    assert not numbers(bank.out(STANDBY), Transfer)
    bank.wait(1.1)
    bank.greet(STANDBY, coordinator(LEAP))
    ((n, message),) = [(n, one) for n, one in bank.out(STANDBY) if isinstance(one, Transfer)]
    assert message.id == request.id
    assert bank.core.requests[n] is request
    assert bank.out(HOME) == [] or not numbers(bank.out(HOME), Transfer)
    bank.say(STANDBY, n, outcome(request))
    assert request.future.result(0).status == "committed"
    assert not bank.core.requests


def test_a_late_answer_of_the_old_place_does_not_count(bank: Bank) -> None:
    request = bank.ask()
    (before,) = numbers(bank.out(HOME), Transfer)
    bank.wait(1.6)
    bank.greet(STANDBY, coordinator(LEAP))
    (n,) = numbers(bank.out(STANDBY), Transfer)
    assert n != before
    bank.say(HOME, before, outcome(request))
    assert not request.future.done()


def test_a_coordinator_that_is_well_is_not_left(bank: Bank) -> None:
    """It is slow to answer a request, and lively."""
    request = bank.ask()
    for _ in range(20):
        bank.wait(0.3)
        for n in numbers(bank.out(HOME), Beat):
            bank.say(HOME, n, Beat(True))
    assert bank.out(STANDBY) == []
    assert not request.future.done()


def test_a_local_payment_is_left_alone_while_the_coordinator_is_away(bank: Bank) -> None:
    bank.ask(1)
    bank.out(HOME)
    local = bank.ask(2, "Mumbai")
    (hello, n) = (one[0] for one in bank.out(MUMBAI))
    bank.say(MUMBAI, hello, Welcome(1, "demo", "branch", "Mumbai", b"i" * 16, 1, "INR", HOME))
    bank.wait(1.6)
    bank.greet(STANDBY, REPLICA, None)
    bank.say(MUMBAI, n, outcome(local))
    assert local.future.result(0).status == "committed", "under the number that it was sent with"
    bank.out(MUMBAI)
    after = bank.ask(3, "Mumbai")
    assert numbers(bank.out(MUMBAI), Transfer) == [after.n]


def test_a_coordinator_that_became_a_replica_is_left_and_local_payments_go_on(bank: Bank) -> None:
    request = bank.ask()
    bank.out(HOME)
    bank.say(HOME, request.n, Fault("hello_first", ""))
    bank.greet(HOME, REPLICA, None)
    assert bank.core.routes.contact is None
    local = bank.ask(2, "Mumbai")
    assert numbers(bank.out(MUMBAI), Transfer) == [local.n]
    bank.wait(1.1)
    bank.greet(STANDBY, coordinator(LEAP))
    assert numbers(bank.out(STANDBY), Transfer) == [request.n]


def test_out_of_office_is_looked_for_elsewhere_and_then_final(bank: Bank) -> None:
    """Nobody leads: told as soon as that is known, as where there is one place."""
    request = bank.ask()
    (n,) = numbers(bank.out(HOME), Transfer)
    bank.now_us += 2 * S
    bank.say(HOME, n, GONE)
    bank.greet(STANDBY, REPLICA, None)
    bank.wait(0.9)
    assert not request.future.done()
    bank.wait(0.2)
    (n,) = numbers(bank.out(HOME), Transfer)
    bank.say(HOME, n, GONE)
    error = request.future.exception(0)
    assert isinstance(error, RemoteFault)
    assert (error.remote_code, error.retry_after_ms) == ("out_of_office", 1000)


def test_out_of_office_and_another_one_leads(bank: Bank) -> None:
    request = bank.ask()
    (n,) = numbers(bank.out(HOME), Transfer)
    bank.now_us += 2 * S
    bank.say(HOME, n, GONE)
    bank.greet(STANDBY, coordinator(LEAP))
    assert len(numbers(bank.out(STANDBY), Transfer)) == 1
    again = bank.ask(2)
    assert numbers(bank.out(STANDBY), Transfer) == [again.n]
    assert not numbers(bank.out(HOME), Transfer)
    assert not request.future.done()


def test_a_directory_that_is_refused_is_asked_of_who_leads() -> None:
    bank = Bank(HOME, STANDBY)
    request = bank.ask(target="Mumbai")
    bank.greet(HOME, coordinator(), GONE)
    assert not request.future.done()
    bank.greet(STANDBY, coordinator(LEAP))
    assert numbers(bank.out(MUMBAI), Transfer) == [request.n]


def test_a_directory_that_nobody_gives_is_told_as_it_was_refused() -> None:
    bank = Bank(HOME, STANDBY)
    request = bank.ask(target="Mumbai")
    bank.greet(HOME, coordinator(), GONE)
    bank.greet(STANDBY, REPLICA, None)
    bank.wait(1.6)
    assert not request.future.done()
    for n in numbers(bank.out(HOME), GetDirectory):
        bank.say(HOME, n, GONE)
    error = request.future.exception(0)
    assert isinstance(error, RemoteFault)
    assert error.remote_code == "out_of_office"


def test_nobody_anywhere_is_one_clear_error_in_bounded_time() -> None:
    bank = Bank(HOME, STANDBY)
    request = bank.ask(timeout_us=60 * S)
    bank.wait(CONNECT_US / S - 0.1)
    assert not request.future.done()
    bank.wait(0.1)
    error = request.future.exception(0)
    assert isinstance(error, Unreachable)
    assert error.detail.startswith(f"no answer from {HOME} or {STANDBY}: is the coordinator running there? Check the address")


def test_a_replica_alone_is_named_as_what_it_is() -> None:
    bank = Bank(HOME, STANDBY)
    request = bank.ask()
    bank.greet(STANDBY, REPLICA, None)
    bank.wait(CONNECT_US / S)
    error = request.future.exception(0)
    assert isinstance(error, Unreachable)
    told = f"no answer from {HOME} (at {STANDBY} is a replica of it, which was not promoted): is the coordinator running there?"
    assert error.detail.startswith(told)


@pytest.mark.parametrize("places", [1, 2])
def test_who_is_refused_everywhere_is_told_at_once(places: int) -> None:
    where = (HOME, STANDBY)[:places]
    bank = Bank(*where)
    request = bank.ask()
    for place in where:
        assert not request.future.done()
        bank.greet(place, Fault("wrong_cluster", "this is another bank"), None)
    error = request.future.exception(0)
    assert isinstance(error, RemoteFault)
    assert error.remote_code == "wrong_cluster"


@pytest.mark.parametrize("first", [HOME, STANDBY])
def test_who_is_refused_at_one_place_works_at_the_other(first: str) -> None:
    bank = Bank(HOME, STANDBY)
    request = bank.ask()
    other = STANDBY if first == HOME else HOME
    bank.greet(first, Fault("wrong_version", "older"), None)
    bank.greet(other, coordinator())
    assert numbers(bank.out(other), Transfer) == [request.n]


def test_who_is_refused_at_one_place_and_unheard_at_the_other_is_told_so() -> None:
    bank = Bank(HOME, STANDBY)
    request = bank.ask()
    bank.greet(HOME, Fault("wrong_version", "older"), None)
    bank.wait(CONNECT_US / S)
    error = request.future.exception(0)
    assert isinstance(error, RemoteFault)
    assert error.remote_code == "wrong_version"


def test_a_single_place_is_all_there_is() -> None:
    bank = Bank(HOME)
    bank.greet(HOME, coordinator(5))
    request = bank.ask(timeout_us=4 * S)
    bank.wait(4)
    assert set(bank.core.peers) == {HOME}
    assert request.future.result(0).status == "unknown"
    again = bank.ask(2)
    bank.out(HOME)
    bank.say(HOME, again.n, GONE)
    error = again.future.exception(0)
    assert isinstance(error, RemoteFault)
    assert error.remote_code == "out_of_office"


def test_a_branch_as_contact_is_asked_again_where_its_coordinator_is() -> None:
    bank = Bank(MUMBAI)
    (hello,) = numbers(bank.out(MUMBAI), Hello)
    bank.say(MUMBAI, hello, Welcome(1, "demo", "branch", "Mumbai", b"i" * 16, 1, "INR", HOME))
    request = bank.ask()
    bank.wait(1.6)
    hello = numbers(bank.out(MUMBAI), Hello)[-1]
    bank.say(MUMBAI, hello, Welcome(1, "demo", "branch", "Mumbai", b"i" * 16, 1, "INR", STANDBY))
    assert numbers(bank.out(STANDBY), Transfer) == [request.n]


FATES = st.lists(st.sampled_from(["answer", "lose", "promote", "stop", "back", "wait", "hang"]), max_size=40)


@settings(max_examples=200, deadline=None)
@given(FATES, st.integers(1, 4))
def test_whatever_happens_each_ends_once_and_truthfully(fates: list[str], count: int) -> None:
    """A coordinator stops, hangs, comes back as a zombie; the replica is promoted: `committed` is told by who leads alone."""
    bank = Bank(HOME, STANDBY)
    requests = [bank.ask(number) for number in range(count)]
    states = {HOME: "leads", STANDBY: "replica"}
    sessions: set[str] = set()
    done: set[bytes] = set()
    script = iter(fates)
    while bank.core.requests:
        fate = next(script, "answer")
        if fate == "promote" and states[STANDBY] == "replica":
            states = {HOME: "stopped" if states[HOME] == "leads" else states[HOME], STANDBY: "leads"}
            sessions.discard(STANDBY)
        elif fate in ("stop", "hang") and states[HOME] == "leads":
            states[HOME] = "stopped" if fate == "stop" else "silent"
        elif fate == "back" and states[HOME] in ("stopped", "silent"):
            states[HOME] = "leads" if states[STANDBY] == "replica" else "stopped"
        bank.wait(0.3)
        for place in (HOME, STANDBY):
            if place in bank.core.peers:
                frame = bank.out(place)
                for n, message in frame if fate != "lose" else []:
                    answer = _answer(message, place, states[place], sessions, done)
                    if answer is not None and place in bank.core.peers:
                        bank.say(place, n, answer)
    assert bank.now_us <= 11 * S
    for request in requests:
        error = request.future.exception(0)
        if error is None:
            status = request.future.result(0).status
            assert status == "unknown" or (status == "committed" and request.id in done)
        else:
            assert request.id not in done


def _answer(message: AnyMessage, place: str, state: str, sessions: set[str], done: set[bytes]) -> AnyMessage | None:
    if state == "silent":
        return None
    if isinstance(message, Hello):
        sessions.add(place)
        if state == "replica":
            return REPLICA
        return coordinator(LEAP if place == STANDBY else 1)
    if place not in sessions:
        return Fault("hello_first", "")
    match message:
        case Beat():
            return Beat(True)
        case GetDirectory():
            return BRANCHES if state == "leads" else GONE
        case Transfer(id=id) if state == "leads":
            done.add(id)
            return Outcome(id, "committed", None, 1, 1, False, True)
    return GONE
