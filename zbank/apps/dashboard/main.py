"""The script that Streamlit runs for each page: who is asking, what there is to see, and the page itself."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import streamlit as st

from zbank.apps.dashboard import look, session
from zbank.apps.dashboard.rest import DashboardError, SignInNeeded
from zbank.apps.dashboard.views import site
from zbank.apps.dashboard.views.entrance import connection, not_connected, sign_in, too_open
from zbank.apps.dashboard.views.pages import pages


def main() -> None:
    """Draw the page that the address names."""
    st.set_page_config("zbank", str(look.ASSETS / "icon.png"), layout="wide", menu_items={})
    st.logo(str(look.ASSETS / "logo.svg"), size="large", icon_image=str(look.ASSETS / "icon.svg"))
    look.apply()
    try:
        caller = session.caller()
        open_to_all = not caller.tokens_demanded and not session.is_here_only()
        page = _instead(too_open) if open_to_all else st.navigation(pages(caller))
    except SignInNeeded as error:
        st.session_state.pop("caller", None)
        page = _instead(partial(sign_in, error.text))
    except DashboardError as error:
        st.session_state.pop("caller", None)
        page = _instead(partial(not_connected, error.text))
    with st.sidebar:
        connection()
    with session.guarded():
        page.run()


def _instead(draw: Callable[[], None]) -> Any:
    """A page in place of all others. It answers to every address, so that one is where one was when it is over."""
    every = [st.Page(draw, title="zbank", url_path=name, default=name == "home") for name in ("home", *site.CAN)]
    return st.navigation(every, position="hidden")


main()
