"""What all forms that pay share: the key, the confirmation, sending once, and the outcome."""

from __future__ import annotations

from collections.abc import Callable

import streamlit as st

from zbank.apps.dashboard import look, session
from zbank.apps.dashboard.paying import DONE, FORM, OVER, REFUSED, REVIEW, SENDING, UNKNOWN, Payment
from zbank.apps.dashboard.rest import DashboardError, Json, Refused, SignInNeeded
from zbank.apps.dashboard.texts import clock_time, is_customers, plain, sentence
from zbank.apps.dashboard.views import site

QUERY = "pay"  #: in the page's address, from the moment of confirming: a reload finds the payment by it
OPTIONS = 200  #: accounts that a list offers; any other can be typed


def payment_of(form: str) -> Payment:
    """The payment of a form: the one at hand, the one that the page's address names, or a fresh one."""
    kept: Payment | None = st.session_state.get(f"payment-{form}")
    key = st.query_params.get(QUERY)
    if kept is None and key:
        kept = session.payments().find(session.owner(), key) or _looked_up(key)
    if kept is None:
        kept = Payment()
    st.session_state[f"payment-{form}"] = kept
    return kept


def _looked_up(key: str) -> Payment:
    payment = Payment(key=key, state=UNKNOWN)
    payment.look_up(session.rest())
    return payment


def run(payment: Payment) -> None:
    """Do what the payment's state asks for: show the confirmation, or send it."""
    if payment.state == REVIEW:
        _confirm(payment)
    if payment.state == SENDING:
        with st.spinner("Paying. Waiting for the bank's word."):
            payment.send(session.rest())


@st.dialog("Please confirm", dismissible=False)
def _confirm(payment: Payment) -> None:
    if payment.state != REVIEW:
        st.rerun()
    look.big(payment.amount)
    look.pairs(payment.shown)
    st.caption(f"Key {payment.key[:12]}…: it makes sure that this is paid once, however often it is asked for.")
    yes, no = st.columns(2)
    yes.button("Pay now", type="primary", on_click=_go_ahead, args=(payment,), key="pay_now", width="stretch")
    no.button("Back", on_click=payment.back, key="pay_back", width="stretch")


def _go_ahead(payment: Payment) -> None:
    payment.confirm()
    session.payments().keep(session.owner(), payment)
    st.query_params[QUERY] = payment.key


def outcome(form: str, payment: Payment, again: str, fields: tuple[str, ...]) -> None:
    """The card beside the form: what became of it."""
    with look.card(f"outcome-{form}"):
        look.heading("Outcome")
        if payment.state in (FORM, REVIEW):
            look.empty("Nothing sent yet.", "What the bank says will stand here.")
            return
        if payment.state == DONE:
            st.success(f"{plain(payment.amount) or 'Paid'}: done, once.", icon=":material/check_circle:")
        elif payment.state == REFUSED:
            st.error(f"Not done: {plain(payment.text)}", icon=":material/block:")
        elif payment.state == UNKNOWN:
            st.warning(
                f"It is not known yet whether this was paid. {plain(payment.text)} "
                "Checking again is safe: the key is the same, so it is never paid twice.",
                icon=":material/help:",
            )
            with st.container(horizontal=True):
                st.button("Check again", key=f"{form}-check", type="primary", on_click=_check, args=(payment,))
                st.button("Cancel it", key=f"{form}-cancel", on_click=_cancel, args=(payment,))
        _details(payment.transfer, payment)
        if payment.state in OVER:
            st.button(again, key=f"{form}-again", on_click=_again, args=(form, payment, fields))


def _check(payment: Payment) -> None:
    if payment.path:
        payment.check_again()
    else:
        with session.guarded():
            payment.look_up(session.rest())


def _cancel(payment: Payment) -> None:
    with session.guarded():
        payment.cancel(session.rest())


def _again(form: str, payment: Payment, fields: tuple[str, ...]) -> None:
    """A new form, with a new key. What was refused is left in its fields, to be mended."""
    st.session_state.pop(f"payment-{form}", None)
    st.query_params.pop(QUERY, None)
    if payment.state == DONE:
        for name in fields:
            st.session_state.pop(name, None)


def _details(transfer: Json | None, payment: Payment) -> None:
    shown = list(payment.shown)
    if transfer is not None:
        shown += [("When (UTC)", clock_time(transfer["created_at"])), ("Id", transfer["id"])]
    if shown:
        look.pairs(shown)
    if transfer is not None:
        site.link("transfers", "See how it went", icon=":material/timeline:", id=transfer["id"])


def account_box(label: str, key: str, *, start: str | None = None) -> str | None:
    """A list of accounts from which to choose (a customer's: the own ones), or into which to type any other."""
    names = account_names()
    if start and key not in st.session_state:
        st.session_state[key] = start
    current = st.session_state.get(key)
    if current and current not in names:
        names = {current: current, **names}
    found: str | None = st.selectbox(
        label,
        list(names),
        index=None,
        key=key,
        format_func=lambda name: names.get(name, name),
        placeholder="Choose, or type as in Mumbai/1001",
        accept_new_options=True,
    )
    return found


def account_names() -> dict[str, str]:
    """Accounts to choose from, each with its owner's name."""
    kept = st.session_state.get("account_names")
    if kept is None:
        found = session.rest().get("v1", "accounts", limit=OPTIONS, status="open")["accounts"]
        kept = {one["account"]: f"{one['account']}  {one['owner']}".strip() for one in found if is_customers(one)}
        st.session_state["account_names"] = kept
    return dict(kept)


def owner_of(account: str) -> str:
    """The account with its owner's name, as far as this caller may know it. Raises ValueError when there is none."""
    branch, _, number = account.partition("/")
    try:
        found = session.rest().get("v1", "branches", branch, "accounts", number)
    except Refused as refused:
        if refused.status == 404:
            raise ValueError(f"{sentence(refused.text)}.") from refused
        if refused.status != 403:  # what others have is not shown to a customer; the bank still takes the payment
            raise
        return account
    return f"{account}  {found['owner']}".strip()


def currency_of(account: str) -> str:
    """Of the account's branch. Raises ValueError when there is none."""
    name = account.partition("/")[0]
    known = session.currencies()
    if name not in known:
        raise ValueError(f"There is no branch {name}: this bank has {', '.join(known)}.")
    return known[name]


def review_button(form: str, payment: Payment, check: Callable[[], None]) -> None:
    """The button that ends the form. It is dead while a payment of it is under way or its outcome is not known."""

    def clicked() -> None:
        st.session_state.pop(f"{form}-wrong", None)
        try:
            check()
        except SignInNeeded:
            st.session_state.pop("caller", None)
        except (ValueError, DashboardError) as error:
            st.session_state[f"{form}-wrong"] = str(error)

    is_open = payment.state in (FORM, REVIEW)
    st.form_submit_button("Review", type="primary", on_click=clicked, key=f"{form}-review", disabled=not is_open)
    wrong = st.session_state.get(f"{form}-wrong")
    if wrong and is_open:
        st.error(plain(wrong), icon=":material/edit:")
