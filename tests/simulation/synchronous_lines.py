"""Who has called which coordinator in `synchronous`, and whose connection stands for a branch there."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.simulation.synchronous_process import Process


class Lines:
    """Connections to coordinators, as either end has them."""

    def __init__(self) -> None:
        self.calling: dict[str, Process] = {}  #: by machine: the coordinator that it has called,
        self.linked: set[str] = set()  #: and was answered by
        self.heard_us: dict[str, int] = {}  #: by machine: when it and its coordinator last heard each other
        self._bound: dict[str, dict[str, Process]] = {}  #: by the coordinator's machine, and by name: who stands for a branch

    def call(self, process: Process, boss: Process) -> None:
        """It calls a coordinator."""
        self.calling[process.key] = boss

    def answered(self, process: Process, boss: Process) -> None:
        """It is told that it was taken in."""
        if self.calling.get(process.key) is boss:
            self.linked.add(process.key)

    def refused(self, key: str) -> None:
        """It is not taken in any more, and asks to be."""
        self.linked.discard(key)

    def hang_up(self, *keys: str) -> None:
        """The connections of these machines are over."""
        for key in keys:
            self.calling.pop(key, None)
            self.linked.discard(key)

    def end(self, boss: Process) -> None:
        """A coordinator has died: all its connections are over."""
        self.hang_up(*[key for key, called in self.calling.items() if called is boss])
        self._bound.pop(boss.key, None)

    def bind(self, process: Process, boss: Process) -> None:
        """This is the branch's connection from here on."""
        self._bound.setdefault(boss.key, {})[process.name] = process

    def unbind(self, process: Process, boss: Process) -> bool:
        """The coordinator takes it for gone; False when it stands for nobody there."""
        is_bound = self.bound(boss, process.name) is process
        if is_bound:
            del self._bound[boss.key][process.name]
        return is_bound

    def bound(self, boss: Process, name: str) -> Process | None:
        """Who stands for this branch at this coordinator."""
        return self._bound.get(boss.key, {}).get(name)

    def all_bound(self, boss: Process) -> list[Process]:
        """All who stand for branches at this coordinator."""
        return list(self._bound.get(boss.key, {}).values())
