"""Fixtures: a bank, its bridge, its dashboard, a browser."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, sync_playwright

from benchmarks.dashboard import CHROMIUM, FLAGS
from tests.acceptance.cluster import Cluster, running
from tests.acceptance.rest import Rest
from tests.ui.browser import Dashboard, Reader

WHAT_TO_DO = "there is no Chromium here: `make test-ui` as root installs it, or apt-get install chromium"


@pytest.fixture(scope="module")
def bank(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A running cluster, for all tests of a module."""
    with running(tmp_path_factory.mktemp("bank")) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def rest(bank: Cluster) -> Iterator[Rest]:
    """Its bridge."""
    bridge = Rest(bank)
    try:
        yield bridge
    finally:
        bridge.close()


@pytest.fixture(scope="module")
def dashboard(bank: Cluster, rest: Rest) -> Iterator[Dashboard]:
    """Its dashboard."""
    pages = Dashboard(bank, rest)
    try:
        yield pages
    finally:
        pages.close()


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """A headless browser. Where there is none the tests are skipped, but for the checks of a commit."""
    if not CHROMIUM:
        if os.environ.get("CI"):
            pytest.fail(WHAT_TO_DO)
        pytest.skip(WHAT_TO_DO)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def reader(chromium: Browser, dashboard: Dashboard) -> Iterator[Reader]:
    """Somebody with a browser of 1366 x 820. No page may ask another host for anything."""
    context = chromium.new_context(viewport={"width": 1366, "height": 820})
    somebody = Reader(context.new_page(), dashboard.url)
    yield somebody
    context.close()
    assert somebody.elsewhere == []
