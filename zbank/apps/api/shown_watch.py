"""What the bridge answers to those who watch: who they are here, and what the actors count."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from zbank.apps.api.shown import ActorDownShown, Shown, example


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
_ACTOR = {
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

    model_config = example(**_ACTOR)

    role: Literal["coordinator", "branch"]
    name: str
    up: Literal[True]
    counts: dict[str, int] = Field(description='Turns, messages, journal rows by kind, transfers as "local committed".')
    histograms: list[HistogramShown]


class FiguresShown(Shown):
    """The figures of all actors."""

    model_config = example(actors=[_ACTOR])

    actors: list[ActorFiguresShown | ActorDownShown]
