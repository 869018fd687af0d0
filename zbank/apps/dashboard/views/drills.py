"""Drills: two-phase commit, stopped, broken and healed before one's eyes, with the story beside the picture."""

from __future__ import annotations

from html import escape
from typing import Any

import streamlit as st

from zbank.apps.dashboard import look, session
from zbank.apps.dashboard.rest import AnswerLost, Json, Refused
from zbank.apps.dashboard.texts import plain, sentence
from zbank.apps.dashboard.views import site

REFRESH_S = 0.6
BUSY = ("running", "waiting")


def page() -> None:
    """The page."""
    look.title("Drills")
    st.caption(
        "Stop two-phase commit at a named point, break something, and watch it heal. It is the real bank that you see."
    )
    drills = session.rest().get("v1", "drills")["drills"]
    with look.card("choose"):
        titles = {one["name"]: f"{n}. {one['title']}" for n, one in enumerate(drills, 1)}
        name = st.selectbox("Drill", list(titles), format_func=lambda one: titles[one], key="drill-name")
        with st.container(horizontal=True):
            st.button("Step by step", type="primary", key="drill-step", on_click=_play, args=(name, True))
            st.button("All at once", key="drill-run", on_click=_play, args=(name, False))
    wrong = st.session_state.pop("drill-wrong", None)
    if wrong:
        st.error(plain(wrong), icon=":material/block:")
    live()


def _play(name: str, in_steps: bool) -> None:
    _ask("v1", "drills", name, "play", body={"step": in_steps})


def _ask(*path: str, body: Json = None) -> None:
    try:
        session.rest().do("POST", *path, body=body)
    except (AnswerLost, Refused) as error:
        st.session_state["drill-wrong"] = error.text


@st.fragment(run_every=REFRESH_S)
def live() -> None:
    """The play at hand, as far as it is."""
    with session.guarded():
        try:
            shown = session.rest().get("v1", "drills", "play")
        except Refused as refused:
            if refused.code != "drill_not_found":
                raise
            look.empty("Nothing was played yet.", "Choose a drill. The first one breaks nothing.")
            return
        _controls(shown)
        left, right = st.columns([2, 3])
        with left, look.card("story"):
            look.heading(shown["title"])
            _story(shown)
        with right:
            with look.card("picture"):
                look.heading("Who says what to whom")
                picture = picture_of(shown["told"])
                if picture:
                    st.mermaid_chart(picture, alt="The messages of this drill so far, and what was forced to disk")
            with look.card("known"):
                look.heading("Who knows what")
                _known(shown["told"])


def _controls(shown: Json) -> None:
    state = shown["state"]
    if state not in BUSY:
        return
    with st.container(horizontal=True, vertical_alignment="center"):
        label = "Begin" if len(shown["told"]) <= 1 else "Next step"
        st.button(
            label,
            type="primary",
            key="drill-next",
            icon=":material/play_arrow:",
            disabled=state != "waiting",
            on_click=_ask,
            args=("v1", "drills", "play", "next"),
        )
        st.button("End it", key="drill-end", on_click=_ask, args=("v1", "drills", "play", "end"))
        steps = max((told["number"] or 0 for told in shown["told"] if told["what"] == "step"), default=0)
        st.caption(f"Step {steps} of {shown['steps']}. The bank's time stands still between steps.")


def _story(shown: Json) -> None:
    """What was told, the newest first while it is played."""
    parts = [part for told in shown["told"] if (part := _told(told))]
    if shown["problem"]:
        parts.append(f'<div class="z-told"><b>{escape(sentence(shown["problem"]))}.</b></div>')
    if shown["state"] in BUSY:
        parts.reverse()
    st.html("".join(parts))


def _told(told: dict[str, Any]) -> str:
    """One thing that was told, as HTML; "" of a step without words."""
    if told["what"] == "drill":
        return f'<div class="z-told"><b>{escape(told["question"])}</b></div>'
    if told["what"] == "waiting":
        return f'<div class="z-told">{escape(told["text"])}</div>'
    if told["what"] == "result":
        verdict = "The books are exact." if told["ok"] else "The books are not as they should be."
        return f'<div class="z-told"><b>{escape(told["lesson"])}</b><br>Outcome: {escape(told["outcome"])}. {verdict}</div>'
    if not told["text"]:
        return ""
    number = f'<b class="n">{told["number"]}</b>' if told["number"] else ""
    rule = f'<span class="rule">rule {escape(told["rule"])}</span>' if told["rule"] else ""
    return f'<div class="z-told">{number}{escape(told["text"])}{rule}</div>'


ARROWS = {"arrow": "->>", "lost": "-x", "nobody": "-x"}
NOTES = {"row": "on disk: ", "crash": "✗ ", "office": "● takes office, ", "cut": "✗ ", "healed": "● ", "says": "says "}


def picture_of(told: list[dict[str, Any]]) -> str:
    """The marks of all steps as a Mermaid sequence diagram; "" before the beginning."""
    beginning = next((one for one in told if one["what"] == "drill"), None)
    if beginning is None:
        return ""
    short = {name: f"P{n}" for n, name in enumerate(beginning["places"])}
    lines = ["sequenceDiagram", *(f"participant {one} as {name}" for name, one in short.items())]
    for mark in (mark for one in told if one["what"] == "step" for mark in one["marks"]):
        kind, label = mark["kind"], _safe(mark["label"])
        source, target = short.get(mark["actor"]), short.get(mark["target"])
        if kind in ARROWS and source and target:
            note = {"lost": " (lost)", "nobody": " (nobody there)"}.get(kind, "")
            lines.append(f"{source}{ARROWS[kind]}{target}: {label}{note}")
        elif kind == "time":
            ends = list(short.values())
            lines.append(f"Note over {ends[0]},{ends[-1]}: … {label} …")
        elif kind in NOTES and source:
            lines.append(f"Note over {source}: {NOTES[kind]}{label}")
    return "\n".join(lines)


def _safe(text: str) -> str:
    """A label that Mermaid takes as it is."""
    return text.replace("#", "#35;").replace(";", "#59;").replace("#35#59;", "#35;").replace("\n", " ") or "·"


def _known(told: list[dict[str, Any]]) -> None:
    """What each actor knew at the last look."""
    looks = [one["known"] for one in told if one["what"] == "step" and one["known"]]
    if not looks:
        look.empty("Not looked yet.", "Some steps stop to look who knows what.")
        return
    rows = [
        (
            known["actor"],
            look.dot("good", f"epoch {known['epoch']}") if known["there"] else look.dot("bad", "down"),
            "; ".join(known["knows"]) or "nothing of it",
            ", ".join(f"{row['kind']} #{row['seq']}" for row in known["rows"]) or "–",
        )
        for known in looks[-1]
    ]
    look.table(("Actor", "There", "Knows", "On its disk"), rows, wrap=(2, 3))
    site.link("operations", "Operations", icon=":material/dns:")
