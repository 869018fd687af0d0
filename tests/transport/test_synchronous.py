"""A branch and its synchronous replica over real stores: nothing leaves the one before the other has it (PROTOCOL R3)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.transport.actors import INSTANCE, Desk, branch, pay
from tests.unit.protocol_support import BOSS, CUSTOMER, SECOND_US, prepare, txn_of
from zbank.errors import StorageFull
from zbank.protocol.following import ASK_EVERY_US, Follower
from zbank.protocol.gate import SILENT_US
from zbank.protocol.machine import Effect, Sender
from zbank.protocol.messages import (
    BRANCH,
    COMMITTED,
    REPLICA,
    AckedBy,
    AnyMessage,
    BranchInfo,
    EntriesPage,
    Fault,
    GetAccount,
    GetEntries,
    GetRows,
    GetStatus,
    Held,
    Outcome,
    Registered,
    RegisterReplica,
    Rows,
    StatusInfo,
    Vote,
)
from zbank.storage.rows import rows_page

FROM_BRANCH = Sender("Mumbai", BRANCH, "Mumbai")
THE_ONE = Sender(b"replica", REPLICA, "replica")
ANOTHER = Sender(b"another", REPLICA, "another")
WORD = AckedBy("replica", INSTANCE, 7)
WORD_AGAIN = AckedBy("replica", INSTANCE, 8)


def told(word: AckedBy) -> Registered:
    """The coordinator's word on the synchronous replica of Mumbai."""
    info = BranchInfo("Mumbai", "tcp://127.0.0.1:9100", "INR", INSTANCE, 1, up=True, acks=word)
    return Registered("coordinator", 1, (info,))


class Pair:
    """A branch, its synchronous replica, and what has left the branch to anybody else."""

    def __init__(self, folder: Path) -> None:
        self.branch = branch(folder, "1", "2")
        self.replica = Desk(REPLICA, "Mumbai", folder, self.branch.clock)
        self.left: list[Effect] = []  #: to customers and coordinators
        self.on_the_way: list[Effect] = []  #: to the replica
        self.count = 0

    def send(self, message: AnyMessage, sender: Sender = CUSTOMER) -> list[Effect]:
        """A turn of the branch; gives what left to others than the replica."""
        return self.sort(self.branch.turn((sender, 1, message)))

    def sort(self, effects: list[Effect]) -> list[Effect]:
        """Tell apart what is for the replica."""
        its = [effect for effect in effects if effect.to == THE_ONE.address]
        rest = [effect for effect in effects if effect.to != THE_ONE.address]
        self.on_the_way += its
        self.left += rest
        return rest

    def pay(self) -> list[Effect]:
        """A payment within the branch; gives what left at once."""
        self.count += 1
        return self.send(pay(self.count, "Mumbai/1", "Mumbai/2", 1))

    def exchange(self, most: int = 100) -> list[Effect]:
        """Let rows and acknowledgements go to and fro until nothing moves any more; gives what left by that."""
        before = len(self.left)
        for _ in range(most):
            answers, self.on_the_way = self.on_the_way, []
            asked = [one for answer in answers for one in self.replica.turn((FROM_BRANCH, 0, answer.message))]
            for effect in asked:
                if isinstance(effect.message, GetRows):
                    self.send(effect.message, THE_ONE)
            if not asked:
                break
        return self.left[before:]

    def tick(self, after_us: int = ASK_EVERY_US) -> list[Effect]:
        """Time passes at both; then they talk."""
        before = len(self.left)
        for effect in self.replica.tick(after_us):
            if isinstance(effect.message, GetRows):
                self.send(effect.message, THE_ONE)
        self.sort(self.branch.tick(0))
        self.exchange()
        return self.left[before:]

    def name(self, word: AckedBy = WORD) -> None:
        """The coordinator's word comes, and all follow it."""
        self.send(told(word), BOSS)
        for _ in range(4):
            self.tick()

    @property
    def is_synchronous(self) -> bool:
        """By the replica's own rows."""
        machine = self.replica.engine.machine
        assert isinstance(machine, Follower)
        return machine.info(self.branch.clock.now()).acks == WORD.generation

    def close(self) -> None:
        """Close both stores."""
        self.branch.store.close()
        self.replica.store.close()


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Pair]:
    """A branch with a replica that is synchronous."""
    with closing(Pair(tmp_path)) as both:
        both.name()
        both.left.clear()
        yield both


def test_an_outcome_leaves_once_the_replica_has_its_row_on_disk(pair: Pair) -> None:
    assert pair.is_synchronous
    assert pair.pay() == []
    assert pair.replica.store.seq < pair.branch.store.seq
    (effect,) = pair.exchange()
    assert isinstance(effect.message, Outcome)
    assert effect.message.status == COMMITTED
    assert pair.replica.store.seq == pair.branch.store.seq


def test_a_vote_and_its_position_wait_together_and_in_order(pair: Pair) -> None:
    assert pair.send(prepare(txn_of(1), pay(1, "Mumbai/1", "Delhi/1", 1)), BOSS) == []
    position, vote = pair.exchange()
    assert isinstance(vote.message, Vote)
    assert position.to == vote.to


def test_a_read_waits_for_the_row_that_it_shows_and_an_idle_branch_answers_at_once(pair: Pair) -> None:
    (before,) = pair.send(GetAccount("1"))
    pair.pay()
    assert pair.send(GetAccount("1")) == []
    assert pair.send(GetEntries("1", True, "", 10)) == []
    paid, after, entries = pair.exchange()
    assert isinstance(paid.message, Outcome)
    assert after.message != before.message
    assert isinstance(entries.message, EntriesPage)
    assert len(entries.message.entries) == 2


def test_without_the_replica_nothing_leaves_and_after_a_while_that_is_said(pair: Pair) -> None:
    assert pair.pay() == []
    pair.on_the_way.clear()  # lost
    pair.branch.tick(SILENT_US + 1)
    (effect,) = pair.pay()
    assert isinstance(effect.message, Fault)
    assert effect.message.code == "branch_unavailable"
    (read,) = pair.send(GetAccount("1"))
    assert isinstance(read.message, Fault)
    (status,) = pair.send(GetStatus())
    assert isinstance(status.message, StatusInfo)
    assert any("does not answer" in alarm for alarm in status.message.alarms)
    (first,) = [one.message for one in pair.tick(SECOND_US)]  # it is back: what waited leaves
    assert isinstance(first, Outcome)
    (again,) = (pair.pay(), pair.exchange())[1]
    assert isinstance(again.message, Outcome)


@pytest.mark.parametrize(
    "held",
    [
        lambda pair: Held(INSTANCE, pair.branch.store.seq, bytes(32)),  # other rows
        lambda pair: Held(bytes(16), pair.branch.store.seq, pair.branch.store.chain),  # another store
        lambda pair: Held(INSTANCE, pair.branch.store.seq + 1, pair.branch.store.chain),  # ahead
    ],
)
def test_an_acknowledgement_of_anything_else_lets_nothing_out(pair: Pair, held: object) -> None:
    assert pair.pay() == []
    pair.on_the_way.clear()
    assert pair.send(GetRows(pair.branch.store.seq, 10, held(pair)), THE_ONE) == []  # type: ignore[operator]
    assert pair.left == []


def test_an_acknowledgement_that_lay_about_lets_out_what_it_says_and_does_not_end_the_silence(pair: Pair) -> None:
    """The branch slept, and finds words of its replica that are old by now: another may have taken its place meanwhile."""
    assert pair.pay() == []
    (rows,), pair.on_the_way = pair.on_the_way, []
    (asked,) = [one.message for one in pair.replica.turn((FROM_BRANCH, 0, rows.message)) if isinstance(one.message, GetRows)]
    pair.branch.clock.advance(SILENT_US + 1)
    (paid,) = pair.send(asked, THE_ONE)
    assert isinstance(paid.message, Outcome)
    (read,) = pair.send(GetAccount("1"))
    assert isinstance(read.message, Fault)
    for _ in range(2):
        assert pair.tick(SECOND_US) == []  # it answers what was just sent
    (read,) = pair.send(GetAccount("1"))
    assert not isinstance(read.message, Fault)


def test_another_replica_cannot_acknowledge_and_gets_only_what_is_acknowledged(pair: Pair) -> None:
    assert pair.pay() == []
    pair.on_the_way.clear()
    store = pair.branch.store
    sent = pair.send(GetRows(store.seq - 1, 10, Held(INSTANCE, store.seq, store.chain)), ANOTHER)
    (rows,) = [effect.message for effect in sent]
    assert isinstance(rows, Rows)
    assert rows.rows == ()
    assert rows.seq == store.seq - 1


def test_a_copy_of_its_data_under_another_name_is_not_the_one(tmp_path: Path) -> None:
    """It has the very rows and the very instance, up to where it was copied, and not what was acknowledged since."""
    with closing(Pair(tmp_path)) as pair:
        pair.send(told(AckedBy("original", INSTANCE, WORD.generation)), BOSS)
        pair.branch.tick(0)
        rows = rows_page(pair.branch.store, GetRows(0, 100), pair.branch.store.seq)
        for effect in pair.replica.turn((FROM_BRANCH, 0, rows)):
            assert isinstance(effect.message, GetRows)
            assert effect.message.held is None
        assert pair.replica.store.seq == pair.branch.store.seq
        assert not pair.is_synchronous


def asked_by_another(pair: Pair, after: int, held: Held | None = None) -> list[Rows]:
    """What another replica is answered that asks for rows."""
    sent = [effect.message for effect in pair.send(GetRows(after, 10, held), ANOTHER)]
    pair.left = [effect for effect in pair.left if effect.to != ANOTHER.address]
    return [message for message in sent if isinstance(message, Rows)]


def test_another_replica_is_told_nothing_while_it_is_not_known_what_was_told_to_others(pair: Pair) -> None:
    """A branch that was just started: an empty answer would let the other believe that it has all."""
    pair.pay()
    pair.exchange()
    pair.on_the_way.clear()
    pair.branch = pair.branch.restarted()
    seq = pair.branch.store.seq
    assert asked_by_another(pair, seq - 3) == []
    pair.tick(SECOND_US)
    (rows,) = asked_by_another(pair, seq - 3)
    assert (len(rows.rows), rows.seq) == (3, seq)


def test_who_waited_as_the_synchronous_replica_gets_what_its_successor_has(pair: Pair) -> None:
    store = pair.branch.store
    assert pair.send(GetRows(store.seq, 10, Held(INSTANCE, store.seq, store.chain)), THE_ONE) == []
    pair.on_the_way.clear()
    pair.send(told(AckedBy("another", bytes(16), 9)), BOSS)
    pair.sort(pair.branch.tick(0))
    assert pair.pay() == []
    assert pair.on_the_way == []
    held = Held(bytes(16), store.seq, store.chain)
    pair.sort(pair.branch.turn((ANOTHER, 1, GetRows(store.seq, 10, held))))
    (rows,) = [effect.message for effect in pair.on_the_way]
    assert isinstance(rows, Rows)
    assert rows.seq == store.seq


def test_a_start_that_is_in_order_has_no_alarm(tmp_path: Path) -> None:
    with closing(Pair(tmp_path)) as pair:
        pair.branch = pair.branch.restarted(wanted_acks="replica")
        assert refused(pair.pay()) == "Mumbai has stopped: its synchronous replica replica was never here"
        assert (status(pair).stopped, status(pair).alarms) == (True, ())
        pair.name()
        assert [type(effect.message) for effect in (*pair.pay(), *pair.exchange())] == [Outcome]
        assert (status(pair).stopped, status(pair).alarms) == (False, ())


def test_the_alarm_says_what_is_the_matter_and_what_to_do(tmp_path: Path) -> None:
    with closing(Pair(tmp_path)) as pair:
        pair.branch = pair.branch.restarted(wanted_acks="replica")
        pair.branch.tick(SILENT_US + 1)
        (alarm,) = status(pair).alarms
        lost = "Start it. If it is lost for good: `zbank acks Mumbai REPLICA`, or `zbank acks Mumbai none`"
        assert alarm == f"stopped: its synchronous replica replica was never here. {lost}"
        pair.name()
        pair.branch.tick(SILENT_US + 1)
        (alarm,) = status(pair).alarms
        assert alarm == f"stopped: its synchronous replica replica does not answer. {lost}"
        pair.send(GetRows(0, 10), THE_ONE)  # by that name, and it acknowledges nothing
        (alarm,) = status(pair).alarms
        assert alarm == (
            "stopped: its synchronous replica replica has not come so far, or has begun anew. If it has begun anew, name it "
            "again: `zbank acks Mumbai replica`"
        )
        assert status(pair).stopped
        pair.send(told(AckedBy("", b"", 9)), BOSS)
        pair.sort(pair.branch.tick(0))
        (alarm,) = status(pair).alarms
        assert alarm.startswith("no synchronous replica: what it says stands on one disk alone. Name one: `zbank acks Mumbai")
        assert not status(pair).stopped


def refused(effects: list[Effect]) -> str:
    """Why, up to what is said of the id."""
    (effect,) = effects
    assert isinstance(effect.message, Fault)
    return effect.message.detail.partition(": not done")[0]


def status(pair: Pair) -> StatusInfo:
    """The branch's."""
    (effect,) = pair.branch.turn((CUSTOMER, 9, GetStatus()))
    assert isinstance(effect.message, StatusInfo)
    return effect.message


def test_after_a_restart_everything_waits_until_the_replica_has_it(pair: Pair) -> None:
    pair.pay()
    pair.on_the_way.clear()
    pair.branch = pair.branch.restarted()
    assert pair.send(pay(pair.count, "Mumbai/1", "Mumbai/2", 1)) == []  # asked again
    (effect,) = pair.tick(SECOND_US)
    assert isinstance(effect.message, Outcome)
    assert pair.replica.store.seq == pair.branch.store.seq


def test_none_any_more_by_the_operator_lets_all_out(pair: Pair) -> None:
    pair.pay()
    pair.on_the_way.clear()
    pair.send(told(AckedBy("", b"", 9)), BOSS)
    (effect,) = pair.sort(pair.branch.tick(0))
    assert isinstance(effect.message, Outcome)
    (effect,) = pair.pay()
    assert isinstance(effect.message, Outcome)


def test_a_replica_says_at_once_that_it_is_the_one_by_a_new_word(pair: Pair) -> None:
    pair.replica.turn((BOSS, 0, told(WORD)))
    pair.replica.tick(SECOND_US)
    pair.send(told(WORD_AGAIN), BOSS)
    pair.sort(pair.branch.tick(0))
    for effect in pair.replica.tick(ASK_EVERY_US):
        pair.send(effect.message, THE_ONE)
    pair.exchange()
    (said,) = [one.message for one in pair.replica.tick(0) if isinstance(one.message, RegisterReplica)]
    assert said.info.acks == WORD_AGAIN.generation


def test_an_older_word_that_comes_after_a_newer_one_does_not_hide_it(pair: Pair) -> None:
    assert pair.pay() == []
    pair.on_the_way.clear()
    assert pair.sort(pair.branch.turn((BOSS, 0, told(AckedBy("", b"", 9))), (BOSS, 0, told(WORD)))) == []
    (effect,) = pair.sort(pair.branch.tick(0))
    assert isinstance(effect.message, Outcome)


def test_an_older_word_changes_nothing(pair: Pair) -> None:
    pair.send(told(AckedBy("", b"", 6)), BOSS)
    pair.branch.tick(0)
    assert pair.pay() == []


FATES = st.lists(
    st.sampled_from(["pay", "prepare", "lose", "exchange", "tick", "restart", "restart replica", "full"]), max_size=40
)


@given(FATES)
def test_whatever_happens_what_left_is_on_the_replicas_disk(fates: list[str]) -> None:
    """An effect that names a row leaves after the replica has forced that row."""
    with TemporaryDirectory() as folder, closing(Pair(Path(folder))) as pair:
        pair.name()
        for n, fate in enumerate(fates):
            before = len(pair.left)
            if fate == "pay":
                pair.pay()
            elif fate == "prepare":
                pair.send(prepare(txn_of(1_000 + n), pay(1_000 + n, "Mumbai/1", "Delhi/1", 1)), BOSS)
            elif fate == "lose":
                pair.on_the_way.clear()
            elif fate == "exchange":
                pair.exchange(most=2)
            elif fate == "tick":
                pair.tick(SECOND_US + 1)
            elif fate == "restart":
                pair.branch = pair.branch.restarted()
            elif fate == "restart replica":
                pair.replica = pair.replica.restarted()
            else:
                pair.replica.store.failures.append(StorageFull("no room"))
            on_disk = pair.replica.store.seq
            for effect in pair.left[before:]:
                seq = getattr(effect.message, "seq", 0)
                assert seq <= on_disk or not isinstance(effect.message, Outcome | Vote)
        for _ in range(4):
            pair.tick(SECOND_US + 1)
        assert pair.replica.store.journal() == pair.branch.store.journal()
