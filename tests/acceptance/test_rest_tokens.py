"""Who may do what over REST: roles, a customer's own accounts, revocation, and how an open bridge closes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.acceptance.cluster import Cluster, wait_until
from tests.acceptance.rest import Rest, Stream
from zbank.ids import new_secret

ACCOUNT = "/v1/branches/Mumbai/accounts/1001"
OTHER = "/v1/branches/Delhi/accounts/1002"
UNKNOWN = "/v1/transfers/01a206e4-6535-7290-a6cf-c388bb3b8b1c"
MOVEMENT = {"account": "Mumbai/1001", "amount": "1"}
TRANSFER = {"from": "Mumbai/1001", "to": "Delhi/1002", "amount": "1"}
SIMPLE = {"src_branch": "Mumbai", "src_account_no": 1001, "dest_branch": "Delhi", "dest_account_no": 1002, "amount": "1"}

PROMOTION = {"branch": "Mumbai", "instance": "01a206e4-6535-7290-a6cf-c388bb3b8b1c", "confirm": "promote Mumbai"}


class Staff:
    """A bridge that demands tokens, and one of each role."""

    def __init__(self, cluster: Cluster) -> None:
        self.rest = Rest(cluster)
        assert self.rest.get(ACCOUNT).status == 200, "open while no token was ever made"
        self.secrets = {role: self.rest.make_token(role) for role in ("operator", "teller", "auditor")}
        wait_until(lambda: self.rest.get(ACCOUNT).status == 401, what="the bridge closes with the first token")
        self.secrets["customer"] = self.rest.make_token("customer", "Mumbai/1001", "Delhi/none", holder="asha")
        self.secrets["another"] = self.rest.make_token("customer", "Delhi/1002", holder="ravi")
        for secret in self.secrets.values():
            self.wait_known(secret)

    def status(self, who: str, method: str, path: str, value: Any = None, key: str = "") -> int:
        return self.rest.ask(method, path, value, key=key, secret=self.secrets[who]).status

    def wait_known(self, secret: str) -> None:
        """Where too many wrong tokens came from, or the coordinator is slow to answer, a new one is known when the bridge next
        hears from the coordinator."""
        wait_until(lambda: self.rest.get("/v1/me", secret=secret).status == 200, what="the token is good")

    def refusal(self, secret: str) -> int:
        """The status of a token that is not good. A bridge that has no answer of the coordinator's for a while says so (503),
        and lets nobody in either."""
        while (status := self.rest.get("/v1/cluster", secret=secret).status) == 503:
            pass
        return status


@pytest.fixture(scope="module")
def staff(shared_cluster: Cluster) -> Iterator[Staff]:
    staff = Staff(shared_cluster)
    yield staff
    staff.rest.close()


# (method, path, value, statuses of customer, teller, auditor, operator)
WHO_MAY: list[tuple[str, str, Any, tuple[int, int, int, int]]] = [
    ("GET", "/v1/cluster", None, (403, 200, 200, 200)),
    ("GET", "/v1/branches", None, (200, 200, 200, 200)),
    ("GET", "/v1/branches/Mumbai", None, (200, 200, 200, 200)),
    ("GET", ACCOUNT, None, (200, 200, 200, 200)),
    ("GET", f"{ACCOUNT}/entries", None, (200, 200, 200, 200)),
    ("GET", f"{ACCOUNT}/balance", None, (200, 200, 200, 200)),
    ("GET", OTHER, None, (403, 200, 200, 200)),
    ("GET", f"{OTHER}/entries", None, (403, 200, 200, 200)),
    ("GET", f"{OTHER}/balance?at=2026-01-01", None, (403, 200, 200, 200)),
    ("GET", "/v1/branches/Mumbai/accounts/never-opened", None, (403, 404, 404, 404)),
    ("POST", "/v1/branches/Mumbai/accounts", {}, (403, 201, 403, 201)),
    ("PATCH", OTHER, {"status": "open"}, (403, 200, 403, 200)),
    ("POST", "/v1/deposits", MOVEMENT, (403, 201, 403, 201)),
    ("POST", "/v1/withdrawals", MOVEMENT, (403, 201, 403, 201)),
    ("POST", "/v1/transfers", TRANSFER, (201, 201, 403, 201)),
    ("POST", "/v1/transfers/bulk", [TRANSFER], (200, 200, 403, 200)),
    ("GET", "/v1/transfers", None, (403, 200, 200, 200)),
    ("GET", "/v1/transfers?branch=Mumbai", None, (403, 200, 200, 200)),
    ("GET", "/v1/transfers?account=Mumbai/1001", None, (200, 200, 200, 200)),
    ("GET", "/v1/transfers?account=Delhi/1002", None, (403, 200, 200, 200)),
    ("GET", UNKNOWN, None, (404, 404, 404, 404)),
    ("GET", "/v1/in-doubt", None, (403, 200, 200, 200)),
    ("POST", "/v1/in-doubt/coordinator-9-9/inquire", None, (403, 403, 403, 404)),
    ("GET", "/v1/replicas", None, (200, 200, 200, 200)),
    ("POST", "/v1/replicas/none/promotion", PROMOTION, (403, 403, 403, 404)),
    ("GET", "/v1/accounts?search=demo", None, (200, 200, 200, 200)),
    ("GET", "/v1/me", None, (200, 200, 200, 200)),
    ("GET", "/v1/figures", None, (403, 200, 200, 200)),
    ("GET", "/v1/transfers/by-key?key=nobodys", None, (404, 404, 404, 404)),
    ("POST", "/v1/transfers/by-key/cancel?key=nobodys", None, (200, 200, 403, 200)),
    ("GET", "/v1/drills", None, (403, 403, 403, 404)),
    ("POST", "/v1/drills/all-goes-well/play", {"step": False}, (403, 403, 403, 404)),
    ("GET", "/metrics", None, (403, 403, 200, 200)),
    ("POST", "/balance", {"branch": "Mumbai", "account_no": "1001"}, (200, 200, 200, 200)),
    ("POST", "/balance", {"branch": "Delhi", "account_no": "1002"}, (403, 200, 200, 200)),
    ("POST", "/deposit", {"branch": "Mumbai", "account_no": 1001, "amount": "1"}, (403, 200, 403, 200)),
    ("POST", "/withdraw", {"branch": "Mumbai", "account_no": 1001, "amount": "1"}, (403, 200, 403, 200)),
    ("POST", "/transfer", SIMPLE, (200, 200, 403, 200)),
    ("GET", "/list_accounts?branch=Mumbai", None, (403, 200, 200, 200)),
    ("GET", "/healthz", None, (200, 200, 200, 200)),
    ("GET", "/readyz", None, (200, 200, 200, 200)),
    ("GET", "/openapi.json", None, (200, 200, 200, 200)),
]


@pytest.mark.parametrize(("method", "path", "value", "expected"), WHO_MAY, ids=lambda part: str(part)[:40])
def test_who_may_do_what(staff: Staff, method: str, path: str, value: Any, expected: tuple[int, ...]) -> None:
    roles = ("customer", "teller", "auditor", "operator")
    key = f"{method}{path}".replace(" ", "")[:200] if method != "GET" else ""
    found = tuple(staff.status(role, method, path, value, key=f"{key}-{role}" if key else "") for role in roles)
    assert found == expected
    is_public = path in ("/healthz", "/readyz", "/openapi.json")
    told = staff.rest.ask(method, path, value, key=key, secret="")
    assert told.status == (200 if is_public else 401)
    if not is_public:
        assert told.headers["www-authenticate"].startswith("Bearer")


def test_a_customer_pays_from_the_own_accounts_alone(staff: Staff) -> None:
    def pay(value: Any, key: str) -> int:
        return staff.status("customer", "POST", "/v1/transfers", value, key)

    assert pay({**TRANSFER, "from": "Delhi/1002", "to": "Mumbai/1001"}, "c1") == 403
    assert pay({**TRANSFER, "to": "Mumbai/cash"}, "c2") == 403, "that would be a withdrawal"
    assert pay({**TRANSFER, "from": "Mumbai/cash", "to": "Mumbai/1001"}, "c3") == 403
    legs = [{"account": "Mumbai/1001", "amount": "-1"}, {"account": "Delhi/1002", "amount": "-1"}]
    legs.append({"account": "Mumbai/1002", "amount": "2"})
    assert pay({"legs": legs}, "c4") == 403
    assert pay({"legs": [legs[0], {"account": "Mumbai/1002", "amount": 1}]}, "c5") == 201
    lines = [TRANSFER, {**TRANSFER, "from": "Delhi/1002", "to": "Mumbai/1001"}]
    told = staff.rest.post("/v1/transfers/bulk", lines, key="c6", secret=staff.secrets["customer"])
    assert [line["status"] for line in told.json] == [201, 403]
    listed = staff.rest.get("/v1/branches/Mumbai/accounts", secret=staff.secrets["customer"]).json["accounts"]
    assert [account["account"] for account in listed] == ["Mumbai/1001"]
    assert staff.rest.get("/v1/branches/Delhi/accounts", secret=staff.secrets["customer"]).json["accounts"] == []


def test_keys_and_transfers_are_their_callers(staff: Staff) -> None:
    first = staff.rest.pay("1", "same-key", secret=staff.secrets["customer"])
    second = staff.rest.pay("1", "same-key", secret=staff.secrets["teller"])
    assert (first.status, second.status, second.is_replayed) == (201, 201, False)
    assert first.json["id"] != second.json["id"]
    to_ravi = staff.rest.get(first.headers["location"], secret=staff.secrets["another"])
    assert to_ravi.status == 200, "money came to an account of his"
    staff.rest.settle()
    elsewhere = staff.rest.pay("1", "elsewhere", to="Mumbai/1002", secret=staff.secrets["teller"])
    assert staff.rest.get(elsewhere.headers["location"], secret=staff.secrets["another"]).status == 404
    with staff.rest.cluster.client() as bank:
        entries = bank.statement("Mumbai/1001", limit=1).entries
    assert entries[0].id == elsewhere.json["id"]


def test_a_customer_hears_of_the_own_transfers_alone(staff: Staff) -> None:
    staff.rest.settle()
    place = staff.rest.place()
    streams = {who: Stream(staff.rest, last=place, secret=staff.secrets[who]) for who in ("another", "auditor")}
    try:
        hidden = staff.rest.pay("1", "hidden", to="Mumbai/1002", secret=staff.secrets["teller"]).json["id"]
        shown = staff.rest.pay("2", "shown", secret=staff.secrets["teller"]).json["id"]
        kinds = sorted(["begin", "vote", "vote", "decision", "applied", "applied"])

        def is_all(events: list[dict[str, Any]]) -> bool:
            return sorted(event["kind"] for event in events if event["id"] == shown) == kinds

        heard = {who: stream.hear(is_all) for who, stream in streams.items()}
    finally:
        for stream in streams.values():
            stream.close()
    assert {event["id"] for _, event in heard["another"]} == {shown}
    assert {event["id"] for _, event in heard["auditor"]} == {hidden, shown}


def test_what_is_no_token(staff: Staff) -> None:
    good = staff.secrets["operator"]
    for header in ("", "Bearer", "Bearer ", f"Basic {good}", good, f"Bearer {good} x", "Bearer zbank_", f"Bearer {good[:-1]}"):
        told = staff.rest.get("/v1/cluster", secret="", headers={"Authorization": header})
        assert told.status in (401, 429), header
    assert staff.rest.get("/v1/cluster", headers={"Authorization": f"bearer {good}"}).status == 200
    statuses = {staff.refusal(new_secret()) for _ in range(30)}
    assert statuses <= {401, 429}
    assert 429 in statuses, "who guesses is told to wait"
    assert staff.rest.get("/v1/cluster", secret=good).status == 200, "and nobody else"


def test_a_revoked_token_is_refused_soon_and_for_good(staff: Staff) -> None:
    secret = staff.rest.make_token("teller", holder="for an hour")
    staff.wait_known(secret)
    listed = staff.rest.cluster.cli("tokens", "list", "--json")
    assert secret not in listed.stdout
    token = next(one for one in json.loads(listed.stdout)["tokens"] if one["holder"] == "for an hour")
    assert (token["role"], token["state"]) == ("teller", "good")
    for _ in range(2):
        assert staff.rest.cluster.cli("tokens", "revoke", token["id"]).returncode == 0
    wait_until(lambda: staff.rest.get("/v1/cluster", secret=secret).status in (401, 429), what="the token is refused")
    table = staff.rest.cluster.cli("tokens", "list").stdout
    assert "revoked" in next(line for line in table.splitlines() if token["id"] in line)
    unknown = staff.rest.cluster.cli("tokens", "revoke", "01a206e4-6535-7290-a6cf-c388bb3b8b1c")
    assert (unknown.returncode, "token_not_found" in unknown.stderr) == (1, True)


def test_an_expired_token_is_none(staff: Staff) -> None:
    secrets = (new_secret(), new_secret())
    with staff.rest.cluster.client() as bank:
        for secret, expires_us in zip(secrets, (1, 4_000_000_000_000_000), strict=True):
            bank.make_token(secret, holder="temp", role="auditor", expires_us=expires_us)
    assert staff.refusal(secrets[0]) in (401, 429)
    staff.wait_known(secrets[1])
    listed = json.loads(staff.rest.cluster.cli("tokens", "list", "--json").stdout)["tokens"]
    assert [token["state"] for token in listed if token["holder"] == "temp"] == ["expired", "good"]


@pytest.mark.parametrize(
    ("flags", "code", "said"),
    [
        (("--role", "customer"), 1, "names the accounts"),
        (("--role", "teller", "--account", "Mumbai/1001"), 1, "for all accounts"),
        (("--role", "customer", "--account", "Mumbai"), 1, "Mumbai"),
        (("--role", "boss"), 2, "'boss' is not one of"),
        (("--role", "teller", "--days", "0"), 2, "--days"),
    ],
)
def test_tokens_that_are_not_made(staff: Staff, flags: tuple[str, ...], code: int, said: str) -> None:
    done = staff.rest.cluster.cli("tokens", "make", "--holder", "x", *flags)
    assert (done.returncode, done.stdout) == (code, "")
    assert said in done.stderr


def test_where_others_could_connect_there_must_be_a_token(cluster: Cluster) -> None:
    refused = cluster.spawn("rest", "--endpoint", cluster.endpoint, "--host", "0.0.0.0", "--port", "1")
    _, said = refused.communicate(timeout=60)
    assert refused.returncode == 2
    assert "zbank tokens make --holder NAME --role operator" in said
    assert "Traceback" not in said
    cluster.kill("coordinator")
    early = cluster.spawn("rest", "--endpoint", cluster.endpoint, "--host", "0.0.0.0", "--port", "1")
    _, said = early.communicate(timeout=60)
    assert early.returncode == 1, "it may come yet: a service manager tries again"
    assert "does not answer" in said


def test_an_open_bridge_is_open_to_this_machine_alone(cluster: Cluster) -> None:
    """A page of some site, whose name was made to lead here, sends its own name."""
    rest = Rest(cluster)
    try:
        told = rest.get("/v1/cluster", headers={"Host": f"evil.example:{rest.port}"})
        assert (told.status, told.code) == (403, "forbidden")
        for host in (f"localhost:{rest.port}", "127.0.0.1", f"[::1]:{rest.port}"):
            assert rest.get("/v1/cluster", headers={"Host": host}).status == 200, host
        foreign = rest.get("/v1/cluster", headers={"Origin": "http://evil.example"})
        assert (foreign.status, "access-control-allow-origin" in foreign.headers) == (403, False)
        assert rest.get("/v1/cluster", headers={"Origin": f"http://127.0.0.1:{rest.port}"}).status == 200
        assert rest.get("/v1/cluster", headers={"Origin": "null"}).status == 403
    finally:
        rest.close()


def test_each_token_is_told_what_it_is_and_sees_its_own(staff: Staff) -> None:
    me = staff.rest.get("/v1/me", secret=staff.secrets["customer"]).json
    assert (me["role"], me["may"], me["tokens_demanded"]) == ("customer", ["pay", "see"], True)
    listed = staff.rest.get("/v1/accounts", secret=staff.secrets["customer"]).json["accounts"]
    assert [account["account"] for account in listed] == ["Mumbai/1001"]
    none = staff.rest.get("/v1/accounts?status=closed", secret=staff.secrets["customer"]).json["accounts"]
    assert none == []


def test_a_key_is_its_callers_alone(staff: Staff) -> None:
    assert staff.status("teller", "POST", "/v1/transfers", TRANSFER, "a-key-of-mine") == 201
    path = "/v1/transfers/by-key?key=a-key-of-mine"
    assert [staff.status(role, "GET", path, None, "") for role in ("teller", "operator")] == [200, 404]
