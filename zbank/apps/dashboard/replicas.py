"""How a replica does, in words. Pure."""

from __future__ import annotations

from typing import NamedTuple

from zbank.apps.dashboard.rest import Json
from zbank.apps.dashboard.texts import age, count

LEVEL_S = 3.0  #: a replica tells where it stands once a second: every good one seems to lag by about that
SILENT_S = 10.0  #: as in a replica's own alarm


class Standing(NamedTuple):
    """How a replica does."""

    dot: str  #: good, wait or bad
    state: str
    shows: str  #: until when it shows everything
    behind: str  #: in rows; a dash while that is not known
    note: str  #: what a reader has to know; "" = all is well


def standing(replica: Json, branch_is_up: bool) -> Standing:
    """Of one replica, as the bridge tells it."""
    at = _standing(replica, branch_is_up)
    if not replica["synchronous"]:
        return at
    if branch_is_up and at.dot == "bad":
        branch, name = replica["branch"], replica["name"]
        todo = f"Start {name}; if it is lost for good: zbank acks {branch} REPLICA, or zbank acks {branch} none."
        note = f"{branch} has stopped: it answers nothing before {name}, its synchronous replica, has it on its disk. {todo}"
        at = at._replace(note=note)
    return at._replace(state=f"{at.state}, synchronous")


def _standing(replica: Json, branch_is_up: bool) -> Standing:
    name, branch, lag_s = replica["name"], replica["branch"], replica["lag_s"]
    behind = f"{replica['behind']:,}"
    if lag_s is None:
        note = (
            f"{name} has not come to the end of {branch}'s journal since it started: it is catching up, or does not reach "
            f"{branch}. What is read there may be old, and newer accounts may be missing."
        )
        return Standing("wait", "not level yet", "–", behind, note)
    if lag_s <= LEVEL_S:
        return Standing("good", "level", f"{lag_s:.1f} s ago", behind, "")
    if lag_s <= SILENT_S:
        return Standing("wait", "lags", f"{age(lag_s)} ago", behind, "")
    if branch_is_up:
        why = f"{branch} answers, so {name} or the way between them is down, or its rows are not {branch}'s any more"
        note = f"{name} has not caught up with {branch} for {age(lag_s)}. {why}: its log says more."
    else:
        note = f"{name} shows {branch} as it was {age(lag_s)} ago: {branch} does not answer. It catches up by itself."
    return Standing("bad", "silent", f"{age(lag_s)} ago", "–", note)


class Cost(NamedTuple):
    """What it costs that a replica takes the place of its branch. What `zbank promote` says, too."""

    stands: str
    better: str  #: which other one to take; "" = none
    lost: str
    kept: str
    before: str  #: what to see to before


def cost(replica: Json, replicas: list[Json]) -> Cost:
    """Of promoting this one of all replicas."""
    name, branch = replica["name"], replica["branch"]
    if replica["synchronous"]:
        return Cost(
            f"It is the synchronous replica of {branch}.",
            "",
            "nothing that was acknowledged. What was asked and not answered is done or not: the same id may be sent again.",
            f"everything that {branch} answered, to customers and to other branches.",
            f"The old process of {branch}, wherever it may still run, can acknowledge nothing without this replica. To whoever "
            "is connected to it, it may show balances for up to 3 s, then it refuses "
            f"everything. From then on {branch} stands on one disk alone, until another replica is named: "
            f"zbank acks {branch} REPLICA.",
        )
    others = [one for one in replicas if one["branch"] == branch and one["name"] != name]
    whole = next((one["name"] for one in others if one["synchronous"]), "")
    further = ", ".join(one["name"] for one in others if one["position"] > replica["position"])
    better = f"{further} has more: better take that one." if further else ""
    if whole:
        better = f"{whole} is the synchronous replica: take that one, with it nothing that was acknowledged is lost."
    return Cost(
        _stands(replica),
        better,
        f"whatever {branch} did after that, also what customers were told: payments within {branch}, deposits, withdrawals, "
        "new accounts.",
        "payments between branches: the coordinator has them, and they are posted again; what an account cannot bear then "
        "goes to suspense, with an alarm.",
        f"The old process of {branch} must be stopped and must not come back by itself on a machine that the coordinator "
        "cannot reach: there it would go on with payments of its own.",
    )


def _stands(replica: Json) -> str:
    name, lag_s = replica["name"], replica["lag_s"]
    if lag_s is None:
        when = "it was never seen to have all that its branch had"
    else:
        when = f"it had all that its branch had {f'{lag_s:.1f} s' if lag_s < 60 else age(lag_s)} ago"
    stands = f"{name} stands at row {replica['position']:,}: {when}."
    if replica["behind"]:
        stands += f" It is known to lack {count(replica['behind'], 'row')}."
    return stands
