"""A small disk of its own under one actor, which can be filled to the last page and freed again."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from zbank.errors import ZbankError

ROOMY_BYTES = 8 << 30  #: a limit, no memory: a tmpfs takes only what is written
TRIES = 50  #: the actor goes on writing while its disk is made smaller


class NoDisk(ZbankError):
    """No small disk can be had here; says why."""

    code = "no_disk"


class SmallDisk:
    """A tmpfs at `place`. Close it: it stays mounted beyond the process."""

    def __init__(self, place: Path) -> None:
        """Raises NoDisk."""
        if sys.platform != "linux":
            raise NoDisk("needs Linux")
        if os.geteuid() != 0:
            raise NoDisk("not root")
        self.place = place
        place.mkdir()
        try:
            problem = self._mount(f"size={ROOMY_BYTES}", "zbank-chaos")
        except BaseException:  # told to stop in that moment
            self.close()
            raise
        if problem:
            place.rmdir()
            raise NoDisk(f"cannot mount: {problem}")

    def fill(self) -> None:
        """Leave no page free: the disk is made as small as what is on it. Raises NoDisk when that does not work."""
        problem = ""
        for _ in range(TRIES):
            figures = os.statvfs(self.place)
            used_bytes = (figures.f_blocks - figures.f_bfree) * figures.f_frsize
            problem = self._mount(f"remount,size={max(used_bytes, figures.f_frsize)}")
            if not problem:
                return
        raise NoDisk(f"cannot be filled: {problem}")

    def free(self) -> None:
        """Room again. Raises NoDisk."""
        problem = self._mount(f"remount,size={ROOMY_BYTES}")
        if problem:
            raise NoDisk(f"cannot be freed: {problem}")

    def close(self) -> None:
        """Unmount it; what is on it is lost."""
        subprocess.run(["umount", "--lazy", str(self.place)], capture_output=True, check=False)

    def _mount(self, options: str, source: str = "") -> str:
        """Why it did not work; "" when it did."""
        new = ["-t", "tmpfs"] if source else []
        command = ["mount", *new, "-o", options, *([source] if source else []), str(self.place)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        except OSError as error:
            return str(error)
        return " ".join(done.stderr.split()) or f"exit code {done.returncode}" if done.returncode else ""
