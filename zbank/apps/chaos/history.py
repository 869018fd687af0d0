"""What the customers of a load were told, and its judgement by the books. All that may be wrong with a bank at rest is here.

A finding is one plain sentence about something that must not be. No finding: the bank kept its word.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import NamedTuple

from zbank.apps.branch import PRELOAD
from zbank.apps.chaos.books import Books
from zbank.domain.money import currency, format_amount, parse_amount, parse_signed_amount
from zbank.domain.refusal import INSUFFICIENT_FUNDS
from zbank.errors import RemoteFault, Unreachable, ZbankError
from zbank.ids import format_id, id_from_text
from zbank.protocol.messages import ABORTED, BRANCH, COMMITTED, StatusInfo
from zbank.transport.views import ActorDown, TransferResult

CURRENCY = "INR"  #: of all accounts of a load
FINAL = (COMMITTED, ABORTED)
REFUSALS = {INSUFFICIENT_FUNDS}  #: the only business "no" that a load asks for
NOT_DONE = {
    "branch_unavailable",
    "busy",
    "storage_full",
    "out_of_office",
}  #: faults that a load may meet in a broken bank
MAX_SHOWN = 5  #: findings of one sort that are listed; the rest is counted
MAX_CONTRADICTIONS = 1_000

Legs = tuple[tuple[str, int], ...]  #: (account, signed amount in whole units)


class Told(NamedTuple):
    """A final outcome, as far as it must never change."""

    status: str
    refusal_code: str
    number: int


class History:
    """All that was asked, and all that was answered. One thread asks, another may answer."""

    def __init__(self) -> None:
        self.asked: dict[str, Legs] = {}  #: by the customer's own id
        self.told: dict[str, Told] = {}
        self.faults: Counter[str] = Counter()  #: answers that were no outcome, by code
        self.contradictions: list[str] = []  #: answers that must not be
        self.longest_settle_s = 0.0  #: from first asking for a transfer until its outcome was told
        self._open: dict[str, float] = {}  # when those that were not told yet were first asked for; monotonic

    @property
    def open_count(self) -> int:
        """Transfers whose outcome was not told yet."""
        return len(self._open)

    def open_ids(self) -> list[str]:
        """Their ids."""
        return list(self._open)

    def ask(self, id: str, legs: Legs, now_s: float) -> None:
        """A customer asks for this for the first time."""
        self.asked[id] = legs
        self._open[id] = now_s

    def answer(self, id: str, answer: TransferResult | ZbankError, now_s: float) -> bool:
        """Note an answer. True when it was an outcome."""
        if isinstance(answer, ZbankError):
            code = answer.remote_code if isinstance(answer, RemoteFault) else answer.code
            self.faults[code] += 1
            if not isinstance(answer, Unreachable) and code not in NOT_DONE:
                self._contradict(f"{id}: an answer that no fault explains: {answer!r}")
            return False
        if answer.status not in FINAL:
            self.faults[answer.status] += 1
            return False
        told = Told(answer.status, answer.refusal.code if answer.refusal else "", answer.number)
        known = self.told.setdefault(id, told)
        if known != told:
            self._contradict(f"{id}: told {_words(known)}, and later {_words(told)}")
        asked_s = self._open.pop(id, None)
        if asked_s is not None:
            self.longest_settle_s = max(self.longest_settle_s, now_s - asked_s)
        return True

    def _contradict(self, text: str) -> None:
        if len(self.contradictions) < MAX_CONTRADICTIONS:
            self.contradictions.append(text)


def _words(told: Told) -> str:
    why = f" ({told.refusal_code})" if told.refusal_code else ""
    return f"{told.status}{why}" + (f" as number {told.number}" if told.number else "")


# --- the judgement ----------------------------------------------------------------------------------------------------


def judge_answers(history: History) -> list[str]:
    """All that is wrong with what was told, whatever the books say."""
    findings = list(_some("answers", history.contradictions))
    findings += _some("stuck", (f"{id}: no outcome was ever told" for id in history.open_ids()))
    return findings + list(_some("refused", _wrong_refusals(history)))


def judge_books(history: History, books: Books, others: Collection[str] = ()) -> list[str]:
    """All that is wrong with the books of the bank at rest, in themselves and by what was told.

    `others` are ids of payments outside the history: they may be in the books, and then balances are not compared.
    """
    findings = list(_some("books", books.findings()))
    posted = {id: dict(entries) for id, entries in books.posted.items()}
    findings += _some("postings", _wrong_postings(history, posted))
    strangers = posted.keys() - books.openings - {_uuid(id) for id in others}
    findings += _some("strangers", (f"{id} is in the books, and nobody asked for it" for id in sorted(strangers)))
    if not others:
        findings += _some("balances", _wrong_balances(history, books))
    return findings


def _some(sort: str, findings: Iterable[str]) -> Iterator[str]:
    """The first few of one sort, and how many more there are."""
    listed = list(findings)
    yield from (f"{sort}: {finding}" for finding in listed[:MAX_SHOWN])
    if len(listed) > MAX_SHOWN:
        yield f"{sort}: and {len(listed) - MAX_SHOWN:,} more"


def _wrong_refusals(history: History) -> Iterator[str]:
    for id, told in history.told.items():
        if told.status == ABORTED and told.refusal_code not in REFUSALS:
            yield f"{id}: aborted by {told.refusal_code or 'no refusal'}, which nothing here can cause"


def _wrong_postings(history: History, posted: dict[str, dict[str, int]]) -> Iterator[str]:
    """Take every transfer of the history out of `posted`; say where both differ."""
    for id, legs in history.asked.items():
        found = posted.pop(_uuid(id), {})
        told = history.told.get(id)
        if told is None:
            continue  # a finding of its own
        expected = _in_minor_units(legs) if told.status == COMMITTED else {}
        if found == expected:
            continue
        if not found:
            yield f"{id}: told committed, and not in the books"
        elif not expected:
            yield f"{id}: told aborted ({told.refusal_code}), and in the books: {_listed(found)}"
        else:
            yield f"{id}: told committed as {_listed(expected)}, posted as {_listed(found)}"


def _wrong_balances(history: History, books: Books) -> Iterator[str]:
    """What the demo accounts begin with plus all that was told committed, account by account."""
    money = currency(CURRENCY)
    opening = {number: parse_amount(whole, money) for number, whole in PRELOAD}
    expected = Counter({account: opening.get(account.partition("/")[2], 0) for account in books.customers})
    for id, legs in history.asked.items():
        told = history.told.get(id)
        if told is not None and told.status == COMMITTED:
            for account, amount_minor in _in_minor_units(legs).items():
                expected[account] += amount_minor
    for account, balance_minor in books.customers.items():
        if balance_minor != expected[account]:
            yield f"{account} has {_money(balance_minor)}, by the history {_money(expected[account])}"


def _in_minor_units(legs: Legs) -> dict[str, int]:
    money = currency(CURRENCY)
    return {account: parse_signed_amount(amount, money) for account, amount in legs}


def _listed(entries: dict[str, int]) -> str:
    return ", ".join(f"{account} {_money(amount_minor)}" for account, amount_minor in sorted(entries.items()))


def _money(amount_minor: int) -> str:
    return format_amount(amount_minor, currency(CURRENCY))


def _uuid(id: str) -> str:
    return format_id(id_from_text(id))


# --- rest -------------------------------------------------------------------------------------------------------------


def unrest(actors: Sequence[StatusInfo | ActorDown], count: int) -> list[str]:
    """Why a bank of `count` actors is not at rest: who is down, in flight, in doubt, or alarmed. [] = it is."""
    found = [
        f"{actor.role} {actor.name} does not answer: {actor.reason}" for actor in actors if isinstance(actor, ActorDown)
    ]
    infos = [actor for actor in actors if isinstance(actor, StatusInfo)]
    if len(actors) < count:
        found.append(f"only {len(actors)} of {count} actors are known")
    for info in infos:
        if info.in_flight:
            found.append(f"{info.name} has {info.in_flight} transfers in flight")
        found += [
            f"{info.name} is in doubt about {format_id(doubt.id)} ({doubt.txn})" for doubt in info.in_doubt[:MAX_SHOWN]
        ]
        found += [f"{info.name} has an alarm: {alarm}" for alarm in info.alarms]
        if info.total_minor:
            found.append(f"the books of {info.name} sum to {_money(info.total_minor)}")
    clearing_minor = sum(info.clearing_minor for info in infos if info.role == BRANCH)
    if clearing_minor and len(infos) == count:
        found.append(f"all clearing accounts sum to {_money(clearing_minor)}")
    return found
