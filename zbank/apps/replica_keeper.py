"""The replicas that are started together with a branch: their commands, and the process that keeps them running.

`run_cluster.py` keeps them itself. `zbank branch` stays what it is, one process with one loop; beside it stands a keeper,
forked before anything runs, that starts the replicas and dies with the branch, as they die with it.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NoReturn

import zbank
from zbank.apps.supervisor import Supervisor, die_with
from zbank.config import parse_endpoint, replica_names

TURN_S = 0.2
BRANCH_FIRST_S = 0.5  #: what a branch has to say when it cannot run comes before the replicas' lines

log = logging.getLogger("zbank")


def zbank_command(*arguments: str) -> list[str]:
    """The command line of `zbank …`, by this Python."""
    return [sys.executable, "-m", "zbank.apps.cli", *arguments]


def child_environment() -> dict[str, str]:
    """Ours, and so that children find this very zbank anywhere and write their lines at once."""
    paths = [str(Path(zbank.__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    return os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths)), "PYTHONUNBUFFERED": "1"}


def replica_commands(branch: str, count: int, bind: str, endpoint: str, where: Sequence[str]) -> dict[str, list[str]]:
    """The command of each replica of a branch, by its name. They listen where the branch does, on ports that are free.

    `bind` and `endpoint` are the branch's; `where` are the flags that tell of the bank and of the data.
    """
    host, reached = parse_endpoint(bind).host, parse_endpoint(endpoint).host
    listens = ["--host", host] if reached == host else ["--host", host, "--advertise", reached]
    return {
        name: zbank_command("replica", *where, "--of", branch, "--name", name, *listens)
        for name in replica_names(branch, count)
    }


@contextmanager
def kept(
    commands: Mapping[str, Sequence[str]], environment: Mapping[str, str], *, prefix: bool, synchronous: str = ""
) -> Iterator[None]:
    """Keep these running meanwhile. `prefix`: say of each line of theirs whose it is (not of logs as JSON). `synchronous`: the
    one that the branch waits for; "" = none."""
    if not commands:
        yield
        return
    for stream in (sys.stdout, sys.stderr):
        stream.flush()  # else both processes would write what is in it
    parent = os.getpid()
    keeper = os.fork()
    if keeper == 0:
        _keep(parent, commands, environment, prefix=prefix, synchronous=synchronous)
    try:
        yield
    finally:
        with suppress(ProcessLookupError):
            os.kill(keeper, signal.SIGTERM)
        with suppress(ChildProcessError):
            os.waitpid(keeper, 0)


def _keep(
    parent: int,
    commands: Mapping[str, Sequence[str]],
    environment: Mapping[str, str],
    *,
    prefix: bool,
    synchronous: str,
) -> NoReturn:
    """The whole life of the keeper."""
    asked: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda got, _frame: asked.append(got))
    try:
        os.setpgid(0, 0)  # Ctrl-C in a terminal is for the branch, which then stops this
        die_with(parent)
        supervisor = Supervisor(commands, environment, _print if prefix else _log, prefix=prefix)
        for child in supervisor.children:
            child.due_s = time.monotonic() + BRANCH_FIRST_S
        while not asked and os.getppid() == parent:  # the latter is for systems where nothing dies with its parent
            supervisor.turn(TURN_S)
            if supervisor.hopeless is not None:
                name = supervisor.hopeless.name
                but = " only when another one is its synchronous replica: `zbank acks`" if name == synchronous else ""
                log.error("%s cannot run, its last lines say why: the branch goes on without it%s", name, but)
                supervisor.hopeless = None
        supervisor.stop(lambda: False)
    except BaseException:
        log.exception("the replicas are not kept running any more: start the branch again to have them")
        os._exit(1)
    os._exit(0)


def _print(line: str) -> None:
    with suppress(OSError):  # nobody reads any more: no reason to stop
        print(line, file=sys.stderr, flush=True)


def _log(line: str) -> None:
    """In JSON, as it is or made so."""
    if line.startswith("{"):
        _print(line)
    else:
        log.info("%s", line)
