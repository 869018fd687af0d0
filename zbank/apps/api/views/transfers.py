"""Transfers, deposits and withdrawals: ask for one, look at it, list them, cancel one."""

from __future__ import annotations

from zbank.apps.api.access import CASH, PAY, SEE, SEE_BANK
from zbank.apps.api.endpoint import REQUIRED, Answer, Ask, Reply, Routes
from zbank.apps.api.given import LegsGiven, MovementGiven, PairGiven
from zbank.apps.api.paging import cursor_from, cursor_text
from zbank.apps.api.paying import OUTCOMES, REFUSALS, at_the_till, check_may_pay, pay, problem_of_refusal
from zbank.apps.api.problems import FORBIDDEN, Problem
from zbank.apps.api.queries import KeyQuery, TransfersQuery
from zbank.apps.api.shown import TransferDetailShown, TransferShown, TransfersShown
from zbank.apps.api.views.accounts import check_owns
from zbank.ids import id_from_key, parse_id
from zbank.protocol.messages import ABORTED, COMMITTED, FAR_US, PENDING, UNKNOWN

routes = Routes("transfers")


@routes.add("POST", "/v1/transfers", act=PAY, body=PairGiven | LegsGiven, key=REQUIRED, answers=OUTCOMES, problems=REFUSALS)
def make_transfer(ask: Ask) -> Reply:
    """Move money, within a branch or between branches: once, however often it is asked for with the same key.

    Either `from`, `to` and `amount`, or `legs` with signed amounts that sum to zero.
    """
    check_may_pay(ask.principal, ask.body)
    return pay(ask, ask.body)


@routes.add("POST", "/v1/deposits", act=CASH, body=MovementGiven, key=REQUIRED, answers=OUTCOMES, problems=REFUSALS)
def make_deposit(ask: Ask) -> Reply:
    """Pay cash in."""
    return pay(ask, at_the_till(ask.body, is_deposit=True))


@routes.add("POST", "/v1/withdrawals", act=CASH, body=MovementGiven, key=REQUIRED, answers=OUTCOMES, problems=REFUSALS)
def make_withdrawal(ask: Ask) -> Reply:
    """Pay cash out."""
    return pay(ask, at_the_till(ask.body, is_deposit=False))


@routes.add(
    "GET",
    "/v1/transfers",
    act=SEE,
    answers=[Answer(200, "A page of transfers.", TransfersShown)],
    problems=["branch_not_found", "account_not_found", "invalid_request"],
    query=TransfersQuery,
)
def list_transfers(ask: Ask) -> Reply:
    """Transfers, newest first: of an account, of a branch, or of the whole bank. A customer names an own account."""
    query: TransfersQuery = ask.query
    if query.account is not None:
        check_owns(ask.principal, query.account)
    elif not ask.principal.may(SEE_BANK):
        raise Problem(FORBIDDEN, "name an account of yours: ?account=Branch/number")
    page = ask.bank.transfers(
        account=query.account,
        branch=query.branch,
        status=query.status or "",
        from_us=query.start or 0,
        until_us=FAR_US if query.end is None else query.end,
        limit=query.limit,
        cursor=cursor_from(query.cursor),
    )
    return Reply({**page.to_json(), "cursor": cursor_text(page.cursor)})


@routes.add(
    "GET",
    "/v1/transfers/by-key",
    act=SEE,
    answers=[Answer(200, "What is known of it; `unknown` when not everybody could be asked.", TransferDetailShown)],
    problems=["transfer_not_found"],
    query=KeyQuery,
)
def show_transfer_by_key(ask: Ask) -> Reply:
    """What became of the transfer that you asked for with an Idempotency-Key, for who lost the answer."""
    return _shown(ask, id_from_key(ask.query.key, ask.principal.caller))


@routes.add(
    "GET",
    "/v1/transfers/<id>",
    act=SEE,
    answers=[Answer(200, "What is known of it; `unknown` when not everybody could be asked.", TransferDetailShown)],
    problems=["transfer_not_found"],
)
def show_transfer(ask: Ask, id: str) -> Reply:
    """What became of a transfer: its outcome, each branch's part, and the timeline of its two-phase commit."""
    return _shown(ask, parse_id(id))


def _shown(ask: Ask, id: bytes) -> Reply:
    view = ask.bank.show(id)
    is_known = view.status != UNKNOWN
    if not is_known and not view.reason.startswith("no answer"):
        raise Problem("transfer_not_found", f"no branch and no coordinator knows {view.id}")
    if is_known and not ask.principal.owns_any(leg.account for leg in view.legs):
        raise Problem("transfer_not_found", f"no branch and no coordinator knows {view.id}")
    return Reply(view.to_json())


CANCELLED = (
    Answer(200, "It was committed, or is aborted now: `status` says which.", TransferShown),
    Answer(202, "Not over, or not known: ask again.", TransferShown, ("Location",)),
)


@routes.add(
    "POST", "/v1/transfers/<id>/cancel", act=PAY, answers=CANCELLED, problems=["idempotency_conflict"]
)
def cancel_transfer(ask: Ask, id: str) -> Reply:
    """Make sure that a transfer never happens, if it has not yet. The id in the path is its key: ask again as you like."""
    return _cancelled(ask, parse_id(id))


@routes.add(
    "POST",
    "/v1/transfers/by-key/cancel",
    act=PAY,
    answers=CANCELLED,
    problems=["idempotency_conflict"],
    query=KeyQuery,
)
def cancel_transfer_by_key(ask: Ask) -> Reply:
    """The same for the transfer that you asked for with an Idempotency-Key, whether or not that request ever arrived."""
    return _cancelled(ask, id_from_key(ask.query.key, ask.principal.caller))


def _cancelled(ask: Ask, id: bytes) -> Reply:
    result = ask.bank.cancel(id)
    if result.status in (COMMITTED, ABORTED):
        if result.refusal is not None and result.refusal.code != "cancelled":
            raise problem_of_refusal(result)
        return Reply(result.to_json())
    assert result.status in (PENDING, UNKNOWN)
    return Reply(result.to_json(), 202, {"Location": f"/v1/transfers/{result.id}"})
