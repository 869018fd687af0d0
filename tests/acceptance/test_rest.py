"""The REST bridge in front of a running bank: what it does, what it refuses, and that it pays once."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.acceptance.cluster import wait_until
from tests.acceptance.rest import Rest, Told

LONG_KEY = "k" * 255


def test_the_simple_ones(rest: Rest, account: str) -> None:
    number = account.partition("/")[2]
    at = {"branch": "Mumbai", "account_no": int(number)}
    assert rest.post("/balance", at).json["balance"] == "100.00"
    assert rest.post("/deposit", {**at, "amount": 5}).json["status"] == "committed"
    assert rest.post("/withdraw", {**at, "amount": "2.50"}, key="w").status == 200
    again = rest.post("/withdraw", {**at, "amount": "2.50"}, key="w")
    assert (again.status, again.is_replayed) == (200, True)
    listed = rest.get("/list_accounts?branch=Mumbai").json["accounts"]
    assert {"account": account, "balance": "102.50"}.items() <= next(o for o in listed if o["number"] == number).items()
    sides = {"src_branch": "Mumbai", "src_account_no": number, "dest_branch": "Delhi", "dest_account_no": "1002"}
    assert rest.post("/transfer", {**sides, "amount": "2.5"}).json["amount"] == "2.50"
    poor = rest.post("/transfer", {**sides, "amount": "1000"})
    assert (poor.status, poor.code) == (422, "insufficient_funds")
    assert rest.balance(account) == "100.00"


def test_a_key_pays_once_and_answers_as_the_first_time(rest: Rest, account: str) -> None:
    first = rest.pay("10.50", "once", source=account)
    assert (first.status, first.is_replayed, first.json["status"]) == (201, False, "committed")
    rest.settle()  # until then whoever asks again waits with the first one
    again = rest.pay("10.50", "once", source=account)
    assert (again.status, again.is_replayed, again.json["id"]) == (201, True, first.json["id"])
    assert first.headers["location"] == again.headers["location"] == f"/v1/transfers/{first.json['id']}"
    other = rest.pay("10.51", "once", source=account)
    assert (other.status, other.code) == (422, "idempotency_conflict")
    poor = rest.pay("1000", "never", source=account)
    assert (poor.status, poor.code, poor.is_replayed) == (422, "insufficient_funds", False)
    rest.post("/v1/deposits", {"account": account, "amount": "2000"}, key="now rich".replace(" ", "-"))
    told_again = rest.pay("1000", "never", source=account)
    assert (told_again.code, told_again.is_replayed) == ("insufficient_funds", True), "an outcome is final"
    assert rest.balance(account) == "2089.50"
    shown = rest.get(first.headers["location"]).json
    assert (shown["status"], shown["amount"], shown["from"]) == ("committed", "10.50", account)
    assert [one["state"] for one in shown["participants"]] == ["committed", "committed"]
    assert {bar["phase"] for bar in shown["timeline"]} >= {"prepare", "decide"}


def test_many_at_once_with_one_key_are_one_payment(rest: Rest, account: str) -> None:
    with ThreadPoolExecutor(16) as pool:
        told = list(pool.map(lambda _: rest.pay("1", "all-at-once", source=account), range(32)))
    assert {one.status for one in told} == {201}
    assert len({one.json["id"] for one in told}) == 1
    assert rest.balance(account) == "99.00"


def test_who_hangs_up_in_the_middle_has_paid_once(rest: Rest, account: str) -> None:
    body = json.dumps({"from": account, "to": "Delhi/1002", "amount": "3"}).encode()
    head = (
        f"POST /v1/transfers HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        f"Idempotency-Key: hang-up\r\nContent-Length: {len(body)}\r\n\r\n"
    ).encode()
    for cut in (len(body), len(body) - 1, 0):
        with socket.create_connection(("127.0.0.1", rest.port), 10) as caller:
            caller.sendall(head + body[:cut])
    told = rest.pay("3", "hang-up", source=account)
    assert told.status == 201
    assert rest.balance(account) == "97.00"


@pytest.mark.parametrize(
    ("text", "balance"),
    [
        ("0.1", "99.90"),
        ("1e1", "90.00"),
        ("50.00", "50.00"),
        ("1", "99.00"),
        ("10.010000000", None),
        ('"0.10"', "99.90"),
    ],
)
def test_numbers_are_money_exactly(rest: Rest, account: str, text: str, balance: str | None) -> None:
    body = f'{{"from": "{account}", "to": "Delhi/1002", "amount": {text}}}'.encode()
    told = rest.post("/v1/transfers", body=body, key=f"exact-{account}")
    if balance is None:
        assert told.status in (201, 422), told
    else:
        assert (told.status, rest.balance(account)) == (201, balance)


BAD_AMOUNTS = [*("NaN", "Infinity", "true", "null", "[]", "{}", "-1", "0", '"+1"', '"1_000"', '" 1"', '"1,0"', '"1e3"')]
BAD_AMOUNTS += ['"\u0661"', '"\uff11"', '"0x10"', '""', '"01"', '".5"', '"5."', "1" + "0" * 5000]


@pytest.mark.parametrize("text", BAD_AMOUNTS, ids=lambda text: text[:12])
def test_what_is_no_amount_is_malformed(rest: Rest, text: str) -> None:
    body = f'{{"from": "Mumbai/1001", "to": "Delhi/1002", "amount": {text}}}'.encode()
    told = rest.post("/v1/transfers", body=body, key="bad-amount")
    assert (told.status, told.code) == (400, "malformed"), told


@pytest.mark.parametrize("text", ["0.001", '"1.005"', "1e400", "1" + "0" * 400, '"92233720368547758.08"', '"0.00"'])
def test_an_amount_that_the_currency_has_not_is_no_amount_here(rest: Rest, text: str) -> None:
    body = f'{{"from": "Mumbai/1001", "to": "Delhi/1002", "amount": {text}}}'.encode()
    told = rest.post("/v1/transfers", body=body, key="no-amount")
    assert (told.status, told.code) == (422, "invalid_amount"), told


GOOD = b'"from": "Mumbai/1001", "to": "Delhi/1002", "amount": "1"'
BAD_BODIES = {
    "empty": b"",
    "not JSON": b"{",
    "trailing": b"{%s} x" % GOOD,
    "twice": b'{%s, "amount": "2"}' % GOOD,
    "unknown field": b'{%s, "amout": "2"}' % GOOD,
    "list": b"[]",
    "text": b'"text"',
    "JSON in JSON": json.dumps(f"{{{GOOD.decode()}}}").encode(),
    "deep": b"[" * 60_000,
    "deep objects": b'{"a":' * 12_000,
    "latin-1": b'{%s, "memo": "\xe9"}' % GOOD,
    "UTF-16": ("{" + GOOD.decode() + "}").encode("utf-16"),
    "lone surrogate": b'{%s, "memo": "\\ud800"}' % GOOD,
    "long memo": b'{%s, "memo": "%s"}' % (GOOD, b"x" * 141),
    "no account": b'{"from": "Mumbai", "to": "Delhi/1002", "amount": "1"}',
    "path": b'{"from": "../../etc/passwd", "to": "Delhi/1002", "amount": "1"}',
    "NUL": b'{"from": "Mumbai/1001\\u0000", "to": "Delhi/1002", "amount": "1"}',
    "newline": b'{"from": "Mumbai/1001\\n", "to": "Delhi/1002", "amount": "1"}',
    "number as name": b'{"from": 1001, "to": "Delhi/1002", "amount": "1"}',
    "no day": b'{%s, "effective_on": "2026-02-30"}' % GOOD,
    "one leg": b'{"legs": [{"account": "Mumbai/1001", "amount": "1"}]}',
}


@pytest.mark.parametrize("body", BAD_BODIES.values(), ids=BAD_BODIES.keys())
def test_a_body_that_is_not_what_the_schema_says_is_malformed(rest: Rest, body: bytes) -> None:
    told = rest.post("/v1/transfers", body=body, key="bad-body")
    assert (told.status, told.code) == (400, "malformed"), told
    assert len(told.body) < 2_000


def refused(rest: Rest, path: str, value: Any, key: str, method: str = "POST") -> tuple[int, str]:
    told = rest.ask(method, path, value, key=key)
    return told.status, told.code


def test_refusals_by_code(rest: Rest, account: str) -> None:
    pair = {"from": account, "to": "Delhi/1002", "amount": "1"}
    transfers = "/v1/transfers"
    assert refused(rest, transfers, {**pair, "to": "Delhi/none"}, "r1") == (422, "account_not_found")
    assert refused(rest, transfers, {**pair, "to": "Lima/1"}, "r2") == (422, "branch_not_found")
    assert refused(rest, transfers, {**pair, "currency": "EUR"}, "r3") == (422, "currency_mismatch")
    assert refused(rest, transfers, {**pair, "to": account}, "r4") == (422, "invalid_request")
    legs = [{"account": account, "amount": "-1"}, {"account": "Delhi/1002", "amount": "2"}]
    assert refused(rest, transfers, {"legs": legs}, "r5") == (422, "invalid_amount")
    accounts = "/v1/branches/Mumbai/accounts"
    number = account.partition("/")[2]
    assert refused(rest, accounts, {"number": number}, "r6") == (422, "account_exists")
    assert refused(rest, accounts, {"currency": "EUR"}, "r7") == (422, "currency_mismatch")
    assert refused(rest, accounts, {"number": "cash"}, "r8") == (422, "system_account")
    assert refused(rest, "/v1/branches/Lima/accounts", {}, "r9") == (404, "branch_not_found")
    one = f"{accounts}/{number}"
    assert refused(rest, one, {"status": "closed"}, "r10", "PATCH") == (422, "account_not_empty")
    assert refused(rest, one, {}, "r11", "PATCH") == (422, "invalid_request")
    assert refused(rest, f"{accounts}/none", {"status": "frozen"}, "r12", "PATCH") == (404, "account_not_found")
    assert refused(rest, f"{accounts}/cash", {"status": "frozen"}, "r13", "PATCH") == (422, "system_account")
    assert rest.ask("PATCH", one, {"status": "frozen"}, key="f1").json["status"] == "frozen"
    assert rest.ask("PATCH", one, {"status": "frozen"}, key="f1").is_replayed
    assert refused(rest, transfers, pair, "r14") == (422, "account_frozen")
    assert rest.ask("PATCH", one, {"status": "open"}, key="f2").status == 200
    assert rest.post("/v1/withdrawals", {"account": account, "amount": "100"}, key="r15").status == 201
    assert rest.ask("PATCH", one, {"status": "closed"}, key="f3").json["status"] == "closed"
    assert refused(rest, transfers, pair, "r16") == (422, "account_closed")
    assert rest.get(f"{accounts}/none").code == rest.get(f"{accounts}/none/entries").code == "account_not_found"
    assert rest.get("/v1/branches/Lima").status == rest.get("/v1/branches/Lima/accounts").status == 404
    assert rest.get("/v1/transfers/01a206e4-6535-7290-a6cf-c388bb3b8b1c").code == "transfer_not_found"


def test_requests_that_are_wrong_before_the_bank_is_asked(rest: Rest) -> None:
    value = {"from": "Mumbai/1001", "to": "Delhi/1002", "amount": "1"}
    assert rest.post("/v1/transfers", value).code == "idempotency_key_missing"
    assert rest.post("/v1/transfers", value, key="").code == "idempotency_key_missing"
    for key in ("two words", LONG_KEY + "k", "caf\xe9"):
        assert (rest.post("/v1/transfers", value, key=key).status) == 400, key
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", ""):
        told = rest.post("/v1/transfers", body=b"{}", key="k", headers={"Content-Type": kind})
        assert (told.status, told.code) == (415, "unsupported_media_type"), kind
    large = rest.post("/v1/transfers", body=b" " * 100_000 + b"{}", key="k")
    assert (large.status, large.code) == (413, "body_too_large")
    assert rest.get("/v1/branches?x=1").code == "malformed"
    assert rest.get("/v1/transfers?limit=1&limit=2").code == "malformed"
    for query in ("limit=0", "limit=1001", "limit=x", "from=yesterday", "status=done", "account=x", "cursor=%00"):
        assert rest.get(f"/v1/transfers?{query}").code == "malformed", query
    assert rest.get("/v1/transfers?cursor=QQ").code == "invalid_request"
    wrong = rest.ask("DELETE", "/v1/transfers")
    assert (wrong.status, wrong.code) == (405, "method_not_allowed")
    assert set(wrong.headers["allow"].split(", ")) == {"GET", "HEAD", "POST"}
    assert rest.ask("OPTIONS", "/v1/transfers").status == 405, "nothing for pages of other sites"


@pytest.mark.parametrize(
    "path",
    [
        *("/nothing", "/v1", "/v1/", "/v1/cluster/", "/v1//cluster", "/V1/cluster"),
        *("/v1/branches/..%2f..%2fetc", "/v1/branches/%2e%2e", "/v1/branches/Mumbai%00", "/v1/branches/Mumbai%0a"),
        *("/v1/branches/M%C3%BCnchen", "/v1/branches/%ff", "/v1/branches/Mumbai/accounts/1001%2f..", "/docs/../setup.cfg"),
        *("/docs/%2e%2e/%2e%2e/setup.cfg", "/docs/index.html", "/v1/transfers/not-an-id", "/static/x"),
    ],
)
def test_addresses_where_nothing_is(rest: Rest, path: str) -> None:
    told = rest.get(path)
    assert (told.status, told.code) == (404, "not_found"), told


def test_statements_by_page_time_and_as_csv(rest: Rest, account: str) -> None:
    for n in range(5):
        memo = "=1+1" if n == 4 else f'say "{n}"'
        value = {"account": account, "amount": str(n + 1), "memo": memo}
        assert rest.post("/v1/deposits", value, key=f"csv-{account}-{n}").status == 201
    path = f"/v1/branches/Mumbai/accounts/{account.partition('/')[2]}"
    amounts: list[str] = []
    cursor: str | None = ""
    while cursor is not None:
        page = rest.get(f"{path}/entries?limit=2&order=oldest&cursor={cursor}").json
        amounts += [entry["amount"] for entry in page["entries"]]
        cursor = page["cursor"]
    assert amounts == ["100.00", "1.00", "2.00", "3.00", "4.00", "5.00"]
    newest = rest.get(f"{path}/entries?limit=1").json["entries"][0]
    assert (newest["amount"], newest["balance"], newest["memo"]) == ("5.00", "115.00", "=1+1")
    assert rest.get(f"{path}/entries?from=2100-01-01").json["entries"] == []
    assert len(rest.get(f"{path}/entries?to=2100-01-01T00:00:00%2B05:30").json["entries"]) == 6
    assert rest.get(f"{path}/balance?at=2100-01-01").json["balance"] == "115.00"
    assert rest.get(f"{path}/balance?at=2001-01-01").json["balance"] == "0.00"
    assert rest.get(f"{path}/balance").json["at"] is None
    third = rest.get(f"{path}/entries?order=oldest&limit=3").json["entries"][2]
    assert rest.get(f"{path}/balance?at={third['at']}").json["balance"] in ("101.00", "103.00", "106.00", "110.00", "115.00")
    csv = rest.get(f"{path}/entries?limit=2", headers={"Accept": "text/csv"})
    assert csv.headers["content-type"].startswith("text/csv")
    header, *lines = csv.body.decode().splitlines()
    assert header == "id,at,effective_on,amount,balance,currency,memo,counterparties"
    assert [line.split(",")[3:7] for line in lines] == [
        ["5.00", "115.00", "INR", "'=1+1"],
        ["4.00", "110.00", "INR", '"say ""3"""'],
    ]
    assert rest.get(f"{path}/entries?cursor={csv.headers['x-next-cursor']}").json["entries"][0]["amount"] == "3.00"


def pages(rest: Rest, query: str) -> Iterator[dict[str, Any]]:
    cursor: str | None = ""
    while cursor is not None:
        page = rest.get(f"/v1/transfers?limit=7&{query}&cursor={cursor}").json
        assert page["missing"] == []
        yield from page["transfers"]
        cursor = page["cursor"]


def test_lists_of_transfers_have_each_once(rest: Rest, account: str) -> None:
    told: dict[str, Told] = {}
    for n in range(12):
        amount = "1" if n % 3 else "5000"
        to = "Mumbai/1002" if n % 2 else "Delhi/1002"
        told[f"list-{account}-{n}"] = rest.pay(amount, f"list-{account}-{n}", source=account, to=to)
    done = {one.json["id"] for one in told.values() if one.status == 201}
    assert len(done) == 8
    rest.settle()
    listed = [one["id"] for one in pages(rest, f"account={account}")]
    assert len(listed) == len(set(listed)) == 9, "with the first deposit"
    assert done < set(listed)
    everything = [one["id"] for one in pages(rest, "")]
    assert len(everything) == len(set(everything))
    assert set(listed) < set(everything)
    refused = [one for one in pages(rest, "status=aborted") if one["from"] == account]
    assert [one["refusal"]["code"] for one in refused] == ["insufficient_funds"] * 4
    assert list(pages(rest, "status=pending")) == []
    assert {one["id"] for one in pages(rest, "branch=Delhi&status=committed")} >= {
        told[f"list-{account}-{n}"].json["id"] for n in (2, 4, 8, 10)
    }
    assert list(pages(rest, "to=2001-01-01")) == []


def test_bulk_pays_each_line_once(rest: Rest, account: str) -> None:
    lines: list[dict[str, Any]] = [{"from": account, "to": "Delhi/1002", "amount": "1"} for _ in range(20)]
    lines[3]["amount"] = "1000"
    lines[5]["key"] = "my-own"
    first = rest.post("/v1/transfers/bulk", lines, key=f"bulk-{account}")
    assert first.status == 200
    assert [one["line"] for one in first.json] == list(range(1, 21))
    assert [one["status"] for one in first.json] == [422 if n == 3 else 201 for n in range(20)]
    rest.settle()
    again = rest.post("/v1/transfers/bulk", lines, key=f"bulk-{account}")
    assert all(one["replayed"] for one in again.json)
    assert [one["transfer"] and one["transfer"]["id"] for one in again.json] == [
        one["transfer"] and one["transfer"]["id"] for one in first.json
    ]
    assert rest.balance(account) == "81.00"
    alone = rest.pay("1", "my-own", source=account)
    assert (alone.is_replayed, alone.json["id"]) == (True, first.json[5]["transfer"]["id"])

    ndjson = {"Content-Type": "application/x-ndjson"}
    body = b"".join(json.dumps(line).encode() + b"\n" for line in lines[:2]) + b"\nnonsense\n{}\n"
    told = rest.post("/v1/transfers/bulk", body=body, key=f"lines-{account}", headers=ndjson)
    assert told.headers["content-type"] == "application/x-ndjson"
    found = [json.loads(line) for line in told.body.splitlines()]
    assert [one["status"] for one in found] == [201, 201, 400, 400]
    assert rest.balance(account) == "79.00"

    broken = rest.post("/v1/transfers/bulk", [*lines, {"from": account}], key=f"broken-{account}")
    assert broken.code == "malformed", "of an array nothing is sent unless all of it is sound"
    assert rest.balance(account) == "79.00"
    for bad in (b"[]", b"{}", b"[1]"):
        assert rest.post("/v1/transfers/bulk", body=bad, key="x").code == "malformed"
    assert rest.post("/v1/transfers/bulk", body=b"x\n" * 10_001, key="x", headers=ndjson).code == "malformed"


def test_a_cancelled_id_never_happens(rest: Rest, account: str) -> None:
    first = rest.pay("1", f"cancel-{account}", source=account)
    rest.settle()
    late = rest.post(f"/v1/transfers/{first.json['id']}/cancel")
    assert (late.status, late.json["status"]) == (200, "committed")
    never = "01a206e4-6535-7290-a6cf-0000000000" + f"{int(account.partition('/')[2]) % 256:02x}"
    for _ in range(2):
        told = rest.post(f"/v1/transfers/{never}/cancel")
        assert (told.status, told.json["status"], told.json["refusal"]["code"]) == (200, "aborted", "cancelled")


def test_the_cluster_and_its_figures(rest: Rest, account: str) -> None:
    assert rest.pay("1", f"figures-{account}", source=account).status == 201
    cluster = rest.get("/v1/cluster").json
    assert (cluster["name"], cluster["tokens_demanded"]) == ("test", False)
    assert [(actor["role"], actor["up"]) for actor in cluster["actors"]] == [
        ("coordinator", True),
        ("branch", True),
        ("branch", True),
    ]
    assert [branch["name"] for branch in rest.get("/v1/branches").json["branches"]] == ["Delhi", "Mumbai"]
    assert rest.get("/v1/in-doubt").json == {"in_doubt": [], "missing": []}
    assert rest.get("/readyz").json == {"status": "ok", "down": {}}

    def figures() -> dict[str, float]:
        text = rest.get("/metrics").body.decode()
        return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in text.splitlines() if line[0] != "#"}

    def is_counted() -> bool:
        return figures().get('zbank_apply_seconds_count{name="coordinator",role="coordinator"}', 0) >= 2

    wait_until(is_counted, what="the acks are counted")
    found = figures()
    assert found['zbank_transfers_total{name="coordinator",outcome="committed",scope="between branches"}'] >= 1
    assert found['zbank_transfers_total{name="Mumbai",outcome="committed",scope="local"}'] >= 1
    assert found['zbank_up{name="Delhi",role="branch"}'] == 1
    assert found['zbank_books_minor{name="Mumbai",role="branch"}'] == 0
    assert found['zbank_journal_bytes{name="Mumbai",role="branch"}'] > 10_000
    assert found['zbank_in_doubt{age="over 10 min",name="Mumbai"}'] == 0
    assert found['zbank_unposted_rows{name="Mumbai",role="branch"}'] >= 0
    for phase in ("vote", "decide", "apply"):
        assert found[f'zbank_{phase}_seconds_bucket{{le="+Inf",name="coordinator",role="coordinator"}}'] >= 1
    assert found['zbank_http_requests_total{method="POST",route="/v1/transfers",status="201"}'] >= 1
