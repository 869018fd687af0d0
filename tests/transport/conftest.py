"""Two branches and a coordinator, real ones, each behind a door on a real socket."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.transport.actors import Desk, branch
from tests.transport.doors import answering
from tests.transport.scripted import ScriptedServer, coordinator_of
from zbank.protocol.messages import COORDINATOR


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
