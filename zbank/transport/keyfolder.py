"""The keys of one process: its own pair, and the list of all, followed while it runs."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from pathlib import Path

from zbank.clock import Clock
from zbank.errors import InvalidConfig
from zbank.protocol.messages import BRANCH, COORDINATOR, OPERATOR
from zbank.protocol.records import NotedKey
from zbank.transport.keys import (
    KEYS_VARIABLE,
    LIST_NAME,
    PEOPLE,
    SECRET_SUFFIX,
    Key,
    Keyring,
    Pair,
    read_list,
    read_secret,
    secrets_in,
)

SUBFOLDER = "keys"  #: beside the config file
NAME_VARIABLE = "ZBANK_KEY"  #: which of the secrets in the folder a command uses

log = logging.getLogger("zbank")

Signature = tuple[tuple[int, int, int], ...]


class Keys:
    """One process's keys. `refresh` is called by one thread; all may look things up."""

    def __init__(self, folder: Path, name: str, *, role: str = "", cluster: str = "") -> None:
        """Raises InvalidConfig: no list, no secret of this name, one that others can read, or one that is not good."""
        self.folder = folder
        self.name = name
        self._clock = Clock()
        self._seen = self._signature()
        self.keyring: Keyring = read_list(folder)
        self.pair: Pair = read_secret(folder, name)
        if cluster and self.keyring.cluster != cluster:
            raise InvalidConfig(f"the keys in {folder} are of cluster {self.keyring.cluster!r}, not of {cluster!r}")
        key = self.good(self.pair.public)
        if key is None:
            advice = f"see `zbank keys list`, or copy {LIST_NAME} anew"
            raise InvalidConfig(f"the key of {name} in {folder} is not good (any more): {advice}")
        if key.name != name or (role and key.role != role):
            raise InvalidConfig(f"the secret of {name} in {folder} is listed as that of {key.role} {key.name}: copy it anew")
        self.role = key.role

    def good(self, public: str) -> Key | None:
        """The entry of a public key, while it is good."""
        return self.keyring.good(public, self._clock.now().wall_us)

    def known_as(self, public: str) -> str:
        """Whose key it is, or was, in words."""
        key = self.keyring.any(public)
        return f"key {public[:8]}…, which is not listed," if key is None else f"the key of {key.name}, which is over,"

    def servers(self, role: str = "", name: str = "") -> list[list[str]]:
        """Whom to expect at an address: groups of public keys, one after the other to be tried. `role` "" = not known."""
        wall_us = self._clock.now().wall_us
        if role:
            return [self.keyring.servers(role, name, wall_us)]
        # Where a coordinator is, a replica of it may be, which can take its place.
        at_its_place = self.keyring.servers(COORDINATOR, "", wall_us) + self.keyring.standbys(wall_us)
        return [at_its_place, self.keyring.servers(BRANCH, "", wall_us)]

    def noted(self) -> list[NotedKey]:
        """The keys that are good now, for the journal."""
        wall_us = self._clock.now().wall_us
        good = [key for key in self.keyring.keys if wall_us < key.ends_us]
        return [NotedKey(key.public, key.name, key.role, key.accounts) for key in good]

    def refresh(self) -> bool:
        """Look at the files; True when they changed. What cannot be read leaves the keys as they are, and says so."""
        seen = self._signature()
        if seen == self._seen:
            return False
        try:
            keyring, pair = read_list(self.folder), read_secret(self.folder, self.name)
        except InvalidConfig as error:
            log.error("the keys cannot be read anew: %s", error)
            self._seen = seen
            return False
        self._seen, self.keyring, self.pair = seen, keyring, pair
        return True

    def _signature(self) -> Signature:
        """What tells that a file was changed."""
        found: list[tuple[int, int, int]] = []
        for name in (LIST_NAME, f"{self.name}{SECRET_SUFFIX}"):
            try:
                state = os.stat(self.folder / name)
            except OSError:
                found.append((0, 0, 0))
            else:
                changed_ns = max(state.st_mtime_ns, state.st_ctime_ns)  # the latter tells of a chmod or chown, too
                found.append((changed_ns, state.st_ino, state.st_size))
        return tuple(found)


def find_folder(config: Path | None, environment: Mapping[str, str]) -> Path | None:
    """Where the keys are: ZBANK_KEYS, else beside the config file; None = this bank has none. Raises InvalidConfig."""
    told = environment.get(KEYS_VARIABLE, "")
    if told:
        folder = Path(told)
        if not (folder / LIST_NAME).is_file():
            advice = "give the folder that `zbank keys init` made"
            raise InvalidConfig(f"{KEYS_VARIABLE} says {told}, and there is no {LIST_NAME}: {advice}")
        return folder.absolute()
    beside = None if config is None else config.absolute().parent / SUBFOLDER
    return beside if beside is not None and (beside / LIST_NAME).is_file() else None


def person_of(folder: Path, wanted: str) -> str:
    """Whose key a command uses: the one that is wanted, the only one here that is no actor's, or the operator's.

    Raises InvalidConfig when that is not clear.
    """
    if wanted:
        return wanted
    keyring = read_list(folder)
    listed = {name: keyring.of_name(name) for name in secrets_in(folder)}
    people = {name: key.role for name, key in listed.items() if key is not None and key.role in PEOPLE}
    operators = [name for name, role in people.items() if role == OPERATOR]
    if len(people) == 1 or len(operators) == 1:
        return operators[0] if operators else next(iter(people))
    here = ", ".join(people) or "none"
    raise InvalidConfig(f"say whose key to use, by --key NAME or {NAME_VARIABLE}: in {folder} are {here}")
