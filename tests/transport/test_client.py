"""The client on its usual ways: routing, currencies, many in flight, many threads. Scripted servers, real sockets."""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import date
from decimal import Decimal

import pytest

from tests.transport.scripted import WAIT_S, ScriptedServer, account_info, coordinator_of, sooner_or_later, wait_until
from zbank import Client, TransferRequest, TransferResult
from zbank.domain.refusal import Refusal
from zbank.errors import InvalidAmount, InvalidInput, Refused, RemoteFault, Unreachable, ZbankError
from zbank.ids import id_from_key
from zbank.protocol.messages import (
    AccountInfo,
    AccountsPage,
    AnyMessage,
    Cancel,
    EntriesPage,
    EntryInfo,
    GetAccount,
    GetDirectory,
    GetEntries,
    GetStatus,
    GetTransfer,
    ListAccounts,
    OpenAccount,
    Opened,
    Outcome,
    StatusInfo,
    Transfer,
    TransferInfo,
)
from zbank.transport import client_io
from zbank.transport.views import ActorDown

Answers = list[tuple[int, AnyMessage]] | None


@pytest.fixture
def mumbai() -> Iterator[ScriptedServer]:
    """A lone branch."""
    with ScriptedServer("Mumbai") as server:
        yield server


@pytest.fixture
def delhi() -> Iterator[ScriptedServer]:
    """Another."""
    with ScriptedServer("Delhi") as server:
        yield server


@pytest.fixture
def main(mumbai: ScriptedServer, delhi: ScriptedServer) -> Iterator[ScriptedServer]:
    """The coordinator of both."""
    with coordinator_of(mumbai, delhi) as server:
        yield server


def test_local_work_goes_to_the_branch_and_the_rest_to_the_coordinator(
    main: ScriptedServer, mumbai: ScriptedServer, delhi: ScriptedServer
) -> None:
    with Client(main.endpoint) as bank:
        local = bank.transfer("Delhi/1", "Delhi/2", "1.50", memo="rent", effective_on=date(2026, 1, 31))
        between = bank.transfer_legs([("Mumbai/1", "-3"), ("Delhi/1", "1"), ("Delhi/2", 2)], id="k1")
        assert bank.deposit("Mumbai/1", 5).legs[0].number == "cash"
        assert bank.withdraw("Mumbai/1", Decimal("0.05")).legs[1].number == "cash"
    sent = next(message for message in delhi.seen if isinstance(message, Transfer))
    assert (sent.currency, sent.memo, sent.effective_on) == ("INR", "rent", "2026-01-31")
    assert [leg.amount_minor for leg in sent.legs] == [-150, 150]
    assert (local.status, local.number, local.applied) == ("committed", 7, True)
    assert local.to_json() == {
        "id": local.id,
        "status": "committed",
        "from": "Delhi/1",
        "to": "Delhi/2",
        "amount": "1.50",
        "currency": "INR",
        "legs": [{"account": "Delhi/1", "amount": "-1.50"}, {"account": "Delhi/2", "amount": "1.50"}],
        "refusal": None,
        "reason": None,
        "participants": [],
        "timeline": [],
        "created_at": "1970-01-01T00:00:01.000Z",
        "positions": {"Delhi": 12},
    }
    assert between.to_json()["amount"] is None
    assert {message.id for message in main.seen if isinstance(message, Transfer)} == {id_from_key("k1")}
    assert (mumbai.different(Transfer), delhi.different(Transfer)) == (2, 1)


def test_local_work_goes_on_without_the_coordinator(main: ScriptedServer, mumbai: ScriptedServer) -> None:
    with Client(main.endpoint) as bank:
        assert bank.balance("Mumbai/1") == "100.00"
        main.stop()
        assert bank.transfer("Mumbai/1", "Mumbai/2", 1).status == "committed"
        assert bank.transfer("Delhi/1", "Delhi/2", 1).status == "committed"
        assert bank.balance("Mumbai/2") == "100.00"
        said: list[str] = []

        def is_refused() -> bool:
            try:
                bank.transfer("Mumbai/1", "Delhi/2", 1, timeout_s=0.5)
            except Unreachable as error:
                said.append(str(error))
            return bool(said)

        # A transfer that was handed to the connection before its end was seen may have come through: it ends as `unknown`.
        wait_until(is_refused, "the end of the connection is seen")
        assert "the coordinator" in said[0]


def test_one_branch_alone(mumbai: ScriptedServer) -> None:
    with Client(mumbai.endpoint) as bank:
        assert bank.transfer("Mumbai/1", "Mumbai/2", 1).status == "committed"
        assert [info.name for info in bank.branches()] == ["Mumbai"]
        with pytest.raises(Unreachable, match="needs the coordinator"):
            bank.transfer("Mumbai/1", "Delhi/2", 1)
        with pytest.raises(Unreachable, match="where branch Delhi is"):
            bank.account("Delhi/2")


def test_a_branch_names_its_coordinator(main: ScriptedServer, mumbai: ScriptedServer, delhi: ScriptedServer) -> None:
    mumbai.coordinator = main.endpoint
    with Client(mumbai.endpoint) as bank:
        assert bank.transfer("Mumbai/1", "Mumbai/2", 1).status == "committed"
        assert main.seen == []
        assert bank.transfer("Mumbai/1", "Delhi/2", 1).status == "committed"
        assert bank.balance("Delhi/2") == "100.00"
        assert sorted(info.name for info in bank.branches()) == ["Delhi", "Mumbai"]
        assert main.different(Transfer) == 1


def test_unknown_branch(main: ScriptedServer, mumbai: ScriptedServer) -> None:
    with Client(main.endpoint) as bank:
        with pytest.raises(RemoteFault, match=r"no branch Pune.*Delhi, Mumbai") as caught:
            bank.transfer("Pune/1", "Pune/2", 1)
        assert caught.value.remote_code == "branch_not_found"
        with ScriptedServer("Pune") as pune:
            infos = (pune.info(), mumbai.info())
            main.directory = lambda: infos
            assert bank.balance("Pune/1") == "100.00"


def test_other_currency(main: ScriptedServer) -> None:
    with ScriptedServer("Tokyo", currency="JPY") as tokyo, Client(main.endpoint) as bank:
        main.directory = lambda: (tokyo.info(),)
        assert bank.transfer("Tokyo/1", "Tokyo/2", "500").legs[1].amount_minor == 500
        with pytest.raises(InvalidAmount, match="JPY has no decimals"):
            bank.submit_transfer("Tokyo/1", "Tokyo/2", "5.00")
        assert bank.transfer("Tokyo/1", "Tokyo/2", "5.00", currency="INR").currency == "INR"


def test_bad_input_raises_at_once_and_before_contact_through_the_future(mumbai: ScriptedServer) -> None:
    with Client("tcp://127.0.0.1:9", timeout_s=0.2) as bank:
        for bad in ("Mumbai", "Mumbai/", "/1", "Mumbai/1/2", "Mumbai/é"):
            with pytest.raises(InvalidInput):
                bank.submit_transfer(bad, "Mumbai/2", 1)
        for more in ({"id": b"short"}, {"memo": "x" * 141}, {"memo": "\udc80"}, {"effective_on": "31.1.2026"}):
            with pytest.raises(InvalidInput):
                bank.submit_transfer("Mumbai/1", "Mumbai/2", 1, **more)
        with pytest.raises(InvalidInput):
            bank.submit_legs([])
        with pytest.raises(InvalidInput):
            bank.submit_transfer("Mumbai/1", "Mumbai/2", 1, timeout_s=0)
        with pytest.raises(InvalidInput, match="both sides"):
            bank.submit_transfer("Mumbai/1", "Mumbai/1", 1, currency="INR")
    met = threading.Event()
    mumbai.script = lambda *_: None if met.wait(WAIT_S) else []
    with Client(mumbai.endpoint, timeout_s=60) as bank:
        early = bank.submit_transfer("Mumbai/1", "Mumbai/2", 1.5)  # type: ignore[arg-type]
        met.set()
        with pytest.raises(InvalidAmount):
            early.result(WAIT_S)
        with pytest.raises(InvalidAmount):
            bank.submit_transfer("Mumbai/1", "Mumbai/2", "0.001")
    assert mumbai.count(Transfer) == 0


def test_transfer_many_is_one_batch_in_order(mumbai: ScriptedServer) -> None:
    with Client(mumbai.endpoint) as bank:
        bank.balance("Mumbai/1")
        requests = [TransferRequest("Mumbai/1", "Mumbai/2", i + 1) for i in range(1000)]
        requests[7] = TransferRequest("Mumbai/1", "Mumbai/2", "nonsense")
        requests[9] = TransferRequest(legs=[("Mumbai/1", -1), ("Mumbai/2", 1)], id="k")
        io_waits, all_made = threading.Event(), threading.Event()

        def hold(_: object) -> bool:
            io_waits.set()
            return all_made.wait(WAIT_S)

        # Else the I/O thread would send the first while the others are still being made.
        held = bank._ask("Mumbai", GetAccount("1"), AccountInfo, hold)
        assert io_waits.wait(WAIT_S)
        with ThreadPoolExecutor() as pool:
            many = pool.submit(bank.transfer_many, requests)
            wait_until(lambda: bank._io._thread.waiting() == 999, "all are made but the one that cannot be")
            all_made.set()
            results = many.result(WAIT_S)
        assert held.result(WAIT_S)
        assert isinstance(results[7], InvalidAmount)
        amounts = [one.legs[1].amount_minor for one in results if isinstance(one, TransferResult)]
        assert amounts == [100 if i == 9 else 100 * (i + 1) for i in range(1000) if i != 7]
        assert max(mumbai.frames) >= 999


def test_callbacks_submit_and_must_not_wait(mumbai: ScriptedServer) -> None:
    with Client(mumbai.endpoint) as bank:
        left = [500]
        done = threading.Event()
        waits: list[BaseException | None] = []

        def again(future: Future[TransferResult]) -> None:
            assert future.result().status == "committed"
            left[0] -= 1
            if left[0] > 0:
                bank.submit_transfer("Mumbai/1", "Mumbai/2", 1).add_done_callback(again)
                return
            try:
                bank.balance("Mumbai/1")
            except ZbankError as error:
                waits.append(error)
            done.set()

        bank.submit_transfer("Mumbai/1", "Mumbai/2", 1).add_done_callback(again)
        assert done.wait(WAIT_S)
        assert len(waits) == 1
        assert "callback" in str(waits[0])
        future = bank.submit_transfer("Mumbai/1", "Mumbai/2", 1)
        assert not future.cancel()
        assert future.result(WAIT_S).status == "committed"


def test_many_threads_and_many_clients(main: ScriptedServer) -> None:
    results: list[str] = []

    def work(bank: Client, number: int) -> None:
        for i in range(40):
            destination = "Mumbai/2" if i % 2 else "Delhi/2"
            result = bank.transfer("Mumbai/1", destination, f"{number}.{i:02d}" if i else 1)
            results.append(result.status)

    banks = [Client(main.endpoint) for _ in range(4)]
    threads = [threading.Thread(target=work, args=(banks[i % 4], i + 1)) for i in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    for bank in banks:
        bank.close()
    assert results == ["committed"] * 480


def test_the_io_thread_serves_all_clients_and_ends_with_the_last(mumbai: ScriptedServer) -> None:
    def threads() -> int:
        return sum(thread.name == "zbank-client" for thread in threading.enumerate())

    wait_until(lambda: threads() == 0, "the end of the thread of the tests before")
    first, second = Client(mumbai.endpoint), Client(mumbai.endpoint)
    assert first.balance("Mumbai/1") == second.balance("Mumbai/1") == "100.00"
    assert threads() == 1
    first.close()
    assert second.balance("Mumbai/1") == "100.00"
    del second  # never closed: the garbage collector does it
    gc.collect()
    wait_until(lambda: threads() == 0, "the end of the thread")
    with Client(mumbai.endpoint) as third:
        assert third.balance("Mumbai/1") == "100.00"


def test_too_many_outstanding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_io, "MAX_OUTSTANDING", 1000)
    with ScriptedServer() as server, Client(server.endpoint, timeout_s=60) as bank:
        server.script = lambda server, n, message: [] if isinstance(message, Transfer) else None
        bank.balance("Mumbai/1")
        for _ in range(1000):
            bank.submit_transfer("Mumbai/1", "Mumbai/2", 1)
        wait_until(lambda: bank.outstanding == 1000, "the I/O thread has taken them all: one in its hand is not counted")
        with pytest.raises(RemoteFault, match="wait") as caught:
            bank.submit_transfer("Mumbai/1", "Mumbai/2", 1)
        assert caught.value.remote_code == "busy"


def test_accounts_statement_open_and_cancel() -> None:
    entry = EntryInfo(3, b"e" * 16, 1_000_000, "2026-01-31", -150, 850, "rent", ("Delhi/1",))

    def script(server: ScriptedServer, n: int, message: AnyMessage) -> Answers:
        match message:
            case ListAccounts(after=after):
                numbers = ["3"] if after else ["1", "2"]
                return [(n, AccountsPage(tuple(map(account_info, numbers)), "" if after else "2"))]
            case GetEntries():
                return [(n, EntriesPage(account_info("1"), (entry,), "more"))]
            case OpenAccount(id=id, number="7"):
                return [(n, Outcome(id, "aborted", Refusal("account_exists", "there is one"), 0, 0, False, True))]
            case OpenAccount(id=id):
                return [(n, Opened(id, account_info("8"), False))]
            case Cancel(id=id):
                return [(n, Outcome(id, "aborted", Refusal("cancelled", "as asked"), 0, 0, False, True))]
        return None

    with ScriptedServer(script=script) as server, Client(server.endpoint) as bank:
        assert [one.account for one in bank.accounts()] == ["Mumbai/1", "Mumbai/2", "Mumbai/3"]
        page = bank.statement("Mumbai/1", limit=1)
        assert page.cursor == "more"
        assert page.to_json()["entries"][0] == {
            "id": page.entries[0].id,
            "at": "1970-01-01T00:00:01.000Z",
            "effective_on": "2026-01-31",
            "amount": "-1.50",
            "balance": "8.50",
            "currency": "INR",
            "memo": "rent",
            "counterparties": ["Delhi/1"],
        }
        assert bank.open_account("Mumbai", owner="Asha", overdraft_limit="10").to_json()["available"] == "100.00"
        opened = next(message for message in server.seen if isinstance(message, OpenAccount))
        assert (opened.currency, opened.overdraft_limit_minor) == ("INR", 1000)
        with pytest.raises(Refused, match="there is one") as caught:
            bank.open_account("Mumbai", number="7")
        assert caught.value.refusal_code == "account_exists"
        with pytest.raises(InvalidInput, match="nothing to change"):
            bank.change_account("Mumbai/1")
        assert bank.cancel("k1", account="Mumbai/1").status == "aborted"
        assert bank.cancel("k1").refusal == Refusal("cancelled", "as asked")


def test_status_and_show_name_who_is_silent(
    main: ScriptedServer, mumbai: ScriptedServer, delhi: ScriptedServer
) -> None:
    info = TransferInfo(b"t" * 16, "committed", None, (), "INR", "", "", 4, 9_000_000, None, (), ())
    status = StatusInfo("branch", "Mumbai", "demo", b"i" * 16, 1, 1, 0, 5, 2, 0, 0, 0, 0, (), 100, (), "0.1.0")

    def script(server: ScriptedServer, n: int, message: AnyMessage) -> Answers:
        if server is delhi and not isinstance(message, GetDirectory):
            return [] if isinstance(message, GetStatus | GetTransfer) else None
        if isinstance(message, GetStatus):
            return [(n, status)]
        return [(n, info)] if isinstance(message, GetTransfer) else None

    main.script = mumbai.script = delhi.script = script
    with Client(main.endpoint, timeout_s=0.3) as bank:
        found = sooner_or_later(bank.status, lambda found: found[:2] == [status, status])
        down = found[2]
        assert isinstance(down, ActorDown)
        assert (down.role, down.name, down.endpoint) == ("branch", "Delhi", delhi.endpoint)
        view = sooner_or_later(lambda: bank.show("k1"), lambda view: view.status == "committed")
        assert "branch Delhi" in view.reason
