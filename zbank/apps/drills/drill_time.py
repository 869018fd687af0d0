"""The time of an actor in a drill: it can stand still while people think, and is the real time again afterwards."""

from __future__ import annotations

from zbank.clock import Clock, Now


class DrillClock(Clock):
    """A clock behind the real one by all the time that it stood still.

    Both of its clocks stand and fall behind together: to the actor's Timekeeper nothing jumps against anything.
    """

    def __init__(self, real: Clock) -> None:
        self._real = real
        self._behind_us = 0
        self._standing: Now | None = None  #: the reading at which it stands still

    def now(self) -> Now:
        """Read both clocks."""
        if self._standing is not None:
            return self._standing
        wall_us, mono_us = self._real.now()
        return Now(wall_us - self._behind_us, mono_us - self._behind_us)

    def real_us(self) -> int:
        """The machine's monotonic time, whatever the drill does."""
        return self._real.now().mono_us

    def freeze(self) -> None:
        """Stand still from now on."""
        self._standing = self.now()

    def thaw(self) -> None:
        """Go on from where it stands."""
        if self._standing is not None:
            self._behind_us = self._real.now().mono_us - self._standing.mono_us
            self._standing = None

    def reset(self) -> None:
        """Be the real time again: what was due meanwhile is due at once."""
        self._standing = None
        self._behind_us = 0
