"""A real Chromium, a real dashboard, a real bank behind it; and hands and eyes for the tests."""

from __future__ import annotations

import re
import subprocess
import urllib.request
from contextlib import suppress
from typing import Any

from playwright.sync_api import Locator, Page, expect

from tests.acceptance.cluster import Cluster, free_ports, wait_until
from tests.acceptance.rest import Rest
from zbank import Client

LIMIT_MS = 20_000
START_LIMIT_S = 60.0

#: How each traceback of Streamlit's server ends that was sending to a browser, or closing its line, when that had just left.
BROWSER_GONE = re.compile(r"^\s*[\w.]*WebSocketDisconnect", re.MULTILINE)

expect.set_options(timeout=LIMIT_MS)


class Dashboard:
    """One `zbank dashboard` in front of a bridge. `close` it; it then has to have had nothing to complain about."""

    def __init__(self, cluster: Cluster, rest: Rest, *flags: str) -> None:
        self.port = free_ports(1)
        self.url = f"http://127.0.0.1:{self.port}"
        address = f"http://127.0.0.1:{rest.port}"
        self.process = cluster.spawn("dashboard", "--rest-url", address, "--port", str(self.port), *flags)
        wait_until(self._is_up, START_LIMIT_S, "the dashboard is up")

    def _is_up(self) -> bool:
        assert self.process.poll() is None, self.process.communicate()
        with suppress(OSError), urllib.request.urlopen(f"{self.url}/_stcore/health", timeout=2):
            return True
        return False

    def close(self) -> None:
        """SIGTERM, and look at what it said."""
        self.process.terminate()
        try:
            _, said = self.process.communicate(timeout=30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise
        assert said.count("Traceback") == len(BROWSER_GONE.findall(said)), said


def at_rest(rest: Rest) -> None:
    """Until all that was decided is booked: a payment counts as done before that, where a branch is slow."""

    def is_at_rest() -> bool:
        actors = rest.get("/v1/cluster").json.get("actors", [])
        return bool(actors) and all(actor["up"] and not actor["in_flight"] for actor in actors)

    wait_until(is_at_rest, what="the end of what runs")


def balance_at_rest(rest: Rest, account: str) -> float:
    """A balance with nothing under way."""
    at_rest(rest)
    return float(rest.balance(account))


def start_again(cluster: Cluster, name: str) -> None:
    """Start a branch that was killed, and wait until the coordinator has the new process, which has a higher epoch."""
    with cluster.client() as client:
        epoch = _epoch_of(client, name)
        cluster.start(name)
        wait_until(lambda: _epoch_of(client, name) > epoch, what=f"{name} with the coordinator")


def _epoch_of(client: Client, name: str) -> int:
    """By the directory."""
    return next(info.epoch for info in client.branches() if info.name == name)


class Reader:
    """A person at a page."""

    def __init__(self, page: Page, url: str) -> None:
        self.page = page
        self.url = url
        self.elsewhere: list[str] = []  #: requests to other hosts
        page.on("request", self._see)

    def _see(self, request: Any) -> None:
        if not request.url.startswith((self.url, self.url.replace("http", "ws"), "data:", "blob:")):
            self.elsewhere.append(request.url)

    def open(self, path: str, heading: str) -> None:
        """Go to an address, and wait until the page is there."""
        self.page.goto(f"{self.url}/{path}")
        self.at(heading)

    def at(self, heading: str) -> None:
        """The page with this heading is shown, whole."""
        expect(self.page.get_by_role("heading", level=1, name=heading)).to_be_visible()

    def settled(self) -> None:
        """The page's script has run to its end, and nothing is loaded any more."""
        expect(self.page.get_by_test_id("stApp")).to_have_attribute("data-test-script-state", "notRunning")
        expect(self.page.get_by_test_id("stSkeleton")).to_have_count(0)
        self.page.wait_for_load_state("networkidle")

    def sees(self, text: str | re.Pattern[str], limit_ms: int = LIMIT_MS) -> None:
        """This is to be read somewhere."""
        expect(self.page.get_by_text(text).first).to_be_visible(timeout=limit_ms)

    def fits(self, width: int) -> None:
        """Nothing stands out to the right of a screen of this width, once all is drawn."""
        self.page.wait_for_function(
            "width => document.querySelector('[data-testid=stMain]').scrollWidth <= width", arg=width, timeout=LIMIT_MS
        )

    def button(self, name: str) -> Locator:
        """A button by its whole name."""
        return self.page.get_by_role("button", name=name, exact=True)

    def choose(self, label: str, text: str) -> None:
        """Type into a list and take what it offers."""
        box = self.page.get_by_role("combobox", name=label).first
        box.click()
        box.fill(text)
        self.page.get_by_role("option").filter(has_text=text).first.click()  # not one of before the typing

    def fill_transfer(self, source: str, target: str, amount: str) -> None:
        """On the page of a new transfer: fill it in, and ask to review it."""
        self.choose("From", source)
        self.choose("To", target)
        self.write("Amount", amount)
        self.button("Review").click()

    def write(self, label: str, text: str) -> None:
        """Type into a field and leave it."""
        field = self.page.get_by_label(label, exact=True)
        field.fill(text)
        field.press("Tab")
