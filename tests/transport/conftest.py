"""Two branches and a coordinator, real ones, each behind a door on a real socket."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.transport.actors import Desk, branch
from tests.transport.behind_a_door import Server
from tests.transport.doors import answering
from tests.transport.scripted import ScriptedServer, coordinator_of
from zbank.apps import keymaking
from zbank.protocol.messages import COORDINATOR
from zbank.transport import sockets
from zbank.transport.keyfolder import Keys


@pytest.fixture
def desks(tmp_path: Path) -> Iterator[dict[str, Desk]]:
    """Two branches and a coordinator, real ones."""
    found = {name: branch(tmp_path, "1", "2", name=name) for name in ("Delhi", "Mumbai")}
    found["main"] = Desk(COORDINATOR, "main", tmp_path)
    yield found
    for desk in found.values():
        desk.store.close()


@pytest.fixture
def servers(desks: dict[str, Desk]) -> Iterator[dict[str, ScriptedServer]]:
    """A door for each."""
    with (
        ScriptedServer("Delhi", script=answering(desks["Delhi"])) as delhi,
        ScriptedServer("Mumbai", script=answering(desks["Mumbai"])) as mumbai,
        coordinator_of(mumbai, delhi, script=answering(desks["main"])) as main,
    ):
        yield {"Delhi": delhi, "Mumbai": mumbai, "main": main}


@pytest.fixture
def keys(tmp_path: Path) -> Keys:
    """Mumbai's, of a bank that has some."""
    keymaking.make_all(tmp_path, "demo", ("Mumbai", "Delhi"))
    return Keys(tmp_path, "Mumbai")


@pytest.fixture
def locked(keys: Keys) -> Iterator[Server]:
    """A door with a lock."""
    with closing(Server(keys)) as server:
        yield server


@pytest.fixture
def free(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A door without. Who connects and says nothing is not put out for that while a test goes on."""
    monkeypatch.setattr(sockets, "HANDSHAKE_MS", 120_000)
    with closing(Server(None)) as server:
        yield server
