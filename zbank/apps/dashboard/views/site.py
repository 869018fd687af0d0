"""Which pages there are, for whom, and how to get from one to another."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import streamlit as st

from zbank.apps.dashboard.session import Caller

CAN = {  #: what a page is for; who may not do that does not see it
    "overview": "see_bank",
    "transfers": "see",
    "operations": "see_bank",
    "drills": "drill",
    "accounts": "see",
    "teller": "cash",
    "transfer": "pay",
}


FIRST = ("overview", "accounts")


def pages(caller: Caller) -> dict[str, list[Any]]:
    """The pages that this caller may see, by section."""
    from zbank.apps.dashboard.views import accounts, drills, operations, overview, teller, transfer, transfers

    sections: dict[str, Sequence[tuple[str, str, str, Callable[[], None]]]] = {
        "Monitor": (
            ("overview", "Overview", ":material/monitoring:", overview.page),
            ("transfers", "Transfers", ":material/receipt_long:", transfers.page),
            ("operations", "Operations", ":material/dns:", operations.page),
            ("drills", "Drills", ":material/school:", drills.page),
        ),
        "Bank": (
            ("accounts", "Accounts", ":material/groups:", accounts.page),
            ("teller", "Teller", ":material/point_of_sale:", teller.page),
            ("transfer", "New transfer", ":material/move_up:", transfer.page),
        ),
    }
    found: dict[str, list[Any]] = {
        "": [st.Page(arrive, title="zbank", url_path="home", default=True, visibility="hidden")]
    }
    by_name: dict[str, Any] = {}
    for section, entries in sections.items():
        for name, title, icon, draw in entries:
            if CAN[name] in caller.may:
                page = st.Page(draw, title=title, icon=icon, url_path=name)
                by_name[name] = page
                found.setdefault(section, []).append(page)
    st.session_state["pages"] = by_name
    return found


def arrive() -> None:
    """The bare address: to the first page that this caller may see."""
    go(next(name for name in FIRST if has(name)))


def has(name: str) -> bool:
    """May this caller see that page?"""
    return name in st.session_state["pages"]


def go(name: str, **query: str) -> None:
    """Show another page."""
    st.switch_page(st.session_state["pages"][name], query_params=query)


def link(name: str, label: str, *, icon: str | None = None, **query: str) -> None:
    """A link to a page, if this caller may see it."""
    if has(name):
        st.page_link(st.session_state["pages"][name], label=label, icon=icon, query_params=query)
