"""Money over HTTP: one way from what a caller gave to a transfer, and one way from its outcome to an answer."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future

from zbank import Client
from zbank.apps.api.access import Principal
from zbank.apps.api.endpoint import Answer, Ask, Reply
from zbank.apps.api.given import LegsGiven, MovementGiven, PairGiven
from zbank.apps.api.problems import FORBIDDEN, Problem
from zbank.apps.api.shown import TransferShown
from zbank.apps.api.views.accounts import REPLAYED, replay_header
from zbank.domain.legs import CASH
from zbank.domain.money import AmountInput
from zbank.protocol.messages import ABORTED, COMMITTED
from zbank.transport.views import TransferResult

REFUSALS = (
    "insufficient_funds",
    "account_not_found",
    "account_frozen",
    "account_closed",
    "currency_mismatch",
    "limit_exceeded",
    "cancelled",
    "branch_not_found",
    "invalid_amount",
    "invalid_request",
    "idempotency_conflict",
)
OUTCOMES = (
    Answer(201, "Committed.", TransferShown, ("Location", REPLAYED)),
    Answer(
        202,
        "Not over, or not known yet: look at Location, or send the same key again. Never send another key for the same thing.",
        TransferShown,
        ("Location",),
    ),
)
SIMPLE_OUTCOMES = (Answer(200, "Committed.", TransferShown, ("Location", REPLAYED)), OUTCOMES[1])


def submit(bank: Client, given: PairGiven | LegsGiven, id: bytes | None) -> Future[TransferResult]:
    """Send a transfer. Raises what the client raises."""
    memo, code, day = given.memo, given.currency, given.effective_on
    if isinstance(given, LegsGiven):
        legs: Sequence[tuple[str, AmountInput]] = [(leg.account, leg.amount) for leg in given.legs]
        return bank.submit_legs(legs, id=id, memo=memo, currency=code, effective_on=day)
    source, destination = given.source, given.destination
    return bank.submit_transfer(source, destination, given.amount, id=id, memo=memo, currency=code, effective_on=day)


def check_may_pay(principal: Principal, given: PairGiven | LegsGiven) -> None:
    """Raise Problem `forbidden` unless this one may move money so: customers from their own accounts."""
    if isinstance(given, LegsGiven):
        legs = [(leg.account, str(leg.amount).startswith("-")) for leg in given.legs]
    else:
        legs = [(given.source, True), (given.destination, False)]
    problem = principal.why_not_pay(legs)
    if problem:
        raise Problem(FORBIDDEN, problem)


def at_the_till(given: MovementGiven, *, is_deposit: bool) -> PairGiven:
    """A deposit or a withdrawal as the transfer that it is: from or to the cash of the account's branch."""
    cash = f"{given.account.partition('/')[0]}/{CASH}"
    source, destination = (cash, given.account) if is_deposit else (given.account, cash)
    return PairGiven.model_construct(
        source=source,
        destination=destination,
        amount=given.amount,
        memo=given.memo,
        currency=given.currency,
        effective_on=given.effective_on,
    )


def pay(ask: Ask, given: PairGiven | LegsGiven, *, committed: int = 201) -> Reply:
    """Move money, wait for the outcome, and answer it: `committed` is the status of a success.

    Raises Problem for a refusal, and what the client raises for what was not done.
    """
    return told(submit(ask.bank, given, ask.id).result(), committed)


def told(result: TransferResult, committed: int = 201) -> Reply:
    """The answer to an outcome: `committed` is the status of a success. Raises Problem for a refusal."""
    if result.status == ABORTED and result.refusal is not None:
        raise problem_of_refusal(result)
    location = {"Location": f"/v1/transfers/{result.id}"}
    if result.status == COMMITTED:
        return Reply(result.to_json(), committed, {**location, **replay_header(result.replayed)})
    return Reply(result.to_json(), 202, location)


def problem_of_refusal(result: TransferResult) -> Problem:
    """A refusal is an outcome too: told again for the same key, and marked so."""
    assert result.refusal is not None
    return Problem(result.refusal.code, result.refusal.detail, status=422, replayed=result.replayed)
