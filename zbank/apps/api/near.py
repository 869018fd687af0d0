"""Reading at a replica, where the caller allows it; the branch itself answers whenever no replica can."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from zbank import Client
from zbank.apps.api.endpoint import Ask
from zbank.apps.api.queries import NearQuery
from zbank.errors import NoAnswer, RemoteFault, Unreachable

REPLICA_S = 1.0  #: so long a replica is waited for
NOT_THERE = frozenset({"stale", "replica_not_found", "not_a_replica"})

T = TypeVar("T")


def read_near(ask: Ask, branch: str, read: Callable[[Client], T]) -> T:
    """Read at a replica of the branch when the query says that this will do."""
    query: NearQuery = ask.query
    if query.max_staleness_s is None and query.position is None:
        return read(ask.bank)
    after = {} if query.position is None else {branch: query.position}
    try:
        return read(ask.bank.at_replicas(max_lag_s=query.max_staleness_s, after=after, timeout_s=REPLICA_S))
    except RemoteFault as error:
        if error.remote_code not in NOT_THERE:
            raise
    except (NoAnswer, Unreachable):
        pass  # it is gone, or slow
    return read(ask.bank)
