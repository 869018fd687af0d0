"""The client that watches the bank: events, figures, lists of transfers."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.transport.actors import Desk, pay
from tests.transport.doors import Answers, answering, silent
from tests.transport.scripted import ScriptedServer, account_info, committed, coordinator_of, sooner_or_later
from tests.unit.protocol_support import id_of
from zbank import Client
from zbank.errors import InvalidInput, ZbankError
from zbank.ids import format_id
from zbank.protocol.messages import (
    COMMITTED,
    FAR_US,
    AnyMessage,
    Event,
    EventsPage,
    FiguresInfo,
    GetAccount,
    GetEvents,
    ListTransfers,
    Transfer,
    TransfersPage,
)
from zbank.transport import client_watch
from zbank.transport.client_watch import COORDINATOR_KEY
from zbank.transport.views import ActorDown, TransferView

SOON_S = 0.3  #: for questions to which somebody does not answer


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who is there is waited for, however busy the machine is."""
    monkeypatch.setattr(client_watch, "EVENTS_S", 20.0)


# --- events and figures ------------------------------------------------------------------------------------------------


def test_events_are_followed_from_positions(desks: dict[str, Desk], servers: dict[str, ScriptedServer]) -> None:
    """From now on, then what has happened since; the same from the same positions."""
    with Client(servers["main"].endpoint) as bank:
        start = bank.events()
        assert (start.events, start.is_last, start.missing) == ([], True, [])
        assert start.positions == {
            COORDINATOR_KEY: desks["main"].store.seq,
            "Delhi": desks["Delhi"].store.seq,
            "Mumbai": desks["Mumbai"].store.seq,
        }
        for n, name in enumerate(("Delhi", "Mumbai", "Delhi")):
            desks[name].clock.advance(1_000 * (n + 1))
            desks[name].ask(pay(n, f"{name}/1", f"{name}/2", 1))
        later = bank.events(start.positions)
        assert sorted((name, event.id) for name, event in later.events) == [
            ("Delhi", id_of(0)),
            ("Delhi", id_of(2)),
            ("Mumbai", id_of(1)),
        ]
        times_us = [event.at_us for _, event in later.events]
        assert times_us == sorted(times_us)
        assert bank.events(start.positions) == later
        assert bank.events(later.positions) == (later._replace(events=[]))


def test_a_batch_of_events_is_not_the_last_while_any_journal_goes_on(
    desks: dict[str, Desk], servers: dict[str, ScriptedServer]
) -> None:
    with Client(servers["main"].endpoint) as bank:
        positions = bank.events().positions
        for n in range(5):
            desks["Delhi"].ask(pay(n, "Delhi/1", "Delhi/2", 1))
        found: list[bytes] = []
        for left in (True, True, False):
            batch = bank.events(positions, limit=2)
            assert batch.is_last is not left
            found += [event.id for _, event in batch.events]
            positions = batch.positions
        assert found == [id_of(n) for n in range(5)]


def test_a_branch_that_is_new_is_followed_from_its_first_row(
    desks: dict[str, Desk], servers: dict[str, ScriptedServer]
) -> None:
    with Client(servers["main"].endpoint) as bank:
        positions = {name: after for name, after in bank.events().positions.items() if name != "Delhi"}
        found = bank.events(positions).events
        assert {name for name, _ in found} == {"Delhi"}
        assert [event.kind for _, event in found] == [COMMITTED] * 2


def test_who_is_away_keeps_its_place(desks: dict[str, Desk], servers: dict[str, ScriptedServer]) -> None:
    """Its position stands; and who was away when the positions were asked for is not told from its first row."""
    delhi = servers["Delhi"]
    main = servers["main"].endpoint
    with Client(main) as bank, Client(main, timeout_s=SOON_S) as hasty:
        known = bank.events().positions
        delhi.script = silent
        away = sooner_or_later(lambda: hasty.events(known), lambda batch: batch.missing == ["Delhi"])
        assert away.positions == known
        begun = sooner_or_later(hasty.events, lambda batch: batch.missing == ["Delhi"])
        assert begun.positions == known | {"Delhi": -1}
        delhi.script = answering(desks["Delhi"])
        back = bank.events(begun.positions)
        assert (back.events, back.missing, back.positions) == ([], [], known)
        desks["Delhi"].ask(pay(1, "Delhi/1", "Delhi/2", 1))
        assert [(name, event.id) for name, event in bank.events(back.positions).events] == [("Delhi", id_of(1))]


@pytest.mark.parametrize("positions", [{"Delhi": -2}, {"Delhi": 2**63}])
def test_positions_that_are_none(servers: dict[str, ScriptedServer], positions: dict[str, int]) -> None:
    with Client(servers["main"].endpoint) as bank:
        with pytest.raises(InvalidInput, match="no positions"):
            bank.events(positions)
        with pytest.raises(InvalidInput):
            bank.events(limit=0)


def test_events_of_one_time_stay_in_the_order_of_their_journal() -> None:
    """Even when the clocks of two actors differ, each one's own order is kept."""

    def script(server: ScriptedServer, n: int, message: AnyMessage) -> Answers:
        if not isinstance(message, GetEvents):
            return None
        at_us = {"Delhi": 5, "Mumbai": 4}.get(server.name, 9)
        events = tuple(Event(seq, at_us, COMMITTED, id_of(seq)) for seq in (1, 2, 3))
        return [(n, EventsPage(events, 3, True))]

    with (
        ScriptedServer("Delhi", script=script) as delhi,
        ScriptedServer("Mumbai", script=script) as mumbai,
        coordinator_of(mumbai, delhi, script=script) as main,
        Client(main.endpoint) as bank,
    ):
        found = [(name, event.seq) for name, event in bank.events({}).events]
        assert found == [(name, seq) for name in ("Mumbai", "Delhi", COORDINATOR_KEY) for seq in (1, 2, 3)]


def test_figures_of_all_actors(servers: dict[str, ScriptedServer]) -> None:
    """Who does not answer stands there as down."""
    servers["Delhi"].script = silent
    with Client(servers["main"].endpoint, timeout_s=SOON_S) as bank:
        found = sooner_or_later(bank.figures, lambda found: sum(isinstance(one, FiguresInfo) for one in found) == 2)
    assert {(one.role, one.name) for one in found if isinstance(one, FiguresInfo)} == {
        ("coordinator", "main"),
        ("branch", "Mumbai"),
    }
    assert [(one.role, one.name) for one in found if isinstance(one, ActorDown)] == [("branch", "Delhi")]


# --- lists of transfers ------------------------------------------------------------------------------------------------


def walk(ask: Callable[[str], tuple[list[TransferView], str]]) -> list[TransferView]:
    """All pages together."""
    found, cursor = ask("")
    for _ in range(200):
        if not cursor:
            return found
        more, cursor = ask(cursor)
        found = found + more
    raise AssertionError("the pages never end")


@pytest.mark.parametrize("limit", [1, 2, 5, 1000])
def test_the_whole_banks_transfers(desks: dict[str, Desk], servers: dict[str, ScriptedServer], limit: int) -> None:
    """Newest first, each once, over all branches."""
    for n in range(9):
        name = ("Delhi", "Mumbai")[n % 2]
        for desk in desks.values():
            desk.clock.advance(1_000)
        desks[name].ask(pay(n, f"{name}/1", f"{name}/2", 1 if n < 7 else 900_00))
    with Client(servers["main"].endpoint) as bank:

        def ask(cursor: str) -> tuple[list[TransferView], str]:
            page = bank.transfers(limit=limit, cursor=cursor)
            assert page.missing == []
            return page.transfers, page.cursor

        found = walk(ask)
        assert [one.id for one in found if one.id < format_id(id_of(70_000))] == [
            format_id(id_of(n)) for n in range(8, -1, -1)
        ]
        assert len(found) == 9 + 4
        assert [one.status for one in found[:3]] == ["aborted", "aborted", "committed"]
        assert [one.id for one in bank.transfers(status="aborted").transfers] == [format_id(id_of(n)) for n in (8, 7)]
        middle_us = found[4].at_us
        newer = bank.transfers(from_us=middle_us).transfers
        assert [one.id for one in newer] == [one.id for one in found[:5]]
        older = bank.transfers(until_us=middle_us).transfers
        assert [one.id for one in older] == [one.id for one in found[5:]]


def test_of_one_branch_and_of_one_account(desks: dict[str, Desk], servers: dict[str, ScriptedServer]) -> None:
    desks["Delhi"].ask(pay(1, "Delhi/1", "Delhi/2", 1))
    desks["Delhi"].ask(pay(2, "Delhi/cash", "Delhi/2", 1))
    with Client(servers["main"].endpoint) as bank:
        of_branch = walk(lambda cursor: _plain(bank, branch="Delhi", limit=1, cursor=cursor))
        of_account = walk(lambda cursor: _plain(bank, account="Delhi/1", limit=1, cursor=cursor))
        assert bank.transfers(account="Delhi/1", branch="Delhi", limit=1).transfers == of_account[:1]
        with pytest.raises(InvalidInput, match="no account of branch Mumbai"):
            bank.transfers(account="Delhi/1", branch="Mumbai")
    assert [one.id for one in of_branch] == [format_id(id_of(n)) for n in (2, 1, 70_001, 70_000)]
    assert [one.id for one in of_account] == [format_id(id_of(n)) for n in (1, 70_000)]


def _plain(bank: Client, **asked: object) -> tuple[list[TransferView], str]:
    page = bank.transfers(**asked)  # type: ignore[arg-type]
    return page.transfers, page.cursor


def test_a_branch_that_is_away_for_a_while(desks: dict[str, Desk], servers: dict[str, ScriptedServer]) -> None:
    """It is named, and what it knows stands in a later page: nothing is left out and nothing told twice."""
    for n in range(4):
        for name in ("Delhi", "Mumbai"):
            desks[name].clock.advance(1_000)
            desks[name].ask(pay(10 * n + (name == "Delhi"), f"{name}/1", f"{name}/2", 1))
    main = servers["main"].endpoint
    with Client(main) as bank, Client(main, timeout_s=SOON_S) as hasty:
        first = bank.transfers(limit=3)
        assert first.missing == []
        servers["Delhi"].script = silent
        second = sooner_or_later(
            lambda: hasty.transfers(limit=3, cursor=first.cursor),
            lambda page: [down.name for down in page.missing] == ["Delhi"],
        )
        servers["Delhi"].script = answering(desks["Delhi"])
        rest = walk(lambda cursor: _plain(bank, limit=3, cursor=cursor or second.cursor))
    found = [(one.id, one.legs[0].branch) for one in (*first.transfers, *second.transfers, *rest)]
    assert len(found) == len(set(found)) == 2 * (4 + 2)


def test_pages_that_are_empty_and_not_the_last_are_gone_past() -> None:
    """A few rounds at once; after them the cursor goes on."""
    left = {"Delhi": 7, "Mumbai": 2}
    told: dict[int, TransfersPage] = {}  #: by the request's number: it may come again when its answer is late

    def script(server: ScriptedServer, n: int, message: AnyMessage) -> Answers:
        if not isinstance(message, ListTransfers):
            return None
        if n not in told:
            left[server.name] -= 1
            told[n] = TransfersPage((), str(left[server.name]) if left[server.name] else "")
        return [(n, told[n])]

    with (
        ScriptedServer("Delhi", script=script) as delhi,
        ScriptedServer("Mumbai", script=script) as mumbai,
        coordinator_of(mumbai, delhi) as main,
        Client(main.endpoint) as bank,
    ):
        first = bank.transfers()
        assert (first.transfers, first.cursor, first.missing) == ([], "Delhi:2", [])
        assert bank.transfers(cursor=first.cursor).cursor == ""
        assert left == {"Delhi": 0, "Mumbai": 0}
        asked = [message.cursor for message in delhi.seen if isinstance(message, ListTransfers)]
        assert list(dict.fromkeys(asked)) == ["", "6", "5", "4", "3", "2", "1"]


@pytest.mark.parametrize(
    "wrong",
    [
        {"status": "unknown"},
        {"limit": 0},
        {"limit": 1001},
        {"from_us": -1},
        {"until_us": FAR_US + 1},
        {"cursor": "x"},
        {"cursor": "Delhi:1:2"},
        {"cursor": "Delhi:x"},
        {"cursor": "De lhi:1"},
        {"cursor": "Delhi:" + "9" * 70},
        {"cursor": ","},
        {"branch": "Delhi", "cursor": "x" * 65},
    ],
)
def test_what_no_list_can_be(servers: dict[str, ScriptedServer], wrong: dict[str, object]) -> None:
    """Told at once, and nobody is asked: else every branch would seem to be away."""
    with Client(servers["main"].endpoint) as bank, pytest.raises(InvalidInput):
        bank.transfers(**wrong)  # type: ignore[arg-type]
    assert all(server.count(ListTransfers) == 0 for server in servers.values())


def test_lists_and_events_are_not_for_callbacks() -> None:
    """In the I/O thread a wait would never end."""
    held: list[tuple[int, AnyMessage]] = []
    told: list[str] = []

    def script(_server: ScriptedServer, n: int, message: AnyMessage) -> Answers:
        if isinstance(message, Transfer):  # answered when something else is asked: by then the callback is set
            held.append((n, committed(message.id)))
            return []
        if isinstance(message, GetAccount):
            answers, held[:] = [*held, (n, account_info(message.number))], []
            return answers
        return None

    def ask(act: Callable[[], object]) -> None:
        try:
            act()
        except ZbankError as error:
            told.append(error.detail)

    with (
        ScriptedServer("Mumbai", script=script) as mumbai,
        coordinator_of(mumbai) as main,
        Client(main.endpoint) as bank,
    ):
        for act in (bank.transfers, bank.events, bank.figures, bank.tokens):
            future = bank.submit_transfer("Mumbai/1", "Mumbai/2", 1)
            future.add_done_callback(lambda _, act=act: ask(act))  # type: ignore[misc]
            mumbai.wait_for(Transfer, 1 + len(told))
            bank.balance("Mumbai/1")
            future.result()
    assert [detail.startswith("a future's callback must not wait") for detail in told] == [True] * 4
