"""Commands that move money or ask about it: deposit, withdraw, transfer, show, cancel.

Each writing command makes its id before it sends, so that whatever happens the user learns the id and can ask again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import click

from zbank.apps.cli.output import emit_json, show_facts
from zbank.apps.cli.shell import (
    EXIT_DONE,
    EXIT_REFUSED,
    EXIT_UNKNOWN,
    AmountCommand,
    Bank,
    bank_options,
    complain,
    describe_error,
    json_option,
)
from zbank.errors import ClientClosed, RemoteFault, Unreachable, ZbankError

if TYPE_CHECKING:
    from zbank import Client, TransferResult

COMMITTED = "committed"
ABORTED = "aborted"
PASSING_FAULTS = frozenset({"busy", "branch_unavailable", "storage_full", "stopping", "out_of_office"})

Send = Callable[["Client", bytes], "TransferResult"]


def move_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """What deposit, withdraw and transfer have in common."""
    options = (
        click.option("--id", "request_id", metavar="ID", help="A UUID or your own key; the same id never pays twice."),
        click.option("--memo", default="", help="A text on the statements of both sides."),
        click.option("--currency", metavar="CODE", help="Refuse unless the accounts have this currency."),
        click.option("--effective-on", metavar="DATE", help="A date (YYYY-MM-DD) to put on the statements."),
    )
    for option in reversed(options):
        function = option(function)
    return function


@click.command(cls=AmountCommand)
@click.argument("account")
@click.argument("amount")
@move_options
@bank_options
@json_option
def deposit(bank: Bank, account: str, amount: str, request_id: str | None, as_json: bool, **words: Any) -> int:
    """Pay AMOUNT in cash into ACCOUNT.

    \b
    Example:
      zbank deposit Mumbai/1001 100.00
    """

    def send(client: Client, sent_id: bytes) -> TransferResult:
        return client.deposit(account, amount, id=sent_id, **words)

    return _move(bank, send, f"{amount} into {account}", account, request_id, as_json)


@click.command(cls=AmountCommand)
@click.argument("account")
@click.argument("amount")
@move_options
@bank_options
@json_option
def withdraw(bank: Bank, account: str, amount: str, request_id: str | None, as_json: bool, **words: Any) -> int:
    """Pay AMOUNT in cash out of ACCOUNT.

    \b
    Example:
      zbank withdraw Mumbai/1001 20
    """

    def send(client: Client, sent_id: bytes) -> TransferResult:
        return client.withdraw(account, amount, id=sent_id, **words)

    return _move(bank, send, f"{amount} out of {account}", account, request_id, as_json)


@click.command(cls=AmountCommand)
@click.argument("source", metavar="FROM")
@click.argument("destination", metavar="TO")
@click.argument("amount")
@move_options
@bank_options
@json_option
def transfer(
    bank: Bank, source: str, destination: str, amount: str, request_id: str | None, as_json: bool, **words: Any
) -> int:
    """Move AMOUNT from account FROM to account TO, within a branch or between two: that is found out by itself.

    \b
    Examples:
      zbank transfer Mumbai/1001 Delhi/1002 50
      zbank transfer Mumbai/1001 Mumbai/1002 12.50 --memo "rent June" --id rent-2026-06
    """

    def send(client: Client, sent_id: bytes) -> TransferResult:
        return client.transfer(source, destination, amount, id=sent_id, **words)

    return _move(bank, send, f"{amount} from {source} to {destination}", source, request_id, as_json)


def _move(bank: Bank, send: Send, what: str, shown_account: str, request_id: str | None, as_json: bool) -> int:
    """Send one request and say what became of it; `shown_account` is the one whose new balance is of interest."""
    from zbank.ids import format_id, id_from_text, new_id

    sent_id = id_from_text(request_id) if request_id is not None else new_id()
    shown_id = format_id(sent_id)
    with bank.connect() as client:
        try:
            result = send(client, sent_id)
        except (KeyboardInterrupt, ClientClosed):
            return complain(_ask_again(bank, shown_id, "interrupted while waiting"), EXIT_UNKNOWN)
        except (RemoteFault, Unreachable) as error:
            again = f" (nothing is settled; the same again: --id {request_id or shown_id})" if may_pass(error) else ""
            return complain(describe_error(error) + again)
        if as_json:
            emit_json(result.to_json())
        elif result.status == COMMITTED:
            for line in _success_lines(client, result, what, shown_account):
                click.echo(line)
    return _tell_rest(bank, result)


def may_pass(error: ZbankError) -> bool:
    """Sending the same again later may help."""
    return isinstance(error, Unreachable) or (isinstance(error, RemoteFault) and error.remote_code in PASSING_FAULTS)


def _success_lines(client: Client, result: TransferResult, what: str, account: str) -> Iterator[str]:
    done = "committed before, nothing moved now" if result.replayed else COMMITTED
    late = "" if result.applied else " (decided; a branch has still to apply it)"
    yield f"{done}: {what}{late}, id {result.id}"
    try:
        now = client.account(account)
    except ZbankError:
        return  # the transfer is what counts; the balance is only a courtesy
    yield f"balance of {account}: {now.balance} {now.currency}"


def _tell_rest(bank: Bank, result: TransferResult) -> int:
    """The line on stderr for all but success, and the exit code."""
    if result.status == COMMITTED:
        return EXIT_DONE
    if result.status == ABORTED:
        return complain(f"refused: {refusal_text(result)}", EXIT_REFUSED)
    return complain(_ask_again(bank, result.id, result.reason or f"the outcome is {result.status}"), EXIT_UNKNOWN)


def refusal_text(result: TransferResult) -> str:
    """`code: detail` of an aborted transfer."""
    return f"{result.refusal.code}: {result.refusal.detail}" if result.refusal is not None else "aborted"


def _ask_again(bank: Bank, shown_id: str, reason: str) -> str:
    return f"unknown: {shown_id}: {reason}; ask with: {bank.suggest(f'show {shown_id}')}"


@click.command()
@click.argument("transfer_id", metavar="ID")
@click.option("--account", help="An account of the transfer: asks only its branch.")
@bank_options
@json_option
def show(bank: Bank, transfer_id: str, account: str | None, as_json: bool) -> int:
    """Show what became of the transfer ID (a UUID, or your own key).

    Exits with 3 while the outcome is not known.

    \b
    Examples:
      zbank show 01890a5d-ac96-774b-bcce-b302099a8057
      zbank show rent-2026-06 --json
    """
    from zbank.ids import format_id, id_from_text

    sent_id = id_from_text(transfer_id)
    with bank.connect() as client:
        found = client.show(sent_id, account=account).to_json()
    if as_json:
        emit_json(found)
    elif found["status"] != "unknown":
        show_facts(_transfer_facts(found))
    if found["status"] in (COMMITTED, ABORTED):
        return EXIT_DONE
    if found["status"] == "pending":
        return complain(f"pending: {found['id']} is not decided yet: ask again in a moment", EXIT_UNKNOWN)
    return complain(f"unknown: nobody who answered knows {format_id(sent_id)}", EXIT_UNKNOWN)


def _transfer_facts(found: dict[str, Any]) -> Iterator[tuple[str, str]]:
    yield "transfer", found["id"]
    yield "status", found["status"]
    if found["refusal"]:
        yield "refusal", f"{found['refusal']['code']}: {found['refusal']['detail']}"
    if found["from"]:
        yield "amount", f"{found['amount']} {found['currency']}"
        yield "from", found["from"]
        yield "to", found["to"]
    else:
        for name, leg in zip(["legs"] + [""] * len(found["legs"]), found["legs"], strict=False):
            yield name, f"{leg['account']}  {leg['amount']} {found['currency']}"
    for key, name in (("memo", "memo"), ("effective_on", "effective on"), ("created_at", "at")):
        if found.get(key):
            yield name, found[key]
    for name, part in zip(["branches"] + [""] * len(found["participants"]), found["participants"], strict=False):
        yield name, _participant_text(part)
    for name, phase in zip(["timeline"] + [""] * len(found["timeline"]), found["timeline"], strict=False):
        yield name, f"{phase['start_ms']:>9.3f} to {phase['end_ms']:.3f} ms  {phase['phase']} ({phase['actor']})"


def _participant_text(part: dict[str, Any]) -> str:
    pieces = [f"{part['branch']}: {part['state']}"]
    if part["vote"]:
        pieces.append(f"vote {part['vote']}")
    for key, name in (("prepare_ms", "prepare"), ("apply_ms", "apply")):
        if part[key] is not None:
            pieces.append(f"{name} {part[key]:.3f} ms")
    return ", ".join(pieces)


@click.command()
@click.argument("transfer_id", metavar="ID")
@click.option("--account", help="The account that pays: asks only its branch.")
@bank_options
@json_option
def cancel(bank: Bank, transfer_id: str, account: str | None, as_json: bool) -> int:
    """Make sure that the transfer ID never happens, unless it has already.

    \b
    Examples:
      zbank cancel 01890a5d-ac96-774b-bcce-b302099a8057
      zbank cancel rent-2026-06 --account Mumbai/1001
    """
    from zbank.ids import id_from_text

    with bank.connect() as client:
        result = client.cancel(id_from_text(transfer_id), account=account)
    if as_json:
        emit_json(result.to_json())
    if result.status == COMMITTED:
        return complain(f"refused: {result.id} is committed already: nothing was cancelled", EXIT_REFUSED)
    if result.status != ABORTED:
        return _tell_rest(bank, result)
    if not as_json:
        click.echo(f"never happens: {result.id} ({refusal_text(result)})")
    return EXIT_DONE
