"""Tokens and figures over a real store: posted, replayed, rolled back (PROTOCOL T1, T2, T4)."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.transport.actors import Desk, branch, pay
from tests.unit.protocol_support import CUSTOMER, SECOND_US, from_branch, id_of, register, yes
from zbank.errors import StorageFull
from zbank.protocol import tokens
from zbank.protocol.messages import (
    COORDINATOR,
    Ack,
    AnyMessage,
    Fault,
    FiguresInfo,
    GetFigures,
    GetTokens,
    MakeToken,
    Prepare,
    RevokeToken,
    TokenInfo,
    TokensPage,
)


@pytest.fixture
def main(tmp_path: Path) -> Iterator[Desk]:
    """A coordinator with Mumbai and Delhi."""
    desk = Desk(COORDINATOR, "coordinator", tmp_path)
    for name in ("Mumbai", "Delhi"):
        desk.turn((from_branch(name), 0, register(name)))
    yield desk
    desk.store.close()


def make(n: int) -> MakeToken:
    return MakeToken(id_of(n), "ops", f"holder {n}", "teller", (), n.to_bytes(32, "big"), 0)


def page(desk: Desk) -> TokensPage:
    answer = desk.ask(GetTokens(-1, 0))
    assert isinstance(answer, TokensPage)
    return answer


def figures(desk: Desk) -> FiguresInfo:
    answer = desk.ask(GetFigures())
    assert isinstance(answer, FiguresInfo)
    return answer


def count(desk: Desk, name: str) -> int:
    return next((one.count for one in figures(desk).counts if one.name == name), 0)


@pytest.mark.parametrize("seed", range(8))
def test_whenever_it_is_posted_and_restarted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    """T4: the list, its version, and what each id is answered are those of a desk that never posted or stopped."""
    monkeypatch.setattr(tokens, "MAX_TOKENS", 4)
    chance = random.Random(seed)
    clean = Desk(COORDINATOR, "coordinator", tmp_path / "clean")
    desk = Desk(COORDINATOR, "coordinator", tmp_path / "other", clean.clock)
    try:
        for _ in range(60):
            clean.clock.advance(SECOND_US)
            n = chance.randint(1, 9)
            message: AnyMessage = make(n) if chance.random() < 0.6 else RevokeToken(id_of(n), "ops")
            assert desk.ask(message) == clean.ask(message)
            if chance.random() < 0.3:
                desk.engine.post()
            if chance.random() < 0.2:
                desk = desk.restarted()
            assert page(desk).tokens == page(clean).tokens
    finally:
        desk.store.close()
        clean.store.close()


def test_the_version_outlives_posting_and_restart(main: Desk) -> None:
    main.ask(make(1))
    main.ask(RevokeToken(id_of(1), "ops"))
    before = page(main)
    main.engine.post()
    main = main.restarted()
    try:
        assert page(main) == before
        assert main.ask(GetTokens(before.version, 0)) == TokensPage(before.version, (), 0)
    finally:
        main.store.close()


def test_a_token_that_a_full_disk_refused(main: Desk, caplog: pytest.LogCaptureFixture) -> None:
    """T2: not made, said so, and the list of the same batch does not show it; there is room, and the same id is fresh."""
    main.ask(make(1))
    before = page(main)
    for asked in (make(2), RevokeToken(id_of(1), "ops")):
        main.store.failures.append(StorageFull("the disk is full"))
        effects = main.turn((CUSTOMER, 1, asked), (CUSTOMER, 2, GetTokens(-1, 0)))
        told = {effect.n: effect.message for effect in effects}
        assert isinstance(told[1], Fault)
        assert (told[1].code, told[2]) == ("storage_full", before)
        main.tick()
    assert isinstance(main.ask(make(2)), TokenInfo)


def test_figures_are_of_forced_rows_alone(main: Desk, caplog: pytest.LogCaptureFixture) -> None:
    """A batch that is rolled back and sent again counts once; times across it are not made up."""
    paid = pay(1, "Mumbai/1", "Delhi/9", 5_00)

    def prepares() -> list[Prepare]:
        effects = main.turn((CUSTOMER, 4, paid))
        return [effect.message for effect in effects if isinstance(effect.message, Prepare)]

    (asked, _) = prepares()
    main.store.failures.append(StorageFull("the disk is full"))
    main.turn(yes(asked, "Mumbai"), yes(asked, "Delhi"))
    assert count(main, "rows decided") == 0
    main.tick()
    (asked, _) = prepares()
    main.clock.advance(1_000)
    main.turn(yes(asked, "Mumbai"), yes(asked, "Delhi"))
    main.store.failures.append(StorageFull("the disk is full"))
    main.turn((CUSTOMER, 5, make(9)))  # memory is rebuilt: when the request came is not known any more
    main.tick()
    main.turn(*((from_branch(name), 0, Ack(asked.txn, asked.transfer.id, 9)) for name in ("Mumbai", "Delhi")))
    main.tick()
    rows = {
        name: count(main, f"rows {name}") for name in ("started", "branch_joined", "decided", "ended", "token_made")
    }
    assert rows == {"started": 1, "branch_joined": 2, "decided": 1, "ended": 1, "token_made": 0}
    assert {one.name: one.total_us for one in figures(main).histograms if one.name != "force"} == {
        "vote": 2_000,
        "decide": 1_000,
    }


def test_a_branchs_figures(tmp_path: Path) -> None:
    """Turns and messages, rows by kind, and each force; counted from the process's start."""
    desk = branch(tmp_path, "1", "2")
    desk = desk.restarted()
    try:
        desk.turn((CUSTOMER, 1, pay(1, "Mumbai/1", "Mumbai/2", 1)), (CUSTOMER, 2, pay(2, "Mumbai/1", "Mumbai/2", 1)))
        info = figures(desk)
        assert (info.role, info.name) == ("branch", "Mumbai")
        found = {one.name: one.count for one in info.counts}
        assert found.items() >= {"messages": 3, "rows executed": 2, "rows started": 1, "turns": 2}.items()
        assert [(one.name, sum(one.counts)) for one in info.histograms] == [("force", 2)]
    finally:
        desk.store.close()
