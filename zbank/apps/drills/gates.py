"""Which messages an actor in a drill holds back, loses or lets through. No sockets and no store here.

A gate is about one transfer's id. Messages about other ids, reads, heartbeats and registrations never meet one.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from zbank.apps.drills.control import CLIENT_NAME, AnyEvent, Arrived, Lost, Parcel
from zbank.protocol.machine import Address, Effect
from zbank.protocol.messages import (
    ABORTED,
    COMMITTED,
    Ack,
    AnyMessage,
    Fault,
    Forward,
    Outcome,
    Position,
    Prepare,
    Vote,
)
from zbank.transport.engine import Incoming
from zbank.transport.looks import READS

_POSITIONED = (Vote, Ack)  #: what a Position goes before


class HeldIn(Struct):
    """A message that has come and is not decided yet."""

    id: bytes  #: of the transfer
    incoming: Incoming


class HeldOut(Struct):
    """A message whose turn is forced and that has not left, with the Position that belongs before it."""

    id: bytes  #: of the transfer
    effects: list[Effect]


class Gates:
    """The gates of one actor."""

    def __init__(self) -> None:
        self.armed: dict[bytes, bool] = {}  #: by id: whether messages about it are held, or only told of
        self.cut_peer = ""  #: all messages from and to this actor are lost
        self.events: list[AnyEvent] = []  #: to be told
        self._held: dict[int, HeldIn | HeldOut] = {}  #: by item, oldest first
        self._last_item = 0
        self._names: dict[Address, str] = {}  #: of actors that are answered by their connection

    def come(self, batch: Sequence[Incoming], real_us: int) -> list[Incoming]:
        """What of the messages that have come may be decided now."""
        if not self.armed and not self.cut_peer:
            return list(batch)
        let: list[Incoming] = []
        for incoming in batch:
            sender, _, message = incoming
            id = _id_of(message)
            if self.cut_peer and sender.caller == self.cut_peer:
                self._lose(message, self.cut_peer, incoming=True)
            elif id not in self.armed:
                let.append(incoming)
            else:
                if sender.caller:
                    self._names[sender.address] = sender.caller
                item = self._hold(HeldIn(id, incoming)) if self.armed[id] else 0
                self.events.append(Arrived(real_us, _parcel(item, message, sender.caller or CLIENT_NAME)))
                if not item:
                    let.append(incoming)
        return let

    def leave(self, effects: Sequence[Effect], about: bytes) -> tuple[list[Effect], list[Parcel]]:
        """What of a turn's messages may leave now, and those about armed ids; `about` is the id that the turn was about."""
        if not self.armed and not self.cut_peer:
            return list(effects), []
        positions = {effect.to: effect for effect in effects if type(effect.message) is Position}
        let: list[Effect] = []
        parcels: list[Parcel] = []
        for effect in effects:
            message = effect.message
            if type(message) is Position:
                continue
            id = _id_of(message) or about
            if self.cut_peer and effect.to == self.cut_peer:
                self._lose(message, self.cut_peer, incoming=False)
                continue
            item = 0
            if self.armed.get(id, False):
                before = [positions[effect.to]] if isinstance(message, _POSITIONED) and effect.to in positions else []
                item = self._hold(HeldOut(id, [*before, effect]))
            else:
                let.append(effect)
            if id in self.armed:
                parcels.append(_parcel(item, message, self._name_of(effect.to)))
        wanted = {effect.to for effect in let if isinstance(effect.message, _POSITIONED)}
        return [position for to, position in positions.items() if to in wanted] + let, parcels

    def take(self, item: int) -> HeldIn | HeldOut | None:
        """A held message, held no longer; None when there is none of that number."""
        return self._held.pop(item, None)

    def take_all(self, id: bytes | None = None) -> tuple[list[Incoming], list[Effect]]:
        """All that is held (about this id), oldest first: what came, and what was to leave."""
        came: list[Incoming] = []
        leaving: list[Effect] = []
        for item, held in list(self._held.items()):
            if id is not None and held.id != id:
                continue
            del self._held[item]
            if isinstance(held, HeldIn):
                came.append(held.incoming)
            else:
                leaving += held.effects
        return came, leaving

    def _name_of(self, address: Address) -> str:
        return address if isinstance(address, str) else self._names.get(address, CLIENT_NAME)

    def _hold(self, held: HeldIn | HeldOut) -> int:
        self._last_item += 1
        self._held[self._last_item] = held
        return self._last_item

    def _lose(self, message: AnyMessage, peer: str, *, incoming: bool) -> None:
        self.events.append(Lost(_parcel(0, message, peer), incoming))


def _id_of(message: AnyMessage) -> bytes:
    """The transfer that a message is about; b"" for all that a drill does not touch."""
    if isinstance(message, READS):
        return b""
    if isinstance(message, Prepare | Forward):
        return message.transfer.id
    return getattr(message, "id", b"")


def _parcel(item: int, message: AnyMessage, peer: str) -> Parcel:
    return Parcel(item, str(type(message).__struct_config__.tag), peer, _detail(message))


def _detail(message: AnyMessage) -> str:
    """What matters of a message, in a word or two."""
    if isinstance(message, Vote):
        return f"{message.answer} {message.refusal.code}" if message.refusal else message.answer
    if isinstance(message, Outcome):
        if message.status == ABORTED and message.refusal is not None:
            return f"{message.status} {message.refusal.code}"
        if message.status == COMMITTED and not message.applied:
            return f"{message.status}, still being applied"
        return f"{message.status}, as before" if message.replayed else message.status
    if isinstance(message, Fault):
        return f"{message.code}: {message.detail}"
    txn = getattr(message, "txn", None)
    return "" if txn is None else str(txn)
