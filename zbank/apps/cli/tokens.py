"""`zbank tokens`: who may use the REST bridge. The coordinator keeps tokens; a secret is shown once and kept by nobody."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from zbank.apps.cli.output import Column, emit_json, show_facts, show_table
from zbank.apps.cli.shell import EXIT_DONE, Bank, bank_options, json_option, named

if TYPE_CHECKING:
    from zbank.protocol.messages import TokenInfo

ROLES = ("customer", "teller", "auditor", "operator")
DAY_US = 86_400_000_000
MAX_DAYS = 36_500

COLUMNS = (
    Column("id"),
    Column("holder", fold=True),
    Column("role"),
    Column("accounts", fold=True),
    Column("made"),
    Column("by"),
    Column("expires"),
    Column("state"),
)


@click.group()
def tokens() -> None:
    """Make, list and revoke tokens of the REST bridge.

    A token acts in its holder's name: Idempotency-Keys belong to the holder, and the journals say who asked. Until the
    first token is made, a bridge that listens on its own machine alone lets anybody there do anything.

    \b
    Examples:
      zbank tokens make --holder ops --role operator
      zbank tokens make --holder asha --role customer --account Mumbai/1001 --days 90
      zbank tokens list
      zbank tokens revoke 01a206e4-6535-7290-a6cf-c388bb3b8b1c
    """


@tokens.command()
@click.option("--holder", required=True, metavar="NAME", help="In whose name it acts.")
@click.option("--role", required=True, type=click.Choice(ROLES), help="What it may do.")
@click.option("--account", "accounts", multiple=True, metavar="ACCOUNT", help="Of a customer; may be given several times.")
@click.option("--days", type=click.IntRange(1, MAX_DAYS), help="How long it is good.  [for ever]")
@bank_options
@json_option
def make(bank: Bank, holder: str, role: str, accounts: tuple[str, ...], days: int | None, as_json: bool) -> int:
    """Make a token. Its secret is shown here and nowhere else."""
    from zbank.clock import Clock
    from zbank.ids import new_secret

    secret = new_secret()
    expires_us = 0 if days is None else Clock().now().wall_us + days * DAY_US
    with bank.connect() as client:
        made = named(client).make_token(
            secret, holder=holder, role=role, accounts=accounts, expires_us=expires_us
        )
    if as_json:
        emit_json({**_json(made), "secret": secret})
    else:
        show_facts(
            [
                ("token", _json(made)["id"]),
                ("holder", f"{made.holder}, {made.role}" + (f" of {', '.join(made.accounts)}" if made.accounts else "")),
                ("secret", secret),
                ("", "keep it: it is not shown again. Send it as: Authorization: Bearer SECRET"),
            ]
        )
    return EXIT_DONE


@tokens.command("list")
@bank_options
@json_option
def list_(bank: Bank, as_json: bool) -> int:
    """List all tokens, revoked ones too."""
    with bank.connect() as client:
        found = client.tokens()
    assert found is not None, "only who knows a version is told that it is the newest"
    shown = [_json(token) for token in found[1]]
    if as_json:
        emit_json({"tokens": shown})
        return EXIT_DONE
    rows = [
        (
            token["id"],
            token["holder"],
            token["role"],
            " ".join(token["accounts"]),
            token["made_at"][:19].replace("T", " "),
            token["made_by"],
            (token["expires_at"] or "never")[:10],
            token["state"],
        )
        for token in shown
    ]
    show_table(COLUMNS, rows)
    return EXIT_DONE


@tokens.command()
@click.argument("token_id", metavar="ID")
@bank_options
@json_option
def revoke(bank: Bank, token_id: str, as_json: bool) -> int:
    """Revoke a token, by its ID (not by its secret). Every bridge refuses it within a second."""
    from zbank.ids import parse_id

    with bank.connect() as client:
        revoked = named(client).revoke_token(parse_id(token_id))
    if as_json:
        emit_json(_json(revoked))
    else:
        click.echo(f"revoked: token {_json(revoked)['id']} of {revoked.holder}")
    return EXIT_DONE


def _json(token: TokenInfo) -> dict[str, Any]:
    from zbank.clock import Clock, format_time
    from zbank.ids import format_id

    state = "good"
    if token.revoked_us:
        state = "revoked"
    elif token.expires_us and Clock().now().wall_us >= token.expires_us:
        state = "expired"
    return {
        "id": format_id(token.id),
        "holder": token.holder,
        "role": token.role,
        "accounts": list(token.accounts),
        "made_at": format_time(token.made_us),
        "made_by": token.made_by,
        "expires_at": format_time(token.expires_us) if token.expires_us else None,
        "revoked_at": format_time(token.revoked_us) if token.revoked_us else None,
        "state": state,
    }
