"""A coordinator on the way to commit, and after it (PROTOCOL P1, P5, P7, P10, C1)."""

from __future__ import annotations

from tests.unit.protocol_support import (
    CUSTOMER,
    SECOND_US,
    CoordinatorDesk,
    coordinator_desk,
    from_branch,
    id_of,
    legs_of,
    of_kind,
    position,
    prepare,
    register,
    transfer,
    txn_of,
    yes,
)
from zbank.domain.legs import content_digest
from zbank.protocol.machine import CONFLICTING_ID, Effect, Sender
from zbank.protocol.messages import (
    COMMITTED,
    Abort,
    Ack,
    Commit,
    Fault,
    Inquiry,
    Outcome,
    Prepare,
    StatusInfo,
    StillPending,
    Transfer,
)
from zbank.protocol.records import BranchAck, BranchVote, Content, Decided, Ended

PAYING = transfer(1, legs_of(Mumbai_1001=-30, Delhi_1001=30))
PREPARE = prepare(txn_of(1), PAYING)
LIMIT_US = SECOND_US  #: how long "committed" waits for the acks


def begun() -> CoordinatorDesk:
    """The customer has asked, as request 5, and the Prepares are out."""
    desk = coordinator_desk().joined()
    desk.send(PAYING, CUSTOMER, 5)
    return desk


def decided(number: int = 0) -> CoordinatorDesk:
    """Both have voted yes, and the Commits are out."""
    desk = begun()
    desk.turn([yes(PREPARE, "Mumbai", number=number), yes(PREPARE, "Delhi")])
    return desk


def ack_of(desk: CoordinatorDesk, branch: str, n: int = 1) -> list[Effect]:
    return desk.send(Ack(txn_of(n), id_of(n), 12), from_branch(branch))


def answers(effects: list[Effect]) -> list[Effect]:
    return [effect for effect in effects if isinstance(effect.to, bytes)]


def told(effects: list[Effect]) -> Outcome:
    """The one answer to the customer's request 5."""
    (effect,) = answers(effects)
    assert (effect.to, effect.n) == (CUSTOMER.address, 5)
    assert isinstance(effect.message, Outcome)
    return effect.message


def test_a_transfer_asks_all_its_branches_for_their_votes() -> None:
    """P3: in parallel, each with all legs, the caller and the digest; nothing is recorded."""
    desk = coordinator_desk().joined()
    before = len(desk.lines)
    effects = desk.send(PAYING, CUSTOMER, 5)
    assert effects == [Effect("Delhi", 0, PREPARE), Effect("Mumbai", 0, PREPARE)]
    assert len(desk.lines) == before


def test_txns_are_never_used_twice() -> None:
    """P3: the running number grows within the epoch, and the epoch with each start."""
    desk = coordinator_desk().joined()
    seen = {m.txn for n in (1, 2) for _, m in of_kind(Prepare, desk.send(transfer(n, PAYING.legs)))}
    desk = desk.restarted().joined()
    seen |= {m.txn for n in (3, 4) for _, m in of_kind(Prepare, desk.send(transfer(n, PAYING.legs)))}
    assert seen == {txn_of(1), txn_of(2), txn_of(1, 2), txn_of(2, 2)}


def test_txns_are_not_used_again_after_a_full_disk() -> None:
    """T2, P3: memory is rebuilt within the epoch; what was voted before may not count for a later txn."""
    desk = begun()
    desk.decide([(CUSTOMER, 6, transfer(2, PAYING.legs))])
    desk.roll_back()
    ((_, asked), _) = of_kind(Prepare, desk.send(transfer(3, PAYING.legs)))
    assert asked.txn == txn_of(3)


def test_after_a_full_disk_the_branches_are_still_there() -> None:
    """T2: nobody registers again because the coordinator's disk was full; decisions go on being sent."""
    desk = decided()
    desk.roll_back()
    assert of_kind(Commit, desk.tick(2 * SECOND_US))
    assert of_kind(Prepare, desk.send(transfer(3, PAYING.legs)))


def test_the_decision_is_recorded_before_anything_of_it_leaves() -> None:
    """P5: the record has txn, all legs, commit number, and each vote with its position and times."""
    desk = begun()
    desk.clock.advance(3000)
    assert desk.turn([position("Mumbai", epoch=3, turn_us=250), yes(PREPARE, "Mumbai", number=4, seq=21)]) == []
    desk.clock.advance(2000)
    effects = desk.decide([yes(PREPARE, "Delhi", number=6, seq=33)])
    assert effects == [Effect("Delhi", 0, Commit(txn_of(1), id_of(1), 7)), Effect("Mumbai", 0, Commit(txn_of(1), id_of(1), 7))]
    (line,) = desk.force()
    digest = content_digest(PAYING.legs, "INR", "", "")
    assert line.record == Decided(
        id_of(1),
        txn_of(1),
        7,
        Content(PAYING.legs, "INR", "", "", digest, ""),
        (BranchVote("Mumbai", 3, 21, 3000, 250), BranchVote("Delhi", 0, 33, 5000, 0)),
        5000,
    )


def test_the_commit_number_is_above_all_that_voted_and_all_that_was_given() -> None:
    """C1: N = max(coordinator's, all votes') + 1."""
    desk = decided(number=40)
    assert desk.state.number == 41
    desk.send(transfer(2, PAYING.legs))
    second = prepare(txn_of(2), transfer(2, PAYING.legs))
    desk.turn([yes(second, "Mumbai", number=7), yes(second, "Delhi", number=0)])
    assert desk.state.number == 42
    assert desk.restarted().state.number == 42


def test_one_yes_is_not_all() -> None:
    """P5: repeats of one branch's vote, votes of strangers and of other txns do not make it unanimous."""
    desk = begun()
    before = len(desk.lines)
    other = prepare(txn_of(2), PAYING)
    batch = [yes(PREPARE, "Mumbai"), yes(PREPARE, "Mumbai"), yes(PREPARE, "Pune"), yes(other, "Delhi")]
    assert desk.turn(batch) == []
    assert len(desk.lines) == before


def test_committed_is_told_when_all_have_applied_it() -> None:
    """P10: the answer waits for the last ack; repeats of an ack count once."""
    desk = decided()
    assert ack_of(desk, "Mumbai") == []
    assert ack_of(desk, "Mumbai") == []
    outcome = told(ack_of(desk, "Delhi"))
    assert (outcome.status, outcome.number, outcome.replayed, outcome.applied) == (COMMITTED, 1, False, True)
    assert ack_of(desk, "Delhi") == []


def test_past_the_limit_committed_is_told_as_still_being_applied() -> None:
    """P10: told once; the decision goes on being sent until the last ack."""
    desk = decided()
    ack_of(desk, "Mumbai")
    assert answers(desk.tick(LIMIT_US - 1)) == []
    outcome = told(desk.tick(1))
    assert (outcome.status, outcome.number, outcome.applied) == (COMMITTED, 1, False)
    later = desk.tick(SECOND_US)
    assert later == [Effect("Delhi", 0, Commit(txn_of(1), id_of(1), 1))]
    assert ack_of(desk, "Delhi") == []


def test_a_decision_is_resent_to_who_is_there_and_has_not_acked() -> None:
    """P5: until every ack is in; to a branch that is away when it comes back."""
    desk = decided()
    ack_of(desk, "Mumbai")
    desk.down("Delhi")
    for _ in range(5):
        assert of_kind(Commit, desk.tick(SECOND_US)) == []
    assert of_kind(Commit, desk.send(register("Delhi", epoch=2), from_branch("Delhi"))) == [
        ("Delhi", Commit(txn_of(1), id_of(1), 1))
    ]


def test_the_end_is_recorded_once_all_have_acked() -> None:
    """P5: acks only stop the resending: the decision is kept."""
    desk = decided()
    desk.clock.advance(7000)
    desk.turn([position("Mumbai", turn_us=300), (from_branch("Mumbai"), 0, Ack(txn_of(1), id_of(1), 12))])
    desk.tick()
    assert not isinstance(desk.last, Ended)
    ack_of(desk, "Mumbai")  # a repeat, which the record does not have
    ack_of(desk, "Delhi")
    desk.tick()
    ended = desk.last
    assert isinstance(ended, Ended)
    ((id, acks),) = [(ending.id, ending.acks) for ending in ended.endings]
    assert (id, acks) == (id_of(1), (BranchAck("Mumbai", 3, 12, 7000, 300), BranchAck("Delhi", 0, 12, 7000, 0)))
    assert desk.state.open == {}
    before = len(desk.lines)
    desk.tick(SECOND_US)
    assert len(desk.lines) == before
    assert desk.restarted().ask(Inquiry(txn_of(1), id_of(1)), from_branch("Delhi")) == Commit(txn_of(1), id_of(1), 1)


def test_the_end_says_when_the_decision_was_on_disk() -> None:
    """For who watches: after the request. After a restart nobody knows."""
    for desk, forced_us in ((decided(), 400), (decided().restarted(), -1)):
        desk.joined(["Mumbai", "Delhi"])
        desk.machine.forced(desk.clock.now().mono_us + 400)
        desk.machine.forced(desk.clock.now().mono_us + 9_999)  # of a later turn
        ack_of(desk, "Mumbai")
        ack_of(desk, "Delhi")
        desk.tick()
        assert isinstance(desk.last, Ended)
        assert [ending.forced_us for ending in desk.last.endings] == [forced_us]


def test_after_a_restart_decisions_are_sent_again() -> None:
    """P5: from the record, as branches register; the client that asks again joins and is told."""
    desk = decided().restarted()
    effects = desk.send(register("Delhi"), from_branch("Delhi"))
    assert of_kind(Commit, effects) == [("Delhi", Commit(txn_of(1), id_of(1), 1))]
    desk.joined(["Mumbai"])
    assert answers(desk.send(PAYING, CUSTOMER, 5)) == []
    ack_of(desk, "Mumbai")
    assert told(ack_of(desk, "Delhi")).status == COMMITTED
    desk.tick()
    ended = desk.last
    assert isinstance(ended, Ended)
    assert [ack.acked_us for ack in ended.endings[0].acks] == [-1, -1]


def test_inquiries_are_answered_from_the_record() -> None:
    """P5: commit from the decision, in any later epoch; abort only for what surely was not decided."""
    delhi = from_branch("Delhi")
    desk = begun()
    assert desk.ask(Inquiry(txn_of(1), id_of(1)), delhi) == StillPending(txn_of(1), id_of(1))
    assert desk.restarted().ask(Inquiry(txn_of(1), id_of(1)), delhi) == Abort(txn_of(1), id_of(1))
    desk = decided()
    for _ in range(3):
        assert desk.ask(Inquiry(txn_of(1), id_of(1)), delhi) == Commit(txn_of(1), id_of(1), 1)
        desk = desk.restarted()
    early = txn_of(77, 1)
    assert desk.ask(Inquiry(early, id_of(1)), delhi) == Abort(early, id_of(1))


def test_an_inquiry_in_the_batch_of_the_decision() -> None:
    """T1, P5: it is answered from what the batch decided, and leaves with it after the force."""
    desk = begun()
    batch = [yes(PREPARE, "Mumbai"), yes(PREPARE, "Delhi"), (from_branch("Delhi"), 0, Inquiry(txn_of(1), id_of(1)))]
    assert of_kind(Abort, desk.decide(batch)) == []
    assert len(desk.force()) == 1


def test_inquiries_about_what_this_coordinator_cannot_know() -> None:
    """P5: nothing is said of another coordinator's txns, nor of an epoch that is still to come."""
    desk = coordinator_desk().joined()
    for txn in (txn_of(1, 1, "second"), txn_of(1, 2)):
        assert desk.ask(Inquiry(txn, id_of(1)), from_branch("Delhi")) == StillPending(txn, id_of(1))


def test_the_same_request_joins_the_running_one() -> None:
    """P7: one run; every asker is told, each under its own number, also while it is being applied."""
    desk = begun()
    other_line = Sender(b"another line", CUSTOMER.role, CUSTOMER.caller)
    assert desk.send(PAYING, other_line, 9) == []
    assert desk.send(PAYING, CUSTOMER, 5) == []
    desk.turn([yes(PREPARE, "Mumbai"), yes(PREPARE, "Delhi")])
    assert desk.send(PAYING, CUSTOMER, 6) == []
    ack_of(desk, "Mumbai")
    effects = ack_of(desk, "Delhi")
    assert [(effect.to, effect.n) for effect in effects] == [(b"customer", 5), (b"another line", 9), (b"customer", 6)]


def test_who_joins_past_the_limit_is_told_at_the_next_tick() -> None:
    """P10: the limit counts from the decision."""
    desk = decided()
    desk.tick(2 * LIMIT_US)
    desk.send(PAYING, CUSTOMER, 5)
    assert told(desk.tick()).applied is False


def test_other_content_under_a_running_or_settled_id() -> None:
    """P7, T6: refused, and nothing is revealed; another caller likewise."""
    desk = begun()
    others = ((transfer(1, PAYING.legs, memo="other"), CUSTOMER), (PAYING, Sender(b"x", CUSTOMER.role, "somebody else")))
    for message, sender in others:
        assert desk.ask(message, sender) == CONFLICTING_ID
    desk = decided().restarted().joined()
    for message, sender in others:
        assert desk.ask(message, sender) == CONFLICTING_ID
    ack_of(desk, "Mumbai")
    ack_of(desk, "Delhi")
    for message, sender in others:
        assert desk.ask(message, sender) == CONFLICTING_ID


def test_a_settled_id_is_told_from_the_record() -> None:
    """P7: the same commit number, marked as a replay."""
    desk = decided(number=9)
    ack_of(desk, "Mumbai")
    first = told(ack_of(desk, "Delhi"))
    desk.tick()
    again = desk.restarted().joined().ask(Transfer(PAYING.id, PAYING.legs[::-1], "INR"))
    assert isinstance(again, Outcome)
    assert (again.status, again.number) == (first.status, first.number) == (COMMITTED, 10)
    assert again.replayed


def test_many_branches_and_legs() -> None:
    """P5: three branches, several legs each: all three votes are needed, all three are told, all three must ack."""
    legs = legs_of(Mumbai_1001=-70, Mumbai_1002=-30, Delhi_1001=40, Delhi_1002=25, Pune_1001=35)
    desk = coordinator_desk().joined()
    assert [to for to, _ in of_kind(Prepare, desk.send(transfer(1, legs), CUSTOMER, 5))] == ["Delhi", "Mumbai", "Pune"]
    asked = prepare(txn_of(1), transfer(1, legs))
    desk.turn([yes(asked, "Mumbai"), yes(asked, "Pune")])
    effects = desk.turn([yes(asked, "Delhi")])
    assert [to for to, _ in of_kind(Commit, effects)] == ["Delhi", "Mumbai", "Pune"]
    for branch in ("Pune", "Mumbai"):
        assert ack_of(desk, branch) == []
    assert told(ack_of(desk, "Delhi")).applied


def test_unanswered_prepares_are_sent_again() -> None:
    """P9: any message may be lost; only those without a vote are asked again."""
    desk = begun()
    desk.turn([yes(PREPARE, "Mumbai")])
    assert desk.tick(SECOND_US) == [Effect("Delhi", 0, PREPARE)]
    assert of_kind(Prepare, desk.send(register("Delhi"), from_branch("Delhi"))) == [("Delhi", PREPARE)]


def test_a_decision_lost_with_a_full_disk_was_never_made() -> None:
    """T2, P5: the record was rolled back, so nothing of it left; the branches may be told abort."""
    desk = begun()
    desk.decide([yes(PREPARE, "Mumbai"), yes(PREPARE, "Delhi")])
    desk.roll_back()
    assert desk.ask(Inquiry(txn_of(1), id_of(1)), from_branch("Delhi")) == Abort(txn_of(1), id_of(1))
    assert answers(desk.tick(10 * SECOND_US)) == []
    fault = Fault(code="storage_full", detail="no room")
    assert list(desk.machine.decline(CUSTOMER, 5, PAYING, fault)) == [Effect(CUSTOMER.address, 5, fault)]
    assert not desk.machine.decline(*yes(PREPARE, "Mumbai"), fault)


def test_status_counts_what_is_in_flight() -> None:
    """The status is what the machine knows."""
    desk = decided()
    desk.send(transfer(2, PAYING.legs))
    status = desk.status()
    assert isinstance(status, StatusInfo)
    assert (status.role, status.in_flight, status.number, status.accounts) == ("coordinator", 2, 1, -1)
