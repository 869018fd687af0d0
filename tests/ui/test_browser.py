"""What people do with the dashboard, in a real browser, with a real bank behind it."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import expect

from tests.acceptance.cluster import Cluster
from tests.acceptance.rest import Rest
from tests.ui.browser import Reader

pytestmark = pytest.mark.timeout(300)


def test_open_an_account_and_pay_in(reader: Reader, rest: Rest) -> None:
    reader.open("accounts", "Accounts")
    reader.button("Open account").click()
    dialog = reader.page.get_by_role("dialog")
    dialog.get_by_label("Owner", exact=True).fill("Asha <b>Rao</b>")
    dialog.get_by_label("Number", exact=True).fill("7001")
    dialog.get_by_role("button", name="Open account").click()
    reader.at("Asha <b>Rao</b>")
    reader.sees("Nothing was booked yet.")
    reader.button("Deposit").click()
    reader.at("Teller")
    reader.write("Amount", "1,250.50")
    reader.write("Memo", "first *pay* day")
    reader.button("Review").click()
    reader.sees("1,250.50 INR")
    reader.button("Pay now").click()
    reader.sees(re.compile("1,250.50 INR: done, once"))
    assert rest.balance("Delhi/7001") == "1250.50"


def test_a_transfer_between_branches_with_its_timeline(reader: Reader, rest: Rest) -> None:
    before = float(rest.balance("Delhi/1002"))
    reader.open("transfer", "New transfer")
    reader.choose("From", "Mumbai/1001")
    reader.choose("To", "Delhi/1002")
    reader.write("Amount", "50")
    reader.button("Review").click()
    reader.sees("between branches, by two-phase commit")
    reader.button("Pay now").click()
    reader.sees(re.compile("50.00 INR: done, once"))
    assert float(rest.balance("Delhi/1002")) == before + 50
    reader.page.get_by_role("link", name="See how it went").click()
    reader.at("Transfer")
    reader.sees("COMMITTED")
    reader.sees(re.compile("the line of no return"))
    expect(
        reader.page.locator("[data-testid=stVegaLiteChart] canvas, [data-testid=stVegaLiteChart] svg").first
    ).to_be_visible()
    reader.page.get_by_role("tab", name="Sequence").click()
    expect(reader.page.get_by_role("img", name="The messages of this transfer, in order")).to_be_visible()


def test_what_is_typed_wrong_is_told_and_nothing_is_sent(reader: Reader) -> None:
    reader.open("transfer", "New transfer")
    reader.choose("From", "Mumbai/1001")
    reader.write("Amount", "5")
    for account, says in (("Lima/1", "There is no branch Lima"), ("Delhi/9999", "here is no account Delhi/9999")):
        reader.choose("To", account)
        reader.button("Review").click()
        reader.sees(re.compile(says))
    assert "pay=" not in reader.page.url


def test_a_double_click_pays_once_and_so_does_a_reload(reader: Reader, rest: Rest) -> None:
    before = float(rest.balance("Delhi/1001"))
    reader.open("transfer", "New transfer")
    reader.choose("From", "Mumbai/1001")
    reader.choose("To", "Delhi/1001")
    reader.write("Amount", "7.25")
    reader.button("Review").click()
    pay = reader.button("Pay now")
    expect(pay).to_be_visible()
    pay.evaluate("button => { for (let n = 0; n < 5; n++) button.click() }")
    reader.sees(re.compile("7.25 INR: done, once"))
    assert float(rest.balance("Delhi/1001")) == before + 7.25
    for _ in range(2):
        reader.page.reload()
        reader.sees(re.compile("7.25 INR: done, once"))
    assert float(rest.balance("Delhi/1001")) == before + 7.25


def test_a_lost_answer_is_not_known_and_asked_for_again_under_the_same_key(
    reader: Reader, rest: Rest, bank: Cluster
) -> None:
    before = float(rest.balance("Delhi/1002"))
    reader.open("transfer", "New transfer")
    reader.choose("From", "Mumbai/1001")
    reader.choose("To", "Delhi/1002")
    reader.write("Amount", "3")
    reader.button("Review").click()
    expect(reader.button("Pay now")).to_be_visible()
    bank.kill("Delhi")
    reader.button("Pay now").click()
    reader.sees(re.compile("not known yet whether this was paid"))
    expect(reader.button("Review")).to_be_disabled()
    bank.start("Delhi")
    bank.wait_registered()
    reader.page.reload()
    reader.button("Check again").click()
    reader.sees(re.compile("3.00 INR: done, once"))
    assert float(rest.balance("Delhi/1002")) == before + 3


def test_a_branch_that_dies_is_seen_and_so_is_its_return(reader: Reader, bank: Cluster) -> None:
    reader.open("overview", "Overview")
    reader.sees("2 of 2")
    bank.kill("Delhi")
    reader.sees("1 of 2")
    reader.sees(re.compile("no answer: Delhi"))
    reader.page.get_by_role("link", name="Operations").click()
    reader.at("Operations")
    reader.sees(re.compile("Delhi does not answer"))
    bank.start("Delhi")
    bank.wait_registered()
    reader.page.get_by_role("link", name="Overview").click()
    reader.sees("2 of 2")
