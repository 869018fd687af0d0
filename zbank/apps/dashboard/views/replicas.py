"""The replicas of all branches, as a card of the page Operations."""

from __future__ import annotations

import streamlit as st

from zbank.apps.dashboard import look, session
from zbank.apps.dashboard.replicas import Standing, standing
from zbank.apps.dashboard.rest import Json
from zbank.apps.dashboard.session import Look
from zbank.apps.dashboard.texts import plain
from zbank.apps.dashboard.views import promotion

HEADINGS = ("Replica", "State", "Branch", "Shows all until", "Rows behind", "Position", "Address")


def card(now: Look) -> None:
    """All replicas, and how far each is behind."""
    look.heading("Replicas")
    if now.coordinator is None:
        look.empty("Not known now.", "The coordinator knows the replicas, and it does not answer.")
        return
    promotion.progress(now)
    with session.guarded():
        found = session.rest().get("v1", "replicas")["replicas"]
        if not found:
            branch = next((actor["name"] for actor in now.branches), "Mumbai")
            how = f"Start one by zbank replica --of {branch}, or by replicas = 1 in the config file."
            look.empty("There are no replicas.", f"A replica is a copy of a branch to read at. {how}")
            return
        # Nobody can promote a replica of the coordinator from here: it has to be asked itself (`zbank promote coordinator`).
        up = {now.coordinator["name"], *(actor["name"] for actor in now.branches if actor["up"])}
        _replicas([(replica, standing(replica, replica["branch"] in up)) for replica in found], up)


def _replicas(found: list[tuple[Json, Standing]], up: set[str]) -> None:
    rows = [
        (
            replica["name"],
            look.dot(at.dot, at.state),
            replica["branch"],
            at.shows,
            at.behind,
            f"{replica['position']:,}",
            replica["endpoint"],
        )
        for replica, at in found
    ]
    look.table(HEADINGS, rows, right=(3, 4, 5))
    for replica, at in found:
        if at.note:
            st.warning(plain(at.note), icon=":material/content_copy:")
        if replica["branch"] not in up:
            promotion.offer(replica, [one for one, _ in found])
    st.caption(
        "Shows all until: its lag; who reads at this replica sees everything that its branch had then. Rows behind: what its "
        "branch was known to have more. Position: its last row of its branch's journal. Synchronous: its branch answers "
        "nothing before this replica has it on its disk."
    )
