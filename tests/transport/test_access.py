"""The table of who may send what to whom."""

from __future__ import annotations

from typing import get_args

import pytest

from zbank.protocol import messages
from zbank.protocol.messages import (
    BRANCH,
    CLIENT,
    COORDINATOR,
    AnyMessage,
    Fault,
    Hello,
    Prepare,
    Transfer,
    Welcome,
)
from zbank.transport.access import ON_LINK, ON_SERVER

#: what only actors say: no client may, to nobody
_AMONG_ACTORS = set(get_args(messages.Peer)) - {messages.Beat}


def test_no_client_may_say_what_actors_say_to_each_other() -> None:
    for (_, role), kinds in ON_SERVER.items():
        assert role != CLIENT or not kinds & _AMONG_ACTORS


def test_a_request_of_customers_is_taken_by_somebody_and_from_customers_alone() -> None:
    for kind in get_args(messages.Request):
        takers = {pair for pair, kinds in ON_SERVER.items() if kind in kinds}
        assert {role for _, role in takers} >= {CLIENT}
        assert kind is Hello or {role for _, role in takers} == {CLIENT}


def test_every_message_is_taken_somewhere() -> None:
    answers = set(get_args(messages.Answer)) - {Fault, messages.Outcome, Welcome}  # to customers
    taken = frozenset[type[AnyMessage]]().union(*ON_SERVER.values(), *ON_LINK.values())
    assert taken == set(get_args(AnyMessage)) - answers


@pytest.mark.parametrize(
    ("listener", "caller", "kind", "taken"),
    [
        (BRANCH, CLIENT, Transfer, True),
        (BRANCH, CLIENT, Prepare, False),
        (BRANCH, CLIENT, messages.Commit, False),
        (BRANCH, BRANCH, messages.Inquiry, True),
        (BRANCH, BRANCH, messages.Commit, False),
        (BRANCH, BRANCH, Transfer, False),
        (COORDINATOR, CLIENT, messages.Cancel, False),
        (COORDINATOR, CLIENT, messages.Vote, False),
        (COORDINATOR, BRANCH, messages.Vote, True),
        (COORDINATOR, BRANCH, Transfer, False),
    ],
)
def test_who_may_send_what(listener: str, caller: str, kind: type[AnyMessage], taken: bool) -> None:
    assert (kind in ON_SERVER[listener, caller]) is taken


def test_a_decision_is_taken_from_a_link_only_by_who_may_make_or_know_it() -> None:
    assert {Prepare, messages.Commit, messages.Abort} <= ON_LINK[COORDINATOR]
    assert messages.Commit in ON_LINK[BRANCH]
    assert Prepare not in ON_LINK[BRANCH]
    assert messages.Forward not in ON_LINK[BRANCH]
