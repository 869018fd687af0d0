"""A cluster whose coordinator has a synchronous replica, as real processes started by its config file."""

from __future__ import annotations

import re
from contextlib import closing
from pathlib import Path

from tests.acceptance.cluster import BRANCHES, CLUSTER_NAME, NAMED_PORTS, Cluster, free_ports, wait_until
from tests.acceptance.rest import Rest
from zbank import Client
from zbank.apps import keymaking
from zbank.apps.chaos.cluster import verify_file
from zbank.config import STANDBY_NAME, data_file
from zbank.storage.sqlite import Identity, JournalStore

FORMER = "coordinator-former"  #: a replica at the place of the first coordinator
CONFIRM = ("--confirm", "promote coordinator")
PROMOTE_LIMIT_S = 40.0


class Office(Cluster):
    """The coordinator may be at either of two places. Names: `coordinator`, the branches', and the replicas'."""

    def __init__(self, folder: Path, *, secure: bool = False) -> None:
        super().__init__(folder, BRANCHES, secure=secure)
        if self.keys is not None:
            for name in (STANDBY_NAME, FORMER):
                keymaking.add(self.keys, name, "replica", ())

    def _toml(self) -> str:
        self.standby = f"tcp://127.0.0.1:{self._other_ports()}"
        self.endpoints[STANDBY_NAME] = self.standby
        self.endpoints[FORMER] = self.endpoint
        place = f'endpoint = "{self.endpoint}"'
        return super()._toml().replace(place, f'{place}\nstandby = "{self.standby}"\nacks = 1')

    def _other_ports(self) -> int:
        mine = {int(endpoint.rsplit(":", 1)[1]) for endpoint in self.endpoints.values()}
        mine |= {int(self.endpoint.rsplit(":", 1)[1]) + n for n in range(NAMED_PORTS)}
        while True:
            first = free_ports(NAMED_PORTS)
            if mine.isdisjoint(range(first, first + NAMED_PORTS)):
                return first

    @property
    def places(self) -> str:
        """As the config file tells them."""
        return f"{self.endpoint},{self.standby}"

    def client(self, name: str = "coordinator", timeout_s: float = 10.0, key: str = "") -> Client:
        """As ever; of the coordinator, wherever it is."""
        where = self.places if name == "coordinator" else self.endpoints[name]
        return Client(where, timeout_s=timeout_s, keys=self.keys or "", key=key)

    def at(self, place: str, timeout_s: float = 10.0) -> Client:
        """A client that knows this place alone."""
        return Client(place, timeout_s=timeout_s, keys=self.keys or "")

    def start_all(self) -> None:
        """Start every actor, and wait until the bank is open."""
        for name in ("coordinator", *self.branches):
            self.start(name, ready=False)
        self.start_replica(STANDBY_NAME)
        self.wait_open()

    def start_replica(self, name: str) -> None:
        """A replica of the coordinator, at the place that belongs to it."""
        flags = ["--config", str(self.config), "--of", "coordinator", "--name", name]
        if name != STANDBY_NAME:
            flags += ["--port", self.endpoints[name].rsplit(":", 1)[1]]
        self.spawn_actor(name, *flags, role=("replica",))

    def wait_open(self) -> None:
        """Until all branches are registered with whoever leads."""

        def is_open() -> bool:
            for name, process in self.processes.items():
                assert process.poll() in (None, -9), self.output(name)
            with self.client(timeout_s=2.0) as client:
                return {info.name for info in client.branches() if info.up} == set(self.branches)

        wait_until(is_open, what="both branches with the coordinator")

    def zbank(self, *arguments: str) -> tuple[int, str, str]:
        """A command by the config file: exit code, and what it said."""
        done = self.cli(*arguments, "--config", str(self.config))
        return done.returncode, done.stdout, done.stderr

    def promote(self) -> None:
        """By the command, as an operator does, who asks again as long as the old one was heard of a moment ago."""
        told: list[tuple[int, str, str]] = []

        def is_promoted() -> bool:
            told.append(self.zbank("promote", "coordinator", *CONFIRM))
            waits = any(word in told[-1][2] for word in ("coordinator_up", "no answer"))
            assert told[-1][0] == 0 or waits, told[-1]
            return told[-1][0] == 0

        wait_until(is_promoted, PROMOTE_LIMIT_S, "the promotion")
        assert re.search(r"is the coordinator now, at tcp:", told[-1][1])

    def name_acks(self, replica: str) -> None:
        """By the command, once the replica is level; `none` as soon as the command meets who leads."""
        told: list[tuple[int, str, str]] = []

        def is_named() -> bool:
            told.append(self.zbank("acks", "coordinator", replica))
            waits = any(code in told[-1][2] for code in ("not_level", "replica_not_found", "branches_away", "out_of_office"))
            assert told[-1][0] == 0 or waits, told[-1]
            return told[-1][0] == 0

        wait_until(is_named, what=f"{replica} is named")

    def lose(self, name: str, file: str) -> None:
        """kill -9, and its files are gone."""
        self.kill(name)
        aside = self.folder / "lost"
        aside.mkdir(exist_ok=True)
        for path in self.data.glob(f"{file}.db*"):
            path.rename(aside / path.name)

    def verify(self, leader: str, replica: str = "") -> None:
        """Stop every actor; each file is whole, and the replica, if there is one, has what the coordinator has."""
        for name in (*([replica] if replica else []), leader, *self.branches):
            assert self.stop(name) == 0, self.output(name)
        for name in self.branches:
            assert verify_file(self.data, CLUSTER_NAME, name) == []
        with closing(self._store(leader, "coordinator")) as led:
            assert led.verify() > 0
            if replica:
                with closing(self._store(replica, "replica")) as copy:
                    assert copy.verify() > 0
                    row = led.row(copy.seq)
                    assert row is not None
                    assert row.chain == copy.chain

    def _store(self, file: str, role: str) -> JournalStore:
        return JournalStore.open(data_file(self.data, file), Identity(CLUSTER_NAME, role, "coordinator"), bytes(16))


class RestByConfig(Rest):
    """A bridge that takes the coordinator's places from the config file."""

    def start(self, *, wait: bool = True) -> None:
        """Start it at its port; wait until the bank behind it answers."""
        where = ("--config", str(self.cluster.config), "--port", str(self.port))
        self.process = self.cluster.spawn("rest", *where, *self.flags)
        path = "/readyz" if wait else "/healthz"
        wait_until(lambda: self._answers(path), what=f"the bridge answers {path} with 200")

    def is_ready(self) -> bool:
        """By /readyz."""
        return self._answers("/readyz")
