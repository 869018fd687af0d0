"""The dashboard in a real browser: how long a page takes to open, and how far the overview is behind the truth.

    python -m benchmarks.dashboard --accounts 100000

It starts a bank of its own on this machine, and needs Chromium (`make browser`). A page counts as open when its last part is
drawn, in a browser that has loaded the dashboard's files before; the very first visit is told apart.
"""

from __future__ import annotations

import argparse
import random
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from playwright.sync_api import Page, expect, sync_playwright

from zbank import Client
from zbank.apps.chaos.ports import free_ports

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = [
    "--no-sandbox",
    "--disable-dev-shm-usage",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
READY_LIMIT_S = 60.0
LIMIT_MS = 30_000
OPENERS = 32  #: threads that open accounts
CONFIG = """
[cluster]
name = "demo"
data = "{data}"
[coordinator]
endpoint = "tcp://127.0.0.1:{first}"
[rest]
port = {rest}
[dashboard]
port = {dashboard}
"""
BRANCH = """
[branches.{name}]
endpoint = "tcp://127.0.0.1:{port}"
currency = "INR"
preload = true
"""
#: by page: what stands there when it is open
PAGES = {
    "overview": "Up for",
    "accounts": "Choose a line to see the account.",
    "accounts?account=Mumbai/1001": "Make CSV",
    "transfers": "Choose a line to see how it went.",
    "operations": "Nothing is in doubt.",
    "teller": "Nothing sent yet.",
    "transfer": "Nothing sent yet.",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, and print medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--accounts", type=int, default=100_000, help="for the last figure (default: %(default)s)")
    parser.add_argument("--runs", type=int, default=7, help="of each page (default: %(default)s)")
    options = parser.parse_args(arguments)
    if CHROMIUM is None:
        print("there is no Chromium here: make browser (as root) installs it", file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory() as folder:
        config, endpoint, url = demo_config(Path(folder), ("Mumbai", "Delhi"))
        bank = subprocess.Popen(
            [sys.executable, "run_cluster.py", "--config", str(config)], stdout=subprocess.DEVNULL
        )
        try:
            wait_for(f"{url}/_stcore/health")
            with Client(endpoint, timeout_s=30) as client, sync_playwright() as playwright:
                browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
                page = browser.new_page(viewport={"width": 1366, "height": 820})
                client.transfer("Mumbai/1001", "Delhi/1002", "1")
                print(f"first visit of all                    {_open(page, url, 'overview'):.2f} s")
                for name in PAGES:
                    _report(name, [_open(page, url, name) for _ in range(options.runs)])
                _report("overview behind the truth", _lags(page, url, client))
                _fill(client, options.accounts)
                _report(f"accounts, {options.accounts:,} of them", [_open(page, url, "accounts") for _ in range(options.runs)])
                _report("searching them for an owner", [_search(page, url, n) for n in range(options.runs)])
                browser.close()
        finally:
            bank.send_signal(signal.SIGINT)
            bank.wait(30)
    return 0


def demo_config(folder: Path, branches: Sequence[str]) -> tuple[Path, str, str]:
    """The config file of a bank with these branches on free ports; its coordinator's endpoint, its dashboard's address."""
    first = free_ports(5 + len(branches), random.Random()).start
    dashboard = first + 4 + len(branches)
    text = CONFIG.format(data=folder, first=first, rest=dashboard - 1, dashboard=dashboard)
    text += "".join(BRANCH.format(name=name, port=first + 3 + n) for n, name in enumerate(branches))
    path = folder / "demo.toml"
    path.write_text(text, encoding="utf-8")
    return path, f"tcp://127.0.0.1:{first}", f"http://127.0.0.1:{dashboard}"


def wait_for(url: str) -> None:
    """Until something answers there; ends the program when nothing does."""
    end_s = time.monotonic() + READY_LIMIT_S
    while time.monotonic() < end_s:
        with suppress(OSError), urllib.request.urlopen(url, timeout=2):
            return
        time.sleep(0.2)
    raise SystemExit(f"{url} does not answer")


def _report(what: str, found_s: list[float]) -> None:
    print(f"{what:37} median {statistics.median(found_s):.2f} s  worst {max(found_s):.2f} s")


def _open(page: Page, url: str, name: str) -> float:
    begun_s = time.monotonic()
    page.goto(f"{url}/{name}")
    expect(page.get_by_text(PAGES[name], exact=True).first).to_be_visible(timeout=LIMIT_MS)
    return time.monotonic() - begun_s


def _lags(page: Page, url: str, client: Client, count: int = 20) -> list[float]:
    """From the bank's word that money came in until the overview's total has it."""
    _open(page, url, "overview")
    found = []
    for n in range(count):
        time.sleep(random.random())
        total = f"{30_001 + n:,}.00 INR"
        client.deposit("Delhi/1001", "1")
        begun_s = time.monotonic()
        expect(page.get_by_text(total).first).to_be_visible(timeout=LIMIT_MS)
        found.append(time.monotonic() - begun_s)
    return found


def _fill(client: Client, count: int) -> None:
    def fill(n: int) -> None:
        client.open_account(("Mumbai", "Delhi")[n % 2], owner=f"Owner {n:06}")

    with ThreadPoolExecutor(OPENERS) as pool:
        for _ in pool.map(fill, range(count)):
            pass


def _search(page: Page, url: str, n: int) -> float:
    """The only account that fits: the branches are looked through to their ends."""
    _open(page, url, "accounts")
    field = page.get_by_label("Search", exact=True)
    begun_s = time.monotonic()
    field.fill(f"owner {n:06}")
    expect(page.get_by_text(re.compile("Choose a line"))).to_be_visible(timeout=LIMIT_MS)
    rows = "[data-testid=stDataFrame] [role=row]"
    page.wait_for_function(f"() => document.querySelectorAll('{rows}').length == 2", timeout=LIMIT_MS)  # with the heading
    return time.monotonic() - begun_s


if __name__ == "__main__":
    sys.exit(main())
