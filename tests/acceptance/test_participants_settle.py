"""PROTOCOL P8 with real branches: the coordinator is gone for good, the participants settle among themselves what can be.

The coordinator is played by the test, so that it dies at exactly the moment that matters.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import zmq

from tests.acceptance.cluster import Cluster, wait_until
from zbank import Client
from zbank.domain.legs import Leg, content_digest
from zbank.ids import new_id
from zbank.protocol.codec import decode_batch, encode_batch
from zbank.protocol.messages import (
    COORDINATOR,
    PROTOCOL_VERSION,
    Ack,
    AnyMessage,
    Beat,
    BranchInfo,
    Commit,
    Fault,
    Hello,
    Prepare,
    Register,
    Registered,
    Transfer,
    Txn,
    Vote,
    Welcome,
)

NAME = "coordinator"
LIMIT_S = 30.0


class PlayedCoordinator:
    """A ROUTER that greets branches and sends what the test says."""

    def __init__(self, endpoint: str) -> None:
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._router = self._context.socket(zmq.ROUTER)
        self._router.linger = 500
        self._router.bind(endpoint)
        self.routes: dict[str, bytes] = {}
        self._names: dict[bytes, str] = {}  #: of all connections that branches registered by
        self.infos: dict[str, BranchInfo] = {}
        self.votes: dict[tuple[str, Txn], Vote] = {}
        self.acks: list[Ack] = []
        self._beats: set[str] = set()

    def serve_until(
        self, is_done: Callable[[], bool], what: str, again: tuple[tuple[str, AnyMessage], ...] = ()
    ) -> None:
        """Answer what comes until it is done; send `again` what is for a branch."""

        def serve() -> bool:
            for branch, message in again:
                self.send(branch, message)
            if self._router.poll(100):
                route, body = self._router.recv_multipart()
                for _, message in decode_batch(body):
                    self._take(route, message)
            return is_done()

        wait_until(serve, LIMIT_S, what)

    def serve_all(self) -> None:
        """Until both branches are registered."""
        self.serve_until(lambda: len(self.infos) == 2, "both branches registered")

    def _take(self, route: bytes, message: AnyMessage) -> None:
        match message:
            case Hello():
                self._send(route, Welcome(PROTOCOL_VERSION, "test", COORDINATOR, NAME, bytes(16), 1, "", ""))
            case Register():
                self.infos[message.info.name] = message.info
                self.routes[message.info.name] = route  # not at Hello: a branch may have given that connection up
                self._names[route] = message.info.name
                self._send(route, Registered(NAME, 1, tuple(self.infos.values())))
            case Beat(answer=False):
                self._send(route, Beat(True))
                self._beats.add(self._names.get(route, ""))
            case Vote():
                self.votes[self._names[route], message.txn] = message
            case Ack():
                self.acks.append(message)
            case _:
                pass

    def send(self, branch: str, message: AnyMessage) -> None:
        self._send(self.routes[branch], message)

    def tell(self, branch: str, message: AnyMessage) -> None:
        """Send it, and wait until it was read: who is asked to greet anew does so after that."""
        self._beats.discard(branch)
        self.serve_until(lambda: branch in self._beats, f"a beat of {branch}: no greeting of before is under way")
        del self.infos[branch]
        self.send(branch, message)
        self.send(branch, Fault("hello_first", "say Hello again"))
        self.serve_until(lambda: branch in self.infos, f"{branch} registered anew")

    def _send(self, route: bytes, message: AnyMessage) -> None:
        self._router.send_multipart((route, encode_batch([(0, message)])))

    def close(self) -> None:
        self._router.close()
        self._context.term()


@pytest.fixture
def branches(tmp_path: Path) -> Iterator[Cluster]:
    """Mumbai and Delhi, without their coordinator."""
    cluster = Cluster(tmp_path)
    try:
        yield cluster
    finally:
        cluster.close()


def prepare(n: int) -> Prepare:
    legs = (Leg("Mumbai", "1001", -5000), Leg("Delhi", "1002", 5000))
    transfer = Transfer(id=new_id(), legs=legs, currency="INR")
    return Prepare(Txn(NAME, 1, n), transfer, content_digest(legs, "INR", "", ""), "")


def seen(cluster: Cluster, account: str, message: Prepare) -> str:
    """What the account's branch alone says of the transfer."""
    with Client(cluster.endpoints[account.split("/")[0]], timeout_s=5) as client:
        return client.show(message.transfer.id, account=account).status


def balance(cluster: Cluster, account: str) -> str:
    with Client(cluster.endpoints[account.split("/")[0]], timeout_s=5) as client:
        return client.balance(account)


def test_a_branch_in_doubt_asks_the_others_when_the_coordinator_is_gone(branches: Cluster) -> None:
    """Committed at one participant: committed here. Never voted at one: void there, so aborted here. Else: wait."""
    coordinator = PlayedCoordinator(branches.endpoint)
    try:
        for name in branches.branches:
            branches.start(name)
        coordinator.serve_all()
        decided, halfway, undecided = prepare(1), prepare(2), prepare(3)
        to_both = [(name, message) for name in branches.branches for message in (decided, undecided)]
        sent = (*to_both, ("Delhi", halfway))  # of the last, Mumbai never hears
        coordinator.serve_until(lambda: len(coordinator.votes) == 5, "five votes", again=sent)
        assert {vote.answer for vote in coordinator.votes.values()} == {"yes"}
        commit = Commit(decided.txn, decided.transfer.id, 1)
        coordinator.serve_until(lambda: bool(coordinator.acks), "an ack", again=(("Mumbai", commit),))
    finally:
        coordinator.close()

    delhi, mumbai = "Delhi/1002", "Mumbai/1001"
    wait_until(lambda: seen(branches, delhi, decided) == "committed", LIMIT_S, "Delhi hearing of the commit from Mumbai")
    wait_until(lambda: seen(branches, delhi, halfway) == "unknown", LIMIT_S, "Delhi hearing that Mumbai never voted")
    assert balance(branches, delhi) == "5050.00"
    assert balance(branches, mumbai) == "9950.00"
    for account in (delhi, mumbai):  # all voted yes: only the coordinator can say, so both wait
        assert seen(branches, account, undecided) == "pending"
    at = branches.endpoints["Mumbai"]  # asked by hand it asks at once, and knows as little
    doubt = str(undecided.txn)
    wait_until(lambda: doubt in branches.cli("in-doubt", "list", endpoint=at).stdout, LIMIT_S, "a doubt that is listed")
    told = branches.cli("in-doubt", "inquire", doubt, endpoint=at)
    assert (told.returncode, told.stdout) == (0, f"Mumbai asks {NAME}, Delhi\n")
    assert seen(branches, mumbai, undecided) == "pending"
    settled = branches.cli("in-doubt", "inquire", str(decided.txn), endpoint=at)
    assert (settled.returncode, "not_in_doubt" in settled.stderr) == (1, True)
    assert branches.cli("in-doubt", "inquire", "nonsense", endpoint=at).returncode == 1
