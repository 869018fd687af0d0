"""The drills, in the order in which to learn them. Each is a table of steps; what they mean is in `script`."""

from __future__ import annotations

from zbank.apps.drills.script import (
    CLIENT,
    COORDINATOR,
    FIRST,
    HOME,
    OTHER,
    Ask,
    Crash,
    Drill,
    Freely,
    GiveUp,
    Look,
    Lose,
    Restart,
    Send,
    Wait,
)
from zbank.apps.drills.stories_apart import APART
from zbank.apps.drills.story_parts import BOTH_PROMISE, DECIDED, acks, commits, prepared, told

ALL_GOES_WELL = Drill(
    name="all-goes-well",
    title="Everything goes well",
    question="Two banks, two disks. What makes it one payment and not two halves?",
    lesson="First everybody promises, on disk. Then one decides, on one disk, in one write. Then all do what was decided.",
    outcome="committed",
    steps=(
        Ask(
            text="The client asks for {amount} from {payer} to {payee}. It made the id of this transfer itself, before it "
            "sent anything: whatever gets lost, it may ask again with that id and never pays twice.\n"
            "The coordinator calls this attempt {txn}. It writes nothing down: nobody has promised anything yet.",
            rule="P2",
        ),
        prepared(
            HOME,
            "“Can you, and will you whatever happens?” {home} checks all that could ever stop this payment: funds, limits, "
            "status. It writes “prepared” into its journal and forces it to disk (▣). {amount} of {payer} are now held: "
            "nobody else can spend them.",
        ),
        Send(
            message="vote",
            source=HOME,
            target=COORDINATOR,
            expect="yes",
            text="Only now may the yes leave. It is a promise: {home} cannot say no any more, not even after a crash, for "
            "the promise is on its disk. And the hold never expires by itself.",
            rule="P4",
        ),
        prepared(OTHER, "The same at {other}. (Both are asked at once; here you see one after the other.)"),
        Look(
            text="This is the moment before the decision. Both have promised, nothing is decided, no money has moved."
        ),
        Send(
            message="vote",
            source=OTHER,
            target=COORDINATOR,
            expect="yes",
            forced="decided",
            text="That was the last yes. The coordinator writes “decided” and forces it. This one write is the line of no "
            "return: before this ▣ nothing had happened, after it the transfer is done, whoever crashes.",
            rule="P5",
        ),
        commits(
            HOME, "{home} does what was decided: the hold becomes a booking. It cannot fail, all was checked before."
        ),
        acks(HOME, "The ack leaves after the force, so it never promises more than the disk holds."),
        commits(OTHER, "{other} books the other half."),
        Send(
            message="ack",
            source=OTHER,
            target=COORDINATOR,
            text="All have acknowledged: nothing of this has to be sent again. (The decision itself is kept for good.)",
        ),
        told("committed", "The client hears “committed”: a read at either branch shows the new balance.", "P10"),
    ),
)

DIES_AFTER_VOTES = Drill(
    name="coordinator-dies-after-votes",
    title="The coordinator dies after the votes",
    question="Both branches have promised. The coordinator dies before it has written its decision. "
    "Who may now say what becomes of the money?",
    lesson="No record means abort: what is not on the coordinator's disk was never decided, so giving the money free is "
    "safe. The client's answer is “unknown”, and asking again with the same id is always safe.",
    outcome="committed",
    steps=(
        *BOTH_PROMISE,
        Send(
            message="vote",
            source=OTHER,
            target=COORDINATOR,
            expect="yes",
            decided=False,
            text="The last yes lies in the coordinator's mailbox. We stop here, a breath before it is read and the decision is "
            "forced.",
        ),
        Look(text="Look who knows what, and what of it would outlive a crash."),
        Crash(
            actor=COORDINATOR,
            text="kill -9. The votes were in memory: gone. Both branches are now in doubt: each has promised, neither may "
            "decide alone, the money stays held. (All their other customers are served as ever.)",
            rule="P8",
        ),
        GiveUp(
            text="The client's connection broke. It must not say “failed”: for all it knows, the decision was forced a "
            "moment before the crash. The one honest answer is “unknown”.",
            rule="P6",
        ),
        Restart(
            actor=COORDINATOR,
            text="A new process reads the journal. Of this transfer there is nothing in it. It takes office with a higher "
            "epoch: what an older one began, it knows, is over.",
            rule="P11",
        ),
        Send(
            message="inquiry",
            source=HOME,
            target=COORDINATOR,
            text="{home} meets a coordinator in a new term of office and asks at once about what the old one left behind: "
            "“What became of {txn}?”",
            rule="P8",
        ),
        Send(
            message="abort",
            source=COORDINATOR,
            target=HOME,
            forced="aborted",
            text="“Presumed abort”: {txn} is of an older epoch and not in the journal, so it was surely never decided. "
            "{home} writes that {txn} is void and lets the held money go.",
            rule="P5",
        ),
        Send(message="inquiry", source=OTHER, target=COORDINATOR, text=""),
        Send(message="abort", source=COORDINATOR, target=OTHER, forced="aborted", text="The same at {other}."),
        Look(text="The attempt is void, the transfer's id has no outcome: it may be tried again."),
        Freely(
            what=FIRST,
            expect="committed",
            limit_s=15,
            text="The client asks again, with the same id. A fresh attempt under a new number goes through. Had the first "
            "one been decided after all, the answer would have been its outcome, and nothing would have been paid twice.",
            rule="P7",
        ),
    ),
)

DIES_AFTER_DECISION = Drill(
    name="coordinator-dies-after-decision",
    title="The coordinator dies after the decision",
    question="The decision is on disk, but nobody has been told. The coordinator dies. Done, or not done?",
    lesson="Done. The one forced record decides, not who has heard of it. A restart reads it and tells everybody, "
    "as often as it takes.",
    outcome="committed",
    steps=(
        *BOTH_PROMISE,
        DECIDED,
        Look(text="The whole truth is now in one row on one disk. The Commit messages are ready and have not left."),
        Crash(
            actor=COORDINATOR,
            text="kill -9. No branch has heard anything. For them this looks exactly like the crash before the decision: "
            "that is why they must wait and may not guess.",
            rule="P8",
        ),
        GiveUp(text="The client cannot tell the two cases apart either: “unknown”.", rule="P6"),
        Restart(
            actor=COORDINATOR,
            text="The new process replays its journal and finds the decision, without any ack. As the branches register "
            "again it sends them Commit. (They ask by themselves too, and would get the same answer.)",
            rule="P5",
        ),
        commits(HOME, "{home} books what it had promised to the process that died."),
        acks(HOME),
        commits(OTHER),
        acks(OTHER),
        Ask(text="The client asks again, with the same id."),
        told("committed", "It gets the recorded outcome; nothing is executed again.", "P7"),
    ),
)

BRANCH_DIES = Drill(
    name="branch-dies-after-yes",
    title="A branch dies after voting yes",
    question="{other} has said yes and dies. Must the coordinator wait for it before it decides? May it still commit?",
    lesson="A yes outlives the process that said it: it was forced to disk before it was said. So the others need not wait.",
    outcome="committed",
    steps=(
        *BOTH_PROMISE,
        DECIDED,
        Crash(
            actor=OTHER,
            text="kill -9, after the yes and before it could hear the decision. That stands all the same: a yes binds.",
            rule="P4",
        ),
        Send(
            message="commit",
            source=COORDINATOR,
            target=OTHER,
            arrives=False,
            text="Nobody is there. The coordinator will send it again, until it is acknowledged.",
        ),
        commits(HOME, "{home} does not have to wait for anybody."),
        acks(HOME),
        Wait(
            message="outcome",
            source=COORDINATOR,
            target=CLIENT,
            limit_s=10,
            before="One ack is missing. The coordinator waits for it, 1 s at most, before it tells the client.",
            text="The second is over.",
        ),
        told(
            "committed, still being applied",
            "The client learns the truth: committed, and a branch has still to apply it.",
            "P10",
        ),
        Restart(
            actor=OTHER,
            text="The new process replays its journal and meets its own promise: prepared, no decision. It holds what it "
            "held before, registers, and the coordinator sends what it has not acknowledged.",
            rule="P5",
        ),
        Look(text="{other} is where it was when it died."),
        commits(OTHER, "The promise is kept."),
        acks(OTHER),
    ),
)

DECISION_LOST = Drill(
    name="decision-lost",
    title="The decision is lost",
    question="The Commit for one branch is lost on the way. One half of the money is booked, the other is not. For how long?",
    lesson="What must arrive is sent until it is acknowledged. Meanwhile every branch's books are right on their own, and "
    "the accounts “clearing” show what is on its way.",
    outcome="committed",
    steps=(
        *BOTH_PROMISE,
        DECIDED,
        Lose(
            message="commit",
            source=COORDINATOR,
            target=HOME,
            text="This message never arrives. Nobody gets an error: a lost message and a slow one look the same.",
        ),
        commits(OTHER, "{other} has booked its half."),
        acks(OTHER),
        Look(
            text="Half way: {payee} has its money; at {home} the same amount is still held, so nobody can spend it a second "
            "time.",
        ),
        Wait(
            message="commit",
            source=COORDINATOR,
            target=HOME,
            limit_s=10,
            before="The coordinator misses {home}'s ack. It sends a decision again every 0.5 s; we wait for that.",
            text="There it is, again.",
        ),
        commits(
            HOME,
            "This time it arrives.",
        ),
        acks(HOME),
        told("committed", "All acks are in; the client is told.", "P10"),
    ),
)

ACK_LOST = Drill(
    name="ack-lost",
    title="The ack is lost",
    question="{other} has done all it should, but its ack is lost. It will hear the same Commit again. Will it pay twice?",
    lesson="Every message may come twice. What counts is not the message but the record of it: done is done.",
    outcome="committed",
    steps=(
        *BOTH_PROMISE,
        DECIDED,
        commits(HOME),
        acks(HOME),
        commits(OTHER, "{other} has booked and forced it."),
        Lose(message="ack", source=OTHER, target=COORDINATOR, text="The coordinator never hears of it."),
        Wait(
            message="commit",
            source=COORDINATOR,
            target=OTHER,
            limit_s=10,
            before="For the coordinator {other} has not answered. After 0.5 s it sends the decision again.",
            text="",
        ),
        Send(
            message="commit",
            source=COORDINATOR,
            target=OTHER,
            text="The same Commit, a second time. {other} finds {txn} in its books: no ▣, no booking, just the same ack "
            "again, with the number of the row it already has.",
            rule="P9",
        ),
        acks(OTHER),
        told("committed", "Now the coordinator knows that all is done.", "P10"),
    ),
)

DRILLS: dict[str, Drill] = {
    drill.name: drill
    for drill in (
        ALL_GOES_WELL,
        DIES_AFTER_VOTES,
        DIES_AFTER_DECISION,
        BRANCH_DIES,
        DECISION_LOST,
        ACK_LOST,
        *APART,
    )
}
