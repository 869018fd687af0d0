"""Accounts: list, open, look at, change; statements and balances."""

from __future__ import annotations

import csv
import io
from typing import Any

from zbank.apps.api.access import KEEP, SEE, Principal
from zbank.apps.api.endpoint import REQUIRED, Answer, Ask, Reply, Routes
from zbank.apps.api.given import ChangeGiven, OpenGiven
from zbank.apps.api.near import read_near
from zbank.apps.api.paging import cursor_from, cursor_text
from zbank.apps.api.problems import FORBIDDEN, Problem
from zbank.apps.api.queries import AccountsQuery, BalanceQuery, BankAccountsQuery, EntriesQuery, NearQuery
from zbank.apps.api.shown import AccountShown, AccountsPageShown, BalanceShown, BankAccountsShown, EntriesShown
from zbank.clock import format_time
from zbank.domain.money import currency, format_amount
from zbank.errors import RemoteFault
from zbank.protocol.messages import FAR_US
from zbank.transport.views import AccountList, AccountView, EntryView

routes = Routes("accounts")

CSV = "text/csv; charset=utf-8"
CSV_COLUMNS = ("id", "at", "effective_on", "amount", "balance", "currency", "memo", "counterparties")
RISKY_STARTS = ("=", "+", "-", "@", "\t", "\r")  # a spreadsheet would take such text for a formula

PATH = "/v1/branches/<branch>/accounts"
ONE = PATH + "/<number>"
CHANGING = (
    "account_not_found",
    "account_closed",
    "account_not_empty",
    "system_account",
    "limit_exceeded",
    "invalid_amount",
    "invalid_request",
)
REPLAYED = "Idempotency-Replayed"


def replay_header(is_replayed: bool) -> dict[str, str]:
    """The header that says that an earlier request had done it."""
    return {REPLAYED: "true"} if is_replayed else {}


def check_owns(principal: Principal, account: str) -> None:
    """Raise Problem `forbidden` unless this one may see the account. It says the same of accounts that do not exist."""
    if not principal.owns(account):
        raise Problem(FORBIDDEN, f"{account} is not an account of yours")


@routes.add(
    "GET",
    PATH,
    act=SEE,
    answers=[Answer(200, "A page of accounts, by number. A customer sees the own ones.", AccountsPageShown)],
    problems=["branch_not_found", "invalid_request"],
    query=AccountsQuery,
)
def list_accounts(ask: Ask, branch: str) -> Reply:
    """The accounts of a branch."""
    query: AccountsQuery = ask.query
    if ask.principal.is_customer:
        found, following = _own_accounts(ask, branch), ""
    else:
        found, following = read_near(
            ask,
            branch,
            lambda bank: bank.accounts_page(
                branch,
                after=cursor_from(query.cursor),
                limit=query.limit,
                search=query.search,
                status=query.status or "",
            ),
        )
    return Reply({"accounts": [account.to_json() for account in found], "cursor": cursor_text(following)})


@routes.add(
    "GET",
    "/v1/accounts",
    act=SEE,
    answers=[Answer(200, "A page of accounts, by branch and number. A customer sees the own ones.", BankAccountsShown)],
    problems=["branch_not_found", "invalid_request"],
    query=BankAccountsQuery,
)
def find_accounts(ask: Ask) -> Reply:
    """Search the accounts of all branches."""
    query: BankAccountsQuery = ask.query
    if ask.principal.is_customer:
        own = AccountList(_own_accounts(ask, query.branch), "", [])
        return Reply(own.to_json())
    page = ask.bank.find_accounts(
        search=query.search,
        status=query.status or "",
        branch=query.branch,
        limit=query.limit,
        cursor=cursor_from(query.cursor),
    )
    return Reply({**page.to_json(), "cursor": cursor_text(page.cursor)})


def _own_accounts(ask: Ask, branch: str | None) -> list[AccountView]:
    """A customer's, those that fit what is asked for."""
    query: AccountsQuery | BankAccountsQuery = ask.query
    names = sorted(name for name in ask.principal.accounts if branch is None or name.startswith(f"{branch}/"))
    found = [account for name in names if (account := _account_or_none(ask, name))]
    text = query.search.casefold()
    return [
        account
        for account in found
        if query.status in (None, account.status)
        and (text in account.owner.casefold() or account.number.casefold().startswith(text))
    ]


def _account_or_none(ask: Ask, name: str) -> AccountView | None:
    """A customer's token may name accounts that are not there (yet)."""
    try:
        return ask.bank.account(name)
    except RemoteFault as error:
        if error.remote_code == "account_not_found":
            return None
        raise


@routes.add(
    "POST",
    PATH,
    act=KEEP,
    body=OpenGiven,
    key=REQUIRED,
    answers=[Answer(201, "The account.", AccountShown, ("Location", REPLAYED))],
    problems=[
        "branch_not_found",
        "account_exists",
        "currency_mismatch",
        "system_account",
        "limit_exceeded",
        "invalid_amount",
        "idempotency_conflict",
    ],
)
def open_account(ask: Ask, branch: str) -> Reply:
    """Open an account."""
    given: OpenGiven = ask.body
    account = ask.bank.open_account(
        branch,
        number=given.number or "",
        owner=given.owner,
        overdraft_limit=given.overdraft_limit,
        currency=given.currency,
        id=ask.id,
    )
    location = f"/v1/branches/{account.branch}/accounts/{account.number}"
    return Reply(account.to_json(), 201, {"Location": location, **replay_header(account.replayed)})


@routes.add(
    "GET",
    ONE,
    act=SEE,
    answers=[Answer(200, "The account as it stands.", AccountShown)],
    problems=["account_not_found", "branch_not_found"],
    query=NearQuery,
)
def show_account(ask: Ask, branch: str, number: str) -> Reply:
    """Look at an account."""
    name = f"{branch}/{number}"
    check_owns(ask.principal, name)
    return Reply(read_near(ask, branch, lambda bank: bank.account(name)).to_json())


@routes.add(
    "PATCH",
    ONE,
    act=KEEP,
    body=ChangeGiven,
    key=REQUIRED,
    answers=[Answer(200, "The account after the change.", AccountShown, (REPLAYED,))],
    problems=["branch_not_found", *CHANGING, "idempotency_conflict"],
)
def change_account(ask: Ask, branch: str, number: str) -> Reply:
    """Freeze, unfreeze or close an account, or set its overdraft limit."""
    given: ChangeGiven = ask.body
    if given.status is None and given.overdraft_limit is None:
        raise Problem("invalid_request", "nothing to change: give a status or an overdraft_limit")
    replayed = ask.bank.change_account(
        f"{branch}/{number}", status=given.status, overdraft_limit=given.overdraft_limit, id=ask.id
    )
    return Reply(_account(ask, branch, number).to_json(), 200, replay_header(replayed))


@routes.add(
    "GET",
    ONE + "/entries",
    act=SEE,
    answers=[
        Answer(
            200,
            "A page of the statement; as CSV with `Accept: text/csv`, then the next page's cursor is in X-Next-Cursor.",
            EntriesShown,
            ("X-Next-Cursor",),
            {"text/csv": {"schema": {"type": "string"}, "example": ",".join(CSV_COLUMNS) + "\r\n"}},
        )
    ],
    problems=["account_not_found", "branch_not_found", "invalid_request"],
    query=EntriesQuery,
)
def list_entries(ask: Ask, branch: str, number: str) -> Reply:
    """The statement of an account."""
    check_owns(ask.principal, f"{branch}/{number}")
    query: EntriesQuery = ask.query
    page = read_near(
        ask,
        branch,
        lambda bank: bank.statement(
            f"{branch}/{number}",
            newest_first=query.order == "newest",
            limit=query.limit,
            cursor=cursor_from(query.cursor),
            from_us=query.start or 0,
            until_us=FAR_US if query.end is None else query.end,
        ),
    )
    following = cursor_text(page.cursor)
    if ask.request.accept_mimetypes.best_match(["application/json", "text/csv"]) == "text/csv":
        headers = {"X-Next-Cursor": following} if following else {}
        name = f'attachment; filename="{branch}-{number}.csv"'
        return Reply(entries_csv(page.entries), 200, {"Content-Disposition": name, **headers}, CSV)
    return Reply({**page.to_json(), "cursor": following})


@routes.add(
    "GET",
    ONE + "/balance",
    act=SEE,
    answers=[Answer(200, "The balance.", BalanceShown)],
    problems=["account_not_found", "branch_not_found"],
    query=BalanceQuery,
)
def show_balance(ask: Ask, branch: str, number: str) -> Reply:
    """The balance of an account, now or at some time."""
    name = f"{branch}/{number}"
    check_owns(ask.principal, name)
    query: BalanceQuery = ask.query
    shown: dict[str, Any]
    if query.at is None:
        account = read_near(ask, branch, lambda bank: bank.account(name))
        shown = {"account": name, "currency": account.currency, "balance": account.balance, "at": None}
        return Reply(shown | as_of_json(account))
    until_us = query.at + 1
    page = read_near(ask, branch, lambda bank: bank.statement(name, limit=1, until_us=until_us))
    code = page.account.currency
    balance = page.entries[0].balance if page.entries else format_amount(0, currency(code))
    shown = {"account": name, "currency": code, "balance": balance, "at": format_time(query.at)}
    return Reply(shown | as_of_json(page.account))


def as_of_json(account: AccountView) -> dict[str, Any]:
    """Of a replica's answer: as of when it is."""
    return {} if account.as_of is None else {"as_of": account.as_of.to_json()}


def entries_csv(entries: list[EntryView]) -> str:
    """Entries as CSV (RFC 4180); no cell is taken for a formula by a spreadsheet."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(CSV_COLUMNS)
    for entry in entries:
        row = {**entry.to_json(), "counterparties": " ".join(entry.counterparties)}
        if entry.memo.startswith(RISKY_STARTS):
            row["memo"] = f"'{entry.memo}"
        writer.writerow(["" if row[column] is None else row[column] for column in CSV_COLUMNS])
    return text.getvalue()


def _account(ask: Ask, branch: str, number: str) -> AccountView:
    return ask.bank.account(f"{branch}/{number}")
