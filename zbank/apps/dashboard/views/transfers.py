"""Transfers: the list, the search, and one of them in full."""

from __future__ import annotations

import streamlit as st

from zbank.apps.dashboard import look, session
from zbank.apps.dashboard.rest import Json
from zbank.apps.dashboard.texts import ACCOUNT, UUID, clock_time, money, plain, route
from zbank.apps.dashboard.views import site, trace
from zbank.apps.dashboard.views.pager import Pager

PAGE = 50
ALL = "All"
STATUSES = (ALL, "committed", "aborted", "pending")
BRANCHES = "All branches"


def page() -> None:
    """The page: one transfer if the address names it, else the list."""
    id = st.query_params.get("id")
    if id:
        trace.page(id)
        return
    look.title("Transfers")
    query = _filters()
    if query is None:
        return
    _list(query)


def _filters() -> dict[str, str] | None:
    """What to list; None while there is nothing to list yet."""
    caller = session.caller()
    left, middle, right = st.columns([5, 3, 4])
    text = (
        left.text_input(
            "Search",
            key="transfers-search",
            type="search",
            icon=":material/search:",
            placeholder="An account as Mumbai/1001, or the id of a transfer",
            max_chars=80,
        )
        or ""
    ).strip()
    query: dict[str, str] = {}
    if caller.role == "customer":
        own = middle.selectbox("Account", list(caller.accounts), key="transfers-own")
        if own is None:
            look.empty("You have no accounts.", "Ask a teller for one.")
            return None
        query["account"] = own
    else:
        names = list(session.currencies())
        branch = middle.selectbox("Branch", [BRANCHES, *names], key="transfers-branch")
        if branch and branch != BRANCHES:
            query["branch"] = branch
    status = right.segmented_control("Outcome", STATUSES, default=ALL, required=True, key="transfers-status")
    if status and status != ALL:
        query["status"] = status
    if UUID.fullmatch(text):
        site.go("transfers", id=text.lower())
    if ACCOUNT.fullmatch(text):
        query["account"] = text
        query.pop("branch", None)
    elif text:
        st.info(plain(f"“{text}” is no account and no id: write an account as Mumbai/1001, or paste a whole id."))
    return query


def _list(query: dict[str, str]) -> None:
    pager = Pager("transfers", query)
    found = session.rest().get("v1", "transfers", limit=PAGE, cursor=pager.cursor, **query)
    look.missing(found["missing"], "what it knows is")
    if found["transfers"]:
        _table(found["transfers"], pager.number)
    elif found["cursor"]:
        look.empty("Nothing on this page.", "Go on with Older.")
    else:
        look.empty("No transfers here.", "Make one under New transfer, or choose other filters.")
    pager.draw(found["cursor"], "Newer", "Older")


def _table(transfers: list[Json], number: int) -> None:
    columns = {
        "When (UTC)": [clock_time(one["created_at"]) for one in transfers],
        "Outcome": [one["status"] for one in transfers],
        "From → to": [route(one) for one in transfers],
        "Amount": [money(one["amount"], one["currency"]) for one in transfers],
        "Kind": [kind(one) for one in transfers],
        "Memo": [one["memo"] for one in transfers],
    }
    todo = "Choose a line to see how it went."
    config = {"Amount": look.RIGHT}
    chosen = look.choice(columns, f"transfers-table-{number}", "Transfers, newest first", todo, config)
    if chosen is not None:
        site.go("transfers", id=transfers[chosen]["id"])


def kind(transfer: Json) -> str:
    """What sort of transfer it is, by its legs."""
    legs = transfer["legs"]
    if any(leg["account"].endswith("/cash") for leg in legs):
        return "deposit" if str(transfer["from"]).endswith("/cash") else "withdrawal"
    return "between branches" if len({leg["account"].partition("/")[0] for leg in legs}) > 1 else "local"
