"""The load of `zbank chaos` against the clusters of these tests, and looks at the bank from outside."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from tests.acceptance.cluster import CLUSTER_NAME, Cluster, wait_until
from zbank.apps.chaos.cluster import verify_file
from zbank.apps.chaos.load import Load
from zbank.protocol.messages import GetStatus, StatusInfo
from zbank.transport.client_base import as_it_is
from zbank.transport.client_request import THE_COORDINATOR


class ClusterLoad(Load):
    """A load with a client of its own, which runs until it is closed."""

    def __init__(self, cluster: Cluster, seed: int, *, in_flight: int = 64, timeout_s: float = 6.0) -> None:
        self._own_client = cluster.client(timeout_s=timeout_s)
        super().__init__(self._own_client, cluster.branches, seed, in_flight=in_flight, timeout_s=timeout_s)

    def wait_told(self, more: int, limit_s: float = 40.0) -> None:
        """Wait until so many more outcomes were told."""
        told = self.history.told
        until = len(told) + more
        wait_until(lambda: len(told) >= until, limit_s, f"{more} more outcomes ({self.history.faults})")

    def check(self, others: Collection[str] = ()) -> None:
        """The books of the resting bank must say exactly what was told; `others` are ids of other payments."""
        findings = self.judge(others)
        assert findings == [], findings
        assert {told.status for told in self.history.told.values()} == {"committed", "aborted"}

    def close(self) -> None:
        """Leave nothing behind, whatever state it is in."""
        self._own_client.close()
        self._thread.join(10)


def own_status(cluster: Cluster, name: str) -> StatusInfo:
    """What an actor says of itself, asked at its own port until it answers."""
    told: list[StatusInfo] = []

    def answers() -> bool:
        with cluster.client(name, timeout_s=4) as client:
            target = THE_COORDINATOR if name == "coordinator" else name
            told.append(client._read(target, GetStatus(), StatusInfo, as_it_is))
        return True

    wait_until(answers, what=f"an answer of {name}")
    return told[-1]


def verify_files(cluster: Cluster) -> None:
    """Stop every actor, then check chain, tables and sums of each file from the first row on."""
    for name in ("coordinator", *cluster.branches):
        assert cluster.stop(name) == 0, cluster.output(name)
        flags = cluster.flags.get(name, ())
        data = Path(flags[flags.index("--data") + 1]) if "--data" in flags else cluster.data
        assert verify_file(data, CLUSTER_NAME, name) == []
