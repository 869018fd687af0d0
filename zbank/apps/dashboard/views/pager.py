"""Forth and back in a list of which only the next page's cursor is known."""

from __future__ import annotations

import streamlit as st


class Pager:
    """The pages of one list; another `place` (other filters) begins with the first again."""

    def __init__(self, name: str, place: object) -> None:
        self._name = name
        kept = st.session_state.get(f"pager-{name}")
        if kept is None or kept[0] != place:
            kept = (place, [""])
            st.session_state[f"pager-{name}"] = kept
        self._cursors: list[str] = kept[1]

    @property
    def cursor(self) -> str:
        """Of the page at hand; "" = the first."""
        return self._cursors[-1]

    @property
    def number(self) -> int:
        """Of the page at hand, from 1."""
        return len(self._cursors)

    def _back(self) -> None:
        self._cursors.pop()

    def draw(self, following: str | None, back: str = "Previous", forth: str = "Next") -> None:
        """The two buttons, where there is somewhere to go. `following`: the cursor of the next page."""
        if self.number == 1 and not following:
            return
        left, middle, right = st.columns([1, 2, 1], vertical_alignment="center")
        if self.number > 1:
            left.button(
                back,
                icon=":material/chevron_left:",
                key=f"{self._name}-back",
                width="stretch",
                on_click=self._back,
            )
        middle.caption(f"Page {self.number}", text_alignment="center")
        if following:
            right.button(
                forth,
                icon=":material/chevron_right:",
                icon_position="right",
                key=f"{self._name}-next",
                width="stretch",
                on_click=self._cursors.append,
                args=(following,),
            )
