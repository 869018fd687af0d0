"""The feed over real sockets: who publishes and who subscribes hear of each other, however often the middle comes and goes."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from datetime import timedelta
from pathlib import Path
from threading import Thread

import pytest

from tests.transport.middle import CHAIN, LIMIT_MS, Middle, keys_in, row
from zbank.apps import keymaking
from zbank.apps.chaos.ports import free_ports
from zbank.clock import Clock, Now
from zbank.protocol.codec import MAX_FRAME_BYTES, encode_batch
from zbank.protocol.messages import MAX_ROW_BYTES, MAX_ROWS, Feed, Rows
from zbank.transport import feed as feed_module
from zbank.transport.feed import DRAIN_FRAMES, Subscriber, topic_of
from zbank.transport.sockets import MAX_FEED_BYTES


@pytest.fixture
def plain() -> Iterator[Middle]:
    """A feed that knows no keys."""
    with closing(Middle(None)) as middle:
        yield middle


@pytest.fixture
def locked_feed(tmp_path: Path) -> Iterator[Middle]:
    """A feed with keys."""
    with closing(Middle(keys_in(tmp_path))) as middle:
        yield middle


def test_what_a_branch_publishes_its_replica_hears(plain: Middle) -> None:
    plain.learn()
    assert plain.passes()


def test_with_keys_too(locked_feed: Middle) -> None:
    """A limit on frames holds for those of the handshake as well: at 128 bytes nobody came in, and all was asked for."""
    locked_feed.learn()
    assert locked_feed.passes()
    dialled = locked_feed.subscriber._dialer._dialled, locked_feed.publisher._dialer._dialled
    time.sleep(0.5)
    locked_feed.tick()
    assert (locked_feed.subscriber._dialer._dialled, locked_feed.publisher._dialer._dialled) == dialled, "it holds"


def test_nothing_raises_when_nobody_is_there(plain: Middle) -> None:
    rows = [row(n, 10_000) for n in range(1, 100)]
    for one in (plain.publisher, plain.subscriber):
        one.tick()
        assert one.receive() == []
    plain.publisher.publish(rows, CHAIN)  # it was not told yet where the feed is
    plain.end()
    plain.learn()
    for _ in range(200):
        plain.publisher.publish(rows, CHAIN)
        plain.publisher.tick()
    assert plain.subscriber.receive() == []
    for one in (plain.publisher, plain.subscriber):
        one.learn(Feed())  # a coordinator without a feed
        one.tick()
        assert one.receive() == []
    plain.publisher.publish(rows, CHAIN)
    for one in (plain.publisher, plain.subscriber):
        one.learn(Feed("tcp://no such place", "tcp://no such place"))
        one.tick()
    plain.publisher.publish(rows, CHAIN)
    plain.begin()
    plain.learn()
    assert plain.passes()


@pytest.mark.parametrize("secure", [False, True])
def test_it_is_found_again_after_the_coordinators_restart(tmp_path: Path, secure: bool) -> None:
    with closing(Middle(keys_in(tmp_path) if secure else None)) as middle:
        middle.learn()
        assert middle.passes()
        middle.end()
        middle.publisher.publish([row(1)], CHAIN)
        middle.begin()
        assert middle.passes()


def test_another_place_is_followed(plain: Middle) -> None:
    plain.learn()
    assert plain.passes()
    plain.end()
    first, second = free_ports(2, random.Random())
    plain.binds = f"tcp://127.0.0.1:{first}", f"tcp://127.0.0.1:{second}"
    plain.begin()
    plain.learn()
    assert plain.passes()


@pytest.mark.parametrize(
    "sizes",
    [[1] * (2 * MAX_ROWS + 5), [MAX_ROW_BYTES] * 30, [200_000 // 4] * 11, [10] * 999 + [MAX_ROW_BYTES], [1]],
    ids=["many", "long", "middling", "a long one last", "one"],
)
def test_a_big_force_goes_out_in_pieces_that_join(plain: Middle, sizes: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    plain.learn()
    rows = [row(n, size) for n, size in enumerate(sizes, 1_001)]
    bodies: list[int] = []

    def encoded(envelopes: list[tuple[int, Rows]]) -> bytes:
        body = encode_batch(envelopes)
        bodies.append(len(body))
        return body

    monkeypatch.setattr(feed_module, "encode_batch", encoded)
    heard = plain.published(lambda: plain.publisher.publish(rows, CHAIN), rows[-1].seq)
    assert max(bodies) < MAX_FEED_BYTES < MAX_FRAME_BYTES
    assert [info for message in heard for info in message.rows] == [
        type(heard[0].rows[0])(one.epoch, one.at_us, one.kind, one.id, one.body) for one in rows
    ]
    assert all(0 < len(message.rows) <= MAX_ROWS for message in heard)
    assert {(message.epoch, message.seq) for message in heard} == {(1, rows[-1].seq)}
    after, chain = 1_000, CHAIN
    for message in heard:
        assert (message.after, message.chain) == (after, chain)
        after += len(message.rows)
        chain = rows[after - 1_001].chain


@pytest.fixture
def one_moment(monkeypatch: pytest.MonkeyPatch) -> Callable[[], AbstractContextManager[None]]:
    """For a moment that does not end before all is published, however slow that is."""

    @contextmanager
    def moment() -> Iterator[None]:
        with monkeypatch.context() as longer:
            longer.setattr(feed_module, "GATHER_MS", LIMIT_MS)
            yield

    return moment


def test_what_is_forced_in_one_moment_goes_out_together(
    plain: Middle, one_moment: Callable[[], AbstractContextManager[None]]
) -> None:
    """A frame costs the branch as much as a hundred rows."""
    plain.learn()

    def publish() -> None:
        plain.publisher.publish([row(1)], CHAIN)  # nothing was sent for a while: this one goes at once
        with one_moment():
            for n in range(2, 6):
                plain.publisher.publish([row(n)], row(n - 1).chain)
            assert 0 < plain.publisher.flush() <= LIMIT_MS

    heard = plain.published(publish, 5)
    assert [(one.after, len(one.rows), one.seq) for one in heard] == [(0, 1, 1), (1, 4, 5)]


def test_rows_that_do_not_follow_each_other_do_not_go_out_together(
    plain: Middle, one_moment: Callable[[], AbstractContextManager[None]]
) -> None:
    """Between them nobody followed, and nothing was published."""
    plain.learn()

    def publish() -> None:
        plain.publisher.publish([row(1)], CHAIN)
        with one_moment():
            for n in (2, 3, 8, 9):
                plain.publisher.publish([row(n)], row(n - 1).chain)

    heard = plain.published(publish, 9)
    assert [(one.after, len(one.rows)) for one in heard] == [(0, 1), (1, 2), (7, 2)]
    assert [one.chain for one in heard] == [CHAIN, row(1).chain, row(7).chain]


def test_who_does_not_follow_the_branch_hears_nothing_of_it(plain: Middle) -> None:
    plain.learn()
    other = Subscriber(plain.subscriber._dialer, "Mumb")
    other.learn(Feed(*plain.binds))
    assert plain.passes()
    assert other.socket is not None
    assert not other.socket.poll(200)
    other.close()


def test_garbage_is_taken_in_small_helpings_and_passed_over(plain: Middle) -> None:
    """Its reader must come back to its other work, however much there is of it, and whatever it is."""
    plain.learn()
    bad = [(topic_of("Mumbai"), b"\xc1"), (topic_of("Mumbai"),), (topic_of("Mumbai"), b"\x90"), (topic_of("Mumbai"), b"")]
    assert plain.passes()
    assert plain.publisher._socket is not None
    assert plain.subscriber.socket is not None
    for n in range(DRAIN_FRAMES // 2):
        plain.publisher._socket.send_multipart(bad[n % len(bad)])
    time.sleep(0.2)
    assert plain.subscriber.receive() == []
    assert plain.passes()


class Endless:
    """A socket in which there is always one more frame."""

    def __init__(self, body: bytes) -> None:
        self.taken = 0
        self._body = body

    def recv(self, _flags: int) -> bytes:
        self.taken += 1
        return topic_of("Mumbai") if self.taken % 2 else self._body

    def getsockopt(self, _option: int) -> int:
        return self.taken % 2


@pytest.mark.parametrize(("size", "most"), [(1, DRAIN_FRAMES), (500_000, 5)])
def test_a_flood_does_not_hold_its_reader(plain: Middle, size: int, most: int) -> None:
    endless = Endless(b"\xc1" * size)
    plain.subscriber._socket = endless  # type: ignore[assignment]
    assert plain.subscriber.receive() == []
    assert endless.taken == 2 * most
    plain.subscriber._socket = None


def test_a_message_of_many_parts_is_not_taken_in(plain: Middle) -> None:
    plain.learn()
    assert plain.passes()
    assert plain.publisher._socket is not None
    before = plain.subscriber.socket
    plain.publisher._socket.send_multipart([topic_of("Mumbai"), *[b"x"] * 10_000])
    assert before is not None
    assert before.poll(LIMIT_MS)
    assert plain.subscriber.receive() == []
    assert plain.subscriber.socket is not before, "it has begun anew without the rest"
    assert plain.passes()


# --- keys -----------------------------------------------------------------------------------------------------------------


class TwoDaysAhead(Clock):
    """By it keys are over that were to be good for a day yet."""

    def now(self) -> Now:
        real = super().now()
        return real._replace(wall_us=real.wall_us + 2 * 24 * 3600 * 1_000_000)


def two_days_pass(middle: Middle) -> None:
    """For all who look whether a key is good."""
    for keys in (middle.keys, middle.publisher._dialer.keys, middle.subscriber._dialer.keys):
        assert keys is not None
        keys._clock = TwoDaysAhead()


def begun(middle: Middle) -> Thread:
    """Another one each time that the feed begins."""
    return middle.feed._thread


def test_a_key_more_disturbs_nobody_and_a_key_less_is_out(locked_feed: Middle) -> None:
    assert locked_feed.folder is not None
    assert locked_feed.keys is not None
    locked_feed.learn()
    assert locked_feed.passes()
    before = begun(locked_feed)
    keymaking.add(locked_feed.folder, "till-4", "teller", ())
    locked_feed.keys.refresh()
    locked_feed.feed.renew(locked_feed.keys)
    assert begun(locked_feed) is before
    keymaking.revoke(locked_feed.folder, "stand-in")
    locked_feed.keys.refresh()
    locked_feed.feed.renew(locked_feed.keys)
    assert not before.is_alive(), "it begins anew"
    assert not locked_feed.passes(1.5)


def test_a_key_that_came_later_is_put_out_as_well(locked_feed: Middle) -> None:
    assert locked_feed.folder is not None
    assert locked_feed.keys is not None
    before = begun(locked_feed)
    keymaking.add(locked_feed.folder, "late", "replica", ())
    locked_feed.keys.refresh()
    locked_feed.feed.renew(locked_feed.keys)
    assert begun(locked_feed) is before
    keymaking.revoke(locked_feed.folder, "late")
    locked_feed.keys.refresh()
    locked_feed.feed.renew(locked_feed.keys)
    assert not before.is_alive(), "it begins anew"


def test_a_key_that_comes_to_its_end_by_itself_is_out(locked_feed: Middle) -> None:
    """Nobody changes the list then."""
    assert locked_feed.folder is not None
    assert locked_feed.keys is not None
    locked_feed.learn()
    keymaking.rotate(locked_feed.folder, "Delhi", timedelta(days=1))
    locked_feed.keys.refresh()
    locked_feed.feed.renew(locked_feed.keys)
    assert locked_feed.passes()
    before = begun(locked_feed)
    assert len(locked_feed.keys.noted()) == 7
    two_days_pass(locked_feed)
    assert len(locked_feed.keys.noted()) == 6
    locked_feed.feed.renew(locked_feed.keys)
    assert not before.is_alive(), "it begins anew"
    assert locked_feed.passes()


@pytest.mark.parametrize("name", ["coordinator", "Mumbai", "stand-in"])
def test_a_key_is_rotated(locked_feed: Middle, name: str) -> None:
    assert locked_feed.folder is not None
    assert locked_feed.keys is not None
    locked_feed.learn()
    assert locked_feed.passes()
    keymaking.rotate(locked_feed.folder, name, timedelta(days=1))
    locked_feed.keys.refresh()
    locked_feed.feed.renew(locked_feed.keys)
    assert locked_feed.passes()
    two_days_pass(locked_feed)
    locked_feed.feed.renew(locked_feed.keys)
    assert locked_feed.passes(), "also when the old one is over"


# --- what cannot be bounded -------------------------------------------------------------------------------------------------


def test_it_begins_anew_when_the_process_has_grown(
    plain: Middle, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    plain.learn()
    assert plain.passes()
    before = begun(plain)
    grown = feed_module.memory_bytes() + feed_module.MAX_GROWTH_BYTES + (64 << 20)
    with monkeypatch.context() as bigger:
        bigger.setattr(feed_module, "memory_bytes", lambda: grown)
        plain.feed.tick()
    assert "has grown by more than 256 MiB" in caplog.text
    assert plain.passes()
    assert not before.is_alive()


def test_it_begins_anew_when_its_thread_is_gone(plain: Middle, caplog: pytest.LogCaptureFixture) -> None:
    plain.learn()
    assert plain.passes()
    assert plain.feed._control is not None
    plain.feed._control.send(b"TERMINATE")
    plain.feed._thread.join()
    plain.feed.tick()
    assert "ended by itself" in caplog.text
    assert plain.passes()


def test_memory_is_known_on_linux() -> None:
    taken = bytearray(b"x" * (32 << 20))
    assert feed_module.memory_bytes() > len(taken) or not Path("/proc/self/statm").exists()
