"""A real cluster of real processes, started by the documented commands, for the tests that stand outside the bank."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from zbank import Client
from zbank.apps import keymaking
from zbank.apps.chaos import ports
from zbank.errors import ZbankError
from zbank.protocol.messages import StatusInfo
from zbank.transport.keyfolder import NAME_VARIABLE
from zbank.transport.keys import KEYS_VARIABLE

READY_LIMIT_S = 30.0
STOP_LIMIT_S = 20.0
COMMAND_LIMIT_S = 100.0
CLUSTER_NAME = "test"
BRANCHES = ("Mumbai", "Delhi")
ROOT = Path(__file__).resolve().parents[2]
NAMED_PORTS = 3  # the coordinator's feed takes the two ports after its own


_given: deque[int] = deque(maxlen=400)  #: ports handed out lately: nobody may listen there yet, or just now


def free_ports(count: int) -> int:
    """The first of `count` neighbouring loopback ports that nobody listens on, and nobody else is about to."""
    for _ in range(200):
        found = ports.free_ports(count, random.Random())
        if not set(found) & set(_given):
            _given.extend(found)
            return found.start
    raise OSError(f"no {count} neighbouring ports were found that are free and were not given away")


def wait_until(condition: Callable[[], bool], limit_s: float = READY_LIMIT_S, what: str = "the condition") -> None:
    """Ask again and again until it holds; fail the test when it does not within the limit. While the bank gives no answer, it
    does not hold."""
    end = time.monotonic() + limit_s
    while True:
        silence = ""
        try:
            if condition():
                return
        except ZbankError as error:
            silence = f": {error}"
        if time.monotonic() > end:
            pytest.fail(f"{what} did not come true within {limit_s} s{silence}")
        time.sleep(0.02)


class Cluster:
    """A coordinator and branches as processes of their own. Names: `coordinator` and the branches'."""

    def __init__(self, folder: Path, branches: tuple[str, ...] = BRANCHES, *, secure: bool = False) -> None:
        self.folder = folder
        self.config = folder / "cluster.toml"
        self.data = folder / "data"
        self.branches = branches
        self.flags: dict[str, tuple[str, ...]] = {}  #: by actor: more flags of its command
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self._spawned: list[subprocess.Popen[str]] = []
        first = free_ports(NAMED_PORTS + len(branches))
        self.endpoint = f"tcp://127.0.0.1:{first}"
        self.endpoints = {"coordinator": self.endpoint}
        self.endpoints |= {name: f"tcp://127.0.0.1:{first + NAMED_PORTS + n}" for n, name in enumerate(branches)}
        self.config.write_text(self._toml(), encoding="utf-8")
        self.keys = folder / "keys" if secure else None  #: beside the config file, where everybody looks for them
        if self.keys is not None:
            keymaking.make_all(self.keys, CLUSTER_NAME, branches)

    def _toml(self) -> str:
        lines = ["[cluster]", f'name = "{CLUSTER_NAME}"', f'data = "{self.data}"', ""]
        lines += ["[coordinator]", f'endpoint = "{self.endpoint}"', ""]
        for name in self.branches:
            lines += [
                f"[branches.{name}]",
                f'endpoint = "{self.endpoints[name]}"',
                'currency = "INR"',
                "preload = true",
                "",
            ]
        return "\n".join(lines)

    def command(self, *arguments: str) -> list[str]:
        """The command line of `zbank …`."""
        return [sys.executable, "-m", "zbank.apps.cli", *arguments]

    def environment(self) -> dict[str, str]:
        """The environment of every process: it finds this very source, installed or not."""
        return {**os.environ, "PYTHONPATH": str(ROOT), KEYS_VARIABLE: str(self.keys or ""), NAME_VARIABLE: ""}

    def start(self, name: str, ready: bool = True) -> None:
        """Start one actor and, unless told otherwise, wait until it answers."""
        self.spawn_actor(name, "--config", str(self.config), *self.flags.get(name, ()))
        if ready:
            self.wait_ready(name)

    def spawn_actor(self, name: str, *flags: str, role: tuple[str, ...] = ()) -> None:
        """Start an actor by these flags; `role` is its command where the name does not tell it."""
        role = role or (("coordinator",) if name == "coordinator" else ("branch", "--name", name))
        with self.log(name).open("ab") as log:
            self.processes[name] = subprocess.Popen(
                self.command(*role, *flags),
                cwd=self.folder,
                env=self.environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def start_all(self) -> None:
        """Start every actor, then wait for all; ready means that the coordinator knows every branch, too."""
        names = ("coordinator", *self.branches)
        for name in names:
            self.start(name, ready=False)
        for name in names:
            self.wait_ready(name)
        self.wait_registered()

    def wait_ready(self, name: str) -> None:
        """Wait until the actor answers a status request."""

        def answers() -> bool:
            if self.processes[name].poll() is not None:
                pytest.fail(f"{name} ended with {self.processes[name].returncode}:\n{self.output(name)}")
            with self.client(name, timeout_s=2) as client:
                return any(isinstance(actor, StatusInfo) for actor in client.status())

        wait_until(answers, what=f"an answer of {name}")

    def wait_registered(self) -> None:
        """Wait until the coordinator has heard of every branch: of the process that serves it now, not of one before."""
        with self.client() as client:

            def are_registered() -> bool:
                serving = {actor.name: actor.epoch for actor in client.status() if isinstance(actor, StatusInfo)}
                known = {info.name: info.epoch for info in client.branches() if info.up}
                return all(name in known and known[name] == serving.get(name) for name in self.branches)

            wait_until(are_registered, what="the registration of every branch")

    def log(self, name: str) -> Path:
        """The file with all that the actor printed."""
        return self.folder / f"{name}.log"

    def output(self, name: str) -> str:
        """All that the actor printed, over all its starts."""
        return self.log(name).read_text(encoding="utf-8", errors="replace")

    def send_signal(self, name: str, number: signal.Signals) -> None:
        """Send one actor a signal (SIGSTOP, SIGCONT, …)."""
        os.kill(self.processes[name].pid, number)

    def kill(self, name: str) -> None:
        """kill -9, and wait until it is gone."""
        process = self.processes[name]
        process.kill()
        process.wait(STOP_LIMIT_S)

    def stop(self, name: str) -> int:
        """SIGTERM; the exit code."""
        process = self.processes[name]
        process.terminate()
        return process.wait(STOP_LIMIT_S)

    def close(self) -> None:
        """Leave no process behind, whatever state they are in."""
        everything: list[subprocess.Popen[bytes] | subprocess.Popen[str]] = [*self.processes.values(), *self._spawned]
        for process in everything:
            if process.poll() is None:
                process.kill()
        for process in everything:
            process.wait(STOP_LIMIT_S)
            for pipe in (process.stdout, process.stderr):
                if pipe is not None:
                    pipe.close()

    def cli(self, *arguments: str, stdin: str = "", endpoint: str | None = None) -> subprocess.CompletedProcess[str]:
        """Run `zbank …` against the coordinator, or another endpoint, with its output captured; not a terminal."""
        return subprocess.run(
            self.command(*arguments),
            cwd=self.folder,
            env=self.environment() | {"ZBANK_ENDPOINT": endpoint or self.endpoint},
            input=stdin,
            capture_output=True,
            text=True,
            timeout=COMMAND_LIMIT_S,
            check=False,
        )

    def spawn(self, *arguments: str) -> subprocess.Popen[str]:
        """Begin `zbank …` as `cli` does, without waiting for its end; `close` ends it at the latest."""
        process = subprocess.Popen(
            self.command(*arguments),
            cwd=self.folder,
            env=self.environment() | {"ZBANK_ENDPOINT": self.endpoint},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._spawned.append(process)
        return process

    def client(self, name: str = "coordinator", timeout_s: float = 10.0, key: str = "") -> Client:
        """A Client of one actor, by the operator's key or another; close it (it is a context manager)."""
        return Client(self.endpoints[name], timeout_s=timeout_s, keys=self.keys or "", key=key)


@contextmanager
def running(folder: Path) -> Iterator[Cluster]:
    """A fresh cluster whose every actor runs: Mumbai and Delhi, with accounts 1001 and 1002 at each."""
    cluster = Cluster(folder)
    try:
        cluster.start_all()
        yield cluster
    finally:
        cluster.close()
