"""A branch's own links, as its loop turns: news that comes over one of them may end another."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import zmq

from tests.transport.actors import Desk, branch
from zbank.protocol.machine import Sender
from zbank.protocol.messages import BRANCH, COORDINATOR, AnyMessage, BranchInfo, Registered, Welcome
from zbank.transport.links import Link, branch_hello
from zbank.transport.loop import ActorLoop
from zbank.transport.peers import Peers
from zbank.transport.sockets import Context, Dialer, make_router

BOSS = Sender("coordinator", COORDINATOR, "coordinator")


class Newsbearer(Link):
    """A link to the coordinator over which something has come."""

    news: AnyMessage | None = None

    def receive(self, now_us: int, limit: int) -> list[tuple[Sender, int, AnyMessage]]:
        news, self.news = self.news, None
        return [] if news is None else [(BOSS, 0, news)]


@pytest.fixture
def mumbai(tmp_path: Path) -> Iterator[Desk]:
    desk = branch(tmp_path)
    yield desk
    desk.store.close()


def test_a_branch_that_moved_is_dialled_anew_and_what_comes_with_the_news_does_no_harm(mumbai: Desk) -> None:
    """The old link is closed in the midst of looking what came over all of them."""
    context: Context = zmq.Context()
    try:
        with closing(make_router(context, "tcp://127.0.0.1:*")) as router:
            dialer = Dialer(context, may_wait=False)
            hello = branch_hello("demo", "Mumbai")
            boss = Newsbearer(dialer, "tcp://127.0.0.1:9", hello, COORDINATOR, name="coordinator")

            def connect(name: str, endpoint: str) -> Link:
                return Link(dialer, endpoint, hello, BRANCH, name=name)

            peers = Peers(BRANCH, "demo", lambda: Welcome(1, "demo", BRANCH, "Mumbai", bytes(16), 1, "INR", ""))
            old, new = "tcp://127.0.0.1:10", "tcp://127.0.0.1:11"
            loop = ActorLoop(
                mumbai.engine,
                peers,
                router,
                mumbai.clock,
                coordinators=[boss],
                connect=connect,
                endpoints={"Delhi": old},
            )
            link = loop._link("Delhi")
            assert link is not None
            info = BranchInfo("Delhi", new, "INR", bytes(16), 1, True)
            boss.news = Registered("coordinator", 1, (info,))
            loop.step()
            assert link.socket.closed
            again = loop._link("Delhi")
            assert again is not None
            assert again.endpoint == new
            loop.step()
            loop.close()
    finally:
        context.destroy(linger=0)
