"""A replica over real stores: whatever the feed does, it holds what its branch has, and never anything else (PROTOCOL R1)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from tests.transport.actors import Desk, branch, pay
from tests.unit.protocol_support import BOSS, CUSTOMER, SECOND_US, id_of, prepare, txn_of
from zbank.errors import StorageFull
from zbank.protocol.branch_state import BranchState
from zbank.protocol.codec import encode_record
from zbank.protocol.fold import Row
from zbank.protocol.following import (
    ANSWER_LIMIT_US,
    ASK_EVERY_US,
    CONFIRM_EVERY_US,
    MAX_HEARD_BYTES,
    SILENT_ALARM_US,
    Follower,
)
from zbank.protocol.machine import Effect, Sender
from zbank.protocol.messages import (
    BRANCH,
    FEED,
    NEVER_US,
    REPLICA,
    AccountInfo,
    AnyMessage,
    Commit,
    EntriesPage,
    Fault,
    GetAccount,
    GetEntries,
    GetRows,
    GetStatus,
    GetTransfer,
    OpenAccount,
    Registered,
    RegisterReplica,
    RowInfo,
    Rows,
    Standing,
    StatusInfo,
    TransferInfo,
)
from zbank.protocol.records import AccountOpened
from zbank.storage.rows import rows_page
from zbank.transport.engine import FOLLOWED_US

OVER_FEED = Sender("", FEED, "")
FROM_BRANCH = Sender("Mumbai", BRANCH, "Mumbai")
OF_REPLICA = Sender(b"replica", REPLICA, "replica")


class Pair:
    """A branch and its replica, and between them what a test says."""

    def __init__(self, folder: Path) -> None:
        self.branch = branch(folder, "1", "2")
        self.replica = Desk(REPLICA, "Mumbai", folder, self.branch.clock)
        self.published: list[Rows] = []
        self.branch.engine.publish = self._publish
        self.count = 0

    def _publish(self, rows: Sequence[Row], before: bytes) -> None:
        infos = tuple(RowInfo(row.epoch, row.at_us, row.kind, row.id, row.body) for row in rows)
        self.published.append(Rows(rows[0].seq - 1, before, infos, rows[-1].epoch, rows[-1].seq))

    def work(self) -> None:
        """Something happens at the branch: a payment, or a payment to elsewhere with its commit in the next turn."""
        self.count += 1
        if self.count % 3:
            self.branch.turn((CUSTOMER, 1, pay(self.count, "Mumbai/1", "Mumbai/2", 1)))
            return
        self.branch.turn((BOSS, 0, prepare(txn_of(self.count), pay(self.count, "Mumbai/1", "Delhi/1", 1))))
        self.branch.turn((BOSS, 0, Commit(txn_of(self.count), id_of(self.count), self.count)))

    def hear(self, message: Rows) -> None:
        """The feed brings something; the branch answers what the replica asks at once."""
        self.answer(self.replica.turn((OVER_FEED, 0, message)))

    def answer(self, effects: list[Effect]) -> None:
        """The branch answers all that it is asked, and what that leads to."""
        while effects:
            asked = [effect.message for effect in effects if isinstance(effect.message, GetRows)]
            effects = []
            for message in asked:
                (answer,) = [effect.message for effect in self.branch.turn((OF_REPLICA, 0, message))]
                effects += self.replica.turn((FROM_BRANCH, 0, answer))

    def tick(self, after_us: int = ASK_EVERY_US) -> None:
        """Time passes at the replica, and the branch answers."""
        self.answer(self.replica.tick(after_us))

    @property
    def follower(self) -> Follower[BranchState]:
        """The replica's machine."""
        machine = self.replica.engine.machine
        assert isinstance(machine, Follower)
        return machine

    def is_prefix(self) -> bool:
        """The replica's journal is the beginning of its branch's, byte by byte."""
        mine = self.replica.store.journal()
        return mine == self.branch.store.journal()[: len(mine)]

    def is_equal(self) -> bool:
        """Journals, and the folded books."""
        here, there = self.replica.branch, self.branch.branch
        same = (here.seq, here.total_minor, here.clearing_minor, here.customers_minor, here.account_count)
        return self.is_prefix() and same == (
            there.seq,
            there.total_minor,
            there.clearing_minor,
            there.customers_minor,
            there.account_count,
        )

    def close(self) -> None:
        """Close both stores."""
        self.branch.store.close()
        self.replica.store.close()


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Pair]:
    with closing(Pair(tmp_path)) as both:
        yield both


def test_first_questions_that_are_lost_are_asked_again_soon_and_later_ones_in_time(pair: Pair) -> None:
    """They go before the branch can be reached."""

    def asks(after_us: int) -> bool:
        return any(isinstance(effect.message, GetRows) for effect in pair.replica.tick(after_us))

    assert asks(ASK_EVERY_US)
    assert asks(ASK_EVERY_US)
    pair.tick()
    assert pair.is_equal()
    assert asks(ASK_EVERY_US)
    assert not asks(ASK_EVERY_US)
    assert asks(ANSWER_LIMIT_US)


FATES = st.lists(st.sampled_from(["work", "bring", "lose", "late", "twice", "forge", "tick", "restart", "full"]), max_size=60)


@given(FATES)
def test_whatever_the_feed_does_it_is_a_prefix_and_then_equal(fates: list[str]) -> None:
    with TemporaryDirectory() as folder, closing(Pair(Path(folder))) as pair:
        late: list[Rows] = []
        for fate in fates:
            if fate == "work":
                pair.work()
            elif fate == "tick":
                pair.tick()
            elif fate == "restart":
                pair.replica = pair.replica.restarted()
            elif fate == "full":
                pair.replica.store.failures.append(StorageFull("the disk is full"))
                pair.tick()
                pair.replica.store.failures.clear()
            elif pair.published:
                message = pair.published.pop(0)
                if fate == "late":
                    late.append(message)
                elif fate == "forge":
                    pair.hear(replace(message, rows=tuple(replace(row, at_us=row.at_us + 1) for row in message.rows)))
                elif fate != "lose":
                    for _ in range(2 if fate == "twice" else 1):
                        pair.hear(message)
            assert pair.is_prefix()
        for message in reversed(late):
            pair.hear(message)
            assert pair.is_prefix()
        for _ in range(4):
            pair.tick(2 * SECOND_US)
        assert pair.is_equal()
        assert pair.replica.store.verify() == pair.branch.store.seq


def test_what_is_only_heard_is_not_taken(pair: Pair) -> None:
    """Any branch's key may publish anything in the name of another."""
    pair.tick()
    assert pair.is_equal()
    pair.work()
    (real,) = pair.published
    forged = replace(real, rows=(replace(real.rows[0], at_us=7),))
    before = pair.replica.store.seq
    pair.replica.turn((OVER_FEED, 0, forged))
    assert pair.replica.store.seq == before
    pair.tick(2 * SECOND_US)
    assert pair.is_equal()
    assert pair.follower.alarms == {}


def test_rows_are_published_while_a_replica_asks_and_no_longer(pair: Pair) -> None:
    """Nobody pays for a feed that nobody follows."""
    pair.work()
    assert pair.published == []
    pair.tick()
    pair.work()
    assert len(pair.published) == 1
    pair.branch.clock.advance(FOLLOWED_US)
    pair.work()
    assert len(pair.published) == 1


def test_long_rows_that_were_only_heard_are_bounded(pair: Pair) -> None:
    """A branch that is stopped confirms nothing, and anybody with a branch's key can go on in its name."""
    pair.tick()
    pair.work()
    (real,) = pair.published
    long = encode_record(AccountOpened(b"", b"", "", "3", "x" * 60_000, "INR", 0))
    after = real.after
    for _ in range(60):
        rows = tuple(replace(real.rows[0], kind="account_opened", id=None, body=long) for _ in range(8))
        pair.replica.turn((OVER_FEED, 0, replace(real, after=after, rows=rows)))
        after += len(rows)
    heard = pair.follower._heard_bytes
    assert MAX_HEARD_BYTES <= heard < MAX_HEARD_BYTES + 8 * 60_100
    assert heard == sum(len(one.row.body) for one in pair.follower._heard)
    pair.tick(2 * SECOND_US)
    assert pair.is_equal()
    assert pair.follower._heard_bytes == 0


def test_rows_from_the_feed_are_not_asked_for_again(pair: Pair) -> None:
    pair.tick()
    pair.work()
    pair.branch.clock.advance(CONFIRM_EVERY_US)
    (effect,) = [one for one in pair.replica.turn((OVER_FEED, 0, pair.published[0])) if isinstance(one.message, GetRows)]
    assert isinstance(effect.message, GetRows)
    answer = rows_page(pair.branch.store, effect.message, pair.branch.store.seq)
    assert answer.rows == ()
    pair.replica.turn((FROM_BRANCH, 0, answer))
    assert pair.is_equal()


def test_under_load_the_branch_sends_no_row_twice_and_the_replica_knows_how_old_it_is(pair: Pair) -> None:
    """The branch is ahead of the feed all the time: what it has more is on its way, and is not asked for."""
    pair.tick()
    follower = pair.follower
    pair.branch.clock.advance(3 * SECOND_US)
    lags: list[int] = []
    for _ in range(20):
        pair.work()
        pair.branch.clock.advance(CONFIRM_EVERY_US)
        while len(pair.published) > 2:
            told = pair.replica.turn((OVER_FEED, 0, pair.published.pop(0)))
            for asked in [effect.message for effect in told if isinstance(effect.message, GetRows)]:
                answer = rows_page(pair.branch.store, asked, pair.branch.store.seq)
                assert (answer.rows, answer.seq > answer.after) == ((), True)
                assert not pair.replica.turn((FROM_BRANCH, 0, answer)), "nothing is asked"
        lags.append(follower.lag_us(pair.branch.clock.now()))
    assert lags[0] > 2 * SECOND_US
    assert max(lags[10:]) <= 5 * CONFIRM_EVERY_US
    pair.published.clear()
    pair.tick()
    pair.tick()
    assert pair.is_equal(), "a lost tail is asked for"


def test_a_lost_tail_is_noticed_without_any_gap(pair: Pair) -> None:
    pair.work()
    pair.published.clear()
    pair.tick()
    assert pair.is_equal()


def test_a_long_way_behind_it_catches_up_page_by_page(pair: Pair) -> None:
    for n in range(30):
        opening = [(CUSTOMER, 1, OpenAccount(id_of(10_000 + n * 100 + m), "", "", "", 0)) for m in range(100)]
        pair.branch.turn(*opening)
    pair.tick()
    assert pair.is_equal()
    assert len(pair.replica.store.forces) >= 3


def test_no_other_branchs_word_counts(pair: Pair) -> None:
    pair.work()
    answer = rows_page(pair.branch.store, GetRows(0, 1_000), pair.branch.store.seq)
    pair.replica.turn((Sender("Delhi", BRANCH, "Delhi"), 0, answer))
    assert pair.replica.store.seq == 0


def test_ahead_of_its_branch_is_an_alarm_and_changes_nothing(pair: Pair) -> None:
    pair.tick()
    seq = pair.replica.store.seq
    pair.replica.tick(ASK_EVERY_US)
    pair.replica.turn((FROM_BRANCH, 0, Rows(seq, b"", (), 1, seq - 2)))
    assert f"ahead of its branch: it has row {seq}, Mumbai ends at {seq - 2}" in pair.follower.alarms["ahead"]
    assert pair.replica.store.seq == seq
    pair.tick(2 * SECOND_US)
    assert pair.follower.alarms == {}


def test_another_history_is_an_alarm_and_changes_nothing(pair: Pair) -> None:
    pair.tick()
    seq = pair.replica.store.seq
    pair.replica.tick(ASK_EVERY_US)
    other = RowInfo(9, 1, "started", None, b"\x92\xa7started\xa1x")
    pair.replica.turn((FROM_BRANCH, 0, Rows(seq, bytes(32), (other,), 9, seq + 1)))
    assert f"row {seq} of branch Mumbai is another one than here" in pair.follower.alarms["diverged"]
    assert pair.replica.store.seq == seq


def test_its_answers_say_as_of_when_they_are(pair: Pair) -> None:
    first, answer = (effect.message for effect in pair.replica.turn((CUSTOMER, 5, GetStatus())))
    assert isinstance(first, Standing)
    assert first.lag_us == NEVER_US
    assert isinstance(answer, StatusInfo)
    assert answer.role == REPLICA
    pair.tick()
    pair.branch.clock.advance(3 * SECOND_US)
    first, account, page = (
        effect.message
        for effect in pair.replica.turn((CUSTOMER, 5, GetAccount("1")), (CUSTOMER, 6, GetEntries("1", True, "", 10)))
    )
    assert first == Standing(1, pair.branch.store.seq, 0, 3 * SECOND_US)
    assert isinstance(account, AccountInfo)
    assert account.balance_minor == 100_00
    assert isinstance(page, EntriesPage)


def test_it_takes_no_writes(pair: Pair) -> None:
    pair.tick()
    _, refused = pair.replica.turn((CUSTOMER, 5, pay(9, "Mumbai/1", "Mumbai/2", 1)))
    assert isinstance(refused.message, Fault)
    assert refused.message.code == "not_for_me"
    assert "is a replica of Mumbai" in refused.message.detail
    assert pair.is_equal()


def test_it_tells_the_coordinators_where_it_stands(pair: Pair) -> None:
    pair.tick()
    pair.replica.turn((BOSS, 0, Registered(BOSS.caller, 1, ())))
    told: list[AnyMessage] = [effect.message for effect in pair.replica.tick(2 * SECOND_US) if effect.to == BOSS.caller]
    (message,) = told
    assert isinstance(message, RegisterReplica)
    assert (message.info.name, message.info.of, message.info.seq) == ("replica", "Mumbai", pair.branch.store.seq)


def test_a_branch_that_is_silent_for_long_is_an_alarm(pair: Pair) -> None:
    pair.tick()
    pair.replica.tick(SILENT_ALARM_US + 1)
    assert "is silent" in pair.follower.alarms["silent"]
    pair.tick(2 * SECOND_US)
    pair.tick()
    assert pair.follower.alarms == {}


def test_a_transfer_is_told_as_by_the_branch(pair: Pair) -> None:
    pair.work()
    pair.tick()
    here, there = pair.replica.turn((CUSTOMER, 5, GetTransfer(id_of(1))))[1], pair.branch.ask(GetTransfer(id_of(1)))
    assert isinstance(there, TransferInfo)
    assert here.message == there
