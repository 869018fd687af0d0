"""One transfer: its outcome, and its two-phase commit step by step."""

from __future__ import annotations

from typing import Any

import streamlit as st

from zbank.apps.dashboard import charts, look, session
from zbank.apps.dashboard.rest import AnswerLost, Json, Refused
from zbank.apps.dashboard.texts import clock_time, milliseconds, money, plain, route
from zbank.apps.dashboard.views import site

REFRESH_S = 1.0
OVER = ("committed", "aborted")
CLIENT = "Request"
COORDINATOR = "Coordinator"


def page(id: str) -> None:
    """The page of a transfer."""
    site.link("transfers", "All transfers", icon=":material/arrow_back:")
    look.title("Transfer")
    try:
        found = session.rest().get("v1", "transfers", id)
    except Refused as refused:
        if refused.status not in (400, 404):
            raise
        look.empty("Nobody knows this transfer.", refused.text)
        return
    if _is_over(found):
        _show(found)
    else:
        _follow(id)


@st.fragment(run_every=REFRESH_S)
def _follow(id: str) -> None:
    """What is not over yet is looked at again and again."""
    with session.guarded():
        found = session.rest().get("v1", "transfers", id)
        _show(found)
        if _is_over(found):
            st.rerun()
        st.caption("This page looks again every second.")


def _is_over(found: Json) -> bool:
    """Settled, and applied by all of its branches."""
    waits = any(part["state"] in ("prepared", "in_doubt") for part in found["participants"])
    return found["status"] in OVER and not waits


def _show(found: Json) -> None:
    with look.card("head"):
        with st.container(horizontal=True, vertical_alignment="center"):
            look.state_badge(found["status"])
            amount = money(found["amount"], found["currency"])
            look.big(f"{amount}, {route(found)}" if found["amount"] else route(found))
        if found["refusal"]:
            st.error(plain(f"Refused: {found['refusal']['detail']}"), icon=":material/block:")
        elif found["reason"]:
            st.warning(plain(found["reason"]), icon=":material/hourglass_top:")
        look.pairs(
            [
                ("When (UTC)", clock_time(found["created_at"])),
                ("Memo", found["memo"] or "–"),
                ("Id", look.mono(found["id"])),
                ("Two-phase commit", look.mono(found["txn"]) if found["txn"] else "none: all within one branch"),
            ]
        )
    if found["timeline"]:
        _timeline(found)
    else:
        with look.card("no-timeline"):
            look.heading("How it went")
            look.empty(*_why_no_timeline(found))
    with look.card("legs"):
        _legs_and_parts(found)
    if found["status"] not in OVER and session.may("pay"):
        _cancel(found["id"])


def _why_no_timeline(found: Json) -> tuple[str, str]:
    if found["txn"] is None and found["status"] == "committed":
        return (
            "One branch, one record.",
            "Both accounts are at the same branch: it wrote one record, forced it to disk, and was done. "
            "Nobody else had to be asked.",
        )
    if found["status"] == "aborted":
        return (
            "Nothing was decided, so nothing was written down.",
            "What was refused leaves no timeline: no record means abort. No money moved.",
        )
    return "The timeline comes with the decision.", "Until then the branches have promised, and nobody has decided."


def _timeline(found: Json) -> None:
    with look.card("timeline"):
        look.heading("Two-phase commit")
        gantt, sequence = st.tabs(["Timeline", "Sequence"])
        bars, rows, forced_ms = bars_of(found["timeline"])
        with gantt:
            charts.phases_chart(bars, rows, forced_ms)
            st.caption(
                "Dashed line: the decision is on the coordinator's disk, the line of no return. Before it the transfer "
                "can still be aborted; after it every branch must apply it, whoever crashes. Times as the coordinator "
                "saw them: a bar of a branch has the way there and back in it."
            )
        with sequence:
            st.mermaid_chart(sequence_of(found), alt="The messages of this transfer, in order")


def bars_of(timeline: list[Json]) -> tuple[list[dict[str, Any]], list[str], float | None]:
    """Bars of the chart, its rows from the top, and when the decision was on disk (None: not decided)."""
    names = {"prepare": charts.PHASES[1], "decide": charts.PHASES[2], "apply": charts.PHASES[3]}
    bars, branches, forced_ms = [], [], None
    for phase in timeline:
        row = COORDINATOR if phase["phase"] == "decide" else phase["actor"]
        if phase["phase"] == "decide":
            forced_ms = phase["end_ms"]
        elif row not in branches:
            branches.append(row)
        bars.append(_bar(row, names[phase["phase"]], phase["start_ms"], phase["end_ms"]))
    end_ms = max(phase["end_ms"] for phase in timeline)
    return [_bar(CLIENT, charts.PHASES[0], 0.0, end_ms), *bars], [CLIENT, COORDINATOR, *branches], forced_ms


def _bar(row: str, phase: str, start_ms: float, end_ms: float) -> dict[str, Any]:
    return {"row": row, "phase": phase, "start": start_ms, "end": end_ms, "took": round(end_ms - start_ms, 3)}


def sequence_of(found: Json) -> str:
    """The same as a Mermaid sequence diagram. Names of branches are letters, digits, - and _ (they are checked)."""
    parts = found["participants"]
    names = {part["branch"]: f"B{n}" for n, part in enumerate(parts)}
    lines = ["sequenceDiagram", "participant C as Client", "participant K as Coordinator"]
    lines += [f"participant {short} as {name}" for name, short in names.items()]
    lines.append(f"C->>K: transfer {money(found['amount'], found['currency']) if found['amount'] else ''}")
    for n, short in enumerate(names.values()):
        lines += [("par each branch" if n == 0 else "and"), f"K->>{short}: Prepare"]
    lines.append("end")
    for part in sorted(parts, key=lambda one: one["prepare_ms"] or 0.0):
        lines.append(f"{names[part['branch']]}-->>K: yes, on disk ({milliseconds(part['prepare_ms'])})")
    decide = next((phase for phase in found["timeline"] if phase["phase"] == "decide"), None)
    if decide is not None:
        took_ms = decide["end_ms"] - decide["start_ms"]
        forced = f", {milliseconds(took_ms)} to disk" if took_ms else ""
        lines.append(f"Note over K: decision COMMIT{forced}. No return")
        for n, short in enumerate(names.values()):
            lines += [("par each branch" if n == 0 else "and"), f"K->>{short}: Commit"]
        lines.append("end")
    for part in sorted(parts, key=lambda one: one["apply_ms"] or 0.0):
        if part["apply_ms"] is not None:
            lines.append(f"{names[part['branch']]}-->>K: ack, applied ({milliseconds(part['apply_ms'])})")
    if found["status"] == "committed" and _is_over(found):
        lines.append("K-->>C: committed")
    return "\n".join(lines)


def _legs_and_parts(found: Json) -> None:
    left, right = st.columns(2)
    with left:
        look.heading("Accounts")
        look.table(
            ("Account", "Amount"),
            [(leg["account"], money(leg["amount"], found["currency"])) for leg in found["legs"]],
            right=(1,),
        )
        if not found["legs"]:
            st.caption("The branches that were asked do not keep the content of what was refused elsewhere.")
    with right:
        look.heading("Branches")
        rows = [
            (
                part["branch"],
                look.state_dot(part["state"]),
                part["vote"] or "–",
                milliseconds(part["prepare_ms"]),
                milliseconds(part["apply_ms"]),
            )
            for part in found["participants"]
        ]
        look.table(("Branch", "State", "Vote", "Prepare", "Apply"), rows, right=(3, 4))


def _cancel(id: str) -> None:
    """Make sure that it never happens, if it has not yet."""
    with st.container(horizontal=True):
        if st.button("Cancel this transfer", key="trace-cancel", icon=":material/cancel:"):
            try:
                done = session.rest().do("POST", "v1", "transfers", id, "cancel")
            except AnswerLost as lost:
                st.warning(plain(f"It is not known whether it was cancelled. {lost.text} Try again."))
            except Refused as refused:
                st.error(plain(refused.text))
            else:
                st.info(f"It is {done['status']}.")
