"""Where an actor listens: a process that changes its role listens at the same place again."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
import zmq

from tests.acceptance.cluster import free_ports
from zbank.apps import serving
from zbank.apps.serving import CannotListen
from zbank.protocol.messages import BRANCH
from zbank.storage.sqlite import Identity

LATE_S = 0.3
IDENTITY = Identity("demo", BRANCH, "Mumbai")

Context = zmq.Context[zmq.Socket[bytes]]


@pytest.fixture
def context(monkeypatch: pytest.MonkeyPatch) -> Iterator[Context]:
    monkeypatch.setattr(serving, "_listened", set())
    context: Context = zmq.Context()
    yield context
    context.destroy(linger=0)


def test_the_own_listener_of_before_is_waited_for(context: Context) -> None:
    """libzmq closes it in another thread, whenever that comes to it."""
    place = f"tcp://127.0.0.1:{free_ports(1)}"
    before = serving._listen(context, place, IDENTITY, None)
    closer = threading.Timer(LATE_S, lambda: before.close(linger=0))
    closer.start()
    with serving._listen(context, place, IDENTITY, None) as again:
        assert again.getsockopt_string(zmq.LAST_ENDPOINT) == place
    closer.join()


def test_what_another_process_has_is_said_at_once(context: Context) -> None:
    place = f"tcp://127.0.0.1:{free_ports(1)}"
    with zmq.Context() as elsewhere, elsewhere.socket(zmq.ROUTER) as other:
        other.bind(place)
        with pytest.raises(CannotListen, match="Address already in use"):
            serving._listen(context, place, IDENTITY, None)
        assert place not in serving._listened
