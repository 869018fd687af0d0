"""The command `zbank` with all that stands under it."""

from __future__ import annotations

import click

from zbank import __version__
from zbank.apps.cli import (
    accounts,
    acks,
    acts,
    bench,
    branches,
    chaos,
    dashboard,
    discover,
    doubt,
    drill,
    keys,
    many,
    promote,
    rest,
    serve,
    status,
    tokens,
    transfers,
)
from zbank.apps.cli.shell import BankGroup

COMMANDS = (
    serve.branch,
    serve.coordinator,
    serve.replica,
    rest.rest,
    dashboard.dashboard,
    status.status,
    accounts.accounts,
    accounts.open_,
    accounts.balance,
    transfers.deposit,
    transfers.withdraw,
    transfers.transfer,
    many.transfer_many,
    accounts.statement,
    transfers.show,
    transfers.cancel,
    accounts.freeze,
    accounts.unfreeze,
    accounts.close,
    doubt.in_doubt,
    promote.promote,
    acks.acks,
    tokens.tokens,
    keys.keys,
    discover.discover,
    acts.acts,
    branches.branches,
    bench.bench,
    chaos.chaos,
    drill.drill,
)


@click.group(cls=BankGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="zbank")
def main() -> None:
    """A distributed bank: start its parts, move money, look at accounts.

    Accounts are written Branch/number, amounts as decimals of the branch's currency. All commands that talk to
    the bank find it at tcp://127.0.0.1:9000, or where --endpoint, ZBANK_ENDPOINT or --config says, or on the
    local network: the cluster that --cluster names, or that the keys are of.

    \b
    Exit codes: 0 done · 1 refused or failed · 2 wrong usage · 3 outcome unknown (ask again with the same id)

    \b
    Examples:
      zbank status
      zbank transfer Mumbai/1001 Delhi/1002 50
      zbank statement Mumbai/1001
    """


for _command in COMMANDS:
    main.add_command(_command)
