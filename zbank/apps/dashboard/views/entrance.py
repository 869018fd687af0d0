"""Before the bank: where its bridge is, and who you are."""

from __future__ import annotations

import streamlit as st

from zbank.apps.dashboard import look, session
from zbank.apps.dashboard.rest import DashboardError, SignInNeeded
from zbank.apps.dashboard.texts import plain

RETRY_S = 2.0


def not_connected(why: str) -> None:
    """The bridge cannot be reached: say so, and look again until it can."""
    look.title("No bank to show")
    with look.card("down"):
        look.empty(why, session.WHAT_TO_DO)
        _look_again()
    if session.is_here_only():
        _address_form("address-main")


@st.fragment(run_every=RETRY_S)
def _look_again() -> None:
    try:
        st.session_state.pop("caller", None)
        session.caller()
    except SignInNeeded:
        st.rerun()
    except DashboardError:
        st.caption("Looking again every 2 seconds.")
    else:
        st.rerun()


def too_open() -> None:
    """Whoever can open these pages would be the bank's operator: not where others can."""
    look.title("Not here")
    with look.card("too-open"):
        look.empty(
            "This page can be opened from other machines, and the bank asks nobody for a token.",
            "Make one (zbank tokens make --holder NAME --role operator), or start the dashboard without --host.",
        )


def sign_in(why: str) -> None:
    """The bridge wants a token."""
    look.title("Sign in")
    left, _ = st.columns([3, 2])
    with left, look.card("sign-in"):
        st.markdown("This bank wants to know who you are. Your operator gives you a token: it begins with `zbank_`.")
        with st.form("sign-in", border=False):
            secret = st.text_input("Token", type="password", key="given_token", autocomplete="current-password")
            sent = st.form_submit_button("Sign in", type="primary", key="sign_in")
        if sent:
            session.sign_in(secret)
            st.rerun()
        if session.token():
            st.error(plain(f"This token is not good here: {why}."), icon=":material/key_off:")
        st.caption("The token stays in the memory of this page. Reloading it, or a new tab, asks for it again.")


def connection() -> None:
    """The foot of the side bar: which bank this is, and who you are to it."""
    st.space("small")
    kept = st.session_state.get("caller")
    caller = kept[1] if kept else None
    shown = [("Bridge", session.url())]
    if caller is not None:
        shown.append(("You", f"{caller.holder}, {caller.role}" if caller.holder else "anybody (no tokens)"))
    with st.expander("Connection", icon=":material/lan:"):
        look.pairs(shown)
        if session.token():
            st.button("Sign out", on_click=session.sign_in, args=("",), key="sign_out", icon=":material/logout:")
        if caller is not None and session.is_here_only():  # else strangers could make this machine ask any address
            _address_form("address-side")


def _address_form(key: str) -> None:
    """Ask another bridge."""

    def use() -> None:
        session.connect(st.session_state[f"{key}-url"])

    with st.form(key, border=False):
        st.text_input(
            "Address of the REST bridge", value=session.url(), key=f"{key}-url", placeholder=session.DEFAULT_URL
        )
        st.form_submit_button("Use this address", on_click=use)
