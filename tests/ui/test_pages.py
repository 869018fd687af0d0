"""The logic of each page, run by Streamlit itself in this process, against a real bridge and a real bank."""

from __future__ import annotations

import os
from collections.abc import Iterator
from html import unescape
from typing import Any

import pytest
import streamlit as st
from streamlit import config
from streamlit.testing.v1 import AppTest

from tests.acceptance.cluster import ROOT, Cluster, wait_until
from tests.acceptance.rest import Rest
from tests.ui.browser import at_rest, balance_at_rest

pytestmark = [pytest.mark.timeout(300), pytest.mark.filterwarnings("default")]  # what Streamlit's own parts warn of

LIMIT_S = 30
MAIN = ROOT / "zbank" / "apps" / "dashboard" / "main.py"


@pytest.fixture(autouse=True)
def fresh(rest: Rest) -> Iterator[None]:
    """Nothing is remembered from the test before."""
    st.cache_resource.clear()
    config.set_option("server.address", "127.0.0.1")
    os.environ["ZBANK_REST_URL"] = f"http://127.0.0.1:{rest.port}"
    yield
    del os.environ["ZBANK_REST_URL"]


def script(name: str) -> None:
    """What `main` does, with the page given: AppTest has no address that could name one."""
    from importlib import import_module

    import streamlit as st

    from zbank.apps.dashboard import look, session
    from zbank.apps.dashboard.views.pages import pages

    look.apply()
    st.navigation(pages(session.caller()))
    with session.guarded():
        import_module(f"zbank.apps.dashboard.views.{name}").page()


def page(name: str, token: str = "", **query: str) -> AppTest:
    """A page as it is first shown."""
    test = AppTest.from_function(script, args=(name,), default_timeout=LIMIT_S)
    if token:
        test.session_state["token"] = token
    for key, value in query.items():
        test.query_params[key.rstrip("_")] = value
    test.run()
    assert not test.exception, test.exception
    return test


def read(test: AppTest) -> str:
    """All that is written on the page."""
    elements: list[Any] = [*test.markdown, *test.caption, *test.title, *test.subheader, *test.error, *test.warning]
    elements += [*test.success, *test.info]
    texts = [str(element.value) for element in elements]
    texts += [str(element.proto.body) for element in test.get("html")]
    texts += [f"{one.label} {one.value} {one.delta}" for one in test.metric]
    return unescape("\n".join(texts))


def click(test: AppTest, key: str) -> AppTest:
    """A click, and the page after it."""
    test.button(key=key).click().run()
    assert not test.exception, test.exception
    return test


def test_overview(rest: Rest) -> None:
    rest.pay("12.00", "overview-1")
    at_rest(rest)
    text = read(page("overview"))
    assert "Branches up 2 of 2 all answer" in text
    assert "Customers' money 30,000.00 INR" in text
    assert "Money on its way 0.00 INR" in text
    assert "In doubt 0" in text
    assert "Mumbai/1001 → Delhi/1002" in text


def test_accounts_are_searched_in_the_bank(rest: Rest) -> None:
    for n in range(3):
        owner = {"owner": "O'Hara 100%" if n else "Ærø Bank"}
        assert rest.post("/v1/branches/Delhi/accounts", owner | {"number": f"S{n}"}, key=f"open-{n}").status == 201
    test = page("accounts")
    wait_until(lambda: len(accounts_on(test.run())) > 3, what="the list")
    for text, found in (("100%", ["Delhi/S1", "Delhi/S2"]), ("ærø", ["Delhi/S0"]), ("s2", ["Delhi/S2"])):
        test.text_input(key="accounts-search").set_value(text)
        wait_until(lambda found=found: accounts_on(test.run()) == found, what=f"{found}")  # type: ignore[misc]
    test.text_input(key="accounts-search").set_value("nobody has this name")
    wait_until(lambda: "No account fits." in read(test.run()), what="nothing")
    test.text_input(key="accounts-search").set_value("").run()
    test.selectbox(key="accounts-branch").set_value("Mumbai")
    wait_until(lambda: {name.partition("/")[0] for name in accounts_on(test.run())} == {"Mumbai"}, what="the one branch")


def accounts_on(test: AppTest) -> list[str]:
    """The accounts on the page: a search that takes longer than half a second tells what it has, which may be nothing."""
    return list(test.dataframe[0].value["Account"]) if test.dataframe else []


def form(*needed: str) -> AppTest:
    """The page of a new transfer, with these accounts in its lists: those that were slow to come are left out, and can be
    typed, as nobody can here."""
    shown: list[AppTest] = []

    def is_whole() -> bool:
        shown[:] = [page("transfer")]
        return all(any(name in one for one in shown[0].selectbox(key="transfer-from").options) for name in needed)

    wait_until(is_whole, what="the lists of accounts")
    return shown[0]


def test_an_account_with_its_statement(rest: Rest) -> None:
    rest.post("/v1/deposits", {"account": "Delhi/1001", "amount": "1.25", "memo": "<i>cash</i> *in*"}, key="account-1")
    test = page("accounts", account="Delhi/1001")
    text = read(test)
    assert "Available" in text
    html = "".join(str(element.proto.body) for element in test.get("html"))
    assert "&lt;i&gt;cash&lt;/i&gt; *in*" in html
    assert "<i>cash" not in html
    click(test, "csv-make")
    (button,) = test.get("download_button")
    assert (
        button.proto.label
        == f"Download CSV ({len(rest.get('/v1/branches/Delhi/accounts/1001/entries').json['entries'])} lines)"
    )
    assert "There is no such account." in read(page("accounts", account="Delhi/none"))


def test_what_a_form_says_of_wrong_input() -> None:
    test = page("transfer")
    for source, target, amount, says in (
        (None, "Delhi/1002", "5", "Choose the account that pays."),
        ("Mumbai/1001", "Mumbai/1001", "5", "choose two accounts"),
        ("Mumbai/1001", "Delhi/1002", "", "Give an amount."),
        ("Mumbai/1001", "Delhi/1002", "12,5", "two ways"),
    ):
        test.session_state["transfer-from"] = source
        test.session_state["transfer-to"] = target
        test.text_input(key="transfer-amount").set_value(amount)
        click(test, "transfer-review")
        assert says in read(test)
    assert "pay" not in test.query_params


def test_a_transfer_is_confirmed_and_paid_once(rest: Rest) -> None:
    before = balance_at_rest(rest, "Delhi/1002")
    test = form("Mumbai/1001", "Delhi/1002")
    test.selectbox(key="transfer-from").set_value("Mumbai/1001")
    test.selectbox(key="transfer-to").set_value("Delhi/1002")
    test.text_input(key="transfer-amount").set_value("2.50")
    click(test, "transfer-review")
    assert "2.50 INR" in read(test)
    click(test, "pay_back")
    click(test, "transfer-review")
    click(test, "pay_now")
    assert "done, once" in read(test)
    for _ in range(3):
        test.run()
    assert balance_at_rest(rest, "Delhi/1002") == before + 2.5
    key = "".join(test.query_params["pay"])
    again = page("transfer", pay=key)
    assert "done, once" in read(again)
    st.cache_resource.clear()  # as after a new start of the dashboard: only the key is left
    assert "done, once" in read(page("transfer", pay=key))
    click(test, "transfer-again")
    assert "Nothing sent yet." in read(test)
    assert "pay" not in test.query_params
    assert balance_at_rest(rest, "Delhi/1002") == before + 2.5


def test_a_refusal_is_told_and_mended() -> None:
    test = page("teller", account="Mumbai/1002", do="withdraw")
    test.text_input(key="teller-amount").set_value("9999999")
    click(test, "teller-review")
    click(test, "pay_now")
    assert "Not done" in test.error[0].value
    click(test, "teller-again")
    assert test.text_input(key="teller-amount").value == "9999999"
    test.text_input(key="teller-amount").set_value("1")
    click(test, "teller-review")
    click(test, "pay_now")
    assert "done, once" in read(test)


def test_several_accounts_at_once(rest: Rest) -> None:
    test = form("Mumbai/1001", "Delhi/1001", "Delhi/1002")
    test.segmented_control(key="transfer-how").set_value("Several accounts").run()
    for n, (account, amount) in enumerate((("Mumbai/1001", "-3"), ("Delhi/1001", "2"), ("Delhi/1002", "0.50"))):
        test.selectbox(key=f"leg-account-{n}").set_value(account)
        test.text_input(key=f"leg-amount-{n}").set_value(amount)
    test.run()
    assert "it has to be 0" in read(test)
    click(test, "legs-review")
    assert "add up to" in test.error[0].value
    test.text_input(key="leg-amount-2").set_value("1").run()
    assert "ready" in read(test)
    before = balance_at_rest(rest, "Delhi/1002")
    click(test, "legs-review")
    click(test, "pay_now")
    assert "done, once" in read(test)
    assert balance_at_rest(rest, "Delhi/1002") == before + 1


def test_the_list_of_transfers_and_one_of_each_kind(rest: Rest) -> None:
    between = rest.pay("1.00", "kinds-1").json["id"]
    local = rest.pay("1.00", "kinds-2", to="Mumbai/1002").json["id"]
    assert rest.pay("9999999", "kinds-3").status == 422
    at_rest(rest)
    test = page("transfers")
    frame = test.dataframe[0].value
    assert {"between branches", "local", "deposit"} <= set(frame["Kind"])
    test.text_input(key="transfers-search").set_value("no such thing").run()
    assert "is no account and no id" in test.info[0].value
    test.text_input(key="transfers-search").set_value("Mumbai/1002").run()
    assert all("Mumbai/1002" in route for route in test.dataframe[0].value["From → to"])
    text = read(page("transfers", id=between))
    assert "line of no return" in text
    assert "Two-phase commit" in text
    assert "One branch, one record." in read(page("transfers", id=local))
    aborted = next(one for one in rest.get("/v1/transfers?status=aborted").json["transfers"])
    assert "No money moved." in read(page("transfers", id=aborted["id"]))
    assert "Nobody knows this transfer." in read(page("transfers", id="01a206e4-6535-7290-a6cf-c388bb3b8b1c"))


def test_operations_and_what_is_in_doubt(rest: Rest, bank: Cluster) -> None:
    at_rest(rest)
    assert "Nothing is in doubt." in read(page("operations"))
    assert "Epoch" in read(page("operations"))


def test_the_bridge_is_down(rest: Rest) -> None:
    os.environ["ZBANK_REST_URL"] = "http://127.0.0.1:9"
    test = AppTest.from_file(MAIN, default_timeout=LIMIT_S).run()
    assert not test.exception
    assert "There is no bridge at http://127.0.0.1:9." in read(test)
    test.text_input(key="address-main-url").set_value(f"http://127.0.0.1:{rest.port}")
    next(button for button in test.button if button.label == "Use this address").click().run()
    assert "There is no bridge" not in read(test)


@pytest.mark.parametrize("role", ["customer", "auditor", "teller"])
def test_roles_hide_what_is_not_allowed(rest: Rest, role: str) -> None:
    secret = rest.make_token(role, *(["Mumbai/1001"] if role == "customer" else []))
    wait_until(lambda: rest.get("/v1/me").status == 401, what="the bridge demands tokens")
    test = AppTest.from_file(MAIN, default_timeout=LIMIT_S).run()
    assert not test.exception
    assert "Sign in" in read(test)
    wait_until(lambda: rest.get("/v1/me", secret=secret).status == 200, what="the bridge knows the token")
    test.text_input(key="given_token").set_value("zbank_wrong")
    test.button(key="sign_in").click()
    wait_until(lambda: any("not good here" in error.value for error in test.run().error), what="the coordinator has said no")
    test.text_input(key="given_token").set_value(secret)
    test.button(key="sign_in").click().run()
    pages = set(test.session_state["pages"])
    assert (
        pages
        == {
            "customer": {"accounts", "transfers", "transfer"},
            "auditor": {"overview", "accounts", "transfers", "operations"},
            "teller": {"overview", "accounts", "transfers", "operations", "teller", "transfer"},
        }[role]
    )
    listed = page("accounts", token=secret)
    labels = {button.label for button in listed.button}
    assert ("Open account" in labels) == (role == "teller")
    if role == "customer":
        assert list(listed.dataframe[0].value["Account"]) == ["Mumbai/1001"]
        assert "Customers" not in read(listed)
