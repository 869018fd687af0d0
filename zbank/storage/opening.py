"""Opening the file of a journal store: made whole or not at all, checked to be ours, set up the way commits need it.

A new file is made under another name and renamed when it is complete, so that an empty or half-made file is never taken
for a new store: it is damage, and the answer to damage is a backup, not a bank without accounts.
"""

from __future__ import annotations

import os
from importlib.resources import files
from pathlib import Path
from typing import Any

import apsw
from msgspec import Struct

from zbank.errors import CorruptStore, ForeignStore, StorageFull, StoreError
from zbank.protocol.codec import GENESIS
from zbank.storage import sql

APPLICATION_ID = 0x7A626E6B  # "zbnk"
SCHEMA_VERSION = 1
PAGE_CACHE_KIB = 16 * 1024  # more made postings over 1,000,000 accounts no faster
BUSY_TIMEOUT_MS = 2000
LEAST_BYTES = 512  # of any database: SQLite takes less for a new one

# What a commit's promise rests on, and what bounds memory; each is read back.
_PRAGMAS: tuple[tuple[str, str | int, str | int], ...] = (
    ("journal_mode", "WAL", "wal"),
    ("synchronous", "FULL", 2),
    ("fullfsync", 1, 1),  # macOS: without it a sync does not reach the disk
    ("checkpoint_fullfsync", 1, 1),
    ("wal_autocheckpoint", 0, 0),  # done by hand, so that its failures are seen
    ("mmap_size", 0, 0),
    ("cache_size", -PAGE_CACHE_KIB, -PAGE_CACHE_KIB),
    ("foreign_keys", 0, 0),
    ("recursive_triggers", 0, 0),
    ("trusted_schema", 0, 0),
)


class Identity(Struct, frozen=True):
    """Whose store it is."""

    cluster: str
    role: str  #: "branch", "coordinator" or "replica"
    name: str

    def __str__(self) -> str:
        return f"{self.role} {self.name} of cluster {self.cluster}"


def open_database(path: Path, identity: Identity, new_instance: bytes, vfs: str) -> apsw.Connection:
    """A connection to the store of `identity`, made first when the file is absent.

    Raises ForeignStore, CorruptStore, StorageFull, or StoreError when the file cannot be used at all.
    """
    try:
        if vfs:  # a simulated disk has no directory of ours
            connection = apsw.Connection(str(path), vfs=vfs)
            if connection.pragma("page_count") == 0:
                _fill_new(connection, identity, new_instance)
        else:
            if not path.exists():
                _make_file(path, identity, new_instance)
            elif path.stat().st_size < LEAST_BYTES:
                raise CorruptStore(f"{path} is empty or cut short: {_what_to_do(path)}")
            connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READWRITE)
        try:
            _set_up(connection, path, identity)
        except BaseException:
            close_untouched(connection)
            raise
        return connection
    except apsw.FullError as error:
        raise StorageFull(f"no room on the disk to open {path}: free some and start again") from error
    except (apsw.NotADBError, apsw.CorruptError, UnicodeDecodeError) as error:
        raise CorruptStore(f"{path} is damaged or no database ({error}): {_what_to_do(path)}") from error
    except (apsw.Error, OSError) as error:
        if getattr(error, "extendedresult", 0) == apsw.SQLITE_IOERR_SHMSIZE:  # the WAL's index cannot be made
            raise StorageFull(f"no room on the disk to open {path}: free some and start again") from error
        raise StoreError(f"{path} cannot be opened: {error}") from error


def role_of(path: Path) -> str:
    """Whose role's store a file is; "" when there is none, or none that can be read: opening it tells why."""
    if not path.exists():
        return ""
    try:
        connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READWRITE)
        try:
            found = connection.execute("SELECT role FROM actor").fetchall()
        finally:
            close_untouched(connection)
    except apsw.Error:
        return ""
    return str(found[0][0]) if len(found) == 1 else ""


def close_untouched(connection: apsw.Connection) -> None:
    """Close without the usual last checkpoint: what is in the WAL stays there for the next start to judge."""
    connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
    connection.close(True)


def check_belongs(found: Identity, identity: Identity, path: Path) -> None:
    """Raise ForeignStore unless the file is that of `identity`."""
    if found != identity:
        raise ForeignStore(
            f"{path} belongs to the {found}, and this process is the {identity}: "
            "give it its own data directory (`data` under [cluster] in the config file, or --data)"
        )


def _make_file(path: Path, identity: Identity, new_instance: bytes) -> None:
    wal = path.with_name(path.name + "-wal")
    if wal.exists() and wal.stat().st_size > 0:
        raise CorruptStore(f"{path} is missing but its WAL {wal.name} is there: {_what_to_do(path)}")
    draft = path.with_name(path.name + ".new")
    for leftover in (draft, draft.with_name(draft.name + "-journal")):
        leftover.unlink(missing_ok=True)
    connection = apsw.Connection(str(draft))
    try:
        _fill_new(connection, identity, new_instance)
    finally:
        connection.close()
    draft.rename(path)
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def _fill_new(connection: apsw.Connection, identity: Identity, new_instance: bytes) -> None:
    schema = files("zbank.storage").joinpath("schema.sql").read_text("utf-8")
    connection.pragma("synchronous", "FULL")
    connection.execute("BEGIN IMMEDIATE")
    connection.execute(schema)
    connection.execute(sql.NEW_ACTOR, (identity.name, identity.cluster, identity.role, new_instance, GENESIS))
    connection.execute(sql.NEW_POSTED)
    connection.pragma("application_id", APPLICATION_ID)
    connection.pragma("user_version", SCHEMA_VERSION)
    connection.execute("COMMIT")


def _set_up(connection: apsw.Connection, path: Path, identity: Identity) -> None:
    """Is it ours, by its header and by its only row? Not a byte of a foreign file is changed."""
    connection.set_busy_timeout(BUSY_TIMEOUT_MS)
    application, version = connection.pragma("application_id"), connection.pragma("user_version")
    if application != APPLICATION_ID:
        raise ForeignStore(f"{path} is a database of another program: move it away, or choose another data directory")
    if version != SCHEMA_VERSION:
        raise ForeignStore(
            f"{path} has format {version}, and this version of zbank reads format {SCHEMA_VERSION}: "
            "start it with the version that wrote it, or a newer one"
        )
    actors = connection.execute(sql.ACTORS).fetchall()
    if len(actors) != 1:
        raise CorruptStore(f"{path} names {len(actors)} actors where one belongs: {_what_to_do(path)}")
    name, cluster, role = actors[0][:3]
    check_belongs(Identity(cluster=str(cluster), role=str(role), name=str(name)), identity, path)
    connection.create_scalar_function("casefold", _casefold, 1, deterministic=True)
    for pragma, value, expected in _PRAGMAS:
        connection.pragma(pragma, value)
        if (found := connection.pragma(pragma)) != expected:
            raise StoreError(
                f"{path}: SQLite does not take {pragma} = {value} here (it says {found}), so commits would not be "
                "safe: keep the data on a local file system"
            )


def _casefold(*texts: Any) -> str:
    """For SQL: SQLite itself knows the case of ASCII letters alone."""
    return str(texts[0]).casefold()


def _what_to_do(path: Path) -> str:
    return f"restore a backup; to begin anew move {path.name} and the files beside it away"
