"""Two files beside the database: a lock that says who has it open, and a reserve of disk that can be given back.

Neither is what keeps the data right. Against a second writer stands the fence in each commit (PROTOCOL R5); the lock
only turns the usual mistake, starting an actor twice, into a clear error. Against a full disk stands the rollback of
the commit; the reserve only sees to it that afterwards there is room to finish what is already promised (decisions of
prepared txns) and to empty the WAL into the database, which needs room before it gives any.
"""

from __future__ import annotations

import errno
import fcntl
import os
from contextlib import suppress
from pathlib import Path

from zbank.errors import StoreError

NO_ROOM_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_CHUNK_BYTES = 1 << 20


class StoreLock:
    """An exclusive lock on `<file>.lock`, held while its owner lives: the kernel releases it at death."""

    def __init__(self, database: Path) -> None:
        """Take the lock; raises StoreError when another process has it."""
        self._path = database.with_name(database.name + ".lock")
        self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.pread(self._fd, 20, 0).decode("ascii", "replace").strip()
            os.close(self._fd)
            raise StoreError(
                f"{database} is in use by another process{f' (process id {holder})' if holder else ''}: "
                "this actor runs already; stop that process first, or give this one another data directory"
            ) from error
        os.ftruncate(self._fd, 0)
        os.pwrite(self._fd, f"{os.getpid()}\n".encode(), 0)

    def release(self) -> None:
        """Give the lock up. The file stays: removing it would let two processes lock two files of one name."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class DiskReserve:
    """`size_bytes` of disk kept in `<file>.reserve`, and the question whether there is room for new work.

    While the reserve is held there is room as long as as much again is free. Once it was given back (a write met a full
    disk) there is room again when twice its size is free, and then it is held anew.
    """

    def __init__(self, database: Path, size_bytes: int) -> None:
        self._path = database.with_name(database.name + ".reserve")
        self._directory = database.parent
        self.size_bytes = size_bytes
        self._held = self._is_allocated()
        self.has_room()

    def has_room(self) -> bool:
        """May new work be accepted? One cheap system call, but for the moment when the reserve is made anew.

        Raises StoreError when the directory cannot be used at all.
        """
        try:
            free_bytes = self.free_bytes()
            if self._held:
                return free_bytes >= self.size_bytes
            if free_bytes >= 2 * self.size_bytes:
                self._allocate()
        except OSError as error:
            self.give_back()
            if error.errno not in NO_ROOM_ERRORS:
                raise StoreError(f"the disk reserve {self._path} cannot be made: {error.strerror}") from error
        return self._held

    def give_back(self) -> None:
        """Give the reserve to whoever needs disk now."""
        self._held = False
        with suppress(OSError):  # what cannot be removed gives no room; the next write says so
            self._path.unlink(missing_ok=True)

    def free_bytes(self) -> int:
        """What the file system has left for ordinary users."""
        figures = os.statvfs(self._directory)
        return figures.f_bavail * figures.f_frsize

    def _is_allocated(self) -> bool:
        """Does the file of an earlier run really occupy its size (a copy of the directory may have made it sparse)?"""
        try:
            figures = self._path.stat()
        except FileNotFoundError:
            return False
        return figures.st_size == self.size_bytes and figures.st_blocks * 512 >= self.size_bytes

    def _allocate(self) -> None:
        fd = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
        try:
            _fill(fd, self.size_bytes)
            os.fsync(fd)
        finally:
            os.close(fd)
        self._held = True


def _fill(fd: int, size_bytes: int) -> None:
    """Make a new file occupy `size_bytes`: at once where the file system can, by zeros where it cannot (macOS)."""
    try:
        os.posix_fallocate(fd, 0, size_bytes)
        return
    except AttributeError:
        pass
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):
            raise
    zeros = bytes(_CHUNK_BYTES)
    left = size_bytes
    while left > 0:
        left -= os.write(fd, zeros[:left])
