"""The actor's side of a drill: real gates in a real engine over a real store, and a conductor on a real socket."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.transport import actors
from tests.transport.actors import Desk, branch, pay
from tests.unit.protocol_support import BOSS, CUSTOMER, SECOND_US, id_of, prepare, txn_of
from zbank.apps.drills import conductor as conductor_module
from zbank.apps.drills.conductor import Conductor
from zbank.apps.drills.control import Arm, Cut, Die, DrillFault, Freeze, Parcel, Release, Thaw, socket_path
from zbank.apps.drills.engine import DrillEngine
from zbank.protocol.inquiry import INQUIRE_AFTER_US
from zbank.protocol.machine import Effect
from zbank.protocol.messages import BRANCH, AnyMessage, Commit, Inquiry, Outcome, Position, Prepare, Vote

HOUR_US = 3600 * SECOND_US
INSTANT_US = 1
ID = id_of(1)


@pytest.fixture
def mumbai(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    """A branch with accounts 1 and 2, 100.00 on each, whose engine has gates."""
    monkeypatch.setattr(actors, "Engine", DrillEngine)
    desk = branch(tmp_path, "1", "2")
    yield desk
    desk.engine.close()


@pytest.fixture
def conductor(mumbai: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Conductor]:
    """A conductor that Mumbai has met, with the gates of the first id armed."""
    monkeypatch.setattr(conductor_module, "PRESENT_LIMIT_S", 20.0)  # who starts in another thread may be slow
    with Conductor(tmp_path) as listening:
        listening.greet_with(Arm(ID.hex(), hold=True))
        step(mumbai, listening)
        step(mumbai, listening)
        yield listening


def step(desk: Desk, conductor: Conductor, after_us: int = INSTANT_US) -> list[AnyMessage]:
    """A tick of the actor, which hears the conductor, which then hears the actor; what leaves."""
    left = messages(desk.tick(after_us))
    conductor.pump(0)
    return left


def messages(effects: list[Effect]) -> list[AnyMessage]:
    return [effect.message for effect in effects]


def out(n: int = 1) -> Prepare:
    """Prepare of a payment of 10.00 from Mumbai/1 to Delhi/9."""
    return prepare(txn_of(n), pay(n, "Mumbai/1", "Delhi/9", 10_00))


def came(desk: Desk, conductor: Conductor, message: AnyMessage) -> list[AnyMessage]:
    """The coordinator's message arrives; what leaves at once."""
    left = messages(desk.turn((BOSS, 0, message)))
    conductor.pump(0)
    return left


def release(desk: Desk, conductor: Conductor, parcel: Parcel) -> list[AnyMessage]:
    """A held message is let go; what leaves."""
    actor = conductor.actors["Mumbai"]
    if parcel in actor.leaving:
        conductor.send("Mumbai", parcel)
    else:
        actor.came.remove(parcel)
        conductor.say("Mumbai", Release(parcel.item))
    return step(desk, conductor)


def test_without_a_conductor_it_is_an_engine_like_any_other(mumbai: Desk) -> None:
    answer = mumbai.ask(pay(1, "Mumbai/1", "Mumbai/2", 5_00))
    assert isinstance(answer, Outcome)
    assert answer.status == "committed"
    (position, vote) = messages(mumbai.turn((BOSS, 0, out(2))))
    assert isinstance(position, Position)
    assert isinstance(vote, Vote)


def test_a_message_waits_before_it_is_decided_and_its_effects_before_they_leave(
    mumbai: Desk, conductor: Conductor
) -> None:
    seq = mumbai.store.seq
    assert came(mumbai, conductor, out()) == []
    assert mumbai.store.seq == seq
    actor = conductor.actors["Mumbai"]
    (parcel,) = actor.came
    assert (parcel.kind, parcel.peer) == ("prepare", BOSS.caller)

    assert release(mumbai, conductor, parcel) == []
    turned = actor.turns[parcel.item]
    assert [(row.seq, row.kind) for row in turned.rows] == [(seq + 1, "prepared")]
    assert mumbai.store.seq == seq + 1, "it is forced while the vote is held"
    (vote,) = actor.leaving
    assert (vote.kind, vote.peer, vote.detail) == ("vote", BOSS.caller, "yes")

    position, sent = release(mumbai, conductor, vote)
    assert isinstance(position, Position), "the position goes first, with the vote"
    assert isinstance(sent, Vote)


def test_other_transfers_meet_no_gate(mumbai: Desk, conductor: Conductor) -> None:
    assert came(mumbai, conductor, out(1)) == []
    position, vote = came(mumbai, conductor, out(2))
    assert isinstance(position, Position)
    assert isinstance(vote, Vote)
    assert vote.id == id_of(2)
    assert conductor.actors["Mumbai"].leaving == []


def test_a_dropped_message_is_gone(mumbai: Desk, conductor: Conductor) -> None:
    came(mumbai, conductor, out())
    release(mumbai, conductor, conductor.actors["Mumbai"].came[0])
    conductor.lose("Mumbai", conductor.actors["Mumbai"].leaving[0])
    assert step(mumbai, conductor) == []
    conductor.close()
    assert messages(mumbai.tick(INSTANT_US)) == []


def test_when_the_conductor_is_gone_everything_goes_on(mumbai: Desk, conductor: Conductor) -> None:
    came(mumbai, conductor, out())
    conductor.say_all(Freeze())
    step(mumbai, conductor)
    conductor.close()
    left = messages(mumbai.tick(INSTANT_US))
    assert [type(message) for message in left] == [Position, Vote]
    later = messages(mumbai.tick(INQUIRE_AFTER_US + SECOND_US)) + messages(mumbai.tick(INQUIRE_AFTER_US))
    assert any(isinstance(message, Inquiry) for message in later), "its time goes on too"
    assert messages(mumbai.turn((BOSS, 0, Commit(txn_of(1), ID, 1))))


def test_watching_holds_nothing_and_tells_everything(mumbai: Desk, conductor: Conductor) -> None:
    conductor.say_all(Arm(id_of(2).hex(), hold=False))
    step(mumbai, conductor)
    assert len(came(mumbai, conductor, out(2))) == 2
    told = [event for _, event in conductor.log]
    assert [type(event).__name__ for event in told] == ["Arrived", "Turned"]


def test_timers_stand_still_while_people_think(mumbai: Desk, conductor: Conductor) -> None:
    came(mumbai, conductor, out())
    release(mumbai, conductor, conductor.actors["Mumbai"].came[0])
    conductor.say_all(Freeze())
    step(mumbai, conductor)
    for _ in range(3):
        step(mumbai, conductor, HOUR_US)
    assert [parcel.kind for parcel in conductor.actors["Mumbai"].leaving] == ["vote"]

    conductor.say_all(Thaw("inquiry", BOSS.caller))
    step(mumbai, conductor)
    step(mumbai, conductor, INQUIRE_AFTER_US)
    assert [parcel.kind for parcel in conductor.actors["Mumbai"].leaving] == ["vote", "inquiry"]
    for _ in range(3):
        step(mumbai, conductor, HOUR_US)
    assert [parcel.kind for parcel in conductor.actors["Mumbai"].leaving] == ["vote", "inquiry"], "it froze by itself"


def test_a_long_thought_is_no_jump_of_the_clock(mumbai: Desk, conductor: Conductor) -> None:
    conductor.say_all(Freeze())
    step(mumbai, conductor)
    step(mumbai, conductor, HOUR_US)
    mumbai.ask(pay(2, "Mumbai/1", "Mumbai/2", 1_00))
    conductor.say_all(Thaw())
    step(mumbai, conductor)
    mumbai.ask(pay(3, "Mumbai/1", "Mumbai/2", 1_00))
    conductor.close()
    mumbai.tick(INSTANT_US)
    mumbai.ask(pay(4, "Mumbai/1", "Mumbai/2", 1_00))
    assert mumbai.engine.machine.alarms == {}
    times = [row.at_us for row in mumbai.store.journal()]
    assert times == sorted(times)
    assert times[-1] == mumbai.clock.now().wall_us, "afterwards rows carry the real time"


def test_a_cut_loses_what_is_the_coordinators_and_nothing_else(mumbai: Desk, conductor: Conductor) -> None:
    came(mumbai, conductor, out(2))
    conductor.say_all(Cut(BOSS.caller, 20_000))
    step(mumbai, conductor)
    assert came(mumbai, conductor, Commit(txn_of(2), id_of(2), 1)) == []
    answer = mumbai.ask(pay(3, "Mumbai/1", "Mumbai/2", 5_00))
    assert isinstance(answer, Outcome)
    assert answer.status == "committed"
    for seconds in (3, 1):
        assert step(mumbai, conductor, seconds * SECOND_US) == [], "its inquiries do not get out either"
    actor = conductor.actors["Mumbai"]
    assert {(lost.parcel.kind, lost.incoming) for lost in actor.lost} == {("commit", True), ("inquiry", False)}
    assert not actor.healed
    step(mumbai, conductor, 17 * SECOND_US)
    assert actor.healed
    assert len(came(mumbai, conductor, Commit(txn_of(2), id_of(2), 1))) == 2


def test_it_tells_what_it_knows_and_has_on_disk(mumbai: Desk, conductor: Conductor) -> None:
    came(mumbai, conductor, out())
    release(mumbai, conductor, conductor.actors["Mumbai"].came[0])
    ticking = Ticking(mumbai)
    with ticking:
        known = conductor.inspect("Mumbai", ID)
    assert known.knows == (
        "has promised coordinator-1-1; does not know the decision",
        "10.00 of account 1 is held: nobody else can spend it",
    )
    assert [(row.seq, row.kind, row.txn) for row in known.rows] == [
        (mumbai.store.seq, "prepared", "coordinator-1-1"),
    ]


class Ticking:
    """Ticks an actor from another thread while it is entered: for a conductor that waits for answers."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        while not self._over.wait(0.01):
            self._desk.tick(INSTANT_US)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()


def test_an_actor_that_starts_takes_office_when_it_may(mumbai: Desk, conductor: Conductor) -> None:
    came(mumbai, conductor, out())
    release(mumbai, conductor, conductor.actors["Mumbai"].came[0])
    epoch = mumbai.store.epoch
    conductor.kept_down.add("Mumbai")
    mumbai.engine.close()
    started: list[Desk] = []
    starting = threading.Thread(target=lambda: started.append(Desk(BRANCH, "Mumbai", mumbai.path.parent)))
    starting.start()
    actor = conductor.actors["Mumbai"]
    conductor.wait(lambda: actor.waits_for_go, "the new start")
    assert not started
    conductor.let_start("Mumbai")
    conductor.wait(lambda: actor.epoch == epoch + 1, "the new office")
    starting.join()
    again = started[0]
    assert came(again, conductor, Commit(txn_of(1), ID, 1)) == [], "its gates are shut from the first moment"
    again.engine.close()


def test_it_dies_by_kill_9(mumbai: Desk, conductor: Conductor, monkeypatch: pytest.MonkeyPatch) -> None:
    signals: list[tuple[int, int]] = []
    monkeypatch.setattr(os, "kill", lambda pid, number: signals.append((pid, number)))
    conductor.say_all(Die())
    step(mumbai, conductor)
    assert signals == [(os.getpid(), signal.SIGKILL)]


def test_there_is_one_conductor_and_its_socket_is_private(mumbai: Desk, conductor: Conductor, tmp_path: Path) -> None:
    with Ticking(mumbai), pytest.raises(DrillFault, match="another drill is running"):
        Conductor(tmp_path)
    assert mumbai.ask(pay(2, "Mumbai/1", "Mumbai/2", 1_00))
    assert (tmp_path / "drill.sock").stat().st_mode & 0o777 == 0o600


def test_a_path_that_is_too_long_for_a_socket_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deep = tmp_path / ("d" * 100)
    deep.mkdir()
    with pytest.raises(DrillFault, match="too long for a socket"):
        socket_path(deep)
    monkeypatch.chdir(deep)
    assert socket_path(deep) == "drill.sock", "from near by the path is short"


def test_a_clients_question_is_gated_too_and_reads_are_not(mumbai: Desk, conductor: Conductor) -> None:
    assert mumbai.turn((CUSTOMER, 7, pay(1, "Mumbai/1", "Mumbai/2", 5_00))) == []
    conductor.pump(0)
    (parcel,) = conductor.actors["Mumbai"].came
    assert (parcel.kind, parcel.peer) == ("transfer", "client")
