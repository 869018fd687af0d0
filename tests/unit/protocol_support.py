"""What the tests of the state machines share: an actor whose journal is a list, clocks that are set, short names.

`Desk` turns like the engine does (decide, apply, next; then the force; then the effects), without store and network.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple, TypeVar

from zbank.clock import Now
from zbank.domain.book import branch_movements, net
from zbank.domain.legs import CASH, CLEARING, Leg, content_digest
from zbank.protocol.branch_state import BranchState
from zbank.protocol.codec import decode_record, encode_record
from zbank.protocol.coordinator import Coordinator
from zbank.protocol.coordinator_state import CoordinatorState
from zbank.protocol.machine import About, Effect, Machine, Sender, Step
from zbank.protocol.messages import (
    BRANCH,
    CLIENT,
    COMMITTED,
    COORDINATOR,
    AnyMessage,
    BranchInfo,
    OpenAccount,
    Opened,
    Outcome,
    Position,
    Prepare,
    Register,
    StatusInfo,
    Transfer,
    Txn,
    Vote,
)
from zbank.protocol.participant import Participant
from zbank.protocol.records import AnyRecord

SECOND_US = 1_000_000
COORDINATOR_NAME = "coordinator"
CUSTOMER = Sender(b"customer", CLIENT, "")
BOSS = Sender(COORDINATOR_NAME, COORDINATOR, COORDINATOR_NAME)
BRANCHES = ("Delhi", "Mumbai", "Pune")

Kind = TypeVar("Kind")


class TestClock:
    """Both clocks of a test, standing still until they are moved."""

    __test__ = False  # not a test case, whatever its name

    def __init__(self) -> None:
        self._now = Now(wall_us=1_700_000_000 * SECOND_US, mono_us=5_000 * SECOND_US)

    def now(self) -> Now:
        """Read both clocks."""
        return self._now

    def advance(self, duration_us: int, wall_us: int | None = None) -> Now:
        """Let time pass; `wall_us` when the wall clock moves by something else."""
        wall, mono = self._now
        self._now = Now(wall + (duration_us if wall_us is None else wall_us), mono + duration_us)
        return self._now


class Line(NamedTuple):
    """One row of a desk's journal."""

    seq: int
    epoch: int
    at_us: int
    body: bytes

    @property
    def record(self) -> AnyRecord:
        """What the row says."""
        return decode_record(self.body)


Incoming = tuple[Sender, int, AnyMessage]


class Desk:
    """One actor: its state machine, and a journal that is a list."""

    def __init__(
        self, build: Callable[[Machine | None], Machine], clock: TestClock, lines: Iterable[Line] = ()
    ) -> None:
        self.clock = clock
        self.lines = list(lines)
        self._build = build
        self.epoch = self.lines[-1].epoch + 1 if self.lines else 1
        self._unforced: list[Line] = []
        self.machine = self._recover(None)
        for record in self.machine.start("test"):
            self._journal(Step(record))
        self.force()

    def _recover(self, thrown_away: Machine | None) -> Machine:
        machine = self._build(thrown_away)
        if self.lines:
            machine.time.last_us = self.lines[-1].at_us  # a store gives it with the posted state
        for line in self.lines:
            machine.fold.apply(line.seq, line.epoch, line.at_us, line.record)
        machine.resume(self.clock.now())
        return machine

    def _journal(self, step: Step) -> None:
        if step.record is None:
            return
        seq = len(self.lines) + len(self._unforced) + 1
        line = Line(seq, self.epoch, self.machine.label_us(self.clock.now()), encode_record(step.record))
        self._unforced.append(line)
        self.machine.fold.apply(line.seq, line.epoch, line.at_us, line.record)

    def record(self, record: AnyRecord) -> None:
        """A row that nobody asked for by a message."""
        self._journal(Step(record))
        self.force()

    def decide(self, batch: Sequence[Incoming]) -> list[Effect]:
        """Decide and apply a batch; its effects may leave after `force`."""
        effects: list[Effect] = []
        for sender, n, message in batch:
            step = self.machine.decide(sender, n, message, self.clock.now())
            self._journal(step)
            effects += step.effects
        return effects

    def force(self) -> list[Line]:
        """Make what was decided durable; gives the new rows."""
        forced, self._unforced = self._unforced, []
        self.lines += forced
        return forced

    def roll_back(self) -> None:
        """The force failed for want of room: memory is thrown away and rebuilt, in the same epoch (T2)."""
        self._unforced = []
        self.machine = self._recover(self.machine)

    def turn(self, batch: Sequence[Incoming]) -> list[Effect]:
        """A whole turn."""
        effects = self.decide(batch)
        self.force()
        return effects

    def send(self, message: AnyMessage, sender: Sender = CUSTOMER, n: int = 0) -> list[Effect]:
        """A turn of one message; gives all its effects."""
        return self.turn([(sender, n, message)])

    def ask(self, message: AnyMessage, sender: Sender = CUSTOMER) -> AnyMessage:
        """A turn of one message; gives the one answer, which goes to who asked."""
        n = 7 if sender.role == CLIENT else 0
        (effect,) = self.send(message, sender, n)
        assert (effect.to, effect.n) == (sender.address, n), f"{effect} does not go to who asked"
        return effect.message

    def down(self, name: str, for_us: int = 0) -> None:
        """An actor was lost so long ago."""
        self.machine.peer_down(name, self.clock.now())
        self.clock.advance(for_us)

    def tick(self, after_us: int = 0) -> list[Effect]:
        """Let time pass, and the actor see it."""
        step = self.machine.tick(self.clock.advance(after_us))
        self._journal(step)
        self.force()
        return list(step.effects)

    def status(self) -> StatusInfo:
        """What the actor tells of itself."""
        return self.machine.status(About("demo", bytes(16), 5, 6, "test"), self.clock.now())

    def restarted(self) -> Desk:
        """The actor after a crash: all folded from the first row, in the next epoch."""
        return Desk(self._build, self.clock, self.lines)

    @property
    def records(self) -> list[AnyRecord]:
        """All records of the journal."""
        return [line.record for line in self.lines]

    @property
    def last(self) -> AnyRecord:
        """The newest record."""
        return self.lines[-1].record


class BranchDesk(Desk):
    """A branch."""

    @property
    def state(self) -> BranchState:
        """Its fold."""
        fold = self.machine.fold
        assert isinstance(fold, BranchState)
        return fold

    def balance(self, number: str) -> int:
        """Balance of an account, minor units."""
        return self.state.book.accounts[number].balance_minor

    def held(self, number: str) -> int:
        """What is set aside on an account, minor units."""
        return self.state.book.accounts[number].held_minor

    def restarted(self) -> BranchDesk:
        """The branch after a crash."""
        return BranchDesk(self._build, self.clock, self.lines)


class CoordinatorDesk(Desk):
    """A coordinator."""

    @property
    def coordinator(self) -> Coordinator:
        """Its state machine."""
        assert isinstance(self.machine, Coordinator)
        return self.machine

    @property
    def state(self) -> CoordinatorState:
        """Its fold."""
        return self.coordinator.state

    def restarted(self) -> CoordinatorDesk:
        """The coordinator after a crash."""
        return CoordinatorDesk(self._build, self.clock, self.lines)

    def joined(self, branches: Iterable[str] = BRANCHES) -> CoordinatorDesk:
        """The same one, with these branches registered and nothing of their greeting left to do."""
        for branch in branches:
            self.send(register(branch), from_branch(branch))
        return self


def branch_desk(
    name: str = "Mumbai",
    balances: dict[str, int] | None = None,
    *,
    clock: TestClock | None = None,
    currency: str = "INR",
    overdraft_limits: dict[str, int] | None = None,
) -> BranchDesk:
    """A new branch with these accounts (minor units), paid in from cash."""

    def build(_thrown_away: Machine | None) -> Machine:
        return Participant(BranchState(name, currency), (CASH, CLEARING))

    desk = BranchDesk(build, clock or TestClock())
    for count, (number, balance_minor) in enumerate((balances or {}).items()):
        limit_minor = (overdraft_limits or {}).get(number, 0)
        opened = desk.ask(OpenAccount(id_of(90_000 + 2 * count), number, "", "", limit_minor))
        assert isinstance(opened, Opened)
        if balance_minor:
            legs = (Leg(name, CASH, -balance_minor), Leg(name, number, balance_minor))
            paid_in = desk.ask(Transfer(id_of(90_001 + 2 * count), legs, currency))
            assert isinstance(paid_in, Outcome)
            assert paid_in.status == COMMITTED
    return desk


def coordinator_desk(
    name: str = COORDINATOR_NAME, *, clock: TestClock | None = None, configured: Sequence[str] = BRANCHES
) -> CoordinatorDesk:
    """A new coordinator that no branch has registered with."""

    def build(thrown_away: Machine | None) -> Machine:
        before = thrown_away if isinstance(thrown_away, Coordinator) else None
        return Coordinator(CoordinatorState(name), before=before, configured=configured)

    return CoordinatorDesk(build, clock or TestClock())


def id_of(n: int) -> bytes:
    """The n-th id."""
    return n.to_bytes(16, "big")


def from_branch(name: str) -> Sender:
    """A registered branch, as its coordinator sees it."""
    return Sender(name, BRANCH, name)


def from_coordinator(name: str) -> Sender:
    """A coordinator, as a branch sees it."""
    return Sender(name, COORDINATOR, name)


def register(branch: str, *, epoch: int = 1, coordinator_epoch: int = 0, coordinator_number: int = 0) -> Register:
    """What a branch says to join."""
    info = BranchInfo(branch, f"tcp://{branch}:9100", "INR", branch.ljust(16).encode(), epoch, True)
    return Register(info, coordinator_epoch, coordinator_number)


def legs_of(**amounts: int) -> tuple[Leg, ...]:
    """`legs_of(Mumbai_1001=-5, Delhi_1002=5)`."""
    legs = []
    for place, amount_minor in amounts.items():
        branch, _, number = place.partition("_")
        legs.append(Leg(branch, number, amount_minor))
    return tuple(legs)


def transfer(n: int, legs: tuple[Leg, ...], currency: str = "INR", memo: str = "") -> Transfer:
    """The n-th transfer."""
    return Transfer(id_of(n), legs, currency, memo)


def prepare(txn: Txn, message: Transfer, caller: str = "") -> Prepare:
    """What a coordinator asks for that transfer."""
    digest = content_digest(message.legs, message.currency, message.memo, message.effective_on)
    return Prepare(txn, message, digest, caller)


def txn_of(n: int, epoch: int = 1, coordinator: str = COORDINATOR_NAME) -> Txn:
    """The n-th txn of a coordinator."""
    return Txn(coordinator, epoch, n)


def yes(message: Prepare, branch: str, *, number: int = 0, seq: int = 9) -> Incoming:
    """A yes vote as the coordinator receives it."""
    return from_branch(branch), 0, Vote(message.txn, message.transfer.id, "yes", number, seq)


def position(branch: str, epoch: int = 3, turn_us: int = 250) -> Incoming:
    """Where a branch's journal stands, as the coordinator receives it."""
    return from_branch(branch), 0, Position(epoch, 9, bytes(32), turn_us)


def of_kind(kind: type[Kind], effects: Iterable[Effect]) -> list[tuple[str | bytes, Kind]]:
    """The messages of one kind among the effects, with where they go."""
    return [(effect.to, effect.message) for effect in effects if isinstance(effect.message, kind)]


def check_books(state: BranchState) -> None:
    """What holds of a branch at every moment: books sum to zero, nobody below the limit, held = what is promised."""
    accounts = state.book.accounts
    assert sum(account.balance_minor for account in accounts.values()) == 0 == state.total_minor
    assert accounts[CLEARING].balance_minor == state.clearing_minor
    held = dict.fromkeys(accounts, 0)
    incoming = dict.fromkeys(accounts, 0)
    for txn in state.prepared.values():
        for number, amount_minor in net(branch_movements(txn.content.legs, state.name)).items():
            held[number] += max(-amount_minor, 0)
            incoming[number] += max(amount_minor, 0)
    for account in accounts.values():
        assert account.is_system or account.available_minor >= 0, f"{account} is below its limit"
        assert account.held_minor == held[account.number], f"{account} holds what nobody promised"
        assert account.incoming_minor == incoming[account.number], f"{account} expects what nobody promised"
