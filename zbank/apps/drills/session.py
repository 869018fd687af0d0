"""A drill from its beginning to its end: finds the bank and its actors, plays, and leaves the bank as it should be."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

from zbank import Client
from zbank.apps.drills.books import Scene
from zbank.apps.drills.conductor import STEP_LIMIT_S, Conductor
from zbank.apps.drills.control import DrillFault
from zbank.apps.drills.customer import Customer
from zbank.apps.drills.play import Player
from zbank.apps.drills.script import COORDINATOR, Drill
from zbank.apps.drills.shown import REST, Beginning, Shown, Telling
from zbank.config import data_file
from zbank.protocol.messages import StatusInfo

PRESENT_LIMIT_S = 4.0  #: actors look for a conductor ten times a second

Pause = Callable[[Conductor], None]


def play(drill: Drill, bank: Client, endpoint: str, data: Path, pause: Pause) -> Iterator[Telling]:
    """Play a drill with the bank that has its coordinator or a branch at `endpoint` and its data files in `data`.

    `pause` is called before each step; it may wait as long as it likes, while it pumps the conductor. Raises DrillFault
    when the drill cannot begin or goes otherwise, and what the client raises.
    """
    scene = Scene(bank, drill)
    if not data_file(data, COORDINATOR).exists():
        raise DrillFault(
            f"{data.absolute()} holds no data of a bank: say with --data, or --config, where this bank's is"
        )
    with Conductor(data) as conductor, Customer() as customer:
        _gather(conductor, scene, data)
        _check_it_is_this_bank(bank, conductor, endpoint, data)
        coordinator = customer.coordinator_at(endpoint, STEP_LIMIT_S)
        for told in Player(drill, scene, conductor, customer, coordinator).run():
            yield told
            if isinstance(told, Beginning) or (isinstance(told, Shown) and told.step != REST):
                pause(conductor)


def _gather(conductor: Conductor, scene: Scene, data: Path) -> None:
    """Wait until the actors of the scene are there."""
    needed = set(scene.names.values())
    end_s = time.monotonic() + PRESENT_LIMIT_S
    while missing := {name for name in needed if name not in conductor.actors or not conductor.actors[name].epoch}:
        if time.monotonic() > end_s:
            if missing == needed:
                raise DrillFault(
                    "this bank was not started with --drills (python run_cluster.py --drills), "
                    f"or its data is not in {data.absolute()}"
                )
            raise DrillFault(f"{', '.join(sorted(missing))} was not started with --drills: start the whole bank so")
        conductor.pump()


def _check_it_is_this_bank(bank: Client, conductor: Conductor, endpoint: str, data: Path) -> None:
    """The bank that is asked is the one whose gates are held."""
    instances = {actor.instance for actor in conductor.actors.values()}
    for actor in bank.status():
        if isinstance(actor, StatusInfo) and actor.name == COORDINATOR and actor.instance.hex() not in instances:
            raise DrillFault(
                f"the bank at {endpoint} is not the one with data in {data}: say both with --endpoint and --data"
            )
