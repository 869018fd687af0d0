"""The judge of `zbank chaos` can fail: each thing that may be wrong with a bank is planted, and must be found."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from zbank import TransferResult
from zbank.apps.chaos import run as chaos_run
from zbank.apps.chaos.books import OPENING_MEMO, Books
from zbank.apps.chaos.history import MAX_SHOWN, History, judge_answers, judge_books, unrest
from zbank.apps.chaos.report import Report, latency_of
from zbank.apps.cli import main
from zbank.domain.money import currency, format_amount
from zbank.domain.refusal import INSUFFICIENT_FUNDS, LIMIT_EXCEEDED, Refusal
from zbank.errors import RemoteFault, Unreachable, ZbankError
from zbank.ids import format_id, id_from_text
from zbank.protocol.messages import BRANCH, COORDINATOR, InDoubt, StatusInfo, Txn
from zbank.transport.views import AccountView, ActorDown, EntryView

INR = currency("INR")
PRELOADED = {"1001": 1_000_000, "1002": 500_000}  # minor units


def uuid(id: str) -> str:
    return format_id(id_from_text(id))


class PlayedBank:
    """Two branches' books in memory: Mumbai and Delhi."""

    def __init__(self) -> None:
        self.entries: dict[str, list[tuple[str, int, str]]] = {}  # by account: (id, amount, memo)
        for branch in ("Mumbai", "Delhi"):
            for number, amount_minor in PRELOADED.items():
                self.post(f"open {branch}/{number}", f"{branch}/{number}", amount_minor, OPENING_MEMO)
                self.post(f"open {branch}/{number}", f"{branch}/cash", -amount_minor, OPENING_MEMO)
            self.entries.setdefault(f"{branch}/clearing", [])

    def post(self, id: str, account: str, amount_minor: int, memo: str = "") -> None:
        self.entries.setdefault(account, []).append((uuid(id), amount_minor, memo))

    def pay(self, id: str, amount_minor: int = 5_000) -> None:
        """From Mumbai/1001 to Delhi/1001, by the book."""
        self.post(id, "Mumbai/1001", -amount_minor)
        self.post(id, "Mumbai/clearing", amount_minor)
        self.post(id, "Delhi/clearing", -amount_minor)
        self.post(id, "Delhi/1001", amount_minor)

    def books(self) -> Books:
        books = Books()
        for account, posted in self.entries.items():
            branch, number = account.split("/")
            balance_minor = 0
            lines: list[EntryView] = []
            for seq, (id, amount_minor, memo) in enumerate(posted):
                balance_minor += amount_minor
                amount, balance = format_amount(amount_minor, INR), format_amount(balance_minor, INR)
                lines.append(EntryView(id, 0, "", amount, balance, "INR", memo, (), seq))
            books.add(AccountView(branch, number, "", "INR", "open", balance_minor, 0, 0, 0), lines)
        return books


class Story:
    """A history in which "paid" was committed and "refused" was not, and the books that go with it."""

    def __init__(self) -> None:
        self.bank = PlayedBank()
        self.history = History()
        self.numbers = count(1)
        for id in ("paid", "refused"):
            self.ask(id)
        self.tell("paid", "committed")
        self.bank.pay("paid")
        self.tell("refused", "aborted", INSUFFICIENT_FUNDS)

    def ask(self, id: str) -> None:
        self.history.ask(id, (("Mumbai/1001", -50), ("Delhi/1001", 50)), 0.0)

    def tell(self, id: str, status: str, code: str = "", number: int = 0) -> None:
        refusal = Refusal(code, "no") if code else None
        self.answer(id, TransferResult(uuid(id), status, refusal, number=number))

    def answer(self, id: str, answer: TransferResult | ZbankError) -> None:
        self.history.answer(id, answer, 1.0)

    def findings(self) -> list[str]:
        return judge_answers(self.history) + judge_books(self.history, self.bank.books())


def test_a_bank_that_kept_its_word() -> None:
    story = Story()
    story.tell("paid", "committed")
    story.tell("paid", "unknown")
    story.answer("refused", Unreachable("gone"))
    story.answer("refused", RemoteFault("busy", "later"))
    assert story.findings() == []
    assert story.history.faults == {"unknown": 1, "unreachable": 1, "busy": 1}
    assert story.history.longest_settle_s == 1.0


def claim_a_commit(story: Story) -> None:
    story.ask("claimed")
    story.tell("claimed", "committed")


def pay_what_was_aborted(story: Story) -> None:
    story.bank.pay("refused")


def pay_another_amount(story: Story) -> None:
    story.ask("less")
    story.tell("less", "committed")
    story.bank.pay("less", 4_900)


def post_one_leg_only(story: Story) -> None:
    story.ask("half")
    story.tell("half", "committed")
    story.bank.post("half", "Mumbai/1001", -5_000)
    story.bank.post("half", "Mumbai/clearing", 5_000)


def post_twice(story: Story) -> None:
    story.bank.pay("paid")


def pay_what_nobody_asked_for(story: Story) -> None:
    story.bank.pay("ghost")


def open_twice(story: Story) -> None:
    story.bank.post("open again", "Delhi/1002", 500_000, OPENING_MEMO)
    story.bank.post("open again", "Delhi/cash", -500_000, OPENING_MEMO)


def lose_a_leg_of_the_books(story: Story) -> None:
    story.bank.post("paid", "Mumbai/cash", 1)


def overdraw(story: Story) -> None:
    story.ask("rich")
    story.history.asked["rich"] = (("Mumbai/1002", -6_000), ("Mumbai/1001", 6_000))
    story.tell("rich", "committed")
    story.bank.post("rich", "Mumbai/1002", -600_000)
    story.bank.post("rich", "Mumbai/1001", 600_000)


def never_tell(story: Story) -> None:
    story.ask("stuck")
    story.tell("stuck", "pending")
    story.tell("stuck", "unknown")


def change_the_outcome(story: Story) -> None:
    story.tell("refused", "committed")


def change_the_number(story: Story) -> None:
    story.tell("paid", "committed", number=8)


def refuse_without_reason(story: Story) -> None:
    story.ask("limited")
    story.tell("limited", "aborted", LIMIT_EXCEEDED)


def fail_strangely(story: Story) -> None:
    story.answer("paid", RemoteFault("not_for_me", "a branch does not take Transfer"))


@pytest.mark.parametrize(
    ("spoil", "found"),
    [
        (claim_a_commit, "claimed: told committed, and not in the books"),
        (pay_what_was_aborted, "refused: told aborted (insufficient_funds), and in the books"),
        (
            pay_another_amount,
            "less: told committed as Delhi/1001 50.00, Mumbai/1001 -50.00, posted as Delhi/1001 49.00",
        ),
        (post_one_leg_only, "clearing does not cancel, 5000 minor units are left"),
        (post_twice, "is posted twice to Mumbai/1001"),
        (pay_what_nobody_asked_for, "is in the books, and nobody asked for it"),
        (open_twice, "Delhi/1002 has 10000.00, by the history 5000.00"),
        (lose_a_leg_of_the_books, "the books of Mumbai sum to 1 minor units"),
        (overdraw, "Mumbai/1002 has -1000.00, and may not be overdrawn"),
        (never_tell, "stuck: no outcome was ever told"),
        (change_the_outcome, "refused: told aborted (insufficient_funds), and later committed"),
        (change_the_number, "paid: told committed, and later committed as number 8"),
        (refuse_without_reason, "limited: aborted by limit_exceeded, which nothing here can cause"),
        (fail_strangely, "paid: an answer that no fault explains"),
    ],
)
def test_what_is_wrong_is_found(spoil: Callable[[Story], None], found: str) -> None:
    story = Story()
    spoil(story)
    findings = story.findings()
    assert any(found in finding for finding in findings), findings


def test_a_statement_that_does_not_add_up_is_found() -> None:
    books = Books()
    entry = EntryView("id", 0, "", "5.00", "6.00", "INR", "", (), 1)
    books.add(AccountView("Mumbai", "1001", "", "INR", "open", 700, 100, 0, 0), [entry])
    found = "\n".join(books.findings())
    for text in (
        "holds 1.00 at rest",
        "the balance after id is 6.00",
        "the balance is 7.00, the entries say otherwise",
    ):
        assert text in found


def test_of_many_findings_of_one_sort_some_are_listed_and_all_are_counted() -> None:
    story = Story()
    for n in range(1_234):
        story.ask(f"stuck {n}")
    findings = story.findings()
    assert len(findings) == MAX_SHOWN + 1
    assert findings[-1] == "stuck: and 1,229 more"


def test_other_payments_may_be_in_the_books_when_they_are_named() -> None:
    story = Story()
    story.bank.pay("cash desk")
    assert judge_books(story.history, story.bank.books(), ["cash desk"]) == []


# --- rest -------------------------------------------------------------------------------------------------------------


def info(**changed: Any) -> StatusInfo:
    fields: dict[str, Any] = {
        "role": BRANCH,
        "name": "Mumbai",
        "cluster": "chaos",
        "instance": bytes(16),
        "epoch": 1,
        "seq": 1,
        "number": 1,
        "uptime_us": 1,
        "accounts": 4,
        "total_minor": 0,
        "clearing_minor": 0,
        "unposted": 0,
        "in_flight": 0,
        "in_doubt": (),
        "journal_bytes": 1,
        "alarms": (),
        "version": "1",
    }
    return StatusInfo(**fields | changed)


DOUBT = InDoubt(Txn("coordinator", 1, 7), id_from_text("stuck"), 9_000_000)


@pytest.mark.parametrize(
    ("actor", "found"),
    [
        (info(in_flight=2), "Mumbai has 2 transfers in flight"),
        (info(in_doubt=(DOUBT,)), f"Mumbai is in doubt about {uuid('stuck')}"),
        (info(alarms=("the disk is full",)), "Mumbai has an alarm: the disk is full"),
        (info(total_minor=5), "the books of Mumbai sum to 0.05"),
        (info(clearing_minor=5), "all clearing accounts sum to 0.05"),
        (ActorDown(BRANCH, "Mumbai", "tcp://127.0.0.1:1", "no answer"), "branch Mumbai does not answer: no answer"),
    ],
)
def test_unrest_is_found(actor: StatusInfo | ActorDown, found: str) -> None:
    coordinator = info(role=COORDINATOR, name="coordinator", accounts=-1)
    assert unrest([coordinator, info()], 2) == []
    assert any(found in reason for reason in unrest([coordinator, actor], 2))
    assert unrest([coordinator], 2) == ["only 1 of 2 actors are known"]


# --- what comes of findings -------------------------------------------------------------------------------------------


def report(findings: list[str]) -> Report:
    counts = {"asked": 1, "committed": 1, "aborted": 0, "unknown": 0}
    none = latency_of([])
    return Report("1", 7, 1.0, 3, {"kill": 2}, 1, counts, {}, none, none, 1.0, findings, directory="/tmp/kept")


@pytest.mark.parametrize("findings", [[], ["stuck: x: no outcome was ever told"]])
@pytest.mark.parametrize("as_json", [True, False])
def test_the_command_ends_with_1_and_says_what_was_found(
    findings: list[str], as_json: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chaos_run, "run", lambda order, say: report(findings))
    with monkeypatch.context() as patched:
        patched.setattr("signal.signal", lambda *_: None)
        done = CliRunner().invoke(main, ["chaos", "--seed", "7", *(["--json"] if as_json else [])])
    assert done.exit_code == (1 if findings else 0)
    if as_json:
        assert json.loads(done.stdout)["findings"] == findings
    else:
        assert (findings[0] if findings else "none: the bank kept its word") in done.stdout
    if findings:
        assert "zbank chaos --seed 7 --minutes 1 --branches 3" in done.stderr
        assert "/tmp/kept" in done.stderr


def test_the_page_has_everything() -> None:
    page = report(["stuck: a|b"]).to_markdown()
    assert "| run | zbank 1, seed 7, 1 min, 3 branches |" in page
    assert "| connections broken | 1 in mid-message |" in page
    assert "| FINDING | stuck: a\\|b |" in page
    assert "2 kill" not in page, "the faults are listed once, in their own table"
    assert "| kill | 2 |" in page
    assert "`zbank chaos --seed 7 --minutes 1 --branches 3`" in page


def test_the_text_has_the_broken_connections() -> None:
    assert ("connections broken", "1 in mid-message") in report([]).facts()
    assert ("faults", "2 kill") in report([]).facts()


# --- wrong usage: nothing starts --------------------------------------------------------------------------------------


@pytest.fixture
def _nothing_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(order: object, say: object) -> None:
        raise AssertionError("it was started")

    monkeypatch.setattr(chaos_run, "run", fail)
    monkeypatch.setattr("signal.signal", lambda *_: None)


@pytest.mark.usefixtures("_nothing_starts")
@pytest.mark.parametrize("minutes", ["nan", "NaN", "inf", "-inf", "0", "0.09", "-1", "61", "ten"])
def test_a_time_that_is_none_is_wrong_usage(minutes: str) -> None:
    done = CliRunner().invoke(main, ["chaos", "--minutes", minutes])
    assert done.exit_code == 2, done.output
    assert "--minutes" in done.stderr


@pytest.mark.usefixtures("_nothing_starts")
@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("no/such/report.md", "No such file or directory"),
        ("a file/report.md", "Not a directory"),
        ("x" * 300, "too long"),
    ],
)
def test_a_report_that_cannot_be_written_is_wrong_usage(name: str, reason: str, tmp_path: Path) -> None:
    (tmp_path / "a file").touch()
    done = CliRunner().invoke(main, ["chaos", "--report", str(tmp_path / name)])
    assert done.exit_code == 2, done.output
    assert f"{name} cannot be written: " in done.stderr
    assert reason in done.stderr


@pytest.mark.parametrize("before", [None, "an older report"])
def test_looking_whether_a_report_can_be_written_changes_nothing(
    before: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "report.md"
    if before is not None:
        file.write_text(before, "utf-8")
    found: list[str | None] = []

    def look(order: object, say: object) -> Report:
        found.append(file.read_text("utf-8") if file.exists() else None)
        return report([])

    monkeypatch.setattr(chaos_run, "run", look)
    with monkeypatch.context() as patched:
        patched.setattr("signal.signal", lambda *_: None)
        done = CliRunner().invoke(main, ["chaos", "--report", str(file)])
    assert done.exit_code == 0
    assert found == [before]
    assert file.read_text("utf-8").startswith("# Chaos")
