"""The look that the theme cannot give, and the small parts that all pages are made of. Text of other people's is escaped."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any, Literal

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from zbank.apps.dashboard.texts import actor_name, plain

ASSETS = Path(__file__).parent / "assets"

Colour = Literal["gray", "green", "orange", "red"]

RIGHT = st.column_config.TextColumn(alignment="right")
SCREEN_PX = 630  #: a list of more lines scrolls

CSS = """
<style>
.stMainBlockContainer { max-width: 1320px; padding-left: 2.4rem; padding-right: 2.4rem; padding-bottom: 3rem;
  padding-top: 4.3rem; }
[class*="st-key-card"], [data-testid="stMetric"] {
  background: light-dark(#ffffff, #131c2a); border: 1px solid light-dark(#dbe2ee, #2a374b) !important;
  border-radius: 0.5rem; box-shadow: 0 1px 2px light-dark(rgb(18 32 58 / 6%), rgb(0 0 0 / 40%));
}
[class*="st-key-card"] [data-testid="stVegaLiteChart"] { margin-top: -0.3rem; }
.stMainBlockContainer h1 { padding-top: 0; padding-bottom: 0.4rem; }
[data-testid="stMetricLabel"] p { font-size: 0.9rem; color: light-dark(#4a5872, #a9b7cc); }
[data-testid="stMetricValue"] { white-space: nowrap; }
[data-testid="stMetricValue"] > div { overflow: visible; }
[data-testid="stCaptionContainer"] { opacity: 1 !important; }
[data-testid="stCaptionContainer"] p { color: light-dark(#4a5872, #a9b7cc); }
[class*="st-key-card"] h3 { padding-top: 0; }
.stFragment [data-stale="true"], [data-stale="true"] { opacity: 1 !important; }
.z-table { overflow-x: auto; width: 100%; }
.z-table table { border-collapse: collapse; width: 100%; font-size: 0.93rem; }
.z-table th { text-align: left; font-weight: 500; color: light-dark(#56637a, #a9b7cc); padding: 0.35rem 0.7rem;
  border-bottom: 1px solid light-dark(#dbe2ee, #2a374b); white-space: nowrap; }
.z-table td { padding: 0.42rem 0.7rem; border-bottom: 1px solid light-dark(#e9eef6, #202c3e); white-space: nowrap; }
.z-table tr:last-child td { border-bottom: none; }
.z-table th:first-child, .z-table td:first-child { padding-left: 0.15rem; }
.z-table .right { text-align: right; font-variant-numeric: tabular-nums; }
.z-table .wrap { white-space: normal; min-width: 14rem; }
.z-dot { display: inline-block; width: 0.55rem; height: 0.55rem; border-radius: 50%; margin-right: 0.45rem; }
.z-good { background: #1f9d61; } .z-bad { background: #d23b3b; } .z-wait { background: #d98a14; }
.z-empty { text-align: center; padding: 2.2rem 1rem; color: light-dark(#56637a, #a9b7cc); }
.z-empty b { display: block; font-size: 1.1rem; color: light-dark(#12203a, #e6ecf6); margin-bottom: 0.3rem; }
.z-pairs { margin: 0 !important; padding: 0 !important; display: grid; grid-template-columns: max-content 1fr;
  gap: 0.3rem 1.2rem; font-size: 0.97rem; }
.z-pairs dt { margin: 0 !important; color: light-dark(#56637a, #a9b7cc); }
.z-pairs dd { margin: 0 !important; padding: 0; overflow-wrap: anywhere; }
.z-big { font-size: 1.9rem; font-weight: 700; line-height: 1.3; overflow-wrap: anywhere; }
.z-mono { font-family: "Source Code Pro", monospace; font-size: 0.88rem; }
.z-told { border-left: 3px solid light-dark(#c9d5e8, #33435c); padding: 0.1rem 0 0.1rem 0.8rem; margin: 0 0 0.75rem; }
.z-told b.n { color: light-dark(#0b5cc4, #7db6ff); margin-right: 0.4rem; }
.z-told .rule { color: light-dark(#56637a, #a9b7cc); font-size: 0.85rem; margin-left: 0.3rem; white-space: nowrap; }
section[data-testid="stSidebar"] .z-pairs { font-size: 0.85rem; gap: 0.15rem 0.8rem; }
section[data-testid="stSidebar"] .z-pairs dt { color: #a9bbd6; }
button:focus-visible, a:focus-visible, [role="tab"]:focus-visible {
  outline: 3px solid #f0a13c !important; outline-offset: 2px; }
@media (max-width: 640px) {
  .stMainBlockContainer { padding-left: 1rem; padding-right: 1rem; }
  [data-testid="stMetricValue"] { font-size: 1.35rem; }
  .z-table td, .z-table th { padding-left: 0.45rem; padding-right: 0.45rem; }
}
</style>
"""


def apply() -> None:
    """The page's own style. Once in a run of the script."""
    st.html(CSS)


def card(key: str, height: Literal["content", "stretch"] = "content") -> DeltaGenerator:
    """A white box; `key` is unique on the page."""
    return st.container(border=True, key=f"card-{key}", height=height)


def heading(text: str) -> None:
    """The heading of a card."""
    st.subheader(text, anchor=False)


def title(text: str) -> None:
    """The heading of a page."""
    st.title(plain(text), anchor=False)


def metric(
    place: DeltaGenerator, label: str, value: str, note: str, colour: Colour = "gray", help: str | None = None
) -> None:
    """A figure with a word on it."""
    place.metric(label, value, note, delta_color=colour, delta_arrow="off", help=help, border=True, height="stretch")


def table(
    headings: Sequence[str], rows: Iterable[Sequence[str]], *, right: Sequence[int] = (), wrap: Sequence[int] = ()
) -> None:
    """A plain table. Cells are text, or made by `dot` and `mono`."""

    def cell(tag: str, column: int, text: str) -> str:
        kind = "right" if column in right else "wrap" if column in wrap else ""
        return f'<{tag} class="{kind}">{text if isinstance(text, Markup) else escape(text)}</{tag}>'

    head = "".join(cell("th", column, text) for column, text in enumerate(headings))
    body = "".join(
        "<tr>" + "".join(cell("td", column, text) for column, text in enumerate(row)) + "</tr>" for row in rows
    )
    st.html(
        f'<div class="z-table" tabindex="0"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
    )


class Markup(str):
    """HTML made here, its text escaped already."""

    __slots__ = ()


def dot(kind: str, text: str) -> Markup:
    """A coloured dot and a word: `kind` is good, wait or bad."""
    return Markup(f'<span class="z-dot z-{kind}"></span>{escape(text)}')


def mono(text: str) -> Markup:
    """An id, a txn."""
    return Markup(f'<span class="z-mono">{escape(text)}</span>')


def pairs(found: Iterable[tuple[str, str]]) -> None:
    """Label and value, line by line."""
    lines = "".join(
        f"<dt>{escape(label)}</dt><dd>{value if isinstance(value, Markup) else escape(value)}</dd>"
        for label, value in found
    )
    st.html(f'<dl class="z-pairs">{lines}</dl>')


def big(text: str) -> None:
    """The one thing that matters here."""
    st.html(f'<div class="z-big">{escape(text)}</div>')


def empty(what: str, todo: str) -> None:
    """There is nothing to show: what that means, and what to do."""
    st.html(f'<div class="z-empty"><b>{escape(what)}</b>{escape(todo)}</div>')


STATES: dict[str, tuple[Colour, str, str]] = {  #: of a transfer: colour, icon, dot
    "committed": ("green", ":material/check:", "good"),
    "aborted": ("red", ":material/close:", "bad"),
    "pending": ("orange", ":material/hourglass_top:", "wait"),
    "unknown": ("orange", ":material/help:", "wait"),
}


def state_badge(status: str) -> None:
    """The outcome of a transfer as a coloured word."""
    colour, icon, _ = STATES[status]
    st.badge(status.upper(), icon=icon, color=colour)


def state_dot(status: str) -> Markup:
    """The same in a table; of a branch's part too, which can be `prepared` or `in_doubt`."""
    _, _, kind = STATES.get(status, STATES["pending"])
    return dot(kind, status.replace("_", " "))


def actor_dot(actor: Mapping[str, Any]) -> Markup:
    """Whether it answers, and has something to say."""
    if not actor["up"]:
        return dot("bad", "no answer")
    if actor.get("stopped"):
        return dot("bad", "stopped")
    return dot("wait", "alarm") if actor["alarms"] else dot("good", "up")


def alarms(actor: dict[str, Any]) -> None:
    """What an actor has to say, below the table in which it stands."""
    for alarm in actor.get("alarms", ()):
        st.warning(plain(f"{actor_name(actor)}: {alarm}"), icon=":material/notification_important:")


def missing(actors: Iterable[Mapping[str, Any]], what: str) -> None:
    """Above a list: whose part is not in it."""
    for actor in actors:
        st.warning(plain(f"{actor['name']} does not answer: {what} not in this list."), icon=":material/cloud_off:")


def choice(
    columns: Mapping[str, Sequence[str]], key: str, name: str, todo: str, config: Mapping[str, Any] | None = None
) -> int | None:
    """A list from which a line is chosen: the line's number, None while none is. `columns` are cells by heading."""
    rows = len(next(iter(columns.values())))
    chosen: Any = st.dataframe(
        columns,
        hide_index=True,
        height=min(33 * rows + 36, SCREEN_PX),
        column_config=config,
        on_select="rerun",
        selection_mode="single-row",
        key=key,
        alt=f"{name}. {todo}",
    )
    st.caption(todo)
    return chosen.selection.rows[0] if chosen.selection.rows else None
