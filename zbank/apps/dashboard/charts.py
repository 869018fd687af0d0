"""The charts, in Altair: transparent, in the theme's colours."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import altair as alt
import streamlit as st

from zbank.apps.dashboard import look
from zbank.apps.dashboard.history import Point

HEIGHT = 230
TIME = "%H:%M:%S"
LABELS = {"light": "#4a5872", "dark": "#a9b7cc"}  #: Streamlit's own are too faint to read


def _data(rows: Iterable[dict[str, Any]]) -> Any:
    return alt.Data(values=list(rows))  # type: ignore[no-untyped-call]  # Altair has no hints here


def _draw(chart: Any, key: str) -> None:
    label = LABELS[st.context.theme.type or "light"]
    drawn = (
        chart.configure(background="transparent")
        .configure_view(strokeWidth=0)
        .configure_axis(labelColor=label, titleColor=label)
        .configure_legend(labelColor=label, titleColor=label)
    )
    st.altair_chart(drawn, width="stretch", key=key)


def _from_zero(rows: Sequence[dict[str, Any]], field: str) -> Any:
    """An axis from zero to the highest value, and to 1 at least: of nothing but zeros there is an axis too."""
    return alt.Scale(domain=[0, max(1.0, *(row[field] for row in rows))], nice=True)


def rate_chart(points: Sequence[Point], branches: Sequence[str]) -> None:
    """Transfers per second at each branch."""
    rows = [
        {"time": point.wall_s * 1000, "branch": name, "per_second": round(point.by_branch.get(name, 0.0), 1)}
        for point in points
        for name in branches
    ]
    if not rows:
        look.empty("Counting.", "The first figures come within two seconds.")
        return
    _draw(
        alt.Chart(_data(rows), height=HEIGHT)
        .mark_line(strokeWidth=2, interpolate="monotone")
        .encode(
            x=alt.X("time:T", title=None, axis=alt.Axis(format=TIME, tickCount=5, grid=False)),
            y=alt.Y("per_second:Q", title=None, axis=alt.Axis(tickCount=5), scale=_from_zero(rows, "per_second")),
            color=alt.Color("branch:N", title=None, sort=list(branches), legend=alt.Legend(orient="top", columns=3)),
            tooltip=["branch:N", alt.Tooltip("per_second:Q", title="per second"), alt.Tooltip("time:T", format=TIME)],
        ),
        "chart-rate",
    )


def latency_chart(points: Sequence[Point]) -> None:
    """How long the coordinator took to decide: half of all, and 99 of 100."""
    rows = [
        {"time": point.wall_s * 1000, "share": share, "ms": round(amount, 3)}
        for point in points
        for share, amount in (("half within", point.p50_ms), ("99 of 100 within", point.p99_ms))
        if amount is not None
    ]
    if not rows:
        look.empty(
            "No transfer between branches in the last 3 minutes.", "Make one under New transfer, and look again."
        )
        return
    _draw(
        alt.Chart(_data(rows), height=HEIGHT)
        .mark_line(strokeWidth=2, point=alt.OverlayMarkDef(size=22))
        .encode(
            x=alt.X("time:T", title=None, axis=alt.Axis(format=TIME, tickCount=5, grid=False)),
            y=alt.Y("ms:Q", title="ms", axis=alt.Axis(tickCount=5), scale=_from_zero(rows, "ms")),
            color=alt.Color(
                "share:N", title=None, sort=["half within", "99 of 100 within"], legend=alt.Legend(orient="top")
            ),
            tooltip=["share:N", alt.Tooltip("ms:Q", title="ms"), alt.Tooltip("time:T", format=TIME)],
        ),
        "chart-latency",
    )


def balance_chart(rows: Sequence[dict[str, Any]], currency: str) -> None:
    """A balance over time: `rows` of `at` (RFC 3339) and `balance` (a number, for drawing alone)."""
    _draw(
        alt.Chart(_data(rows), height=HEIGHT)
        .mark_line(interpolate="step-after", strokeWidth=2)
        .encode(
            x=alt.X("at:T", title=None, axis=alt.Axis(tickCount=5, grid=False)),
            y=alt.Y("balance:Q", title=currency, axis=alt.Axis(tickCount=5), scale=alt.Scale(zero=False, nice=True)),
            tooltip=[alt.Tooltip("at:T", format="%Y-%m-%d %H:%M:%S"), alt.Tooltip("balance:Q", format=",.2f")],
        ),
        "chart-balance",
    )


PHASES = ["Request", "Prepare and vote", "Decision, to disk", "Apply and ack"]


def phases_chart(bars: Sequence[dict[str, Any]], rows: Sequence[str], forced_ms: float | None) -> None:
    """The Gantt chart of one two-phase commit: a row for each actor, and a dashed line where the decision was on disk.

    `bars`: dicts of `row`, `phase`, `start`, `end` and `took` (milliseconds, the first two since the request).
    """
    data = _data(bars)
    x = alt.X("start:Q", title="milliseconds since the request", axis=alt.Axis(tickCount=10))
    y = alt.Y("row:N", title=None, sort=list(rows), axis=alt.Axis(labelLimit=160))
    base = alt.Chart(data, height=alt.Step(34)).encode(y=y)
    drawn: Any = base.mark_bar(cornerRadius=3, height=22, minBandSize=3).encode(
        x=x,
        x2="end:Q",
        color=alt.Color(
            "phase:N",
            title=None,
            sort=PHASES,
            scale=alt.Scale(domain=PHASES),
            legend=alt.Legend(orient="top", columns=2),
        ),
        tooltip=[
            "row:N",
            "phase:N",
            alt.Tooltip("start:Q", title="from (ms)"),
            alt.Tooltip("end:Q", title="to (ms)"),
            alt.Tooltip("took:Q", title="took (ms)"),
        ],
    )
    layers = [drawn]
    if forced_ms is not None:
        line = alt.Chart(_data([{"at": forced_ms}]))
        layers.append(line.mark_rule(strokeDash=[5, 4], strokeWidth=2, color="#d23b3b").encode(x="at:Q"))
    _draw(alt.layer(*layers), "chart-phases")
