"""The table of who may send what to whom."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import get_args

import pytest

from zbank.domain.legs import Leg
from zbank.protocol import messages
from zbank.protocol.messages import (
    AUDITOR,
    BRANCH,
    BRIDGE,
    CLIENT,
    COORDINATOR,
    OPERATOR,
    REPLICA,
    TELLER,
    AnyMessage,
    Fault,
    Hello,
    Prepare,
    Transfer,
    TransferInfo,
    Welcome,
)
from zbank.transport.access import ANYBODY, ON_LINK, ON_SERVER, only_own, why_forbidden
from zbank.transport.keys import PEOPLE, Key

MADE = datetime(2026, 1, 1, tzinfo=UTC)

#: what only actors say: no client may, to nobody
_AMONG_ACTORS = set(get_args(messages.Peer)) - {messages.Beat}


def test_no_client_may_say_what_actors_say_to_each_other() -> None:
    for (_, role), kinds in ON_SERVER.items():
        assert role in (BRANCH, REPLICA) or not kinds & _AMONG_ACTORS


def test_a_request_is_taken_by_somebody_and_never_from_a_branch() -> None:
    for kind in get_args(messages.Request):
        roles = {role for (_, role), kinds in ON_SERVER.items() if kind in kinds}
        assert roles >= {ANYBODY, OPERATOR}
        assert kind is Hello or BRANCH not in roles


@pytest.mark.parametrize("listener", [BRANCH, COORDINATOR, REPLICA])
def test_no_coordinator_calls_anybody(listener: str) -> None:
    assert (listener, COORDINATOR) not in ON_SERVER


def test_a_replica_asks_for_rows_and_says_where_it_stands() -> None:
    assert ON_SERVER[BRANCH, REPLICA] == {Hello, messages.Beat, messages.GetRows}
    assert ON_SERVER[COORDINATOR, REPLICA] == {Hello, messages.Beat, messages.RegisterReplica, messages.GetRows}


def test_what_stands_on_suspense_is_settled_by_an_operator_alone() -> None:
    settled = pays("Mumbai/suspense", "Mumbai/1")
    allowed = [role for role in PEOPLE if not why_forbidden(key(role, "Mumbai/1"), "Mumbai", settled)]
    assert OPERATOR in allowed
    assert TELLER not in allowed
    assert CLIENT not in allowed


def test_the_coordinators_rows_are_for_replicas_of_it_alone() -> None:
    asked = messages.GetRows(0, 1)
    mumbai, standby = (Key(name=name, role=REPLICA, public="0" * 40, made=MADE) for name in ("Mumbai-2", "coordinator-2"))
    assert why_forbidden(mumbai, "coordinator", asked)
    assert not why_forbidden(mumbai, "Mumbai", asked)
    assert not why_forbidden(standby, "coordinator", asked)


def test_at_a_replica_all_may_ask_what_they_may_ask_its_branch_and_nothing_else() -> None:
    for role in (ANYBODY, *PEOPLE):
        assert ON_SERVER[REPLICA, role] - {messages.Promote} <= ON_SERVER[BRANCH, role]
        assert (messages.Promote in ON_SERVER[REPLICA, role]) is (role in {OPERATOR, ANYBODY})
        assert not ON_SERVER[REPLICA, role] & {Transfer, messages.Cancel, messages.OpenAccount, messages.ChangeAccount}
    assert messages.GetEntries in ON_SERVER[REPLICA, CLIENT]


def test_without_keys_everybody_may_what_any_person_may() -> None:
    for listener in (BRANCH, COORDINATOR):
        people = frozenset[type[AnyMessage]]().union(*(ON_SERVER[listener, role] for role in PEOPLE))
        assert ON_SERVER[listener, ANYBODY] == people


def key(role: str, *accounts: str) -> Key:
    return Key(name="asha", role=role, public="0" * 40, made=MADE, accounts=accounts)


def pays(source: str, destination: str) -> Transfer:
    (giver, given), (taker, taken) = source.split("/"), destination.split("/")
    return Transfer(bytes(16), (Leg(giver, given, -5), Leg(taker, taken, 5)), "INR")


@pytest.mark.parametrize(
    ("message", "why"),
    [
        (messages.GetAccount("1"), ""),
        (messages.GetAccount("2"), "Mumbai/2 is not an account of asha"),
        (messages.GetEntries("2", True, "", 5), "Mumbai/2 is not an account of asha"),
        (pays("Mumbai/1", "Delhi/7"), ""),
        (pays("Delhi/7", "Mumbai/1"), "Delhi/7 is not an account of asha: it can pay from its own only"),
        (pays("Mumbai/cash", "Mumbai/1"), "Mumbai/cash is the bank's own: a teller's key may use it"),
        (pays("Mumbai/1", "Mumbai/cash"), "Mumbai/cash is the bank's own: a teller's key may use it"),
        (messages.Cancel(bytes(16), "ravi"), "asha asks in its own name: only a bridge's key speaks for others"),
    ],
)
def test_a_client_has_its_own_accounts_and_its_own_name(message: AnyMessage, why: str) -> None:
    assert why_forbidden(key(CLIENT, "Mumbai/1"), "Mumbai", message) == why


def test_the_same_number_at_another_branch_is_another_account() -> None:
    assert why_forbidden(key(CLIENT, "Mumbai/1"), "Delhi", messages.GetAccount("1"))


def test_a_teller_has_all_accounts_and_one_name_and_a_bridge_any_name() -> None:
    assert why_forbidden(key(TELLER), "Mumbai", pays("Mumbai/cash", "Mumbai/1")) == ""
    assert why_forbidden(key(TELLER), "Mumbai", messages.Cancel(bytes(16), "ravi"))
    assert why_forbidden(key(BRIDGE), "Mumbai", messages.Cancel(bytes(16), "ravi")) == ""


def test_of_a_transfer_between_others_a_client_hears_nothing() -> None:
    legs = (Leg("Mumbai", "1", -5), Leg("Delhi", "7", 5))
    info = TransferInfo(bytes(16), "committed", None, legs, "INR", "rent", "", 3, 9, None, (), ())
    assert only_own(key(CLIENT, "Delhi/7"), info) is info
    nothing = TransferInfo(bytes(16), "unknown", None, (), "", "", "", 0, 0, None, (), ())
    assert only_own(key(CLIENT, "Delhi/8"), info) == nothing


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
        (BRANCH, AUDITOR, Transfer, False),
        (BRANCH, AUDITOR, messages.ListAccounts, True),
        (BRANCH, CLIENT, messages.ListAccounts, False),
        (BRANCH, CLIENT, messages.OpenAccount, False),
        (BRANCH, TELLER, messages.OpenAccount, True),
        (COORDINATOR, TELLER, messages.MakeToken, False),
        (COORDINATOR, BRIDGE, messages.MakeToken, False),
        (COORDINATOR, BRIDGE, messages.GetTokens, True),
        (COORDINATOR, OPERATOR, messages.MakeToken, True),
        (COORDINATOR, OPERATOR, messages.RetireBranch, True),
        (COORDINATOR, BRIDGE, messages.RetireBranch, False),
        (COORDINATOR, TELLER, messages.RetireBranch, False),
        (COORDINATOR, BRANCH, messages.RetireAnswer, True),
        (BRANCH, BRANCH, messages.Retire, False),
    ],
)
def test_who_may_send_what(listener: str, caller: str, kind: type[AnyMessage], taken: bool) -> None:
    assert (kind in ON_SERVER[listener, caller]) is taken


def test_a_decision_is_taken_from_a_link_only_by_who_may_make_or_know_it() -> None:
    assert {Prepare, messages.Commit, messages.Abort} <= ON_LINK[COORDINATOR]
    assert messages.Commit in ON_LINK[BRANCH]
    assert Prepare not in ON_LINK[BRANCH]
    assert messages.Forward not in ON_LINK[BRANCH]
