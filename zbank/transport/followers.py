"""Those who follow an actor's journal by asking it for rows; the synchronous one lets its effects out (PROTOCOL R1, R3).

Part of the engine's turn: the gate keeps what may not leave yet, and who waits for rows is answered once there are some.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable
from functools import partial

from zbank.protocol.codec import GENESIS
from zbank.protocol.gate import Gate
from zbank.protocol.machine import Address, Effect, Machine, Sender
from zbank.protocol.messages import (
    COORDINATOR,
    OUT_OF_OFFICE,
    REPLICA,
    AckedBy,
    AnyMessage,
    Commit,
    Fault,
    GetRows,
    Held,
    Inquiry,
    Outcome,
    RegisterReplica,
)
from zbank.storage.rows import rows_page
from zbank.storage.sqlite import JournalStore
from zbank.transport.looks import size_of

MAX_ASKERS = 16  #: that wait for rows
ANSWER_AFTER_US = 200_000  #: with nothing, to who waits for rows: so it knows that it is level

TURNED_AWAY = (RegisterReplica, Inquiry)  #: what a coordinator answers by saying so, when it serves nothing

ALARM = "acks"

log = logging.getLogger("zbank")


class Followers:
    """What the engine keeps of them. All times are monotonic microseconds."""

    def __init__(self, store: JournalStore, now_us: int) -> None:
        self._store = store
        self._gate = Gate(now_us)
        self.stopped = False  #: for want of the synchronous replica
        self._acks: AckedBy | None = None  #: by whom what leaves was acknowledged last
        self._waiting: dict[Address, tuple[Sender, int, GetRows, int]] = {}  #: for rows: who, envelope, question, since when

    def see(self, machine: Machine, now_us: int) -> Fault | None:
        """Why the actor takes nothing on now; None when it does. An alarm and the log say so while the replica is away."""
        name = self._store.identity.name
        self._gate.heed(machine.acks, now_us)
        code = OUT_OF_OFFICE if machine.role == COORDINATOR else "branch_unavailable"
        fault = self._gate.stopped(machine.acks, name, code, now_us)
        self.stopped = fault is not None and fault.code != "busy"
        alarm, before = self._gate.alarm(machine.acks, name, now_us), machine.alarms.pop(ALARM, "")
        if alarm:
            if machine.role == COORDINATOR:
                alarm += ". If it took this one's place, stop this one"
            machine.alarms[ALARM] = alarm
            if alarm != before:
                log.error("%s has %s", name, alarm)
        elif before:
            there = "its synchronous replica is there" if machine.acks is not None else "it stands on its own disk alone"
            log.warning("%s goes on: %s", name, there)
        return fault

    def turned_away(self, sender: Sender, n: int, machine: Machine, fault: Fault | None) -> Collection[Effect]:
        """What a coordinator that is behind, or has stopped by this fault, tells a branch in doubt, or a replica but the one it
        waits for (it was heard of, and may be named): there may be a successor, and who is answered would never look for it."""
        if machine.role != COORDINATOR:
            return ()
        acks = machine.acks
        is_other = acks is not None and sender.caller != acks.replica
        why = machine.closed or (fault if self.stopped and is_other else None)
        return () if why is None else (Effect(sender.address, n, why),)

    def ask(self, sender: Sender, n: int, message: GetRows, acks: AckedBy | None, now_us: int) -> list[Effect]:
        """A replica asks for rows, and may acknowledge others by that: the answer, unless it has to wait."""
        held = message.held
        its = acks if acks is not None and sender.caller == acks.replica else None  # by its key, where there are keys
        acknowledges = held is not None and its is not None and held.instance == its.instance and self._has(held)
        if held is not None and its is not None and acknowledges:
            self._gate.heed(its, now_us)
            self._gate.acked(held.seq, held.of_us, now_us)
        elif its is not None:
            self._gate.asked(now_us)
        if acks is not its and not self._gate.acked_seq:
            return []  # what was told to others is not known: it would believe that it has all of that
        if acknowledges and message.after == self._store.seq:
            if len(self._waiting) >= MAX_ASKERS:  # it has called again and again, or others under its name have
                del self._waiting[next(iter(self._waiting))]
            *_, since_us = self._waiting.get(sender.address, (now_us,))  # asked again, it waits no longer
            self._waiting[sender.address] = (sender, n, message, since_us)
            return []
        return [Effect(sender.address, n, rows_page(self._store, message, self._up_to(sender, acks), now_us))]

    def _up_to(self, sender: Sender, acks: AckedBy | None) -> int:
        """The others get what is acknowledged: else they might have what the one that takes over has not."""
        return self._store.seq if acks is None or sender.caller == acks.replica else self._gate.acked_seq

    def _has(self, held: Held) -> bool:
        """The row is the same here: else it is another's journal that the replica has."""
        if held.seq == self._store.seq:
            return held.chain == self._store.chain
        if not held.seq:
            return held.chain == GENESIS
        row = self._store.row(held.seq)
        return row is not None and held.chain == row.chain

    def let_out(
        self,
        acks: AckedBy | None,
        effects: Collection[Effect],
        batch: Iterable[tuple[Sender, int, AnyMessage]],
        withholds: Callable[[bytes], bool],
        now_us: int,
    ) -> list[Effect]:
        """What may leave after the turn of a batch: of its effects, of those that wait, and rows for who waits for some. The
        synchronous replica itself is answered: it holds rows, not promises, and has to get in before all else can leave."""
        self._gate.heed(acks, now_us)
        if acks != self._acks:  # there is another word, and what waits for the last replica may have to wait for more now
            self._acks = acks
            keep = partial(_without, withholds)
            effects = keep(effects)
            self._gate.sift(keep)
        its: list[Effect] = []
        cost = 0
        if acks is not None:
            addresses = {sender.address for sender, _, _ in batch if (sender.role, sender.caller) == (REPLICA, acks.replica)}
            its = [effect for effect in effects if effect.to in addresses] if addresses else []
            effects = [effect for effect in effects if effect.to not in addresses] if addresses else effects
            cost = sum(size_of(effect.message) for effect in effects)
        leaving = its + self._gate.let_out(acks, self._store.seq, effects, cost)
        for address, (sender, n, message, since_us) in list(self._waiting.items()):
            up_to = self._up_to(sender, acks)  # whoever is the synchronous one no more may still wait
            if message.after < up_to or now_us - since_us >= ANSWER_AFTER_US:
                del self._waiting[address]
                leaving.append(Effect(address, n, rows_page(self._store, message, up_to, now_us)))
        return leaving


def _without(withholds: Callable[[bytes], bool], effects: Collection[Effect]) -> list[Effect]:
    """Without what is said of commits that may be told to nobody yet."""
    told = (Commit, Outcome)
    return [effect for effect in effects if not (isinstance(effect.message, told) and withholds(effect.message.id))]
