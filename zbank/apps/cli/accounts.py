"""Commands about accounts: accounts, open, balance, statement, freeze, unfreeze, close."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from zbank.apps.cli.output import Column, emit_json, emit_json_list, on_terminal, show_table
from zbank.apps.cli.shell import (
    EXIT_DONE,
    EXIT_UNKNOWN,
    Bank,
    Near,
    bank_options,
    complain,
    json_option,
    near_options,
)
from zbank.errors import NoAnswer

if TYPE_CHECKING:
    from zbank import Client
    from zbank.transport.views import AccountView, AsOf, StatementPage

PAGE_ENTRIES = 1000

ACCOUNT_COLUMNS = (
    Column("account"),
    Column("owner", fold=True),
    Column("status"),
    Column("balance", right=True),
    Column("held", right=True),
    Column("available", right=True),
    Column("currency"),
    Column(""),
)
ENTRY_COLUMNS = (
    Column("date"),
    Column("amount", right=True),
    Column("balance", right=True),
    Column("memo", fold=True),
    Column("counterparty", fold=True),
    Column("id"),
)


@click.command()
@click.argument("branch", required=False)
@click.option("--search", metavar="TEXT", default="", help="Owners with this text in them, numbers that begin with it.")
@click.option("--status", type=click.Choice(["open", "frozen", "closed"]), help="Only those.")
@near_options
@bank_options
@json_option
def accounts(bank: Bank, near: Near, branch: str | None, search: str, status: str | None, as_json: bool) -> int:
    """List the accounts of one BRANCH, or of all. The bank's own counter accounts are marked `system`.

    \b
    Examples:
      zbank accounts
      zbank accounts Mumbai --json
      zbank accounts --search rao --status frozen
    """
    with bank.connect() as client:
        found = near.reader(client, branch).accounts(branch, search=search, status=status or "")
        if as_json:
            emit_json_list("accounts", (account.to_json() for account in found))
        else:
            show_table(ACCOUNT_COLUMNS, map(_account_row, found))
    return EXIT_DONE


def _account_row(account: AccountView) -> tuple[str, ...]:
    from zbank.domain.legs import SYSTEM_NUMBERS

    system = account.number in SYSTEM_NUMBERS
    return (
        account.account,
        account.owner,
        account.status,
        account.balance,
        account.held,
        "" if system else account.available,
        account.currency,
        "system" if system else "",
    )


@click.command("open")
@click.argument("branch")
@click.argument("number", required=False, default="")
@click.option("--owner", default="", help="Whose account it is.")
@click.option("--overdraft", metavar="AMOUNT", default="0", show_default=True, help="How far below zero it may go.")
@click.option("--currency", metavar="CODE", help="Of the account; default: the branch's.")
@click.option("--id", "request_id", metavar="ID", help="Id or key of this request, to be able to repeat it safely.")
@bank_options
@json_option
def open_(
    bank: Bank,
    branch: str,
    number: str,
    owner: str,
    overdraft: str,
    currency: str | None,
    request_id: str | None,
    as_json: bool,
) -> int:
    """Open an account at BRANCH; without NUMBER the branch gives the next free one.

    \b
    Examples:
      zbank open Mumbai --owner "Asha Rao"
      zbank open Delhi 2001 --overdraft 500.00
    """
    from zbank.ids import id_from_text, new_id

    sent_id = id_from_text(request_id) if request_id is not None else new_id()
    with bank.connect() as client:
        try:
            account = client.open_account(
                branch, number=number, owner=owner, overdraft_limit=overdraft, currency=currency, id=sent_id
            )
        except NoAnswer as error:
            return _unknown(error)
    if as_json:
        emit_json(account.to_json())
    else:
        click.echo(f"opened {account.account} ({account.currency}, overdraft limit {account.overdraft_limit})")
    return EXIT_DONE


def _unknown(error: NoAnswer) -> int:
    """The error names the id; with it the same command may be given again."""
    return complain(f"unknown: {error.detail} (--id)", EXIT_UNKNOWN)


@click.command()
@click.argument("account")
@near_options
@bank_options
@json_option
def balance(bank: Bank, near: Near, account: str, as_json: bool) -> int:
    """Show what is on ACCOUNT.

    \b
    Examples:
      zbank balance Mumbai/1001
      zbank balance Mumbai/1001 --json
      zbank balance Mumbai/1001 --replica --max-lag 5
    """
    with bank.connect() as client:
        found = near.reader(client, account.partition("/")[0]).account(account)
    if as_json:
        emit_json(found.to_json())
        return EXIT_DONE
    notes = [found.status] if found.status != "open" else []
    if found.held_minor or found.overdraft_limit_minor:
        notes.append(f"{found.held} held, {found.available} available")
    if found.as_of is not None:
        notes.append(as_of_text(found.as_of))
    click.echo(f"{found.balance} {found.currency}" + (f" ({'; '.join(notes)})" if notes else ""))
    return EXIT_DONE


def as_of_text(as_of: AsOf) -> str:
    """`as of row 123, 0.1 s ago`."""
    from zbank.transport.views import lag_seconds

    lag_s = lag_seconds(as_of.lag_us)
    return f"as of row {as_of.position}, " + ("not level with its branch yet" if lag_s is None else f"{lag_s:.1f} s ago")


@click.command()
@click.argument("account")
@click.option("--limit", type=click.IntRange(min=1), default=50, show_default=True, help="How many entries.")
@click.option("--all", "everything", is_flag=True, help="All of them.")
@click.option("--oldest-first", is_flag=True, help="From the first entry on.")
@click.option("--cursor", default="", help="Go on where the page before ended.")
@near_options
@bank_options
@json_option
def statement(
    bank: Bank, near: Near, account: str, limit: int, everything: bool, oldest_first: bool, cursor: str, as_json: bool
) -> int:
    """List the entries of ACCOUNT, newest first. Amounts are signed: + credits the account, - debits it.

    \b
    Examples:
      zbank statement Mumbai/1001
      zbank statement Mumbai/1001 --all --oldest-first --json
    """
    with bank.connect() as client:
        reader = near.reader(client, account.partition("/")[0])
        pages = Pages(reader, account, not oldest_first, cursor, None if everything else limit)
        if as_json:
            rows = [entry.to_json() for entry in pages.entries()]
            emit_json({"account": pages.first.account.to_json(), "entries": rows, "cursor": pages.cursor or None})
            return EXIT_DONE
        count = show_table(ENTRY_COLUMNS, (_entry_row(entry.to_json()) for entry in pages.entries()))
    now = pages.first.account
    if on_terminal():
        when = "now" if now.as_of is None else as_of_text(now.as_of)
        click.echo(f"{count or 'no'} entries; balance of {now.account} {when}: {now.balance} {now.currency}")
        if pages.cursor:
            click.echo(f"more: {bank.suggest(f'statement {account} --cursor {pages.cursor}')}")
    return EXIT_DONE


class Pages:
    """A statement over as many pages as its limit asks for."""

    def __init__(self, client: Client, account: str, newest_first: bool, cursor: str, limit: int | None) -> None:
        self._client = client
        self._account = account
        self._newest_first = newest_first
        self._left = limit  # None = no end
        self.cursor = cursor  #: where the next page would begin; "" = there is none
        self.first = self._page()

    def _page(self) -> StatementPage:
        wanted = PAGE_ENTRIES if self._left is None else min(self._left, PAGE_ENTRIES)
        page = self._client.statement(self._account, newest_first=self._newest_first, limit=wanted, cursor=self.cursor)
        self.cursor = page.cursor
        if self._left is not None:
            self._left -= len(page.entries)
        return page

    def entries(self) -> Iterator[Any]:
        """All entries, page by page; once only."""
        page = self.first
        yield from page.entries
        while self.cursor and self._left != 0:
            yield from self._page().entries


def _entry_row(entry: dict[str, Any]) -> tuple[str, ...]:
    amount = entry["amount"]
    date = entry["effective_on"] or entry["at"][:19].replace("T", " ")
    return (
        date,
        amount if amount.startswith("-") else f"+{amount}",
        entry["balance"],
        entry["memo"],
        ", ".join(entry["counterparties"]),
        entry["id"],
    )


def _change(bank: Bank, account: str, status: str, request_id: str | None, as_json: bool) -> int:
    from zbank.ids import id_from_text, new_id

    sent_id = id_from_text(request_id) if request_id is not None else new_id()
    with bank.connect() as client:
        try:
            client.change_account(account, status=status, id=sent_id)
        except NoAnswer as error:
            return _unknown(error)
        if as_json:
            emit_json(client.account(account).to_json())
        else:
            click.echo(f"{account} is {status}")
    return EXIT_DONE


_change_id = click.option("--id", "request_id", metavar="ID", help="Id or key of this request, to repeat it safely.")


@click.command()
@click.argument("account")
@_change_id
@bank_options
@json_option
def freeze(bank: Bank, account: str, request_id: str | None, as_json: bool) -> int:
    """Freeze ACCOUNT: neither debits nor credits until it is unfrozen. What is prepared already goes through.

    \b
    Example:
      zbank freeze Mumbai/1001
    """
    return _change(bank, account, "frozen", request_id, as_json)


@click.command()
@click.argument("account")
@_change_id
@bank_options
@json_option
def unfreeze(bank: Bank, account: str, request_id: str | None, as_json: bool) -> int:
    """Make a frozen ACCOUNT usable again.

    \b
    Example:
      zbank unfreeze Mumbai/1001
    """
    return _change(bank, account, "open", request_id, as_json)


@click.command()
@click.argument("account")
@_change_id
@bank_options
@json_option
def close(bank: Bank, account: str, request_id: str | None, as_json: bool) -> int:
    """Close ACCOUNT for good. It must be empty.

    \b
    Example:
      zbank close Mumbai/1001
    """
    return _change(bank, account, "closed", request_id, as_json)
