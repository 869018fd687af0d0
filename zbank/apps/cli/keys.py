"""`zbank keys`: who may connect to the bank, and as what. It changes files; every part of the bank follows them by itself."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import timedelta
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from zbank.apps.cli.output import Column, emit_json, show_facts, show_table
from zbank.apps.cli.shell import EXIT_DONE, json_option

if TYPE_CHECKING:
    from zbank.transport.keys import Key

ROLES = ("client", "teller", "auditor", "operator", "bridge", "branch", "coordinator", "replica")
DEFAULT_FOLDER = "keys"
DEFAULT_CLUSTER = "demo"
OVERLAP_DAYS = 7
MAX_DAYS = 3_650

COLUMNS = (
    Column("name"),
    Column("role"),
    Column("accounts", fold=True),
    Column("made"),
    Column("state", fold=True),
    Column("secret here"),
    Column("public key"),
)


def folder_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Adds --keys and --config; the command gets a `folder`."""

    @click.option("--keys", "given", metavar="DIR", help="Folder of the keys.  [ZBANK_KEYS, or keys beside the config file]")
    @click.option("--config", metavar="FILE", help="Cluster file: its keys lie beside it.")
    @wraps(function)
    def wrapper(given: str | None, config: str | None, **arguments: Any) -> Any:
        from zbank.transport.keyfolder import SUBFOLDER
        from zbank.transport.keys import KEYS_VARIABLE

        beside = Path(config).absolute().parent / SUBFOLDER if config else Path(DEFAULT_FOLDER)
        folder = Path(given or os.environ.get(KEYS_VARIABLE) or beside)
        if "config" in wants_config:
            arguments["config"] = config
        return function(folder=folder, **arguments)

    wants_config = function.__code__.co_varnames[: function.__code__.co_argcount]
    return wrapper


@click.group()
def keys() -> None:
    """Make, list, revoke and rotate the keys of the bank's parts and of who uses it.

    A bank with keys encrypts everything, lets in only who is listed, and takes from each only what its role may do. The
    list keys.toml is not secret and lies on every machine; NAME.secret only where NAME runs. A bank that listens on one
    machine alone needs none.

    \b
    Examples:
      zbank keys init --config config/cluster.toml
      zbank keys add till-4 --role teller --config config/cluster.toml
      zbank keys add asha --role client --account Mumbai/1001
      zbank keys revoke till-4
      zbank keys rotate Mumbai
    """


@keys.command()
@click.option("--cluster", metavar="NAME", help=f"Name of the cluster, where there is no file.  [{DEFAULT_CLUSTER}]")
@click.option("--branch", "branches", multiple=True, metavar="NAME", help="A branch, where there is no file; several times.")
@folder_options
def init(folder: Path, config: str | None, cluster: str | None, branches: tuple[str, ...]) -> int:
    """Make a key for the coordinator, each branch and its replicas in the file, the REST bridge, and an operator.

    \b
    Examples:
      zbank keys init --config config/cluster.toml
      zbank keys init --cluster demo --branch Mumbai --branch Delhi
    """
    from zbank.apps.keymaking import make_all
    from zbank.config import COORDINATOR_NAME
    from zbank.transport.keys import LIST_NAME, SECRET_SUFFIX

    replicas: dict[str, str] = {}
    if config is not None:
        from zbank.config import load_config

        if cluster or branches:
            raise click.UsageError("--cluster and --branch stand in the file: give --config alone, or them alone")
        found = load_config(config)
        cluster, branches, replicas = found.name, tuple(found.branches), found.named_replicas
    elif not branches:
        raise click.UsageError("say for whom: --config FILE, or --branch NAME for each branch")
    keyring = make_all(folder, cluster or DEFAULT_CLUSTER, branches, replicas)
    click.echo(f"made {len(keyring.keys)} keys in {folder}:")
    machine = {key.name: f"the machine of {_who(key)}" for key in keyring.keys}
    for name in [name for name, of in replicas.items() if of == COORDINATOR_NAME]:
        machine[COORDINATOR_NAME] = f"the machines of {COORDINATOR_NAME} and of {name}, which can take its place"
    show_facts([(f"  {name}{SECRET_SUFFIX}", f"secret; only for {where}") for name, where in machine.items()])
    show_facts([(f"  {LIST_NAME}", "not secret; for every machine")])
    if config is not None and folder == Path(config).absolute().parent / DEFAULT_FOLDER:
        click.echo("Everything that is started with this config file uses them from now on.")
    else:
        click.echo(f"To use them: export ZBANK_KEYS={folder.absolute()}")
    return EXIT_DONE


@keys.command()
@click.argument("name")
@click.option("--role", required=True, type=click.Choice(ROLES), help="What it may do.")
@click.option("--account", "accounts", multiple=True, metavar="ACCOUNT", help="Of a client, all it may use; several times.")
@folder_options
@json_option
def add(folder: Path, name: str, role: str, accounts: tuple[str, ...], as_json: bool) -> int:
    """Make one more key.

    A client uses its own accounts, a teller all of them and the cash desk; an auditor sees everything and changes nothing;
    an operator may do all that people may; a bridge speaks in the names of others.
    """
    from zbank.apps.keymaking import add as add_key
    from zbank.transport.keys import SECRET_SUFFIX

    key = add_key(folder, name, role, accounts)
    if as_json:
        emit_json(_json(folder, key))
    else:
        click.echo(f"made the key of {_who(key)}: {folder / name}{SECRET_SUFFIX}")
        click.echo("Copy keys.toml to every machine, and the secret to where it is used; then remove it here.")
    return EXIT_DONE


@keys.command("list")
@folder_options
@json_option
def list_(folder: Path, as_json: bool) -> int:
    """List all keys, also those that are over."""
    from zbank.transport.keys import read_list

    shown = [_json(folder, key) for key in read_list(folder).keys]
    if as_json:
        emit_json({"keys": shown})
        return EXIT_DONE
    rows = [
        (
            key["name"],
            key["role"],
            " ".join(key["accounts"]),
            key["made_at"][:10],
            key["state"],
            "yes" if key["secret_here"] else "no",
            key["public"],
        )
        for key in shown
    ]
    show_table(COLUMNS, rows)
    return EXIT_DONE


@keys.command()
@click.argument("name")
@folder_options
@json_option
def revoke(folder: Path, name: str, as_json: bool) -> int:
    """End a key now, and every connection that it has. On other machines it ends when keys.toml is copied there."""
    from zbank.apps.keymaking import revoke as revoke_key

    ended = revoke_key(folder, name)
    if as_json:
        emit_json({"revoked": [_json(folder, key) for key in ended]})
    else:
        click.echo(f"revoked: {_who(ended[-1])}. Copy keys.toml to every machine.")
    return EXIT_DONE


@keys.command()
@click.argument("name")
@click.option(
    "--days",
    type=click.IntRange(0, MAX_DAYS),
    default=OVERLAP_DAYS,
    show_default=True,
    help="How long the old key is good beside the new one; 0 = no longer.",
)
@folder_options
@json_option
def rotate(folder: Path, name: str, days: int, as_json: bool) -> int:
    """Make a new key in the place of an old one. Nothing has to be stopped: both are good for a while."""
    from zbank.apps.keymaking import rotate as rotate_key
    from zbank.transport.keys import SECRET_SUFFIX

    key = rotate_key(folder, name, timedelta(days=days))
    if as_json:
        emit_json(_json(folder, key))
    else:
        old = f"the old one is good for {days} more days" if days else "the old one is over"
        click.echo(f"rotated: {_who(key)} has a new key, {old}.")
        click.echo(f"Copy keys.toml to every machine first, then {name}{SECRET_SUFFIX} to where {name} runs.")
    return EXIT_DONE


def _who(key: Key) -> str:
    return key.name if key.role == key.name else f"{key.role} {key.name}"


def _json(folder: Path, key: Key) -> dict[str, Any]:
    from zbank.clock import Clock, format_time
    from zbank.transport.keys import FOREVER_US, SECRET_SUFFIX, read_secret

    state = "good"
    if key.revoked is not None:
        state = f"revoked {key.revoked:%Y-%m-%d}"
    elif key.until is not None:
        over = key.ends_us <= Clock().now().wall_us
        state = f"rotated, {'over since' if over else 'good until'} {key.until:%Y-%m-%d}"
    here = (folder / f"{key.name}{SECRET_SUFFIX}").exists() and read_secret(folder, key.name).public == key.public
    return {
        "name": key.name,
        "role": key.role,
        "accounts": list(key.accounts),
        "public": key.public,
        "made_at": format_time(int(key.made.timestamp()) * 1_000_000),
        "ends_at": None if key.ends_us == FOREVER_US else format_time(key.ends_us),
        "state": state,
        "secret_here": here,
    }
