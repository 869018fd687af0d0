"""Which pages there are, for whom, and how to get from one to another. What they show is not known here."""

from __future__ import annotations

import streamlit as st

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
