"""Keys: who may connect, and as what. The list of all public keys, and the folder that it and this machine's secrets lie in.

A key is a CURVE key pair (Curve25519; CurveZMQ, RFC 26 of ZeroMQ). The list `keys.toml` is not secret, every machine has a
copy; a secret `NAME.secret` lies only where NAME runs, for its owner's eyes alone. What is listed and not over is good:
to revoke a key is to say so in the list, and to rotate one is to list a second of the same name for a while.
"""

from __future__ import annotations

import json
import os
import re
import stat
import tomllib
from collections.abc import Iterable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Annotated, NamedTuple

import msgspec
import zmq
from msgspec import Meta, Struct

from zbank.domain.account import parse_account
from zbank.errors import InvalidConfig, InvalidInput
from zbank.protocol.messages import AUDITOR, BRANCH, BRIDGE, CLIENT, COORDINATOR, OPERATOR, REPLICA, TELLER

KEYS_VARIABLE = "ZBANK_KEYS"  #: the folder of the keys
LIST_NAME = "keys.toml"
SECRET_SUFFIX = ".secret"
ACTORS = (COORDINATOR, BRANCH, REPLICA)
PEOPLE = (CLIENT, TELLER, AUDITOR, OPERATOR, BRIDGE)  #: who is a client to the actors
ROLES = (*PEOPLE, *ACTORS)
MAX_KEYS = 10_000
MAX_ACCOUNTS = 100
FOREVER_US = 2**63 - 1

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", re.ASCII)
PublicKey = Annotated[str, Meta(pattern=r"\A[0-9a-zA-Z.\-:+=^!/*?&<>()\[\]{}@%$#]{40}\Z")]  #: Z85 (ZeroMQ RFC 32)


class Key(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One entry of the list."""

    name: Annotated[str, Meta(min_length=1, max_length=64)]  #: of the actor; else of the holder, in whose name ids are used
    role: str
    public: PublicKey
    made: datetime
    accounts: Annotated[tuple[str, ...], Meta(max_length=MAX_ACCOUNTS)] = ()  #: `Branch/number`: all that a client may use
    until: datetime | None = None  #: it has a successor, and is good until then
    revoked: datetime | None = None

    @property
    def ends_us(self) -> int:
        """From when on it is not good, by the wall clock, microseconds UTC."""
        ends = [int(end.timestamp() * 1_000_000) for end in (self.until, self.revoked) if end is not None]
        return min(ends, default=FOREVER_US)

    @property
    def follows_coordinator(self) -> bool:
        """It is that of a replica of the coordinator, which its name says."""
        return self.role == REPLICA and self.name.startswith(f"{COORDINATOR}-")


class _List(Struct, frozen=True, forbid_unknown_fields=True):
    cluster: Annotated[str, Meta(min_length=1, max_length=64)]
    key: Annotated[tuple[Key, ...], Meta(max_length=MAX_KEYS)] = ()


class Pair(NamedTuple):
    """A key pair, as text. It must never be printed, so it does not tell its secret to who prints it."""

    public: str
    secret: str

    def __repr__(self) -> str:
        return f"Pair({self.public})"


class Keyring:
    """The list, looked up in. It never changes: who follows the file gets a new one."""

    def __init__(self, cluster: str, keys: Iterable[Key]) -> None:
        self.cluster = cluster
        self.keys = tuple(keys)
        self._by_public = {key.public: key for key in self.keys}

    def good(self, public: str, wall_us: int) -> Key | None:
        """The entry of this public key, while it is good."""
        key = self._by_public.get(public)
        return key if key is not None and wall_us < key.ends_us else None

    def any(self, public: str) -> Key | None:
        """The entry of this public key, good or not."""
        return self._by_public.get(public)

    def of_name(self, name: str) -> Key | None:
        """The newest entry of a name, good or not."""
        return next((key for key in reversed(self.keys) if key.name == name), None)

    def servers(self, role: str, name: str, wall_us: int) -> list[str]:
        """Public keys that an actor of this role, and name if one is given, may have: the newest first."""
        return [
            key.public
            for key in reversed(self.keys)
            if key.role == role and name in ("", key.name) and wall_us < key.ends_us
        ]

    def standbys(self, wall_us: int) -> list[str]:
        """Public keys of the coordinator's replicas: the newest first."""
        return [key.public for key in reversed(self.keys) if key.follows_coordinator and wall_us < key.ends_us]


def check_name(name: str) -> str:
    """The name of a key, which is a file's as well. Raises InvalidInput."""
    if not _NAME.fullmatch(name):
        raise InvalidInput(f"{name[:70]!r} is no name of a key: letters, digits, '.', '_' and '-', at most 64, as in till-4")
    return name


def check_key(name: str, role: str, accounts: Sequence[str]) -> None:
    """Raise InvalidInput unless a key may be so."""
    check_name(name)
    if role not in ROLES:
        raise InvalidInput(f"{role[:40]!r} is no role of a key: it is one of {', '.join(ROLES)}")
    if role == CLIENT and not accounts:
        raise InvalidInput(f"a client's key names the accounts it is for (a {TELLER}'s is for all)")
    if role != CLIENT and accounts:
        raise InvalidInput(f"a {role}'s key is for all accounts: name none")
    for account in accounts:
        parse_account(account)


def new_pair() -> Pair:
    """A fresh key pair."""
    public, secret = zmq.curve_keypair()
    return Pair(public.decode(), secret.decode())


# --- files ------------------------------------------------------------------------------------------------------------


def read_list(folder: Path) -> Keyring:
    """The list of a folder. Raises InvalidConfig."""
    path = folder / LIST_NAME
    try:
        raw = tomllib.loads(path.read_text("utf-8"))
        found = msgspec.convert(raw, _List)
        seen: set[str] = set()
        for key in found.key:
            check_key(key.name, key.role, key.accounts)
            if key.public in seen:
                raise InvalidInput(f"the key of {key.name} is listed twice")
            for moment in (key.made, key.until, key.revoked):
                if moment is not None and moment.tzinfo is None:
                    raise InvalidInput(f"a time of {key.name} has no time zone: write Z for UTC")
            seen.add(key.public)
    except FileNotFoundError as error:
        raise InvalidConfig(f"{path} is missing: `zbank keys init` makes keys; or copy it from where they were made") from error
    except OSError as error:
        raise InvalidConfig(f"{path} cannot be read ({error.strerror})") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, msgspec.ValidationError, InvalidInput) as error:
        raise InvalidConfig(f"{path}: {error}: copy it anew from where the keys were made") from error
    return Keyring(found.cluster, found.key)


def write_list(folder: Path, keyring: Keyring) -> None:
    """Put a new list in the place of the old one, whole or not at all."""
    lines = [
        f"# Who may connect to cluster {json.dumps(keyring.cluster)}, and as what. Not secret: copy it to every machine.",
        "# `zbank keys` writes it; every part of the bank follows it within a second.",
        f"cluster = {json.dumps(keyring.cluster)}",
    ]
    for key in keyring.keys:
        lines += ["", "[[key]]"]
        lines += [f"{name} = {json.dumps(getattr(key, name))}" for name in ("name", "role", "public")]
        if key.accounts:
            lines.append(f"accounts = {json.dumps(list(key.accounts))}")
        moments = (("made", key.made), ("until", key.until), ("revoked", key.revoked))
        lines += [f"{name} = {moment:%Y-%m-%dT%H:%M:%SZ}" for name, moment in moments if moment is not None]
    _write(folder / LIST_NAME, "\n".join(lines) + "\n", 0o644)


def write_secret(folder: Path, name: str, secret: str) -> Path:
    """Keep a secret for its owner's eyes alone."""
    path = folder / f"{name}{SECRET_SUFFIX}"
    _write(path, f"# The secret key of {name}: whoever has it is {name} to the bank. Give it to nobody.\n{secret}\n", 0o600)
    return path


def read_secret(folder: Path, name: str) -> Pair:
    """The pair of `NAME.secret`. Raises InvalidConfig, also when others than its owner may read it."""
    path = folder / f"{name}{SECRET_SUFFIX}"
    try:
        with path.open(encoding="ascii") as file:
            mode = os.fstat(file.fileno()).st_mode
            text = file.read(1_000)
    except FileNotFoundError as error:
        raise InvalidConfig(f"{path} is missing: it is made where the keys were made, by `zbank keys add {name}`") from error
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidConfig(f"{path} cannot be read ({getattr(error, 'strerror', 'it is no key')})") from error
    if os.name == "posix" and mode & (stat.S_IRWXG | stat.S_IRWXO):
        shown = f"{stat.S_IMODE(mode):04o}"
        raise InvalidConfig(f"{path} can be read by others (mode {shown}): chmod 600 {path}, and rotate the key if they did")
    secret = next((line for line in text.splitlines() if line and not line.startswith("#")), "")
    try:
        return Pair(zmq.curve_public(secret.encode()).decode(), secret)
    except (zmq.ZMQError, ValueError) as error:
        raise InvalidConfig(f"{path} holds no key: copy it anew from where it was made") from error


def secrets_in(folder: Path) -> list[str]:
    """Whose secrets are here."""
    return sorted(path.name.removesuffix(SECRET_SUFFIX) for path in folder.glob(f"*{SECRET_SUFFIX}"))


def _write(path: Path, text: str, mode: int) -> None:
    draft = path.with_name(f".{path.name}.new")
    draft.unlink(missing_ok=True)
    with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    draft.rename(path)
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
