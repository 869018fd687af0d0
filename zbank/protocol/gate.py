"""What leaves an actor waits until its synchronous replica has on its disk what it stands on (PROTOCOL R3).

    turn ── force here ──▶ effects wait, with the row they stand on ── that row is on the replica's disk, too ──▶ they leave

The coordinator's word says who the replica is, by the instance of its store; each word has a generation, and both the branch
and the replica have it in their journals. So a replica that has a word, and whose coordinator knows no later one, has all that
ever left after it: it can take the place of its branch, and nothing that was acknowledged is lost. Without the replica the
branch stops. It never goes on alone unless an operator says so.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection

from zbank.protocol.machine import BUSY_RETRY_MS, Effect
from zbank.protocol.messages import AckedBy, Fault, ReplicaInfo

SILENT_US = 3_000_000  #: after so long without a word from the replica the actor stops
MAX_WAITING = 50_000  #: effects, and rows in their pages; more is not taken on


def wanting(word: AckedBy | None, wanted: str) -> AckedBy | None:
    """Who acknowledges by the last word. None yet, and one is wanted: nobody can, and so nothing leaves."""
    if word is None:
        return AckedBy(wanted, b"", 0) if wanted else None
    return word if word.replica else None


def who_acknowledges(word: AckedBy | None) -> str | None:
    """The synchronous replica by the last word, for people and programs; None = there is none."""
    return word.replica or None if word is not None else None


def alone(name: str, word: AckedBy | None, wanted: str) -> tuple[str, ...]:
    """An alarm, when a synchronous replica is wanted and by the last word there is none."""
    if not wanted or word is None or word.replica:
        return ()
    return (f"no synchronous replica: what it says stands on one disk alone. Name one: `zbank acks {name} REPLICA`",)


def keeps_all(word: AckedBy | None, info: ReplicaInfo) -> bool:
    """This replica has all that ever left its branch: the directory's last word names it, and by its own rows its branch has
    followed that very word. What it told of itself has to be older than the word that is looked at."""
    said = AckedBy(info.name, info.instance, info.acks)  # a copy of its file under another name says the same of the rest
    return word is not None and word.replica != "" and word == said


class Gate:
    """What waits, and how far the replica has come. Times are monotonic microseconds."""

    def __init__(self, now_us: int) -> None:
        self.acked_seq = 0  #: the replica has the rows up to this one
        self._instance = b""  #: of the replica that this is about
        self._heard_us = now_us
        self._asked_us: int | None = None
        self._acked_us: int | None = None
        self._waiting: deque[tuple[int, int, Collection[Effect]]] = deque()  #: row, cost, what stands on that row
        self._cost = 0  #: of all that waits

    def heed(self, acks: AckedBy | None, now_us: int) -> None:
        """Who acknowledges now: another one than before begins from nothing."""
        instance = acks.instance if acks is not None else b""
        if instance != self._instance:
            self._instance, self.acked_seq, self._heard_us, self._acked_us = instance, 0, now_us, None

    def acked(self, seq: int, of_us: int, now_us: int) -> None:
        """The replica has the rows up to this one. What counts is that it comes on, as long as something waits for it; and as
        of `of_us`, when what it answers was sent: its word may have lain about while this actor slept, and another may have
        taken the place since."""
        self._acked_us = now_us
        if (seq > self.acked_seq or not self._waiting) and of_us <= now_us:
            self._heard_us = max(self._heard_us, of_us)
        self.acked_seq = seq  # also when it had more before: its file may have been put back

    def let_out(self, acks: AckedBy | None, seq: int, effects: Collection[Effect], cost: int) -> list[Effect]:
        """What may leave now, of what waits from before, and of these effects, which stand on row `seq`. What would wait
        where far too much does is dropped: actors ask and say all again in time, and others are not taken on."""
        leaving: list[Effect] = []
        while self._waiting and self._may_leave(acks, self._waiting[0][0]):
            _, its_cost, waited = self._waiting.popleft()
            self._cost -= its_cost
            leaving += waited
        if not self._waiting and self._may_leave(acks, seq):
            leaving += effects
        elif effects and self._cost <= 2 * MAX_WAITING:
            self._waiting.append((seq, cost, effects))
            self._cost += cost
        return leaving

    def sift(self, keep: Callable[[Collection[Effect]], Collection[Effect]]) -> None:
        """Let only that wait which `keep` gives back."""
        self._waiting = deque((seq, cost, keep(effects)) for seq, cost, effects in self._waiting)

    def _may_leave(self, acks: AckedBy | None, seq: int) -> bool:
        return acks is None or (acks.instance != b"" and seq <= self.acked_seq)

    def stopped(self, acks: AckedBy | None, name: str, code: str, now_us: int) -> Fault | None:
        """Why nothing is taken on now, by this code; None when it is."""
        if acks is None:
            return None
        if not acks.instance or self._is_silent(now_us):
            why = self._why(acks, now_us)
            detail = f"{name} has stopped: {why}: not done, or not known; the same id may be sent again when it is there"
            return Fault(code=code, detail=detail, retry_after_ms=1000)
        if self._cost > MAX_WAITING:
            detail = f"too much waits for replica {acks.replica}: send it again in a moment"
            return Fault(code="busy", detail=detail, retry_after_ms=BUSY_RETRY_MS)
        return None

    def asked(self, now_us: int) -> None:
        """The replica, or one of its name, asks for rows and acknowledges none."""
        self._asked_us = now_us

    def alarm(self, acks: AckedBy | None, name: str, now_us: int) -> str:
        """What an operator has to know; "" = nothing, also as long as a start takes that is in order."""
        if acks is None or not self._is_silent(now_us):
            return ""
        if acks.instance and _is_recent(self._acked_us, now_us):
            todo = "Its disk may be full"
        elif acks.instance and _is_recent(self._asked_us, now_us):
            todo = f"If it has begun anew, name it again: `zbank acks {name} {acks.replica}`"
        else:
            todo = f"Start it. If it is lost for good: `zbank acks {name} REPLICA`, or `zbank acks {name} none`"
        return f"stopped: {self._why(acks, now_us)}. {todo}"

    def _why(self, acks: AckedBy, now_us: int) -> str:
        if not acks.instance:
            what = "was never here"
        elif _is_recent(self._acked_us, now_us):
            what = "is there and takes no more rows"
        elif _is_recent(self._asked_us, now_us):
            what = "has not come so far, or has begun anew"
        else:
            what = "does not answer"
        return f"its synchronous replica {acks.replica} {what}"

    def _is_silent(self, now_us: int) -> bool:
        return now_us - self._heard_us > SILENT_US


def _is_recent(us: int | None, now_us: int) -> bool:
    return us is not None and now_us - us <= SILENT_US
