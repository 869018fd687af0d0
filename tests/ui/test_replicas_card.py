"""The replicas on the page Operations, in a real browser: level, silent, and what is said when nobody knows."""

from __future__ import annotations

import re
import signal
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Locator, expect

from tests.acceptance.cluster import Cluster, free_ports, running, wait_until
from tests.acceptance.test_replica import REPLICA, start_replica
from tests.ui.browser import Dashboard, Reader, start_again

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def bank(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A bank without replicas yet."""
    with running(tmp_path_factory.mktemp("bank")) as cluster:
        yield cluster


def card(reader: Reader) -> Locator:
    """The card of the replicas."""
    return reader.page.locator(".st-key-card-replicas")


def test_a_bank_without_them_says_how_to_start_one(reader: Reader, bank: Cluster) -> None:
    reader.open("operations", "Operations")
    expect(card(reader)).to_contain_text("There are no replicas.")
    expect(card(reader)).to_contain_text("zbank replica --of Delhi")
    start_replica(bank)
    row = card(reader).locator("tbody tr")
    expect(row).to_have_count(1)
    line = rf"{REPLICA}\s*level\s*Mumbai\s*[0-2]\.\d s ago\s*0\s*\d+\s*tcp://127\.0\.0\.1:\d+"
    expect(row).to_contain_text(re.compile(line))


def test_a_silent_one_is_seen_and_so_is_its_return(reader: Reader, bank: Cluster) -> None:
    reader.open("operations", "Operations")
    bank.send_signal(REPLICA, signal.SIGSTOP)
    expect(card(reader).locator(".z-bad")).to_be_visible()
    expect(card(reader)).to_contain_text(re.compile(rf"{REPLICA} has not caught up with Mumbai for \d"))
    bank.send_signal(REPLICA, signal.SIGCONT)
    expect(card(reader).locator(".z-good")).to_be_visible()
    expect(card(reader)).not_to_contain_text("has not caught up")


def test_the_synchronous_one_is_marked_and_so_is_a_branch_that_has_stopped(reader: Reader, bank: Cluster) -> None:
    wait_until(lambda: bank.cli("acks", "Mumbai", REPLICA).returncode == 0, what="its name as that of the synchronous one")
    reader.open("operations", "Operations")
    expect(card(reader).locator("tbody tr")).to_contain_text("level, synchronous")
    bank.send_signal(REPLICA, signal.SIGSTOP)
    mumbai = reader.page.locator(".st-key-card-actors tbody tr").filter(has_text="Mumbai")
    expect(mumbai).to_contain_text("stopped")
    expect(mumbai.locator(".z-bad")).to_be_visible()
    alarm = f"Mumbai: stopped: its synchronous replica {REPLICA} does not answer. Start it."
    expect(reader.page.locator(".st-key-card-actors")).to_contain_text(alarm)
    expect(card(reader)).to_contain_text(f"Mumbai has stopped: it answers nothing before {REPLICA}, its synchronous replica")
    bank.send_signal(REPLICA, signal.SIGCONT)
    expect(mumbai.locator(".z-good")).to_be_visible()
    expect(card(reader)).not_to_contain_text("has stopped")


def test_the_dialog_says_that_with_it_nothing_is_lost(reader: Reader, bank: Cluster) -> None:
    reader.open("operations", "Operations")
    bank.kill("Mumbai")
    try:
        card(reader).get_by_role("button", name="Promote…").click()
        dialog = reader.page.get_by_role("dialog")
        expect(dialog).to_contain_text(f"{REPLICA} becomes Mumbai, for good. It is the synchronous replica of Mumbai.")
        expect(dialog).to_contain_text("Lost: nothing that was acknowledged.")
        expect(dialog).to_contain_text("Mumbai stands on one disk alone, until another replica is named")
        expect(dialog).not_to_contain_text("must be stopped")
    finally:
        start_again(bank, "Mumbai")
    wait_until(lambda: bank.cli("acks", "Mumbai", "none").returncode == 0, what="the end of that")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_on_a_phone_and_can_be_read_in_the_dark(
    chromium: Browser, dashboard: Dashboard, bank: Cluster, scheme: str
) -> None:
    context = chromium.new_context(viewport={"width": 390, "height": 844}, color_scheme=scheme)  # type: ignore[arg-type]
    try:
        reader = Reader(context.new_page(), dashboard.url)
        reader.open("operations", "Operations")
        expect(card(reader)).to_contain_text("Rows behind")
        reader.fits(390)
        assert reader.elsewhere == []
    finally:
        context.close()


def test_without_the_coordinator_nobody_knows_and_the_rest_of_the_page_goes_on(reader: Reader, bank: Cluster) -> None:
    reader.open("operations", "Operations")
    bank.kill("coordinator")
    try:
        expect(card(reader)).to_contain_text("The coordinator knows the replicas, and it does not answer.")
        reader.sees("Nothing is in doubt.")
    finally:
        bank.start("coordinator")
        bank.wait_registered()
    expect(card(reader).locator("tbody tr")).to_have_count(1)


def test_one_of_the_coordinator_is_shown_and_not_promoted_from_here(reader: Reader, bank: Cluster) -> None:
    flags = ["--config", str(bank.config), "--of", "coordinator", "--port", str(free_ports(3))]
    bank.spawn_actor("coordinator-standby", *flags, role=("replica",))
    reader.open("operations", "Operations")
    row = card(reader).locator("tbody tr").filter(has_text="coordinator-standby")
    expect(row).to_contain_text("level")
    expect(card(reader).get_by_role("button", name="Promote…")).to_have_count(0)
