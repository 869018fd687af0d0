"""The conductor of a drill: hears every actor, and says what they hold, let go and lose.

It knows nothing of any drill: `play` tells it what to do. Its socket is the only thing that keeps the gates shut; when it
ends, however it ends, the bank goes on by itself.
"""

from __future__ import annotations

import fcntl
import os
import select
import socket
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Self

import msgspec

from zbank.apps.drills.control import (
    LOCK_NAME,
    AnyEvent,
    Arm,
    Arrived,
    Command,
    DrillFault,
    Drop,
    Go,
    Healed,
    InOffice,
    Inspect,
    Knowledge,
    Lost,
    Parcel,
    Present,
    Release,
    Turned,
    socket_path,
)
from zbank.apps.drills.line import Line, LineClosed

STEP_LIMIT_S = 20.0  #: for anything that should happen at once
PRESENT_LIMIT_S = 2.0  #: from a connection to its first line
TURN_S = 0.2
BACKLOG = 64

_events = msgspec.json.Decoder(AnyEvent)


class ActorAt:
    """One actor as the conductor sees it, over all its starts."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.line: Line[AnyEvent] | None = None
        self.role = ""
        self.instance = ""
        self.waits_for_go = False
        self.epoch = 0  #: of the last office; 0 while it has none
        self.seq = 0  #: of its journal when the drill began
        self.starts = 0
        self.came: list[Parcel] = []  #: held, not decided
        self.leaving: list[Parcel] = []  #: held, forced, not sent
        self.turns: dict[int, Turned] = {}  #: by the item that was released for it
        self.knowledge: Knowledge | None = None
        self.lost: list[Lost] = []
        self.healed = False

    def forget_held(self) -> None:
        """Its process is gone, and with it all that it held."""
        self.came, self.leaving, self.turns = [], [], {}


class Conductor:
    """All actors of one data folder. A context manager: leaving it opens every gate."""

    def __init__(self, data: Path) -> None:
        """Listen in the data folder. Raises DrillFault when another conductor is at work, or the folder is not there."""
        self._path = socket_path(data)
        self.actors: dict[str, ActorAt] = {}
        self.log: list[tuple[str, Arrived | Turned]] = []  #: what happened, with the actor's name, as it was heard
        self.kept_down: set[str] = set()  #: actors that may not take office
        self._greeting: list[Command] = []  #: what an actor is told first
        self._lock = _locked(data / LOCK_NAME)
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            Path(self._path).unlink(missing_ok=True)  # of one that was killed: the lock is ours
            before = os.umask(0o177)
            try:
                self._listener.bind(self._path)
            finally:
                os.umask(before)
            self._listener.listen(BACKLOG)
        except OSError as error:
            self.close()
            raise DrillFault(f"cannot listen at {self._path}: {error.strerror}") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Open all gates: every actor notices that its line is closed."""
        for actor in self.actors.values():
            if actor.line is not None:
                actor.line.close()
                actor.line = None
        self._listener.close()
        Path(self._path).unlink(missing_ok=True)
        self._lock.close()

    # --- hearing ---------------------------------------------------------------------------------------------------

    def pump(self, wait_s: float = TURN_S, also: Sequence[int] = ()) -> bool:
        """Hear what the actors say, once; True when one of the open files in `also` can be read."""
        lines = {actor.line.fileno(): actor for actor in self.actors.values() if actor.line is not None}
        readable, _, _ = select.select([self._listener.fileno(), *lines, *also], [], [], wait_s)
        for ready in readable:
            if ready == self._listener.fileno():
                self._welcome()
            elif ready in lines:
                self._listen_to(lines[ready])
        return any(file in readable for file in also)

    def wait(self, condition: Callable[[], bool], what: str, limit_s: float = STEP_LIMIT_S) -> None:
        """Hear the actors until the condition holds; raises DrillFault, with what did not come, when it does not."""
        end_s = time.monotonic() + limit_s
        while not condition():
            if time.monotonic() > end_s:
                raise DrillFault(f"{what} did not come within {limit_s:g} s{self._instead()}")
            self.pump()

    def _instead(self) -> str:
        """What the actors hold now, for the sentence about what did not come."""
        held: list[str] = []
        for actor in self.actors.values():
            held += [f"{parcel.kind} from {parcel.peer} at {actor.name}" for parcel in actor.came]
            held += [f"{parcel.kind} for {parcel.peer} at {actor.name}" for parcel in actor.leaving]
        away = [actor.name for actor in self.actors.values() if actor.line is None]
        notes = [f"held: {', '.join(held)}"] if held else ["no message is held"]
        notes += [f"not there: {', '.join(away)}"] if away else []
        return f"; {'; '.join(notes)}"

    def _welcome(self) -> None:
        connection, _ = self._listener.accept()
        line: Line[AnyEvent] = Line(connection, _events)
        try:
            said = line.receive(PRESENT_LIMIT_S)
        except LineClosed:
            said = []
        present = said[0] if said else None
        if not isinstance(present, Present):  # no actor
            line.close()
            return
        actor = self.actors.setdefault(present.name, ActorAt(present.name))
        if actor.line is not None:
            actor.line.close()
        actor.forget_held()
        actor.line, actor.role, actor.instance = line, present.role, present.instance
        actor.starts += 1
        actor.epoch = 0
        for command in self._greeting:
            self._say(actor, command)
        actor.waits_for_go = present.starting
        if present.starting and present.name not in self.kept_down:
            self.let_start(present.name)
        for event in said[1:]:
            self._heard(actor, event)

    def _listen_to(self, actor: ActorAt) -> None:
        assert actor.line is not None
        try:
            for event in actor.line.receive():
                self._heard(actor, event)
        except LineClosed:
            actor.line.close()
            actor.line = None
            actor.epoch = 0
            actor.forget_held()

    def _heard(self, actor: ActorAt, event: AnyEvent) -> None:
        match event:
            case InOffice():
                actor.epoch = event.epoch
                actor.seq = actor.seq or event.seq
            case Arrived():
                self.log.append((actor.name, event))
                if event.parcel.item:
                    actor.came.append(event.parcel)
            case Turned():
                self.log.append((actor.name, event))
                actor.leaving += [parcel for parcel in event.parcels if parcel.item]
                if event.cause:
                    actor.turns[event.cause] = event
            case Knowledge():
                actor.knowledge = event
            case Lost():
                actor.lost.append(event)
            case Healed():
                actor.healed = True
            case Present():
                pass

    # --- saying ----------------------------------------------------------------------------------------------------

    def _say(self, actor: ActorAt, command: Command) -> None:
        if actor.line is not None:
            with suppress(LineClosed):  # its end is heard at the next look
                actor.line.send(command)

    def say(self, name: str, command: Command) -> None:
        """Tell one actor."""
        self._say(self.actors[name], command)

    def say_all(self, command: Command) -> None:
        """Tell every actor that is there."""
        for actor in self.actors.values():
            self._say(actor, command)

    def greet_with(self, *commands: Command) -> None:
        """What every actor is told now, and each that starts anew before it takes office."""
        self._greeting = list(commands)
        for command in commands:
            self.say_all(command)

    def let_start(self, name: str) -> None:
        """An actor that waits may take office."""
        self.kept_down.discard(name)
        actor = self.actors[name]
        if actor.waits_for_go:
            actor.waits_for_go = False
            self._say(actor, Go())

    def watch(self, id: bytes) -> None:
        """Hear of everything about an id, from now on."""
        self.say_all(Arm(id.hex(), hold=False))
        self.meet_all(id)

    def meet_all(self, id: bytes) -> None:
        """Until every actor that serves has done what it was told."""
        for actor in list(self.actors.values()):  # meanwhile others may come
            if actor.epoch:
                self.inspect(actor.name, id)

    # --- what a drill does -----------------------------------------------------------------------------------------

    def leaving(self, source: str, kind: str, target: str) -> Parcel | None:
        """The oldest such message that is held on its way out."""
        return _first(self.actors[source].leaving, kind, target)

    def came(self, target: str, kind: str, source: str) -> Parcel | None:
        """The oldest such message that is held on its way in."""
        return _first(self.actors[target].came, kind, source)

    def send(self, source: str, parcel: Parcel) -> None:
        """Let a held message leave."""
        self.actors[source].leaving.remove(parcel)
        self.say(source, Release(parcel.item))

    def lose(self, source: str, parcel: Parcel) -> None:
        """A held message never leaves."""
        self.actors[source].leaving.remove(parcel)
        self.say(source, Drop(parcel.item))

    def decide(self, target: str, parcel: Parcel) -> Turned:
        """Let an actor decide a held message, and force what it has to; gives what came of it."""
        actor = self.actors[target]
        actor.came.remove(parcel)
        self.say(target, Release(parcel.item))
        self.wait(lambda: parcel.item in actor.turns, f"the turn of {target} for {parcel.kind}")
        return actor.turns.pop(parcel.item)

    def inspect(self, name: str, id: bytes) -> Knowledge:
        """What an actor knows of an id, and its rows about it since the drill began."""
        actor = self.actors[name]
        actor.knowledge = None
        self.say(name, Inspect(id.hex(), actor.seq))
        self.wait(lambda: actor.knowledge is not None, f"an answer of {name}")
        assert actor.knowledge is not None
        return actor.knowledge


def _first(parcels: list[Parcel], kind: str, peer: str) -> Parcel | None:
    return next((parcel for parcel in parcels if (parcel.kind, parcel.peer) == (kind, peer)), None)


def _locked(path: Path) -> IO[str]:
    """The lock of the one conductor of a data folder; the system lets it go when the process ends."""
    try:
        lock = path.open("a", encoding="utf-8")
    except OSError as error:
        raise DrillFault(f"{path} cannot be opened: {error.strerror}") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.close()
        raise DrillFault(f"another drill is running with the bank in {path.parent}: wait for its end") from None
    return lock
