"""A cluster of its own for the replay: real processes, started by the documented commands, and always stopped again."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from zbank import Client
from zbank.apps.chaos.ports import free_ports
from zbank.errors import ZbankError

CLUSTER_NAME = "berka"
COORDINATOR = "coordinator"
READY_LIMIT_S = 30.0
STOP_LIMIT_S = 10.0
LOOK_AGAIN_S = 0.05
SHOWN_LINES = 20  #: of the log of a process that ended too early
_COORDINATOR_PORTS = 3  # its own, and the next two for the feed


class ClusterFault(ZbankError):
    """The cluster did not start."""

    code = "cluster_failed"


class LocalCluster:
    """A coordinator and one process a branch on free loopback ports, with their files and logs in one directory.

    A directory of an earlier run is continued: addresses are chosen anew, the data stays. Use it as a context manager.
    """

    def __init__(self, directory: Path, branches: Sequence[str], currency: str) -> None:
        self._directory = directory.absolute()
        self._branches = tuple(branches)
        self._currency = currency
        self._commands: dict[str, tuple[str, ...]] = {}  # by name: `coordinator` and the branches'
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self.endpoint = ""  #: of the coordinator, once started

    def __enter__(self) -> LocalCluster:
        try:
            self._start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def kill_and_restart(self, name: str) -> None:
        """kill -9 one process (`coordinator` or a branch's name) and start it again, with its address and data."""
        process = self._processes[name]
        process.kill()
        process.wait()
        self._spawn(name)

    def close(self) -> None:
        """Stop every process: SIGTERM to all (branches first), and SIGKILL to those that do not end in time."""
        for process in reversed(self._processes.values()):
            if process.poll() is None:
                process.terminate()
        limit = time.monotonic() + STOP_LIMIT_S
        for process in self._processes.values():
            try:
                process.wait(max(0.0, limit - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def _start(self) -> None:
        """Start all; returns when the coordinator knows every branch. Raises ClusterFault when one does not come up."""
        self._directory.mkdir(parents=True, exist_ok=True)
        config = str(self._write_config())
        self._commands[COORDINATOR] = ("coordinator", "--config", config)
        for name in self._branches:
            self._commands[name] = ("branch", "--config", config, "--name", name)
        for name in self._commands:
            self._spawn(name)
        limit = time.monotonic() + READY_LIMIT_S
        with Client(self.endpoint) as client:
            while missing := self._missing(client):
                self._check_alive()
                if time.monotonic() > limit:
                    raise ClusterFault(
                        f"not ready within {READY_LIMIT_S:.0f} s: {', '.join(missing)}; logs: {self._directory}"
                    )
                time.sleep(LOOK_AGAIN_S)

    def _write_config(self) -> Path:
        ports = free_ports(_COORDINATOR_PORTS + len(self._branches), random.Random())
        self.endpoint = f"tcp://127.0.0.1:{ports[0]}"
        lines = ["[cluster]", f'name = "{CLUSTER_NAME}"', f"data = '{self._directory / 'data'}'", ""]
        lines += ["[coordinator]", f'endpoint = "{self.endpoint}"', ""]
        for name, port in zip(self._branches, ports[_COORDINATOR_PORTS:], strict=True):
            lines += [
                f"[branches.{name}]",
                f'endpoint = "tcp://127.0.0.1:{port}"',
                f'currency = "{self._currency}"',
                "",
            ]
        config = self._directory / "cluster.toml"
        config.write_text("\n".join(lines), encoding="utf-8")
        return config

    def _spawn(self, name: str) -> None:
        with self._log(name).open("ab") as log:
            self._processes[name] = subprocess.Popen(
                [sys.executable, "-m", "zbank.apps.cli", *self._commands[name]],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C reaches the replay alone, which then stops them in order
            )

    def _missing(self, client: Client) -> list[str]:
        """Who is not there yet, as far as the coordinator knows."""
        try:
            up = {branch.name for branch in client.branches() if branch.up}
        except ZbankError:
            return [COORDINATOR]
        return [name for name in self._branches if name not in up]

    def _check_alive(self) -> None:
        for name, process in self._processes.items():
            if process.poll() is not None:
                lines = self._log(name).read_text("utf-8", "replace").splitlines()[-SHOWN_LINES:]
                raise ClusterFault("\n".join([f"{name} ended with code {process.returncode}; it said:", *lines]))

    def _log(self, name: str) -> Path:
        return self._directory / f"{name}.log"
