"""What the conductor of a drill and the actors say to each other. It is no part of the bank's wire protocol.

One JSON object a line, over a UNIX domain socket on which the conductor listens: actors that were started with `--drills`
look for it, and connect. While the connection stands the conductor's gates hold; when it ends, for whatever reason, all
that was held goes on its way and the actor's time is the real one again.
"""

from __future__ import annotations

from pathlib import Path

from msgspec import Struct

from zbank.errors import ZbankError

SOCKET_NAME = "drill.sock"  #: beside the data files
LOCK_NAME = "drill.lock"
MAX_PATH_BYTES = 100  #: systems allow 103 to 107
CLIENT_NAME = "client"  #: who is not an actor


class DrillFault(ZbankError):
    """A drill cannot begin, or did not go as it should; says what happened instead."""

    code = "drill"


class ForcedRow(Struct, frozen=True):
    """A journal row about the transfer, on disk."""

    seq: int
    epoch: int
    kind: str  #: as in the journal
    txn: str  #: the attempt it belongs to; "" = none


class Parcel(Struct, frozen=True):
    """A message about the transfer, held or gone."""

    item: int  #: to name it by in Release and Drop; 0 = it is not held, it has gone on
    kind: str  #: the message's tag
    peer: str  #: whom it is for or whom it is from
    detail: str  #: what matters of its content, for people


# --- the conductor to an actor ---


class Command(Struct, frozen=True, tag_field="do"):
    """Base of all commands."""


class Arm(Command, frozen=True, tag="arm"):
    """Tell of everything about this id; with `hold` also hold every message about it, coming and going."""

    id: str  #: hexadecimal
    hold: bool


class Go(Command, frozen=True, tag="go"):
    """Take office: an actor that starts while there is a conductor waits for this."""


class Freeze(Command, frozen=True, tag="freeze"):
    """The actor's timers stand still."""


class Thaw(Command, frozen=True, tag="thaw"):
    """Time goes on; where a message is named, only until one like it is held on its way out."""

    kind: str = ""
    peer: str = ""


class Release(Command, frozen=True, tag="release"):
    """Let a held message go: one that came is decided, one that leaves is sent."""

    item: int


class Drop(Command, frozen=True, tag="drop"):
    """A held message is lost."""

    item: int


class Cut(Command, frozen=True, tag="cut"):
    """Lose all messages from and to this actor, for so long by the drill's time. Heartbeats still pass."""

    peer: str
    duration_ms: int


class Inspect(Command, frozen=True, tag="inspect"):
    """Tell what you know of the id, and your journal rows about it after row `since_seq`."""

    id: str
    since_seq: int


class Die(Command, frozen=True, tag="die"):
    """End at once, as by kill -9."""


AnyCommand = Arm | Go | Freeze | Thaw | Release | Drop | Cut | Inspect | Die


# --- an actor to the conductor ---


class Event(Struct, frozen=True, tag_field="event"):
    """Base of all events."""


class Present(Event, frozen=True, tag="present"):
    """First on every connection: who is there."""

    name: str
    role: str
    instance: str  #: of its store, hexadecimal
    starting: bool  #: it waits for Go before it takes office


class InOffice(Event, frozen=True, tag="in_office"):
    """The actor serves, with this epoch; its journal ends at `seq`."""

    epoch: int
    seq: int


class Arrived(Event, frozen=True, tag="arrived"):
    """A message about the id has come in."""

    at_us: int  #: real monotonic time of this machine
    parcel: Parcel


class Turned(Event, frozen=True, tag="turned"):
    """A turn is over: what it forced about the id, and what is to leave because of it."""

    at_us: int  #: real monotonic time of this machine
    cause: int  #: the item that was released for it; 0 = time, a registration, or a message that was not held
    rows: tuple[ForcedRow, ...]
    parcels: tuple[Parcel, ...]


class Lost(Event, frozen=True, tag="lost"):
    """A message died of a cut."""

    parcel: Parcel
    incoming: bool


class Healed(Event, frozen=True, tag="healed"):
    """The cut is over."""


class Knowledge(Event, frozen=True, tag="knowledge"):
    """The answer to Inspect."""

    epoch: int
    knows: tuple[str, ...]
    rows: tuple[ForcedRow, ...]


AnyEvent = Present | InOffice | Arrived | Turned | Lost | Healed | Knowledge


def socket_path(data: Path) -> str:
    """Where the conductor of the actors in this data folder listens; the shorter of the absolute and relative forms.

    Raises DrillFault when it is too long for a socket.
    """
    path = data.absolute() / SOCKET_NAME
    forms = [str(path)]
    if path.is_relative_to(Path.cwd()):
        forms.append(str(path.relative_to(Path.cwd())))
    shortest = min(forms, key=len)
    if len(shortest.encode()) > MAX_PATH_BYTES:
        raise DrillFault(
            f"{shortest} is too long for a socket ({MAX_PATH_BYTES} bytes at most): "
            "drills need a data folder with a shorter path (--data)"
        )
    return shortest
