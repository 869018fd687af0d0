"""Removing a store for good, for a start from empty data. Only a file that is provably the named actor's is removed."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import apsw

from zbank.errors import CorruptStore, ForeignStore, StoreError
from zbank.storage import sql
from zbank.storage.disk import StoreLock
from zbank.storage.opening import APPLICATION_ID, Identity, check_belongs

# What stands beside `<file>`. The lock file stays: removing it would let two processes lock two files of one name.
_BESIDE = (".superseded", "-wal", "-shm", ".reserve", ".new", ".new-journal")


def remove_store(path: Path, identity: Identity) -> bool:
    """Remove the store of `identity` at `path` with all files beside it; False when there was none.

    Raises StoreError when a process has it open, ForeignStore when it is another actor's or no store of zbank,
    CorruptStore when it is too damaged to tell whose it is. Nothing is removed then.
    """
    files = [path, *(path.with_name(path.name + suffix) for suffix in _BESIDE)]
    if not any(file.exists() for file in files):
        return False
    lock = StoreLock(path)
    try:
        if path.exists():
            _check_is_of(identity, path)
        for file in reversed(files):  # the database last: what a crash leaves behind can still be told whose it is
            file.unlink(missing_ok=True)
    except OSError as error:
        raise StoreError(f"{error.filename} cannot be removed: {error.strerror}") from error
    finally:
        lock.release()
    return True


def owner_of(path: Path) -> Identity | None:
    """Whose data a file is; None when there is none, or that cannot be told."""
    if not path.exists():
        return None
    with suppress(ForeignStore, CorruptStore):
        return _identity_of(path)
    return None


def find_stores(folder: Path) -> dict[Path, Identity]:
    """Whose data is in a folder, by file. What cannot be told is left out. No file is touched, nor made beside one."""
    found: dict[Path, Identity] = {}
    for path in sorted(folder.glob("*.db")):
        with suppress(ForeignStore, CorruptStore):
            found[path] = _identity_of(path, "?immutable=1")
    return found


def _check_is_of(identity: Identity, path: Path) -> None:
    check_belongs(_identity_of(path), identity, path)


def _identity_of(path: Path, how: str = "") -> Identity:
    """Whose data it is; `how` ends the URI by which it is opened. Raises ForeignStore, CorruptStore."""
    try:
        flags = apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI
        connection = apsw.Connection(path.absolute().as_uri() + how, flags=flags)
        try:
            if connection.pragma("application_id") != APPLICATION_ID:
                raise ForeignStore(f"{path} is a database of another program: move it away yourself")
            name, cluster, role = next(iter(connection.execute(sql.ACTORS)))[:3]
        finally:
            connection.close()
    except (apsw.Error, StopIteration) as error:
        raise CorruptStore(f"{path} is damaged or no database ({error}): if nobody needs it, move it away") from error
    return Identity(cluster, role, name)
