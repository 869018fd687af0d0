"""The run of a drill: does its steps one by one and gives what came of each, for a terminal, a page or a program.

Time stands still for all actors but in the steps that wait for a timer. What does not go as the script says ends the drill
with a DrillFault that says what happened instead.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

from zbank.apps.drills import script
from zbank.apps.drills.books import Scene
from zbank.apps.drills.conductor import STEP_LIMIT_S, Conductor
from zbank.apps.drills.control import CLIENT_NAME, Arm, Arrived, Cut, Die, DrillFault, ForcedRow, Freeze, Parcel, Thaw
from zbank.apps.drills.customer import Asked, Customer
from zbank.apps.drills.script import CLIENT, COORDINATOR, FIRST, AnyStep, Drill
from zbank.apps.drills.shown import (
    ARROW,
    CRASH,
    CUT,
    HEALED,
    LOST,
    NOBODY,
    OFFICE,
    REST,
    ROW,
    SAYS,
    TIME,
    Announced,
    Beginning,
    Known,
    Mark,
    Result,
    Shown,
    Telling,
    label_of,
)
from zbank.ids import format_id
from zbank.protocol.messages import Fault, Outcome

START_LIMIT_S = 60.0  #: for the launcher to start a killed actor again: it waits longer each time in a row
CALM_S = 0.4  #: without any news: what a step led to is over
CALM_LIMIT_S = 5.0


class Player:
    """Plays one drill once."""

    def __init__(self, drill: Drill, scene: Scene, conductor: Conductor, customer: Customer, endpoint: str) -> None:
        """`endpoint` is the coordinator's."""
        self._drill = drill
        self._scene = scene
        self._conductor = conductor
        self._customer = customer
        self._endpoint = endpoint
        self._id = scene.id_of(FIRST)
        self._waiting: list[Asked] = []  #: requests without an answer, oldest first
        self._holding = True
        self._read = 0  #: of the conductor's log
        self._words = {
            "home": scene.home.name,
            "other": scene.other.name,
            "payer": scene.payer,
            "payee": scene.payee,
            "amount": f"{scene.text(scene.amount_minor)} {scene.money.code}",
            "cut_s": "",
            "txn": "",
            "lost": "",
        }
        self._words["cut_s"] = next((str(step.duration_s) for step in drill.steps if isinstance(step, script.Cut)), "")

    def run(self) -> Iterator[Telling]:
        """Do all steps; raises DrillFault when something does not go as it should."""
        scene, drill = self._scene, self._drill
        self._conductor.greet_with(Arm(self._id.hex(), hold=True), Freeze())
        self._conductor.meet_all(self._id)
        places = (CLIENT, COORDINATOR, scene.home.name, scene.other.name)
        yield Beginning(
            drill.name, drill.title, self._told(drill.question), places, places[2], places[3], format_id(self._id)
        )
        number = 0
        for step in drill.steps:
            looks = isinstance(step, script.Look)
            number += not looks
            if step.before:
                yield Announced(self._told(step.before))
            marks, known = self._do(step)
            yield Shown(
                None if looks else number,
                type(step).__name__.lower(),
                tuple(marks),
                self._told(step.text),
                step.rule,
                tuple(known),
            )
        yield from self._end()

    def _told(self, text: str) -> str:
        return text.format_map(self._words)

    def _do(self, step: AnyStep) -> tuple[list[Mark], list[Known]]:
        marks: list[Mark] = []
        known: list[Known] = []
        if isinstance(step, script.Look):
            known = self._look()
        else:
            marks = _DO[type(step)](self, step)
        return [*self._news(), *marks], known

    def _end(self) -> Iterator[Telling]:
        """Open all gates, wait until nothing is under way, and check the books."""
        marks = self._open()
        self._conductor.say_all(Thaw())
        self._scene.wait_for_rest(self._conductor.pump)
        self._settle()
        marks += self._news()
        known = tuple(self._look())
        text = "All gates are open, time goes on: what was still under way arrives." if marks else ""
        yield Shown(None, REST, tuple(marks), text, "", known)
        accounts = self._scene.accounts()
        outcome = self._scene.outcome()
        ok = accounts.exact and outcome == self._drill.outcome
        yield Result(outcome, self._drill.outcome, accounts, self._told(self._drill.lesson), ok)

    # --- the steps -------------------------------------------------------------------------------------------------

    def _name(self, place: str) -> str:
        return self._scene.names.get(place, place)

    def _ask(self, step: script.Ask) -> list[Mark]:
        transfer = self._scene.transfer(step.what)
        self._waiting.append(self._customer.ask(self._endpoint, transfer, STEP_LIMIT_S))
        return self._take(COORDINATOR, "transfer", CLIENT_NAME, forced="")

    def _send(self, step: script.Send) -> list[Mark]:
        source, target = self._name(step.source), self._name(step.target)
        conductor = self._conductor
        parcel = self._leaving(source, step.message, target)
        if not parcel.detail.startswith(step.expect):
            raise DrillFault(
                f"{source} says {parcel.detail!r} to {target} ({step.message}), and not {step.expect!r} as it should"
            )
        conductor.send(source, parcel)
        if step.target == CLIENT:
            self._wait_for_answer(STEP_LIMIT_S)
            return [_arrow(ARROW, source, target, parcel)]
        if not step.arrives:
            return [_arrow(NOBODY, source, target, parcel)]
        conductor.wait(
            lambda: conductor.came(target, step.message, source) is not None,
            f"{step.message} from {source} at {target}",
        )
        if not step.decided:
            return [_arrow(ARROW, source, target, parcel)]
        return self._take(target, step.message, source, step.forced)

    def _lose(self, step: script.Lose) -> list[Mark]:
        source, target = self._name(step.source), self._name(step.target)
        parcel = self._leaving(source, step.message, target)
        self._conductor.lose(source, parcel)
        return [_arrow(LOST, source, target, parcel)]

    def _crash(self, step: script.Crash) -> list[Mark]:
        name = self._name(step.actor)
        conductor = self._conductor
        conductor.kept_down.add(name)
        starts = conductor.actors[name].starts
        conductor.say(name, Die())
        conductor.wait(
            lambda: conductor.actors[name].line is None or conductor.actors[name].starts > starts, f"the end of {name}"
        )
        if name == COORDINATOR:
            self._waiting = []  # whoever asked has lost the connection
        return [Mark(CRASH, name, label="killed")]

    def _restart(self, step: script.Restart) -> list[Mark]:
        name = self._name(step.actor)
        actor = self._conductor.actors[name]
        self._conductor.let_start(name)
        self._conductor.wait(lambda: actor.epoch > 0, f"the new start of {name}, by the launcher,", START_LIMIT_S)
        return [Mark(OFFICE, name, label=f"epoch {actor.epoch}")]

    def _wait(self, step: script.Wait) -> list[Mark]:
        """Time goes on until a timer has done its work."""
        source, target = self._name(step.source), self._name(step.target)
        conductor = self._conductor
        before_s = time.monotonic()
        awaited = Thaw() if step.arrives else Thaw(step.message, target)
        for name in conductor.actors:
            conductor.say(name, awaited if name == source else Thaw())

        in_vain: dict[str, Parcel] = {}  #: by peer: what was sent and did not arrive

        def is_there() -> bool:
            if not step.arrives:
                return conductor.leaving(source, step.message, target) is not None
            for parcel in list(conductor.actors[source].leaving):
                if parcel.kind == step.message:
                    conductor.send(source, parcel)
                    in_vain.setdefault(parcel.peer, parcel)
            return conductor.came(target, step.message, source) is not None

        conductor.wait(is_there, f"{step.message} from {source} to {target}", step.limit_s)
        conductor.say_all(Freeze())
        in_vain.pop(target, None)
        marks = [*(_arrow(NOBODY, source, peer, parcel) for peer, parcel in in_vain.items()), _passed(before_s)]
        if step.arrives:
            marks += self._take(target, step.message, source, forced="")
        return marks

    def _cut(self, step: script.Cut) -> list[Mark]:
        name = self._name(step.actor)
        self._conductor.say(name, Cut(COORDINATOR, step.duration_s * 1000))
        self._conductor.meet_all(self._id)
        return [Mark(CUT, name, label=f"cut off for {step.duration_s} s"), *self._open()]

    def _freely(self, step: script.Freely) -> list[Mark]:
        marks = self._open()
        before_s = time.monotonic()
        self._conductor.say_all(Thaw())
        self._conductor.watch(self._scene.id_of(step.what))
        endpoint = self._scene.endpoint_of(step.what, self._endpoint)
        self._waiting = [self._customer.ask(endpoint, self._scene.transfer(step.what), STEP_LIMIT_S)]
        answer = self._wait_for_answer(step.limit_s)
        what, detail = (answer.status, "") if isinstance(answer, Outcome) else (answer.code, answer.detail)
        if what != step.expect:
            raise DrillFault(f"the client is told {what}, and not {step.expect} as it should{detail and f': {detail}'}")
        passed = _passed(before_s)
        self._settle()
        self._conductor.say_all(Freeze())
        marks += self._news()
        if isinstance(answer, Fault):  # it names no id: the gates do not see it
            parcel = Parcel(0, "fault", CLIENT_NAME, f"{what}: {detail}")
            marks += [passed, _arrow(ARROW, COORDINATOR, CLIENT, parcel)]
        return marks

    def _heal(self, step: script.Heal) -> list[Mark]:
        actor = self._conductor.actors[self._name(step.actor)]
        before_s = time.monotonic()
        self._conductor.say_all(Thaw())
        self._conductor.wait(lambda: actor.healed, f"the end of the cut of {actor.name}", START_LIMIT_S)
        marks = [*self._news(), _passed(before_s), Mark(HEALED, actor.name, label="cut is over")]

        def has_caught_up() -> bool:
            marks.extend(self._news())
            return any((mark.kind, mark.actor) == (ROW, actor.name) for mark in marks)

        self._conductor.wait(has_caught_up, f"what {actor.name} has missed")
        self._settle()
        self._conductor.say_all(Freeze())
        self._words["lost"] = str(len(actor.lost))
        return [*marks, *self._news()]

    def _give_up(self, step: script.GiveUp) -> list[Mark]:
        return [Mark(SAYS, CLIENT, label="unknown")]

    # --- parts -----------------------------------------------------------------------------------------------------

    def _leaving(self, source: str, kind: str, target: str) -> Parcel:
        """The held message, when it is there."""
        conductor = self._conductor
        conductor.wait(
            lambda: conductor.leaving(source, kind, target) is not None, f"{kind} from {source} for {target}"
        )
        parcel = conductor.leaving(source, kind, target)
        assert parcel is not None
        return parcel

    def _take(self, target: str, kind: str, source: str, forced: str) -> list[Mark]:
        """Wait for a message, let it be decided, and see that exactly this was forced."""
        conductor = self._conductor
        conductor.wait(lambda: conductor.came(target, kind, source) is not None, f"{kind} from {source} at {target}")
        parcel = conductor.came(target, kind, source)
        assert parcel is not None
        turned = conductor.decide(target, parcel)
        kinds = [row.kind for row in turned.rows]
        if kinds != ([forced] if forced else []):
            raise DrillFault(
                f"{target} has forced {', '.join(kinds) or 'nothing'} for {kind} from {source}, "
                f"and not {forced or 'nothing'} as it should"
            )
        first = next((other.detail for other in turned.parcels if other.kind == "prepare"), "")
        self._words["txn"] = self._words["txn"] or first
        return [_arrow(ARROW, source, target, parcel), *(_row(target, row) for row in turned.rows)]

    def _wait_for_answer(self, limit_s: float) -> Outcome | Fault:
        """Until one of the waiting clients is told something; gives that."""
        told: list[Asked] = []

        def is_told() -> bool:
            for asked in self._waiting:
                asked.turn()
                if asked.answer is not None:
                    told.append(asked)
            return bool(told)

        self._conductor.wait(is_told, "an answer to the client", limit_s)
        self._waiting.remove(told[0])
        answer = told[0].answer
        assert answer is not None
        return answer

    def _look(self) -> list[Known]:
        found: list[Known] = []
        for name in self._scene.names.values():
            actor = self._conductor.actors[name]
            if actor.epoch == 0:
                found.append(Known(name, False, 0, (), ()))
                continue
            knowledge = self._conductor.inspect(name, self._id)
            found.append(Known(name, True, knowledge.epoch, knowledge.knows, knowledge.rows))
        return found

    def _open(self) -> list[Mark]:
        """Open all gates for good; what was held goes on its way."""
        if not self._holding:
            return []
        marks = self._news()
        self._holding = False
        for actor in self._conductor.actors.values():
            marks += [_arrow(ARROW, parcel.peer, actor.name, parcel) for parcel in actor.came]
            to_client = [parcel for parcel in actor.leaving if parcel.peer == CLIENT_NAME]
            marks += [_arrow(ARROW, actor.name, CLIENT, parcel) for parcel in to_client]
            actor.forget_held()
        self._conductor.greet_with(Arm(self._id.hex(), hold=False))
        return marks

    def _settle(self) -> None:
        """Hear the actors until there is no more news."""
        end_s = time.monotonic() + CALM_LIMIT_S
        news, calm_s = len(self._conductor.log), time.monotonic()
        while time.monotonic() < min(end_s, calm_s + CALM_S):
            self._conductor.pump(CALM_S / 4)
            if len(self._conductor.log) > news:
                news, calm_s = len(self._conductor.log), time.monotonic()

    def _news(self) -> list[Mark]:
        """What has happened since the last look that was no step of its own."""
        log = self._conductor.log[self._read :]
        self._read += len(log)
        marks: list[Mark] = []
        for name, event in sorted(log, key=lambda said: said[1].at_us):
            if isinstance(event, Arrived):
                if not (self._holding and event.parcel.item):  # else it is drawn when it is decided
                    marks.append(_arrow(ARROW, event.parcel.peer, name, event.parcel))
            elif not event.cause:
                marks += [_row(name, row) for row in event.rows]
                told = [parcel for parcel in event.parcels if parcel.peer == CLIENT_NAME and not parcel.item]
                marks += [_arrow(ARROW, name, CLIENT, parcel) for parcel in told]
        return marks


def _arrow(kind: str, source: str, target: str, parcel: Parcel) -> Mark:
    return Mark(kind, source, target, label_of(parcel), parcel.detail)


def _row(actor: str, row: ForcedRow) -> Mark:
    return Mark(ROW, actor, label=f"{row.kind} #{row.seq}", detail=row.txn)


def _passed(since_s: float) -> Mark:
    return Mark(TIME, label=f"{time.monotonic() - since_s:.1f} s pass")


_DO: dict[type[AnyStep], Callable[[Player, Any], list[Mark]]] = {
    script.Ask: Player._ask,
    script.Send: Player._send,
    script.Lose: Player._lose,
    script.Crash: Player._crash,
    script.Restart: Player._restart,
    script.Wait: Player._wait,
    script.Cut: Player._cut,
    script.Freely: Player._freely,
    script.Heal: Player._heal,
    script.GiveUp: Player._give_up,
}
