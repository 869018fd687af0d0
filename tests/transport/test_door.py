"""The door of an actor over real sockets: who gets in, who is put out, and that nothing anybody sends can stop it."""

from __future__ import annotations

import socket
import sys
from contextlib import closing
from datetime import timedelta

import pytest
import zmq

from tests.acceptance.cluster import wait_until
from tests.transport.behind_a_door import LIMIT_MS, Server, Socket, operator
from zbank.apps import keymaking
from zbank.transport import door as door_module
from zbank.transport import sockets
from zbank.transport.door import Door, DoorFailed
from zbank.transport.keyfolder import Keys
from zbank.transport.keys import new_pair
from zbank.transport.sockets import Dialer, lets_strangers_in, listen_anew, make_dealer, make_router

on_linux = pytest.mark.skipif(sys.platform != "linux", reason="NOT TESTED: the kernel's count of bytes is Linux's alone")
# --- keys -------------------------------------------------------------------------------------------------------------


def test_a_listed_key_gets_in_and_is_known(locked: Server) -> None:
    with closing(locked.dealer(operator(locked))) as dealer:
        frame = locked.hears(dealer)
        assert frame is not None
        assert frame.get("User-Id") == operator(locked).public


def test_nobody_else_gets_in(locked: Server) -> None:
    for pair, server in ((new_pair(), None), (None, ""), (operator(locked), new_pair().public)):
        with closing(locked.dealer(pair, server)) as dealer:
            assert locked.hears(dealer, limit_ms=300) is None


def test_a_plain_password_gets_nobody_in(locked: Server) -> None:
    dealer = locked.context.socket(zmq.DEALER)
    with closing(dealer):
        dealer.linger = 0
        dealer.plain_username, dealer.plain_password = b"operator", b"operator"
        dealer.connect(locked.endpoint)
        dealer.send(b"hello")
        assert not locked.router.poll(300)


def test_a_key_that_is_over_gets_nobody_in(locked: Server) -> None:
    assert locked.keys is not None
    pair = operator(locked)
    keymaking.revoke(locked.keys.folder, "operator")
    locked.keys.refresh()
    with closing(locked.dealer(pair)) as dealer:
        assert locked.hears(dealer, limit_ms=300) is None


def test_a_key_that_is_shut_out_gets_in_after_a_while(locked: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sockets, "HANDSHAKE_MS", 1_000)  # so long who is told "not now" waits before it tries again
    locked.door.shut_out(operator(locked).public)
    with closing(locked.dealer(operator(locked))) as dealer:
        assert not dealer.poll(200, zmq.POLLOUT)
        monkeypatch.setattr(door_module, "SHUT_OUT_S", 0.3)
        locked.door.shut_out(operator(locked).public)  # the latest word counts: there is not so much time in a test
        assert locked.hears(dealer) is not None, "it goes on trying by itself"


def test_a_question_that_makes_no_sense_is_answered_no_and_the_next_one_is_answered(locked: Server) -> None:
    """What libzmq asks could be asked by anything in this process, in any form."""
    asker = locked.context.socket(zmq.DEALER)
    with closing(asker):
        asker.linger = 0
        asker.connect(door_module.ZAP_ADDRESS)
        good = [b"1.0", b"7", b"zbank", b"127.0.0.1", b"", b"CURVE", bytes(32)]
        asked: list[list[bytes]] = [
            [],
            [b""],
            [b"1.0", b"7"],
            good[:-1],
            [*good, b"more"],
            [b"9.9", *good[1:]],
            [*good[:2], b"other", *good[3:]],
            [*good[:5], b"NULL"],
            [*good[:5], b"PLAIN", b"a", b"b"],
            [*good[:-1], b"short"],
            [*good[:3], b"\xff\xfe", *good[4:]],
            [bytes(1_000)] * 50,
        ]
        for request in asked:
            asker.send_multipart([b"", *request])
        asker.send_multipart([b"", *good])
        told = []
        for _ in [*filter(lambda request: len(request) >= 2, asked), good]:  # of the others it is not known which question
            assert asker.poll(LIMIT_MS), "it answers"
            told.append(asker.recv_multipart())
        assert not asker.poll(50)
        assert {answer[3] for answer in told} == {b"400"}
        assert {answer[5] for answer in told} == {b""}, "nobody is named"
    locked.door.check()
    with closing(locked.dealer(operator(locked))) as dealer:
        assert locked.hears(dealer) is not None


def test_an_error_within_means_no_and_does_not_end_the_door(
    locked: Server, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(_public: str) -> None:
        raise RuntimeError("the list is on fire")

    with monkeypatch.context() as broken:
        broken.setattr(locked.keys, "good", fails)
        with closing(locked.dealer(operator(locked))) as dealer:
            assert locked.hears(dealer, limit_ms=300) is None
            wait_until(lambda: "nobody may" in caplog.text, what="the line that says so")
    locked.door.check()
    with closing(locked.dealer(operator(locked))) as dealer:
        assert locked.hears(dealer) is not None


def test_a_door_that_has_failed_says_so(free: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(_self: Door) -> None:
        raise RuntimeError("no more")

    monkeypatch.setattr(Door, "_on_event", fails)
    free.tcp().close()
    wait_until(lambda: not free.door._thread.is_alive(), what="the end of the door's thread")
    with pytest.raises(DoorFailed):
        free.door.check()


def test_without_anybody_at_the_door_no_key_gets_in_at_all(keys: Keys) -> None:
    context: zmq.Context[Socket] = zmq.Context()
    try:
        router = make_router(context, "tcp://127.0.0.1:*", keys.pair)
        endpoint = router.getsockopt_string(zmq.LAST_ENDPOINT)
        with closing(make_dealer(context, endpoint, Keys(keys.folder, "operator").pair, keys.pair.public)) as dealer:
            assert not dealer.poll(300, zmq.POLLOUT)
    finally:
        context.destroy(linger=0)


# --- the probe ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def patient_probe(monkeypatch: pytest.MonkeyPatch) -> None:
    """It waits for who answers, however slow that is."""
    monkeypatch.setattr(sockets, "PROBE_MS", LIMIT_MS)


@pytest.mark.usefixtures("patient_probe")
def test_the_probe_is_content_with_a_locked_door(locked: Server, keys: Keys) -> None:
    assert lets_strangers_in(locked.context, locked.endpoint, keys.pair.public) == ""


@pytest.mark.usefixtures("patient_probe")
def test_the_probe_finds_a_door_without_a_lock(keys: Keys) -> None:
    """CURVE alone lets any key in; a forgotten CURVE server lets everybody in."""
    context: zmq.Context[Socket] = zmq.Context()
    try:
        unasked = context.socket(zmq.ROUTER)
        unasked.curve_server, unasked.curve_secretkey = True, keys.pair.secret.encode()
        unasked.bind("tcp://127.0.0.1:*")
        endpoint = unasked.getsockopt_string(zmq.LAST_ENDPOINT)
        assert lets_strangers_in(context, endpoint, keys.pair.public) == "a key that is not listed was let in"
        plain = make_router(context, "tcp://127.0.0.1:*")
        endpoint = plain.getsockopt_string(zmq.LAST_ENDPOINT)
        assert lets_strangers_in(context, endpoint, keys.pair.public) == "no key was let in"
    finally:
        context.destroy(linger=0)


def test_the_probe_that_hears_nothing_does_not_believe(keys: Keys, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sockets, "PROBE_MS", 100)
    context: zmq.Context[Socket] = zmq.Context()
    try:
        with socket.create_server(("127.0.0.1", 0)) as silent:
            endpoint = f"tcp://127.0.0.1:{silent.getsockname()[1]}"
            assert "could not be found out" in lets_strangers_in(context, endpoint, keys.pair.public)
    finally:
        context.destroy(linger=0)


# --- two keys for a while -------------------------------------------------------------------------------------------------


def gets_in(locked: Server, caller: Dialer, role: str = "", name: str = "") -> None:
    """By the key that answers. It is found in one dial where that is quick; who found none dials anew, as when it is lost."""

    def is_heard() -> bool:
        dealer = caller.dealer(locked.endpoint, role, name)
        heard = locked.hears(dealer, limit_ms=500)
        caller.close(dealer)
        return heard is not None

    wait_until(is_heard, what="a connection by the key that answers")


def test_a_caller_sees_that_a_connection_was_lost_and_finds_the_servers_new_key(locked: Server) -> None:
    assert locked.keys is not None
    folder = locked.keys.folder
    caller = Dialer(locked.context, Keys(folder, "operator"))
    before = caller.dealer(locked.endpoint, "branch", "Mumbai")
    assert locked.hears(before) is not None
    assert not caller.is_lost(before)
    keymaking.rotate(folder, "Mumbai", timedelta(days=1))
    locked.keys.refresh()
    stood = locked.door.connections()
    listen_anew(locked.router, locked.keys.pair)
    for connection in stood:
        locked.door.put_out(connection)
    wait_until(lambda: caller.is_lost(before), what="the end of the connection to the old key")
    caller.close(before)
    gets_in(locked, caller, "branch", "Mumbai")


def test_who_must_not_wait_tries_one_key_after_the_other(locked: Server) -> None:
    assert locked.keys is not None
    folder = locked.keys.folder
    keymaking.rotate(folder, "Mumbai", timedelta(days=1))
    caller = Dialer(locked.context, Keys(folder, "operator"), may_wait=False)
    poller = zmq.Poller()
    both = [caller.dealer(locked.endpoint, "branch", "Mumbai") for _ in range(2)]
    for dealer in both:
        poller.register(dealer, zmq.POLLOUT)
    ((good, _),) = poller.poll(LIMIT_MS)
    assert locked.hears(good) is not None
    for dealer in both:
        if dealer is not good:
            assert locked.hears(dealer, limit_ms=300) is None
        caller.close(dealer)


def test_a_caller_finds_which_of_two_keys_answers(locked: Server) -> None:
    """Before a server has taken over its new key, and after."""
    assert locked.keys is not None
    folder = locked.keys.folder
    keymaking.rotate(folder, "Mumbai", timedelta(days=1))
    caller = Dialer(locked.context, Keys(folder, "operator"))
    gets_in(locked, caller, "branch", "Mumbai")
    locked.keys.refresh()
    listen_anew(locked.router, locked.keys.pair)
    gets_in(locked, caller, "branch", "Mumbai")
    gets_in(locked, caller)  # also where it is not known who answers there


def test_who_has_no_key_of_the_server_talks_to_nobody(locked: Server) -> None:
    assert locked.keys is not None
    caller = Dialer(locked.context, Keys(locked.keys.folder, "operator"))
    dealer = caller.dealer(locked.endpoint, "branch", "Delhi")
    assert locked.hears(dealer, limit_ms=300) is None
    caller.close(dealer)
