"""A replica is promoted by clicking and typing, in a real browser in front of a real bank."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import streamlit as st
from playwright.sync_api import Browser, Locator, expect
from streamlit.testing.v1 import AppTest

from tests.acceptance.cluster import Cluster, running, wait_until
from tests.acceptance.rest import Rest
from tests.acceptance.test_failover import check_books, wait_down, wait_serves
from tests.acceptance.test_replica import REPLICA, start_replica
from tests.ui.browser import Dashboard, Reader
from tests.ui.test_pages import page, read
from zbank import Client
from zbank.apps import keymaking
from zbank.apps.dashboard.views.promotion import SLOW_S, UNDER_WAY, Promoted
from zbank.protocol.directory import REPLICA_SILENT_US

pytestmark = [pytest.mark.timeout(300), pytest.mark.filterwarnings("default")]  # what Streamlit's own parts warn of

SILENT_MS = REPLICA_SILENT_US / 1000 + 1_500
HEARD_MS = 2_500  #: a replica tells where it stands once a second
PICTURES = os.environ.get("ZBANK_PICTURES")  #: a folder, to look at what was seen


@pytest.fixture(scope="module")
def bank(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A bank with a replica of Mumbai."""
    with running(tmp_path_factory.mktemp("bank")) as cluster:
        start_replica(cluster)
        yield cluster


def card(reader: Reader) -> Locator:
    """The card of the replicas."""
    return reader.page.locator(".st-key-card-replicas")


def picture(reader: Reader, name: str) -> None:
    """Keep what is seen, where somebody wants to look at it."""
    if PICTURES:
        reader.page.screenshot(path=Path(PICTURES) / f"{name}.png", full_page=True)


def signed_in(browser: Browser, dashboard: Dashboard, secret: str) -> Reader:
    """The page Operations, by a token."""
    reader = Reader(browser.new_page(viewport={"width": 1366, "height": 900}, color_scheme="light"), dashboard.url)
    reader.page.goto(f"{dashboard.url}/operations")
    reader.write("Token", secret)
    reader.button("Sign in").click()
    expect(reader.page.get_by_role("link", name="Operations").first).to_be_visible()
    reader.page.get_by_role("link", name="Operations").first.click()
    reader.at("Operations")
    return reader


def says_what_is_lost(dialog: Locator) -> None:
    """The same as the command does."""
    expect(dialog).to_contain_text(re.compile(rf"{REPLICA} becomes Mumbai, for good\. {REPLICA} stands at row \d+: it had"))
    expect(dialog).to_contain_text("Lost: whatever Mumbai did after that, also what customers were told")
    expect(dialog).to_contain_text("Not lost: payments between branches")
    expect(dialog).to_contain_text("The old process of Mumbai must be stopped")


def typed(boss: Reader, dialog: Locator) -> Locator:
    """The button, once the right words are there."""
    now = dialog.get_by_role("button", name="Promote", exact=True)
    expect(now).to_be_disabled()
    words = dialog.get_by_role("textbox")
    words.fill("promote Delhi")
    words.press("Enter")
    boss.page.wait_for_timeout(2_500)  # the part below looks again and again meanwhile
    expect(now).to_be_disabled()
    words.fill("promote Mumbai")
    words.press("Enter")
    expect(now).to_be_enabled()
    picture(boss, "promote-2-dialog")
    return now


def while_it_is_silent_nothing_is_done(boss: Reader, bank: Cluster, client: Client, dialog: Locator, now: Locator) -> None:
    """A refusal is told in words, and the dialog is still good."""
    bank.send_signal(REPLICA, signal.SIGSTOP)
    client.branches()  # what it told before, the coordinator has taken in
    boss.page.wait_for_timeout(SILENT_MS)
    now.click()
    expect(dialog).to_contain_text(f"Nothing was done. Replica {REPLICA} is silent: start it again first.")
    picture(boss, "promote-3-refused")
    bank.send_signal(REPLICA, signal.SIGCONT)
    for _ in range(2):  # what is due is told behind its first answer, so before its second
        client.at_replicas().balance("Mumbai/1001")
    client.branches()
    boss.page.wait_for_timeout(HEARD_MS)


def test_a_lost_branch_is_replaced_by_clicking_and_typing(
    chromium: Browser, dashboard: Dashboard, bank: Cluster, rest: Rest
) -> None:
    rest.secret = operator = rest.make_token("operator")
    teller = rest.make_token("teller")
    wait_until(lambda: rest.get("/v1/me").status == 200, what="the tokens are known")
    boss = signed_in(chromium, dashboard, operator)
    till = signed_in(chromium, dashboard, teller)
    dots = boss.page.get_by_role("button", name=re.compile("Promote…"))
    expect(card(boss).locator("tbody tr")).to_have_count(1)
    expect(dots).to_have_count(0)  # nothing to promote while the branch is up

    bank.kill("Mumbai")
    with bank.client() as client:
        wait_down(client)
        expect(dots).to_be_visible()
        expect(card(till)).to_contain_text("Mumbai does not answer")
        expect(till.page.get_by_role("button", name=re.compile("Promote"))).to_have_count(0)
        expect(card(till)).not_to_contain_text("zbank promote")
        picture(boss, "promote-1-card")
        dots.click()

        dialog = boss.page.get_by_role("dialog")
        says_what_is_lost(dialog)
        now = typed(boss, dialog)
        while_it_is_silent_nothing_is_done(boss, bank, client, dialog, now)
        now.dblclick()
        expect(dialog).to_have_count(0)
        expect(card(boss)).to_contain_text(re.compile(f"{REPLICA} takes over as Mumbai|Mumbai is up again"))
        expect(dots).to_have_count(0)
        expect(card(boss)).to_contain_text(f"Mumbai is up again: {REPLICA} serves it.")
        row = boss.page.locator(".st-key-card-actors tbody tr").filter(has_text="Mumbai")
        expect(row.locator(".z-bad")).to_have_count(0)
        expect(card(boss)).to_contain_text("There are no replicas.")
        picture(boss, "promote-4-up")
        wait_serves(client)
        check_books(client)
    acts = bank.cli("acts").stdout
    assert acts.count(f"replica {REPLICA} is branch Mumbai now") == 1
    assert boss.elsewhere == till.elsewhere == []
    boss.page.close()
    till.page.close()


def test_it_is_said_that_a_replica_takes_over_and_nothing_is_offered_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after a promotion that was recorded a moment ago, and long ago; and what comes once the branch was up is new."""
    with running(tmp_path) as cluster:
        start_replica(cluster)
        bridge = Rest(cluster)
        st.cache_resource.clear()
        monkeypatch.setenv("ZBANK_REST_URL", f"http://127.0.0.1:{bridge.port}")
        cluster.kill("Mumbai")
        with cluster.client() as client:
            wait_down(client)
        test = page("operations")
        wait_until(lambda: offered(test.run()) == ["Promote…"], what="the button")
        for promoted, says, offers in (
            (Promoted(REPLICA, time.monotonic()), f"{REPLICA} takes over as Mumbai", []),
            (Promoted(REPLICA, time.monotonic() - SLOW_S - 1), "does not serve yet: look at its log", []),
            (Promoted(REPLICA, time.monotonic(), was_up=True), "Is Mumbai lost for good?", ["Promote…"]),
        ):
            test.session_state[UNDER_WAY] = {"Mumbai": promoted}
            test.run()
            assert says in read(test)
            assert offered(test) == offers
        bridge.close()
    st.cache_resource.clear()


def offered(test: AppTest) -> list[str]:
    """Buttons of this kind."""
    return [button.label for button in test.button if "Promote" in button.label]


def test_where_the_bank_has_keys_the_command_is_told_in_place_of_the_button(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster = Cluster(tmp_path, secure=True)
    assert cluster.keys is not None
    keymaking.add(cluster.keys, REPLICA, "replica", ())
    try:
        cluster.start_all()
        start_replica(cluster)
        bridge = Rest(cluster)
        st.cache_resource.clear()
        monkeypatch.setenv("ZBANK_REST_URL", f"http://127.0.0.1:{bridge.port}")
        assert "Promote" not in read(page("operations"))
        cluster.kill("Mumbai")
        with cluster.client() as client:
            wait_down(client)
        told = page("operations")
        command = f"`zbank promote Mumbai --replica {REPLICA}`, by an operator's own key"
        wait_until(lambda: command in read(told.run()), what="the command")
        assert offered(told) == []
        bridge.close()
    finally:
        st.cache_resource.clear()
        cluster.close()
