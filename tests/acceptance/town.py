"""A cluster whose further branches are started by flags, and what the coordinator says of them."""

from __future__ import annotations

import json
from typing import Any

from tests.acceptance.cluster import CLUSTER_NAME, Cluster, free_ports, wait_until
from zbank import Client

FOLLOW_S = 10.0  #: so long at the most until everybody has followed


class Town(Cluster):
    """A cluster whose further branches are started by flags: no config file names them."""

    def add(self, name: str, *flags: str, at: str = "", ready: bool = True) -> None:
        """Start a branch with its data in a folder of its own."""
        self.endpoints[name] = at or self.endpoints.get(name) or f"tcp://127.0.0.1:{free_ports(1)}"
        data = self.flags.setdefault(name, ("--data", str(self.folder / name)))
        port = self.endpoints[name].rsplit(":", 1)[1]
        where = ("--port", port, "--coordinator", self.endpoint, "--cluster", CLUSTER_NAME)
        self.spawn_actor(name, *where, *data, *flags)
        if ready:
            self.wait_ready(name)

    def listed(self) -> dict[str, str]:
        """What `zbank branches list` says: the state of each."""
        done = self.cli("branches", "list", "--json")
        assert done.returncode == 0, done.stderr
        told = json.loads(done.stdout)
        return {one["name"]: one["state"] for one in (*told["branches"], *told["retired"])}

    def wait_state(self, name: str, state: str) -> None:
        """Wait until the coordinator says so."""
        with self.client() as client:
            wait_until(lambda: _state(client, name) == state, what=f"{name} is {state}")

    def acts(self) -> list[dict[str, Any]]:
        """Of those in charge, the newest first."""
        told: list[dict[str, Any]] = json.loads(self.cli("acts", "--json").stdout)["acts"]
        return told


def _state(client: Client, name: str) -> str:
    states = {info.name: "up" if info.up else "down" for info in client.branches()}
    states |= {info.name: "retired" for info in client.retired_branches()}
    return states.get(name, "")
