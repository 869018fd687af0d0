"""Two replicas and words in any order: who keeps all by the last word has whatever left the branch (PROTOCOL R3)."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import example, given
from hypothesis import strategies as st

from tests.transport.actors import Desk, branch, pay
from tests.transport.test_synchronous import FROM_BRANCH, told
from tests.unit.protocol_support import BOSS, CUSTOMER, SECOND_US, from_branch, id_of, prepare, txn_of
from zbank.errors import StorageFull
from zbank.protocol.branch_state import BranchState
from zbank.protocol.gate import keeps_all
from zbank.protocol.machine import Effect, Machine, Sender
from zbank.protocol.messages import (
    REPLICA,
    AckedBy,
    AnyMessage,
    Fault,
    GetAccount,
    GetRows,
    Inquiry,
    ReplicaInfo,
)
from zbank.protocol.replica import BranchReplica
from zbank.transport.engine import Incoming

NAMES = ("one", "other")


class Copy(Desk):
    """A replica under a name, with an instance of its own."""

    def __init__(self, name: str, folder: Path, of: Desk) -> None:
        self.name, self.of = name, of
        self.instance = name.ljust(16).encode()
        folder.mkdir(exist_ok=True)
        super().__init__(REPLICA, "Mumbai", folder, of.clock)

    def _build(self, thrown_away: Machine | None) -> Machine:
        machine = super()._build(thrown_away)
        assert isinstance(machine, BranchReplica)
        before = thrown_away if isinstance(thrown_away, BranchReplica) else None
        state = machine.state
        assert isinstance(state, BranchState)
        return BranchReplica(self.name, "tcp://127.0.0.1:9200", self.instance, state, self.store.chain, before)

    @property
    def info(self) -> ReplicaInfo:
        """What it tells of itself now."""
        machine = self.engine.machine
        assert isinstance(machine, BranchReplica)
        return machine.info(self.clock.now())

    @property
    def sender(self) -> Sender:
        """Itself, as its branch sees it."""
        return Sender(self.name.encode(), REPLICA, self.name)

    def again(self) -> Copy:
        """After a crash."""
        self.store.close()
        return Copy(self.name, self.path.parent, self.of)


class Trio:
    """A branch, two replicas, and what the coordinator said last. Every effect is looked at when it leaves."""

    def __init__(self, folder: Path) -> None:
        self.branch = branch(folder, "1", "2")
        self.copies = {name: Copy(name, folder / name, self.branch) for name in NAMES}
        self.word = AckedBy("", b"", 1)
        self.on_the_way: dict[str, list[AnyMessage]] = {name: [] for name in NAMES}  #: to the replicas
        self.late: list[Incoming] = []  #: from them: may come again
        self.stands_on: dict[int, int] = {}  #: by envelope: the row that its answer shows
        self.left_seq = self.branch.store.seq  #: the last row that anything that ever left stands on
        self.n = 100

    def send(self, message: AnyMessage, sender: Sender = CUSTOMER) -> None:
        """A turn of the branch."""
        self.n += 1
        n = self.n if sender == CUSTOMER else 0
        effects = self.branch.turn((sender, n, message))
        self.stands_on[n] = self.branch.store.seq
        self.see(effects)

    def see(self, effects: Sequence[Effect]) -> None:
        """What leaves the branch now."""
        word = self.branch.engine.machine.acks
        for effect in effects:
            name = effect.to.decode() if isinstance(effect.to, bytes) else effect.to
            if name in NAMES:
                self.on_the_way[name].append(effect.message)
                continue
            if isinstance(effect.message, Fault):
                continue
            seq = self.stands_on[effect.n] if effect.n else int(getattr(effect.message, "seq", 0))
            self.left_seq = max(self.left_seq, seq)
            if word is not None:
                assert seq <= self.copies[word.replica].store.seq

    def tick(self, after_us: int) -> None:
        """Time passes, for all."""
        self.see(self.branch.tick(after_us))
        for copy in self.copies.values():
            self.ask(copy, copy.tick(0))

    def ask(self, copy: Copy, effects: Sequence[Effect]) -> None:
        """A replica's questions come to the branch."""
        for effect in effects:
            if isinstance(effect.message, GetRows):
                self.late = [*self.late[-5:], (copy.sender, 0, effect.message)]
                self.send(effect.message, copy.sender)

    def answer(self, name: str) -> None:
        """What is on the way to a replica comes; and what it asks."""
        copy = self.copies[name]
        answers, self.on_the_way[name] = self.on_the_way[name], []
        for message in answers:
            self.ask(copy, copy.turn((FROM_BRANCH, 0, message)))

    def talk(self, rounds: int) -> None:
        """All goes well for a while."""
        for _ in range(rounds):
            self.tick(SECOND_US + 1)
            for name in NAMES * 2:
                self.answer(name)

    def name(self, name: str) -> None:
        """The coordinator records a word; the branch may hear of it later."""
        instance = self.copies[name].instance if name else b""
        self.word = AckedBy(name, instance, self.word.generation + 1)

    def check(self) -> None:
        """Nobody keeps all who does not."""
        for copy in self.copies.values():
            if keeps_all(self.word, copy.info):
                assert copy.store.seq >= self.left_seq

    def do(self, fate: str) -> None:
        """One thing happens."""
        verb, _, name = fate.partition(" ")
        if verb == "pay":
            self.send(pay(self.n, "Mumbai/1", "Mumbai/2", 1))
        elif verb == "read":
            self.send(GetAccount("1"))
        elif verb == "prepare":
            self.send(prepare(txn_of(self.n), pay(self.n, "Mumbai/1", "Delhi/1", 1)), BOSS)
        elif verb == "inquire":
            self.send(Inquiry(txn_of(self.n), id_of(self.n)), from_branch("Delhi"))
        elif verb == "lose":
            self.on_the_way[name].clear()
        elif verb == "answer":
            self.answer(name)
        elif verb == "name":
            self.name(name)
        elif verb == "tell":
            self.send(told(self.word), BOSS)
            self.tick(0)
        elif verb == "settle":
            self.name(name)
            self.do("tell")
            self.talk(3)
        elif verb == "late" and self.late:
            self.see(self.branch.turn(self.late[0]))
        elif verb == "tick":
            self.tick(SECOND_US + 1)
        elif verb == "restart":
            self.branch = self.branch.restarted()
        elif verb == "again":
            self.copies[name] = self.copies[name].again()
        elif verb == "full":
            self.copies[name].store.failures.append(StorageFull("no room"))

    def close(self) -> None:
        """Close all stores."""
        for desk in (self.branch, *self.copies.values()):
            desk.store.close()


FATES = st.lists(
    st.sampled_from(
        ["pay", "read", "prepare", "inquire", "tell", "late", "tick", "restart", "name ", "settle "]
        + [f"{verb} {name}" for verb in ("answer", "settle", "lose", "name", "again", "full") for name in NAMES]
    ),
    max_size=40,
)


@given(FATES)
@example(["settle one", "name ", "tell", "pay", "name one"])  # it slept through a time when the branch stood alone
@example(["settle one", "name other", "tell", "pay", "answer other", "name one"])  # or stood on another's disk
@example(["settle one", "name other", "pay", "answer one", "tell", "restart", "read", "settle other"])
def test_who_keeps_all_by_the_last_word_has_whatever_left(fates: list[str]) -> None:
    with TemporaryDirectory() as folder, closing(Trio(Path(folder))) as trio:
        for fate in fates:
            trio.do(fate)
            trio.check()
        for copy in trio.copies.values():
            copy.store.failures.clear()
        trio.name("other")
        trio.do("tell")
        trio.talk(8)
        trio.do("pay")
        trio.talk(8)
        trio.check()
        assert keeps_all(trio.word, trio.copies["other"].info)
        assert trio.left_seq == trio.branch.store.seq, "nothing waits for ever"
