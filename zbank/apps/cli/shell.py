"""What all commands share: exit codes, one line for each fault, and where the bank is found."""

from __future__ import annotations

import functools
import getpass
import os
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

import click

from zbank.errors import InvalidConfig, InvalidInput, Refused, RemoteFault, ZbankError

if TYPE_CHECKING:
    from zbank import Client

EXIT_DONE = 0
EXIT_REFUSED = 1  # refused or failed
EXIT_USAGE = 2
EXIT_UNKNOWN = 3
EXIT_INTERRUPTED = 130

DEFAULT_ENDPOINT = "tcp://127.0.0.1:9000"
DEFAULT_TIMEOUT_S = 10.0
MAX_TIMEOUT_S = 86_400.0

_NEGATIVE_NUMBER = re.compile(r"-[0-9.]")


class BankGroup(click.Group):
    """The group of all commands. Turns every foreseeable fault into one line on stderr and an exit code."""

    def main(  # type: ignore[override]  # never returns: there is no other mode here
        self, args: Sequence[str] | None = None, prog_name: str | None = None, **extra: Any
    ) -> NoReturn:
        """Run a command and exit."""
        extra.pop("standalone_mode", None)
        arguments = list(sys.argv[1:] if args is None else args)
        sys.exit(self._exit_code(arguments, prog_name, extra))

    def _exit_code(self, arguments: list[str], prog_name: str | None, extra: dict[str, Any]) -> int:
        try:
            _check_text(arguments)
            result = super().main(arguments, prog_name, standalone_mode=False, **extra)
            sys.stdout.flush()
            return result if isinstance(result, int) else EXIT_DONE
        except click.exceptions.NoArgsIsHelpError as error:
            error.show()
            return EXIT_USAGE
        except click.ClickException as error:
            return _usage_error(error)
        except click.Abort:
            return complain("interrupted", EXIT_INTERRUPTED)
        except BrokenPipeError:
            # Whoever read our output has left; nothing more can be said, not even by the interpreter's last flush.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return EXIT_REFUSED
        except ZbankError as error:
            return complain(describe_error(error), EXIT_USAGE if isinstance(error, InvalidConfig) else EXIT_REFUSED)
        except OSError as error:
            return complain(f"failed: {error.strerror or error}" + (f": {error.filename}" if error.filename else ""))


class AmountCommand(click.Command):
    """A command with an amount: a negative one is called that, not an unknown option."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse, after a look for negative numbers where no option takes them."""
        for before, argument in zip(["", *args], args, strict=False):
            if before == "--":
                break
            if _NEGATIVE_NUMBER.match(argument) and not before.startswith("--"):
                raise InvalidInput(f"{argument!r} is no amount here: give a positive one")
        return super().parse_args(ctx, args)


def _check_text(arguments: Sequence[str]) -> None:
    for argument in arguments:
        if not argument.isascii() and any("\ud800" <= char <= "\udfff" for char in argument):
            raise click.UsageError("an argument is not valid text: use UTF-8")


def _usage_error(error: click.ClickException) -> int:
    hint = ""
    if isinstance(error, click.UsageError) and error.ctx is not None:
        hint = f" (see: {error.ctx.command_path} --help)"
    message = error.format_message().rstrip(".")
    return complain(f"usage: {message[:1].lower()}{message[1:]}{hint}", EXIT_USAGE)


def describe_error(error: ZbankError) -> str:
    """The line a person reads: `refused: CODE: …` for a business or input "no", `failed: CODE: …` for a fault."""
    if isinstance(error, Refused):
        return f"refused: {error.refusal_code}: {error.detail}"
    if isinstance(error, InvalidInput):
        return f"refused: {error.code}: {error.detail}"
    if isinstance(error, RemoteFault):
        return f"failed: {error.remote_code}: {error.detail}"
    if isinstance(error, InvalidConfig):
        return f"config: {error.detail}"
    return f"failed: {error.code}: {error.detail}"


def complain(text: str, exit_code: int = EXIT_REFUSED) -> int:
    """One line on stderr, whatever the text holds; gives the exit code back."""
    click.echo(printable(text), err=True)
    return exit_code


def note(text: str) -> None:
    """One line on stderr that is no complaint."""
    click.echo(printable(f"note: {text}"), err=True)


def printable(text: str) -> str:
    """The text on one line, without control characters: what others wrote into a memo must not steer this terminal."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else " " if char.isspace() else "\ufffd" for char in text)


# --- where the bank is ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Bank:
    """Where the bank is found and how long to wait for it."""

    endpoint: str
    cluster: str  #: the cluster's name, "" when none was given
    timeout_s: float
    named: str  #: the flags that say so again, for commands that we suggest; "" for the default place
    keys: Path | None = None  #: folder of the keys; None = the bank has none
    key: str = ""  #: which of them; "" = the one that can be meant

    def connect(self) -> Client:
        """A client of the bank; close it (it is a context manager)."""
        from zbank import Client

        return Client(
            self.endpoint,
            cluster=self.cluster,
            timeout_s=self.timeout_s,
            name="cli",
            keys=self.keys or "",
            key=self.key,
        )

    def suggest(self, command: str) -> str:
        """A command line that asks this bank."""
        return f"zbank {command} {self.named}".rstrip()


def bank_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Adds --endpoint, --config, --cluster, --timeout and --key; the command gets a `bank`."""

    @click.option(
        "--endpoint", envvar="ZBANK_ENDPOINT", metavar="ADDRESS", help=f"Coordinator or a branch.  [{DEFAULT_ENDPOINT}]"
    )
    @click.option("--config", metavar="FILE", help="Take the coordinator's address from a cluster file.")
    @click.option("--cluster", metavar="NAME", help="Find the coordinator of this cluster on the local network.")
    @click.option(
        "--timeout",
        type=float,
        default=DEFAULT_TIMEOUT_S,
        show_default=True,
        metavar="SECONDS",
        callback=_checked_timeout,
        help="How long to wait for an answer.",
    )
    @click.option(
        "--key", envvar="ZBANK_KEY", metavar="NAME", help="Whose key to use, where the bank has keys.  [the only one here]"
    )
    @functools.wraps(function)
    def wrapper(
        endpoint: str | None, config: str | None, cluster: str | None, timeout: float, key: str | None, **arguments: Any
    ) -> Any:
        return function(bank=_find_bank(endpoint, config, cluster, timeout, key or ""), **arguments)

    return wrapper


class Near(NamedTuple):
    """Whether to read at a replica, and what it must show."""

    replica: bool
    max_lag_s: float | None
    after: int | None

    def reader(self, client: Client, branch: str | None) -> Client:
        """The client to read with."""
        if not self.replica:
            if (self.max_lag_s, self.after) != (None, None):
                raise click.UsageError("--max-lag and --after say what a replica must show: give --replica as well")
            return client
        if branch is None and self.after is not None:
            raise click.UsageError("--after is a row of one branch's journal: name the branch")
        after = {} if branch is None or self.after is None else {branch: self.after}
        return client.at_replicas(max_lag_s=self.max_lag_s, after=after)


def near_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Adds --replica, --max-lag and --after; the command gets a `near`."""

    @click.option("--replica", is_flag=True, help="Ask a replica, not the branch; what it says may be a moment old.")
    @click.option("--max-lag", type=float, metavar="SECONDS", help="With --replica: refuse anything older.")
    @click.option("--after", type=int, metavar="ROW", help="With --replica: wait until it has this row (`positions`).")
    @functools.wraps(function)
    def wrapper(replica: bool, max_lag: float | None, after: int | None, **arguments: Any) -> Any:
        return function(near=Near(replica, max_lag, after), **arguments)

    return wrapper


def named(client: Client) -> Client:
    """The client in the name of who sits here, for the journal: the key's name where there is one."""
    if client.key is not None:
        return client
    try:
        return client.on_behalf_of(getpass.getuser()[:64])
    except (KeyError, OSError):  # no name for this user id
        return client.on_behalf_of("cli")


def log_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Adds --log and --log-level to a command that serves, and sets its logs up."""

    @click.option(
        "--log",
        "log_form",
        envvar="ZBANK_LOG",
        type=click.Choice(["text", "json"]),
        default="text",
        show_default=True,
        help="Form of the log on stderr.",
    )
    @click.option(
        "--log-level",
        envvar="ZBANK_LOG_LEVEL",
        type=click.Choice(["debug", "info", "warning"]),
        default="info",
        show_default=True,
        help="With debug, each request of the REST bridge has a line at every part that it passes.",
    )
    @functools.wraps(function)
    def wrapper(log_form: Any, log_level: str, **arguments: Any) -> Any:
        from zbank.apps import logs

        logs.set_up(log_form, log_level)
        return function(**arguments)

    return wrapper


def log_environment() -> dict[str, str]:
    """How a command with these options was told to log, for those that it starts."""
    given = click.get_current_context().params
    return {"ZBANK_LOG": given["log_form"], "ZBANK_LOG_LEVEL": given["log_level"]}


json_option = click.option("--json", "as_json", is_flag=True, help="Answer in JSON.")


def _checked_timeout(_context: click.Context, _parameter: click.Parameter, value: float) -> float:
    if not 0 < value <= MAX_TIMEOUT_S:  # false for NaN as well
        raise click.BadParameter(f"{value} is no time to wait: give seconds above 0")
    return value


def keys_folder(config: str | None) -> Path | None:
    """Where the keys are, by ZBANK_KEYS or beside the config file; None = there are none. Raises InvalidConfig."""
    from zbank.transport.keyfolder import find_folder

    return find_folder(None if config is None else Path(config), os.environ)


def is_typed(option: str) -> bool:
    """The option was given on the command line; else it is from the environment, or not given."""
    return click.get_current_context().get_parameter_source(option) is click.core.ParameterSource.COMMANDLINE


def _find_bank(endpoint: str | None, config: str | None, cluster: str | None, timeout_s: float, key: str) -> Bank:
    typed = is_typed("endpoint")
    if cluster is not None and (typed or config is not None):
        raise click.UsageError(f"give --cluster or {'--endpoint' if typed else '--config'}, not both")
    if config is not None:
        if typed:
            raise click.UsageError("give --endpoint or --config, not both")
        from zbank.config import load_config

        file = load_config(config)
        return Bank(file.coordinator.places, file.name, timeout_s, f"--config {config}", keys_folder(config), key)
    keys = keys_folder(None)
    if cluster is not None or (keys is not None and not endpoint):
        from zbank.apps.cli.finding import find_coordinator

        found = find_coordinator(cluster, keys, note)
        if found is not None:
            return Bank(found.endpoint, found.cluster, timeout_s, f"--endpoint {found.endpoint}", keys, key)
        endpoint = ""
    if not endpoint or endpoint == DEFAULT_ENDPOINT:
        return Bank(DEFAULT_ENDPOINT, "", timeout_s, "", keys, key)
    place = checked_places(endpoint, "--endpoint")
    return Bank(place, "", timeout_s, f"--endpoint {place}" if typed else "", keys, key)


def checked_places(text: str, option: str, default_port: int | None = None) -> str:
    """Addresses with commas between, each as `checked_endpoint`: where the coordinator is, and where a replica may have taken
    its place. Raises UsageError."""
    return ",".join(checked_endpoint(one.strip(), option, default_port) for one in text.split(","))


def checked_endpoint(text: str, option: str, default_port: int | None = None) -> str:
    """`tcp://host:port` that others can connect to, from a text that may lack `tcp://` (and the port, where a default
    is given). Raises UsageError."""
    from zbank.config import parse_reachable_endpoint

    full = text if "://" in text else f"tcp://{text}"
    if default_port is not None and not re.search(r":[0-9]+$", full):
        full = f"{full}:{default_port}"
    try:
        return str(parse_reachable_endpoint(full, 0 if default_port == 0 else 1))
    except InvalidInput as error:
        raise click.UsageError(f"{option}: {error}") from error
