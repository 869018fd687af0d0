"""Which money a drill needs before it begins, and what it says of its books and steps."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest

from zbank import Client
from zbank.apps.drills.books import Accounts, Line, Scene
from zbank.apps.drills.conductor import Conductor
from zbank.apps.drills.control import DrillFault
from zbank.apps.drills.customer import Customer
from zbank.apps.drills.play import Player
from zbank.apps.drills.script import LOCAL, AnyStep, Drill, Look
from zbank.apps.drills.shown import Beginning, Known, Mark, Result, Shown, Telling
from zbank.apps.drills.stories import DRILLS
from zbank.apps.drills.teller import Teller
from zbank.protocol.messages import BranchInfo
from zbank.transport.views import AccountView

ENOUGH_MINOR = 1000_00


class Purses:
    """A bank of two branches with two accounts each, as far as a scene asks it."""

    def __init__(self, **minor: int) -> None:
        self._minor = minor

    def branches(self) -> list[BranchInfo]:
        """Mumbai comes first."""
        return [
            BranchInfo(name, f"tcp://127.0.0.1:{port}", "INR", bytes(16), 1, True)
            for name, port in (("Delhi", 2), ("Mumbai", 1))
        ]

    def account(self, account: str) -> AccountView:
        """1000.00 but where it was said otherwise."""
        branch, _, number = account.partition("/")
        minor = self._minor.get(f"{branch}_{number}", ENOUGH_MINOR)
        return AccountView(branch, number, "", "INR", "open", minor, 0, 0, 0)


def scene(drill: str, **minor: int) -> Scene:
    return Scene(cast(Client, Purses(**minor)), DRILLS[drill])


def needs(account: str, has: str, needed: str) -> str:
    return f"{account} has {has} INR left, this drill needs {needed}: pay some in with: zbank deposit {account} 1000"


@pytest.mark.parametrize(
    ("drill", "minor", "says"),
    [
        ("all-goes-well", {"Mumbai_1001": 9_99}, needs("Mumbai/1001", "9.99", "10.00")),
        ("branch-cut-off", {"Mumbai_1001": 19_99}, needs("Mumbai/1001", "19.99", "20.00")),
        ("branch-cut-off", {"Delhi_1002": 0}, needs("Delhi/1002", "0.00", "1.00")),
    ],
)
def test_a_drill_does_not_begin_without_its_money(drill: str, minor: dict[str, int], says: str) -> None:
    with pytest.raises(DrillFault) as refused:
        scene(drill, **minor)
    assert str(refused.value) == says


def test_what_is_checked_is_what_the_transfers_take() -> None:
    local = scene("branch-cut-off", Mumbai_1001=20_00, Delhi_1002=1_00).transfer(LOCAL)
    assert [(leg.account, leg.amount_minor) for leg in local.legs] == [
        ("Delhi/1002", -1_00),
        ("Delhi/1001", 1_00),
    ]
    assert scene("all-goes-well", Mumbai_1001=10_00, Delhi_1002=0).amount_minor == 10_00


@pytest.mark.parametrize("has_minor", [0, 9_99, ENOUGH_MINOR])
def test_to_ask_for_too_much_takes_no_money(has_minor: int) -> None:
    assert scene("no-money", Mumbai_1001=has_minor).amount_minor == has_minor + 10_00


@pytest.mark.parametrize(
    ("clearing", "says"),
    [("0.00", "together 0.00: nothing is on its way"), ("-1.00", "together -1.00: that much is on its way")],
)
def test_what_is_on_its_way(clearing: str, says: str, capsys: pytest.CaptureFixture[str]) -> None:
    line = Line("Mumbai/1001", "10.00", "0.00", "0.00")
    accounts = Accounts("INR", (line,), (("Mumbai", clearing),), clearing, 0, 0, "0.00")
    teller = Teller()
    teller.tell(Beginning("a-drill", "A drill", "What?", ("client", "coordinator"), "Mumbai", "Delhi", "an id"))
    teller.tell(Shown(None, "rest", (), "", ""))
    teller.tell(Result("committed", "committed", accounts, "Lesson.", accounts.exact))
    assert says in capsys.readouterr().out


class Mime(Player):
    """Plays without a bank: every step is told and none is done."""

    def _do(self, step: AnyStep) -> tuple[list[Mark], list[Known]]:
        return [], []

    def _told(self, text: str) -> str:
        return text

    def _end(self) -> Iterator[Telling]:
        yield Shown(None, "rest", (), "", "")


@pytest.mark.parametrize("drill", DRILLS.values(), ids=DRILLS)
def test_the_last_number_is_the_number_of_steps(drill: Drill, tmp_path: Path) -> None:
    with Conductor(tmp_path) as conductor, Customer() as customer:
        told = list(Mime(drill, scene(drill.name), conductor, customer, "").run())
    shown = [one for one in told if isinstance(one, Shown)]
    assert [one.number for one in shown if one.number is not None] == list(range(1, drill.count + 1))
    looks = [one.step for one in shown if one.number is None]
    assert looks == ["look"] * sum(isinstance(step, Look) for step in drill.steps) + ["rest"]
