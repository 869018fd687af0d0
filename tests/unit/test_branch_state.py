"""Posting and restoring: at any points, the state is the fold of the journal from its first row (PROTOCOL T4)."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from tests.unit.protocol_support import (
    BOSS,
    CUSTOMER,
    BranchDesk,
    CoordinatorDesk,
    Incoming,
    Line,
    branch_desk,
    check_books,
    coordinator_desk,
    from_coordinator,
    id_of,
    legs_of,
    prepare,
    register,
    transfer,
    txn_of,
    yes,
)
from zbank.domain.account import Account
from zbank.domain.legs import CLEARING, SYSTEM_NUMBERS, Leg, content_digest
from zbank.domain.refusal import Refusal
from zbank.errors import ForeignStore
from zbank.protocol import branch_state, coordinator_state
from zbank.protocol.branch_state import BranchState
from zbank.protocol.codec import GENESIS, record_kind
from zbank.protocol.coordinator import Coordinator
from zbank.protocol.coordinator_state import CoordinatorState
from zbank.protocol.fold import EntryRow, Posting, Row, Settled
from zbank.protocol.machine import Machine, Wanted
from zbank.protocol.messages import (
    COMMITTED,
    Abort,
    Ack,
    Cancel,
    ChangeAccount,
    Commit,
    Inquiry,
    OpenAccount,
    Prepare,
    Registered,
    Txn,
)
from zbank.protocol.participant import Participant

REFUSAL = Refusal("account_frozen", "frozen elsewhere")


class Tables:
    """What postings leave behind: the posted tables of a store, without the store."""

    def __init__(self) -> None:
        self.watermark = 0
        self.meta = b""
        self.accounts: dict[str, Account] = {}
        self.entries: list[EntryRow] = []
        self.settled: dict[bytes, Settled] = {}
        self.tombstones: set[Txn] = set()
        self.open: dict[bytes, int] = {}
        self.ended: dict[bytes, int] = {}

    def post(self, posting: Posting) -> None:
        """As the store does it: rows that are there already may only be accounts' and tombstones'."""
        assert posting.seq >= self.watermark
        self.watermark, self.meta = posting.seq, posting.meta
        self.accounts |= {account.number: replace(account) for account in posting.accounts}
        self.entries += posting.entries
        for settled in posting.settled:
            assert settled.id not in self.settled, f"{settled.id!r} is settled twice"
            self.settled[settled.id] = settled
        self.tombstones |= set(posting.tombstones)
        for id in posting.closed:
            del self.open[id]
        for id, seq in posting.opened:
            assert id not in self.open, f"{id!r} is opened twice"
            self.open[id] = seq
        for id, seq in posting.ended:
            assert id in self.settled
            self.ended[id] = seq

    def load(self, machine: Machine, wanted: Wanted) -> None:
        """Give a machine what it wants and is here, as the engine does."""
        settled = [self.settled[id] for id in sorted(wanted.ids) if id in self.settled]
        wanted.numbers.update(row.detail for row in settled if row.outcome == COMMITTED)
        machine.load(
            settled,
            self.tombstones & wanted.txns,
            [replace(self.accounts[number]) for number in sorted(wanted.numbers) if number in self.accounts],
        )

    def open_rows(self, lines: list[Line]) -> list[Row]:
        """The journal rows that began what is open, in order."""
        began = [lines[seq - 1] for seq in sorted(self.open.values())]
        return [Row(*line[:3], record_kind(line.record), None, line.body, GENESIS) for line in began]


def restored(lines: list[Line], tables: Tables) -> Participant:
    """Mumbai as a restart finds it: the posted state, and the tail applied row by row."""
    state = BranchState("Mumbai", "INR")
    rows = tables.open_rows(lines)
    system = [replace(tables.accounts[number]) for number in SYSTEM_NUMBERS & tables.accounts.keys()]
    epoch, at_us = (lines[tables.watermark - 1].epoch, lines[-1].at_us) if tables.watermark else (0, 0)
    state.restore(tables.meta, tables.watermark, epoch, at_us, rows, system)
    machine = Participant(state, ("cash", CLEARING))
    tail = lines[tables.watermark :]
    for line in tail:
        wanted = Wanted()
        wanted.numbers.update(machine.touches(line.record))
        tables.load(machine, wanted)
        state.apply(line.seq, line.epoch, line.at_us, line.record)
    return machine


def whole(state: BranchState, tables: Tables) -> dict[str, object]:
    """All that a branch knows, from memory and tables together."""
    return {
        "accounts": tables.accounts | state.book.accounts,
        "entries": sorted(tables.entries + state.posting().entries),
        "settled": tables.settled | state.settled,
        "tombstones": tables.tombstones | state.tombstones,
        "prepared": {id: (held.txn, held.content, held.movements, held.seq) for id, held in state.prepared.items()},
        "small": (state.seq, state.epoch, state.number, state.next_number, state.account_count),
        "sums": (state.total_minor, state.clearing_minor, state.customers_minor),
        "coordinators": state.coordinators,
    }


class History:
    """Random work for Mumbai: valid, but with repeats, late messages and refusals."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.messages: list[Incoming] = []
        self.transfers = 0

    def next(self) -> Incoming:
        """The next message; sometimes one that came before."""
        if self.messages and self.chance.random() < 0.3:
            return self.chance.choice(self.messages)
        message = self.chance.choice([self.local, self.account, self.ask, self.ask, self.end, self.end, self.end, self.news])()
        self.messages.append(message)
        return message

    def id(self) -> bytes:
        return id_of(self.chance.randint(1, 12))

    def local(self) -> Incoming:
        amount_minor = self.chance.randint(1, 90)
        payer, payee = self.chance.sample(("1001", "1002", "cash"), 2)
        legs = (Leg("Mumbai", payer, -amount_minor), Leg("Mumbai", payee, amount_minor))
        return CUSTOMER, 0, transfer(self.chance.randint(1, 12), legs)

    def account(self) -> Incoming:
        status = self.chance.choice(("open", "frozen", ""))
        change = ChangeAccount(id_of(self.chance.randint(100, 130)), "1002", status, self.chance.choice((-1, 0, 50)))
        opening = OpenAccount(id_of(self.chance.randint(200, 205)), "", "", "", 0)
        return CUSTOMER, 0, self.chance.choice((change, opening, Cancel(self.id())))

    def txn(self) -> Txn:
        return txn_of(self.chance.randint(1, 20), self.chance.randint(1, 2), self.chance.choice(("coordinator", "second")))

    def ask(self) -> Incoming:
        txn, n = self.txn(), self.chance.randint(1, 12)
        amount_minor = (13 * n) % 70 + 1
        place = self.chance.choice(("Mumbai_1001", "Mumbai_1002"))
        legs = legs_of(**{place: -amount_minor, "Delhi_1001": amount_minor})
        return from_coordinator(txn.coordinator), 0, prepare(txn, transfer(n, legs if n % 2 else legs[::-1]))

    def end(self) -> Incoming:
        """A decision on something that was asked."""
        asked = [message for _, _, message in self.messages if isinstance(message, Prepare)]
        if not asked:
            return self.ask()
        chosen = self.chance.choice(asked)
        txn, id = chosen.txn, chosen.transfer.id
        digest = content_digest((), "INR", "", "")
        message = self.chance.choice(
            (Commit(txn, id, self.chance.randint(1, 50)), Abort(txn, id), Abort(txn, id, REFUSAL, digest), Inquiry(txn, id))
        )
        return from_coordinator(txn.coordinator), 0, message

    def news(self) -> Incoming:
        return BOSS, 0, Registered("coordinator", self.chance.randint(1, 2), ())


def live(desk: BranchDesk, seed: int, steps: int, post: Callable[[], bool], tables: Tables) -> None:
    """Run a history, loading, posting and trimming as the engine does."""
    history = History(seed)
    state = desk.state
    for _ in range(steps):
        batch = [history.next() for _ in range(history.chance.randint(1, 3))]
        wanted = Wanted()
        for _, _, message in batch:
            desk.machine.want(message, wanted)
        tables.load(desk.machine, wanted)
        desk.turn(batch)
        if post():
            tables.post(state.posting())
            state.posted()
        state.trim()


@settings(max_examples=120, deadline=None)
@given(seed=st.integers(0, 2**32), every=st.integers(1, 12), is_tight=st.booleans())
def test_posted_and_restored_anywhere_is_the_fold_from_the_first_row(seed: int, every: int, is_tight: bool) -> None:
    """T4: with any postings, with hardly any memory; after any restart, and after all that follows it."""
    memory = (branch_state.ACCOUNTS_IN_MEMORY, branch_state.SETTLED_IN_MEMORY)
    branch_state.ACCOUNTS_IN_MEMORY, branch_state.SETTLED_IN_MEMORY = (0, 0) if is_tight else memory
    try:
        desk = branch_desk("Mumbai", {"1001": 100, "1002": 100})
        tables = Tables()
        chance = random.Random(seed)
        live(desk, seed, 30, lambda: chance.randrange(every) == 0, tables)
        fold = restored(desk.lines, Tables()).state
        check_books(fold)
        expected = whole(fold, Tables())
        assert whole(desk.state, tables) == expected
        again = restored(desk.lines, tables).state
        assert whole(again, tables) == expected
        tables.post(again.posting())
        again.posted()
        assert whole(again, tables) == expected
        assert whole(restored(desk.lines, tables).state, tables) == expected
    finally:
        branch_state.ACCOUNTS_IN_MEMORY, branch_state.SETTLED_IN_MEMORY = memory


def test_the_histories_reach_every_kind_of_record() -> None:
    """The property above is worth what its histories do."""
    kinds: set[str] = set()
    for seed in range(30):
        desk = branch_desk("Mumbai", {"1001": 100, "1002": 100})
        live(desk, seed, 30, lambda: False, Tables())
        kinds |= {record_kind(record) for record in desk.records}
    assert kinds == {
        "started",
        "account_opened",
        "account_changed",
        "executed",
        "refused",
        "prepared",
        "committed",
        "aborted",
        "coordinator_seen",
    }


def test_a_txn_open_over_several_postings() -> None:
    """T4: posted as open once, closed once, whatever lies between."""
    desk = branch_desk("Mumbai", {"1001": 100})
    tables = Tables()
    desk.ask(prepare(txn_of(1), transfer(1, legs_of(Mumbai_1001=-30, Delhi_1001=30))), BOSS)
    for n in (2, 3):
        tables.post(desk.state.posting())
        desk.state.posted()
        assert list(tables.open) == [id_of(1)]
        assert tables.accounts["1001"].held_minor == 30
        desk.ask(transfer(n, legs_of(Mumbai_1001=-1, Mumbai_cash=1)))
    desk.ask(Commit(txn_of(1), id_of(1), 4), BOSS)
    tables.post(desk.state.posting())
    assert tables.open == {}
    assert (tables.accounts["1001"].held_minor, tables.accounts["1001"].balance_minor) == (0, 68)


def test_a_txn_that_opens_and_closes_between_two_postings_is_never_open_there() -> None:
    """T4: the tables show watermarks, not moments."""
    desk = branch_desk("Mumbai", {"1001": 100})
    desk.ask(prepare(txn_of(1), transfer(1, legs_of(Mumbai_1001=-30, Delhi_1001=30))), BOSS)
    desk.ask(Abort(txn_of(1), id_of(1)), BOSS)
    posting = desk.state.posting()
    assert (posting.opened, posting.closed) == ([], [])
    assert posting.tombstones == [txn_of(1)]


def test_what_is_unposted_stays_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """T4: accounts and ids of unposted rows are pinned; after the posting they may go."""
    monkeypatch.setattr(branch_state, "ACCOUNTS_IN_MEMORY", 0)
    monkeypatch.setattr(branch_state, "SETTLED_IN_MEMORY", 0)
    desk = branch_desk("Mumbai", {"1001": 100, "1002": 0})
    tables = Tables()
    tables.post(desk.state.posting())
    desk.state.posted()
    desk.ask(transfer(1, legs_of(Mumbai_1001=-1, Mumbai_cash=1)))
    desk.state.trim()
    assert set(desk.state.book.accounts) == {"1001", "cash"}
    assert set(desk.state.settled) == {id_of(1)}
    assert desk.state.unposted == 1


def test_data_in_another_currency_is_refused() -> None:
    """The configuration must not turn rupees into euros."""
    posting = branch_desk("Mumbai", {"1001": 100}).state.posting()
    with pytest.raises(ForeignStore, match="the data of branch Mumbai is in INR, its configuration says EUR"):
        BranchState("Mumbai", "EUR").restore(posting.meta, posting.seq, 1, 5, [], [])


def coordinator_history(desk: CoordinatorDesk, chance: random.Random, post: Callable[[], None]) -> None:
    """Transfers that are decided and acked at any time."""
    asked = []
    for n in range(1, 25):
        message = transfer(n, legs_of(Mumbai_1001=-n, Delhi_1001=n))
        desk.send(message)
        asked.append(prepare(txn_of(n, desk.epoch), message))
        for waiting in chance.sample(asked, min(len(asked), 3)):
            branch = chance.choice(("Mumbai", "Delhi"))
            desk.turn([yes(waiting, branch, number=chance.randint(0, 9))])
            sender, _, _ = yes(waiting, branch)
            desk.send(Ack(waiting.txn, waiting.transfer.id, 1), sender)
        if chance.random() < 0.2:
            desk.send(register("Pune", epoch=n), yes(asked[0], "Pune")[0])
        desk.tick(1000)
        post()


def coordinator_whole(state: CoordinatorState, tables: Tables) -> dict[str, object]:
    """All that a coordinator knows, from memory and tables together."""
    pending = Tables()
    pending.settled = dict(tables.settled)
    pending.open = dict(tables.open)
    pending.ended = dict(tables.ended)
    pending.post(state.posting())
    return {
        "settled": pending.settled,
        "ended": pending.ended,
        "open": pending.open,
        "decisions": {id: (d.txn, d.number, d.content, d.seq) for id, d in state.open.items()},
        "small": (state.seq, state.number, state.branches),
    }


def restored_coordinator(lines: Iterable[Line], tables: Tables) -> CoordinatorState:
    state = CoordinatorState("coordinator")
    state.restore(tables.meta, tables.watermark, 1, 5, tables.open_rows(list(lines)))
    for line in list(lines)[tables.watermark :]:
        state.apply(line.seq, line.epoch, line.at_us, line.record)
    return state


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32), every=st.integers(1, 12))
def test_a_coordinator_posted_and_restored_anywhere(seed: int, every: int) -> None:
    """T4 for decisions: kept for good, open until all have acked, and the number of the last one."""
    chance = random.Random(seed)
    desk = coordinator_desk().joined(["Mumbai", "Delhi"])
    tables = Tables()

    def post() -> None:
        if chance.randrange(every) == 0:
            tables.post(desk.state.posting())
            desk.state.posted()
        desk.state.trim()

    coordinator_history(desk, chance, post)
    expected = coordinator_whole(restored_coordinator(desk.lines, Tables()), Tables())
    assert coordinator_whole(desk.state, tables) == expected
    assert coordinator_whole(restored_coordinator(desk.lines, tables), tables) == expected
    assert desk.state.number > 0


def test_a_coordinator_asks_the_store_for_decisions_that_it_forgot(monkeypatch: pytest.MonkeyPatch) -> None:
    """T3, P5: a settled id is answered from the tables when memory has let it go."""
    monkeypatch.setattr(coordinator_state, "SETTLED_IN_MEMORY", 0)
    desk = coordinator_desk().joined()
    message = transfer(1, legs_of(Mumbai_1001=-5, Delhi_1001=5))
    desk.send(message)
    asked = prepare(txn_of(1), message)
    desk.turn([yes(asked, "Mumbai"), yes(asked, "Delhi")])
    tables = Tables()
    tables.post(desk.state.posting())
    desk.state.posted()
    desk.state.trim()
    machine = desk.machine
    assert isinstance(machine, Coordinator)
    inquiry = Inquiry(txn_of(1), id_of(1))
    for request in (message, inquiry):
        wanted = Wanted()
        machine.want(request, wanted)
        assert wanted.ids == {id_of(1)}
    tables.load(machine, wanted)
    assert desk.ask(inquiry, yes(asked, "Delhi")[0]) == Commit(txn_of(1), id_of(1), 1)
