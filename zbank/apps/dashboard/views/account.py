"""One account: what is on it, how it came to that, and what can be done with it."""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, Literal

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from zbank.apps.dashboard import charts, look, session
from zbank.apps.dashboard.rest import AnswerLost, Json, Refused, Rest
from zbank.apps.dashboard.texts import clock_time, is_customers, money, plain
from zbank.apps.dashboard.views import site
from zbank.apps.dashboard.views.pager import Pager
from zbank.clock import Clock, format_time
from zbank.ids import new_key

REFRESH_S = 2.0
LINES = 25
CHART_LINES = 500
CSV_LINES = 1000  #: of a request
MAX_CSV_LINES = 1_000_000

Span = dict[str, str | None]  #: days of a statement, as the bridge takes them

COLOURS: dict[str, Literal["green", "orange", "gray"]] = {"open": "green", "frozen": "orange", "closed": "gray"}
FILE_NAME = re.compile(r"[^A-Za-z0-9._-]")


def page(name: str) -> None:
    """The page of `Branch/number`."""
    site.link("accounts", "All accounts", icon=":material/arrow_back:")
    branch, _, number = name.partition("/")
    path = ("v1", "branches", branch, "accounts", number)
    try:
        found = session.rest().get(*path)
    except Refused as refused:
        if refused.status != 404:
            raise
        look.title(name)
        look.empty("There is no such account.", refused.text)
        return
    look.title(found["owner"] or ("The bank's own" if not is_customers(found) else found["account"]))
    with st.container(horizontal=True, vertical_alignment="center"):
        st.badge(found["status"], color=COLOURS[found["status"]])
        st.caption(plain(f"Account {found['account']}, {found['currency']}"))
    _money(path)
    if is_customers(found):
        _actions(found)
    with look.card("chart"):
        look.heading("Balance")
        _chart(path, found)
    with look.card("statement"):
        _statement(path, found)


@st.fragment(run_every=REFRESH_S)
def _money(path: tuple[str, ...]) -> None:
    with session.guarded():
        found = session.rest().get(*path)
        code = found["currency"]
        places = st.columns(4)
        look.metric(places[0], "Balance", money(found["balance"], code), "booked")
        look.metric(places[1], "Available", money(found["available"], code), "balance − held + overdraft")
        held = Decimal(found["held"])
        look.metric(
            places[2],
            "Held",
            money(found["held"], code),
            "promised to transfers under way" if held else "nothing promised",
            "orange" if held else "gray",
        )
        look.metric(places[3], "Overdraft limit", money(found["overdraft_limit"], code), "how far below zero")


def _actions(found: Json) -> None:
    name = found["account"]
    with st.container(horizontal=True):
        if found["status"] == "open":
            if site.has("teller") and st.button("Deposit", icon=":material/add_card:", key="do-deposit"):
                site.go("teller", account=name, do="deposit")
            if site.has("teller") and st.button("Withdraw", icon=":material/payments:", key="do-withdraw"):
                site.go("teller", account=name, do="withdraw")
            if site.has("transfer") and st.button("Transfer from here", icon=":material/move_up:", key="do-transfer"):
                site.go("transfer", **{"from": name})
        if session.may("keep"):
            if found["status"] == "open" and st.button("Freeze", icon=":material/ac_unit:", key="do-freeze"):
                _change(name, "frozen", "Freeze", "No money leaves it or comes in until it is unfrozen.")
            if found["status"] == "frozen" and st.button("Unfreeze", icon=":material/sunny:", key="do-unfreeze"):
                _change(name, "open", "Unfreeze", "It can be used again.")
            if found["status"] != "closed" and st.button("Close", icon=":material/block:", key="do-close"):
                _change(name, "closed", "Close", "It can never be used again. Its balance has to be zero.")


@st.dialog("Change the account")
def _change(name: str, status: str, word: str, what: str) -> None:
    key = st.session_state.setdefault(f"change-{name}-{status}", new_key())
    st.markdown(f"**{word} {plain(name)}?** {what}")
    if not st.button(word, type="primary", key="change-sure", width="stretch"):
        return
    branch, _, number = name.partition("/")
    try:
        session.rest().do("PATCH", "v1", "branches", branch, "accounts", number, body={"status": status}, key=key)
    except AnswerLost as lost:
        st.warning(plain(f"It is not known whether this was done. {lost.text} Click again: it is done once."))
    except Refused as refused:
        st.session_state.pop(f"change-{name}-{status}")
        st.error(plain(refused.text))
    else:
        st.session_state.pop(f"change-{name}-{status}")
        st.rerun()


def _chart(path: tuple[str, ...], found: Json) -> None:
    entries = session.rest().get(*path, "entries", limit=CHART_LINES)["entries"]
    if not entries:
        look.empty("Nothing was booked yet.", "The first deposit or transfer begins the line.")
        return
    points = [{"at": entry["at"], "balance": float(entry["balance"])} for entry in reversed(entries)]
    now = format_time(Clock().now().wall_us)
    charts.balance_chart([*points, {"at": now, "balance": float(found["balance"])}], found["currency"])
    if len(entries) == CHART_LINES:
        st.caption(f"The last {CHART_LINES} entries.")


# --- the statement ----------------------------------------------------------------------------------------------------


def _statement(path: tuple[str, ...], found: Json) -> None:
    top, dates, download = st.columns([2, 2, 2], vertical_alignment="bottom")
    with top:
        look.heading("Statement")
    today = datetime.fromisoformat(format_time(Clock().now().wall_us)).date()
    none: Any = ()  # Streamlit's way to say: two days, none chosen yet
    chosen: Any = dates.date_input("From, to", none, max_value=today, key="statement-days", format="YYYY-MM-DD")
    first, last = chosen if isinstance(chosen, tuple) and len(chosen) == 2 else (None, None)
    span: Span = {
        "from_": first.isoformat() if first else None,
        "to": (last + timedelta(days=1)).isoformat() if last else None,
    }
    pager = Pager("statement", (found["account"], span["from_"], span["to"]))
    told = session.rest().get(*path, "entries", limit=LINES, cursor=pager.cursor, **span)
    _download(download, path, found, span)
    if not told["entries"]:
        look.empty("No entries.", "Nothing was booked in these days." if first else "Nothing was booked yet.")
    else:
        rows = [
            (
                clock_time(entry["at"]),
                ", ".join(entry["counterparties"]),
                entry["memo"],
                money(entry["amount"]),
                money(entry["balance"]),
            )
            for entry in told["entries"]
        ]
        look.table(("When (UTC)", "With", "Memo", "Amount", "Balance"), rows, right=(3, 4), wrap=(1, 2))
    pager.draw(told["cursor"], "Newer", "Older")


def _download(place: DeltaGenerator, path: tuple[str, ...], found: Json, span: Span) -> None:
    """The whole statement as a file. A long one is fetched first, with its progress shown."""
    ready = st.session_state.get("csv")
    mark = (found["account"], span["from_"], span["to"])
    if ready is None or ready[0] != mark:
        if place.button("Make CSV", icon=":material/table_view:", key="csv-make", width="stretch"):
            st.session_state["csv"] = (mark, whole_statement(session.rest(), path, span))
            st.rerun()
        return
    name = FILE_NAME.sub("-", found["account"])
    lines = max(0, ready[1].count("\n") - 1)
    place.download_button(
        f"Download CSV ({lines:,} lines)",
        ready[1],
        f"{name}.csv",
        "text/csv",
        icon=":material/download:",
        key="csv-download",
        on_click="ignore",
        type="primary",
        width="stretch",
    )


def whole_statement(rest: Rest, path: tuple[str, ...], span: Span) -> str:
    """All entries as CSV, newest first, fetched page by page."""
    bar = st.progress(0.0, "Fetching the statement")
    parts: list[str] = []
    cursor, lines = "", 0
    while lines < MAX_CSV_LINES:
        text, cursor = rest.text(*path, "entries", accept="text/csv", limit=CSV_LINES, cursor=cursor, **span)
        _, _, body = text.partition("\r\n")
        parts.append(text if not parts else body)
        lines += CSV_LINES
        bar.progress(1.0 - 1.0 / (1.0 + lines / 10_000), f"Fetching the statement: {lines:,} lines so far")
        if not cursor:
            break
    bar.empty()
    return "".join(parts)
