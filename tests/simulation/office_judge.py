"""What must hold in `office` beside what holds in `synchronous`: nothing that a coordinator told is lost with it, and whoever
leads no more tells nothing of its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tests.simulation.failover_actor import BOSS
from tests.simulation.failover_books import Breach, record_of
from tests.simulation.synchronous_judge import Judge
from tests.simulation.synchronous_process import Disk, Process
from zbank.protocol.branch_meta import CoordinatorMark
from zbank.protocol.branch_state import BranchState
from zbank.protocol.coordinator_replica import CoordinatorReplica
from zbank.protocol.gate import SILENT_US
from zbank.protocol.machine import Effect
from zbank.protocol.messages import BRANCH, COORDINATOR, YES, Commit, Fault, Outcome, Registered, Vote
from zbank.protocol.records import AcksNamed, Decided, Promoted

if TYPE_CHECKING:
    from tests.simulation.office_town import Office


class OfficeJudge(Judge):
    """Looks at the coordinators, too."""

    def __init__(self, town: Office) -> None:
        super().__init__(town)
        self._office = town
        self._terms: dict[int, tuple[str, int]] = {}  #: by epoch: the process that took office with it, machine and life
        self._marks: dict[str, int] = {}  #: by branch's machine: the epoch it knew of, before this turn
        self._words_heard: dict[str, int] = {}  #: by machine: the row of the last word on the coordinator's replica
        self.rows_us: dict[str, tuple[int, int]] = {}  #: by machine of a replica: in which life it heard rows last, and when

    # --- who leads -----------------------------------------------------------------------------------------------------

    def took_office(self, process: Process) -> None:
        """A coordinator's process begins. No other one has had its epoch; of a later term it is above all before."""
        epoch = process.store.epoch
        if process is self._office.usurper:  # it has no right to one
            return
        if self._terms.setdefault(epoch, (process.key, process.life)) != (process.key, process.life):
            raise Breach(f"{process.key} takes office in epoch {epoch}, as {self._terms[epoch][0]} did")
        machine = process.engine.machine
        instance, seq = self.last_word(process.disk)
        if seq and instance != (b"" if machine.acks is None else machine.acks.instance):
            raise Breach(f"{process.key} heeds {machine.acks}, and by its last word it is {instance!r}")
        if BOSS in self.told and process.disk is self.told[BOSS].holder and epoch < max(self._terms):
            raise Breach(f"{process.key} leads in epoch {epoch}, and another one was in {max(self._terms)}")

    def agreed(self, replica: Process) -> None:
        """A replica says that it will lead. May it?"""
        town = self._office
        if replica.disk.instance not in town.replaced and not self.told[BOSS].is_on(replica.disk):
            raise Breach(f"{replica.key} agrees to lead, and lacks what the coordinator has told")
        life, heard_us = self.rows_us.get(replica.key, (0, 0))
        if life == replica.life and town.clock.now().mono_us - heard_us <= SILENT_US:
            raise Breach(f"{replica.key} agrees to lead, and has just heard the coordinator")

    def refuses(self, replica: Process) -> None:
        """A replica that could lead without loss is silent long enough, and does not."""
        word = self.last_word(self._office.boss.disk)
        machine = replica.engine.machine
        assert isinstance(machine, CoordinatorReplica)
        if word == (replica.disk.instance, machine.info(self._office.clock.now()).acks):
            raise Breach(f"{replica.key} has all that was told, and does not lead: {self._office.answer}")

    def succeeds(self, replica: Process) -> None:
        """It leads from here on."""
        met, told = self._office.met, self.told[BOSS]
        if not told.is_on(replica.disk):
            raise Breach(f"{replica.key} takes the coordinator's place, and lacks what that has told")
        former = told.holder
        told.holder = replica.disk
        self.words.pop(BOSS, None)
        lost = [record_of(row) for row in former.rows[replica.disk.seq :]]
        met["promoted"] += 1
        met["promoted when the former had more"] += bool(lost)
        met["promoted when a decision was on the former's disk alone"] += any(isinstance(one, Decided) for one in lost)
        met["promoted with decisions that branches had not acked"] += bool(replica.engine.machine.fold.open)  # type: ignore[attr-defined]

    @staticmethod
    def last_word(disk: Disk) -> tuple[bytes, int]:
        """On the coordinator's own replica: whose it is, and its row."""
        for seq in range(disk.seq, 0, -1):
            record = record_of(disk.rows[seq - 1])
            if isinstance(record, Promoted):
                return b"", seq
            if isinstance(record, AcksNamed) and record.of == BOSS:
                return record.instance, seq
        return b"", 0

    def heard_word(self, process: Process, message: Registered) -> None:
        """A coordinator has told somebody of its last such word."""
        self._words_heard[process.key] = max(self._words_heard.get(process.key, 0), message.word)

    def do_all_know(self, generation: int) -> bool:
        """All branches were told of the word in this row, or of a later one."""
        serving = [self._office.serving(name) for name in self._office.branches]
        return all(one is not None and self._words_heard.get(one.key, 0) >= generation for one in serving)

    # --- what leaves ---------------------------------------------------------------------------------------------------

    def leaves(self, process: Process, effect: Effect) -> None:
        """What a former coordinator still says is on the disk of its successor, else it says nothing."""
        message = effect.message
        if process is self._office.usurper and isinstance(message, Fault) and message.code in ("foreign_store", "superseded"):
            return  # to one that was promoted since, or that another one took the place of before: both are true
        super().leaves(process, effect)
        if process.role == COORDINATOR and process is not self._office.boss:
            self._office.met["last words of a former coordinator"] += isinstance(message, Commit | Outcome)

    def asked(self, process: Process) -> bool | None:
        if process.role == BRANCH and process.is_up:
            self._marks[process.key] = _mark(process)
        return super().asked(process)

    def decided(self, process: Process, effects: Sequence[Effect]) -> None:
        """A branch that knows of a later term votes for none before (P11)."""
        if process.role != BRANCH:
            return
        known = self._marks.get(process.key, 0)
        for effect in effects:
            vote = effect.message
            if isinstance(vote, Vote) and vote.answer == YES and vote.txn.epoch < known:
                raise Breach(f"{process.key} knows of epoch {known}, and votes for one of {vote.txn.epoch}")

    # --- at every step -------------------------------------------------------------------------------------------------

    def look(self) -> None:
        """Each replica's journal is a prefix of the coordinator's."""
        super().look()
        town = self._office
        for replica in town.replicas(BOSS):
            if not replica.disk.is_prefix_of(self.told[BOSS].holder):
                raise Breach(f"{replica.key} has rows that the coordinator has not")
        for process in town.doors(""):
            met = "a former coordinator is awake" if process is not town.boss else "decisions wait for the replica"
            if process.is_up and not process.is_paused:
                is_met = process is not town.boss or process.disk.seq > len(self.told[BOSS].chains)
                town.met[met] += is_met

    # --- at rest -------------------------------------------------------------------------------------------------------

    def at_rest(self) -> None:
        """The end: all is with the one that leads, which serves; nobody follows another one."""
        super().at_rest()
        town = self._office
        boss = town.boss
        if boss.coordinator.closed is not None:
            raise Breach(f"the coordinator serves nothing at rest: {boss.coordinator.directory.behind}")
        for process in town.sites.values():
            if process.role != COORDINATOR and not (process.key in town.lines.linked and town.dialled(process) is boss):
                raise Breach(f"{process.key} is not at the coordinator at rest")
            is_former = process.role == COORDINATOR and process not in (boss, town.usurper)
            if is_former and process.is_up and not process.engine.has_stopped:
                raise Breach(f"{process.key} leads no more, and does not say that it has stopped")
        branches = {process.name for process in town.sites.values() if process.role == BRANCH}
        if boss.coordinator.directory.up != branches:
            raise Breach(f"the coordinator knows of {boss.coordinator.directory.up} alone at rest")
        town.clerk.judge(boss.coordinator.state)


def _mark(process: Process) -> int:
    state = process.engine.machine.fold
    assert isinstance(state, BranchState)
    return state.coordinators.get(BOSS, CoordinatorMark(0, 0)).epoch
