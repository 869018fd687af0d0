"""What happens in `synchronous`: faults, the operator's words, a branch that is lost, and the rest at the end."""

from __future__ import annotations

from tests.simulation.failover_actor import BOSS, MUMBAI
from tests.simulation.synchronous_judge import lossless
from tests.simulation.synchronous_process import AFTER, BEFORE, Process
from tests.simulation.synchronous_town import OFFICER, Town
from zbank.protocol.branch_state import BranchState
from zbank.protocol.messages import BRANCH, REPLICA, Promote, Promoting, ReplicaInfo
from zbank.transport.engine import Incoming

REST_ROUNDS = 120
FLUSH_FRAMES = 1_000


class Fate(Town):
    """One seed, step by step."""

    def step(self) -> None:
        """Something."""
        random = self.random
        what = random.random()
        if what < 0.55:
            self.deliver()
        elif what < 0.60:  # for a moment all goes well
            for _ in range(random.randint(2, 20)):
                self.deliver()
        elif what < 0.72:
            self.customers.wish()
        elif what < 0.75:
            self.customers.ask_again()
        elif what < 0.79:
            self.customers.read()
        elif what < 0.94:
            self.pass_time(random.choice((10_000, 50_000, 100_000, 100_000, 700_000)))
        else:
            self.trouble()
        self.judge.look()

    def go_on(self, steps: int) -> None:
        """So many steps."""
        for _ in range(steps):
            self.step()

    def trouble(self) -> None:
        """Something goes wrong, or is mended."""
        random = self.random
        process = random.choice(list(self.sites.values()))
        what = random.random()
        if not process.is_up or process.is_paused or process.is_full:
            if what < 0.7:
                self.mend(process)
        elif what < 0.12:
            if random.random() < 0.5:
                process.engine.post()
            process.restart()
        elif what < 0.20:
            process.crash()
        elif what < 0.28:
            process.dies = random.choice((BEFORE, AFTER))
        elif what < 0.42:
            process.is_paused = True
        elif what < 0.52:
            process.is_full = True
        elif what < 0.65:
            self._disconnect(process, random.choice([one for one in self.sites.values() if one is not process]))
        else:
            self.operate(process.of)

    def _disconnect(self, one: Process, other: Process) -> None:
        """Their connection breaks, or is cut for a while; or one that was cut is mended."""
        what = self.random.random()
        if what < 0.4:
            for near, far in ((one, other), (other, one)):
                if self.dialled(near) is far:
                    self.lines.hang_up(near.key)
            self.network.break_link(one, other)
        elif what < 0.6:
            self.network.cut(one, other, both_ways=self.random.random() < 0.5)
        else:
            self.network.mend(self.cut_off)

    def mend(self, process: Process) -> None:
        """It runs again, with room on its disk."""
        process.is_full = process.is_paused = False
        if not process.is_up:
            process.restart()

    def operate(self, branch: str) -> None:
        """The operator changes something about a branch's replicas."""
        random = self.random
        branch = MUMBAI if branch == BOSS else branch
        replicas = self.replicas(branch)
        is_asked_for = any(info.of == branch for info in self.promoting.values())  # one may be the branch by now
        if branch in self.is_quiet or not replicas or self.serving(branch) is None or is_asked_for:
            return
        if random.random() < 0.15:
            self.met["a replica begins anew"] += 1
            random.choice(replicas).begin_anew()
            return
        for _ in range(random.choice((1, 2, 3))):  # before the first word has come, perhaps
            self.give_word(branch, random.choice([None, *replicas, *replicas]))

    # --- a branch is lost ----------------------------------------------------------------------------------------------

    def isolate(self, process: Process) -> None:
        """The coordinator reaches it no more; perhaps nobody does but its customers."""
        self.cut_off.add(process.key)
        both_ways = self.random.random() < 0.7
        self.network.cut(process, self.boss, both_ways=both_ways)
        for other in self.sites.values():
            if other not in (process, self.boss) and self.random.random() < 0.4:
                self.network.cut(process, other)

    def rejoin(self, process: Process) -> None:
        """All hear it again."""
        self.cut_off.discard(process.key)
        self.network.cuts = {ends for ends in self.network.cuts if process.key not in ends}

    def lossless(self, branch: str) -> ReplicaInfo | None:
        """The replica that can take the branch's place without loss, by the rule."""
        directory = self.directory()
        if directory is None:
            return None
        words = directory.words()
        fit = (info for info in directory.replicas if info.of == branch and lossless(words.get(branch), info))
        return next((info for info in fit if not self.disk(info.instance).is_gone), None)

    def promote(self, branch: str) -> bool:
        """The operator promotes the replica that is lossless by the rule, if there is one and the coordinator takes it."""
        found = self.lossless(branch) or self._promoted_already(branch)
        if found is None or self.boss.is_paused:
            self.met["nobody is lossless"] += 1
            return False
        n = self.order()
        self.promoting[n] = found
        asked: list[Incoming] = [(OFFICER, n, Promote(branch, found.name, found.instance))]
        self.boss.take(asked)
        if not self.boss.is_up:  # who is not answered asks again
            self.boss.restart()
            self.boss.take(asked)
        self.wait_for_answer()
        return isinstance(self.answer, Promoting)

    def _promoted_already(self, branch: str) -> ReplicaInfo | None:
        """Whom the operator asked for and was not answered, while the directory says that it is the branch."""
        directory = self.directory()
        here = [] if directory is None else [info.instance for info in directory.branches if info.name == branch]
        return next((info for info in self.promoting.values() if info.of == branch and info.instance in here), None)

    def make_ready(self, branch: str) -> None:
        """All are there who are needed for that."""
        for process in (self.boss, *self.replicas(branch)):
            self.mend(process)
            self.rejoin(process)

    def wait_for_answer(self) -> None:
        """The operator is answered at once, or never."""

    # --- the end -------------------------------------------------------------------------------------------------------

    def settle(self) -> None:
        """All comes to rest, and everything is answered."""
        self.calm_down()
        for count in range(REST_ROUNDS):
            self.flush()
            self.pass_time(300_000)
            self.judge.look()
            if count % 20 == 5:
                self.name_who_is_there()
            if count % 6 == 5:
                if self.customers.are_content and count > 12 and self.is_level and not self.is_busy:
                    return
                self.customers.ask_all()

    def calm_down(self) -> None:
        """No faults any more, and all run."""
        self.is_calm = True
        self.network.heal()
        self.cut_off.clear()
        for process in list(self.sites.values()):
            process.dies = ""
            self.mend(process)

    def flush(self) -> None:
        """All that is on its way arrives."""
        for _ in range(FLUSH_FRAMES):
            if not self.deliver():
                return

    def name_who_is_there(self) -> None:
        """Where a branch waits for a replica that is gone for good, the operator names another one, or none."""
        directory = self.directory()
        assert directory is not None
        for name, word in directory.words().items():
            live = [process.disk.instance for process in self.replicas(name)]
            if word is not None and word.replica and word.instance not in live:
                self.give_word(name, self.random.choice([None, *self.replicas(name)]))

    @property
    def is_busy(self) -> bool:
        """Something is decided that not all have done, or a branch is in doubt."""
        branches = [process.engine.machine.fold for process in self.sites.values() if process.role == BRANCH]
        in_doubt = any(fold.prepared for fold in branches if isinstance(fold, BranchState))
        return in_doubt or bool(self.boss.coordinator.state.open)

    @property
    def is_level(self) -> bool:
        """All replicas have what their branches have."""
        last = {process.name: process.disk.seq for process in self.sites.values() if process.role == BRANCH}
        last[BOSS] = self.boss.disk.seq
        return all(process.disk.seq == last[process.of] for process in self.sites.values() if process.role == REPLICA)
