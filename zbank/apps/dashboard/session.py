"""Whose page this is: which bridge it asks, with which token, and what that token may do."""

from __future__ import annotations

import hashlib
import ipaddress
import os
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import NamedTuple, cast

import streamlit as st

from zbank.apps.dashboard import look
from zbank.apps.dashboard.history import History, sample_of
from zbank.apps.dashboard.paying import Payments
from zbank.apps.dashboard.rest import BridgeDown, DashboardError, Json, Refused, Rest, SignInNeeded
from zbank.apps.dashboard.texts import plain, sentence
from zbank.clock import Clock

URL_VARIABLE = "ZBANK_REST_URL"
DEFAULT_URL = "http://127.0.0.1:5000"
CALLER_S = 2.0  #: who asks is asked again after so long
BRANCHES_S = 10.0  #: a new branch is seen after so long
LOOK_S = 0.2  #: one look serves all who look within this
WHAT_TO_DO = "Start the bank (make run), or give the address of its REST bridge in the side bar, under Connection."
HERE = frozenset({"localhost", "127.0.0.1", "[::1]"})  #: what a browser on this machine calls this machine
BANKS = 20  #: that one dashboard remembers the figures of


class Caller(NamedTuple):
    """Who asks, by the bridge."""

    holder: str
    role: str
    accounts: tuple[str, ...]  #: a customer's own
    may: frozenset[str]
    tokens_demanded: bool


class Look(NamedTuple):
    """The bank at one moment."""

    actors: list[Json]
    history: History

    @property
    def branches(self) -> list[Json]:
        """The branches' part."""
        return [actor for actor in self.actors if actor["role"] == "branch"]

    @property
    def coordinator(self) -> Json | None:
        """The coordinator, if it answers."""
        return next((actor for actor in self.actors if actor["role"] == "coordinator" and actor["up"]), None)


class Watch:
    """Looks at one bank for all pages that show it. Any thread may ask."""

    def __init__(self, url: str, token: str) -> None:
        self._rest = Rest(url, token)
        self._other = Rest(url, token)  #: to ask two things at once: a silent actor is waited for
        self._pool = ThreadPoolExecutor(1, "zbank-watch")
        self._lock = threading.Lock()
        self._history = History()
        self._last: Look | None = None
        self._looked_s = 0.0

    def look(self) -> Look:
        """The bank as it is now. Raises what `Rest.get` raises."""
        with self._lock:
            if self._last is not None and time.monotonic() - self._looked_s < LOOK_S:
                return self._last
            asked = self._pool.submit(self._other.get, "v1", "figures")
            cluster = self._rest.get("v1", "cluster")
            figures = asked.result()
            self._looked_s = time.monotonic()
            self._history.add(sample_of(figures["actors"], self._looked_s, Clock().now().wall_us / 1e6))
            self._last = Look(cluster["actors"], self._history)
            return self._last


def url() -> str:
    """The bridge's address: given on the page, by `zbank dashboard`, or the demo's."""
    return cast(str, st.session_state.get("rest_url") or os.environ.get(URL_VARIABLE) or DEFAULT_URL)


def is_here_only() -> bool:
    """This dashboard can be opened on its own machine alone: no other listens, and no proxy lets others in."""
    if not HERE.issuperset(st.get_option("server.allowedHosts") or ()):
        return False
    host = str(st.get_option("server.address") or "").strip("[]")
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def token() -> str:
    """The token of this page; "" = none."""
    return cast(str, st.session_state.get("token", ""))


def connect(address: str) -> None:
    """From now on this page asks that bridge. A token is never taken along to another."""
    st.session_state.clear()
    st.session_state["rest_url"] = address.strip()


def sign_in(secret: str) -> None:
    """From now on this page asks with this token."""
    address = st.session_state.get("rest_url")
    st.session_state.clear()
    if address:
        st.session_state["rest_url"] = address
    if secret.strip():
        st.session_state["token"] = secret.strip()


def owner() -> str:
    """Whose payments these are: the bridge and the token, without telling either."""
    return hashlib.sha256(f"{url()}\n{token()}".encode()).hexdigest()


def rest() -> Rest:
    """The bridge, asked with this page's token."""
    kept = st.session_state.get("rest")
    if kept is None or kept[0] != (url(), token()):
        kept = ((url(), token()), Rest(url(), token()))
        st.session_state["rest"] = kept
    return cast(Rest, kept[1])


def caller() -> Caller:
    """Who this page is to the bridge. Raises BridgeDown, SignInNeeded."""
    kept = st.session_state.get("caller")
    if kept is None or time.monotonic() - kept[0] > CALLER_S:
        told = rest().get("v1", "me")
        found = Caller(
            told["holder"], told["role"], tuple(told["accounts"]), frozenset(told["may"]), told["tokens_demanded"]
        )
        kept = (time.monotonic(), found)
        st.session_state["caller"] = kept
    return cast(Caller, kept[1])


def may(act: str) -> bool:
    """May this page's caller do that? For what is shown; the bridge checks again."""
    return act in caller().may


def _currencies_of_actors() -> dict[str, str]:
    """What the branches themselves say. Raises Refused where this caller may not ask them all."""
    return {actor["name"]: actor["currency"] for actor in watch().look().branches if actor["up"]}


def currencies() -> dict[str, str]:
    """The currency of each branch, by name. Neither changes, so while the coordinator is away what was heard last is good."""
    kept = st.session_state.get("currencies")
    if kept is None or time.monotonic() - kept[0] > BRANCHES_S:
        try:
            told = {branch["name"]: branch["currency"] for branch in rest().get("v1", "branches")["branches"]}
        except Refused as refused:
            if refused.status < 500:
                raise
            told = kept[1] if kept is not None else _currencies_of_actors()
        kept = (time.monotonic(), told)
        st.session_state["currencies"] = kept
    return cast("dict[str, str]", kept[1])


@st.cache_resource(max_entries=BANKS, show_spinner=False)
def _watch(address: str, secret: str) -> Watch:
    return Watch(address, secret)


def watch() -> Watch:
    """The figures of this page's bank; shared with other pages that have the same token."""
    return _watch(url(), token())


@st.cache_resource(show_spinner=False)
def payments() -> Payments:
    """What was confirmed on this dashboard."""
    return Payments()


@contextmanager
def guarded() -> Iterator[None]:
    """What a part of a page cannot do without is told in its place, in one sentence; a traceback never."""
    try:
        yield
    except SignInNeeded:
        st.session_state.pop("caller", None)
        look.empty("You are signed out.", "This token is not good any more. Reload the page and sign in again.")
    except BridgeDown as error:
        look.empty(error.text, WHAT_TO_DO)
    except Refused as error:
        text = plain(sentence(error.text))
        if error.status >= 500:
            st.warning(
                f"{text}. Nothing is lost by it: start it again, or wait and try again.", icon=":material/cloud_off:"
            )
        else:
            st.error(text, icon=":material/block:")
    except DashboardError as error:
        st.warning(plain(error.text), icon=":material/warning:")
