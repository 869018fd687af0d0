"""Two machines and a cable between them: two network namespaces of Linux, joined by a pair of virtual network cards.

What runs on one reaches nothing but its own machine and, through the cable, the other one; each has a folder of its own.
The namespaces have no name: they last as long as something runs in them, and everything that is started here ends with the
process that started it. So nothing is left behind, not even by a test run that was killed.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

import pytest

from tests.acceptance.cluster import COMMAND_LIMIT_S, ROOT, STOP_LIMIT_S

TOOLS = ("ip", "nsenter", "setpriv", "unshare")
CARD = "eth0"
ADDRESSES = ("10.77.0.1", "10.77.0.2")
OURS = ("ZBANK_", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")  #: variables that a fresh machine would not have
DIES_WITH_US = ("setpriv", "--pdeathsig", "KILL", "--")

Words = Sequence[str]


class Machine:
    """A machine with a network, a folder, and the environment of its shell."""

    def __init__(self, name: str, address: str, folder: Path) -> None:
        """Raises OSError when this system makes no namespaces."""
        folder.mkdir()
        self.name = name
        self.address = address
        self.folder = folder
        self.exports: dict[str, str] = {}  #: what was exported in its shell
        self.started: dict[str, subprocess.Popen[str]] = {}  #: what runs on it, by a name of the test's
        self._logs: list[IO[str]] = []
        self._kernel = subprocess.Popen(
            [*DIES_WITH_US, "unshare", "--net", "cat"],  # it holds the network, and ends when nobody holds its input
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        said = ""
        with suppress(BrokenPipeError):
            said = self._ask_kernel()
        if said != "up\n":
            _, complaint = self._kernel.communicate()
            raise OSError(complaint.strip())
        self.network = os.readlink(f"/proc/{self.number}/ns/net")

    def _ask_kernel(self) -> str:
        """`cat` answers when `unshare` has become it, so the network is there."""
        assert self._kernel.stdin is not None
        assert self._kernel.stdout is not None
        self._kernel.stdin.write("up\n")
        self._kernel.stdin.flush()
        return self._kernel.stdout.readline()

    @property
    def number(self) -> str:
        """By which `ip` knows its network."""
        return str(self._kernel.pid)

    def inside(self, *words: str) -> list[str]:
        """A command line that runs these words on this machine, as the very process that is started."""
        return [*DIES_WITH_US, "nsenter", f"--net=/proc/{self.number}/ns/net", "--", *words]

    def environment(self) -> dict[str, str]:
        """A fresh shell's, with what was exported in it. It finds this very source, installed or not."""
        kept = {name: text for name, text in os.environ.items() if not name.upper().startswith(OURS)}
        return {**kept, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", **self.exports}

    def run(self, *words: str, env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        """Type a command, and wait for its end."""
        return subprocess.run(
            self.inside(*_found(words)),
            cwd=self.folder,
            env={**self.environment(), **(env or {})},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=COMMAND_LIMIT_S,
            check=False,
        )

    def done(self, *words: str) -> str:
        """Type a command that has to succeed; what it printed."""
        done = self.run(*words)
        assert done.returncode == 0, (self.name, words, done.stdout, done.stderr)
        return done.stdout

    def start(self, name: str, *words: str, talks: bool = False) -> subprocess.Popen[str]:
        """Start what goes on; all that it says is in `output`, or comes by its pipes where it is talked to."""
        log = (self.folder / f"{name}.log").open("w")
        self._logs.append(log)
        self.started[name] = subprocess.Popen(
            self.inside(*_found(words)),
            cwd=self.folder,
            env=self.environment(),
            stdin=subprocess.PIPE if talks else subprocess.DEVNULL,
            stdout=subprocess.PIPE if talks else log,
            stderr=log,
            text=True,
        )
        return self.started[name]

    def output(self, name: str) -> str:
        """All that it said."""
        return (self.folder / f"{name}.log").read_text("utf-8", "replace")

    def says(self, name: str, text: str) -> bool:
        """Has it said that? It must be running."""
        assert self.started[name].poll() is None, f"{name} on {self.name} has ended:\n{self.output(name)}"
        return text in self.output(name)

    def stop(self, name: str) -> int:
        """SIGTERM; the exit code."""
        process = self.started[name]
        process.send_signal(signal.SIGTERM)
        return process.wait(STOP_LIMIT_S)

    def drop(self, name: str) -> None:
        """kill -9 what is not needed any more."""
        _end(self.started.pop(name))

    def close(self) -> None:
        """Pull the plug: whatever runs on it ends."""
        for process in residents(self.network):  # also what they started themselves
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        for started in (*self.started.values(), self._kernel):
            _end(started)
        for log in self._logs:
            log.close()


def residents(network: str) -> list[int]:
    """The processes that have this network."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has just ended
            if os.readlink(entry / "ns" / "net") == network:
                found.append(int(entry.name))
    return found


def _end(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.wait(STOP_LIMIT_S)
    for pipe in (process.stdin, process.stdout, process.stderr):
        if pipe is not None:
            pipe.close()


class Cable:
    """What joins two machines. It begins plugged in."""

    def __init__(self, one: Machine, other: Machine) -> None:
        self._one = one
        both = ["link", "add", CARD, "netns", one.number, "type", "veth", "peer", "name", CARD, "netns", other.number]
        _ip(both)
        for machine in (one, other):
            for words in ("link set lo up", f"address add {machine.address}/24 dev {CARD}", f"link set {CARD} up"):
                _ip(words.split(), machine)

    def pull(self) -> None:
        """Neither machine has a carrier any more."""
        _ip(["link", "set", CARD, "down"], self._one)

    def put_back(self) -> None:
        """As before."""
        _ip(["link", "set", CARD, "up"], self._one)


def _ip(words: Words, machine: Machine | None = None) -> None:
    command = ["ip", *words] if machine is None else machine.inside("ip", *words)
    done = subprocess.run(command, capture_output=True, text=True, timeout=COMMAND_LIMIT_S, check=False)
    if done.returncode:
        raise OSError(f"{' '.join(words)}: {done.stderr.strip()}")


def _found(words: Words) -> list[str]:
    """`zbank` as it is run from this source; everything else as it stands."""
    return [sys.executable, "-m", "zbank.apps.cli", *words[1:]] if words[0] == "zbank" else list(words)


@contextmanager
def two_machines(folder: Path) -> Iterator[tuple[Machine, Machine, Cable]]:
    """Laptop A, Laptop B and the cable. The test is skipped where a system lets nobody make such."""
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    if sys.platform != "linux" or os.geteuid() != 0:
        pytest.skip("NOT TESTED: two machines are two network namespaces, which only root on Linux can make")
    if missing:
        if os.environ.get("CI"):
            pytest.fail(f"{', '.join(missing)} missing: .ci/run installs iproute2 and util-linux")
        pytest.skip(f"NOT TESTED: {', '.join(missing)} missing (apt-get install iproute2 util-linux)")
    machines: list[Machine] = []
    try:
        try:
            for name, address in zip("AB", ADDRESSES, strict=True):
                machines.append(Machine(name, address, folder / f"Laptop {name}"))
            cable = Cable(*machines)
        except OSError as error:
            pytest.skip(f"NOT TESTED: no network namespaces can be made here: {error}")
        yield machines[0], machines[1], cable
    finally:
        for machine in machines:
            machine.close()
