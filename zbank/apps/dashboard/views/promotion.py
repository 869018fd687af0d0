"""Promoting a replica in two steps: a dialog says what is lost and asks for the words, then it is done. On Operations.

What is promoted is the data that was seen when the dialog opened, and asking for it again is safe: a double click, a rerun
of the page and another try after a lost answer all come to the same.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import streamlit as st

from zbank.apps.dashboard import session
from zbank.apps.dashboard.replicas import Cost, cost
from zbank.apps.dashboard.rest import AnswerLost, BridgeDown, Json, Refused
from zbank.apps.dashboard.session import Look
from zbank.apps.dashboard.texts import plain, sentence

CHOSEN = "promote-chosen"  #: in the page's state, from the click until the dialog is there
UNDER_WAY = "promote-under-way"  #: by branch: the Promoted
SLOW_S = 30.0  #: a takeover takes a second or two
TOLD_S = 60.0  #: so long a success is shown


@dataclass
class Promoted:
    """A promotion of this page's."""

    name: str
    since_s: float  #: when it was recorded
    was_up: bool = False  #: the branch was seen to answer since


def offer(replica: Json, replicas: list[Json]) -> None:
    """At a replica of a branch that is down: the button, for whoever may."""
    branch = replica["branch"]
    if not replica["can_lead"] or branch in _under_way():
        return
    if not session.may("promote"):
        if session.caller().role == "operator":
            st.caption(
                f"Is {plain(branch)} lost? This bank has keys: `zbank promote {branch} --replica {replica['name']}`, by "
                "an operator's own key."
            )
        return
    name = replica["name"]
    text, button = st.columns([4, 1], vertical_alignment="center")
    text.markdown(plain(f"Is {branch} lost for good? Then {name} can take its place. If not, start {branch} again."))
    if button.button("Promote…", key=f"promote-{name}", icon=":material/swap_horiz:", width="stretch"):
        st.session_state[CHOSEN] = (replica, replicas)
        st.rerun()  # the whole page: a dialog of the part that moves would be gone with its next look


def run() -> None:
    """Open the dialog that was asked for. Once in a run of the page, outside of what moves by itself."""
    chosen = st.session_state.pop(CHOSEN, None)
    if chosen is not None:
        replica, replicas = chosen
        st.session_state.pop(_field(replica), None)  # the words are typed for each time anew
        _dialog(replica, cost(replica, replicas))


def _field(replica: Json) -> str:
    return f"promote-words-{replica['name']}"


@st.dialog("Promote a replica", width="medium")
def _dialog(replica: Json, at: Cost) -> None:
    branch, name = replica["branch"], replica["name"]
    st.markdown(f"**{plain(name)}** becomes **{plain(branch)}**, for good. {plain(at.stands)}")
    if at.better:
        st.warning(plain(at.better), icon=":material/compare_arrows:")
    st.markdown(f"**Lost:** {plain(at.lost)}")
    st.markdown(f"**Not lost:** {plain(at.kept)}")
    st.warning(plain(at.before), icon=":material/power_settings_new:")
    words = f"promote {branch}"
    typed = st.text_input(f"Type `{words}` and press Enter", key=_field(replica), autocomplete="off").strip()
    if not st.button("Promote", type="primary", key="promote-now", disabled=typed != words, width="stretch"):
        return
    try:
        body = {"branch": branch, "instance": replica["instance"], "confirm": typed}
        session.rest().do("POST", "v1", "replicas", name, "promotion", body=body)
    except (AnswerLost, BridgeDown) as lost:
        st.warning(
            plain(f"It is not known whether {name} is promoted. {sentence(lost.text)} Click again: it is done once."),
            icon=":material/help:",
        )
    except Refused as refused:
        st.error(plain(f"Nothing was done. {sentence(refused.text)}."), icon=":material/block:")
    else:
        _under_way()[branch] = Promoted(name, time.monotonic())
        st.rerun()


def _under_way() -> dict[str, Promoted]:
    found: dict[str, Promoted] = st.session_state.setdefault(UNDER_WAY, {})
    return found


def progress(now: Look) -> None:
    """What became of the promotions of this page: taking over, until the branch is up again."""
    up = {actor["name"] for actor in now.branches if actor["up"]}
    for branch, promoted in list(_under_way().items()):
        name, took_s = promoted.name, time.monotonic() - promoted.since_s
        if promoted.was_up and (took_s > TOLD_S or branch not in up):  # told; what comes now is another story
            del _under_way()[branch]
        elif branch in up:
            promoted.was_up = True
            st.success(plain(f"{branch} is up again: {name} serves it."), icon=":material/check_circle:")
        elif took_s <= SLOW_S:
            st.info(
                plain(f"{name} takes over as {branch}: it asks first what was decided, and posts that."),
                icon=":material/hourglass_top:",
            )
        else:
            st.warning(
                plain(f"{name} is {branch} by the coordinator's word, but does not serve yet: look at its log."),
                icon=":material/hourglass_top:",
            )
