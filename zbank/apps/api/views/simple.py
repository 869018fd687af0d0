"""The five simple endpoints: the shortest way to look at an account and to move money."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from flask import Response

from zbank.apps.api.access import CASH, PAY, SEE, SEE_BANK
from zbank.apps.api.endpoint import JSON, OPTIONAL, Answer, Ask, Reply, Routes, encode_json
from zbank.apps.api.given import AccountGiven, CashGiven, PairGiven, SimpleListQuery, SimpleTransferGiven
from zbank.apps.api.paying import REFUSALS, SIMPLE_OUTCOMES, check_may_pay, outcome, submit
from zbank.apps.api.problems import problem_of
from zbank.apps.api.shown import AccountShown, AccountsShown
from zbank.apps.api.views.accounts import check_owns
from zbank.errors import ZbankError
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
    try:
        return Reply(ask.bank.account(name).to_json())
    except ZbankError as error:
        raise problem_of(error) from error


@routes.add("POST", "/deposit", act=CASH, body=CashGiven, key=OPTIONAL, answers=SIMPLE_OUTCOMES, problems=REFUSALS)
def simple_deposit(ask: Ask) -> Reply:
    """Pay cash in. Without an Idempotency-Key each request is a new deposit."""
    given: CashGiven = ask.body
    try:
        future = ask.bank.submit_deposit(f"{given.branch}/{given.account_no}", given.amount, id=ask.id)
    except ZbankError as error:
        raise problem_of(error) from error
    return outcome(ask, future, committed=200)


@routes.add("POST", "/withdraw", act=CASH, body=CashGiven, key=OPTIONAL, answers=SIMPLE_OUTCOMES, problems=REFUSALS)
def simple_withdraw(ask: Ask) -> Reply:
    """Pay cash out. Without an Idempotency-Key each request is a new withdrawal."""
    given: CashGiven = ask.body
    try:
        future = ask.bank.submit_withdraw(f"{given.branch}/{given.account_no}", given.amount, id=ask.id)
    except ZbankError as error:
        raise problem_of(error) from error
    return outcome(ask, future, committed=200)


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
    try:
        first = next(found, None)
    except ZbankError as error:
        raise problem_of(error, in_url=True) from error
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
    try:
        future = submit(ask.bank, pair, ask.id)
    except ZbankError as error:
        raise problem_of(error) from error
    return outcome(ask, future, committed=200)
