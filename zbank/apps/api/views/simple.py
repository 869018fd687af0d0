"""The five simple endpoints: the shortest way to look at an account and to move money."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from flask import Response

from zbank.apps.api.access import CASH, PAY, SEE, SEE_BANK
from zbank.apps.api.endpoint import JSON, OPTIONAL, Answer, Ask, Reply, Routes, encode_json
from zbank.apps.api.given import AccountGiven, CashGiven, MovementGiven, PairGiven, SimpleTransferGiven
from zbank.apps.api.paying import REFUSALS, SIMPLE_OUTCOMES, at_the_till, check_may_pay, pay
from zbank.apps.api.queries import SimpleListQuery
from zbank.apps.api.shown import AccountShown, AccountsShown
from zbank.apps.api.views.accounts import check_owns
from zbank.transport.views import AccountView

routes = Routes("simple")


@routes.add(
    "POST",
    "/balance",
    act=SEE,
    body=AccountGiven,
    answers=[Answer(200, "The account as it stands.", AccountShown)],
    problems=["account_not_found", "branch_not_found"],
)
def simple_balance(ask: Ask) -> Reply:
    """Look at an account."""
    name = f"{ask.body.branch}/{ask.body.account_no}"
    check_owns(ask.principal, name)
    return Reply(ask.bank.account(name).to_json())


@routes.add("POST", "/deposit", act=CASH, body=CashGiven, key=OPTIONAL, answers=SIMPLE_OUTCOMES, problems=REFUSALS)
def simple_deposit(ask: Ask) -> Reply:
    """Pay cash in. Without an Idempotency-Key each request is a new deposit."""
    return pay(ask, at_the_till(_movement(ask.body), is_deposit=True), committed=200)


@routes.add("POST", "/withdraw", act=CASH, body=CashGiven, key=OPTIONAL, answers=SIMPLE_OUTCOMES, problems=REFUSALS)
def simple_withdraw(ask: Ask) -> Reply:
    """Pay cash out. Without an Idempotency-Key each request is a new withdrawal."""
    return pay(ask, at_the_till(_movement(ask.body), is_deposit=False), committed=200)


def _movement(given: CashGiven) -> MovementGiven:
    account = f"{given.branch}/{given.account_no}"
    return MovementGiven.model_validate({"account": account, "amount": given.amount})


@routes.add(
    "GET",
    "/list_accounts",
    act=SEE_BANK,
    answers=[Answer(200, "All its accounts, by number.", AccountsShown)],
    problems=["branch_not_found"],
    query=SimpleListQuery,
)
def simple_list(ask: Ask) -> Response:
    """All accounts of a branch. Of a large one better take /v1/branches/{branch}/accounts, page by page."""
    found = ask.bank.accounts(ask.query.branch)
    first = next(found, None)
    return Response(_listed(first, found), content_type=JSON)


def _listed(first: AccountView | None, rest: Iterable[AccountView]) -> Iterator[bytes]:
    """The document, made while it is sent: a branch may have a million accounts."""
    yield b'{"accounts":['
    if first is not None:
        yield encode_json(first.to_json())
        for account in rest:
            yield b"," + encode_json(account.to_json())
    yield b"]}"


@routes.add("POST", "/transfer", act=PAY, body=SimpleTransferGiven, key=OPTIONAL, answers=SIMPLE_OUTCOMES, problems=REFUSALS)
def simple_transfer(ask: Ask) -> Reply:
    """Move money. Without an Idempotency-Key each request is a new transfer."""
    given: SimpleTransferGiven = ask.body
    pair = PairGiven.model_validate(
        {
            "from": f"{given.src_branch}/{given.src_account_no}",
            "to": f"{given.dest_branch}/{given.dest_account_no}",
            "amount": given.amount,
        }
    )
    check_may_pay(ask.principal, pair)
    return pay(ask, pair, committed=200)
