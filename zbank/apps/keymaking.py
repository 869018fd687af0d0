"""Making keys and ending them: what `zbank keys` and `run_cluster.py --secure` do to a folder of keys."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

from msgspec.structs import replace

from zbank.clock import Clock
from zbank.config import COORDINATOR_NAME
from zbank.errors import InvalidConfig, InvalidInput
from zbank.protocol.messages import BRANCH, BRIDGE, COORDINATOR, OPERATOR, REPLICA
from zbank.transport.keys import (
    LIST_NAME,
    SECRET_SUFFIX,
    Key,
    Keyring,
    check_key,
    new_pair,
    read_list,
    write_list,
    write_secret,
)

BRIDGE_NAME = "rest"  #: of the REST bridge's key
OPERATOR_NAME = "operator"


def make_all(folder: Path, cluster: str, branches: Iterable[str], replicas: Iterable[str] = ()) -> Keyring:
    """Keys for every part of a bank, and an operator's. Raises InvalidInput when there are some already."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    with _locked(folder):
        if (folder / LIST_NAME).exists():
            raise InvalidInput(f"{folder} has keys already: `zbank keys add` makes more, `zbank keys list` shows them")
        roles = {COORDINATOR_NAME: COORDINATOR, BRIDGE_NAME: BRIDGE, OPERATOR_NAME: OPERATOR}
        wanted = [(name, BRANCH) for name in branches]
        for name, _ in wanted:
            if name in roles:
                raise InvalidInput(f"a branch named {name} needs another name: {name} is the key of the {roles[name]}")
        wanted += [(name, REPLICA) for name in replicas]
        made = [_new(name, role) for name, role in [*roles.items(), *wanted]]
        keyring = Keyring(cluster, [key for key, _ in made])
        write_list(folder, keyring)
        for key, secret in made:
            write_secret(folder, key.name, secret)
        return keyring


def add(folder: Path, name: str, role: str, accounts: Sequence[str]) -> Key:
    """One more key. Raises InvalidInput when there is a good one of that name."""
    check_key(name, role, accounts)
    with _locked(folder):
        keyring = read_list(folder)
        known = keyring.of_name(name)
        if known is not None and known.ends_us > _now_us():
            raise InvalidInput(f"there is a good key of {name} already: choose another name, or `zbank keys rotate {name}`")
        key, secret = _new(name, role, accounts)
        write_list(folder, Keyring(keyring.cluster, [*keyring.keys, key]))
        write_secret(folder, name, secret)
        return key


def revoke(folder: Path, name: str) -> list[Key]:
    """End all keys of a name now, and forget the secret that is here. Raises InvalidInput when none of them was good."""
    with _locked(folder):
        keyring = read_list(folder)
        ended = [replace(key, revoked=_now()) for key in _good_ones(keyring, name)]
        by_public = {key.public: key for key in ended}
        write_list(folder, Keyring(keyring.cluster, [by_public.get(key.public, key) for key in keyring.keys]))
        (folder / f"{name}{SECRET_SUFFIX}").unlink(missing_ok=True)
        return ended


def rotate(folder: Path, name: str, overlap: timedelta) -> Key:
    """A new key in the place of the old one, which is good for the overlap yet. Raises InvalidInput."""
    with _locked(folder):
        keyring = read_list(folder)
        good = _good_ones(keyring, name)
        until = _now() + overlap
        shortened = {key.public: replace(key, until=min(until, key.until or until)) for key in good}
        key, secret = _new(name, good[-1].role, good[-1].accounts)
        # First all may know the new key, then its holder uses it.
        write_list(folder, Keyring(keyring.cluster, [*(shortened.get(old.public, old) for old in keyring.keys), key]))
        write_secret(folder, name, secret)
        return key


def _good_ones(keyring: Keyring, name: str) -> list[Key]:
    good = [key for key in keyring.keys if key.name == name and key.ends_us > _now_us()]
    if not good:
        raise InvalidInput(f"there is no good key of {name}: `zbank keys list` shows all")
    return good


def _new(name: str, role: str, accounts: Sequence[str] = ()) -> tuple[Key, str]:
    """A fresh key, and its secret."""
    check_key(name, role, accounts)
    pair = new_pair()
    return Key(name=name, role=role, public=pair.public, made=_now(), accounts=tuple(accounts)), pair.secret


def _now_us() -> int:
    return Clock().now().wall_us


def _now() -> datetime:
    return datetime.fromtimestamp(_now_us() // 1_000_000, UTC)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Nobody else changes the keys meanwhile."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError as error:
        raise InvalidConfig(f"{folder} cannot be opened ({error.strerror}): give the folder of the keys, by --keys") from error
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
