"""Move money: from one account to another, or between many at once."""

from __future__ import annotations

from decimal import Decimal

import streamlit as st

from zbank.apps.dashboard import look
from zbank.apps.dashboard.paying import FORM as EMPTY
from zbank.apps.dashboard.paying import REVIEW, Payment
from zbank.apps.dashboard.rest import DashboardError
from zbank.apps.dashboard.texts import decimal_or_none, money, parse_account, parse_amount, parse_signed, plain
from zbank.apps.dashboard.views import pay_once

FORM = "transfer"
ONE = "One to one"
MANY = "Several accounts"
FIELDS = ("transfer-amount", "transfer-memo", "legs-memo")
FIRST_LEGS = 3
MAX_LEGS = 12  #: that this form offers; the REST bridge takes 256


def page() -> None:
    """The page."""
    look.title("New transfer")
    payment = pay_once.payment_of(FORM)
    pay_once.run(payment)
    left, right = st.columns([3, 2])
    with left, look.card("transfer"):
        how = st.segmented_control(
            "How", [ONE, MANY], default=ONE, required=True, key="transfer-how", label_visibility="collapsed"
        )
        if how == ONE:
            _one_to_one(payment)
        else:
            _several(payment)
    with right:
        pay_once.outcome(FORM, payment, "Another transfer", FIELDS)


def _one_to_one(payment: Payment) -> None:
    with st.form(FORM, border=False):
        pay_once.account_box("From", "transfer-from", start=st.query_params.get("from"))
        pay_once.account_box("To", "transfer-to", start=st.query_params.get("to"))
        st.text_input("Amount", key="transfer-amount", placeholder="50.00", max_chars=24)
        st.text_input("Memo", key="transfer-memo", max_chars=140, placeholder="What it is for (may be empty)")
        pay_once.review_button(FORM, payment, lambda: _check_one(payment))


def _check_one(payment: Payment) -> None:
    """Read the form; raises ValueError with what is wrong."""
    state = st.session_state
    source = parse_account(state["transfer-from"], "account that pays")
    target = parse_account(state["transfer-to"], "account that is paid")
    if source == target:
        raise ValueError(f"Both sides are {source}: choose two accounts.")
    currency = pay_once.currency_of(source)
    amount = parse_amount(state["transfer-amount"], currency)
    between = source.partition("/")[0] != target.partition("/")[0]
    shown = [
        ("From", pay_once.owner_of(source)),
        ("To", pay_once.owner_of(target)),
        ("Memo", state["transfer-memo"] or "–"),
        ("How", "between branches, by two-phase commit" if between else "within one branch"),
    ]
    body = {"from": source, "to": target, "amount": amount, "memo": state["transfer-memo"]}
    payment.review(("v1", "transfers"), body, money(amount, currency), shown)


# --- several accounts -------------------------------------------------------------------------------------------------


def _several(payment: Payment) -> None:
    """No form of Streamlit's: the sum is told while one types."""
    count = st.session_state.setdefault("legs-count", FIRST_LEGS)
    st.caption("Minus pays, plus gets. All happens, or nothing does. The amounts add up to zero.")
    for n in range(count):
        account, place = st.columns([3, 2])
        with account:
            pay_once.account_box(f"Account {n + 1}", f"leg-account-{n}")
        place.text_input(
            f"Amount {n + 1}", key=f"leg-amount-{n}", placeholder="-30.00" if n == 0 else "15.00", max_chars=24
        )
    st.text_input("Memo", key="legs-memo", max_chars=140, placeholder="What it is for (may be empty)")
    legs = _legs(count)
    total = sum((decimal_or_none(text) or Decimal() for _, text in legs), Decimal())
    st.markdown(f"Sum **{plain(money(str(total)))}**" + (": it has to be 0." if total else ": ready." if legs else "."))
    more, review = st.columns(2)
    if count < MAX_LEGS:
        more.button("One account more", icon=":material/add:", key="legs-more", on_click=_more, width="stretch")
    is_open = payment.state in (EMPTY, REVIEW)
    if review.button("Review", type="primary", key="legs-review", disabled=not is_open, width="stretch"):
        try:
            _check_legs(payment, count)
        except (ValueError, DashboardError) as error:
            st.error(plain(str(error)), icon=":material/edit:")
        else:
            st.rerun()


def _more() -> None:
    st.session_state["legs-count"] += 1


def _legs(count: int) -> list[tuple[str, str]]:
    """What stands in the lines that are not empty."""
    state = st.session_state
    found = [(state.get(f"leg-account-{n}") or "", state.get(f"leg-amount-{n}") or "") for n in range(count)]
    return [(account, amount) for account, amount in found if account.strip() or amount.strip()]


def _check_legs(payment: Payment, count: int) -> None:
    """Read the lines; raises ValueError with what is wrong."""
    legs: list[dict[str, str]] = []
    for account, amount in _legs(count):
        name = parse_account(account)
        try:
            legs.append({"account": name, "amount": parse_signed(amount, pay_once.currency_of(name))})
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error
    if len(legs) < 2:
        raise ValueError("Fill in two lines at least.")
    total = sum((Decimal(leg["amount"]) for leg in legs), Decimal())
    if total:
        raise ValueError(f"The amounts add up to {money(str(total))}: they have to add up to 0.")
    currency = pay_once.currency_of(legs[0]["account"])
    shown = [
        (
            f"{'Pays' if leg['amount'][0] == '-' else 'Gets'} {money(leg['amount'].lstrip('-'))}",
            pay_once.owner_of(leg["account"]),
        )
        for leg in legs
    ]
    paid = sum((Decimal(leg["amount"]) for leg in legs if Decimal(leg["amount"]) > 0), Decimal())
    memo = st.session_state["legs-memo"]
    body = {"legs": legs, "memo": memo}
    payment.review(("v1", "transfers"), body, money(str(paid), currency), [*shown, ("Memo", memo or "–")])
