"""What keys cost, and what floods do: a bank with and without keys in turn, then a well-behaved client beside each flood.

    python -m benchmarks.security --seconds 4 --runs 3

Everything runs on this machine, the floods too: each is a process of its own (benchmarks/floods.py) and takes its share of the
cores. So each is thrown at another bank on this machine as well, which nobody uses: what is lost then is lost to the machine.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from benchmarks.floods import OF_INSIDERS, OF_STRANGERS
from zbank.apps import keymaking
from zbank.apps.chaos.ports import free_ports
from zbank.transport.keys import KEYS_VARIABLE

READY_LIMIT_S = 30.0
CONFIG = """
[cluster]
name = "bench"
data = "data"
[coordinator]
endpoint = "tcp://127.0.0.1:{0}"
[branches.Mumbai]
endpoint = "tcp://127.0.0.1:{3}"
currency = "INR"
preload = true
[branches.Delhi]
endpoint = "tcp://127.0.0.1:{4}"
currency = "INR"
preload = true
"""
INSIDER = "till-4"


class Bank:
    """A bank of two branches, with or without keys."""

    def __init__(self, folder: Path, *, secure: bool) -> None:
        self.folder = folder
        folder.mkdir()
        ports = list(free_ports(5, random.Random()))
        self.config = folder / "cluster.toml"
        self.config.write_text(CONFIG.format(*ports), encoding="utf-8")
        self.endpoint, self.mumbai = f"tcp://127.0.0.1:{ports[0]}", f"tcp://127.0.0.1:{ports[3]}"
        self.keys = folder / "keys"
        if secure:
            keymaking.make_all(self.keys, "bench", ("Mumbai", "Delhi"))
            keymaking.add(self.keys, INSIDER, "teller", ())
        self.environment = os.environ | {KEYS_VARIABLE: str(self.keys) if secure else "", "ZBANK_ENDPOINT": self.endpoint}
        self.processes = {
            name: self._start(*command)
            for name, command in {
                "coordinator": ("coordinator",),
                "Mumbai": ("branch", "--name", "Mumbai"),
                "Delhi": ("branch", "--name", "Delhi"),
            }.items()
        }
        end_s = time.monotonic() + READY_LIMIT_S
        while self.ask("status", "--json").count('"up"') < 3:
            assert time.monotonic() < end_s, "the bank does not start"

    def _start(self, *command: str) -> subprocess.Popen[bytes]:
        with (self.folder / "log").open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "zbank.apps.cli", *command, "--config", str(self.config)],
                cwd=self.folder,
                env=self.environment,
                stdout=log,
                stderr=log,
            )

    def ask(self, *command: str) -> str:
        """Run `zbank …`; what it printed."""
        done = subprocess.run(
            [sys.executable, "-m", "zbank.apps.cli", *command, "--key", "operator"],
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
        )
        return done.stdout

    def per_second(self, work: str, in_flight: int, seconds: float) -> float:
        """Committed transfers a second of one client."""
        branches = "Mumbai,Delhi" if work == "transfer" else "Mumbai"
        flags = ("--work", work, "--in-flight", str(in_flight), "--branches", branches, "--seconds", str(seconds))
        return float(json.loads(self.ask("bench", *flags, "--json"))["per_second"])

    def memory_mib(self, name: str = "Mumbai") -> float:
        """Of a process."""
        pages = int(Path(f"/proc/{self.processes[name].pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 2**20

    def close(self) -> None:
        """Stop it."""
        for process in self.processes.values():
            process.terminate()
        for process in self.processes.values():
            process.wait()


@contextmanager
def flooding(kind: str, endpoint: str, keys: Path) -> Iterator[None]:
    """A flood, for as long as the block lasts."""
    command = [sys.executable, "-m", "benchmarks.floods", kind, endpoint, "Mumbai", str(keys), INSIDER]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            process.stdout.readline()
            yield
        finally:
            process.kill()


def cost_of_keys(plain: Bank, secure: Bank, runs: int, seconds: float) -> None:
    """With and without, in turn."""
    print(f"{'':34}{'without keys':>14}{'with keys':>14}{'ratio':>8}")
    for title, work, in_flight in (
        ("local, 64 in flight", "local", 64),
        ("local, one at a time", "local", 1),
        ("between branches, 256 in flight", "transfer", 256),
    ):
        rates: dict[str, list[float]] = {"plain": [], "secure": []}
        for _ in range(runs):
            rates["plain"].append(plain.per_second(work, in_flight, seconds))
            rates["secure"].append(secure.per_second(work, in_flight, seconds))
        without, by_keys = (statistics.median(rates[name]) for name in ("plain", "secure"))
        print(f"{title:34}{without:>12,.0f}/s{by_keys:>12,.0f}/s{by_keys / without:>8.0%}", flush=True)


def floods(secure: Bank, decoy: Bank, kinds: Sequence[str], runs: int, seconds: float) -> None:
    """A client with 64 local transfers in flight, beside floods of its branch, and of another bank that nobody uses."""
    print(f"\n{'flood':14}{'none':>11}{'of another bank':>17}{'of its branch':>15}{'kept':>7}{'memory before, after':>24}")
    for kind in kinds:
        alone: list[float] = []
        aside: list[float] = []
        flooded: list[float] = []
        before = secure.memory_mib()
        for _ in range(runs):
            alone.append(secure.per_second("local", 64, seconds))
            with flooding(kind, decoy.mumbai, decoy.keys):
                aside.append(secure.per_second("local", 64, seconds))
            with flooding(kind, secure.mumbai, secure.keys):
                flooded.append(secure.per_second("local", 64, seconds))
        calm, apart, beside = (statistics.median(rates) for rates in (alone, aside, flooded))
        memory = f"{before:,.0f} → {secure.memory_mib():,.0f} MiB"
        rates = f"{calm:>9,.0f}/s{apart:>15,.0f}/s{beside:>13,.0f}/s{beside / calm:>7.0%}"
        print(f"{kind:14}{rates}{memory:>24}", flush=True)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--floods", nargs="*", default=[*OF_STRANGERS, *OF_INSIDERS])
    parser.add_argument("--no-keys", action="store_true", help="leave out what keys cost")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="zbank-security-") as name:
        secure, decoy = Bank(Path(name) / "secure", secure=True), Bank(Path(name) / "decoy", secure=True)
        plain = None if options.no_keys else Bank(Path(name) / "plain", secure=False)
        try:
            print(f"load average {os.getloadavg()[0]:.1f} of {os.cpu_count()} cores\n")
            if plain is not None:
                cost_of_keys(plain, secure, options.runs, options.seconds)
            floods(secure, decoy, options.floods, options.runs, options.seconds)
        finally:
            for bank in (secure, decoy, plain):
                if bank is not None:
                    bank.close()


if __name__ == "__main__":
    main()
