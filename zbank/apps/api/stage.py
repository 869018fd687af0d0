"""Plays drills for those who watch over HTTP: one at a time, in a thread of its own with a client of its own.

A drill is led from the bank's own machine: its conductor listens on a socket in the data folder (see `zbank.apps.drills`).
"""

from __future__ import annotations

import logging
import threading
import time
from pathlib import Path
from typing import Any

import msgspec

from zbank import Client
from zbank.apps.api.problems import Problem
from zbank.apps.drills.conductor import Conductor
from zbank.apps.drills.script import Drill
from zbank.apps.drills.session import play
from zbank.apps.drills.shown import Result
from zbank.apps.drills.stories import DRILLS
from zbank.errors import ZbankError
from zbank.protocol.messages import StatusInfo

STEP_WAIT_S = 600.0  #: a play that nobody steps for so long ends by itself
END_S = 20.0  #: a step that is being played has so long to come to its end, and what it left under way to settle
LOOK_S = 0.2

RUNNING = "running"
WAITING = "waiting"  #: for the next step to be asked for
ENDED = "ended"
FAILED = "failed"

log = logging.getLogger("zbank.rest")


class _Ended(Exception):
    """The play was told to end, or forgotten."""


class _Play:
    """One play, from its beginning to its end. `told` only grows."""

    def __init__(self, story: Drill, *, in_steps: bool) -> None:
        self.story = story
        self.in_steps = in_steps
        self.state = RUNNING
        self.told: list[dict[str, Any]] = []
        self.problem: str | None = None
        self.end = threading.Event()
        self._step = threading.Event()  #: the next step was asked for
        self.thread: threading.Thread | None = None

    def step(self) -> None:
        """Let the next step be played."""
        self.state = RUNNING
        self._step.set()

    def pause(self, conductor: Conductor) -> None:
        """Between two steps: wait until the next one is asked for. Raises _Ended."""
        if self.in_steps and not self.end.is_set():
            self._step.clear()
            self.state = WAITING
            end_s = time.monotonic() + STEP_WAIT_S
            while not (self._step.is_set() or self.end.is_set()):
                conductor.pump()  # the actors are heard meanwhile
                if time.monotonic() > end_s:
                    self.problem = f"nobody asked for the next step for {STEP_WAIT_S / 60:g} minutes"
                    raise _Ended
            self.state = RUNNING
        if self.end.is_set():
            raise _Ended

    def run(self, endpoint: str, cluster: str, data: Path) -> None:
        """Play. Whatever goes wrong becomes the play's problem, never the bridge's."""
        went_right = False
        try:
            with Client(endpoint, cluster=cluster, name="drill", keys="") as bank:
                try:
                    for told in play(self.story, bank, endpoint, data, self.pause):
                        self.told.append(msgspec.to_builtins(told))
                        went_right = isinstance(told, Result) and told.ok
                    if not went_right:
                        self.problem = "the drill did not end as it should"
                except _Ended:  # no conductor any more: all gates are open
                    self.problem = self.problem or "ended before its last step: the bank goes on by itself"
                    went_right = True
                    _wait_for_rest(bank)
        except ZbankError as error:
            self.problem = error.detail
        except Exception:
            log.exception("the drill %s broke off", self.story.name)
            self.problem = "the drill broke off: the bridge's log says why"
        finally:
            self.state = ENDED if went_right else FAILED


def _wait_for_rest(bank: Client) -> None:
    """Until what the play left under way is over: the next one counts the money."""
    end_s = time.monotonic() + END_S
    while time.monotonic() < end_s:
        if all(isinstance(actor, StatusInfo) and not actor.in_flight for actor in bank.status()):
            return
        time.sleep(LOOK_S)


class Stage:
    """Where drills are played. Any thread may ask."""

    def __init__(self, endpoint: str, cluster: str, data: Path) -> None:
        self._endpoint, self._cluster, self._data = endpoint, cluster, data
        self._lock = threading.Lock()
        self._play: _Play | None = None

    def play(self, name: str, *, in_steps: bool) -> None:
        """Begin a drill. Raises Problem `drill_not_found`, `drill_running`."""
        story = DRILLS.get(name)
        if story is None:
            raise Problem("drill_not_found", f"there is no drill {name}: GET /v1/drills lists them")
        with self._lock:
            if self._play is not None and self._play.state in (RUNNING, WAITING):
                raise Problem("drill_running", f"the drill {self._play.story.name} is being played: end it first")
            self._play = begun = _Play(story, in_steps=in_steps)
            arguments = (self._endpoint, self._cluster, self._data)
            begun.thread = threading.Thread(target=begun.run, args=arguments, name="zbank-drill", daemon=True)
            begun.thread.start()

    def shown(self, after: int = 0) -> dict[str, Any]:
        """What was told from the `after`-th on. Raises Problem `drill_not_found` while nothing was ever played."""
        play = self._the_play()
        state, problem = play.state, play.problem  # before what is told: an ended play has told it all
        told = play.told[after:]
        return {
            "name": play.story.name,
            "title": play.story.title,
            "steps": play.story.count,
            "state": state,
            "told": told,
            "next": after + len(told),
            "problem": problem,
        }

    def step(self) -> None:
        """Let a play that waits go on; nothing for one that does not. Raises Problem `drill_not_found`."""
        with self._lock:
            play = self._the_play()
            if play.state == WAITING:
                play.step()

    def end(self) -> None:
        """End the play, if it is not over; it is when this comes back. Raises Problem `drill_not_found`."""
        with self._lock:
            play = self._the_play()
            play.end.set()
        if play.thread is not None:
            play.thread.join(END_S)

    def close(self) -> None:
        """End what is played."""
        if self._play is not None:
            self.end()

    def _the_play(self) -> _Play:
        if self._play is None:
            raise Problem("drill_not_found", "no drill was played yet: POST /v1/drills/{name}/play begins one")
        return self._play
