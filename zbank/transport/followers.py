"""Those who follow an actor's journal by asking it for rows; the synchronous one lets its effects out (PROTOCOL R1, R3).

Part of the engine's turn: the gate keeps what may not leave yet, and who waits for rows is answered once there are some.
"""

from __future__ import annotations

import logging
from collections.abc import Collection

from zbank.protocol.codec import GENESIS
from zbank.protocol.gate import Gate
from zbank.protocol.machine import Address, Effect, Machine, Sender
from zbank.protocol.messages import COORDINATOR, AckedBy, Fault, GetRows, Held
from zbank.storage.rows import rows_page
from zbank.storage.sqlite import JournalStore

ANSWER_AFTER_US = 200_000  #: with nothing, to who waits for rows: so it knows that it is level

ALARM = "acks"

log = logging.getLogger("zbank")


class Followers:
    """What the engine keeps of them. All times are monotonic microseconds."""

    def __init__(self, store: JournalStore, now_us: int) -> None:
        self._store = store
        self._gate = Gate(now_us)
        self._waiting: dict[Address, tuple[Sender, int, GetRows, int]] = {}  #: for rows: who, envelope, question, since when

    def see(self, machine: Machine, now_us: int) -> Fault | None:
        """Why the actor takes nothing on now; None when it does. An alarm and the log say so while the replica is away."""
        name = self._store.identity.name
        self._gate.heed(machine.acks, now_us)
        code = "out_of_office" if machine.role == COORDINATOR else "branch_unavailable"
        stopped = self._gate.stopped(machine.acks, name, code, now_us)
        if stopped is None or stopped.code == "busy":
            if machine.alarms.pop(ALARM, ""):
                log.warning("%s goes on: its synchronous replica is there", name)
        elif ALARM not in machine.alarms:
            machine.alarms[ALARM] = stopped.detail
            cure = f"if it is lost for good: `zbank acks {name} none`, or another one"
            log.error("%s. If it took this one's place, stop this one; %s", stopped.detail, cure)
        return stopped

    def ask(self, sender: Sender, n: int, message: GetRows, acks: AckedBy | None, now_us: int) -> list[Effect]:
        """A replica asks for rows, and may acknowledge others by that: the answer, unless it has to wait."""
        held = message.held
        its = acks if acks is not None and sender.caller == acks.replica else None  # by its key, where there are keys
        if held is not None and its is not None and held.instance == its.instance and self._has(held):
            self._gate.heed(its, now_us)
            self._gate.acked(held.seq, now_us)
        up_to = self._up_to(sender, acks)
        if held is not None and up_to <= message.after <= self._store.seq:
            self._waiting[sender.address] = (sender, n, message, now_us)
            return []
        return [Effect(sender.address, n, rows_page(self._store, message, up_to))]

    def _up_to(self, sender: Sender, acks: AckedBy | None) -> int:
        """The others get what is acknowledged: else they might have what the one that takes over has not."""
        return self._store.seq if acks is None or sender.caller == acks.replica else self._gate.acked_seq

    def _has(self, held: Held) -> bool:
        """The row is the same here: else it is another's journal that the replica has."""
        if held.seq == self._store.seq:
            return held.chain == self._store.chain
        row = self._store.row(held.seq) if held.seq else None
        return held.chain == (GENESIS if row is None and not held.seq else b"" if row is None else row.chain)

    def let_out(self, acks: AckedBy | None, effects: Collection[Effect], now_us: int) -> list[Effect]:
        """What may leave after a turn: of its effects, of those that wait, and rows for who waits for some."""
        self._gate.heed(acks, now_us)
        leaving = self._gate.let_out(acks, self._store.seq, effects)
        for address, (sender, n, message, since_us) in list(self._waiting.items()):
            up_to = self._up_to(sender, acks)
            if message.after < up_to or now_us - since_us >= ANSWER_AFTER_US:
                del self._waiting[address]
                leaving.append(Effect(address, n, rows_page(self._store, message, up_to)))
        return leaving
