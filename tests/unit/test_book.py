"""The book: what accounts can bear, whatever is asked of them in whatever order (DESIGN §2, PROTOCOL P4)."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from zbank.domain.account import CLOSED, FROZEN, OPEN, Account
from zbank.domain.book import Book, Movement, branch_movements, net
from zbank.domain.legs import MAX_MINOR, Leg

NUMBERS = ("1001", "1002", "1003")
ALL = (*NUMBERS, "cash", "clearing")


def new_book(**balances: int) -> Book:
    """A book with all accounts open; cash has what the others' sum needs."""
    book = Book("Mumbai", "INR")
    named = {f"100{name[-1]}": balance for name, balance in balances.items()}
    for number in ALL:
        balance = named.get(number, -sum(named.values()) if number == "cash" else 0)
        book.accounts[number] = Account(number, "", "INR", OPEN, 0, balance, 0, 0, 0)
    return book


def test_movements_of_a_branch_sum_to_zero() -> None:
    """The legs in their order, then clearing for what is missing; no clearing where nothing is."""
    legs = [Leg("Mumbai", "1", -70), Leg("Delhi", "1", 90), Leg("Mumbai", "2", -20)]
    assert branch_movements(legs, "Mumbai") == [("1", -70), ("2", -20), ("clearing", 90)]
    assert branch_movements(legs, "Delhi") == [("1", 90), ("clearing", -90)]
    assert branch_movements(legs, "Pune") == []
    assert branch_movements([Leg("Pune", "1", -5), Leg("Pune", "2", 5)], "Pune") == [("1", -5), ("2", 5)]


def test_net_by_account() -> None:
    """Several movements of one account are one amount."""
    assert net([("1", -5), ("2", 3), ("1", 4), ("3", -2)]) == {"1": -1, "2": 3, "3": -2}


def test_entries_carry_the_running_balance() -> None:
    """In the order of the movements."""
    book = new_book(a1=100)
    movements = [("1001", -30), ("1002", 40), ("1001", -10)]
    assert book.post(movements) == [("1001", -30, 70), ("1002", 40, 40), ("1001", -10, 60)]


def test_a_posting_that_does_not_sum_to_zero_is_a_bug() -> None:
    """Never silently wrong."""
    with pytest.raises(AssertionError, match="would unbalance Mumbai"):
        new_book(a1=100).post([("1001", -30), ("1002", 29)])


@pytest.mark.parametrize("order", [(5, -10), (-10, 5)])
def test_no_balance_leaves_63_bits_on_the_way(order: tuple[int, int]) -> None:
    """A credit to an account that is full waits for the debit of the same posting; the store could not hold the entry."""
    book = new_book(a1=MAX_MINOR)
    movements = [*(("1001", amount) for amount in order), ("1002", 5)]
    assert book.check(net(movements), "INR") is None
    assert sorted(book.post(movements)) == [("1001", -10, MAX_MINOR - 10), ("1001", 5, MAX_MINOR - 5), ("1002", 5, 5)]


def test_a_posting_that_cannot_be_done_at_all_is_a_bug() -> None:
    """It ends with an error, not with turning in circles."""
    with pytest.raises(AssertionError, match="would leave 63 bits"):
        new_book(a1=MAX_MINOR).post([("1001", 1), ("1002", -1)])


@pytest.mark.parametrize(("balance_minor", "amount_minor"), [(MAX_MINOR, -MAX_MINOR), (-MAX_MINOR, MAX_MINOR)])
def test_what_is_promised_stays_within_63_bits(balance_minor: int, amount_minor: int) -> None:
    """Two promises that the account could bear one after the other, but whose sum the store could not hold."""
    book = new_book(a1=-balance_minor)
    amounts = {"cash": amount_minor}
    assert book.check(amounts, "INR") is None
    book.hold(amounts)
    refusal = book.check({"cash": amount_minor}, "INR")
    assert refusal is not None
    assert refusal.code == "limit_exceeded"


def test_a_system_account_stays_within_63_bits() -> None:
    """`cash` may go below zero, by 63 bits; what is promised counts."""
    book = new_book(a1=100)  # cash has -100
    book.hold({"cash": -50})
    assert book.check({"cash": -(MAX_MINOR - 150)}, "INR") is None
    refusal = book.check({"cash": -(MAX_MINOR - 149)}, "INR")
    assert refusal is not None
    assert refusal.code == "limit_exceeded"


@pytest.mark.parametrize("promise_minor", [-10, 10])
def test_an_account_with_a_promise_cannot_close(promise_minor: int) -> None:
    """P4: a debit from the overdraft or a credit that is on its way."""
    book = new_book()
    book.accounts["1001"].overdraft_limit_minor = 50
    assert book.check_change("1001", CLOSED, 50) is None
    book.hold({"1001": promise_minor})
    refusal = book.check_change("1001", CLOSED, 50)
    assert refusal is not None
    assert refusal.code == "account_not_empty"


def test_a_limit_is_not_lowered_below_what_is_held() -> None:
    """P4: 30 of 20 are promised, so 10 of the overdraft must stay."""
    book = new_book(a1=20)
    book.accounts["1001"].overdraft_limit_minor = 50
    book.hold({"1001": -30})
    assert book.check_change("1001", OPEN, 10) is None
    refusal = book.check_change("1001", OPEN, 9)
    assert refusal is not None
    assert refusal.code == "limit_exceeded"


@pytest.mark.parametrize(
    ("status", "code"),
    [(FROZEN, "account_frozen"), (CLOSED, "account_closed")],
)
@pytest.mark.parametrize("amount_minor", [-1, 0, 1])
def test_accounts_that_are_not_open(status: str, code: str, amount_minor: int) -> None:
    """Neither debits nor credits, nor legs that cancel."""
    book = new_book(a1=100)
    book.accounts["1001"].status = status
    refusal = book.check({"1001": amount_minor, "1002": -amount_minor}, "INR")
    assert refusal is not None
    assert refusal.code == code


def test_a_refusal_tells_the_amounts_in_the_accounts_currency() -> None:
    """One plain sentence."""
    refusal = new_book(a1=100).check({"1001": -12345}, "INR")
    assert refusal is not None
    assert refusal.detail == "Mumbai/1001 has 1.00 INR available, 123.45 is needed"


def test_trim_keeps_what_is_pinned() -> None:
    """T4: accounts with unposted records stay; a book within its bound stays whole."""
    book = new_book()
    book.trim(5, ["1001"])
    assert len(book.accounts) == 5
    book.trim(4, ["1001", "never opened"])
    assert list(book.accounts) == ["1001"]


amounts = st.one_of(st.integers(1, 200), st.sampled_from([2**62, MAX_MINOR - 1, MAX_MINOR]))
signed = st.builds(lambda amount, sign: amount * sign, amounts, st.sampled_from([-1, 1]))
movement_lists = st.lists(st.tuples(st.sampled_from((*NUMBERS, "cash")), signed), min_size=1, max_size=6)


def balanced(movements: list[Movement]) -> list[Movement]:
    """As a branch does it: clearing takes the rest."""
    rest = -sum(amount for _, amount in movements)
    return [*movements, ("clearing", rest)] if rest else movements


class Branch(RuleBasedStateMachine):
    """Postings, promises, kept and released, changes of accounts: everything that touches a book, in any order."""

    @initialize(limit_minor=st.sampled_from([0, 0, 100, MAX_MINOR]))
    def begin(self, limit_minor: int) -> None:
        self.book = new_book(a1=100, a2=50)
        self.book.accounts["1003"].overdraft_limit_minor = limit_minor
        self.promised: list[list[Movement]] = []

    @rule(movements=movement_lists)
    def post_at_once(self, movements: list[Movement]) -> None:
        movements = balanced(movements)
        before = {number: account.balance_minor for number, account in self.book.accounts.items()}
        if self.book.check(net(movements), "INR") is not None:
            return
        running = dict(before)
        for number, amount_minor, balance_minor in self.book.post(movements):
            running[number] += amount_minor
            assert running[number] == balance_minor
            assert -MAX_MINOR <= balance_minor <= MAX_MINOR
        assert running == {number: before[number] + net(movements).get(number, 0) for number in before}

    @rule(movements=movement_lists)
    def promise(self, movements: list[Movement]) -> None:
        movements = balanced(movements)
        if self.book.check(net(movements), "INR") is None:
            self.book.hold(net(movements))
            self.promised.append(movements)

    @rule(place=st.integers(0, 20), is_kept=st.booleans())
    def end_a_promise(self, place: int, is_kept: bool) -> None:
        """P4: whatever came between, a promise can be kept: nothing here checks again."""
        if place < len(self.promised):
            movements = self.promised.pop(place)
            self.book.release(net(movements))
            if is_kept:
                self.book.post(movements)

    @rule(
        number=st.sampled_from(ALL), status=st.sampled_from([OPEN, OPEN, FROZEN, CLOSED]), limit_minor=st.integers(0, 150)
    )
    def change(self, number: str, status: str, limit_minor: int) -> None:
        if self.book.check_change(number, status, limit_minor) is None:
            account = self.book.accounts[number]
            assert status != CLOSED or not (account.balance_minor or account.held_minor or account.incoming_minor)
            account.status, account.overdraft_limit_minor = status, limit_minor

    @invariant()
    def books_sum_to_zero(self) -> None:
        if hasattr(self, "book"):
            assert sum(account.balance_minor for account in self.book.accounts.values()) == 0

    @invariant()
    def nobody_is_below_the_limit_and_nothing_leaves_63_bits(self) -> None:
        for account in self.book.accounts.values() if hasattr(self, "book") else ():
            assert account.is_system or account.available_minor >= 0
            for value in (account.balance_minor, account.held_minor, account.incoming_minor):
                assert -MAX_MINOR <= value <= MAX_MINOR

    @invariant()
    def held_is_what_was_promised(self) -> None:
        for account in self.book.accounts.values() if hasattr(self, "book") else ():
            nets = [net(movements).get(account.number, 0) for movements in self.promised]
            assert account.held_minor == -sum(amount for amount in nets if amount < 0)
            assert account.incoming_minor == sum(amount for amount in nets if amount > 0)


TestBranch = Branch.TestCase
TestBranch.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)


@given(movements=movement_lists)
def test_what_is_refused_changes_nothing(movements: list[Movement]) -> None:
    """A check looks and does not touch."""
    book, untouched = new_book(a1=100), new_book(a1=100)
    book.check(net(movements), "INR")
    assert book.accounts == untouched.accounts
