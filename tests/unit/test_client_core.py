"""The client's core without a network: time is a number, the server is the test, and frames get lost, doubled, delayed."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from zbank.domain.legs import Leg
from zbank.errors import NoAnswer, RemoteFault, Unreachable
from zbank.protocol.messages import (
    AnyMessage,
    Beat,
    BranchInfo,
    Directory,
    Fault,
    GetDirectory,
    GetStatus,
    Hello,
    Outcome,
    StatusInfo,
    Transfer,
    Welcome,
)
from zbank.transport.client_core import ClientCore
from zbank.transport.client_joins import join_cancels, join_transfers
from zbank.transport.client_peer import CONNECT_US, Peer
from zbank.transport.client_request import THE_COORDINATOR, Ask, TransferWrite
from zbank.transport.views import TransferResult

S = 1_000_000
HOME = "tcp://127.0.0.1:9000"
THERE = "tcp://127.0.0.1:9101"
Frame = list[tuple[int, AnyMessage]]


def write(number: int = 1, target: str = "Mumbai", timeout_us: int = 10 * S) -> TransferWrite:
    """A transfer within a branch."""
    id = number.to_bytes(16, "big")
    legs = (Leg("Mumbai", "1", -1), Leg("Mumbai", "2", 1))
    return TransferWrite(target, id, Transfer(id, legs, "INR"), timeout_us)


def welcome(name: str = "Mumbai", role: str = "branch", coordinator: str = "") -> Welcome:
    """An answer to Hello."""
    return Welcome(1, "demo", role, name, b"i" * 16, 1, "INR" if role == "branch" else "", coordinator)


def sent(peer: Peer, now_us: int) -> Frame:
    """What leaves for the peer now."""
    envelopes, batch = peer.take()
    peer.sent(batch, now_us)
    return envelopes


def numbers(frame: Frame, kind: type) -> list[int]:
    """The numbers of the messages of one type."""
    return [n for n, message in frame if type(message) is kind]


def met(now_us: int = 0) -> tuple[ClientCore, Peer]:
    """A core that has met a lone branch."""
    core = ClientCore([HOME], "", "", now_us)
    peer = core.peers[HOME]
    (hello,) = numbers(sent(peer, now_us), Hello)
    core.on_frame(peer, [(hello, welcome())], now_us)
    return core, peer


def tell(core: ClientCore, contact: Peer, endpoint: str, now_us: int) -> None:
    """The coordinator answers, if it was asked: Mumbai is there."""
    for asked in numbers(sent(contact, now_us), GetDirectory):
        infos = (BranchInfo("Mumbai", endpoint, "INR", bytes(16), 1, up=True),)
        core.on_frame(contact, [(asked, Directory("coordinator", infos))], now_us)


def met_with(endpoint: str) -> tuple[ClientCore, Peer]:
    """A core that has met a coordinator, and has a request on its way to Mumbai, which is said to be there."""
    core = ClientCore([HOME], "", "", 0)
    contact = core.peers[HOME]
    (hello,) = numbers(sent(contact, 0), Hello)
    core.on_frame(contact, [(hello, welcome("coordinator", "coordinator"))], 0)
    core.submit(write(), 1)
    tell(core, contact, endpoint, 1)
    return core, contact


def test_never_connected_ends_as_unreachable_after_the_connect_limit() -> None:
    core = ClientCore([HOME], "", "", 0)
    request = write()
    core.submit(request, 0)
    core.on_time(CONNECT_US - 1)
    assert not request.future.done()
    core.on_time(CONNECT_US)
    assert isinstance(request.future.exception(0), Unreachable)
    assert core.requests == {}


def test_met_but_not_sent_waits_for_the_deadline_and_is_still_not_unknown() -> None:
    core, peer = met()
    request = write()
    core.submit(request, 0)
    _, batch = peer.take()
    peer.not_sent(batch)
    core.on_time(9 * S)
    assert not request.future.done()
    core.on_time(10 * S)
    assert isinstance(request.future.exception(0), Unreachable)


def test_resends_after_1_2_4_seconds_then_unknown() -> None:
    core, peer = met()
    request = write()
    core.submit(request, 0)
    times: list[int] = []
    now_us = 0
    while core.requests:
        if numbers(sent(peer, now_us), Transfer):
            times.append(now_us)
        assert core.next_due_us > now_us
        now_us = core.next_due_us
        core.on_time(now_us)
    assert [round(at_us / S, 1) for at_us in times] == [0, 1, 3, 7]
    assert now_us == 10 * S
    assert request.future.result(0).status == "unknown"


def test_a_silent_peer_is_pinged_and_a_lively_one_is_not() -> None:
    core, peer = met()
    core.submit(write(), 0)
    sent(peer, 0)
    core.on_time(S // 2)
    (ping,) = numbers(sent(peer, S // 2), Beat)
    core.on_frame(peer, [(ping, Beat(True))], S // 2 + 1)
    core.on_time(S - 1)
    assert numbers(sent(peer, S - 1), Beat) == []


def test_hello_first_is_answered_once_for_many_frames() -> None:
    core, peer = met()
    requests = [write(i) for i in range(3)]
    ns = []
    for at_us, request in enumerate(requests):
        core.submit(request, at_us)
        ns += numbers(sent(peer, at_us), Transfer)
    lost = Fault("hello_first", "")
    core.on_frame(peer, [(ns[0], lost)], 10)
    again = sent(peer, 10)
    assert type(again[0][1]) is Hello
    assert numbers(again, Transfer) == ns
    core.on_frame(peer, [(ns[1], lost), (ns[2], lost)], 11)  # answers to the frames before
    assert sent(peer, 11) == []
    core.on_frame(peer, [(again[0][0], welcome())], 12)
    answers: Frame = [
        (n, Outcome(one.id, "committed", None, 1, 1, False, True)) for n, one in zip(ns, requests, strict=True)
    ]
    core.on_frame(peer, answers, 13)
    assert {one.future.result(0).status for one in requests} == {"committed"}


def test_unknown_branch_needs_a_directory_younger_than_the_request() -> None:
    core = ClientCore([HOME], "", "", 0)
    peer = core.peers[HOME]
    (hello,) = numbers(sent(peer, 0), Hello)
    core.on_frame(peer, [(hello, welcome("main", "coordinator"))], 1)
    (first,) = numbers(sent(peer, 1), GetDirectory)
    core.on_frame(peer, [(first, Directory("main", ()))], 2)
    request = write()
    core.submit(request, 5)
    (second,) = numbers(sent(peer, 5), GetDirectory)
    info = BranchInfo("Mumbai", "tcp://127.0.0.1:9100", "INR", b"i" * 16, 1, True)
    core.on_frame(peer, [(second, Directory("main", (info,)))], 6)
    branch = core.peers[info.endpoint]
    assert [type(message) for _, message in sent(branch, 6)] == [Hello, Transfer]
    other = write(2, "Pune")
    core.submit(other, 7)
    (third,) = numbers(sent(peer, 7), GetDirectory)
    core.on_frame(peer, [(third, Directory("main", (info,)))], 8)
    error = other.future.exception(0)
    assert isinstance(error, RemoteFault)
    assert error.remote_code == "branch_not_found"


def test_who_answered_at_an_address_is_forgotten_with_the_connection() -> None:
    """A branch is lost, comes back there as a replica, is gone, and leads again: it is called by its new name from then on."""
    core, contact = met_with(THERE)
    there = core.peers[THERE]
    (hello,) = numbers(sent(there, 2), Hello)
    core.on_frame(there, [(hello, welcome("Mumbai-former", "replica"))], 3)
    tell(core, contact, "tcp://127.0.0.1:9102", 4)
    assert THERE not in core.peers
    again = write(2)
    core.submit(again, 5)
    elsewhere = core.peers["tcp://127.0.0.1:9102"]
    sent(elsewhere, 5)
    core.on_time(2 * S)  # silent: has it moved?
    tell(core, contact, THERE, 2 * S)
    assert not again.future.done()
    (hello,) = numbers(sent(core.peers[THERE], 2 * S), Hello)
    core.on_frame(core.peers[THERE], [(hello, welcome())], 2 * S + 1)
    assert again.peer is core.peers[THERE]


def test_a_replica_that_has_yet_to_hear_that_it_is_the_branch_is_waited_for() -> None:
    """The directory names it as soon as it is promoted. It is asked who it is again and again, but not all the time."""
    core, contact = met_with(THERE)
    there = core.peers[THERE]
    hellos, now_us = 0, 2
    while now_us < 9 * S:
        frame = sent(there, now_us)
        hellos += len(numbers(frame, Hello))
        answers: Frame = [(n, welcome("Mumbai-replica", "replica")) for n in numbers(frame, Hello)]
        answers += [(n, Fault("not_for_me", "a replica does not take Transfer")) for n in numbers(frame, Transfer)]
        core.on_frame(there, answers, now_us + 1)
        tell(core, contact, THERE, now_us + 2)
        now_us = max(core.next_due_us, now_us + S // 100)
        core.on_time(now_us)
    assert 9 <= hellos <= 20
    (request,) = core.requests.values()
    (hello,) = numbers(sent(there, now_us), Hello)
    core.on_frame(there, [(hello, welcome())], now_us)
    (asked,) = numbers(sent(there, now_us), Transfer)
    core.on_frame(there, [(asked, Outcome(write().id, "committed", None, 1, 1, False, True))], now_us)
    assert request.future.result(0).status == "committed"


def test_a_coordinator_that_gives_no_directory_ends_what_waits_for_it() -> None:
    core = ClientCore([HOME], "", "", 0)
    peer = core.peers[HOME]
    request = write()
    core.submit(request, 0)
    (hello,) = numbers(sent(peer, 0), Hello)
    core.on_frame(peer, [(hello, welcome("main", "coordinator"))], 1)
    (asked,) = numbers(sent(peer, 1), GetDirectory)
    core.on_frame(peer, [(asked, Fault("out_of_office", "restored, not reconciled"))], 2)
    assert isinstance(request.future.exception(0), RemoteFault)


def test_unanswered_read() -> None:
    core, peer = met()
    request = Ask("Mumbai", GetStatus(), S, (StatusInfo,), lambda answer: answer, NoAnswer)
    core.submit(request, 0)
    sent(peer, 0)
    core.on_time(S)
    assert isinstance(request.future.exception(0), NoAnswer)


def test_lone_branch_without_coordinator() -> None:
    core, _ = met()
    request = write(target=THE_COORDINATOR)
    core.submit(request, 0)
    assert isinstance(request.future.exception(0), Unreachable)


FATES = st.lists(st.sampled_from(["deliver", "lose", "double", "delay", "forget", "busy", "block"]), max_size=60)


@settings(max_examples=200, deadline=None)
@given(FATES, st.integers(1, 6))
def test_every_request_ends_once_and_truthfully(fates: list[str], count: int) -> None:
    """Whatever the network does, each write ends by its deadline; `committed` only if the server did it, and an error only
    if it surely did not."""
    core = ClientCore([HOME], "", "", 0)
    peer = core.peers[HOME]
    requests = [write(i) for i in range(count)]
    for request in requests:
        core.submit(request, 0)
    done: set[bytes] = set()
    session = False
    delayed: list[Frame] = []
    script = iter(fates)
    now_us = 0
    while core.requests:
        now_us = max(now_us + 1, min(core.next_due_us, now_us + S // 10))
        if now_us >= core.next_due_us:
            core.on_time(now_us)
        if peer.blocked:
            core.on_writable(peer, now_us)
        envelopes, batch = peer.take()
        fate = next(script, "lose")
        if fate == "block":
            peer.not_sent(batch)
            continue
        peer.sent(batch, now_us)
        session = session and fate != "forget"
        answers: Frame = []
        for n, message in envelopes if fate != "lose" else []:
            session = session or type(message) is Hello
            answers.append((n, _answer(message, session, fate == "busy", done)))
        if fate == "delay":
            delayed.append(answers)
            continue
        for frame in [answers, *(delayed if fate == "double" else []), *([answers] if fate == "double" else [])]:
            core.on_frame(peer, frame, now_us)
    for request in requests:
        error = request.future.exception(0)
        if error is None:
            status = request.future.result(0).status
            assert status == "unknown" or (status == "committed" and request.id in done)
        else:
            assert request.id not in done
    assert now_us <= 10 * S + S


def _answer(message: AnyMessage, session: bool, busy: bool, done: set[bytes]) -> AnyMessage:
    if not session:
        return Fault("hello_first", "")
    match message:
        case Hello():
            return welcome()
        case Transfer(id=id):
            if busy and id not in done:
                return Fault("busy", "", 50)
            done.add(id)
            return Outcome(id, "committed", None, 1, 1, False, True)
    return Beat(True)


def test_joins() -> None:
    id = b"i" * 16
    nobody = join_transfers(id, None, [], ["branch Delhi"])
    assert (nobody.status, nobody.reason) == ("unknown", "no answer from branch Delhi")
    results = [TransferResult("i", "aborted"), TransferResult("i", "committed")]
    assert join_cancels(id, results, ["branch Pune"]).status == "committed"
    assert join_cancels(id, results[:1], ["branch Pune"]).status == "unknown"
    assert join_cancels(id, results[:1], []).status == "aborted"
    assert join_cancels(id, [*results[:1], TransferResult("i", "pending")], []).status == "pending"
