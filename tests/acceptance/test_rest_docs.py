"""Every `curl` line of the pages that show some, run as it stands against a fresh bank of the demo's three branches."""

from __future__ import annotations

import re
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.cluster import COMMAND_LIMIT_S, Cluster, free_ports, wait_until
from tests.docs import ROOT, blocks

PAGES = (ROOT / "docs" / "rest.md", ROOT / "README.md", ROOT / "docs" / "replication.md")
WRITTEN = "localhost:5000"
STATUS = re.compile(r"\s+# (?P<status>[0-9]{3})$", re.M)


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    """A bridge in front of a fresh bank with the demo's branches."""
    cluster = Cluster(tmp_path, ("Mumbai", "Delhi", "Pune"))
    try:
        cluster.start_all()
        place = f"127.0.0.1:{free_ports(1)}"
        bridge = cluster.spawn("rest", "--endpoint", cluster.endpoint, "--port", place.rpartition(":")[2])

        def is_ready() -> bool:
            assert bridge.poll() is None, bridge.communicate()
            try:
                with urllib.request.urlopen(f"http://{place}/readyz", timeout=5) as answer:
                    return bool(answer.status == 200)
            except (OSError, urllib.error.URLError):
                return False

        wait_until(is_ready, what="the bridge is ready")
        yield place
    finally:
        cluster.close()


def commands(page: Path) -> Iterator[tuple[str, str, str]]:
    """(what goes before, curl command, status) of each command of a page that says what it answers."""
    for block in blocks(page, "sh"):
        if "curl " not in block.text:
            continue
        before, rest = "", block.text
        while found := STATUS.search(rest):
            command, rest = rest[: found.start()].strip(), rest[found.end() :]
            *lines, _ = command.split("curl ", 1)
            before += "".join(lines)
            yield before, "curl " + command.split("curl ", 1)[1], found["status"]
        assert "curl " not in rest, f"{page.name}: what does this answer? {rest}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_each_line_answers_as_the_page_says(page: Path, address: str, tmp_path: Path) -> None:
    listed = list(commands(page))
    assert listed, f"{page.name} shows no curl"
    for before, command, status in listed:
        typed = before + command.replace(WRITTEN, address) + f" -o {tmp_path}/answer -w '%{{http_code}}'"
        done = subprocess.run(
            ["bash", "-c", typed], capture_output=True, text=True, timeout=COMMAND_LIMIT_S, check=False
        )
        said = (tmp_path / "answer").read_text()
        assert (done.returncode, done.stdout) == (0, status), f"{command}\n{said}\n{done.stderr}"
        assert said, command
