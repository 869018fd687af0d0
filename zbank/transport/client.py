"""The Python client of the bank: `from zbank import Client`.

Thread-safe; one I/O thread owns the sockets of all Clients of the process. `submit_…` never blocks and may be called from
a future's callback (callbacks run in that thread: keep them short); everything else waits and must not be called from one.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType

from zbank.domain.account import check_branch_name, parse_account
from zbank.domain.money import AmountInput
from zbank.errors import NoAnswer, Refused, ZbankError
from zbank.ids import format_id
from zbank.protocol.messages import (
    BRANCH,
    COMMITTED,
    FAR_US,
    MAX_PAGE,
    AccountInfo,
    AccountsPage,
    BranchInfo,
    Directory,
    EntriesPage,
    GetAccount,
    GetDirectory,
    GetEntries,
    GetStatus,
    ListAccounts,
    Opened,
    Outcome,
    Promote,
    Promoting,
    ReplicaInfo,
    StatusInfo,
)
from zbank.transport import client_input as given
from zbank.transport.client_base import as_it_is
from zbank.transport.client_input import Id
from zbank.transport.client_members import MemberClient
from zbank.transport.client_money import MoneyClient
from zbank.transport.client_request import THE_COORDINATOR, AccountWrite
from zbank.transport.client_tokens import TokenClient
from zbank.transport.client_watch import WatchClient
from zbank.transport.keyfolder import NAME_VARIABLE, find_folder
from zbank.transport.views import AccountView, ActorDown, AsOf, StatementPage, account_view, statement_page


class Client(MoneyClient, WatchClient, TokenClient, MemberClient):
    """A connection to the bank, through its coordinator or through one branch.

    `endpoint`: the coordinator's or a branch's address. `cluster`: refuse any cluster of another name; "" = any.
    `timeout_s`: for each request, unless it says otherwise. `name`: who asks; ids belong to their caller. `keys`: folder of
    the keys of a bank that has some, "" = none, None = where ZBANK_KEYS says; `key`: which of the keys there, None = the one
    that ZBANK_KEY names, or the only one that can be meant (InvalidConfig when they cannot be used).

    Amounts are decimal text ("50.00"), an int of whole units, or a Decimal; never a float. Ids are None (a fresh one),
    16 bytes, UUID text, or a text key of yours; the same id sent again with the same content never executes twice.

    A transfer that got no answer in time ends as status `unknown`: ask again with the same id. Errors: InvalidInput
    (nothing was sent), Unreachable (nothing could be sent), RemoteFault (a server said "not done, or not known";
    `remote_code` says why), NoAnswer (a read), ClientClosed. At most 100,000 requests may be outstanding: above that
    `submit_…` raises RemoteFault `busy`, since waiting there would stop the callbacks that make room.
    """

    def __init__(
        self,
        endpoint: str = "tcp://127.0.0.1:9000",
        *,
        cluster: str = "",
        timeout_s: float = 10.0,
        name: str = "",
        keys: str | Path | None = None,
        key: str | None = None,
    ) -> None:
        folder = find_folder(None, os.environ) if keys is None else Path(keys) if keys else None
        wanted = os.environ.get(NAME_VARIABLE, "") if key is None else key
        super().__init__(endpoint, cluster=cluster, timeout_s=timeout_s, name=name, keys=folder, key=wanted)

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # --- accounts -----------------------------------------------------------------------------------------------------

    def open_account(
        self,
        branch: str,
        *,
        number: str = "",
        owner: str = "",
        overdraft_limit: AmountInput = "0",
        currency: str | None = None,
        id: Id = None,
        timeout_s: float | None = None,
    ) -> AccountView:
        """Open an account. `number` "" = the branch gives the next free one; `currency` None = the branch's.

        Raises Refused (`account_exists`, `currency_mismatch`), and NoAnswer when it is not known whether it was opened:
        ask again with the same id.
        """
        id_16 = given.id_bytes(id)
        build = given.open_account(branch, number, owner, overdraft_limit, currency, id_16, self._asker)

        def convert(answer: Opened | Outcome) -> AccountView:
            if isinstance(answer, Opened):
                return account_view(branch, answer.account, replayed=answer.replayed)
            raise _refused(answer)

        request = AccountWrite(
            branch,
            None,
            self._limit_us(timeout_s),
            (Opened, Outcome),
            convert,
            _not_known("the account was opened", id_16),
            build,
            branch,
        )
        return self._io.call(request)

    def change_account(
        self,
        account: str,
        *,
        status: str | None = None,
        overdraft_limit: AmountInput | None = None,
        id: Id = None,
        timeout_s: float | None = None,
    ) -> bool:
        """Set an account's status ("open", "frozen", "closed") or overdraft limit. Raises as `open_account` does.

        Gives True when an earlier request with this id had done it already.
        """
        branch, number = parse_account(account)
        id_16 = given.id_bytes(id)
        build = given.change_account(number, status, overdraft_limit, id_16, self._asker)

        def convert(answer: Outcome) -> bool:
            if answer.status != COMMITTED:
                raise _refused(answer)
            return answer.replayed

        request: AccountWrite[bool] = AccountWrite(
            branch,
            None,
            self._limit_us(timeout_s),
            (Outcome,),
            convert,
            _not_known(f"{account} was changed", id_16),
            build,
            branch,
        )
        return self._io.call(request)

    def account(self, account: str) -> AccountView:
        """The account as it stands; raises RemoteFault `account_not_found`."""
        branch, number = parse_account(account)
        return self._look(branch, GetAccount(number), AccountInfo, _account_at)

    def balance(self, account: str) -> str:
        """The account's balance, decimal text."""
        return self.account(account).balance

    def accounts(self, branch: str | None = None, *, search: str = "", status: str = "") -> Iterator[AccountView]:
        """The accounts of a branch, or of all branches, by number; asked for page by page.

        `search`: only owners with this text in them and numbers that begin with it, whatever the case. `status`: only those
        that are "open", "frozen" or "closed".
        """
        names = [info.name for info in self._known_branches()] if branch is None else [check_branch_name(branch)]
        for name in names:
            after = ""
            while True:
                found, after = self.accounts_page(name, after=after, limit=MAX_PAGE, search=search, status=status)
                yield from found
                if not after:
                    break

    def accounts_page(
        self, branch: str, *, after: str = "", limit: int = 100, search: str = "", status: str = ""
    ) -> tuple[list[AccountView], str]:
        """At most `limit` (1 to 1000) accounts of a branch with numbers above `after`, and the `after` of the next page:
        "" when this was the last. A page of a `search` (see `accounts`) may be short, or empty, and not the last."""
        given.check_page(limit, after)
        given.check_account_filter(search, status)
        message = ListAccounts(after, limit, search, status)
        return self._look(check_branch_name(branch), message, AccountsPage, _accounts_at)

    def statement(
        self,
        account: str,
        *,
        newest_first: bool = True,
        limit: int = 50,
        cursor: str = "",
        from_us: int = 0,
        until_us: int = FAR_US,
    ) -> StatementPage:
        """A page of the account's entries, `limit` (1 to 1000) at most; `cursor` from the page before.

        Only entries posted at `from_us` or later and before `until_us`: microseconds UTC, by the branch's clock.
        """
        branch, number = parse_account(account)
        given.check_page(limit, cursor)
        given.check_span(from_us, until_us)
        message = GetEntries(number, newest_first, cursor, limit, from_us, until_us)
        return self._look(branch, message, EntriesPage, statement_page)

    # --- the cluster --------------------------------------------------------------------------------------------------

    def branches(self) -> list[BranchInfo]:
        """The coordinator's directory. From a branch whose coordinator is away: its last directory, or that branch alone."""
        self._io.check_may_wait()
        if self._contact().role == BRANCH:
            return self._known_branches()
        return list(self._ask_patiently(THE_COORDINATOR, GetDirectory(), Directory)().branches)

    def replicas(self) -> list[ReplicaInfo]:
        """The replicas that the coordinator has heard of, with what they had and how far behind they were a moment ago."""
        return list(self.directory().replicas)

    def promote(self, branch: str, replica: ReplicaInfo) -> ReplicaInfo:
        """Let a replica (one that `replicas` told of) take the place of its branch, which must be stopped: what the branch did
        after the replica's last row is void. An operator's act, for good; the replica takes over within seconds.

        Raises RemoteFault (`branch_up`, `replica_not_found`, `cannot_lead`); NoAnswer: ask again, it is safe.
        """
        message = Promote(check_branch_name(branch), replica.name, replica.instance, self._asker.caller)
        request: AccountWrite[Promoting] = AccountWrite(
            THE_COORDINATOR,
            message,
            self._timeout_us,
            (Promoting,),
            as_it_is,
            lambda reason: NoAnswer(f"{reason}: it is not known whether {replica.name} is promoted; ask again"),
        )
        return self._io.call(request).info

    def currencies(self) -> dict[str, str]:
        """The currency of each branch, by name: what was heard last, for it never changes."""
        if not self._routes.directory:
            return {info.name: info.currency for info in self.branches()}
        return {name: info.currency for name, info in self._routes.directory.items()}

    def status(self) -> list[StatusInfo | ActorDown]:
        """How the coordinator and every branch do, asked now; who does not answer stands there as ActorDown."""
        return self._survey(GetStatus(), StatusInfo)


def _account_at(branch: str, info: AccountInfo, as_of: AsOf | None) -> AccountView:
    return account_view(branch, info, as_of=as_of)


def _accounts_at(branch: str, page: AccountsPage, as_of: AsOf | None) -> tuple[list[AccountView], str]:
    return [account_view(branch, info, as_of=as_of) for info in page.accounts], page.next


def _refused(answer: Outcome) -> ZbankError:
    if answer.refusal is not None:
        return Refused(answer.refusal.code, answer.refusal.detail)
    return NoAnswer(f"the bank says {answer.status} of {format_id(answer.id)}: ask again with the same id")


def _not_known(what: str, id: bytes) -> Callable[[str], ZbankError]:
    def error(reason: str) -> ZbankError:
        return NoAnswer(f"{reason}: it is not known whether {what}; ask again with the id {format_id(id)}")

    return error
