"""The drills in the dashboard: a real bank that is stopped, broken and healed from a page."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, expect

from tests.acceptance.cluster import Cluster, free_ports
from tests.acceptance.test_launcher import Launcher
from tests.ui.browser import Reader

pytestmark = pytest.mark.timeout(300)

PLAYED_MS = 60_000


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The dashboard of a bank that was started for drills."""
    cluster = Cluster(tmp_path_factory.mktemp("drills"))
    rest, pages = free_ports(1), free_ports(1)
    cluster.config.write_text(cluster.config.read_text() + f"\n[rest]\nport = {rest}\n\n[dashboard]\nport = {pages}\n")
    launcher = Launcher(cluster, "--drills")
    try:
        launcher.wait_for("Ctrl-C stops everything", 90.0)
        yield f"http://127.0.0.1:{pages}"
    finally:
        launcher.close()


def test_a_drill_all_at_once_and_one_step_by_step(chromium: Browser, url: str) -> None:
    reader = Reader(chromium.new_page(viewport={"width": 1366, "height": 820}), url)
    reader.open("drills", "Drills")
    reader.sees("Nothing was played yet.")
    reader.button("All at once").click()
    reader.sees(re.compile("The books are exact"), PLAYED_MS)
    expect(reader.page.get_by_role("img", name=re.compile("The messages of this drill")).first).to_be_visible()
    expect(reader.button("End it")).to_have_count(0)  # it is over a moment after its result is told, and then another may begin
    reader.choose("Drill", "no money")
    reader.button("Step by step").click()
    reader.button("Begin").click()
    reader.sees(re.compile("Step 1 of"))
    reader.button("End it").click()
    reader.sees(re.compile("the bank goes on by itself"), PLAYED_MS)
    assert reader.elsewhere == []
    reader.page.close()
