"""Where the bank is when nobody says so: the coordinator is looked for on the local network.

The rule: whoever is told a place goes there. Else the usual place is this machine. Only a command that has keys, and finds
nobody listening here, looks for the cluster that its keys are of; without keys one looks only for a name that was given, by
--cluster. So the bank of one machine is found as fast as ever, and no stranger is talked to because he was louder.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from zbank.errors import InvalidConfig

if TYPE_CHECKING:
    from zbank.transport.discovery import Found

HERE = ("127.0.0.1", 9000)
KNOCK_S = 0.5  #: on this machine the answer is there at once, yes or no
LOOK_AGAIN_S = 5.0

Say = Callable[[str], None]


def find_coordinator(cluster: str | None, keys: Path | None, say: Say) -> Found | None:
    """The coordinator on the local network; None = take the usual place. Says what was found.

    With the name of a `cluster` it has to be there. Raises NotFound, SeveralFound, CannotLook, and InvalidConfig for keys of
    another cluster.
    """
    wanted = _wanted(cluster, keys)
    if wanted is None or (cluster is None and something_listens_here()):
        return None
    from zbank.transport.discovery import CannotLook, NotFound, PackageMissing

    try:
        return _look(wanted, keys, say)
    except (NotFound, CannotLook, PackageMissing) as error:
        if cluster is not None:
            raise
        say(f"nothing listens at the usual place of this machine, and {error.detail}")
        return None


def wait_for_coordinator(cluster: str | None, keys: Path | None, say: Say) -> Found | None:
    """The same for what serves: who is started before the coordinator waits for it. Raises as `find_coordinator` does, but
    for what may be otherwise in a moment."""
    wanted = _wanted(cluster, keys)
    if wanted is None:
        return None
    from zbank.transport.discovery import CannotLook, NotFound, PackageMissing

    said = ""
    while cluster is not None or not something_listens_here():
        try:
            return _look(wanted, keys, say)
        except PackageMissing as error:
            if cluster is not None:
                raise
            say(f"nothing listens at the usual place of this machine, and {error.detail}")
            return None
        except (NotFound, CannotLook) as error:
            if error.detail != said:
                said = error.detail
                say(f"waits for the coordinator: {said}")
        time.sleep(LOOK_AGAIN_S)
    return None


def _look(wanted: str, keys: Path | None, say: Say) -> Found:
    from zbank.transport.discovery import choose
    from zbank.transport.multicast import look

    found = choose(look(cluster=wanted), wanted)
    doubt = "" if keys is not None else "; without keys nobody proves that it is the one you mean"
    say(f"cluster {wanted!r} is announced at {found.endpoint}{doubt}")
    return found


def something_listens_here() -> bool:
    """The usual place is taken, by a coordinator most likely."""
    try:
        with socket.create_connection(HERE, KNOCK_S):
            return True
    except OSError:
        return False


def _wanted(cluster: str | None, keys: Path | None) -> str | None:
    """The name to look for: that of the keys, which decide who may be talked to; None = no name is known."""
    if keys is None:
        return cluster
    from zbank.transport.keys import read_list

    own = read_list(keys).cluster
    if cluster not in (None, own):
        raise InvalidConfig(f"the keys in {keys} are of cluster {own!r}, not of {cluster!r}: name their folder by ZBANK_KEYS")
    return own
