"""Ids belong to their caller, also when one connection speaks for many (PROTOCOL T6)."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from msgspec.structs import replace

from tests.unit.protocol_support import (
    BOSS,
    CUSTOMER,
    BranchDesk,
    CoordinatorDesk,
    branch_desk,
    coordinator_desk,
    from_branch,
    id_of,
    legs_of,
    of_kind,
    prepare,
    transfer,
    txn_of,
    yes,
)
from zbank.domain.refusal import Refusal
from zbank.protocol.machine import CONFLICTING_ID, Sender, in_whose_name
from zbank.protocol.messages import (
    ABORTED,
    BRANCH,
    COMMITTED,
    COORDINATOR,
    PENDING,
    Abort,
    Ack,
    AnyMessage,
    Cancel,
    ChangeAccount,
    Forward,
    MakeToken,
    OpenAccount,
    Opened,
    Outcome,
    Prepare,
    Transfer,
    Vote,
)
from zbank.protocol.records import AccountOpened, Executed, Prepared, Refused

LOCAL = transfer(1, legs_of(Mumbai_1001=-30, Mumbai_1002=30))
BETWEEN = transfer(1, legs_of(Mumbai_1001=-30, Delhi_1=30))
TOO_MUCH = transfer(1, legs_of(Mumbai_1001=-300, Mumbai_1002=300))
OPENING = OpenAccount(id_of(1), "2001", "Asha", "", 0)
CHANGE = ChangeAccount(id_of(1), "1001", "", 5)


def mumbai() -> BranchDesk:
    return branch_desk("Mumbai", {"1001": 100, "1002": 50})


def status_of(answer: AnyMessage) -> str:
    assert isinstance(answer, Outcome)
    return answer.status


@pytest.mark.parametrize("message", [LOCAL, Cancel(id_of(1)), OPENING, CHANGE])
def test_a_client_is_heard_in_the_name_it_gives(message: AnyMessage) -> None:
    """And in its own when it gives none."""
    sender = CUSTOMER._replace(caller="bridge")
    assert in_whose_name(sender, message) == sender
    assert in_whose_name(sender, replace(message, caller="asha")) == sender._replace(caller="asha")


@pytest.mark.parametrize("role", [BRANCH, COORDINATOR])
@pytest.mark.parametrize(
    "message", [Forward("asha", LOCAL), prepare(txn_of(1), BETWEEN, "asha"), Abort(txn_of(1), id_of(1), caller="asha")]
)
def test_an_actor_is_who_its_connection_says(role: str, message: AnyMessage) -> None:
    """What an actor says of callers is about others: it never takes another's place."""
    sender = Sender("Delhi", role, "Delhi")
    assert in_whose_name(sender, message) == sender


def test_a_prepare_is_its_coordinators_whoever_the_transfer_is_for() -> None:
    """P11: else the branch would take it for one of another coordinator, and call it stale."""
    desk = mumbai()
    asked = prepare(txn_of(1), replace(BETWEEN, caller="asha"), "asha")
    vote = desk.ask(asked, BOSS)
    assert isinstance(vote, Vote)
    assert vote.answer == "yes"
    record = desk.last
    assert isinstance(record, Prepared)
    assert record.content.caller == "asha"


@pytest.mark.parametrize("message", [LOCAL, TOO_MUCH, OPENING, CHANGE, Cancel(id_of(1))])
def test_another_caller_has_the_id_already(message: AnyMessage) -> None:
    """T6: the same content under the same id, by somebody else: nothing is told, nothing is recorded; also after a
    restart. To who came first the same is told again."""
    desk = mumbai()
    first = desk.ask(replace(message, caller="asha"))
    rows = len(desk.lines)
    for again in (desk, desk.restarted()):
        before = len(again.lines)
        for caller in ("bela", ""):
            assert again.ask(replace(message, caller=caller)) == CONFLICTING_ID
        told = again.ask(replace(message, caller="asha"))
        assert len(again.lines) == before
        assert isinstance(told, Outcome | Opened)
        assert replace(told, replayed=False) == first
    assert len(desk.lines) == rows


def test_whose_it_is_stands_in_the_record() -> None:
    desk = mumbai()
    desk.ask(replace(LOCAL, caller="asha"))
    executed = desk.last
    desk.ask(replace(TOO_MUCH, id=id_of(2), caller="bela"))
    refused = desk.last
    desk.ask(replace(OPENING, id=id_of(3), caller="chandra"))
    opened = desk.last
    assert isinstance(executed, Executed)
    assert isinstance(refused, Refused)
    assert isinstance(opened, AccountOpened)
    assert refused.content is not None
    assert (executed.content.caller, refused.caller, refused.content.caller, opened.caller) == (
        "asha",
        "bela",
        "bela",
        "chandra",
    )


def test_a_refusal_keeps_what_was_refused() -> None:
    """So that it can be listed; a cancel and an account request are no transfers."""
    desk = mumbai()
    desk.ask(TOO_MUCH)
    assert isinstance(desk.last, Refused)
    assert desk.last.content is not None
    assert desk.last.content.legs == TOO_MUCH.legs
    assert desk.last.content.digest == desk.last.digest
    for message in (Cancel(id_of(2)), OpenAccount(id_of(3), "1001", "Asha", "", 0)):
        desk.ask(message)
        assert isinstance(desk.last, Refused)
        assert desk.last.content is None
    desk.ask(
        prepare(txn_of(1), replace(BETWEEN, id=id_of(4), legs=legs_of(Mumbai_1001=-500, Delhi_1=500)), "asha"), BOSS
    )
    assert isinstance(desk.last, Refused)
    assert desk.last.content is not None
    assert desk.last.content.caller == desk.last.caller == "asha"


def test_a_cancel_by_another_learns_nothing_of_what_is_prepared() -> None:
    """T6: neither that the id is in use for a transfer under way, nor what became of it."""
    desk = mumbai()
    desk.ask(prepare(txn_of(1), BETWEEN, "asha"), BOSS)
    assert desk.ask(Cancel(id_of(1), "bela")) == CONFLICTING_ID
    assert status_of(desk.ask(Cancel(id_of(1), "asha"))) == PENDING
    desk.send(Abort(txn_of(1), id_of(1), Refusal("account_frozen", "elsewhere"), b"d" * 16, "asha"), BOSS)
    assert desk.ask(Cancel(id_of(1), "bela")) == CONFLICTING_ID
    assert status_of(desk.ask(Cancel(id_of(1), "asha"))) == ABORTED


def test_a_prepared_id_is_not_anothers_to_use() -> None:
    desk = mumbai()
    desk.ask(prepare(txn_of(1), BETWEEN, "asha"), BOSS)
    for message in (LOCAL, OPENING, CHANGE):
        assert desk.ask(replace(message, caller="bela")) == CONFLICTING_ID
    vote = desk.ask(prepare(txn_of(2), BETWEEN, "bela"), BOSS)
    assert isinstance(vote, Vote)
    assert (vote.answer, vote.other) == ("conflict", None)


# --- through the coordinator -------------------------------------------------------------------------------------------


def coordinator() -> CoordinatorDesk:
    return coordinator_desk().joined()


def test_a_forwarded_transfer_keeps_its_caller() -> None:
    """P1: the branch hears in whose name; what the client wrote into the transfer cannot say otherwise."""
    main, branch = coordinator(), mumbai()
    ((to, forward),) = of_kind(Forward, main.send(replace(LOCAL, caller="asha"), n=1))
    assert (to, forward.caller) == ("Mumbai", "asha")
    assert status_of(branch.ask(forward, BOSS)) == COMMITTED
    assert isinstance(branch.last, Executed)
    assert branch.last.content.caller == "asha"
    forged = Forward("bela", replace(LOCAL, caller="asha"))
    assert branch.ask(forged, BOSS) == CONFLICTING_ID
    assert branch.ask(replace(LOCAL, caller="bela")) == CONFLICTING_ID
    assert status_of(branch.ask(replace(LOCAL, caller="asha"))) == COMMITTED


def ask_collecting(main: CoordinatorDesk, first: Transfer) -> None:
    main.send(first, n=1)


def ask_deciding(main: CoordinatorDesk, first: Transfer) -> None:
    asked = [message for _, message in of_kind(Prepare, main.send(first, n=1))]
    main.turn([yes(asked[0], branch) for branch in ("Mumbai", "Delhi")])


def ask_ended(main: CoordinatorDesk, first: Transfer) -> None:
    asked = [message for _, message in of_kind(Prepare, main.send(first, n=1))]
    main.turn([yes(asked[0], branch) for branch in ("Mumbai", "Delhi")])
    acks = [(from_branch(branch), 0, Ack(asked[0].txn, first.id, 9)) for branch in ("Mumbai", "Delhi")]
    assert [status_of(message) for _, message in of_kind(Outcome, main.turn(acks))] == [COMMITTED]
    main.tick()


@pytest.mark.parametrize("reach", [ask_collecting, ask_deciding, ask_ended])
def test_another_caller_meets_a_transfer_at_the_coordinator(
    reach: Callable[[CoordinatorDesk, Transfer], None],
) -> None:
    """T6, P7: it does not join, and is not told the outcome, at any moment of the first one's life."""
    main = coordinator()
    reach(main, replace(BETWEEN, caller="asha"))
    for caller in ("bela", ""):
        assert main.ask(replace(BETWEEN, caller=caller)) == CONFLICTING_ID
    if reach is not ask_collecting:
        again = main.restarted().joined()
        assert again.ask(replace(BETWEEN, caller="bela")) == CONFLICTING_ID


def test_another_caller_at_a_coordinator_that_knows_nothing_of_the_first() -> None:
    """P2: home knows, and says no more than that the id is taken; the second is told a conflict, never an outcome."""
    main, branch = coordinator(), mumbai()
    branch.ask(Cancel(id_of(1), "asha"))
    ((to, asked), _) = of_kind(Prepare, main.send(replace(BETWEEN, caller="bela"), n=1))
    assert (to, asked.caller) == ("Delhi", "bela")
    vote = branch.ask(asked, BOSS)
    (answer,) = [effect for effect in main.send(vote, from_branch("Mumbai")) if effect.to == CUSTOMER.address]
    assert answer.message == CONFLICTING_ID


def test_a_token_is_made_in_the_callers_name_alone() -> None:
    main = coordinator()
    message = MakeToken(id_of(5), "asha", "bela", "teller", (), bytes(32), 0)
    main.ask(message)
    assert main.ask(replace(message, caller="bela")) == CONFLICTING_ID
