"""The part of the Client that moves money."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future

from zbank.domain.account import parse_account
from zbank.domain.money import AmountInput
from zbank.errors import NoAnswer, ZbankError
from zbank.ids import format_id
from zbank.protocol.messages import BRANCH, Cancel, GetTransfer, TransferInfo
from zbank.transport import client_input as given
from zbank.transport.client_base import LONE_SURVEY_S, SURVEY_S, ClientBase
from zbank.transport.client_input import Day, Id, Sides
from zbank.transport.client_joins import join_cancels, join_transfers
from zbank.transport.client_request import THE_COORDINATOR, TransferWrite
from zbank.transport.views import TransferRequest, TransferResult, TransferView

MAX_BATCH = 8192  #: requests of `transfer_many` in flight at once


class MoneyClient(ClientBase):
    """Transfers, deposits, withdrawals: one at a time, many in flight, or in batches."""

    def transfer(
        self,
        source: str,
        destination: str,
        amount: AmountInput,
        *,
        id: Id = None,
        memo: str = "",
        currency: str | None = None,
        effective_on: Day = None,
        timeout_s: float | None = None,
    ) -> TransferResult:
        """Move `amount` from one account (`Branch/number`) to another, in the same branch or not; wait for the outcome."""
        return self._call(given.pair(source, destination, amount), id, memo, currency, effective_on, timeout_s)

    def transfer_legs(
        self,
        legs: Sequence[tuple[str, AmountInput]],
        *,
        id: Id = None,
        memo: str = "",
        currency: str | None = None,
        effective_on: Day = None,
        timeout_s: float | None = None,
    ) -> TransferResult:
        """Move money between 2 to 256 accounts at once. A leg is (account, signed amount): + credits, - debits; sum zero."""
        return self._call(given.many_sided(legs), id, memo, currency, effective_on, timeout_s)

    def deposit(
        self,
        account: str,
        amount: AmountInput,
        *,
        id: Id = None,
        memo: str = "",
        currency: str | None = None,
        effective_on: Day = None,
        timeout_s: float | None = None,
    ) -> TransferResult:
        """Pay cash in: a transfer from `cash` of the account's branch."""
        return self._call(given.deposit(account, amount), id, memo, currency, effective_on, timeout_s)

    def withdraw(
        self,
        account: str,
        amount: AmountInput,
        *,
        id: Id = None,
        memo: str = "",
        currency: str | None = None,
        effective_on: Day = None,
        timeout_s: float | None = None,
    ) -> TransferResult:
        """Pay cash out: a transfer to `cash` of the account's branch."""
        return self._call(given.withdrawal(account, amount), id, memo, currency, effective_on, timeout_s)

    # The same without waiting. What is wrong with the input is raised at once; before the cluster has first answered, what
    # is wrong with an amount arrives through the future.

    def submit_transfer(
        self,
        source: str,
        destination: str,
        amount: AmountInput,
        *,
        id: Id = None,
        memo: str = "",
        currency: str | None = None,
        effective_on: Day = None,
        timeout_s: float | None = None,
    ) -> Future[TransferResult]:
        """`transfer` without waiting."""
        return self._submit(given.pair(source, destination, amount), id, memo, currency, effective_on, timeout_s)

    def submit_legs(
        self,
        legs: Sequence[tuple[str, AmountInput]],
        *,
        id: Id = None,
        memo: str = "",
        currency: str | None = None,
        effective_on: Day = None,
        timeout_s: float | None = None,
    ) -> Future[TransferResult]:
        """`transfer_legs` without waiting."""
        return self._submit(given.many_sided(legs), id, memo, currency, effective_on, timeout_s)

    def submit_deposit(
        self,
        account: str,
        amount: AmountInput,
        *,
        id: Id = None,
        memo: str = "",
        currency: str | None = None,
        effective_on: Day = None,
        timeout_s: float | None = None,
    ) -> Future[TransferResult]:
        """`deposit` without waiting."""
        return self._submit(given.deposit(account, amount), id, memo, currency, effective_on, timeout_s)

    def submit_withdraw(
        self,
        account: str,
        amount: AmountInput,
        *,
        id: Id = None,
        memo: str = "",
        currency: str | None = None,
        effective_on: Day = None,
        timeout_s: float | None = None,
    ) -> Future[TransferResult]:
        """`withdraw` without waiting."""
        return self._submit(given.withdrawal(account, amount), id, memo, currency, effective_on, timeout_s)

    def transfer_many(
        self, requests: Sequence[TransferRequest], *, timeout_s: float | None = None
    ) -> list[TransferResult | ZbankError]:
        """Send all requests as one batch; wait for all outcomes, in order. A fault stands in its place, as the exception.

        A list of more than 8192 is sent in a window of that size. `timeout_s` is for each request, from its sending on.
        """
        self._io.check_may_wait()
        results: list[TransferResult | ZbankError] = []
        flying: deque[Future[TransferResult] | ZbankError] = deque()
        for request in requests:
            if len(flying) >= MAX_BATCH:
                results.append(_ended(flying.popleft()))
            try:
                sides = (
                    given.pair(request.source, request.destination, request.amount)
                    if request.legs is None
                    else given.many_sided(request.legs)
                )
                flying.append(
                    self._submit(sides, request.id, request.memo, request.currency, request.effective_on, timeout_s)
                )
            except ZbankError as error:
                flying.append(error)
        results.extend(_ended(one) for one in flying)
        return results

    # --- what became of it --------------------------------------------------------------------------------------------

    def cancel(self, id: bytes | str, *, account: str | None = None, timeout_s: float | None = None) -> TransferResult:
        """Make sure that a transfer never executes, unless it has: the result says which, `aborted` or `committed`.

        Asks the home branch, that of `account` (the first account that pays); without it every branch, and then
        `aborted` needs the word of all of them.
        """
        self._io.check_may_wait()
        id_16, limit_us = given.id_bytes(id), self._limit_us(timeout_s)
        if account is not None:
            request = TransferWrite(parse_account(account)[0], id_16, Cancel(id_16, *self._asker), limit_us)
            return self._io.call(request)
        names = [info.name for info in self._known_branches()]
        asked = [(name, TransferWrite(name, id_16, Cancel(id_16, *self._asker), limit_us)) for name in names]
        for _, request in asked:
            self._io.submit(request)
        results: list[TransferResult] = []
        silent: list[str] = []
        for name, request in asked:
            try:
                results.append(request.future.result())
            except ZbankError as error:
                silent.append(f"branch {name} ({error})")
        return join_cancels(id_16, results, silent)

    def show(self, id: bytes | str, *, account: str | None = None) -> TransferView:
        """All that is known of a transfer: asks the coordinator and every branch (or that of `account`), and joins it.

        Raises NoAnswer when nobody answers.
        """
        self._io.check_may_wait()
        id_16 = given.id_bytes(id)
        names = {parse_account(account)[0]: True} if account else {info.name: info.up for info in self._known_branches()}
        message = GetTransfer(id_16)
        asked = [self._ask_patiently(name, message, TransferInfo, is_up=is_up) for name, is_up in names.items()]
        self._contact()
        silent: list[str] = []
        coordinator: TransferInfo | None = None
        if self._routes.coordinator_endpoint:
            most_s = LONE_SURVEY_S if self._contact().role == BRANCH else SURVEY_S
            wait = self._ask_patiently(THE_COORDINATOR, message, TransferInfo, most_s=most_s)
            coordinator = _info_or_none(wait, "the coordinator", silent)
        branches = [
            info
            for name, told in zip(names, asked, strict=True)
            if (info := _info_or_none(told, f"branch {name}", silent)) is not None
        ]
        if coordinator is None and not branches:
            raise NoAnswer(f"nobody answered about {format_id(id_16)}: no answer from {', '.join(silent)}")
        return join_transfers(id_16, coordinator, branches, silent)

    def _request(
        self, sides: Sides, id: Id, memo: str, currency: str | None, effective_on: Day, timeout_s: float | None
    ) -> TransferWrite:
        limit_us = self._timeout_us if timeout_s is None else given.timeout_us(timeout_s)
        return given.transfer_write(sides, id, memo, currency, effective_on, limit_us, self._routes.currencies, self._asker)

    def _submit(
        self, sides: Sides, id: Id, memo: str, currency: str | None, effective_on: Day, timeout_s: float | None
    ) -> Future[TransferResult]:
        request = self._request(sides, id, memo, currency, effective_on, timeout_s)
        self._io.submit(request)
        return request.future

    def _call(
        self, sides: Sides, id: Id, memo: str, currency: str | None, effective_on: Day, timeout_s: float | None
    ) -> TransferResult:
        return self._io.call(self._request(sides, id, memo, currency, effective_on, timeout_s))


def _ended(one: Future[TransferResult] | ZbankError) -> TransferResult | ZbankError:
    if isinstance(one, ZbankError):
        return one
    try:
        return one.result()
    except ZbankError as error:
        return error


def _info_or_none(told: Callable[[], TransferInfo], who: str, silent: list[str]) -> TransferInfo | None:
    try:
        return told()
    except ZbankError as error:
        silent.append(f"{who} ({error})")
        return None
