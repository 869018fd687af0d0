"""A synchronous replica that lies, is full, was put back, or is it no more; and what waits for it (PROTOCOL R3)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.transport.actors import INSTANCE
from tests.transport.test_synchronous import THE_ONE, Pair
from zbank.protocol.messages import (
    GetRows,
    Held,
)

OTHER = bytes(range(1, 17))  #: instance of another replica's store


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Pair]:
    """A branch with a replica that is synchronous."""
    with closing(Pair(tmp_path)) as both:
        both.name()
        both.left.clear()
        yield both


def test_a_row_that_is_not_here_yet_is_not_acknowledged_by_no_chain_value(pair: Pair) -> None:
    assert pair.pay() == []
    pair.on_the_way.clear()
    seq = pair.branch.store.seq
    pair.send(GetRows(seq, 10, Held(INSTANCE, seq + 1_000_000, b"")), THE_ONE)
    assert pair.pay() == []
    assert pair.left == []
