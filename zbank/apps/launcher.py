"""The local launcher (`run_cluster.py`): the whole cluster of one config file on this machine, kept running.

Every part is started by its documented command, so that what works here works on separate machines too.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import NamedTuple

import msgspec

import zbank
from zbank import Client
from zbank.apps import launcher_setup as setup
from zbank.apps.launcher_setup import DASHBOARD_NAME, REST_NAME
from zbank.apps.replica_keeper import child_environment, replica_commands, zbank_command
from zbank.apps.supervisor import RESTART_DELAYS_S, Supervisor
from zbank.config import (
    COORDINATOR_NAME,
    DEFAULT_COORDINATOR,
    DEFAULT_DATA,
    STANDBY_NAME,
    ClusterConfig,
    data_file,
    load_config,
    url_of,
)
from zbank.errors import InvalidConfig, InvalidInput, StoreError, ZbankError
from zbank.protocol.messages import BRANCH, COORDINATOR, NEVER_US, REPLICA, StatusInfo
from zbank.transport.keyfolder import find_folder
from zbank.transport.keys import KEYS_VARIABLE

READY_LIMIT_S = 120.0  #: a branch may have a long journal to replay
MAX_FALSE_STARTS = 4  #: in a row before the cluster was ever open: then something is wrong that a restart does not mend
PATIENCE_S = 10.0  #: after this long, say whom we still wait for
ASK_LIMIT_S = 1.0
SHOW_LIMIT_S = 5.0  #: for the addresses that are shown once
TURN_S = 0.1
DRILL_DELAYS_S = (0.1, 0.5)  #: in drills things die on purpose, again and again

EXIT_DONE = 0
EXIT_FAILED = 1
EXIT_USAGE = 2


class Stop:
    """Counts the signals that ask the launcher to stop; the second one makes it urgent."""

    def __init__(self) -> None:
        self.asked = 0
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._on_signal)

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        self.asked += 1


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the cluster until Ctrl-C or SIGTERM; the exit code."""
    options = _parse_arguments(arguments)
    try:
        config = load_config(options.config)
        if options.data is not None:
            config = msgspec.structs.replace(config, data=Path(options.data).absolute())
        keys = find_folder(config.path, os.environ)
        if options.branches is not None:
            config = setup.with_branches(config, options.branches)
        if options.no_rest:
            config = msgspec.structs.replace(config, rest=None)
        if options.no_dashboard:
            config = msgspec.structs.replace(config, dashboard=None)
        if options.drills:
            setup.check_for_drills(config)
            config = setup.without_replicas(config)
        setup.check_ports_are_free(config)
        if options.fresh:
            for identity in setup.remove_data(config):
                _say(f"removed the data of the {identity}")
        if options.secure:
            keys = setup.make_missing_keys(config)
    except (InvalidConfig, InvalidInput) as error:
        return _fail(str(error), EXIT_USAGE)
    except (StoreError, OSError) as error:
        return _fail(str(error), EXIT_FAILED)
    return _run(config, keys, drills=options.drills)


def _parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="run_cluster.py", description="Start the whole cluster of a config file on this machine. Ctrl-C stops it."
    )
    here = Path(zbank.__file__).parents[1]
    parser.add_argument(
        "--config", metavar="FILE", default=here / "config" / "cluster.toml", help="cluster file (default: the demo's)"
    )
    parser.add_argument("--branches", metavar="N", type=_count, help="run N branches, made like those of the file")
    parser.add_argument("--fresh", action="store_true", help="remove the data of this cluster first")
    parser.add_argument("--data", metavar="DIR", help="folder of the data files, in place of the file's")
    parser.add_argument(
        "--drills", action="store_true", help="with the gates of `zbank drill`: to learn two-phase commit, not for real money"
    )
    parser.add_argument(
        "--secure", action="store_true", help="make keys, encrypt everything between the parts, and let nobody else in"
    )
    parser.add_argument("--no-rest", action="store_true", help="without the REST bridge")
    parser.add_argument("--no-dashboard", action="store_true", help="without the web dashboard")
    options = parser.parse_args(arguments)
    if options.secure and options.drills:
        parser.error("--drills are played without keys: give it or --secure")
    return options


def _count(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 1 <= int(text[:9]) <= 1000:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of branches: give 1 to 1000")
    return int(text)


def _run(config: ClusterConfig, keys: Path | None, *, drills: bool) -> int:
    """`keys` is the folder of the bank's keys, None when it has none."""
    stop = Stop()
    delays_s = DRILL_DELAYS_S if drills else RESTART_DELAYS_S
    supervisor = Supervisor(_commands(config, drills=drills), _environment(keys), _say, delays_s)
    try:
        _say(f"starting cluster {config.name} ({config.path})")
        if _wait_until_ready(config, keys, supervisor, stop):
            _show(config, keys, supervisor, drills=drills)
            while not stop.asked and supervisor.hopeless is None:
                supervisor.turn(TURN_S)
                _do_without_replica(config, supervisor)
        if supervisor.hopeless is not None:
            _say(f"{supervisor.hopeless.name} cannot run, its last lines above say why: everything is stopped")
            return EXIT_FAILED
        return EXIT_DONE if stop.asked else EXIT_FAILED
    finally:
        already = stop.asked
        _say("stopping")
        supervisor.stop(lambda: stop.asked > max(already, 1))
        _say("stopped; the data is kept for the next start")


def _do_without_replica(config: ClusterConfig, supervisor: Supervisor) -> None:
    """A replica that cannot run is no reason to close a bank that is open."""
    if supervisor.hopeless is not None and supervisor.hopeless.name in config.replicas:
        name = supervisor.hopeless.name
        of = config.replicas[name]
        goes_on = "the bank goes on without it"
        if config.branches[of].synchronous == name:
            goes_on += f", but {of} does not while this is its synchronous replica: `zbank acks {of} REPLICA` names another"
        _say(f"{name} cannot run, its last lines above say why: {goes_on}")
        supervisor.hopeless = None


# --- what to run ------------------------------------------------------------------------------------------------------


def _commands(config: ClusterConfig, *, drills: bool) -> dict[str, list[str]]:
    """The command of each actor, by its name."""
    where = ["--config", str(config.path), "--data", str(config.data.absolute())]
    common = [*where, "--drills"] if drills else where
    commands: dict[str, list[str]] = {}
    if STANDBY_NAME not in setup.promoted(config):  # else it could answer nobody
        commands[COORDINATOR_NAME] = zbank_command("coordinator", *common)
    for name in config.branches:
        commands[name] = zbank_command("branch", *common, "--name", name, "--replicas", "0")
    if config.coordinator.standby:
        commands[STANDBY_NAME] = zbank_command("replica", *where, "--of", COORDINATOR_NAME)
    for name, branch in config.branches.items():
        commands |= replica_commands(name, branch.replicas, branch.bind, branch.endpoint, where)
    if config.rest is not None:
        commands[REST_NAME] = zbank_command("rest", "--config", str(config.path))
        if drills:
            commands[REST_NAME] += ["--drills", "--data", str(config.data.absolute())]
    if config.dashboard is not None:
        commands[DASHBOARD_NAME] = zbank_command("dashboard", "--config", str(config.path))
    return commands


def _environment(keys: Path | None) -> dict[str, str]:
    """A child's, with the folder of the keys."""
    return child_environment() | {KEYS_VARIABLE: str(keys or "")}


# --- while it runs ----------------------------------------------------------------------------------------------------


def _wait_until_ready(config: ClusterConfig, keys: Path | None, supervisor: Supervisor, stop: Stop) -> bool:
    """True when every actor has answered, and every branch takes work on; False when asked to stop, or when one cannot run or
    does not answer. Where a branch waits for its synchronous replica there is no limit: an operator says what to do."""
    started_s = time.monotonic()
    patient_until_s = started_s + PATIENCE_S
    leads = setup.promoted(config)
    wanted = {child.name for child in supervisor.children} - set(leads) | set(leads.values())  # these answer as whom they are
    missing = wanted
    while missing:
        supervisor.turn(TURN_S)
        if stop.asked or supervisor.hopeless is not None:
            return False
        for child in supervisor.children:
            if child.ends_in_a_row >= MAX_FALSE_STARTS:
                supervisor.hopeless = child
                return False
        now_s = time.monotonic()
        seen = _who_answers(config, keys, level=now_s < started_s + PATIENCE_S)
        missing = wanted - seen.ready
        if missing and now_s > patient_until_s:
            _say(f"still waiting for {', '.join(sorted(missing))}")
            for name, alarm in seen.stopped.items():
                _say(f"{name}: {alarm}")
            patient_until_s = now_s + PATIENCE_S
        silent = set() if COORDINATOR_NAME in seen.stopped else missing - seen.stopped.keys()
        if silent and now_s > started_s + READY_LIMIT_S:
            _say(f"no answer from {', '.join(sorted(silent))} within {READY_LIMIT_S:g} s: giving up")
            return False
    return True


class _Seen(NamedTuple):
    """Who answers."""

    ready: set[str]
    stopped: dict[str, str]  #: actors that wait for their synchronous replica, and what they say of it


def _who_answers(config: ClusterConfig, keys: Path | None, *, level: bool) -> _Seen:
    """Names of the actors that answer now; the coordinator must know a branch or a replica for it to count, and with `level`
    a replica must have all that its branch had (who asks it before is told that there is no such account)."""
    stopped: dict[str, str] = {}
    try:
        with _connect(config, keys) as bank:
            answers = [answer for answer in bank.status() if isinstance(answer, StatusInfo)]
            stopped = {answer.name: "; ".join(answer.alarms) for answer in answers if answer.stopped}
            replicas = bank.replicas() if config.replicas else []
            retired = {info.name for info in bank.retired_branches()}  # the directory has them no more: not waited for
            idle = {answer.name for answer in answers if not _takes_work_on(config, bank, answer)}
    except ZbankError:
        return _Seen(set(), stopped)
    found = {info.name for info in replicas if info.lag_us < NEVER_US or not level}
    found |= {COORDINATOR_NAME if answer.role == COORDINATOR else answer.name for answer in answers} - idle | retired
    for name, url in _pages(config).items():
        health = f"{url}/{'healthz' if name == REST_NAME else '_stcore/health'}"
        with suppress(OSError), urllib.request.urlopen(health, timeout=ASK_LIMIT_S):
            found.add(name)
    return _Seen(found, stopped)


def _takes_work_on(config: ClusterConfig, bank: Client, actor: StatusInfo) -> bool:
    """A branch that has a synchronous replica answers this only when that one is there."""
    section = config.branches.get(actor.name)
    if section is None or not section.synchronous:
        return True
    try:
        bank.accounts_page(actor.name, limit=1)
    except ZbankError:
        return False
    return True


def _connect(config: ClusterConfig, keys: Path | None, limit_s: float = ASK_LIMIT_S) -> Client:
    return Client(config.coordinator.places, cluster=config.name, timeout_s=limit_s, keys=keys or "")


def _places(config: ClusterConfig, keys: Path | None) -> Iterator[tuple[str, str, str]]:
    """Role, name and address of each actor. Replicas take a port that is free: the coordinator knows which."""
    leads = setup.promoted(config)
    yield f"former {COORDINATOR}" if STANDBY_NAME in leads else COORDINATOR, COORDINATOR_NAME, config.coordinator.endpoint
    known: dict[str, str] = {}
    if config.replicas:
        with suppress(ZbankError), _connect(config, keys, SHOW_LIMIT_S) as bank:
            known = {info.name: info.endpoint for info in bank.branches()}
            known |= {info.name: info.endpoint for info in bank.replicas()}
    for name, branch in config.branches.items():
        if name in leads.values():
            yield f"former {BRANCH}", name, branch.endpoint
        else:
            yield BRANCH, name, branch.endpoint
    for name in config.replicas:
        if name == STANDBY_NAME:
            yield COORDINATOR if name in leads else REPLICA, name, config.coordinator.standby
        elif name in leads:
            yield f"{BRANCH} {leads[name]}", name, known.get(leads[name], "")
        else:
            yield REPLICA, name, known.get(name, "")


def _pages(config: ClusterConfig) -> dict[str, str]:
    """What is spoken to over HTTP: its address from this machine, by its name."""
    sections = ((REST_NAME, config.rest), (DASHBOARD_NAME, config.dashboard))
    return {name: url_of(section) for name, section in sections if section is not None}


def _show(config: ClusterConfig, keys: Path | None, supervisor: Supervisor, *, drills: bool) -> None:
    """What runs where, and what to type next."""
    from rich.console import Console
    from rich.table import Table

    pids = {child.name: str(child.pid or "-") for child in supervisor.children}
    table = Table(title=f"cluster {config.name}", title_justify="left")
    for heading in ("role", "name", "address", "process id", "data"):
        table.add_column(heading, overflow="fold")
    for role, name, endpoint in _places(config, keys):
        table.add_row(role, name, endpoint, pids.get(name, "-"), _short(data_file(config.data, name)))
    pages = _pages(config)
    for name, url in pages.items():
        table.add_row(name, "", url, pids[name], "")
    console = Console(soft_wrap=True) if sys.stdout.isatty() else Console(width=160)
    with console.capture() as drawn:
        console.print(table)
    _say(drawn.get().rstrip("\n"))
    _say("\n".join(["The bank is open. In a second shell:", "", *(f"    {line}" for line in _first_steps(config, keys)), ""]))
    if DASHBOARD_NAME in pages:
        _say(f"In a browser: {pages[DASHBOARD_NAME]} shows the bank, and lets you use it.")
    if REST_NAME in pages:
        _say(f"Over HTTP: {pages[REST_NAME]}/docs shows all that can be done there, and lets you try it.\n")
    if drills:
        steps = (f"    {line}" for line in _drill_steps(config))
        _say("\n".join(["This bank can be stopped, looked into and broken, to learn from it:", "", *steps, ""]))
    _say("Ctrl-C stops everything; the next start goes on with this data (--fresh: from nothing).")


def _first_steps(config: ClusterConfig, keys: Path | None) -> Iterator[str]:
    if sys.prefix != sys.base_prefix:
        yield f"cd {Path.cwd()}"
        yield f". {_short(Path(sys.prefix))}/bin/activate"
    if config.coordinator.places != DEFAULT_COORDINATOR:
        yield f"export ZBANK_ENDPOINT={config.coordinator.places}"
    if keys is not None:
        yield f"export {KEYS_VARIABLE}={keys}"
    yield "zbank status"
    yield "zbank accounts"
    ready = [name for name, branch in config.branches.items() if branch.preload]
    if ready:
        yield f"zbank transfer {ready[0]}/1001 {ready[min(1, len(ready) - 1)]}/1002 50"
        yield f"zbank statement {ready[0]}/1001"
        copied = next((name for name in ready if config.branches[name].replicas), None)
        if copied is not None:
            yield f"zbank balance {copied}/1001 --replica"


def _drill_steps(config: ClusterConfig) -> Iterator[str]:
    where = "" if config.data.absolute() == Path.cwd() / DEFAULT_DATA else f" --data {_short(config.data)}"
    yield "zbank drill list"
    yield f"zbank drill run all-goes-well --step{where}"


def _short(path: Path) -> str:
    """The path from the working directory, where that is shorter."""
    path = path.absolute()
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


def _say(line: str) -> None:
    """Print a line. When nobody reads any more (a closed terminal, `| head`) the bank goes on, and stops, without words."""
    try:
        print(line, flush=True)
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _fail(text: str, code: int) -> int:
    print(f"run_cluster.py: {text}", file=sys.stderr)
    return code
