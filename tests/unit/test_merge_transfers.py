"""The whole bank's list of transfers, page by page from all branches: each transfer once, whoever is away for a while."""

from __future__ import annotations

from collections.abc import Mapping

from hypothesis import given
from hypothesis import strategies as st

from tests.unit.protocol_support import id_of
from zbank.protocol.messages import TransferInfo, TransferListed, TransfersPage
from zbank.transport.client_joins import merge_transfers

Lists = Mapping[str, list[TransferListed]]  #: by branch, newest first


def listed(seq: int, at_us: int, n: int) -> TransferListed:
    """A line of a branch's list, as a branch tells it: its cursor is its row."""
    return TransferListed(str(seq), TransferInfo(id_of(n), "committed", None, (), "", "", "", 1, at_us, None, (), ()))


def lists_of(times_us: Mapping[str, list[int]]) -> Lists:
    """For each branch one transfer at each of these times."""
    names = sorted(times_us)
    return {
        name: [
            listed(seq, at_us, 100 * names.index(name) + seq)
            for seq, at_us in reversed(list(enumerate(sorted(times_us[name]), start=1)))
        ]
        for name in names
    }


def page_of(lines: list[TransferListed], cursor: str, limit: int, most: int) -> TransfersPage:
    """What a branch answers: lines older than the cursor, never more than it looks through at once (`most`)."""
    after = [one for one in lines if not cursor or int(one.cursor) < int(cursor)]
    shown = after[: min(limit, most)]
    if len(after) == len(shown):
        return TransfersPage(tuple(shown), "")
    return TransfersPage(tuple(shown), str(int(after[len(shown)].cursor) + 1))


TIMES = st.dictionaries(
    st.sampled_from(("Delhi", "Mumbai", "Pune")), st.lists(st.integers(1, 12), max_size=12), min_size=1
)


@given(times_us=TIMES, limit=st.integers(1, 7), most=st.integers(0, 5), away=st.just(set[int]()) | st.sets(st.integers(0, 20)))
def test_all_pages_together_are_everything_once(
    times_us: dict[str, list[int]], limit: int, most: int, away: set[int]
) -> None:
    """Also when a branch is away at some of the pages, and when pages are short or empty and not the last."""
    lists = lists_of(times_us)
    cursors = dict.fromkeys(lists, "")
    found: list[TransferListed] = []
    pages_read = 0
    while cursors:
        at_home = [name for name in sorted(cursors) if (pages_read * 3 + sorted(lists).index(name)) not in away]
        # A branch that has nothing in so many rows goes on with the next ones at the next page.
        pages = {name: page_of(lists[name], cursors[name], limit, max(1, most)) for name in at_home}
        chosen, cursors = merge_transfers(cursors, pages, limit)
        assert len(chosen) <= limit
        assert [one.info.at_us for one in chosen] == sorted((one.info.at_us for one in chosen), reverse=True)
        found += chosen
        pages_read += 1
        assert pages_read < 200
    if not away:
        times = [one.info.at_us for one in found]
        assert times == sorted(times, reverse=True), "newest first from page to page"
    every = sorted(one.info.id for lines in lists.values() for one in lines)
    assert sorted(one.info.id for one in found) == every


def test_a_branch_without_an_answer_is_asked_from_the_same_place_again() -> None:
    line = listed(3, 5, 1)
    chosen, following = merge_transfers({"Delhi": "9", "Mumbai": "7"}, {"Delhi": TransfersPage((line,), "")}, 10)
    assert (chosen, following) == ([line], {"Mumbai": "7"})


def test_an_empty_page_that_is_not_the_last_moves_its_branch_on() -> None:
    pages = {"Delhi": TransfersPage((), "4"), "Mumbai": TransfersPage((), "")}
    assert merge_transfers({"Delhi": "9", "Mumbai": ""}, pages, 10) == ([], {"Delhi": "4"})


def test_a_branch_goes_on_after_its_last_line_that_was_taken() -> None:
    """And from where its page began when none was: others had newer ones."""
    delhi = [listed(seq, at_us, seq) for seq, at_us in ((9, 90), (8, 80), (7, 20))]
    mumbai = [listed(seq, at_us, 100 + seq) for seq, at_us in ((5, 70), (4, 60))]
    pune = [listed(2, 10, 200)]
    pages = {
        name: TransfersPage(tuple(lines), "") for name, lines in (("Delhi", delhi), ("Mumbai", mumbai), ("Pune", pune))
    }
    chosen, following = merge_transfers(dict.fromkeys(pages, ""), pages, 3)
    assert chosen == [*delhi[:2], mumbai[0]]
    assert following == {"Delhi": "8", "Mumbai": "5", "Pune": ""}


def test_what_is_older_than_a_short_page_waits_for_the_next() -> None:
    """Else a later page would have newer transfers than this one."""
    pages = {
        "Delhi": TransfersPage((listed(9, 90, 1),), "7"),
        "Mumbai": TransfersPage((listed(5, 95, 2), listed(4, 80, 3)), ""),
    }
    chosen, following = merge_transfers(dict.fromkeys(pages, ""), pages, 10)
    assert [one.info.at_us for one in chosen] == [95, 90]
    assert following == {"Delhi": "7", "Mumbai": "5"}
