"""Fair turns: everybody's messages in their order, nobody's at another's cost."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from zbank.protocol.machine import Sender
from zbank.protocol.messages import CLIENT, AnyMessage, GetAccount, ListAccounts
from zbank.transport import fair
from zbank.transport.engine import Incoming
from zbank.transport.fair import FairQueue, cost_of

LIMIT = 256


def message(owner: str, n: int, what: AnyMessage | None = None) -> Incoming:
    return Sender(owner.encode(), CLIENT, owner), n, what or GetAccount("1")


def filled(**counts: int) -> FairQueue:
    queue = FairQueue()
    for owner, count in counts.items():
        for n in range(count):
            queue.add(owner, message(owner, n))
    return queue


def shares(batch: list[Incoming]) -> Counter[str]:
    return Counter(sender.caller for sender, _, _ in batch)


def test_one_alone_gets_whole_turns() -> None:
    queue = filled(asha=600)
    assert [len(queue.take(LIMIT)) for _ in range(4)] == [256, 256, 88, 0]


def test_two_that_flood_get_the_same() -> None:
    queue = filled(asha=5_000, ravi=5_000)
    assert shares(queue.take(LIMIT)) == {"asha": 128, "ravi": 128}


def test_beside_a_flood_a_client_gets_all_it_asks_for_and_more_than_the_flood() -> None:
    queue = filled(flood=10_000, asha=64)
    taken = shares(queue.take(LIMIT))
    assert taken["asha"] == 64
    assert taken["flood"] <= 64, "the turn ends, so that what asha asks next does not wait for the flood"


def test_a_single_request_beside_a_flood_waits_for_one_share() -> None:
    queue = filled(flood=10_000)
    queue.take(LIMIT)
    queue.add("asha", message("asha", 1))
    batch = queue.take(LIMIT)
    assert shares(batch)["asha"] == 1
    assert len(batch) <= 2 * fair.SHARE


def test_many_small_ones_are_served_in_one_turn() -> None:
    queue = filled(**{f"c{n}": 1 for n in range(32)})
    assert len(queue.take(LIMIT)) == 32


def test_an_actor_brings_the_work_of_many() -> None:
    queue = filled(coordinator=5_000, asha=200)
    taken = shares(queue.take(LIMIT, frozenset({"coordinator"})))
    assert taken["coordinator"] > taken["asha"] > 0


def test_what_is_costly_counts_for_more() -> None:
    search = ListAccounts("", 10, "demo", "")
    queue = filled(asha=1_000)
    for n in range(1_000):
        queue.add("seeker", message("seeker", n, search))
    taken: Counter[str] = Counter()
    for _ in range(4):
        taken += shares(queue.take(LIMIT))
    assert taken["asha"] >= 20 * taken["seeker"]


def test_who_has_very_much_waiting_gets_no_more_in(monkeypatch: object) -> None:
    queue = filled(asha=fair.MAX_WAITING)
    assert not queue.has_room("asha")
    assert queue.has_room("ravi")
    queue.take(LIMIT)
    assert queue.has_room("asha")


owners = st.sampled_from(["asha", "ravi", "mumbai", "delhi"])
kinds = st.sampled_from([GetAccount("1"), ListAccounts("", 5), ListAccounts("", 5, "x", "")])


@given(st.lists(st.tuples(owners, kinds, st.booleans()), max_size=400))
def test_nothing_is_lost_or_told_twice_or_out_of_order(story: list[tuple[str, AnyMessage, bool]]) -> None:
    queue = FairQueue()
    taken: list[Incoming] = []
    for n, (owner, what, serve) in enumerate(story):
        queue.add(owner, message(owner, n, what))
        if serve:
            taken += queue.take(32, frozenset({"mumbai"}))
    while queue.waiting:
        batch = queue.take(32, frozenset({"mumbai"}))
        assert sum(cost_of(what) for _, _, what in batch) <= 32 + fair.SEARCH_COST
        taken += batch
    assert sorted(n for _, n, _ in taken) == list(range(len(story)))
    for owner in ("asha", "ravi", "mumbai", "delhi"):
        own = [n for sender, n, _ in taken if sender.caller == owner]
        assert own == sorted(own)
