"""The REST bridge under attack: guessed tokens, others' accounts, false names and addresses; and behind nginx, with TLS."""

from __future__ import annotations

import http.client
import json
import os
import re
import shutil
import socket
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.cluster import ROOT, Cluster, free_ports, wait_until
from tests.acceptance.rest import Rest, Told
from tests.attack.intruder import watching_money
from zbank.ids import new_secret

GUESSES = 20
UNKNOWN = {401, 503}  #: of a token; the latter when the coordinator is slow to say so, and it counts as a guess, too
NGINX = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
HOST = "bank.example"


def told_of(bridge: Rest, secret: str, **more: Any) -> Told:
    """What it says of a token, as soon as the coordinator has answered it, which alone knows new ones."""
    answers: list[Told] = []

    def is_told() -> bool:
        answers.append(bridge.get("/v1/me", secret=secret, **more))
        return answers[-1].status != 503

    wait_until(is_told, what="what the coordinator says of a token")
    return answers[-1]


def known_token(bridge: Rest, role: str, *accounts: str, holder: str = "") -> str:
    """A new token that the bridge has heard of."""
    secret = bridge.make_token(role, *accounts, holder=holder)
    assert told_of(bridge, secret).status == 200
    return secret


@pytest.fixture(scope="module")
def rest(bank: Cluster) -> Iterator[Rest]:
    """A bridge that knows tokens, and is called by one name."""
    bridge = Rest(bank, "--rate-limit", "0", "--trusted-host", "127.0.0.1", "--trusted-host", HOST)
    bridge.secret = known_token(bridge, "operator")
    yield bridge
    bridge.close()


@pytest.fixture
def proxied(bank: Cluster) -> Iterator[Rest]:
    """A bridge behind a proxy on this machine."""
    bridge = Rest(bank, "--trusted-proxy", "127.0.0.1", "--trusted-host", HOST, "--trusted-host", "127.0.0.1")
    bridge.secret = known_token(bridge, "operator")
    yield bridge
    bridge.close()


def test_guessing_tokens_is_stopped_and_good_ones_go_on(bank: Cluster) -> None:
    bridge = Rest(bank, "--rate-limit", "0")
    try:
        good = bridge.make_token("auditor")
        guesses = [bridge.get("/v1/cluster", secret=new_secret()).status for _ in range(GUESSES + 30)]
        assert 401 in guesses[:GUESSES]
        assert set(guesses[:GUESSES]) <= UNKNOWN
        assert set(guesses[GUESSES:]) == {429}
        told = bridge.get("/v1/cluster", secret=new_secret())
        assert int(told.headers["retry-after"]) >= 1
        assert bridge.get("/v1/cluster", secret=good).status == 200, "who has one is not locked out with the guesser"
    finally:
        bridge.close()


def test_a_customer_finds_no_way_to_anothers_account(bank: Cluster, rest: Rest) -> None:
    """Every way there is, with somebody else's account in every place that takes one."""
    customer = known_token(rest, "customer", "Mumbai/1001", holder="asha")
    theirs = rest.pay("1.00", "theirs", source="Mumbai/1002", to="Delhi/1001").json["id"]
    for path in (
        "/v1/branches/Mumbai/accounts/1002",
        "/v1/branches/Mumbai/accounts/1002/entries",
        "/v1/branches/Mumbai/accounts/1002/balance",
        "/v1/branches/Mumbai/accounts/cash",
        "/v1/branches/Delhi/accounts/1001",
        "/v1/branches/Mumbai/accounts",
        "/v1/accounts",
        "/v1/transfers?account=Mumbai/1002",
        "/v1/transfers?branch=Mumbai",
        f"/v1/transfers/{theirs}",
        "/v1/cluster",
        "/v1/in-doubt",
        "/v1/figures",
        "/metrics",
        "/list_accounts?branch=Mumbai",
    ):
        told = rest.get(path, secret=customer)
        assert told.status in (200, 403, 404), (path, told)
        assert told.status == 403 or "1002" not in told.body.decode(), "not even by the way"
        assert told.status != 200 or {"accounts", "transfers"} & told.json.keys(), "lists of the own, and nothing else"
    with watching_money(bank, and_rows=False):
        tries_to_pay(rest, customer)


def tries_to_pay(rest: Rest, customer: str) -> None:
    """From others' accounts, by every way."""
    for path, body in (
        ("/v1/transfers", {"from": "Mumbai/1002", "to": "Mumbai/1001", "amount": "1"}),
        ("/v1/transfers", {"legs": [{"account": "Mumbai/1001", "amount": "1"}, {"account": "Mumbai/1002", "amount": "-1"}]}),
        ("/v1/transfers", {"from": "Mumbai/cash", "to": "Mumbai/1001", "amount": "1"}),
        ("/v1/deposits", {"account": "Mumbai/1001", "amount": "1"}),
        ("/v1/withdrawals", {"account": "Mumbai/1002", "amount": "1"}),
        ("/v1/branches/Mumbai/accounts", {"owner": "asha", "overdraft_limit": "1000"}),
    ):
        assert rest.post(path, body, key=f"steal{path}", secret=customer).status == 403, path
    simple: tuple[tuple[str, dict[str, Any]], ...] = (
        ("/balance", {"branch": "Mumbai", "account_no": "1002"}),
        ("/withdraw", {"branch": "Mumbai", "account_no": "1002", "amount": "1"}),
        ("/transfer", _simple("1002", "1001")),
    )
    for path, body in simple:
        assert rest.post(path, body, secret=customer).status == 403, path
    bulk = b'{"from": "Mumbai/1002", "to": "Mumbai/1001", "amount": "1"}'
    told = rest.ask(
        "POST",
        "/v1/transfers/bulk",
        body=bulk,
        key="steal-bulk",
        secret=customer,
        headers={"Content-Type": "application/x-ndjson"},
    )
    assert b'"committed"' not in told.body


def _simple(source: str, to: str) -> dict[str, Any]:
    return {"src_branch": "Mumbai", "src_account_no": source, "dest_branch": "Mumbai", "dest_account_no": to, "amount": 1}


def test_it_answers_to_its_own_names_alone(rest: Rest) -> None:
    assert rest.get("/v1/me", headers={"Host": HOST}).status == 200
    assert rest.get("/v1/me", headers={"Host": f"{HOST}:5000"}).status == 200
    for name in ("evil.example", "127.0.0.1.evil.example", f"{HOST}.evil.example", f"evil.{HOST}", "", "localhost"):
        for path in ("/v1/me", "/docs", "/healthz", "/nothing"):
            told = rest.get(path, headers={"Host": name})
            assert told.status in (400, 421), (name, path, told)


def test_a_stranger_does_not_choose_his_address(rest: Rest) -> None:
    """Without a trusted proxy nobody's word on who asks counts: guesses stay those of the one address."""
    told = [
        rest.get("/v1/me", secret=new_secret(), headers={"X-Forwarded-For": f"10.0.0.{n}", "Forwarded": f"for=10.1.1.{n}"})
        for n in range(GUESSES + 5)
    ]
    assert told[-1].status == 429


def test_behind_a_proxy_each_is_told_apart_and_nobody_is_let_in_without_a_token(proxied: Rest) -> None:
    for _ in range(GUESSES + 5):
        last = proxied.get("/v1/me", secret=new_secret(), headers={"X-Forwarded-For": "10.0.0.1"})
    assert last.status == 429
    assert told_of(proxied, new_secret(), headers={"X-Forwarded-For": "10.0.0.2"}).status == 401
    assert proxied.get("/v1/me", headers={"X-Forwarded-For": "10.0.0.1"}).status == 200, "with a good token"
    assert proxied.get("/v1/me", secret="").status == 401
    secured = proxied.get("/v1/me", headers={"X-Forwarded-Proto": "https"})
    assert secured.headers["strict-transport-security"]
    assert "strict-transport-security" not in proxied.get("/v1/me").headers


def test_a_request_is_followed_through_every_log(bank: Cluster, tmp_path: Path) -> None:
    cluster = Cluster(tmp_path, secure=True)
    for name in ("coordinator", *cluster.branches):
        cluster.flags[name] = ("--log", "json", "--log-level", "debug")
    try:
        cluster.start_all()
        bridge = Rest(cluster, "--log", "json", "--log-level", "debug")
        try:
            told = bridge.pay("5.00", "followed", headers={"X-Request-ID": "shop-4711"})
            assert told.status == 201
            assert told.headers["x-request-id"] == "shop-4711"
            other = bridge.pay("5.00", "not-followed", headers={"X-Request-ID": "bad id; drop"})
            assert re.fullmatch(r"[0-9a-f-]{36}", other.headers["x-request-id"]), "another one in its place"
        finally:
            bridge.process.terminate()
            _, said = bridge.process.communicate(timeout=30)
        assert all(cluster.stop(name) == 0 for name in ("coordinator", *cluster.branches))
        logs = {name: cluster.output(name) for name in ("coordinator", *cluster.branches)} | {"rest": said}
    finally:
        cluster.close()
    for name, text in logs.items():
        followed = [line for line in map(json.loads, text.splitlines()) if line.get("request_id") == "shop-4711"]
        assert followed, name
        if name != "rest":
            assert {line["transfer_id"] for line in followed} == {told.json["id"]}


# --- nginx ------------------------------------------------------------------------------------------------------------------


class Proxy:
    """Debian's nginx with deploy/nginx.conf, its paths and ports put in."""

    def __init__(self, folder: Path, rest_port: int) -> None:
        first = free_ports(3)
        self.port, plain, dashboard = first, first + 1, first + 2
        subprocess.run(
            [
                *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", f"/CN={HOST}"),
                *("-addext", f"subjectAltName=DNS:{HOST}", "-keyout", str(folder / "key"), "-out", str(folder / "crt")),
            ],
            check=True,
            capture_output=True,
        )
        text = (ROOT / "deploy" / "nginx.conf").read_text("utf-8")
        for old, new in (
            ("/etc/ssl/bank.example.crt", str(folder / "crt")),
            ("/etc/ssl/bank.example.key", str(folder / "key")),
            ("listen 443 ssl", f"listen 127.0.0.1:{self.port} ssl"),
            ("listen 80;", f"listen 127.0.0.1:{plain};"),
            ("127.0.0.1:5000", f"127.0.0.1:{rest_port}"),
            ("127.0.0.1:8501", f"127.0.0.1:{dashboard}"),
        ):
            assert old in text, old
            text = text.replace(old, new)
        paths = "".join(
            f"{kind}_temp_path {folder}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        config = folder / "nginx.conf"
        head = f"pid {folder}/pid; error_log {folder}/error.log; events {{}}"
        config.write_text(f"{head}\nhttp {{ access_log off; {paths}\n{text}\n}}\n")
        assert NGINX is not None
        self.process = subprocess.Popen(
            [NGINX, "-c", str(config), "-p", str(folder), "-e", str(folder / "error.log"), "-g", "daemon off; user root;"]
            if os.geteuid() == 0
            else [NGINX, "-c", str(config), "-p", str(folder), "-e", str(folder / "error.log"), "-g", "daemon off;"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self.trust = ssl.create_default_context(cafile=str(folder / "crt"))
        wait_until(self._answers, what=f"an answer of nginx (see {folder}/error.log)")

    def _answers(self) -> bool:
        assert self.process.poll() is None
        try:
            return self.get("/healthz").status == 200
        except OSError:
            return False

    def get(self, path: str, **headers: str) -> Told:
        """GET over TLS, the certificate checked."""
        with (
            socket.create_connection(("127.0.0.1", self.port), timeout=10) as bare,
            self.trust.wrap_socket(bare, server_hostname=HOST) as secured,
        ):
            connection = http.client.HTTPConnection(HOST, self.port)
            connection.sock = secured
            connection.request("GET", path, headers=headers)
            answer = connection.getresponse()
            return Told(answer.status, {name.lower(): text for name, text in answer.getheaders()}, answer.read())

    def close(self) -> None:
        self.process.terminate()
        self.process.wait(10)


@pytest.fixture
def nginx(proxied: Rest, tmp_path: Path) -> Iterator[Proxy]:
    if NGINX is None or shutil.which("openssl") is None:
        if os.environ.get("CI"):
            pytest.fail("nginx and openssl are missing: .ci/run installs them")
        pytest.skip("NOT TESTED: nginx and openssl are not installed")
    tmp_path.chmod(0o755)
    proxy = Proxy(tmp_path, proxied.port)
    try:
        yield proxy
    finally:
        proxy.close()


def test_behind_nginx_with_tls(nginx: Proxy, proxied: Rest) -> None:
    by = {"Authorization": f"Bearer {proxied.secret}", "Host": HOST}
    told = nginx.get("/v1/cluster", **by)
    assert told.status == 200
    assert told.headers["strict-transport-security"]
    assert told.headers["x-content-type-options"] == "nosniff"
    assert "nginx/" not in told.headers["server"], "its version is nobody's business"
    assert nginx.get("/v1/cluster", Host=HOST).status == 401
    for n in range(GUESSES + 5):  # a stranger who says each time that he is somebody else
        last = nginx.get("/v1/me", Host=HOST, Authorization=f"Bearer {new_secret()}", **{"X-Forwarded-For": f"10.9.9.{n}"})
    assert last.status == 429, "nginx's word on who asks counts, not his"
    assert nginx.get("/v1/me", **by).status == 200


def test_nginx_speaks_no_old_tls(nginx: Proxy) -> None:
    command = ["openssl", "s_client", "-connect", f"127.0.0.1:{nginx.port}", "-cipher", "ALL:@SECLEVEL=0"]
    for version, goes in (("-tls1_1", False), ("-tls1", False), ("-tls1_2", True)):
        done = subprocess.run([*command, version], stdin=subprocess.DEVNULL, capture_output=True, timeout=20, check=False)
        assert (done.returncode == 0) is goes, version
