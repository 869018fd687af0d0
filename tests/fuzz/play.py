"""A whole actor on a real store, fed whatever is well typed and may reach it: what must hold afterwards, whatever it was.

The messages that an actor is protected from by `access` are left out. Senders are those that the transport would name.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hypothesis import strategies as st
from msgspec.structs import asdict, replace

from tests.fuzz.shapes import ENVELOPE_NUMBERS, POOLS, instances
from tests.transport.actors import Desk, branch
from tests.unit.protocol_support import BRANCHES, COORDINATOR_NAME, SECOND_US, from_branch, id_of, register
from zbank.domain.legs import CASH, MAX_MINOR, Leg, content_digest
from zbank.errors import FenceLost, StorageFull
from zbank.protocol.branch_state import BranchState
from zbank.protocol.codec import MAX_FRAME_BYTES, decode_batch, decode_record, encode_batch
from zbank.protocol.coordinator_state import CoordinatorState
from zbank.protocol.machine import Effect, Sender
from zbank.protocol.messages import (
    BRANCH,
    CLIENT,
    COORDINATOR,
    STALE,
    YES,
    Abort,
    Ack,
    AnyMessage,
    Beat,
    ChangeAccount,
    Commit,
    Fault,
    Forward,
    Hello,
    Prepare,
    Register,
    Registered,
    Transfer,
    Txn,
    Vote,
    Welcome,
)
from zbank.transport.access import ON_LINK, ON_SERVER
from zbank.transport.engine import Incoming

MAX_STEPS = 40
SCRATCH = next((folder for folder in ("/dev/shm", "/tmp") if Path(folder).is_dir()), None)  # forced to disk: memory is faster
_SIZES = st.sampled_from((1, 1, 2, 4))
_WAITS_US = st.sampled_from([SECOND_US * tenths // 10 for tenths in (0, 1, 1, 2, 5, 5, 20, 100)])
_OF_THE_LOOP = {Hello, Beat}  # dealt with before the actor sees them
_OF_THE_LINK = {Welcome, Fault, Beat}
_NUMBERS = st.sampled_from(("1", "2", "3"))
_STATUSES = st.sampled_from(("", "open", "frozen", "closed"))
_OVERDRAFTS = st.sampled_from((-1, -1, 0, 50_00, MAX_MINOR))
#: what leads somewhere
_WEIGHTS: dict[type[AnyMessage], int] = {Transfer: 6, Prepare: 5, Commit: 3, ChangeAccount: 3, Vote: 14, Ack: 10}

Draw = Callable[[st.SearchStrategy[Any]], Any]


class Play:
    """One actor, what was said to it and by it, and what must hold of it."""

    def __init__(self, draw: Draw, role: str, folder: Path) -> None:
        self.draw = draw
        self.role = role
        self.desk = branch(folder, "1", "2", "3") if role == BRANCH else Desk(COORDINATOR, COORDINATOR_NAME, folder)
        self.asked: list[AnyMessage] = []  #: what came in and went out, for later messages to refer to
        self.told: list[Effect] = []  #: what it said, and to whom
        self.ids: set[bytes] = {id_of(n) for n in range(1, 7)}
        self.txns: set[Txn] = set()
        if role == COORDINATOR:
            for name in BRANCHES:
                self.desk.turn((Sender(name, BRANCH, name), 0, register(name)))

    # --- what is said -----------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Say something, let time pass, post, restart, fill the disk, in any order; then look at the whole."""
        acts = [self._turn] * 16 + [self._settle] * 4 + [self._tick] * 3 + [self._post] * 2
        acts += [self._restart, self._full, self._down]
        for _ in range(self.draw(st.integers(5, MAX_STEPS))):
            self.draw(st.sampled_from(acts))()
        self._restart()
        self.check_whole()

    def _turn(self) -> None:
        self._say([self._incoming() for _ in range(self.draw(_SIZES))])

    def _settle(self) -> None:
        """What the actor said lately is answered as honest peers would: so it comes to decisions, and to their ends."""
        batch: list[Incoming] = []
        for effect in self.told:
            message = effect.message
            if isinstance(message, Prepare):
                batch.append((from_branch(str(effect.to)), 0, Vote(message.txn, message.transfer.id, YES, 0, 1)))
            elif isinstance(message, Commit | Abort) and self.role == COORDINATOR:
                batch.append((from_branch(str(effect.to)), 0, Ack(message.txn, message.id, 1)))
            elif isinstance(message, Vote) and message.answer == YES:
                batch.append((Sender(effect.to, COORDINATOR, str(effect.to)), 0, Commit(message.txn, message.id, 1)))
        self.told.clear()
        self._say(batch)

    def _say(self, batch: list[Incoming]) -> None:
        """One turn."""
        leaves = any(isinstance(message, Vote) and message.answer == STALE for _, _, message in batch)
        try:
            effects = self.desk.turn(*batch)
        except FenceLost:
            assert leaves, "it left its office without being told"
            self.desk = self.desk.restarted()
            return
        self._note([message for _, _, message in batch])
        clients = {(sender.address, n) for sender, n, _ in batch if sender.role == CLIENT}
        self.check_effects(effects)
        if self.role == BRANCH:
            told = {(effect.to, effect.n) for effect in effects if isinstance(effect.to, bytes)}
            assert told <= clients | {(sender.address, n) for sender, n, _ in batch}, "somebody is told who did not ask"
        self.check_state()

    def _tick(self) -> None:
        self.check_effects(self.desk.tick(self.draw(_WAITS_US)))
        self.check_state()

    def _post(self) -> None:
        self.desk.engine.post()
        self.check_state()

    def _full(self) -> None:
        self.desk.store.failures.append(StorageFull("no room"))
        self._turn()
        self.desk.store.failures.clear()
        self.desk.engine.tick(self.desk.clock.advance(2 * SECOND_US))  # it sees that there is room

    def _down(self) -> None:
        name = self.draw(st.sampled_from(("Pune", COORDINATOR_NAME, "", "\0")))
        self.desk.engine.machine.peer_down(name, self.desk.clock.now())

    def _restart(self) -> None:
        before = self.portrait()
        self.desk = self.desk.restarted()
        assert self.portrait() == before, "a restart changed something"

    def _incoming(self) -> Incoming:
        """A message that may reach the actor, from somebody who may send it."""
        over_link = self.role == BRANCH and not self._one_in(3)
        if over_link:
            kinds = [(role, kind) for role in (COORDINATOR, BRANCH) for kind in ON_LINK[role] - _OF_THE_LINK]
        else:
            table = {role: ON_SERVER.get((self.role, role), frozenset()) for role in (CLIENT, BRANCH)}
            kinds = [(role, kind) for role, allowed in table.items() for kind in allowed - _OF_THE_LOOP]
        kinds.sort(key=lambda pair: (pair[0], pair[1].__name__))
        role, kind = self.draw(st.sampled_from([pair for pair in kinds for _ in range(_WEIGHTS.get(pair[1], 1))]))
        sender = self._sender(role, over_link=over_link)
        message = self.draw(instances(kind))
        if not self._one_in(6):  # else nothing would ever come so far that nonsense can do harm
            sender, message = self._likely(sender, message)
        if isinstance(message, Register):  # the loop has seen to this
            sender = from_branch(message.info.name)
        return sender, self.draw(ENVELOPE_NUMBERS), message

    def _sender(self, role: str, *, over_link: bool) -> Sender:
        if role == CLIENT:
            return Sender(self.draw(st.sampled_from((b"one", b"two"))), CLIENT, "")
        if role == COORDINATOR:
            name = self.draw(st.sampled_from((COORDINATOR_NAME, COORDINATOR_NAME, "other", "", "x-1", "\0")))
            return Sender(name, COORDINATOR, name)
        if self.role == COORDINATOR:
            return from_branch(self.draw(st.sampled_from(BRANCHES)))
        name = self.draw(st.sampled_from((*BRANCHES, *POOLS["name"])))
        return Sender(name if over_link else b"a branch", BRANCH, name)

    def _likely(self, sender: Sender, message: Any) -> tuple[Sender, Any]:
        """The same message, changed so that it fits what was said before, for the most part."""
        if isinstance(message, Transfer):
            return sender, self._likely_transfer(message)
        if isinstance(message, Forward):
            return sender, replace(message, transfer=self._likely_transfer(message.transfer))
        if isinstance(message, Registered):
            return sender, replace(message, coordinator=sender.caller, epoch=self.draw(st.integers(0, 3)))
        if isinstance(message, ChangeAccount):
            number, status = self.draw(_NUMBERS), self.draw(_STATUSES)
            return sender, replace(message, number=number, status=status, overdraft_limit_minor=self.draw(_OVERDRAFTS))
        if isinstance(message, Register):
            known = register(self.draw(st.sampled_from(BRANCHES)), epoch=self.draw(st.integers(1, 2)))
            return sender, known if self._one_in(2) else replace(known, info=replace(message.info, instance=bytes(16)))
        if isinstance(message, Prepare):
            return sender, self._likely_prepare(sender, message)
        if isinstance(message, Vote | Ack):
            return self._likely_answer(sender, message)
        if "txn" in message.__struct_fields__ and self.asked:
            earlier = self.draw(st.sampled_from(self.asked))
            message = replace(message, txn=earlier.txn, id=_id_of(earlier))
        return sender, message

    def _likely_answer(self, sender: Sender, message: Any) -> tuple[Sender, Any]:
        """An answer to something that the coordinator asked, by the branch that it asked."""
        question: Any = (Prepare,) if isinstance(message, Vote) else (Commit, Abort)
        open_questions = [effect for effect in self.told if isinstance(effect.message, question)]
        if not open_questions:
            return sender, message
        effect = self.draw(st.sampled_from(open_questions))
        self.told.remove(effect)
        asked: Any = effect.message
        message = replace(message, txn=asked.txn, id=_id_of(asked))
        if isinstance(message, Vote) and not self._one_in(6):
            message = replace(message, answer="yes")
        return from_branch(str(effect.to)), message

    def _likely_transfer(self, message: Transfer) -> Transfer:
        if self._one_in(6):
            return message
        name = self.desk.identity.name if self.role == BRANCH else "Mumbai"
        elsewhere = self.role == COORDINATOR and not self._one_in(6)
        accounts = [(name, number) for number in ("1", "2", "3", CASH)] + [("Delhi", "1"), ("Pune", CASH)]
        giver = self.draw(st.sampled_from(accounts))
        taker = self.draw(st.sampled_from([one for one in accounts if one[not elsewhere] != giver[not elsewhere]]))
        amount_minor = self.draw(st.sampled_from((1, 5, 40_00, 100_00, 2**62, MAX_MINOR - 100_00, MAX_MINOR)))
        (gives, giving), (takes, taking) = giver, taker
        legs = (Leg(gives, giving, -amount_minor), Leg(takes, taking, amount_minor))
        return Transfer(message.id, legs, "INR", message.memo)

    def _likely_prepare(self, sender: Sender, message: Prepare) -> Prepare:
        transfer = self._likely_transfer(message.transfer)
        digest = content_digest(transfer.legs, transfer.currency, transfer.memo, transfer.effective_on)
        txn = Txn(sender.caller, self.draw(st.integers(1, 3)), int.from_bytes(transfer.id[-2:], "big"))
        return Prepare(txn, transfer, message.digest if self._one_in(4) else digest, message.caller)

    def _one_in(self, count: int) -> bool:
        """True every so often."""
        dice: int = self.draw(st.integers(1, count))
        return dice == count

    def _note(self, messages: list[Any]) -> None:
        for message in messages:
            if getattr(message, "txn", None) is not None:
                self.txns.add(message.txn)
                self.asked.append(message)
            id = _id_of(message)
            if id is not None:
                self.ids.add(id)
        del self.asked[:-40]

    # --- what must hold ---------------------------------------------------------------------------------------------------

    def check_effects(self, effects: list[Effect]) -> None:
        """What an actor says can be taken in where it goes: a frame that is refused there is lost, with all that is in it."""
        self._note([effect.message for effect in effects])
        self.told = [*self.told, *effects][-40:]
        for effect in effects:
            body = encode_batch([(effect.n, effect.message)])
            assert len(body) <= MAX_FRAME_BYTES
            assert decode_batch(body) == [(effect.n, effect.message)]

    def check_state(self) -> None:
        """The books sum to zero, and no number is outside of its range."""
        state = self.desk.engine.machine.fold
        if not isinstance(state, BranchState):
            return
        assert state.total_minor == 0
        for account in state.book.accounts.values():
            assert -MAX_MINOR <= account.balance_minor <= MAX_MINOR
            assert 0 <= account.held_minor <= MAX_MINOR
            assert 0 <= account.incoming_minor <= MAX_MINOR
            if not account.is_system:
                assert account.available_minor >= 0, account

    def check_whole(self) -> None:
        """The chain, the file, the books; and all that is remembered is the fold of the journal from its first row."""
        before = self.portrait()
        self.desk.engine.post()
        assert self.portrait() == before, "posting changed something"
        assert self.desk.store.verify() == self.desk.store.seq
        fresh: BranchState | CoordinatorState = CoordinatorState(COORDINATOR_NAME)
        if self.role == BRANCH:
            fresh = BranchState(self.desk.identity.name, "INR")
        for row in self.desk.store.journal():
            fresh.apply(row.seq, row.epoch, row.at_us, decode_record(row.body))
        expected = _small(fresh)
        expected["settled"] = {id: asdict(row) for id, row in fresh.settled.items() if id in self.ids}
        if isinstance(fresh, BranchState):
            expected["accounts"] = {number: asdict(account) for number, account in fresh.book.accounts.items()}
            expected["tombstones"] = fresh.tombstones & self.txns
        assert before == expected, "the state is not the fold of the journal"

    def portrait(self) -> dict[str, Any]:
        """All that an actor must not forget, in memory or not. Looking changes nothing of what is in memory."""
        store = self.desk.store
        state: Any = self.desk.engine.machine.fold
        settled = {row.id: row for row in store.load_settled(self.ids)}
        settled |= {id: row for id, row in state.settled.items() if id in self.ids}
        portrait = _small(state)
        portrait["settled"] = {id: asdict(row) for id, row in settled.items()}
        if isinstance(state, BranchState):
            accounts = {account.number: account for account in store.pages.accounts("", 1000)} | state.book.accounts
            portrait["accounts"] = {number: asdict(account) for number, account in accounts.items()}
            portrait["tombstones"] = store.load_tombstones(self.txns) | (state.tombstones & self.txns)
        return portrait


def _small(state: Any) -> dict[str, Any]:
    """What of a state is wholly in memory."""
    if isinstance(state, CoordinatorState):
        open_txns = {id: asdict(decision) for id, decision in state.open.items()}
        return {"number": state.number, "branches": dict(state.branches), "open": open_txns}
    assert isinstance(state, BranchState)
    return {
        "number": state.number,
        "next number": state.next_number,
        "account count": state.account_count,
        "clearing": state.clearing_minor,
        "coordinators": {name: (mark.epoch, mark.number) for name, mark in state.coordinators.items()},
        "prepared": {id: asdict(held) for id, held in state.prepared.items()},
    }


def _id_of(message: Any) -> bytes | None:
    id: bytes | None = getattr(message, "id", None)
    if id is None and getattr(message, "transfer", None) is not None:
        id = message.transfer.id
    return id


def play(draw: Draw, role: str) -> None:
    """A whole life of an actor."""
    with tempfile.TemporaryDirectory(dir=SCRATCH) as folder:
        run = Play(draw, role, Path(folder))
        try:
            run.run()
        finally:
            run.desk.store.close()
