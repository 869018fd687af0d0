"""All pages, by section, as the side bar lists them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import streamlit as st

from zbank.apps.dashboard.session import Caller
from zbank.apps.dashboard.views import accounts, drills, operations, overview, site, teller, transfer, transfers


def pages(caller: Caller) -> dict[str, list[Any]]:
    """The pages that this caller may see, by section."""
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
        "": [st.Page(site.arrive, title="zbank", url_path="home", default=True, visibility="hidden")]
    }
    by_name: dict[str, Any] = {}
    for section, entries in sections.items():
        for name, title, icon, draw in entries:
            if site.CAN[name] in caller.may:
                page = st.Page(draw, title=title, icon=icon, url_path=name)
                by_name[name] = page
                found.setdefault(section, []).append(page)
    st.session_state["pages"] = by_name
    return found
