"""What people do with the dashboard, in a real browser, with a real bank behind it."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import expect

from tests.acceptance.cluster import Cluster
from tests.acceptance.rest import Rest
from tests.ui.browser import Reader, balance_at_rest, start_again

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


def test_what_others_wrote_is_text_and_asks_no_host(reader: Reader, rest: Rest) -> None:
    """An owner's name, a memo: no HTML, no Markdown, no picture from somewhere (the fixture looks at all requests)."""
    nasty = "![x](http://192.0.2.1/x.png)<img src=//192.0.2.1>"
    opened = rest.post("/v1/branches/Mumbai/accounts", {"owner": nasty, "number": "nasty"}, key="nasty-1")
    assert opened.status == 201
    paid = rest.post("/v1/deposits", {"account": "Mumbai/nasty", "amount": "1", "memo": nasty}, key="nasty-2")
    for path, heading in (
        ("accounts?account=Mumbai/nasty", nasty),
        (f"transfers?id={paid.json['id']}", "Transfer"),
        ("transfers", "Transfers"),
        ("overview", "Overview"),
    ):
        reader.open(path, heading)
        reader.settled()
    assert reader.page.locator("img[src*='192.0.2.1']").count() == 0


PAGES = {
    "overview": "Overview",
    "accounts": "Accounts",
    "accounts?account=Mumbai/1001": "Demo",
    "transfers": "Transfers",
    "operations": "Operations",
    "teller": "Teller",
    "transfer": "New transfer",
}


def test_on_a_phone_nothing_stands_out(reader: Reader, rest: Rest) -> None:
    id = rest.pay("1.00", "on-a-phone").json["id"]
    reader.page.set_viewport_size({"width": 390, "height": 844})
    for path, heading in {**PAGES, f"transfers?id={id}": "Transfer"}.items():
        reader.open(path, heading)
        reader.settled()
        reader.fits(390)
        right = reader.page.get_by_role("heading", level=1).bounding_box()
        assert right is not None
        assert right["x"] >= 0


def test_what_moves_leaves_alone_what_is_typed(reader: Reader, rest: Rest) -> None:
    reader.open("overview", "Overview")
    reader.page.get_by_text("Connection").click()
    field = reader.page.get_by_label("Address of the REST bridge")
    field.fill("http://half.a")
    money = reader.page.locator("[data-testid=stMetric]", has_text="Customers' money")
    for n in range(3):
        before = money.inner_text()
        assert rest.post("/v1/deposits", {"account": "Delhi/1002", "amount": "1"}, key=f"typed-{n}").status == 201
        expect(money).not_to_have_text(before, use_inner_text=True)
    expect(field).to_have_value("http://half.a")


def test_by_keyboard_alone(reader: Reader, rest: Rest) -> None:
    before = float(rest.balance("Mumbai/1002"))
    reader.open("teller?account=Mumbai/1002", "Teller")
    reader.settled()  # what is drawn later would take its place in the order of the tabs
    reader.page.get_by_label("Amount", exact=True).focus()
    keyboard = reader.page.keyboard
    keyboard.type("4.50")
    keyboard.press("Tab")
    keyboard.type("typed")
    keyboard.press("Tab")
    keyboard.press("Enter")
    expect(reader.button("Pay now")).to_be_visible()
    reader.settled()
    for _ in range(12):
        if reader.page.evaluate("() => document.activeElement.innerText") == "Pay now":
            break
        keyboard.press("Tab")
    keyboard.press("Enter")
    reader.sees(re.compile("4.50 INR: done, once"))
    assert float(rest.balance("Mumbai/1002")) == before + 4.5


def test_a_transfer_between_branches_with_its_timeline(reader: Reader, rest: Rest) -> None:
    before = balance_at_rest(rest, "Delhi/1002")
    reader.open("transfer", "New transfer")
    reader.fill_transfer("Mumbai/1001", "Delhi/1002", "50")
    reader.sees("between branches, by two-phase commit")
    reader.button("Pay now").click()
    reader.sees(re.compile("50.00 INR: done, once"))
    assert balance_at_rest(rest, "Delhi/1002") == before + 50
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
    before = balance_at_rest(rest, "Delhi/1001")
    reader.open("transfer", "New transfer")
    reader.fill_transfer("Mumbai/1001", "Delhi/1001", "7.25")
    pay = reader.button("Pay now")
    expect(pay).to_be_visible()
    pay.evaluate("button => { for (let n = 0; n < 5; n++) button.click() }")
    reader.sees(re.compile("7.25 INR: done, once"))
    assert balance_at_rest(rest, "Delhi/1001") == before + 7.25
    for _ in range(2):
        reader.page.reload()
        reader.sees(re.compile("7.25 INR: done, once"))
    assert balance_at_rest(rest, "Delhi/1001") == before + 7.25


def test_a_lost_answer_is_not_known_and_asked_for_again_under_the_same_key(
    reader: Reader, rest: Rest, bank: Cluster
) -> None:
    before = balance_at_rest(rest, "Delhi/1002")
    reader.open("transfer", "New transfer")
    reader.fill_transfer("Mumbai/1001", "Delhi/1002", "3")
    expect(reader.button("Pay now")).to_be_visible()
    bank.kill("Delhi")
    reader.button("Pay now").click()
    reader.sees(re.compile("not known yet whether this was paid"))
    expect(reader.button("Review")).to_be_disabled()
    start_again(bank, "Delhi")
    reader.page.reload()
    reader.button("Check again").click()
    reader.sees(re.compile("3.00 INR: done, once"))
    assert balance_at_rest(rest, "Delhi/1002") == before + 3


def test_a_branch_that_dies_is_seen_and_so_is_its_return(reader: Reader, bank: Cluster) -> None:
    reader.open("overview", "Overview")
    reader.sees("2 of 2")
    bank.kill("Delhi")
    reader.sees("1 of 2")
    reader.sees(re.compile("no answer: Delhi"))
    reader.page.get_by_role("link", name="Operations").click()
    reader.at("Operations")
    reader.sees(re.compile("Delhi does not answer"))
    start_again(bank, "Delhi")
    reader.page.get_by_role("link", name="Overview").click()
    reader.sees("2 of 2")


def test_a_bridge_that_dies_is_said_and_its_return_is_noticed(reader: Reader, rest: Rest) -> None:
    reader.open("overview", "Overview")
    rest.process.kill()
    rest.process.wait(10)
    reader.sees(re.compile("There is no bridge at"))
    reader.page.goto(f"{reader.url}/transfer")
    reader.at("No bank to show")
    rest.start()
    reader.at("New transfer")
