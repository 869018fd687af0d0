"""Takes the pictures of the documentation anew: `make screenshots`. A bank of its own, traffic, a real browser."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from playwright.sync_api import Browser, Page, ViewportSize, sync_playwright

from benchmarks.dashboard import CHROMIUM, FLAGS, demo_config, wait_for
from zbank import Client
from zbank.ids import new_id

ROOT = Path(__file__).resolve().parents[1]
IMAGES = ROOT / "docs" / "images"
MAX_BYTES = 300_000
TRAFFIC_S = 45.0
WIDE: ViewportSize = {"width": 1366, "height": 820}
PHONE: ViewportSize = {"width": 390, "height": 844}

PEOPLE = ("Asha Rao", "Ravi Menon", "Meera Shah", "Farid Khan", "Lata Iyer", "Nikhil Das", "Priya Nair", "Omar Sheikh")


def main() -> int:
    """Start a bank, let it work, take the pictures, stop it."""
    if CHROMIUM is None:
        print("there is no Chromium here: make browser (as root) installs it", file=sys.stderr)
        return 1
    IMAGES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        config, endpoint, url = demo_config(Path(folder), ("Mumbai", "Delhi", "Pune"))
        bank = subprocess.Popen([sys.executable, str(ROOT / "run_cluster.py"), "--config", str(config), "--drills"])
        try:
            wait_for(f"{url}/_stcore/health")
            follower = ["--of", "Mumbai", "--name", "Mumbai-replica-1"]  # the launcher starts none with --drills
            replica = subprocess.Popen([sys.executable, "-m", "zbank.apps.cli", "replica", "--config", str(config), *follower])
            with Client(endpoint) as client, sync_playwright() as playwright:
                browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
                take(browser, url, client)
                browser.close()
            replica.terminate()
            replica.wait(30)
        finally:
            bank.send_signal(signal.SIGINT)
            bank.wait(30)
    for image in sorted(IMAGES.glob("*.png")):
        assert image.stat().st_size <= MAX_BYTES, image
        print(f"{image.relative_to(ROOT)}: {image.stat().st_size // 1000} kB")
    return 0


def take(browser: Browser, url: str, client: Client) -> None:
    """All pictures."""
    for n, owner in enumerate(PEOPLE):
        branch = ("Mumbai", "Delhi", "Pune")[n % 3]
        client.deposit(client.open_account(branch, owner=owner).account, f"{1250 * (n + 3)}.50", memo="first deposit")
    page = browser.new_page(viewport=WIDE)
    page.goto(f"{url}/overview")
    end_s, n = time.monotonic() + TRAFFIC_S, 0
    while time.monotonic() < end_s:  # money that moves in waves
        n += 1
        sides = (("Mumbai", "Delhi"), ("Delhi", "Pune"), ("Pune", "Mumbai"), ("Pune", "Pune"))[n % 4]
        client.transfer(f"{sides[0]}/1001", f"{sides[1]}/1002", "1.25", memo="tea", id=new_id())
        time.sleep(0.004 + 0.012 * abs((n % 400) / 200 - 1))
        if n % 97 == 0:
            client.transfer("Mumbai/1002", "Delhi/1001", "1000000", memo="a yacht")
    _shoot(page, "overview")

    page.goto(f"{url}/transfer")
    _choose(page, "From", "Mumbai/1001")
    _choose(page, "To", "Delhi/1002")
    page.get_by_label("Amount", exact=True).fill("125.50")
    page.get_by_label("Memo", exact=True).fill("rent June")
    page.get_by_label("Memo", exact=True).press("Tab")
    page.get_by_role("button", name="Review").click()
    page.get_by_role("button", name="Pay now").wait_for()
    _shoot(page, "confirm")
    page.get_by_role("button", name="Pay now").click()
    page.get_by_text("done, once").wait_for()
    page.get_by_role("link", name="See how it went").click()
    page.get_by_text("line of no return").wait_for()
    page.reload()  # the acks are noted a moment later
    page.get_by_text("line of no return").wait_for()
    _shoot(page, "timeline")
    for name in ("accounts", "operations"):
        page.goto(f"{url}/{name}")
        page.get_by_role("heading", level=1).wait_for()
        _shoot(page, name)
    page.goto(f"{url}/accounts?account=Mumbai/1001")
    page.get_by_text("Statement").wait_for()
    _shoot(page, "account")
    _drill(page, url)

    dark = browser.new_context(viewport=WIDE, color_scheme="dark").new_page()
    dark.goto(f"{url}/overview")
    dark.get_by_text("Branches up").wait_for()
    _shoot(dark, "dark")
    phone = browser.new_context(viewport=PHONE).new_page()
    phone.goto(f"{url}/overview")
    phone.get_by_text("Branches up").wait_for()
    _shoot(phone, "phone")


def _drill(page: Page, url: str) -> None:
    page.goto(f"{url}/drills")
    page.get_by_role("combobox", name="Drill").click()
    page.get_by_role("option", name=re.compile("dies after the votes")).click()
    page.get_by_role("button", name="Step by step").click()
    for _ in range(8):
        page.locator("button:has-text('Next step'):enabled, button:has-text('Begin'):enabled").first.click()
        page.wait_for_timeout(1500)
    _shoot(page, "drill")
    page.get_by_role("button", name="End it").click()
    page.get_by_text(re.compile("goes on by itself")).wait_for()


def _choose(page: Page, label: str, text: str) -> None:
    box = page.get_by_role("combobox", name=label).first
    box.click()
    box.fill(text)
    page.get_by_role("option").filter(has_text=text).first.click()


def _shoot(page: Page, name: str) -> None:
    page.wait_for_timeout(1500)  # charts are drawn
    page.screenshot(path=str(IMAGES / f"{name}.png"))


if __name__ == "__main__":
    sys.exit(main())
