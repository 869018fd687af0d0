"""What must hold in `synchronous`: whatever was told is on the disk of who may take its branch's place without loss.

What has left a branch is known by the row that it stands on, and that row's chain value: it vouches for all rows before it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.simulation.failover_books import Breach, check_books, judge_rest
from tests.simulation.synchronous_process import CUSTOMER, Disk, Process, dialled_by
from zbank.protocol.branch_state import BranchState
from zbank.protocol.gate import SILENT_US, keeps_all
from zbank.protocol.machine import Effect
from zbank.protocol.messages import (
    BRANCH,
    BUSY,
    COORDINATOR,
    OUT_OF_OFFICE,
    REPLICA,
    STOPPED,
    STORAGE_FULL,
    AckedBy,
    AnyMessage,
    Fault,
    GetRows,
    GetStatus,
    ReplicaInfo,
    Rows,
    StatusInfo,
    Vote,
)
from zbank.transport.engine import Incoming

if TYPE_CHECKING:
    from tests.simulation.synchronous_town import Town

#: Faults that say nothing of what is recorded.
NOT_NOW = {"busy", "branch_unavailable", "storage_full", OUT_OF_OFFICE, "branches_away", "replica_not_found"}
SAYS_STOPPED = {BRANCH: "branch_unavailable", COORDINATOR: OUT_OF_OFFICE}
NO_VOTES = {BUSY, STOPPED, STORAGE_FULL}


def lossless(word: AckedBy | None, info: ReplicaInfo) -> bool:
    """The rule: the word is on this very store, and the replica has that word, and no later one, in its own rows."""
    return word is not None and word.instance == info.instance and word.generation == info.acks


@dataclass
class Since:
    """When a branch last heard of who acknowledges."""

    life: int
    instance: bytes
    heard_us: int  #: it acknowledged something
    level_us: int  #: it acknowledged all that there was


class Told:
    """All that has left a branch, whichever process it left."""

    def __init__(self, holder: Disk) -> None:
        self.holder = holder  #: the branch's disk, or that of the replica which was promoted to its place
        self.chains: list[bytes] = []  #: of the rows that something stands on which was told, and of all before them

    def tell(self, name: str, disk: Disk, seq: int) -> None:
        """Something leaves that stands on this row. Raises Breach when it contradicts what was told before."""
        if disk is not self.holder and not self.holder.has(seq, disk.chain(seq)):
            raise Breach(f"a former {name} tells of row {seq}, which its successor has not")
        known = len(self.chains)
        both = min(known, seq)
        if both and disk.chain(both) != self.chains[both - 1]:
            raise Breach(f"{name} tells of another row {both} than it did before")
        self.chains += [row.chain for row in disk.rows[known:seq]]

    def is_on(self, disk: Disk) -> bool:
        """Everything that was told is there, row by row the same."""
        return not self.chains or disk.has(len(self.chains), self.chains[-1])


class Judge:
    """Looks at every step, trusts the disks alone."""

    def __init__(self, town: Town) -> None:
        self._town = town
        self.told: dict[str, Told] = {}  #: by branch
        self.words: dict[str, AckedBy] = {}  #: by branch: what the operator was told last
        self._since: dict[str, Since] = {}  #: by machine: a branch's silence

    # --- what leaves ---------------------------------------------------------------------------------------------------

    def leaves(self, process: Process, effect: Effect) -> None:
        """A branch, or a coordinator, sends something: is what it stands on where it has to be?"""
        message = effect.message
        if isinstance(message, Rows | StatusInfo):
            return
        if (isinstance(message, Fault) and message.code in NOT_NOW) or (
            isinstance(message, Vote) and message.answer in NO_VOTES
        ):
            return
        seq = process.row_of(effect)
        disk = process.disk
        acks = process.engine.machine.acks
        if acks is not None and dialled_by(effect.to) == acks.replica:
            return  # what it is told it holds by itself
        if acks is not None:
            self._town.met["left after its replica had it"] += 1
            if not self._town.disk(acks.instance).has(seq, disk.chain(seq)):
                what = f"{process.key} sends {type(message).__name__}, which stands on row {seq}"
                raise Breach(f"{what}: {acks.replica} has not got that on its disk")
        self.told[process.name].tell(process.name, disk, seq)

    # --- who stops -----------------------------------------------------------------------------------------------------

    def asked(self, process: Process) -> bool | None:
        """Has this branch to stop, before a turn? None = it may."""
        if process.role == REPLICA or not process.is_up:
            return False
        self.ticked(process)
        if process.engine.machine.closed is not None and process.role == COORDINATOR:
            return None
        acks = process.engine.machine.acks
        now_us = self._town.clock.now().mono_us
        since = self._since[process.key]
        if acks is None or not acks.instance:
            return acks is not None
        if now_us - since.heard_us > SILENT_US:
            return True
        return None if now_us - since.level_us > SILENT_US else False

    def ticked(self, process: Process) -> None:
        """It may heed another word now: that one's silence begins."""
        if process.role == REPLICA:
            return
        acks = process.engine.machine.acks
        instance = acks.instance if acks is not None else b""
        since = self._since.get(process.key)
        if since is None or (since.life, since.instance) != (process.life, instance):
            now_us = self._town.clock.now().mono_us
            self._since[process.key] = Since(process.life, instance, now_us, now_us)

    def answered(self, process: Process, batch: list[Incoming], effects: list[Effect], *, stops: bool | None) -> None:
        """A turn is over. A branch whose replica is silent says so at once; one whose replica acknowledges all does not."""
        if process.role == REPLICA:
            return
        self.ticked(process)
        told: dict[int, AnyMessage] = {effect.n: effect.message for effect in effects if effect.to == CUSTOMER.address}
        self._acknowledged(process, batch)
        for sender, n, message in batch:
            if sender.address != CUSTOMER.address:
                continue
            answer = told.get(n)
            has_stopped = isinstance(answer, Fault) and answer.code == SAYS_STOPPED[process.role]
            if isinstance(message, GetStatus):
                has_stopped = isinstance(answer, StatusInfo) and answer.stopped
            is_behind = process.role == COORDINATOR and process.engine.machine.closed is not None  # since this turn
            if stops is not None and has_stopped != stops and not is_behind:
                raise Breach(f"{process.key} {'has not' if stops else 'has'} stopped: it answers {message} by {answer}")
            self._town.met["said that it has stopped"] += has_stopped

    def decided(self, process: Process, effects: Sequence[Effect]) -> None:
        """What a turn, or a tick, has made."""

    def _acknowledged(self, process: Process, batch: list[Incoming]) -> None:
        """Its replica has rows, as of what it answers: its word may have lain about for long."""
        acks, since = process.engine.machine.acks, self._since[process.key]
        level_us: list[int] = []
        for sender, _, message in batch:
            held = message.held if isinstance(message, GetRows) else None
            if acks is None or held is None or (acks.replica, acks.instance) != (sender.caller, held.instance):
                continue
            if process.disk.has(held.seq, held.chain):
                since.heard_us = max(since.heard_us, held.of_us)
                level_us += [held.of_us] if held.seq == process.disk.seq else []
        if level_us:  # of several in one turn, those may count for nothing that bring nothing new
            since.level_us = max(since.level_us, min(level_us))

    # --- at every step -------------------------------------------------------------------------------------------------

    def look(self) -> None:
        """At every moment: books, and the rule."""
        town = self._town
        self.look_at_books()
        directory = town.directory()
        if directory is None:
            return
        words = directory.words()
        unanswered = {info.of for info in town.promoting.values()}
        for name, word in self.words.items():
            if words.get(name) != word and name not in unanswered:
                raise Breach(f"the word on {name} is {words.get(name)}, and the operator was told {word}")
        for info in directory.replicas:
            if lossless(words.get(info.of), info):
                self._check_lossless(info)
            elif keeps_all(words.get(info.of), info):
                raise Breach(f"{info.name} is shown as one that keeps all, and is not lossless")

    def look_at_books(self) -> None:
        """Of all branches, and their replicas."""
        for process in self._town.sites.values():
            if not process.is_up:
                continue
            check_books(process)
            fold = process.engine.machine.fold
            if isinstance(fold, BranchState) and fold.suspense_minor:
                raise Breach(f"{process.key} has {fold.suspense_minor} on its suspense account")

    def _check_lossless(self, info: ReplicaInfo) -> None:
        """It can take its branch's place without loss, by the rule: nothing is told that it has not, nobody is ahead."""
        disk = self._town.disk(info.instance)
        if disk.is_gone:  # the coordinator has not heard of that yet
            return
        self._town.met["somebody is lossless"] += 1
        if not self.told[info.of].is_on(disk):
            raise Breach(f"{info.name} is called lossless, and lacks what {info.of} has told")
        for other in self._town.sites.values():
            if (other.role, other.of) == (REPLICA, info.of) and not other.disk.is_prefix_of(disk):
                raise Breach(f"{other.key} has rows that are void when {info.name} takes the place of {info.of}")

    def promoted(self, info: ReplicaInfo) -> None:
        """The lossless one is the branch's successor from here on."""
        self._check_lossless(info)
        told = self.told[info.of]
        former = told.holder
        if former.instance == info.instance:  # he asked again
            return
        told.holder = self._town.disk(info.instance)
        word = self._town.boss.coordinator.state.acks.get(info.of)
        if word is not None and word.replica:
            raise Breach(f"{info.of} has another data file, and still {word.replica} is to acknowledge what it does")
        self.words.pop(info.of, None)
        self._town.met["promoted without loss"] += 1
        self._town.met["rows of the former branch alone"] += former.seq - told.holder.seq
        self._town.met["promoted when the former had more"] += former.seq > told.holder.seq

    # --- at rest -------------------------------------------------------------------------------------------------------

    def at_rest(self) -> None:
        """The end: all is answered, done once, and the same everywhere."""
        town = self._town
        branches = [process for process in town.sites.values() if process.role == BRANCH]
        decided = judge_rest(branches, town.boss)
        town.customers.judge(branches, set(decided))
        directory = town.directory()
        assert directory is not None
        words = directory.words()
        leading = [*branches, town.boss]
        for one in leading:
            if not self.told[one.name].is_on(one.disk):
                raise Breach(f"{one.key} lacks what {one.name} has told")
            if self.asked(one) is not False:
                raise Breach(f"{one.key} waits for its replica at rest")
            word = words.get(one.name)
            if word is not None and word.replica and not any(lossless(word, info) for info in directory.replicas):
                raise Breach(f"the synchronous replica of {one.name} is up, and is not called lossless")
        disks = {one.name: one.disk for one in leading}
        for process in town.sites.values():
            its = disks[process.of]
            if process.role == REPLICA and not (process.disk.is_prefix_of(its) and its.seq == process.disk.seq):
                raise Breach(f"{process.key} has not the rows of {process.of} at rest")
