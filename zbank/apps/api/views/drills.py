"""Drills: stop two-phase commit, break something, watch it heal. Only where the bank was started with --drills."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zbank.apps.api.access import DRILL
from zbank.apps.api.endpoint import Answer, Ask, Reply, Routes
from zbank.apps.api.given import PlayGiven
from zbank.apps.api.problems import Problem
from zbank.apps.api.queries import ToldQuery
from zbank.apps.api.shown_watch import DrillsShown, PlayShown

if TYPE_CHECKING:
    from zbank.apps.api.stage import Stage

routes = Routes("drills")

OFF = "drills_off"


def _stage(ask: Ask) -> Stage:
    if ask.bridge.stage is None:
        raise Problem(OFF, "this bank was not started for drills: python run_cluster.py --drills")
    return ask.bridge.stage


@routes.add("GET", "/v1/drills", act=DRILL, answers=[Answer(200, "All drills.", DrillsShown)], problems=[OFF])
def list_drills(ask: Ask) -> Reply:
    """The drills, in the order in which to learn them."""
    _stage(ask)
    from zbank.apps.drills.stories import DRILLS

    found = [{"name": one.name, "title": one.title, "steps": one.count} for one in DRILLS.values()]
    return Reply({"drills": found})


@routes.add(
    "POST",
    "/v1/drills/<drill>/play",
    act=DRILL,
    body=PlayGiven,
    answers=[Answer(201, "It is being played.", PlayShown)],
    problems=[OFF, "drill_not_found", "drill_running"],
)
def play_drill(ask: Ask, drill: str) -> Reply:
    """Play a drill with the running bank, at once or step by step. It moves a little money between two branches."""
    stage = _stage(ask)
    stage.play(drill, in_steps=ask.body.step)
    return Reply(stage.shown(), 201)


@routes.add(
    "GET",
    "/v1/drills/play",
    act=DRILL,
    answers=[Answer(200, "How far it is.", PlayShown)],
    problems=[OFF, "drill_not_found"],
    query=ToldQuery,
)
def show_play(ask: Ask) -> Reply:
    """The play at hand, or the last one: what was told from the `after`-th on, as `zbank drill run --json` tells it."""
    return Reply(_stage(ask).shown(ask.query.after))


@routes.add(
    "POST",
    "/v1/drills/play/next",
    act=DRILL,
    answers=[Answer(200, "It goes on.", PlayShown)],
    problems=[OFF, "drill_not_found"],
)
def next_step(ask: Ask) -> Reply:
    """Let a play that waits take its next step."""
    stage = _stage(ask)
    stage.step()
    return Reply(stage.shown())


@routes.add(
    "POST",
    "/v1/drills/play/end",
    act=DRILL,
    answers=[Answer(200, "It is over.", PlayShown)],
    problems=[OFF, "drill_not_found"],
)
def end_play(ask: Ask) -> Reply:
    """End the play. All gates open, and the bank goes on by itself."""
    stage = _stage(ask)
    stage.end()
    return Reply(stage.shown())
