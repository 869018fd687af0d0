"""What the bridge answers to those who watch: the actors, what is in doubt, events, figures, and who asks."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from zbank.apps.api.shown import LEGS, ActorDownShown, Decimals, IdText, LegShown, RefusalShown, Shown, Time, example


class CallerShown(Shown):
    """Who asks, and what that one may do here."""

    model_config = example(
        holder="asha", role="customer", accounts=["Mumbai/1001"], may=["pay", "see"], tokens_demanded=True
    )

    holder: str = Field(description="Of the token; empty where no tokens are demanded.")
    role: Literal["customer", "teller", "auditor", "operator"]
    accounts: list[str] = Field(description="A customer's own.")
    may: list[str] = Field(description="What the role may do, as in the table of roles.")
    tokens_demanded: bool = Field(description="False: the demo on this machine, open to anybody here.")


_DECIDE = {"name": "decide", "bounds_ms": [1.0, 2.0], "counts": [0, 41, 1], "total_ms": 66.3}
_COUNTED = {
    "role": "coordinator",
    "name": "coordinator",
    "up": True,
    "counts": {"turns": 80, "between branches committed": 42},
    "histograms": [_DECIDE],
}


class HistogramShown(Shown):
    """How often something took how long, since the actor started."""

    model_config = example(**_DECIDE)

    name: str = Field(description="force: to the disk. vote, decide: since the request. apply: since the decision.")
    bounds_ms: list[float] = Field(description="Upper bounds of the classes; one more class is above them all.")
    counts: list[int]
    total_ms: float


class ActorFiguresShown(Shown):
    """What an actor counts, since it started."""

    model_config = example(**_COUNTED)

    role: Literal["coordinator", "branch"]
    name: str
    up: Literal[True]
    counts: dict[str, int] = Field(description='Turns, messages, journal rows by kind, transfers as "local committed".')
    histograms: list[HistogramShown]


class FiguresShown(Shown):
    """The figures of all actors."""

    model_config = example(actors=[_COUNTED])

    actors: list[ActorFiguresShown | ActorDownShown]


_ACTOR = {
    "role": "branch",
    "name": "Mumbai",
    "up": True,
    "epoch": 3,
    "version": "0.1.0",
    "uptime_s": 12.5,
    "journal_rows": 1042,
    "journal_bytes": 1720320,
    "unposted_rows": 12,
    "in_flight": 0,
    "in_doubt": 0,
    "accounts": 4,
    "currency": "INR",
    "clearing": "50.00",
    "customers": "14950.00",
    "alarms": [],
    "synchronous_replica": None,
    "stopped": False,
}
_BRANCH = {
    "name": "Mumbai",
    "currency": "INR",
    "endpoint": "tcp://127.0.0.1:9100",
    "up": True,
    "synchronous_replica": "Mumbai-replica-1",
}


class ActorShown(Shown):
    """A coordinator or branch that answers."""

    model_config = example(**_ACTOR)

    role: Literal["coordinator", "branch"]
    name: str
    up: Literal[True]
    epoch: int
    version: str
    uptime_s: float
    journal_rows: int
    journal_bytes: int
    unposted_rows: int
    in_flight: int
    in_doubt: int
    accounts: int | None
    currency: str | None
    clearing: Decimals | None = Field(description="Money on its way, from this branch's side.")
    customers: Decimals | None = Field(description="Sum of the customers' balances.")
    alarms: list[str]
    synchronous_replica: str | None = Field(description="It answers nothing before this replica has it on its disk.")
    stopped: bool = Field(description="It takes nothing on, for that replica is away; an alarm says more.")


class ClusterShown(Shown):
    """Who is up, and how they do."""

    model_config = example(name="demo", version="0.1.0", tokens_demanded=False, actors=[_ACTOR])

    name: str
    version: str
    tokens_demanded: bool = Field(description="False: the demo on this machine, open to anybody here.")
    actors: list[ActorShown | ActorDownShown]


class BranchShown(Shown):
    """A branch of the bank."""

    model_config = example(**_BRANCH)

    name: str
    currency: str
    endpoint: str
    up: bool
    synchronous_replica: str | None = Field(
        description="The replica that has to have everything before it is answered, by the last word; null: there is none."
    )


_RETIRED = {"name": "Pune", "currency": "INR", "retired_at": "2026-06-01T12:00:00.000Z"}


class RetiredShown(Shown):
    """A branch that was closed for good."""

    model_config = example(**_RETIRED)

    name: str
    currency: str
    retired_at: Time


class BranchesShown(Shown):
    """All branches, by name; and those that have left, the latest last."""

    model_config = example(branches=[_BRANCH], retired=[_RETIRED])

    branches: list[BranchShown]
    retired: list[RetiredShown]


_REPLICA = {
    "name": "Mumbai-replica",
    "branch": "Mumbai",
    "endpoint": "tcp://127.0.0.1:9200",
    "instance": "01a206e4-6535-7290-a6cf-c388bb3b8b1c",
    "can_lead": True,
    "synchronous": False,
    "epoch": 3,
    "position": 8712,
    "behind": 0,
    "lag_s": 0.12,
}


class ReplicaShown(Shown):
    """A replica, as it last told the coordinator."""

    model_config = example(**_REPLICA)

    name: str
    branch: str
    endpoint: str
    instance: IdText = Field(description="Names its data: what is promoted is this and no other.")
    can_lead: bool = Field(description="It can take its branch's place: where the bank has keys, it has the branch's.")
    synchronous: bool = Field(
        description="Its branch answers nothing before it has it on its disk: by promoting it nothing is lost that was "
        "acknowledged. False in the answer to a promotion: it is the branch then, and stands alone."
    )
    epoch: int = Field(description="Of its last row.")
    position: int = Field(description="Its last row.")
    behind: int = Field(description="Rows that its branch was known to have more.")
    lag_s: float | None = Field(description="It has everything that was there so long ago; null: it never was level.")


class ReplicasShown(Shown):
    """All replicas, by name."""

    model_config = example(replicas=[_REPLICA])

    replicas: list[ReplicaShown]


_IN_DOUBT = {
    "txn": "coordinator-2-17",
    "transfer": "01a206e4-6535-7290-a6cf-c388bb3b8b1c",
    "branch": "Delhi",
    "age_s": 7.25,
}


class InDoubtShown(Shown):
    """A prepared transfer whose decision its branch does not know."""

    model_config = example(**_IN_DOUBT)

    txn: str
    transfer: IdText
    branch: str
    age_s: float


class InDoubtsShown(Shown):
    """What is in doubt, the oldest first."""

    model_config = example(in_doubt=[_IN_DOUBT], missing=[])

    in_doubt: list[InDoubtShown]
    missing: list[ActorDownShown]


_ASKED = {"branch": "Delhi", "whom": ["coordinator"]}


class AskedShown(Shown):
    """A branch that asks now."""

    model_config = example(**_ASKED)

    branch: str
    whom: list[str] = Field(description="The actors that it asks.")


class InquiredShown(Shown):
    """Who asks whom now. What comes of it is seen in the transfer."""

    model_config = example(txn="coordinator-2-17", asked=[_ASKED], missing=[])

    txn: str
    asked: list[AskedShown]
    missing: list[ActorDownShown]


_DRILL = {"name": "all-goes-well", "title": "Everything goes well", "steps": 11}


class DrillShown(Shown):
    """A drill."""

    model_config = example(**_DRILL)

    name: str
    title: str
    steps: int


class DrillsShown(Shown):
    """The drills, in the order in which to learn them."""

    model_config = example(drills=[_DRILL])

    drills: list[DrillShown]


class PlayShown(DrillShown):
    """A drill that is being played, or was."""

    model_config = example(**_DRILL, state="running", told=[], next=0, problem=None)

    state: Literal["running", "waiting", "ended", "failed"] = Field(description="waiting: for the next step to be asked for.")
    told: list[dict[str, Any]] = Field(description="As `zbank drill run --json` tells it.")
    next: int = Field(description="`after` of the next request.")
    problem: str | None = Field(description="Why it ended before its end, or failed.")


class EventShown(Shown):
    """One thing that happened to a transfer at an actor, forced to its disk."""

    model_config = example(
        kind="decision",
        at="2026-11-27T02:00:00.000Z",
        actor="coordinator",
        id="01a206e4-6535-7290-a6cf-c388bb3b8b1c",
        txn="coordinator-1-7",
        vote=None,
        number=12,
        refusal=None,
        legs=LEGS,
        currency="INR",
        memo="rent June",
    )

    kind: Literal["committed", "aborted", "begin", "vote", "decision", "applied", "released"]
    at: Time
    actor: str
    id: IdText
    txn: str | None
    vote: str | None
    number: int | None
    refusal: RefusalShown | None
    legs: list[LegShown]
    currency: str | None
    memo: str
