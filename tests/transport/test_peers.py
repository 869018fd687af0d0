"""Sessions and who stands for whom, without sockets."""

from __future__ import annotations

import pytest

from zbank.protocol import messages
from zbank.protocol.messages import (
    BRANCH,
    CLIENT,
    COORDINATOR,
    PROTOCOL_VERSION,
    Fault,
    Hello,
    Welcome,
)
from zbank.transport import peers as peers_module
from zbank.transport.peers import SILENT_AFTER_US, Peers, Session

WELCOME = Welcome(PROTOCOL_VERSION, "demo", COORDINATOR, "coordinator", bytes(16), 1, "", "")


def make_peers(role: str = COORDINATOR) -> Peers:
    return Peers(role, "demo", lambda: WELCOME)


def hello(role: str = CLIENT, name: str = "", *, cluster: str = "demo", version: int = PROTOCOL_VERSION) -> Hello:
    return Hello(version, cluster, role, name)


def joined(peers: Peers, route: bytes, name: str, now_us: int = 0) -> Session:
    """A branch that has registered."""
    assert peers.hello(route, hello(BRANCH, name), now_us) is WELCOME
    session = peers.session(route, now_us)
    assert session is not None
    peers.bind(route, session)
    return session


@pytest.mark.parametrize(
    ("message", "code", "says"),
    [
        (hello(version=1), "wrong_version", f"version {PROTOCOL_VERSION}, the caller 1: install the same zbank on both sides"),
        (hello(cluster="prod"), "wrong_cluster", "'demo', the caller asks for 'prod': check the address"),
        (hello(COORDINATOR, "second"), "not_for_me", "no connection of role 'coordinator'"),
        (hello("auditor"), "not_for_me", "no connection of role 'auditor'"),
    ],
)
def test_a_hello_that_does_not_fit_is_told_why(message: Hello, code: str, says: str) -> None:
    peers = make_peers()
    answer = peers.hello(b"r", message, 0)
    assert isinstance(answer, Fault)
    assert answer.code == code
    assert says in answer.detail
    assert peers.session(b"r", 0) is None


def test_a_client_need_not_name_the_cluster_and_is_answered_by_its_connection() -> None:
    peers = make_peers()
    assert peers.hello(b"r", hello(CLIENT, "till 4", cluster=""), 0) is WELCOME
    session = peers.session(b"r", 0)
    assert session is not None
    assert session.sender == (b"r", CLIENT, "")
    assert peers.route("till 4") is None


def test_what_comes_before_hello_or_is_not_for_this_role_is_refused() -> None:
    peers = make_peers()
    vote = messages.Vote(messages.Txn("coordinator", 1, 1), bytes(16), "yes", 0, 0)
    assert peers.refusal(None, vote).code == "hello_first"
    peers.hello(b"r", hello(), 0)
    session = peers.session(b"r", 0)
    assert session is not None
    assert messages.Vote not in session.allowed
    assert peers.refusal(session, vote).detail == "a coordinator does not take Vote from a client"


def test_a_branch_may_say_nothing_but_register_until_it_is_registered() -> None:
    peers = make_peers()
    peers.hello(b"r", hello(BRANCH, "Mumbai"), 0)
    session = peers.session(b"r", 0)
    assert session is not None
    assert messages.Register in session.allowed
    assert messages.Vote not in session.allowed
    vote = messages.Vote(messages.Txn("coordinator", 1, 1), bytes(16), "yes", 0, 0)
    assert peers.refusal(session, vote).code == "hello_first"
    peers.bind(b"r", session)
    assert messages.Vote in session.allowed
    joined(peers, b"new", "Mumbai")
    assert messages.Vote not in session.allowed, "its branch speaks by another connection now"


def test_a_registered_connection_stands_for_its_branch_until_it_is_dropped() -> None:
    peers = make_peers()
    session = joined(peers, b"r", "Mumbai")
    assert session.sender == ("Mumbai", BRANCH, "Mumbai")
    assert peers.route("Mumbai") == b"r"
    assert peers.drop(b"r") == "Mumbai"
    assert (peers.route("Mumbai"), peers.session(b"r", 0), peers.drop(b"r")) == (None, None, None)


def test_the_newest_connection_of_a_branch_counts() -> None:
    peers = make_peers()
    joined(peers, b"old", "Mumbai")
    joined(peers, b"new", "Mumbai")
    assert peers.route("Mumbai") == b"new"
    assert peers.drop(b"old") is None, "the branch is not gone"
    assert peers.route("Mumbai") == b"new"


def test_a_late_register_of_an_older_connection_is_found_out_by_the_next_beat() -> None:
    """Else the branch would think that it is registered, and every message for it would go to a dead connection."""
    peers = make_peers()
    joined(peers, b"old", "Pune")
    session = joined(peers, b"new", "Pune")
    late = peers.session(b"old", 1)
    assert late is not None
    peers.bind(b"old", late)
    peers.drop(b"old")
    assert peers.route("Pune") is None
    assert messages.Beat not in session.allowed
    assert peers.refusal(session, messages.Beat(False)).code == "hello_first"
    joined(peers, b"new", "Pune")
    assert peers.route("Pune") == b"new"


def test_only_actors_are_watched_for_silence() -> None:
    peers = make_peers()
    joined(peers, b"r", "Mumbai")
    peers.hello(b"c", hello(), 0)
    assert peers.silent(SILENT_AFTER_US) == []
    assert peers.silent(SILENT_AFTER_US + 1) == [b"r"]
    peers.session(b"r", 5)
    assert peers.silent(SILENT_AFTER_US + 1) == []


@pytest.mark.parametrize("other", [hello(), hello(BRANCH, "Delhi")])
def test_a_connection_that_stands_for_a_branch_cannot_become_another(other: Hello) -> None:
    """Else the branch's name would lead to a session that is not there, and the next look for silence fail."""
    peers = make_peers()
    joined(peers, b"r", "Mumbai")
    answer = peers.hello(b"r", other, 0)
    assert isinstance(answer, Fault)
    assert answer.code == "not_for_me"
    assert peers.hello(b"r", hello(BRANCH, "Mumbai"), 0) is WELCOME, "the same again is a repeat"
    assert peers.drop(b"r") == "Mumbai"
    assert peers.silent(10 * SILENT_AFTER_US) == []


def test_the_longest_unheard_of_gives_way_when_there_are_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    """A flood of connections must not push out those that are at work, which came before it."""
    monkeypatch.setattr(peers_module, "MAX_SESSIONS", 3)
    peers = make_peers()
    joined(peers, b"branch", "Mumbai")
    for n in range(10):
        peers.hello(b"%d" % n, hello(), n)
        assert peers.session(b"branch", n) is not None
    assert peers.route("Mumbai") == b"branch"
    assert [peers.session(b"%d" % n, 10) is not None for n in range(10)] == [False] * 8 + [True] * 2
