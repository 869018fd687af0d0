"""Cash over the counter: pay in, pay out."""

from __future__ import annotations

import streamlit as st

from zbank.apps.dashboard import look
from zbank.apps.dashboard.paying import Payment
from zbank.apps.dashboard.texts import money, parse_account, parse_amount
from zbank.apps.dashboard.views import pay_once

FORM = "teller"
DEPOSIT = "Deposit"
WITHDRAW = "Withdraw"
FIELDS = ("teller-amount", "teller-memo")


def page() -> None:
    """The page."""
    look.title("Teller")
    payment = pay_once.payment_of(FORM)
    pay_once.run(payment)
    left, right = st.columns([3, 2])
    with left, look.card("teller"):
        wanted = st.query_params.get("do", "deposit").capitalize()
        what = st.segmented_control(
            "What",
            [DEPOSIT, WITHDRAW],
            default=wanted if wanted in (DEPOSIT, WITHDRAW) else DEPOSIT,
            required=True,
            key="teller-what",
            label_visibility="collapsed",
        )
        with st.form(FORM, border=False):
            pay_once.account_box("Account", "teller-account", start=st.query_params.get("account"))
            st.text_input("Amount", key="teller-amount", placeholder="100.00", max_chars=24)
            st.text_input("Memo", key="teller-memo", max_chars=140, placeholder="What it is for (may be empty)")
            pay_once.review_button(FORM, payment, lambda: _check(payment, what == DEPOSIT))
    with right:
        pay_once.outcome(FORM, payment, "Next customer", FIELDS)


def _check(payment: Payment, is_deposit: bool) -> None:
    """Read the form; raises ValueError with what is wrong."""
    state = st.session_state
    account = parse_account(state["teller-account"])
    currency = pay_once.currency_of(account)
    amount = parse_amount(state["teller-amount"], currency)
    shown = [
        ("Pay in to" if is_deposit else "Pay out from", pay_once.owner_of(account)),
        ("Memo", state["teller-memo"] or "–"),
    ]
    body = {"account": account, "amount": amount, "memo": state["teller-memo"]}
    payment.review(("v1", "deposits" if is_deposit else "withdrawals"), body, money(amount, currency), shown)
