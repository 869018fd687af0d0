"""A promoted branch before it opens: what is told anew, what an account cannot bear, and who is served."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.transport.actors import Desk, branch, pay
from tests.unit.protocol_support import BOSS, CUSTOMER, SECOND_US, from_branch, id_of, prepare, txn_of
from zbank.apps import roles
from zbank.domain.legs import SUSPENSE, content_digest
from zbank.errors import StorageFull
from zbank.protocol.following import TakesOver
from zbank.protocol.machine import Effect
from zbank.protocol.messages import (
    BRANCH,
    BUSY,
    FAR_US,
    REPLICA,
    AccountInfo,
    AnyMessage,
    ChangeAccount,
    Commit,
    Fault,
    GetAccount,
    GetDecisions,
    GetEntries,
    GetRows,
    GetStatus,
    GetTransfer,
    Inquiry,
    ListAccounts,
    ListTransfers,
    Look,
    Outcome,
    Redeliver,
    Redelivering,
    Registered,
    StatusInfo,
    StillPending,
    Transfer,
    Vote,
)
from zbank.protocol.reconciling import AGAIN_US
from zbank.storage.rows import rows_page
from zbank.transport.engine import Incoming

FROM_MUMBAI = from_branch("Mumbai")


class Promoted(Desk):
    """A branch that was a replica; with accounts 1, 2 and 3, 100.00 on each."""

    asked = GetDecisions("Mumbai", 0, Look())

    def __init__(self, folder: Path, *more: object) -> None:
        former = branch(folder, "1", "2", "3")
        for message in more:
            former.turn(message)  # type: ignore[arg-type]
        copy = Desk(REPLICA, "Mumbai", folder, former.clock)
        copy.turn((FROM_MUMBAI, 0, rows_page(former.store, GetRows(0, 1_000), former.store.seq)))
        self.place = copy.store.seq
        copy.store.close()
        former.store.close()
        roles._take_over(copy.path, copy.store.identity, TakesOver(9, "asha", ""))
        _put_in_place(copy.path, former.path)
        super().__init__(BRANCH, "Mumbai", folder, former.clock)

    def turn(self, *batch: Incoming) -> list[Effect]:
        """Remembers what it asks the coordinator."""
        effects = super().turn(*batch)
        self.asked = next((e.message for e in effects if isinstance(e.message, GetDecisions)), self.asked)
        return effects

    def registered(self) -> GetDecisions:
        """The coordinator has taken it; what it asks."""
        effects = self.turn((BOSS, 0, Registered(BOSS.caller, 1, ())))
        (asked,) = [effect.message for effect in effects if isinstance(effect.message, GetDecisions)]
        return asked

    def tell(self, *transfers: tuple[int, Transfer], look: Look | None = None, count: int | None = None) -> None:
        """The coordinator's answer: commits, and the end of it."""
        told: list[AnyMessage] = [redeliver(n, transfer) for n, transfer in transfers]
        told.append(Redelivering(len(told) if count is None else count, look, self.asked))
        self.turn(*((BOSS, 0, message) for message in told))

    def balance_minor(self, number: str) -> int:
        """What is on an account."""
        answer = self.ask(GetAccount(number))
        assert isinstance(answer, AccountInfo)
        return answer.balance_minor


def _put_in_place(copy: Path, former: Path) -> None:
    copy.rename(former)
    for ending in ("-wal", "-shm", ".lock"):
        for path in (copy, former):
            path.with_name(path.name + ending).unlink(missing_ok=True)


def redeliver(n: int, message: Transfer) -> Redeliver:
    """A commit told anew."""
    digest = content_digest(message.legs, message.currency, message.memo, message.effective_on)
    return Redeliver(txn_of(n), message.id, 100 + n, message.legs, message.currency, "", "", digest, "")


@pytest.fixture
def mumbai(tmp_path: Path) -> Promoted:
    return Promoted(tmp_path)


def test_it_begins_a_new_office_and_says_where_it_took_over(mumbai: Promoted) -> None:
    row = mumbai.store.row(mumbai.place + 1)
    assert row is not None
    assert (row.kind, row.epoch) == ("promoted", 9)
    assert mumbai.store.epoch == 10
    assert mumbai.registered() == GetDecisions("Mumbai", mumbai.place, Look())


def test_nobody_is_served_before_all_was_told(mumbai: Promoted) -> None:
    mumbai.registered()
    refused = mumbai.ask(pay(1, "Mumbai/1", "Mumbai/2", 1))
    assert isinstance(refused, Fault)
    assert refused.code == "busy"
    assert "has just been promoted" in refused.detail
    asked = prepare(txn_of(2), pay(2, "Mumbai/1", "Delhi/1", 1))
    (vote,) = [e.message for e in mumbai.turn((BOSS, 0, asked)) if isinstance(e.message, Vote)]
    assert vote.answer == BUSY
    doubt = Inquiry(txn_of(3), id_of(3))
    (answer,) = [effect.message for effect in mumbai.turn((from_branch("Delhi"), 0, doubt))]
    assert answer == StillPending(txn_of(3), id_of(3))
    assert mumbai.turn((BOSS, 0, Commit(txn_of(4), id_of(4), 7))) == []
    assert "mismatch" not in mumbai.engine.machine.alarms
    mumbai.tell()
    done = mumbai.ask(pay(1, "Mumbai/1", "Mumbai/2", 1))
    assert isinstance(done, Outcome)
    assert done.status == "committed"


def test_nothing_is_told_of_the_books_before_they_are_whole(mumbai: Promoted) -> None:
    """A balance without a debit that was told, or "no such transfer" of one that was: who believes it pays twice."""
    mumbai.registered()
    transfer = pay(5, "Mumbai/1", "Delhi/1", 30_00)
    questions: tuple[AnyMessage, ...] = (
        GetAccount("1"),
        GetTransfer(transfer.id),
        GetEntries("1", True, "", 10),
        ListAccounts("", 10),
        ListTransfers("", "", True, 0, FAR_US, "", 10),
    )
    for question in questions:
        answer = mumbai.ask(question)
        assert isinstance(answer, Fault), question
        assert answer.code == "busy"
    assert isinstance(mumbai.ask(GetStatus()), StatusInfo)
    mumbai.tell((5, transfer))
    for question in questions:
        assert not isinstance(mumbai.ask(question), Fault), question


def test_commits_are_posted_once_whatever_is_repeated(mumbai: Promoted) -> None:
    mumbai.registered()
    transfer = pay(5, "Mumbai/1", "Delhi/1", 30_00)
    mumbai.tell((5, transfer), (5, transfer), look=Look(50, 1, 1))
    mumbai.tell((5, transfer))
    assert mumbai.balance_minor("1") == 70_00
    assert mumbai.branch.clearing_minor == 30_00
    acked = mumbai.turn((BOSS, 0, Commit(txn_of(5), transfer.id, 105)))
    assert [type(effect.message).__name__ for effect in acked] == ["Position", "Ack"]
    again = mumbai.restarted()
    assert again.branch.promotion is None
    assert again.branch.total_minor == 0


def test_an_answer_that_came_in_part_is_asked_for_again(mumbai: Promoted) -> None:
    asked = mumbai.registered()
    told = redeliver(5, pay(5, "Mumbai/1", "Delhi/1", 1))
    effects = mumbai.turn((BOSS, 0, told), (BOSS, 0, Redelivering(2, None, asked)))
    assert [effect.message for effect in effects] == [GetDecisions("Mumbai", mumbai.place, Look())]
    assert mumbai.branch.promotion is not None
    (asked,) = [e.message for e in mumbai.tick(AGAIN_US + SECOND_US) if isinstance(e.message, GetDecisions)]
    assert asked.look == Look()


def test_an_answer_to_another_question_does_not_open_it(mumbai: Promoted) -> None:
    """To that of a replica promoted before this one, which had more; or of an earlier try."""
    asked = mumbai.registered()
    mumbai.turn((BOSS, 0, Redelivering(0, None, GetDecisions("Mumbai", asked.seq + 5, Look()))))
    mumbai.turn((BOSS, 0, Redelivering(0, None, GetDecisions("Mumbai", asked.seq, Look(50, 1, 1)))))
    assert mumbai.branch.promotion is not None
    mumbai.turn((BOSS, 0, Redelivering(0, None, asked)))
    assert mumbai.branch.promotion is None


@pytest.mark.parametrize("times", [1, 2])
def test_a_full_disk_does_not_keep_it_closed(mumbai: Promoted, times: int) -> None:
    """What came is thrown away with the machine (T2), and the coordinator, whose link is well, says nothing by itself."""
    mumbai.store.failures += [StorageFull("no room")] * times
    for _ in range(times):  # the first time it has not even asked
        mumbai.turn((BOSS, 0, Registered(BOSS.caller, 1, ())))
    _open_after_a_full_disk(mumbai)


def test_a_full_disk_at_the_end_of_what_is_told_does_not_keep_it_closed(mumbai: Promoted) -> None:
    mumbai.registered()
    mumbai.store.failures.append(StorageFull("no room"))
    mumbai.tell((7, pay(7, "Mumbai/1", "Delhi/1", 80_00)))
    mumbai.tell(count=1)  # of the same answer: the commit that it counts is lost
    _open_after_a_full_disk(mumbai)


def _open_after_a_full_disk(mumbai: Promoted) -> None:
    (asked,) = [e.message for e in mumbai.tick(AGAIN_US) if isinstance(e.message, GetDecisions)]
    assert asked == GetDecisions("Mumbai", mumbai.place, Look())
    mumbai.asked = asked
    mumbai.tell((7, pay(7, "Mumbai/1", "Delhi/1", 80_00)))
    assert mumbai.balance_minor("1") == 20_00


def test_what_an_account_cannot_bear_goes_to_suspense_with_a_lasting_alarm(mumbai: Promoted) -> None:
    mumbai.registered()
    mumbai.tell(
        (1, pay(1, "Mumbai/1", "Delhi/1", 60_00)),
        (2, pay(2, "Mumbai/1", "Delhi/1", 60_00)),  # 40.00 is left
        (3, pay(3, "Delhi/1", "Mumbai/9", 5_00)),  # there is no such account
    )
    assert mumbai.balance_minor("1") == 40_00
    assert mumbai.balance_minor(SUSPENSE) == -60_00 + 5_00
    assert mumbai.branch.total_minor == 0
    status = mumbai.ask(GetStatus())
    assert isinstance(status, StatusInfo)
    assert "Mumbai/suspense has -55.00 INR" in status.alarms[0]
    again = mumbai.restarted().ask(GetStatus())
    assert isinstance(again, StatusInfo)
    assert again.alarms == status.alarms


def test_suspense_is_settled_by_a_transfer_and_the_alarm_goes(mumbai: Promoted) -> None:
    mumbai.registered()
    mumbai.tell((1, pay(1, "Delhi/1", "Mumbai/9", 5_00)))
    assert mumbai.balance_minor(SUSPENSE) == 5_00
    outcome = mumbai.ask(pay(2, f"Mumbai/{SUSPENSE}", "Mumbai/1", 5_00))
    assert isinstance(outcome, Outcome)
    assert (mumbai.balance_minor(SUSPENSE), mumbai.balance_minor("1")) == (0, 105_00)
    status = mumbai.ask(GetStatus())
    assert isinstance(status, StatusInfo)
    assert status.alarms == ()


def test_a_frozen_account_bears_what_was_decided_a_closed_one_does_not(tmp_path: Path) -> None:
    freeze = (CUSTOMER, 1, ChangeAccount(id_of(60), "1", "frozen", -1))
    empty = (CUSTOMER, 1, pay(61, "Mumbai/2", "Mumbai/3", 100_00))
    close = (CUSTOMER, 1, ChangeAccount(id_of(62), "2", "closed", -1))
    mumbai = Promoted(tmp_path, freeze, empty, close)
    mumbai.registered()
    mumbai.tell((1, pay(1, "Mumbai/1", "Delhi/1", 60_00)), (2, pay(2, "Delhi/1", "Mumbai/2", 1_00)))
    assert mumbai.balance_minor("1") == 40_00
    assert mumbai.balance_minor(SUSPENSE) == 1_00


def test_what_is_held_for_it_bears_it(tmp_path: Path) -> None:
    """The vote is there, the commit is lost: the money was set aside."""
    transfer = pay(7, "Mumbai/1", "Delhi/1", 90_00)
    spent = (CUSTOMER, 1, pay(8, "Mumbai/1", "Mumbai/2", 10_00))
    mumbai = Promoted(tmp_path, (BOSS, 0, prepare(txn_of(7), transfer)), spent)
    mumbai.registered()
    mumbai.tell((7, transfer))
    assert mumbai.balance_minor("1") == 0
    assert mumbai.branch.suspense_minor == 0
    assert mumbai.branch.prepared == {}


def test_an_id_that_was_held_by_a_txn_given_up_is_freed(tmp_path: Path) -> None:
    transfer = pay(7, "Mumbai/1", "Delhi/1", 80_00)  # twice is more than there is
    mumbai = Promoted(tmp_path, (BOSS, 0, prepare(txn_of(7), transfer)))
    mumbai.registered()
    told = redeliver(7, transfer)
    other = Redeliver(
        txn_of(8), told.id, told.number, told.legs, told.currency, told.memo, told.effective_on, told.digest, told.caller
    )
    mumbai.turn((BOSS, 0, other), (BOSS, 0, Redelivering(1, None, mumbai.asked)))
    assert mumbai.balance_minor("1") == 20_00
    assert mumbai.branch.suspense_minor == 0
    assert mumbai.branch.prepared == {}
    assert mumbai.branch.book.accounts["1"].held_minor == 0


def test_a_second_promotion_asks_for_what_the_first_was_not_told(mumbai: Promoted) -> None:
    """The promoted branch is lost before it opened: a commit that its own replica lacks may have been voted for, and
    acked, on any row after the one that the first took over."""
    mumbai.registered()
    told = (redeliver(n, pay(n, "Mumbai/1", "Delhi/1", 1_00)) for n in range(1, 6))
    mumbai.turn(*((BOSS, 0, one) for one in told))
    copy = Desk(REPLICA, "Mumbai", mumbai.path.parent, mumbai.clock)
    copy.turn((FROM_MUMBAI, 0, rows_page(mumbai.store, GetRows(0, 1_000), mumbai.store.seq)))
    assert copy.store.seq > mumbai.place + 5
    copy.store.close()
    mumbai.store.close()
    roles._take_over(copy.path, copy.store.identity, TakesOver(11, "asha", ""))
    _put_in_place(copy.path, mumbai.path)
    again = mumbai.restarted()
    (asked,) = [
        effect.message
        for effect in again.turn((BOSS, 0, Registered(BOSS.caller, 1, ())))
        if isinstance(effect.message, GetDecisions)
    ]
    assert asked.seq == mumbai.place
    again.engine.post()
    again = again.restarted()
    promotion = again.branch.promotion
    assert promotion is not None
    assert (promotion.seq, promotion.reconciled) == (mumbai.place, [])
