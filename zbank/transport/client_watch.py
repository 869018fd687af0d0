"""The part of the Client that watches the bank: lists of accounts and transfers, events, figures."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from typing import NamedTuple

from zbank.domain.account import check_branch_name, parse_account
from zbank.domain.legs import MAX_NUMBER_CHARS
from zbank.errors import InvalidInput, RemoteFault, ZbankError
from zbank.protocol.messages import (
    ABORTED,
    BRANCH,
    COMMITTED,
    FAR_US,
    PENDING,
    AccountsPage,
    BranchInfo,
    Directory,
    Event,
    EventsPage,
    FiguresInfo,
    GetDirectory,
    GetEvents,
    GetFigures,
    GetStatus,
    InDoubt,
    Inquired,
    InquireNow,
    ListAccounts,
    ListTransfers,
    StatusInfo,
    TransfersPage,
    parse_txn,
)
from zbank.transport import client_input as given
from zbank.transport.client_base import ClientBase, as_it_is
from zbank.transport.client_joins import merge_transfers
from zbank.transport.client_request import THE_COORDINATOR
from zbank.transport.views import AccountList, AccountView, ActorDown, TransferList, account_view, listed_view

STATUSES = ("", COMMITTED, ABORTED, PENDING)  #: of a list of transfers; "" = all
EVENTS_S = 1.0  #: who has not told its events after this tells them the next time
MAX_ROUNDS = 5  #: of looking further back, while a page is not full
COORDINATOR_KEY = "*"  #: among positions: no branch has this name
MAX_POSITIONS_CHARS = 64 * 1_001
_AFTER = re.compile(r"|[1-9][0-9]{0,17}", re.ASCII)  #: of one branch: a row of its journal, "" = from the newest
MAX_ROW = 2**63 - 1
SEARCH_S = 0.5  #: after so long a search tells what it has, and where to go on
MAX_PLACE_CHARS = 100  #: of a cursor of accounts


class EventBatch(NamedTuple):
    """What happened since some positions."""

    events: list[tuple[str, Event]]  #: with the actor's name; in the order of each actor's journal, merged by time
    positions: dict[str, int]  #: to go on from
    is_last: bool  #: there is no more for now
    missing: list[str]  #: actors that did not answer


class WatchClient(ClientBase):
    """Lists and events."""

    _watched: Sequence[BranchInfo] = ()  #: the directory as `events` heard it last

    def find_accounts(
        self, *, search: str = "", status: str = "", branch: str | None = None, limit: int = 50, cursor: str = ""
    ) -> AccountList:
        """A page of the accounts of the whole bank, or of one branch, by branch and number.

        `search`: only owners with this text in them and numbers that begin with it, whatever the case. `status`: "open",
        "frozen" or "closed"; "" = all. A page may be short, or empty, and not the last: go on while there is a `cursor`.
        A branch that does not answer is left out, and said so.
        """
        given.check_page(limit, "")
        given.check_account_filter(search, status)
        first, after = _account_place(cursor)
        infos = sorted(self._known_branches(), key=lambda info: info.name)
        if branch is not None:
            names = ", ".join(info.name for info in infos)
            infos = [info for info in infos if info.name == check_branch_name(branch)]
            if not infos:
                raise RemoteFault("branch_not_found", f"there is no branch {branch} in this cluster: it has {names}")
        found: list[AccountView] = []
        missing: list[ActorDown] = []
        end_s = time.monotonic() + SEARCH_S
        for info in infos:
            if info.name < first:
                continue
            place = after if info.name == first else ""
            while True:
                if len(found) == limit or time.monotonic() > end_s:
                    return AccountList(found, f"{info.name}:{place}", missing)
                message = ListAccounts(place, limit - len(found), search, status)
                try:
                    page = self._ask_patiently(info.name, message, AccountsPage, is_up=info.up)()
                except ZbankError as error:
                    missing.append(ActorDown(BRANCH, info.name, info.endpoint, str(error)))
                    break
                found += [account_view(info.name, one) for one in page.accounts]
                place = page.next
                if not place:
                    break
        return AccountList(found, "", missing)

    def transfers(
        self,
        *,
        account: str | None = None,
        branch: str | None = None,
        status: str = "",
        from_us: int = 0,
        until_us: int = FAR_US,
        limit: int = 50,
        cursor: str = "",
    ) -> TransferList:
        """A page of transfers, newest first: of one account, of one branch, or of the whole bank.

        `status`: "committed", "aborted" or "pending"; "" = all, but of an account what was committed. A page may be short
        and not the last: go on while there is a `cursor`.
        """
        if status not in STATUSES:
            raise InvalidInput(f"a list is of status {', '.join(STATUSES[1:])}, or all: not {status!r}")
        given.check_span(from_us, until_us)
        if account is not None or branch is not None:
            name, number = parse_account(account) if account is not None else (check_branch_name(branch or ""), "")
            if branch not in (None, name):
                raise InvalidInput(f"{account} is no account of branch {branch}: give one of the two")
            given.check_page(limit, cursor)
            message = ListTransfers(number, status, False, from_us, until_us, cursor, limit)
            page: TransfersPage = self._read(name, message, TransfersPage, as_it_is)
            return TransferList([listed_view(one) for one in page.transfers], page.cursor, [])
        given.check_page(limit, "")
        return self._all_transfers(status, from_us, until_us, limit, _positions_of(cursor))

    def _all_transfers(
        self, status: str, from_us: int, until_us: int, limit: int, cursors: dict[str, str] | None
    ) -> TransferList:
        """Each branch tells those that it is the home of; merged by time."""
        infos = self._known_branches()
        if cursors is None:
            cursors = dict.fromkeys((info.name for info in infos), "")
        pages: dict[str, TransfersPage] = {}
        missing: list[ActorDown] = []
        endpoints = {info.name: info.endpoint for info in infos}
        up = {info.name for info in infos if info.up}
        wanted = dict(cursors)
        for _ in range(MAX_ROUNDS):
            asked: dict[str, Callable[[], TransfersPage]] = {
                name: self._ask_patiently(
                    name,
                    ListTransfers("", status, True, from_us, until_us, after, limit),
                    TransfersPage,
                    is_up=name in up,
                )
                for name, after in wanted.items()
            }
            for name, told in asked.items():
                try:
                    page = told()
                except ZbankError as error:
                    missing.append(ActorDown(BRANCH, name, endpoints.get(name, ""), str(error)))
                    wanted.pop(name)
                    continue
                before = pages.get(name)
                found = (*before.transfers, *page.transfers) if before else page.transfers
                pages[name] = TransfersPage(found[:limit], page.cursor if len(found) <= limit else found[limit - 1].cursor)
            wanted = {name: pages[name].cursor for name in wanted if pages[name].cursor and not pages[name].transfers}
            if not wanted:
                break
        chosen, following = merge_transfers(cursors, pages, limit)
        return TransferList([listed_view(one) for one in chosen], _text_of(following), missing)

    def events(self, positions: Mapping[str, int] | None = None, *, limit: int = 200) -> EventBatch:
        """What happened to transfers since `positions`, at most `limit` journal rows of each actor; None = where the
        journals stand now (no events).

        Positions are rows of journals by branch, the coordinator's under "*". What is told was forced, so it is for good,
        and asking again from the same positions tells the same. A new branch is followed from its first row on; one that
        did not answer to None, from where its journal stands when it first does (-1).
        """
        given.check_page(limit, "")
        if any(not -1 <= after <= MAX_ROW for after in (positions or {}).values()):
            raise InvalidInput("these are no positions: go on from those that `events` gave")
        self._io.check_may_wait()
        self._contact()
        limit_us = self._survey_us(EVENTS_S)
        infos = self._watched or self._known_branches()
        missing = [info.name for info in infos if not info.up]
        directory: Future[Directory] | None = None  # for the next time: this time does not wait for it
        keys = [info.name for info in infos if info.up]
        if self._routes.coordinator_endpoint:
            keys.append(COORDINATOR_KEY)
            directory = self._ask(THE_COORDINATOR, GetDirectory(), Directory, as_it_is, limit_us)
        asked: dict[str, Future[EventsPage]] = {}
        for key in keys:
            after = -1 if positions is None else positions.get(key, 0)
            target = THE_COORDINATOR if key == COORDINATOR_KEY else key
            asked[key] = self._ask(target, GetEvents(after, limit), EventsPage, as_it_is, limit_us)
        found: list[tuple[str, Event]] = []
        following = {**(dict.fromkeys(missing, -1) if positions is None else {}), **(positions or {})}
        is_last = True
        for key, future in asked.items():
            try:
                page = future.result()
            except ZbankError:
                missing.append(key)
                if positions is None:
                    following[key] = -1
                continue
            found += [(key, event) for event in page.events]
            following[key] = page.seq
            is_last = is_last and page.is_last
        if directory is not None:
            with suppress(ZbankError):
                self._watched = list(directory.result().branches)
        found.sort(key=lambda one: one[1].at_us)  # stable: the order of each journal stays
        return EventBatch(found, following, is_last, missing)

    def in_doubt(self) -> tuple[list[tuple[InDoubt, str]], list[ActorDown]]:
        """What is in doubt, each with its branch, the oldest first (at most 100 of each branch); and the actors that did
        not answer."""
        actors = self._survey(GetStatus(), StatusInfo)
        told = [(held, actor.name) for actor in actors if isinstance(actor, StatusInfo) for held in actor.in_doubt]
        told.sort(key=lambda one: (-one[0].age_us, one[1]))
        return told, [actor for actor in actors if isinstance(actor, ActorDown)]

    def inquire(self, txn: str) -> tuple[dict[str, tuple[str, ...]], list[ActorDown]]:
        """Make every branch that is in doubt of a two-phase commit (as in `coordinator-2-17`) ask now: by branch, whom it
        has asked; and the actors that did not answer.

        What comes of it is seen in `show` and `status`. Raises InvalidInput for a text that is none.
        """
        wanted = parse_txn(txn)
        told, missing = self.in_doubt()
        asked: dict[str, tuple[str, ...]] = {}
        for held, branch in sorted(told, key=lambda one: one[1]):
            if held.txn == wanted:
                with suppress(RemoteFault):  # not_in_doubt: it has heard meanwhile
                    answer: Inquired = self._read(branch, InquireNow(wanted, held.id), Inquired, as_it_is)
                    asked[branch] = answer.asked
        return asked, missing

    def figures(self) -> list[FiguresInfo | ActorDown]:
        """What the coordinator and every branch count, asked now; who does not answer stands there as ActorDown."""
        return self._survey(GetFigures(), FiguresInfo)


def _account_place(cursor: str) -> tuple[str, str]:
    """The branch with which a page of accounts begins, and the number after which. Raises InvalidInput."""
    given.check_text(cursor, "a cursor", MAX_PLACE_CHARS)
    first, colon, after = cursor.partition(":")
    if cursor and (not colon or len(after) > MAX_NUMBER_CHARS):
        raise InvalidInput("this is no cursor of a page of accounts: begin with the first page")
    return (check_branch_name(first) if first else ""), after


def _positions_of(cursor: str) -> dict[str, str] | None:
    """The cursors of all branches from one text; None for the first page. Raises InvalidInput."""
    if not cursor:
        return None
    given.check_text(cursor, "a cursor", MAX_POSITIONS_CHARS)
    parts = [part.partition(":") for part in cursor.split(",")]
    if any(not colon or _AFTER.fullmatch(after) is None for _, colon, after in parts):
        raise InvalidInput("this is no cursor of a page of transfers: begin with the first page")
    return {check_branch_name(name): after for name, _, after in parts}


def _text_of(cursors: Mapping[str, str]) -> str:
    return ",".join(f"{name}:{after}" for name, after in sorted(cursors.items()))
