"""The bank at one look, as it is now."""

from __future__ import annotations

import streamlit as st

from zbank.apps.dashboard import charts, look, session
from zbank.apps.dashboard.session import Look
from zbank.apps.dashboard.texts import actor_name, age, by_currency, clock_time, count, milliseconds, money, route, sums
from zbank.apps.dashboard.views import site

REFRESH_S = 0.4
WINDOW_S = 180.0  #: of the charts
LATEST = 8  #: transfers that are listed


def page() -> None:
    """The page."""
    look.title("Overview")
    live()
    with look.card("latest"):
        look.heading("Latest transfers")
        latest()
        site.link("transfers", "All transfers", icon=":material/arrow_forward:")


@st.fragment(run_every=REFRESH_S)
def live() -> None:
    """All that moves."""
    with session.guarded():
        now = session.watch().look()
        _figures(now)
        left, right = st.columns(2)
        points = list(now.history.points(WINDOW_S))
        with left, look.card("rate", "stretch"):
            look.heading("Transfers per second")
            charts.rate_chart(points, [actor["name"] for actor in now.branches])
        with right, look.card("latency", "stretch"):
            look.heading("Time to a decision, between branches")
            charts.latency_chart(points)
        with look.card("branches"):
            look.heading("Branches")
            _branches(now)


@st.fragment(run_every=2 * REFRESH_S)
def latest() -> None:
    """What was settled last."""
    with session.guarded():
        found = session.rest().get("v1", "transfers", limit=LATEST)["transfers"]
        if not found:
            look.empty("No transfers yet.", "Make one under New transfer, or pay something in under Teller.")
            return
        rows = [
            (
                clock_time(one["created_at"])[11:],
                look.state_dot(one["status"]),
                route(one),
                money(one["amount"], one["currency"]),
                one["memo"],
            )
            for one in found
        ]
        look.table(("Time (UTC)", "Outcome", "From → to", "Amount", "Memo"), rows, right=(3,), wrap=(4,))


def _figures(now: Look) -> None:
    point = now.history.now()
    up = [actor for actor in now.branches if actor["up"]]
    down = [actor_name(actor) for actor in now.actors if not actor["up"]]
    top, bottom = st.columns(3), st.columns(3)
    rate = "–" if point is None else f"{point.per_second:,.0f}" if point.per_second >= 10 else f"{point.per_second:.1f}"
    look.metric(top[0], "Transfers per second", rate, "mean of the last 3 s")
    recent = now.history.latency_ms(60.0)
    note = f"half within {milliseconds(recent[0])}, last minute" if recent else "no transfer between branches lately"
    look.metric(top[1], "Time to a decision, p99", milliseconds(recent[1] if recent else None), note)
    look.metric(
        top[2],
        "Branches up",
        f"{len(up)} of {len(now.branches)}",
        f"no answer: {', '.join(down)}" if down else "all answer",
        "red" if down else "green",
    )
    total, flight = by_currency(up, "customers"), by_currency(up, "clearing")
    absent = ", ".join(actor["name"] for actor in now.branches if not actor["up"])
    without = f", without {absent}" if absent else ""
    look.metric(
        bottom[0], "Customers' money", sums(total), f"in the books of {count(len(up), 'branch', 'branches')}{without}"
    )
    under_way = now.coordinator["in_flight"] if now.coordinator else None
    look.metric(
        bottom[1],
        "Money on its way",
        "–" if len(up) < len(now.branches) else sums({code: abs(amount) for code, amount in flight.items()}),
        "no coordinator" if under_way is None else f"{count(under_way, 'transfer')} between branches under way",
        help="Decided and booked at one branch, and not yet at the other. It is never lost: the decision is on disk.",
    )
    doubts = sum(actor["in_doubt"] for actor in up)
    look.metric(
        bottom[2],
        "In doubt",
        f"{doubts:,}",
        "promised, decision not known yet" if doubts else "nothing waits for a decision",
        "orange" if doubts else "gray",
        help="A branch has voted yes and does not know the decision. Its money is held until it does.",
    )


def _branches(now: Look) -> None:
    point = now.history.now()
    rows = []
    for actor in now.branches:
        if not actor["up"]:
            rows.append((actor["name"], look.actor_dot(actor), *["–"] * 6))
            continue
        rate = point.by_branch.get(actor["name"], 0.0) if point else 0.0
        rows.append(
            (
                actor["name"],
                look.actor_dot(actor),
                f"{rate:,.1f}",
                f"{actor['accounts']:,}",
                money(actor["customers"], actor["currency"]),
                f"{actor['in_flight']:,}",
                milliseconds(now.history.force_ms(actor["name"], 0.5)),
                age(actor["uptime_s"]),
            )
        )
    headings = ("Branch", "State", "Transfers/s", "Accounts", "Customers' money", "Prepared", "Disk, p50", "Up for")
    look.table(headings, rows, right=(2, 3, 4, 5, 6, 7))
    for actor in now.actors:
        look.alarms(actor)
