"""The turns of an actor that was started with `--drills`: gates before and after each, and a time that can stand still.

The gates are the conductor's, and hold only while it is connected. Everything about other transfers goes its usual way.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
from collections.abc import Callable, Sequence

import msgspec

from zbank.apps.drills.control import (
    AnyCommand,
    Arm,
    Cut,
    Die,
    Drop,
    Event,
    Freeze,
    Go,
    Healed,
    InOffice,
    Inspect,
    Knowledge,
    Present,
    Release,
    Thaw,
    Turned,
    socket_path,
)
from zbank.apps.drills.drill_time import DrillClock
from zbank.apps.drills.gates import Gates, HeldIn
from zbank.apps.drills.knowledge import is_about, knowledge, rows_about, told_row
from zbank.apps.drills.line import Line, LineClosed
from zbank.clock import Clock, Now
from zbank.protocol.fold import Row
from zbank.protocol.machine import Effect, Machine
from zbank.protocol.records import Record
from zbank.storage.sqlite import JournalStore
from zbank.transport.engine import Engine, Incoming

WAIT_S = 0.5  #: between two looks for Go

_commands = msgspec.json.Decoder(AnyCommand)

log = logging.getLogger("zbank")


class DrillEngine(Engine):
    """An engine whose turns a conductor can stop, look into and spoil."""

    def __init__(self, store: JournalStore, build: Callable[[Machine | None], Machine], clock: Clock) -> None:
        """Raises DrillFault when the data folder's path is too long for a socket."""
        self._time = DrillClock(clock)
        self._gates = Gates()
        self._conductor: Line[AnyCommand] | None = None
        self._awaited: Thaw | None = None  #: time goes on until this
        self._cut_until_us = 0
        self._noted: list[tuple[Row, Record]] = []  #: of this turn, not forced yet
        self._forced: list[tuple[Row, Record]] = []  #: not told yet
        self._path = socket_path(store.path.parent)
        self._meet(store, starting=True)
        super().__init__(store, build, self._time)
        self._tell(InOffice(self._epoch, self._seq))

    # --- the turns -------------------------------------------------------------------------------------------------

    def turn(self, batch: Sequence[Incoming], now: Now) -> list[Effect]:
        """As every engine, but for what a gate holds; the time is the drill's."""
        return self._decide(self._gates.come(batch, self._time.real_us()))

    def tick(self, now: Now) -> list[Effect]:
        """Do what the conductor says, then what follows from the drill's time passing."""
        effects = self._hear()
        if self._gates.cut_peer and self._time.now().mono_us >= self._cut_until_us:
            self._gates.cut_peer = ""
            self._tell(Healed())
        return effects + self._after(super().tick(self._time.now()))

    def close(self) -> None:
        """Post, close the store, hang up on the conductor."""
        if self._conductor is not None:
            self._conductor.close()
            self._conductor = None
        super().close()

    def _decide(self, batch: Sequence[Incoming], cause: int = 0, about: bytes = b"") -> list[Effect]:
        effects = super().turn(batch, self._time.now()) if batch else []
        return self._after(effects, cause, about)

    def _after(self, effects: Sequence[Effect], cause: int = 0, about: bytes = b"") -> list[Effect]:
        """What may leave of a turn's messages; the conductor is told what it watches."""
        let, parcels = self._gates.leave(effects, about)
        forced, self._forced = self._forced, []
        events, self._gates.events = self._gates.events, []
        for event in events:
            self._tell(event)
        rows = tuple(
            told_row(row.seq, row.epoch, row.kind, record)
            for row, record in forced
            if any(is_about(record, id) for id in self._gates.armed)
        )
        if cause or rows or parcels:
            self._tell(Turned(self._time.real_us(), cause, rows, tuple(parcels)))
        awaited = self._awaited
        if awaited and any((parcel.kind, parcel.peer) == (awaited.kind, awaited.peer) for parcel in parcels):
            self._awaited = None
            self._time.freeze()
        return let

    def _journal(self, record: Record, at_us: int) -> None:
        super()._journal(record, at_us)
        if self._gates.armed:
            self._noted.append((self._rows[-1], record))

    def _force(self) -> None:
        noted, self._noted = self._noted, []
        super()._force()
        self._forced += noted

    # --- the conductor ---------------------------------------------------------------------------------------------

    def _meet(self, store: JournalStore, *, starting: bool) -> None:
        """Look for a conductor. One that is there when the actor starts says when it may take office."""
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.connect(self._path)
        except OSError:  # there is none: the usual case
            connection.close()
            return
        self._conductor = Line(connection, _commands)
        identity = store.identity
        self._tell(Present(identity.name, identity.role, store.instance.hex(), starting))
        while starting and self._conductor is not None:
            try:
                commands = self._conductor.receive(WAIT_S)
            except LineClosed:
                self._part()
                return
            starting = not any(isinstance(command, Go) for command in commands)
            for command in commands:
                self._obey(command)

    def _tell(self, event: Event) -> None:
        if self._conductor is not None:
            try:
                self._conductor.send(event)
            except LineClosed:
                log.info("the conductor of the drill does not listen")  # its end of the line is met at the next tick

    def _hear(self) -> list[Effect]:
        """Do what the conductor has said; the messages that may leave because of it."""
        if self._conductor is None:
            self._meet(self._store, starting=False)
            self._tell(InOffice(self._epoch, self._seq))
        if self._conductor is None:
            return []
        try:
            commands = self._conductor.receive()
        except LineClosed:
            return self._part()
        return [effect for command in commands for effect in self._obey(command)]

    def _part(self) -> list[Effect]:
        """The conductor is gone: no gate holds any more, and what was held goes on its way."""
        if self._conductor is not None:
            self._conductor.close()
            self._conductor = None
        came, leaving = self._gates.take_all()
        self._gates = Gates()
        self._awaited = None
        self._time.reset()
        return leaving + self._decide(came)

    def _obey(self, command: AnyCommand) -> list[Effect]:
        match command:
            case Arm():
                return self._arm(bytes.fromhex(command.id), command.hold)
            case Freeze():
                self._awaited = None
                self._time.freeze()
            case Thaw():
                self._awaited = command if command.kind else None
                self._time.thaw()
            case Release():
                return self._release(command.item)
            case Drop():
                self._gates.take(command.item)
            case Cut():
                self._gates.cut_peer = command.peer
                self._cut_until_us = self._time.now().mono_us + command.duration_ms * 1000
            case Inspect():
                self._inspect(bytes.fromhex(command.id), command.since_seq)
            case Die():
                os.kill(os.getpid(), signal.SIGKILL)
            case Go():  # it serves already
                pass
        return []

    def _arm(self, id: bytes, hold: bool) -> list[Effect]:
        self._gates.armed[id] = hold
        if hold:
            return []
        came, leaving = self._gates.take_all(id)
        return leaving + self._decide(came)

    def _release(self, item: int) -> list[Effect]:
        held = self._gates.take(item)
        if held is None:
            return []
        if isinstance(held, HeldIn):
            return self._decide([held.incoming], item, held.id)
        return held.effects

    def _inspect(self, id: bytes, since_seq: int) -> None:
        rows = rows_about(self._store, id, since_seq)
        told = tuple(told_row(row.seq, row.epoch, row.kind, record) for row, record in rows)
        self._tell(Knowledge(self._epoch, tuple(knowledge(self.machine, self._store, id, rows)), told))
