"""Accounts at a branch: opening, changing, looking (PROTOCOL P4, P7, T3)."""

from __future__ import annotations

import pytest

from tests.unit.protocol_support import BranchDesk, branch_desk, id_of, legs_of, transfer
from zbank.domain.legs import MAX_MINOR
from zbank.protocol.machine import CONFLICTING_ID, Sender, Wanted
from zbank.protocol.messages import (
    ABORTED,
    COMMITTED,
    AccountInfo,
    AnyMessage,
    ChangeAccount,
    Fault,
    GetAccount,
    OpenAccount,
    Opened,
    Outcome,
)
from zbank.protocol.records import Started

OTHER = Sender(b"other", "client", "somebody else")


def mumbai() -> BranchDesk:
    return branch_desk("Mumbai", {"1001": 100, "1002": 0}, overdraft_limits={"1002": 50})


def opening(n: int, number: str = "", owner: str = "Ada", currency: str = "", limit_minor: int = 0) -> OpenAccount:
    return OpenAccount(id_of(n), number, owner, currency, limit_minor)


def opened(answer: AnyMessage) -> Opened:
    assert isinstance(answer, Opened)
    return answer


def refusal_code(answer: AnyMessage) -> str:
    assert isinstance(answer, Outcome)
    assert answer.status == ABORTED
    assert answer.refusal is not None
    return answer.refusal.code


def changed(answer: AnyMessage) -> Outcome:
    assert isinstance(answer, Outcome)
    assert (answer.status, answer.refusal) == (COMMITTED, None)
    return answer


def test_a_new_branch_opens_its_system_accounts_once() -> None:
    """DESIGN §2: `cash` and `clearing` are there from the first start on."""
    desk = branch_desk("Mumbai")
    assert set(desk.state.book.accounts) == {"cash", "clearing"}
    again = desk.restarted()
    assert isinstance(again.last, Started)
    assert again.state.account_count == 2
    assert again.epoch == 2


def test_an_account_is_opened_and_seen() -> None:
    """What is asked for is what stands there, in the same batch already."""
    desk = mumbai()
    done = opened(desk.ask(opening(1, "savings", "Ada", "INR", 500)))
    assert not done.replayed
    info = desk.ask(GetAccount("savings"))
    assert info == done.account == AccountInfo("savings", "Ada", "INR", "open", 0, 0, 500, desk.clock.now().wall_us)
    assert desk.state.account_count == 5


def test_numbers_are_given_in_turn() -> None:
    """A number that was chosen is never given again, and leading zeros make another name."""
    desk = branch_desk("Mumbai")
    numbers = [opened(desk.ask(opening(n, number))).account.number for n, number in enumerate(["", "1005", "", "01009", ""])]
    assert numbers == ["1001", "1005", "1006", "01009", "1010"]


def test_a_branch_out_of_numbers_says_so() -> None:
    """A chosen number of the last length cannot make the branch give a number twice, or open an account over another."""
    desk = branch_desk("Mumbai")
    desk.ask(opening(1, "1" + "0" * 17))
    opened(desk.ask(opening(2, "9" * 17)))
    assert refusal_code(desk.ask(opening(3))) == "limit_exceeded"
    assert opened(desk.ask(opening(4, "7"))).account.number == "7"


@pytest.mark.parametrize(
    ("message", "code"),
    [
        (opening(1, "1001"), "account_exists"),
        (opening(1, "clearing"), "system_account"),
        (opening(1, "suspense"), "system_account"),
        (opening(1, "9", currency="EUR"), "currency_mismatch"),
    ],
)
def test_refused_openings_stand(message: OpenAccount, code: str) -> None:
    """P6: recorded, and told again."""
    desk = mumbai()
    assert refusal_code(desk.ask(message)) == code
    assert refusal_code(desk.restarted().ask(message)) == code
    assert desk.state.account_count == 4


def test_a_name_that_is_none_is_no_outcome() -> None:
    """P6: malformed is a fault and leaves no record."""
    desk = mumbai()
    before = len(desk.lines)
    answer = desk.ask(opening(1, "a b"))
    assert isinstance(answer, Fault)
    assert answer.code == "malformed"
    assert len(desk.lines) == before


def test_a_repeated_opening_shows_the_account() -> None:
    """P7: the same number, not another account; as it stands now."""
    desk = mumbai()
    number = opened(desk.ask(opening(1))).account.number
    desk.ask(transfer(2, legs_of(Mumbai_1001=-10, **{f"Mumbai_{number}": 10})))
    again = opened(desk.restarted().ask(opening(1)))
    assert (again.replayed, again.account.number, again.account.balance_minor) == (True, number, 10)
    assert desk.ask(opening(1, owner="Bob")) == CONFLICTING_ID
    assert desk.ask(opening(1), OTHER) == CONFLICTING_ID


def test_a_repeated_opening_needs_its_account() -> None:
    """T3: the account of a settled opening is asked of the store, also when the branch gave its number."""
    desk = mumbai()
    number = opened(desk.ask(opening(1))).account.number
    del desk.state.book.accounts[number]
    wanted = Wanted()
    desk.machine.want(opening(1), wanted)
    assert number in wanted.numbers


def test_a_repeated_change_is_told_as_the_first() -> None:
    """P7: an outcome, marked as a replay; it changes nothing, even when the account was changed again since."""
    desk = mumbai()
    freeze = ChangeAccount(id_of(1), "1001", "frozen", -1)
    first = changed(desk.ask(freeze))
    changed(desk.ask(ChangeAccount(id_of(2), "1001", "open", -1)))
    again = changed(desk.restarted().ask(freeze))
    assert (again.replayed, again.at_us) == (True, first.at_us)
    assert desk.state.book.accounts["1001"].status == "open"


@pytest.mark.parametrize(
    ("number", "status", "limit_minor", "expected"),
    [
        ("1001", "frozen", -1, ("frozen", 0)),
        ("1001", "", 70, ("open", 70)),
        ("1001", "frozen", MAX_MINOR, ("frozen", MAX_MINOR)),
        ("1002", "closed", -1, ("closed", 50)),
        ("1002", "", 0, ("open", 0)),
    ],
)
def test_changes(number: str, status: str, limit_minor: int, expected: tuple[str, int]) -> None:
    """Only what is named changes, and the record has both."""
    desk = mumbai()
    changed(desk.ask(ChangeAccount(id_of(1), number, status, limit_minor)))
    for state in (desk.state, desk.restarted().state):
        account = state.book.accounts[number]
        assert (account.status, account.overdraft_limit_minor) == expected


@pytest.mark.parametrize(
    ("number", "status", "limit_minor", "code"),
    [
        ("9999", "frozen", -1, "account_not_found"),
        ("cash", "frozen", -1, "system_account"),
        ("clearing", "", 5, "system_account"),
        ("1001", "closed", -1, "account_not_empty"),
    ],
)
def test_refused_changes(number: str, status: str, limit_minor: int, code: str) -> None:
    """P6: outcomes that stand."""
    desk = mumbai()
    for _ in range(2):
        assert refusal_code(desk.ask(ChangeAccount(id_of(1), number, status, limit_minor))) == code


def test_closed_is_for_good() -> None:
    """Neither money nor a change comes to it any more."""
    desk = mumbai()
    changed(desk.ask(ChangeAccount(id_of(1), "1002", "closed", -1)))
    assert refusal_code(desk.ask(ChangeAccount(id_of(2), "1002", "open", -1))) == "account_closed"
    assert refusal_code(desk.ask(transfer(3, legs_of(Mumbai_1001=-1, Mumbai_1002=1)))) == "account_closed"


def test_a_used_overdraft_limit_is_not_lowered() -> None:
    """P4: what is used stays allowed; raising and what is not used are free."""
    desk = mumbai()
    desk.ask(transfer(9, legs_of(Mumbai_1002=-30, Mumbai_1001=30)))
    assert refusal_code(desk.ask(ChangeAccount(id_of(1), "1002", "", 29))) == "limit_exceeded"
    for n, limit_minor in ((2, 30), (3, 80)):
        changed(desk.ask(ChangeAccount(id_of(n), "1002", "", limit_minor)))


def test_a_status_that_is_none_is_no_outcome() -> None:
    """P6: malformed."""
    answer = mumbai().ask(ChangeAccount(id_of(1), "1001", "asleep", -1))
    assert isinstance(answer, Fault)
    assert answer.code == "malformed"


def test_an_account_that_is_not_there() -> None:
    """Reads get a fault with the refusal's code."""
    answer = mumbai().ask(GetAccount("9999"))
    assert isinstance(answer, Fault)
    assert (answer.code, answer.detail) == ("account_not_found", "there is no account Mumbai/9999")
