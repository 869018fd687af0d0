"""The drills in which somebody is away, or asks twice, or may not."""

from __future__ import annotations

from zbank.apps.drills.script import (
    CLIENT,
    COORDINATOR,
    FIRST,
    HOME,
    LOCAL,
    OTHER,
    OTHER_CONTENT,
    SECOND,
    Ask,
    Crash,
    Cut,
    Drill,
    Freely,
    GiveUp,
    Heal,
    Look,
    Restart,
    Send,
    Wait,
)
from zbank.apps.drills.story_parts import (
    ASK,
    BOTH_PROMISE,
    DECIDED,
    acks,
    commits,
    prepared,
    told,
    votes_yes,
)

CUT_S = 20

CUT_OFF = Drill(
    name="branch-cut-off",
    title=f"A branch is cut off for {CUT_S} s",
    question="For {cut_s} s no message passes between {other} and the coordinator, while a decided transfer is half done. "
    "What still works?",
    lesson="Work within a branch needs nobody else. What is decided is caught up with by itself; what is not decided is "
    "refused or unknown in time, and can be asked again.",
    outcome="committed",
    moved=2,
    moved_locally=1,
    steps=(
        *BOTH_PROMISE,
        DECIDED,
        commits(HOME),
        acks(HOME),
        Cut(
            actor=OTHER,
            duration_s=CUT_S,
            text="From now on every message between {other} and the coordinator dies at {other}'s door, both ways. (That is "
            "what is simulated. Heartbeats still pass, so the coordinator does not notice: the nastiest kind of cut.) The "
            "Commit for {other} is on its way into nothing. The first client will be told after 1 s: committed, and a branch "
            "has still to apply it.",
        ),
        Freely(
            what=LOCAL,
            expect="committed",
            limit_s=5,
            text="A customer of {other} pays another one of {other}: one record, at once. The coordinator has no part in it.",
            rule="P1",
        ),
        Freely(
            what=SECOND,
            expect="branch_unavailable",
            limit_s=15,
            before="Another client asks for a transfer from {payer} to {payee}. {home} promises, {other} does not hear of it. "
            "The coordinator waits for votes, 4 s at most.",
            text="The second client gets no outcome: “not done, or not known; the same id may be sent again”. {home} takes "
            "its promise back.",
            rule="P6",
        ),
        Heal(
            actor=OTHER,
            before="We wait for the end of the cut. {other} asks about its promise every second, the coordinator sends the "
            "decision every 0.5 s; all of it is lost.",
            text="The cut is over ({lost} messages died). The next Commit gets through, and {other} books what it promised. "
            "Nobody had to do anything.",
            rule="P5",
        ),
        Freely(
            what=SECOND,
            expect="committed",
            limit_s=15,
            text="The second client asks again with the same id: now it goes through.",
            rule="P7",
        ),
    ),
)

ASKED_TWICE = Drill(
    name="same-payment-twice",
    title="The same payment sent twice",
    question="An impatient client sends the same payment again: while it runs, after it is done, and with another amount. "
    "How often is it paid?",
    lesson="Once. The id is the payment: asking again joins it or repeats its outcome, and an id never comes to mean "
    "something else.",
    outcome="committed",
    steps=(
        ASK,
        prepared(HOME),
        Ask(
            text="The same request, over another connection, while the first one runs. The id is known and the content is the "
            "same: it joins. No second Prepare, no second attempt.",
            rule="P7",
        ),
        votes_yes(HOME),
        prepared(OTHER),
        DECIDED,
        commits(HOME),
        acks(HOME),
        commits(OTHER),
        acks(OTHER),
        told("committed", "The first asker is told."),
        told("committed", "So is the second: one payment, two answers."),
        Ask(text="And a third time, after all is over."),
        told("committed, as before", "The recorded outcome. Nothing moves."),
        Ask(what=OTHER_CONTENT, text="Now with the same id and twice the amount: a mistake, or a fraud."),
        Send(
            message="fault",
            source=COORDINATOR,
            target=CLIENT,
            expect="idempotency_conflict",
            text="Refused, and it learns nothing about the payment that has this id.",
            rule="P7",
        ),
    ),
)

NO_MONEY = Drill(
    name="no-money",
    title="No money: a refusal",
    question="{payer} does not have the money. {other} has already promised its side. When may the client be told “no”?",
    lesson="A “no” is an outcome like a “yes”: on disk first, told then, and never changed. The disk is that of the home "
    "branch, which pays.",
    outcome="aborted",
    moved=0,
    too_much=True,
    steps=(
        Ask(text="The client asks for {amount} from {payer} to {payee}: more than is there."),
        prepared(OTHER, "{other} is to receive: it sees nothing that speaks against it, and promises."),
        votes_yes(OTHER),
        Send(
            message="prepare",
            source=COORDINATOR,
            target=HOME,
            forced="refused",
            text="{home} checks and says no. It is the home of this id, so it writes the id's tombstone and forces it: this "
            "id will never execute, even if money comes in a moment from now.",
            rule="P2",
        ),
        Send(
            message="vote",
            source=HOME,
            target=COORDINATOR,
            expect="refused insufficient_funds",
            text="With the tombstone on disk the coordinator may tell. It writes nothing itself: no record means abort.",
            rule="P6",
        ),
        Look(text="{other} still keeps its promise; it has not heard yet."),
        Send(
            message="abort",
            source=COORDINATOR,
            target=OTHER,
            forced="aborted",
            text="{other} is released from its promise.",
        ),
        told("aborted insufficient_funds", "The client is told, after the force.", "P6"),
        Freely(
            what=FIRST,
            expect="aborted",
            limit_s=15,
            text="The client asks again with the same id. {home} knows it (its vote is “known”), and the answer is the same, "
            "for ever. For another try there are fresh ids.",
            rule="P7",
        ),
    ),
)

PAYEE_SAYS_NO = Drill(
    name="payee-says-no",
    title="The other side says no",
    question="{payee} does not exist: not the home branch refuses, but the other. Why is the client not told at once?",
    lesson="Home keeps the id's outcome. Until home has it on disk, a late copy of the same request could still be "
    "executed after the client was told “no”.",
    outcome="aborted",
    moved=0,
    payee="nobody",
    steps=(
        Ask(text="The client asks for {amount} from {payer} to {payee}."),
        prepared(HOME, "{home} promises and holds the money."),
        votes_yes(HOME),
        Send(
            message="prepare", source=COORDINATOR, target=OTHER, text="{other} has no such account. It writes nothing."
        ),
        Send(
            message="vote",
            source=OTHER,
            target=COORDINATOR,
            expect="refused account_not_found",
            text="The coordinator knows that all is off, and still does not tell the client.",
            rule="P6",
        ),
        Look(text="If the client heard “no” now and {home} died, who would remember it?"),
        Send(
            message="abort",
            source=COORDINATOR,
            target=HOME,
            forced="aborted",
            text="The Abort for home carries the refusal. {home} lets the money go and forces the id's tombstone, in one "
            "record.",
        ),
        Send(message="ack", source=HOME, target=COORDINATOR, text="Now the “no” is on the disk where it belongs."),
        told("aborted account_not_found", "And now the client is told.", "P6"),
    ),
)

COORDINATOR_AWAY = Drill(
    name="coordinator-away",
    title="The coordinator is away: the branches ask each other",
    question="The coordinator has decided, told {home}, and died before it told {other}. This time it stays away. "
    "Must {other} wait until it is back?",
    lesson="Whoever knows may tell. A branch in doubt asks the coordinator for ever, and when that is silent also the other "
    "branches. Only if all of them are in doubt, all wait.",
    outcome="committed",
    steps=(
        *BOTH_PROMISE,
        DECIDED,
        commits(HOME, "{home} has heard it and booked."),
        acks(HOME),
        Crash(
            actor=COORDINATOR,
            text="kill -9, before the Commit for {other} has left. It does not come back for a while.",
        ),
        GiveUp(text="The client: “unknown”.", rule="P6"),
        Look(text="{home} has the answer that {other} needs. {other} does not know that yet."),
        Wait(
            message="inquiry",
            source=OTHER,
            target=HOME,
            limit_s=40,
            arrives=True,
            before="{other} asks the coordinator every second and hears nothing. After 3 s of silence it counts as gone, and "
            "what is in doubt for more than 5 s is asked of the other branches. We wait for that.",
            text="{other} asks {home}: “What became of {txn}?”",
            rule="P8",
        ),
        Send(
            message="commit",
            source=HOME,
            target=OTHER,
            forced="committed",
            text="{home} answers from its own record. A commit is a commit, whoever tells: {other} books, without any "
            "coordinator.",
            rule="P8",
        ),
        Look(text="Both have done it, and the coordinator is still away."),
        Restart(
            actor=COORDINATOR,
            text="It comes back, finds its decision without {other}'s ack, and sends Commit again. That changes nothing any "
            "more, but it gets its acks.",
            rule="P9",
        ),
        Freely(
            what=FIRST,
            expect="committed",
            limit_s=15,
            text="The client asks again with the same id, and learns what has long been true.",
            rule="P7",
        ),
    ),
)

APART = (COORDINATOR_AWAY, CUT_OFF, ASKED_TWICE, NO_MONEY, PAYEE_SAYS_NO)
