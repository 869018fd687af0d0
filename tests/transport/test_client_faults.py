"""The client against a server that is silent, restarts, forgets, refuses, repeats itself: over real sockets."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable

import pytest

from tests.acceptance.cluster import free_ports
from tests.transport.scripted import WAIT_S, ScriptedServer, account_info, committed, coordinator_of, wait_until
from zbank import Client
from zbank.errors import ClientClosed, InvalidInput, NoAnswer, RemoteFault, Unreachable
from zbank.protocol.messages import PROTOCOL_VERSION, AnyMessage, Beat, Fault, GetAccount, Hello, Transfer
from zbank.transport.client_peer import BEAT_US

Answers = list[tuple[int, AnyMessage]] | None
PATIENCE_S = 60.0  #: of a client whose requests must not come to their end before the test does


class Pace:
    """Whether all went so fast that no client has sent anything again for want of an answer: then counts are exact."""

    def __init__(self) -> None:
        self._begun_s = time.monotonic()

    def was_quick(self) -> bool:
        return time.monotonic() - self._begun_s < BEAT_US / 1_000_000


def silent_on(*kinds: type) -> Callable[[ScriptedServer, int, AnyMessage], Answers]:
    """A script that never answers these."""
    return lambda server, n, message: [] if type(message) in kinds else None


def test_nothing_listens() -> None:
    with socket.socket() as held:  # bound and not listening: nobody else takes the port meanwhile
        held.bind(("127.0.0.1", 0))
        port = held.getsockname()[1]
        with Client(f"tcp://127.0.0.1:{port}", timeout_s=60) as bank:
            begin = time.monotonic()
            with pytest.raises(Unreachable, match=f"127.0.0.1:{port}.*running there"):
                bank.transfer("Mumbai/1", "Mumbai/2", "1")
            assert time.monotonic() - begin < 30, "an address that never answered is given up long before the time is over"


@pytest.mark.parametrize(
    "endpoint", ["", "127.0.0.1:9000", "tcp://host", "tcp://host:0", "tcp://host:99999", "tcp://a b:1"]
)
def test_bad_endpoint(endpoint: str) -> None:
    with pytest.raises(InvalidInput, match="tcp://"):
        Client(endpoint)


def test_write_without_answer_is_unknown_and_was_resent_with_the_same_id() -> None:
    with ScriptedServer(script=silent_on(Transfer)) as server, Client(server.endpoint) as bank:
        assert bank.balance("Mumbai/1") == "100.00"  # the connection stands
        result = bank.transfer("Mumbai/1", "Mumbai/2", "1.50", id="order 7", timeout_s=4)
        assert (result.status, result.refusal) == ("unknown", None)
        assert "branch Mumbai" in result.reason
        assert result.to_json()["amount"] == "1.50"
        server.wait_for(Transfer, 2)
        sent = [message for message in server.seen if isinstance(message, Transfer)]
        assert len(sent) >= 2
        assert len(set(sent)) == 1
        assert server.count(Beat) >= 1


def test_read_without_answer() -> None:
    with (
        ScriptedServer(script=silent_on(GetAccount)) as server,
        Client(server.endpoint, timeout_s=0.3) as bank,
    ):
        wait_until(lambda: said_of(bank).startswith("no answer from branch Mumbai"), "the question is sent, and not answered")


def said_of(bank: Client) -> str:
    """What is said of an account that nobody tells of. So soon the question may not even have left: that is Unreachable."""
    try:
        bank.account("Mumbai/1")
    except NoAnswer as error:
        return error.detail
    except Unreachable:
        return ""
    raise AssertionError("it was answered")


def test_restart_with_requests_outstanding() -> None:
    first = ScriptedServer(script=silent_on(Transfer, GetAccount), port=free_ports(1))
    with Client(first.endpoint, timeout_s=PATIENCE_S) as bank:
        transfers = [bank.submit_transfer("Mumbai/1", "Mumbai/2", 1) for _ in range(20)]
        first.wait_for(Transfer, 20)
        first.stop()
        with ScriptedServer(port=first.port) as second:
            results = [future.result(PATIENCE_S) for future in transfers]
            assert {result.status for result in results} == {"committed"}
            assert second.seen[0] == Hello(PROTOCOL_VERSION, "", "client", "")
            old = {message.id for message in first.seen if isinstance(message, Transfer)}
            assert old == {message.id for message in second.seen if isinstance(message, Transfer)}


def test_server_forgets_the_session() -> None:
    with ScriptedServer() as server, Client(server.endpoint, timeout_s=PATIENCE_S) as bank:
        assert bank.balance("Mumbai/1") == "100.00"
        hellos = server.count(Hello)
        pace = Pace()
        server.sessions.clear()
        futures = [bank.submit_transfer("Mumbai/1", "Mumbai/2", 1) for _ in range(50)]
        assert {future.result(PATIENCE_S).status for future in futures} == {"committed"}
        counts = server.count(Hello) - hellos, server.count(Transfer)
        assert counts == (1, 50) or not pace.was_quick()
        assert server.different(Transfer) == 50


def test_session_lost_while_idle_is_found_by_the_ping() -> None:
    """A frame that went with the connection is asked for again as soon as the restarted server says hello_first."""


    def forgets(server: ScriptedServer, _n: int, message: AnyMessage) -> Answers:
        if not isinstance(message, GetAccount):
            return None
        server.script = None
        server.strangers.clear()
        server.sessions.clear()
        return []

    with ScriptedServer() as server, Client(server.endpoint) as bank:
        assert bank.transfer("Mumbai/1", "Mumbai/2", 1).status == "committed"  # the connection stands
        server.script = forgets
        waiting = threading.Thread(target=lambda: bank.balance("Mumbai/1"))
        waiting.start()
        waiting.join(WAIT_S)
        assert not waiting.is_alive()
        assert server.strangers[0] is Beat, "the ping finds it, not the resending"


def test_busy_is_retried_until_it_is_done() -> None:
    refusals = iter([3, 2, 1])

    def script(server: ScriptedServer, n: int, message: AnyMessage) -> Answers:
        if isinstance(message, Transfer) and next(refusals, None):
            return [(n, Fault("busy", "too much to do", 20))]
        return None

    with ScriptedServer(script=script) as server, Client(server.endpoint) as bank:
        pace = Pace()
        assert bank.transfer("Mumbai/1", "Mumbai/2", 1).status == "committed"
        assert len({message.id for message in server.seen if isinstance(message, Transfer)}) == 1
        assert server.count(Transfer) == 4 or not pace.was_quick()


def test_busy_to_the_end_is_a_fault_not_unknown() -> None:
    def script(server: ScriptedServer, n: int, message: AnyMessage) -> Answers:
        return [(n, Fault("busy", "too much to do", 50))] if isinstance(message, Transfer) else None

    with ScriptedServer(script=script) as server, Client(server.endpoint) as bank:
        assert bank.balance("Mumbai/1") == "100.00"  # the connection stands
        faults: list[RemoteFault] = []

        def is_busy_to_the_end() -> bool:
            before = server.count(Transfer)
            try:
                bank.transfer("Mumbai/1", "Mumbai/2", 1, timeout_s=1)
            except RemoteFault as error:
                faults.append(error)
            asked = server.count(Transfer) - before
            assert asked <= 21, "after each fault it waits as long as that says"
            return bool(faults) and asked >= 2

        # The time may be over just when it was asked once more, and that is not answered yet: that ends as `unknown`.
        wait_until(is_busy_to_the_end, "the last answer is a fault")
        assert {(error.remote_code, "too much" in str(error)) for error in faults} == {("busy", True)}


def test_wrong_cluster() -> None:
    def script(server: ScriptedServer, n: int, message: AnyMessage) -> Answers:
        if isinstance(message, Hello) and message.cluster != "demo":
            return [(n, Fault("wrong_cluster", "this is cluster demo"))]
        return None

    with ScriptedServer(script=script) as server:
        with Client(server.endpoint, cluster="other") as bank:
            for _ in range(2):
                with pytest.raises(RemoteFault, match="cluster demo") as caught:
                    bank.transfer("Mumbai/1", "Mumbai/2", 1)
                assert caught.value.remote_code == "wrong_cluster"
        with Client(server.endpoint, cluster="demo") as bank:
            assert bank.transfer("Mumbai/1", "Mumbai/2", 1).status == "committed"


def test_duplicate_wrong_and_unordered_answers() -> None:
    held: dict[int, AnyMessage] = {}
    told: set[int] = set()

    def script(server: ScriptedServer, n: int, message: AnyMessage) -> Answers:
        if not isinstance(message, Transfer) or n in told:  # it came again, for its answer was late
            return None
        held[n] = committed(message.id)
        if len(held) < 10:
            return []
        good = list(reversed(held.items()))
        told.update(held)
        held.clear()
        wrong = [(n, account_info("9")) for n, _ in good]
        other = [(n, committed(b"another id of 16"[:16])) for n, _ in good]
        return [*wrong, *other, *good, *good, (0, Beat(True)), (10**9, committed(b"x" * 16))]

    with ScriptedServer(script=script) as server, Client(server.endpoint) as bank:
        for _ in range(3):
            futures = [bank.submit_transfer("Mumbai/1", "Mumbai/2", i + 1) for i in range(10)]
            results = [future.result(WAIT_S) for future in futures]
            assert [result.legs[1].amount_minor for result in results] == [100 * (i + 1) for i in range(10)]
            assert {result.status for result in results} == {"committed"}


def test_garbage_from_the_server_costs_nothing_else(caplog: pytest.LogCaptureFixture) -> None:
    def script(server: ScriptedServer, n: int, message: AnyMessage) -> Answers:
        if isinstance(message, Transfer):
            route = next(iter(server.sessions))
            server.router.send_multipart([route, b"\xc1garbage"])
        return None

    with ScriptedServer(script=script) as server, Client(server.endpoint) as bank:
        assert bank.transfer("Mumbai/1", "Mumbai/2", 1).status == "committed"
    assert "no answer" in caplog.text


def test_close_ends_what_is_outstanding() -> None:
    with ScriptedServer(script=silent_on(Transfer, GetAccount)) as server:
        bank = Client(server.endpoint, timeout_s=PATIENCE_S)
        write = bank.submit_transfer("Mumbai/1", "Mumbai/2", 1)
        reading: list[BaseException] = []

        def read() -> None:
            try:
                bank.account("Mumbai/1")
            except ClientClosed as error:
                reading.append(error)

        thread = threading.Thread(target=read)
        thread.start()
        server.wait_for(Transfer)
        server.wait_for(GetAccount)
        begin = time.monotonic()
        bank.close()
        bank.close()
        assert time.monotonic() - begin < PATIENCE_S / 2, "it does not wait for the answers"
        assert write.result(0).status == "unknown"
        assert "same id" in write.result(0).reason
        thread.join(WAIT_S)
        assert len(reading) == 1
        with pytest.raises(ClientClosed):
            bank.submit_transfer("Mumbai/1", "Mumbai/2", 1)


def test_branch_moves_and_the_directory_tells() -> None:
    with ScriptedServer("Delhi") as delhi:
        mumbai = ScriptedServer("Mumbai")
        servers = [mumbai, delhi]
        with coordinator_of(*servers) as coordinator, Client(coordinator.endpoint) as bank:
            assert bank.balance("Mumbai/1") == "100.00"
            mumbai.stop()
            with ScriptedServer("Mumbai") as moved:
                coordinator.directory = lambda: (moved.info(), delhi.info())
                assert bank.transfer("Mumbai/1", "Mumbai/2", 1).status == "committed"
                assert moved.different(Transfer) == 1


def test_another_branch_took_the_port() -> None:
    mumbai = ScriptedServer("Mumbai", port=free_ports(1))
    with coordinator_of(mumbai) as coordinator, Client(coordinator.endpoint) as bank:
        assert bank.balance("Mumbai/1") == "100.00"
        mumbai.stop()
        with ScriptedServer("Pune", port=mumbai.port):
            with pytest.raises(RemoteFault, match="answers Pune, not Mumbai") as caught:
                bank.account("Mumbai/1")
            assert caught.value.remote_code == "not_here"
        with ScriptedServer("Mumbai", port=mumbai.port):
            wait_until(lambda: _works(bank), "Mumbai is found again")


def _works(bank: Client) -> bool:
    try:
        return bank.balance("Mumbai/1") == "100.00"
    except RemoteFault:
        return False


def test_not_here_is_followed_and_given_up() -> None:
    def script(server: ScriptedServer, n: int, message: AnyMessage) -> Answers:
        return [(n, Fault("not_here", "not my account"))] if isinstance(message, Transfer) else None

    with (
        ScriptedServer("Mumbai", script=script) as mumbai,
        coordinator_of(mumbai) as coordinator,
        Client(coordinator.endpoint) as bank,
    ):
        pace = Pace()
        with pytest.raises(RemoteFault, match="not my account"):
            bank.transfer("Mumbai/1", "Mumbai/2", 1)
        assert mumbai.count(Transfer) == 4 or not pace.was_quick()
