"""What drills are made of: steps as data, told in words. `play` does them, `picture` draws what came of them.

Names of places in a step: `client`, `coordinator`, `home` (the branch that pays) and `other` (the branch that is paid).
Words in braces in a text: {home}, {other}, {payer}, {payee}, {amount}, {cut_s}; and {txn}, the first attempt of the transfer.
"""

from __future__ import annotations

from msgspec import Struct

CLIENT = "client"
COORDINATOR = "coordinator"
HOME = "home"
OTHER = "other"

FIRST = "first"  #: the transfer that the drill is about, with its id
OTHER_CONTENT = "other content"  #: the same id, another amount
SECOND = "second"  #: a transfer of its own
LOCAL = "local"  #: a transfer within the branch `other`


class Step(Struct, frozen=True, kw_only=True):
    """Base of all steps."""

    text: str  #: what happened and why, told after the step; "" = the picture says it all
    before: str = ""  #: told before a step that takes its time
    rule: str = ""  #: of docs/protocol.md that it shows, as in "P5"


class Ask(Step, frozen=True, kw_only=True):
    """The client sends a transfer; it arrives and is decided."""

    what: str = FIRST


class Send(Step, frozen=True, kw_only=True):
    """A held message leaves, arrives, is decided, and what it leads to is forced."""

    message: str
    source: str
    target: str
    expect: str = ""  #: how its detail begins: `yes` of a vote, `committed` of an outcome
    forced: str = ""  #: kind of the record that the receiver must force; "" = none
    arrives: bool = True  #: False = nobody is there to take it
    decided: bool = True  #: False = the receiver has it and has done nothing about it


class Lose(Step, frozen=True, kw_only=True):
    """A held message is lost on its way."""

    message: str
    source: str
    target: str


class Crash(Step, frozen=True, kw_only=True):
    """kill -9. The process is started again by the launcher, and kept from taking office until Restart."""

    actor: str


class Restart(Step, frozen=True, kw_only=True):
    """The new process reads its journal and takes office."""

    actor: str


class Wait(Step, frozen=True, kw_only=True):
    """Time goes on until a timer makes an actor send this message; with `arrives` until it is there."""

    message: str
    source: str
    target: str
    limit_s: float
    arrives: bool = False


class Cut(Step, frozen=True, kw_only=True):
    """The branch is cut off from the coordinator, and time goes on; the gates are open."""

    actor: str
    duration_s: int


class Freely(Step, frozen=True, kw_only=True):
    """The client sends a transfer with all gates open, and is told something within the limit."""

    what: str
    expect: str
    limit_s: float


class Heal(Step, frozen=True, kw_only=True):
    """Wait until the cut is over and what was lost has been made up for."""

    actor: str


class GiveUp(Step, frozen=True, kw_only=True):
    """The client's patience ends."""


class Look(Step, frozen=True, kw_only=True):
    """What each actor knows now, and what is on its disk."""


AnyStep = Ask | Send | Lose | Crash | Restart | Wait | Cut | Freely | Heal | GiveUp | Look


class Drill(Struct, frozen=True, kw_only=True):
    """One lesson."""

    name: str  #: for the command line; never changes
    title: str
    question: str  #: what a reader should ask himself before
    lesson: str  #: what he should take away
    outcome: str  #: of the transfer: `committed` or `aborted`
    steps: tuple[AnyStep, ...]
    too_much: bool = False  #: more than the payer has
    payee: str = "1002"  #: account number at `other`
    moved: int = 1  #: times the usual amount has left the payer for the payee in the end
    moved_locally: int = 0  #: times the small amount has gone from `other`/1002 to `other`/1001

    @property
    def count(self) -> int:
        """How many steps it has. To look is none: nothing happens."""
        return sum(not isinstance(step, Look) for step in self.steps)
