"""All accounts: search, look at, open one."""

from __future__ import annotations

from typing import Any

import streamlit as st

from zbank.apps.dashboard import look, session
from zbank.apps.dashboard.rest import AnswerLost, Json, Refused
from zbank.apps.dashboard.texts import by_currency, count, is_customers, money, parse_amount, plain, sums
from zbank.apps.dashboard.views import account, site
from zbank.apps.dashboard.views.pager import Pager
from zbank.apps.dashboard.views.pay_once import currency_of
from zbank.ids import new_key

PAGE = 50
ALL = "All branches"
STATUSES = {"": "Any state", "open": "Open", "frozen": "Frozen", "closed": "Closed"}


def page() -> None:
    """The page: one account if the address names it, else the list."""
    name = st.query_params.get("account")
    if name:
        account.page(name)
        return
    title, button = st.columns([4, 1], vertical_alignment="center")
    with title:
        look.title("Accounts")
    if session.may("keep") and button.button("Open account", type="primary", icon=":material/add:", width="stretch"):
        open_account()
    _summary()
    search, branch, status = _filters()
    _list(search, branch, status)


def _summary() -> None:
    if not session.may("see_bank"):
        return
    now = session.watch().look()
    up = [actor for actor in now.branches if actor["up"]]
    accounts = sum(actor["accounts"] for actor in up)
    where = f"{count(accounts, 'account')} at {count(len(up), 'branch', 'branches')}"
    st.caption(plain(f"{where}, the bank's own with them. The customers have {sums(by_currency(up, 'customers'))}."))


def _filters() -> tuple[str, str, str]:
    left, middle, right = st.columns([5, 3, 2])
    search = left.text_input(
        "Search",
        key="accounts-search",
        placeholder="Owner, or the beginning of the number",
        icon=":material/search:",
        type="search",
        live="400ms",
        max_chars=100,
    )
    names = list(session.currencies())
    branch = middle.selectbox("Branch", [ALL, *names], key="accounts-branch")
    status = right.selectbox("State", list(STATUSES), format_func=lambda one: STATUSES[one], key="accounts-status")
    return (search or "").strip(), "" if branch in (ALL, None) else str(branch), status or ""


def _list(search: str, branch: str, status: str) -> None:
    pager = Pager("accounts", (search, branch, status))
    found = session.rest().get(
        "v1", "accounts", search=search, branch=branch, status=status, limit=PAGE, cursor=pager.cursor
    )
    look.missing(found["missing"], "its accounts are")
    if found["accounts"]:
        _table(found["accounts"], pager.number)
    elif found["cursor"]:
        look.empty("Nothing found so far.", "The bank is large: go on with Next.")
    elif search or branch or status:
        look.empty("No account fits.", "Search for less, or take all branches and any state.")
    else:
        look.empty("There are no accounts yet.", "Open the first one.")
    pager.draw(found["cursor"])


def _table(accounts: list[Json], number: int) -> None:
    columns = {
        "Account": [one["account"] for one in accounts],
        "Owner": [one["owner"] or ("the bank" if not is_customers(one) else "") for one in accounts],
        "State": [one["status"] for one in accounts],
        "Balance": [money(one["balance"]) for one in accounts],
        "Available": [money(one["available"]) if is_customers(one) else "–" for one in accounts],
        "Currency": [one["currency"] for one in accounts],
    }
    config = {"Balance": look.RIGHT, "Available": look.RIGHT, "Currency": st.column_config.TextColumn(width="small")}
    todo = "Choose a line to see the account."
    chosen = look.choice(columns, f"accounts-table-{number}", "Accounts", todo, config)
    if chosen is not None:
        site.go("accounts", account=accounts[chosen]["account"])


@st.dialog("Open an account")
def open_account() -> None:
    """The form. Its key is made once and kept until the bank has said something, so that a second click opens no second."""
    key = st.session_state.setdefault("open-key", new_key())
    with st.form("open", border=False):
        names = list(session.currencies())
        branch = st.selectbox("Branch", names, key="open-branch")
        owner = st.text_input("Owner", key="open-owner", max_chars=100, placeholder="Asha Rao")
        number = st.text_input(
            "Number", key="open-number", max_chars=34, placeholder="empty: the branch gives the next one"
        )
        limit = st.text_input("Overdraft limit", key="open-limit", max_chars=24, placeholder="0.00")
        sent = st.form_submit_button("Open account", type="primary", key="open-sent", width="stretch")
    if not sent or branch is None:
        return
    body: dict[str, Any] = {"owner": owner.strip()}
    if number.strip():
        body["number"] = number.strip()
    try:
        if limit.strip().strip("0."):
            body["overdraft_limit"] = parse_amount(limit, currency_of(branch))
        opened = session.rest().do("POST", "v1", "branches", branch, "accounts", body=body, key=key)
    except ValueError as error:
        st.error(plain(str(error)))
    except AnswerLost as lost:
        st.warning(plain(f"It is not known whether it was opened. {lost.text} Click again: it is opened once."))
    except Refused as refused:
        st.session_state["open-key"] = new_key()
        st.error(plain(refused.text))
    else:
        for name in ("open-key", "open-owner", "open-number", "open-limit", "account_names"):
            st.session_state.pop(name, None)
        site.go("accounts", account=opened["account"])
