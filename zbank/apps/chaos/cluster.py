"""A cluster of its own for the chaos: real processes, and the proxy between every two of them.

Each actor has its own config file: the others' endpoints in it are ports of the proxy, one for each link. What an actor
tells of itself is one more port of the proxy, which the directory hands to clients and, in time, to the other branches:
there the proxy asks the kernel who it is that connects (on Linux; elsewhere it counts as a client).
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

import zbank
from zbank.apps.chaos.connection import Link
from zbank.apps.chaos.faults import CLIENTS
from zbank.apps.chaos.history import CURRENCY
from zbank.apps.chaos.ports import free_ports, owner_of
from zbank.apps.chaos.proxy import Proxy
from zbank.apps.serving import EXIT_FAILED, role_named
from zbank.apps.supervisor import describe_exit
from zbank.config import COORDINATOR_NAME, Endpoint, data_file
from zbank.errors import StorageFull, StoreError, ZbankError
from zbank.protocol.messages import BRANCH, COORDINATOR
from zbank.storage.sqlite import Identity, JournalStore
from zbank.transport.keys import KEYS_VARIABLE

CLUSTER_NAME = "chaos"
BRANCH_NAMES = ("Mumbai", "Delhi", "Pune", "Chennai", "Kolkata", "Jaipur", "Surat", "Indore")
STOP_LIMIT_S = 15.0
STARTING_S = 5.0  #: an actor younger than this may not listen to SIGTERM yet: then it simply dies of it
OWN_PORTS = 3  #: the coordinator's, and its two for the feed
LAST_LINES = 5

HOST = "127.0.0.1"

Say = Callable[[str], None]


class CannotStart(ZbankError):
    """The cluster does not come up."""

    code = "cannot_start"


class ChaosCluster:
    """A coordinator and branches that can be started and ended one by one. Names: `coordinator` and the branches'."""

    def __init__(self, folder: Path, branches: Sequence[str], proxy: Proxy, seed: int) -> None:
        """Nothing runs yet. Raises OSError when there are no free ports."""
        self.folder = folder
        self.branches = tuple(branches)
        self.actors = (COORDINATOR_NAME, *branches)
        self.data_of: dict[str, Path] = {}  #: by actor: its data folder, where it is not the common one
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self._started_s: dict[str, float] = {}  # by actor: its last start, monotonic
        self._told_young: dict[str, bool] = {}  # by actor: was it just starting when it was last told to stop?
        self._ports = self._assign_ports(seed)
        self._listen(proxy)
        for name in self.actors:
            self._config(name).write_text(self._toml(name), encoding="utf-8")

    # --- addresses ----------------------------------------------------------------------------------------------------

    def _assign_ports(self, seed: int) -> dict[Link, int]:
        """By link; an actor's own port stands under the link from itself to itself."""
        links = [Link(name, name) for name in self.actors]
        links += [Link(CLIENTS, name) for name in self.actors]
        links += [Link(name, other) for name in self.branches for other in self.actors if other != name]
        ports = free_ports(OWN_PORTS - 1 + len(links), random.Random(seed ^ os.getpid()))
        return dict(zip(links, [ports[0], *ports[OWN_PORTS:]], strict=True))

    def _listen(self, proxy: Proxy) -> None:
        for link, port in self._ports.items():
            if link.origin != link.target:
                identify = self._who_connects if link.origin == CLIENTS else None
                proxy.listen(port, self._ports[Link(link.target, link.target)], link, identify)

    def _who_connects(self, port: int) -> str:
        running = {name: process.pid for name, process in list(self.processes.items())}
        return owner_of(port, running) or CLIENTS

    def endpoint(self, name: str) -> str:
        """Where clients reach an actor."""
        return self._endpoint(Link(CLIENTS, name))

    def _endpoint(self, link: Link) -> str:
        return str(Endpoint(HOST, self._ports[link]))

    def _config(self, name: str) -> Path:
        return self.folder / f"{name}.toml"

    def _toml(self, name: str) -> str:
        """The cluster as this actor is to see it."""
        feed = self._ports[Link(COORDINATOR_NAME, COORDINATOR_NAME)] + 1
        lines = ["[cluster]", f'name = "{CLUSTER_NAME}"', f'data = "{self.folder / "data"}"']
        lines += ["[coordinator]", *self._addresses(name, COORDINATOR_NAME)]
        lines += [f'feed_in = "{Endpoint(HOST, feed)}"', f'feed_out = "{Endpoint(HOST, feed + 1)}"']
        for branch in self.branches:
            lines += [
                f"[branches.{branch}]",
                *self._addresses(name, branch),
                f'currency = "{CURRENCY}"',
                "preload = true",
            ]
        return "\n".join(lines) + "\n"

    def _addresses(self, name: str, other: str) -> list[str]:
        """The other's addresses in the file of `name`. A coordinator connects to nobody: it gets what clients get."""
        if other == name:
            return [f'endpoint = "{self.endpoint(name)}"', f'bind = "{self._endpoint(Link(name, name))}"']
        return [f'endpoint = "{self._endpoint(Link(CLIENTS if name == COORDINATOR_NAME else name, other))}"']

    # --- processes ----------------------------------------------------------------------------------------------------

    def start(self, name: str) -> None:
        """Start one actor; it may take a while until it answers."""
        role = [COORDINATOR] if name == COORDINATOR_NAME else [BRANCH, "--name", name]
        data = ["--data", str(self.data_of[name])] if name in self.data_of else []
        command = [sys.executable, "-m", "zbank.apps.chaos.child", str(os.getpid()), *role]
        source = str(Path(zbank.__file__).parents[1])
        paths = [source, os.environ.get("PYTHONPATH")]
        self._started_s[name] = time.monotonic()
        with self.log(name).open("ab") as log:
            self.processes[name] = subprocess.Popen(
                [*command, "--config", str(self._config(name)), *data],
                cwd=self.folder,
                env=os.environ | {KEYS_VARIABLE: "", "PYTHONPATH": os.pathsep.join(filter(None, paths))},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                process_group=0,  # Ctrl-C is for the chaos alone, which then stops them
            )

    def log(self, name: str) -> Path:
        """The file with all that the actor printed."""
        return self.folder / f"{name}.log"

    def last_lines(self, name: str) -> str:
        """The end of its log, on one line."""
        return " | ".join(self.log(name).read_text("utf-8", "replace").splitlines()[-LAST_LINES:])

    def had_no_room(self, name: str) -> bool:
        """Has it ended because its disk had no room to start? That is as it should be: the next start may find some."""
        lines = self.log(name).read_text("utf-8", "replace").splitlines()
        return (
            self.exit_code(name) == EXIT_FAILED and bool(lines) and lines[-1].startswith(f"ERROR: {StorageFull.code}:")
        )

    def exit_code(self, name: str) -> int | None:
        """None while it runs."""
        return self.processes[name].poll()

    def age_s(self, name: str) -> float:
        """Since its last start."""
        return time.monotonic() - self._started_s[name]

    def ended(self) -> list[str]:
        """Who does not run, and the last that it said."""
        codes = [(name, self.exit_code(name)) for name in self.actors if name in self.processes]
        return [
            f"{name} ended ({describe_exit(code)}): {self.last_lines(name)}" for name, code in codes if code is not None
        ]

    def send(self, name: str, number: signal.Signals) -> None:
        """Send a signal, if it runs."""
        self.processes[name].send_signal(number)

    def kill(self, name: str) -> None:
        """kill -9, and wait until it is gone."""
        self.processes[name].kill()
        self.processes[name].wait(STOP_LIMIT_S)

    def terminate(self, name: str) -> None:
        """Tell it to stop; `wait_end` waits until it has."""
        self._told_young[name] = self.age_s(name) < STARTING_S
        self.send(name, signal.SIGTERM)

    def wait_end(self, name: str) -> list[str]:
        """Findings, unless an actor that was told to stop ends in time and with 0."""
        try:
            code = self.processes[name].wait(STOP_LIMIT_S)
        except subprocess.TimeoutExpired:
            self.kill(name)
            return [f"{name} did not stop within {STOP_LIMIT_S:.0f} s of SIGTERM: {self.last_lines(name)}"]
        if (code == -signal.SIGTERM and self._told_young[name]) or self.had_no_room(name):
            return []
        return [] if code == 0 else [f"{name} was told to stop: {describe_exit(code)}, not 0: {self.last_lines(name)}"]

    def close(self) -> None:
        """Leave no process behind."""
        for process in self.processes.values():
            process.kill()
        for process in self.processes.values():
            process.wait()

    # --- afterwards ---------------------------------------------------------------------------------------------------

    def verify(self, down: Collection[str], say: Say) -> list[str]:
        """Stop every actor, but for those that are `down`; check each file from the first row on, and each log.

        `say` gets a line for each. Gives the findings.
        """
        findings: list[str] = []
        running = [name for name in self.actors if name not in down]
        for name in running:
            self.terminate(name)
        for name in self.actors:
            say(f"checking the file of {name}")
            findings += self.wait_end(name) if name in running else []
            findings += verify_file(self.data_of.get(name, self.folder / "data"), CLUSTER_NAME, name)
            if "Traceback" in self.log(name).read_text("utf-8", "replace"):
                findings.append(f"{name} has printed a traceback, see its log")
        return findings


def verify_file(data: Path, cluster: str, name: str) -> list[str]:
    """Check the chain, the tables and the sums of a stopped actor's file: [], or what is wrong."""
    try:
        store = JournalStore.open(data_file(data, name), Identity(cluster, role_named(name), name), bytes(16))
        try:
            rows = store.verify()
        finally:
            store.close()
    except StoreError as error:
        return [f"the file of {name}: {error.detail}"]
    return [] if rows else [f"the file of {name} is empty"]
