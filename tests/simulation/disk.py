"""A disk that can fail: SQLite's own file access on files in memory, with a memory of what no sync has confirmed yet.

At a power cut every write since the last sync of its file is kept or lost, each by itself. A sync that fails dooms what it
should have brought home: later syncs succeed and do not bring it either, as kernels do it
(https://wiki.postgresql.org/wiki/Fsync_Errors). A full disk refuses writes that make a file longer.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import apsw

UNSYNCED, SYNCED, DOOMED = range(3)


class Change:
    """One write, or one truncation, that may be lost."""

    __slots__ = ("new", "offset", "old", "old_bytes", "state")

    def __init__(self, offset: int, old: bytes, new: bytes | None, old_bytes: int) -> None:
        self.offset = offset
        self.old = old  #: what stood there, as far as the file reached
        self.new = new  #: None = the file was cut off at `offset`
        self.old_bytes = old_bytes  #: size of the file before
        self.state = UNSYNCED


class SimulatedDisk(apsw.VFS):
    """The disk of one actor's machine, a VFS of its own."""

    _names = itertools.count()

    def __init__(self, folder: Path) -> None:
        self.name = f"simulated{next(self._names)}"
        self.folder = folder
        self.is_full = False
        self.is_off = False  #: the power is cut: nothing is written any more
        self.operations_left: int | None = None  #: writes and syncs until the power is cut; None = it is not
        self.syncs_left: int | None = None  #: until one fails; None = none does
        self.failed_syncs = 0
        self.lost_writes = 0
        self.changes: dict[str, list[Change]] = {}  #: by path
        super().__init__(self.name, base="")

    def xOpen(self, name: Any, flags: list[int]) -> apsw.VFSFile:
        return _SimulatedFile(self, name, flags)

    def xDelete(self, name: str, sync_directory: bool) -> None:
        self.changes.pop(name, None)
        super().xDelete(name, sync_directory)

    def spend(self) -> None:
        """A write or a sync is about to happen. Raises apsw.IOError when there is no power (left)."""
        if self.operations_left is not None:
            self.operations_left -= 1
            self.is_off = self.is_off or self.operations_left < 0
        if self.is_off:
            raise _failure(apsw.IOError("the power is cut"), apsw.SQLITE_IOERR_WRITE)

    def heal(self) -> None:
        """From here on nothing fails."""
        self.is_full = self.is_off = False
        self.operations_left = self.syncs_left = None

    def lose_power(self, is_lost: Callable[[str, int], bool]) -> None:
        """What the files hold when the machine starts again; `is_lost` says it of a write, by path and count."""
        for path, changes in self.changes.items():
            if not changes:
                continue
            kept = [
                change.state == SYNCED or (change.state == UNSYNCED and not is_lost(path, count))
                for count, change in enumerate(changes)
            ]
            if not all(kept):
                self.lost_writes += kept.count(False)
                _rebuild(Path(path), changes, kept)
        self.changes.clear()
        for leftover in self.folder.glob("*-shm"):
            leftover.unlink()
        self.heal()


def _rebuild(path: Path, changes: list[Change], kept: list[bool]) -> None:
    """The file as it was at first, and of the changes those that are kept."""
    data = bytearray(path.read_bytes())
    for change in reversed(changes):
        if change.new is None:
            data += change.old
        else:
            data[change.offset : change.offset + len(change.old)] = change.old
            del data[change.old_bytes :]
    for change, stays in zip(changes, kept, strict=True):
        if not stays:
            continue
        if change.new is None:
            del data[change.offset :]
            continue
        data += bytes(max(0, change.offset - len(data)))  # a hole where an earlier write is lost
        data[change.offset : change.offset + len(change.new)] = change.new
    path.write_bytes(data)


def _failure(error: apsw.Error, extended_result: int) -> apsw.Error:
    vars(error)["extendedresult"] = extended_result  # as the library does
    return error


class _SimulatedFile(apsw.VFSFile):
    def __init__(self, disk: SimulatedDisk, name: Any, flags: list[int]) -> None:
        self._disk = disk
        path = name.filename() if isinstance(name, apsw.URIFilename) else str(name)
        self._changes = disk.changes.setdefault(path, [])
        super().__init__("", name, flags)

    def xWrite(self, data: Any, offset: int) -> None:
        disk = self._disk
        disk.spend()
        size_bytes = super().xFileSize()
        end = offset + len(data)
        if disk.is_full and end > size_bytes:
            raise _failure(apsw.FullError("the disk is full"), apsw.SQLITE_FULL)
        old = super().xRead(min(len(data), size_bytes - offset), offset) if offset < size_bytes else b""
        self._changes.append(Change(offset, old, bytes(data), size_bytes))
        super().xWrite(data, offset)

    def xTruncate(self, size_bytes: int) -> None:
        self._disk.spend()
        before_bytes = super().xFileSize()
        if size_bytes < before_bytes:
            old = super().xRead(before_bytes - size_bytes, size_bytes)
            self._changes.append(Change(size_bytes, old, None, before_bytes))
        super().xTruncate(size_bytes)

    def xSync(self, flags: int) -> None:
        disk = self._disk
        disk.spend()
        changes = self._changes
        if disk.syncs_left is not None:
            disk.syncs_left -= 1
            if disk.syncs_left < 0:
                disk.syncs_left = None
                disk.failed_syncs += 1
                for change in changes:
                    change.state = DOOMED if change.state == UNSYNCED else change.state
                raise _failure(apsw.IOError("the sync failed"), apsw.SQLITE_IOERR_FSYNC)
        for change in changes:
            if change.state == UNSYNCED:
                change.state = SYNCED
        if changes and (changes[-1].new is None and changes[-1].offset == 0):
            changes.clear()  # an empty file has no past
        elif not any(change.state == DOOMED for change in changes):
            changes.clear()
