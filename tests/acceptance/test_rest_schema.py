"""The OpenAPI document held against the running bridge: by a fuzzer that believes it, and by a client generated from it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.cluster import ROOT, Cluster, free_ports, wait_until

EXAMPLES = 25  #: of each operation; `make test-long` takes more
LONG_EXAMPLES = 400
FUZZ_LIMIT_S = 600.0
GENERATOR_CONFIG = "content_type_overrides:\n  application/x-ndjson: application/octet-stream\n"

PROGRAM = """
import sys
import time
from zbank_client import AuthenticatedClient
from zbank_client.api.accounts import show_account
from zbank_client.api.transfers import make_transfer, show_transfer
from zbank_client.models import PairGiven, ProblemShown, TransferShown

address, token = sys.argv[1:]
with AuthenticatedClient(base_url=address, token=token, timeout=30.0) as client:
    body = PairGiven(from_="Mumbai/1001", to="Delhi/1002", amount="12.50", memo="by a generated client")
    done = make_transfer.sync(client=client, body=body, idempotency_key="generated-1")
    assert isinstance(done, TransferShown), done
    again = make_transfer.sync(client=client, body=body, idempotency_key="generated-1")
    assert (done.status, done.amount, done.id) == ("committed", "12.50", again.id), (done, again)
    assert show_transfer.sync(str(done.id), client=client).memo == "by a generated client"
    for _ in range(200):  # "committed" does not wait for ever for a slow branch to apply it
        balance = show_account.sync("Mumbai", "1001", client=client).balance
        if balance == "9987.50":
            break
        time.sleep(0.1)
    assert balance == "9987.50", balance
    poor = PairGiven(from_="Mumbai/1001", to="Delhi/1002", amount="999999")
    refused = make_transfer.sync(client=client, body=poor, idempotency_key="generated-2")
    assert isinstance(refused, ProblemShown) and refused.code == "insufficient_funds", refused
print("done")
"""


class Place:
    """A bridge in front of a cluster, and an operator's token for it."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.address = f"http://127.0.0.1:{free_ports(1)}"
        self.bridge = cluster.spawn(
            "rest", "--endpoint", cluster.endpoint, "--port", self.address.rpartition(":")[2], "--rate-limit", "0"
        )
        wait_until(lambda: self._answers("/readyz"), what="the bridge is ready")
        made = cluster.cli("tokens", "make", "--holder", "fuzzer", "--role", "operator", "--json")
        self.secret: str = json.loads(made.stdout)["secret"]
        wait_until(lambda: self._answers("/v1/me", self.secret), what="the token is known")

    def _answers(self, path: str, token: str = "") -> bool:
        assert self.bridge.poll() is None, self.bridge.communicate()
        try:
            asked = urllib.request.Request(self.address + path, headers={"Authorization": f"Bearer {token}"} if token else {})
            with urllib.request.urlopen(asked, timeout=20) as answer:
                return bool(answer.status == 200)
        except (OSError, urllib.error.URLError):
            return False

    def document(self) -> dict[str, Any]:
        with urllib.request.urlopen(f"{self.address}/openapi.json", timeout=20) as answer:
            found: dict[str, Any] = json.load(answer)
            return found


@pytest.fixture(scope="module")
def place(shared_cluster: Cluster) -> Iterator[Place]:
    place = Place(shared_cluster)
    yield place
    place.bridge.terminate()
    _, said = place.bridge.communicate(timeout=30)
    assert place.bridge.returncode == 0, said
    assert "Traceback" not in said
    assert "ERROR" not in said


def fuzz(place: Place, examples: int, seed: int, folder: Path) -> None:
    """Every operation but the endless stream, all checks on."""
    command = [
        *(sys.executable, "-m", "schemathesis.cli", "--config-file", str(ROOT / "tests" / "schemathesis.toml")),
        *("run", f"{place.address}/openapi.json", "-H", f"Authorization: Bearer {place.secret}"),
        *("--checks", "all", "--phases", "examples,coverage,fuzzing,stateful", "--exclude-path", "/v1/events"),
        *("--seed", str(seed), "--max-examples", str(examples), "--request-timeout", "20", "--no-color"),
    ]
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, timeout=FUZZ_LIMIT_S, check=False
    )
    assert done.returncode == 0, done.stdout[-8_000:] + done.stderr[-2_000:]
    assert " passed" in done.stdout


def test_what_the_client_generator_makes_of_the_document_moves_money(place: Place, tmp_path: Path) -> None:
    (tmp_path / "openapi.json").write_text(json.dumps(place.document()))
    (tmp_path / "config.yml").write_text(GENERATOR_CONFIG + "post_hooks: []\n")
    generator = [
        *(sys.executable, "-m", "openapi_python_client", "generate", "--path", "openapi.json"),
        *("--output-path", "generated", "--config", "config.yml", "--fail-on-warning"),
    ]
    made = subprocess.run(generator, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert made.returncode == 0, made.stdout + made.stderr
    (tmp_path / "program.py").write_text(PROGRAM)
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "generated")}
    command = [sys.executable, "program.py", place.address, place.secret]
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr


def test_the_schema_fuzzer_finds_nothing(place: Place, tmp_path: Path) -> None:
    fuzz(place, EXAMPLES, 1, tmp_path)


@pytest.mark.long
@pytest.mark.timeout(int(FUZZ_LIMIT_S) * 3)
@pytest.mark.parametrize("seed", [2, 3, 4])
def test_the_schema_fuzzer_finds_nothing_for_long(place: Place, tmp_path: Path, seed: int) -> None:
    fuzz(place, LONG_EXAMPLES, seed, tmp_path)
