"""The bridge while things break: actors that die or stand still, itself killed, slow and endless clients, its own end."""

from __future__ import annotations

import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.cluster import Cluster, wait_until
from tests.acceptance.rest import LOST, Rest, Stream, Told

MAX_STREAMS = 16
ACTORS = ("coordinator", "Delhi", "Mumbai")


@pytest.fixture
def rest(cluster: Cluster) -> Iterator[Rest]:
    bridge = Rest(cluster)
    yield bridge
    bridge.close()


def pay_until_told(rest: Rest, key: str) -> Told:
    """Ask with one key until there is an outcome."""
    told: list[Told] = []

    def is_told() -> bool:
        try:
            told.append(rest.pay("1", key))
        except LOST:
            return False
        return told[-1].status in (201, 422)

    wait_until(is_told, limit_s=40, what=f"an outcome of {key}")
    return told[-1]


def test_whoever_dies_the_same_key_pays_once(rest: Rest) -> None:
    cluster = rest.cluster
    keys = [f"through-deaths-{n}" for n in range(12)]
    for n, key in enumerate(keys):
        victim = ("coordinator", "Delhi", "Mumbai", "bridge")[n % 4]
        payer = threading.Thread(target=_ask_once, args=(rest, key))
        payer.start()
        if victim == "bridge":
            rest.process.kill()
            rest.process.communicate()
            rest.start()
        else:
            cluster.kill(victim)
            cluster.start(victim)
        payer.join()
    cluster.wait_registered()
    told = [pay_until_told(rest, key) for key in keys]
    assert {one.status for one in told} == {201}
    assert rest.balance("Mumbai/1001") == "9988.00"
    assert rest.balance("Delhi/1002") == "5012.00"


def _ask_once(rest: Rest, key: str) -> None:
    with suppress(*LOST):  # the bridge was killed while it was asked
        rest.pay("1", key)


def test_a_branch_that_is_away_is_no_outcome(rest: Rest) -> None:
    rest.cluster.kill("Delhi")
    wait_until(lambda: rest.pay("1", "away").code == "branch_unavailable", what="a clear word about Delhi")
    away = rest.pay("1", "away")
    assert (away.status, int(away.headers["retry-after"]) >= 1) == (503, True)
    ready = rest.get("/readyz")
    assert (ready.status, list(ready.json["down"])) == (503, ["Delhi"])
    assert rest.get("/healthz").status == 200
    assert rest.pay("1", "local", to="Mumbai/1002").status == 201
    listed = rest.get("/v1/transfers").json
    assert [down["name"] for down in listed["missing"]] == ["Delhi"]
    assert [actor["up"] for actor in rest.get("/v1/cluster").json["actors"]].count(False) == 1
    rest.cluster.start("Delhi")
    rest.cluster.wait_registered()
    assert pay_until_told(rest, "away").status == 201


def test_an_unknown_outcome_is_told_as_such_and_later_truly(rest: Rest) -> None:
    rest.cluster.send_signal("coordinator", signal.SIGSTOP)
    try:
        unknown = rest.pay("1", "stopped")
        assert unknown.status == 202
        assert unknown.json["status"] in ("unknown", "pending")
        where = unknown.headers["location"]
        assert rest.pay("1", "meanwhile", to="Mumbai/1002").status == 201, "a branch works on"
    finally:
        rest.cluster.send_signal("coordinator", signal.SIGCONT)
    rest.cluster.wait_registered()
    told = pay_until_told(rest, "stopped")
    assert (told.status, told.headers["location"]) == (201, where)
    assert rest.get(where).json["status"] == "committed"
    assert rest.balance("Mumbai/1001") == "9998.00"


def test_tokens_hold_while_the_coordinator_is_away_and_outlive_it(rest: Rest) -> None:
    rest.secret = rest.make_token("operator")
    wait_until(lambda: rest.get("/v1/cluster", secret="").status == 401, what="tokens are demanded")
    wait_until(lambda: rest.get("/v1/cluster").status == 200, what="the token is known")
    rest.cluster.kill("coordinator")
    assert rest.pay("1", "local", to="Mumbai/1002").status == 201, "the token is known, and the branch is there"
    rest.cluster.start("coordinator")
    rest.cluster.wait_registered()
    rest.process.kill()
    rest.process.communicate()
    rest.secret, secret = "", rest.secret
    rest.start()
    assert rest.get("/v1/cluster").status == 401
    assert rest.get("/v1/cluster", secret=secret).status == 200
    rest.secret = secret


def of_each(events: list[dict[str, Any]], id: str) -> dict[str, list[dict[str, Any]]]:
    """By actor: its events of one transfer. Those of different actors may be told in another order the next time."""
    return {actor: [one for one in events if (one["actor"], one["id"]) == (actor, id)] for actor in ACTORS}


def wait_hears_all(rest: Rest, stream: Stream) -> None:
    """An actor that did not answer when the stream began is heard from where it first does."""
    over = threading.Event()

    def pay() -> None:
        while not over.wait(0.2):
            rest.pay("1", f"heard-{time.monotonic_ns()}")

    payer = threading.Thread(target=pay)
    payer.start()
    try:
        stream.hear(lambda events: {one["actor"] for one in events} == set(ACTORS))
    finally:
        over.set()
        payer.join()
    rest.settle()


def test_events_go_on_where_they_were(rest: Rest) -> None:
    with Stream(rest) as stream:
        wait_hears_all(rest, stream)
        id = rest.pay("1", "first").json["id"]
        told = stream.hear(lambda events: sum(map(len, of_each(events, id).values())) == 6)
    heard = [(place, event) for place, event in told if event["id"] == id]
    kinds = [event["kind"] for _, event in heard]
    assert sorted(kinds) == sorted(["begin", "vote", "vote", "decision", "applied", "applied"])
    at = {kind: sorted(str(event["at"]) for _, event in heard if event["kind"] == kind) for kind in kinds}
    assert at["begin"][0] <= at["decision"][0] <= at["applied"][0]
    rest.pay("1000000", "refused")
    rest.pay("2", "local", to="Mumbai/1002")

    begun, *missed = [event for _, event in heard]
    last = {"aborted", "released", "committed"}  # of what was paid since

    def is_whole(events: list[dict[str, Any]]) -> bool:
        return all(one in events for one in missed) and last <= {one["kind"] for one in events}

    with Stream(rest, last=heard[0][0]) as stream:
        whole = stream.hear(is_whole)
    # Whoever left between the two events of one row is told the first of them again.
    again = of_each([event for _, event in whole if event != begun], id)
    assert again == of_each(missed, id), "none is left out"
    for place, _ in whole[-10:-1]:
        with Stream(rest, last=place) as stream:
            assert next(stream.events())[1] in [one for _, one in whole]
    rest.cluster.kill("Mumbai")
    rest.cluster.start("Mumbai")
    rest.cluster.wait_registered()
    with Stream(rest, "/v1/events?kind=decision", last=heard[0][0]) as stream:
        assert next(stream.events())[1]["kind"] == "decision"
    for path, last_id in (("/v1/events", "nonsense"), ("/v1/events?kind=gossip", None)):
        with Stream(rest, path, last=last_id) as stream:
            assert stream.status == 400


def test_streams_are_counted_and_end_with_the_bridge(cluster: Cluster) -> None:
    rest = Rest(cluster)
    with ExitStack() as held:
        streams = [held.enter_context(Stream(rest)) for _ in range(MAX_STREAMS)]
        with Stream(rest) as more:
            assert more.status == 429
        streams[0].close()

        def has_room() -> bool:
            rest.pay("1", f"beat-{time.monotonic_ns()}", to="Mumbai/1002")  # by what it cannot send it sees who has left
            one = held.enter_context(Stream(rest))
            return one.status == 200

        wait_until(has_room, what="room for another stream")
        rest.close()
        assert all(event["kind"] == "committed" for _, event in streams[1].events()), "it ends, and is no error"


def test_slow_senders_hold_nobody_up(rest: Rest) -> None:
    """More of them than there are threads, each with half a request."""
    head = b"POST /v1/transfers HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    with ExitStack() as held:
        for n in range(100):
            slow = held.enter_context(socket.create_connection(("127.0.0.1", rest.port), 10))
            slow.sendall(head + b"Idempotency-Key: slow\r\nContent-Length: 100\r\n\r\n{" if n % 2 else head[: n + 20])
        assert rest.pay("1", "quick").status == 201
        assert rest.get("/readyz").status == 200


def test_garbage_is_answered_and_forgotten(rest: Rest) -> None:
    for garbage in (b"\x00" * 100, b"GET\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"\x16\x03\x01" + b"x" * 50, b"A" * 20_000):
        with socket.create_connection(("127.0.0.1", rest.port), 10) as caller:
            said = b""
            with suppress(OSError):  # it may be closed before all of it is sent
                caller.sendall(garbage)
                caller.shutdown(socket.SHUT_WR)
                caller.settimeout(10)
                said = caller.recv(4096)
            assert not said or said.startswith(b"HTTP/1."), said
            assert b"Traceback" not in said
    assert rest.pay("1", "after-garbage").status == 201


@pytest.mark.skipif(sys.platform != "linux", reason="NOT TESTED: what waits in a socket is looked up in /proc")
def test_what_is_being_answered_at_the_end_is_answered(cluster: Cluster) -> None:
    rest = Rest(cluster)
    cluster.send_signal("Mumbai", signal.SIGSTOP)
    told: list[Told] = []
    payer = threading.Thread(target=lambda: told.append(rest.pay("1", "at-the-end", to="Mumbai/1002")))
    try:
        payer.start()
        wait_until(lambda: _waits_at(cluster.endpoints["Mumbai"]), what="the payment is on its way")
        rest.process.send_signal(signal.SIGTERM)
        wait_until(lambda: not _listens(rest), what="no new connection is taken")
    finally:
        cluster.send_signal("Mumbai", signal.SIGCONT)
    payer.join()
    assert [one.status for one in told] == [201]
    wait_until(lambda: rest.process.poll() is not None, what="the end")  # a second signal could hit it while it leaves
    rest.close()


def _waits_at(endpoint: str) -> bool:
    """Something was sent to who listens there, and is not read."""
    port = f":{int(endpoint.rpartition(':')[2]):04X}"
    lines = [line.split() for line in Path("/proc/net/tcp").read_text("ascii").splitlines()[1:]]
    return any(fields[1].endswith(port) and int(fields[4].partition(":")[2], 16) > 0 for fields in lines)


def _listens(rest: Rest) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", rest.port), 5):
            return True
    except ConnectionRefusedError:
        return False


def test_without_a_coordinator_it_says_so(cluster: Cluster) -> None:
    cluster.kill("coordinator")
    rest = Rest(cluster, wait=False)
    try:
        for told in (rest.get("/v1/cluster"), rest.pay("1", "k"), rest.get("/metrics"), rest.get("/v1/events")):
            assert (told.status, told.code) == (503, "unavailable")
        assert "coordinator" in rest.get("/readyz").json["down"]
        cluster.start("coordinator")
        cluster.wait_registered()
        assert pay_until_told(rest, "k").status == 201
    finally:
        rest.close()


def test_a_taken_port_is_said_in_one_line(rest: Rest) -> None:
    second = rest.cluster.spawn("rest", "--endpoint", rest.cluster.endpoint, "--port", str(rest.port))
    _, said = second.communicate(timeout=60)
    assert second.returncode == 2
    assert f"cannot listen at 127.0.0.1:{rest.port}: Address already in use" in said
    assert said.count("\n") == 1
