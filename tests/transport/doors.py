"""Doors to real actors: scripted servers behind which an engine on a real store stands."""

from __future__ import annotations

from tests.transport.actors import Desk
from tests.transport.scripted import Script, ScriptedServer
from tests.unit.protocol_support import CUSTOMER
from zbank.protocol.messages import (
    AnyMessage,
    GetEvents,
    GetFigures,
    GetTokens,
    ListTransfers,
    MakeToken,
    RevokeToken,
)

Answers = list[tuple[int, AnyMessage]] | None


def answering(desk: Desk) -> Script:
    """A server behind which a real actor stands. What it was told beside (Hello, the directory) is scripted as ever."""

    def script(_server: ScriptedServer, n: int, message: AnyMessage) -> Answers:
        if not isinstance(message, ListTransfers | GetEvents | GetFigures | MakeToken | RevokeToken | GetTokens):
            return None
        with desk.lock:
            effects = desk.turn((CUSTOMER, n, message))
            desk.engine.maintain()
        return [(effect.n, effect.message) for effect in effects]

    return script


def silent(_server: ScriptedServer, _n: int, message: AnyMessage) -> Answers:
    """Somebody who takes part and does not answer what tests ask."""
    return [] if isinstance(message, ListTransfers | GetEvents | GetFigures | GetTokens) else None
