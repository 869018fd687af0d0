"""The actors, their replicas, and what waits for a decision."""

from __future__ import annotations

import streamlit as st

from zbank.apps.dashboard import look, session
from zbank.apps.dashboard.rest import AnswerLost, Json, Refused
from zbank.apps.dashboard.session import Look
from zbank.apps.dashboard.texts import actor_name, age, count, milliseconds, plain, size
from zbank.apps.dashboard.views import promotion, replicas, site

REFRESH_S = 1.0
SHOWN = 10  #: in doubt, the oldest


def page() -> None:
    """The page."""
    look.title("Operations")
    promotion.run()
    live()
    with look.card("links"):
        look.heading("Elsewhere")
        look.pairs(
            [
                ("REST documentation", f"{session.url()}/docs"),
                ("Figures for Prometheus", f"{session.url()}/metrics"),
                ("In a shell", "zbank status · zbank show ID · zbank in-doubt list"),
            ]
        )
        site.link("drills", "Learn by breaking it: the drills", icon=":material/school:")


@st.fragment(run_every=REFRESH_S)
def live() -> None:
    """All that moves."""
    with session.guarded():
        now = session.watch().look()
        with look.card("actors"):
            look.heading("Actors")
            _actors(now)
        with look.card("replicas"):
            replicas.card(now)
        with look.card("doubt"):
            look.heading("In doubt")
            _in_doubt()


def _actors(now: Look) -> None:
    rows = []
    for actor in now.actors:
        name = actor_name(actor)
        if not actor["up"]:
            rows.append((name, look.actor_dot(actor), *["–"] * 8))
            continue
        rows.append(
            (
                name,
                look.actor_dot(actor),
                actor["version"],
                f"{actor['epoch']:,}",
                age(actor["uptime_s"]),
                f"{actor['in_flight']:,}",
                f"{actor['unposted_rows']:,}",
                f"{actor['journal_rows']:,}",
                size(actor["journal_bytes"]),
                milliseconds(now.history.force_ms(name, 0.99)),
            )
        )
    look.table(
        (
            "Actor",
            "State",
            "Version",
            "Epoch",
            "Up for",
            "Under way",
            "Not posted",
            "Journal rows",
            "Data file",
            "Disk, p99",
        ),
        rows,
        right=(3, 4, 5, 6, 7, 8, 9),
    )
    for actor in now.actors:
        name = actor_name(actor)
        if not actor["up"]:
            st.error(
                plain(
                    f"{name} does not answer ({actor['reason']}). Transfers that need it are refused; start it again."
                ),
                icon=":material/cloud_off:",
            )
        look.alarms(actor)
    st.caption(
        "Epoch: how often it took office. Under way: transfers between branches that are not over. Not posted: journal rows "
        "that are on disk and not in the tables yet. Disk: how long forcing a batch to disk takes, 99 of 100."
    )


def _in_doubt() -> None:
    found = session.rest().get("v1", "in-doubt")["in_doubt"]
    if not found:
        look.empty("Nothing is in doubt.", "Every promise that a branch made has been followed by a decision.")
        return
    txns = list(dict.fromkeys(one["txn"] for one in found))
    st.markdown(
        f"{count(len(txns), 'transfer')} without a known decision. The money stays held, each branch asks once a second, and "
        "settles it as soon as somebody knows."
    )
    for txn in txns[:SHOWN]:
        _one_in_doubt(txn, [one for one in found if one["txn"] == txn])
    if len(txns) > SHOWN:
        st.caption(f"The oldest {SHOWN}. There are {len(txns) - SHOWN:,} more, and what each branch tells ends at 100.")


def _one_in_doubt(txn: str, parts: list[Json]) -> None:
    text, see, ask = st.columns([4, 1, 1], vertical_alignment="center")
    where = ", ".join(part["branch"] for part in parts)
    text.markdown(f"`{txn}` at {plain(where)}, for {age(max(part['age_s'] for part in parts))}")
    if see.button("See it", key=f"see-{txn}", width="stretch"):
        site.go("transfers", id=parts[0]["transfer"])
    if session.may("inquire") and ask.button("Ask now", key=f"ask-{txn}", width="stretch"):
        try:
            told = session.rest().do("POST", "v1", "in-doubt", txn, "inquire")
        except AnswerLost as lost:
            st.warning(plain(lost.text))
        except Refused as refused:
            st.info(plain(f"{refused.text}: settled meanwhile?"))
        else:
            st.info(plain("; ".join(f"{one['branch']} asks {', '.join(one['whom'])}" for one in told["asked"]) + "."))
