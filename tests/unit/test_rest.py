"""The parts of the REST bridge that need no bank: strict reading, problems, cursors, roles, events, figures."""

from __future__ import annotations

import ast
import json
import re
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from zbank import errors
from zbank.apps.api import app as app_module
from zbank.apps.api.access import ALL, ANYBODY, MAY, Principal
from zbank.apps.api.feed import Sight, event_json, positions_from, positions_text, told
from zbank.apps.api.given import MovementGiven, PairGiven
from zbank.apps.api.metrics import ActorFigures, _counts, _replicas, _states
from zbank.apps.api.openapi import document, problem_codes
from zbank.apps.api.paging import cursor_from, cursor_text
from zbank.apps.api.problems import KINDS, STATUSES, Problem, problem_of
from zbank.apps.api.reading import read_json
from zbank.apps.api.views import docs
from zbank.apps.api.views.accounts import entries_csv
from zbank.domain.legs import Leg
from zbank.domain.money import currency, parse_amount
from zbank.domain.refusal import CODES
from zbank.errors import InvalidAmount, InvalidInput, NoAnswer, Refused, RemoteFault, Unreachable, ZbankError
from zbank.protocol.figures import Figures
from zbank.protocol.messages import COORDINATOR, NEVER_US, TELLER, Event, InDoubt, ReplicaInfo, StatusInfo, Txn
from zbank.protocol.records import Executed
from zbank.protocol.tokens import CUSTOMER, ROLES
from zbank.transport.client_watch import EventBatch
from zbank.transport.views import ActorDown, EntryView

API = Path(app_module.__file__).parent
INR = currency("INR")
ENDPOINTS = [endpoint for routes in app_module.ALL_ROUTES for endpoint in routes.endpoints]
LEGS = (Leg("Mumbai", "1001", -100), Leg("Delhi", "1002", 100))

numbers = st.from_regex(r"-?(0|[1-9][0-9]{0,30})(\.[0-9]{1,30})?([eE][+-]?[0-9]{1,3})?", fullmatch=True)


@given(numbers)
def test_a_json_number_is_read_as_it_is_written(text: str) -> None:
    found = read_json(f'{{"amount": {text}}}'.encode())["amount"]
    assert isinstance(found, int | Decimal)
    assert Decimal(found) == Decimal(text)


plain = st.none() | st.booleans() | st.integers() | st.text()


@given(st.recursive(plain, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)))
def test_any_json_is_read_back(value: Any) -> None:
    assert read_json(json.dumps(value).encode()) == value


@given(st.binary(max_size=200))
def test_whatever_comes_it_is_json_or_malformed(body: bytes) -> None:
    problem: Problem | None = None
    try:
        read_json(body)
    except Problem as found:
        problem = found
    assert problem is None or (problem.code, problem.status, problem.detail.isprintable()) == ("malformed", 400, True)


@given(st.text("0123456789.-+eE, _'", max_size=12) | numbers)
def test_what_the_schema_takes_for_an_amount_is_one_for_the_domain_or_only_too_fine_or_large(text: str) -> None:
    try:
        taken = MovementGiven.model_validate({"account": "Mumbai/1001", "amount": text}).amount
    except ValidationError:
        with pytest.raises(InvalidAmount):
            parse_amount(text, INR)
        return
    assert taken == text
    why = ""
    try:
        parse_amount(text, INR)
    except InvalidAmount as error:
        why = str(error)
    assert not why or any(reason in why for reason in ("too precise", "too large", "is zero"))


@pytest.mark.parametrize("value", [True, 1.5, None, [], {}, float("nan"), "1\n", "\u0661"])
def test_what_is_no_amount(value: Any) -> None:
    with pytest.raises(ValidationError):
        PairGiven.model_validate({"from": "Mumbai/1", "to": "Delhi/1", "amount": value})


def test_every_code_has_a_status_and_an_example() -> None:
    assert set(STATUSES) >= CODES
    raised = {
        node.args[0].value
        for file in API.rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text("utf-8")))
        if isinstance(node, ast.Call)
        and getattr(node.func, "id", "") == "Problem"
        and isinstance(node.args[0], ast.Constant)
    }
    assert raised
    assert raised <= set(STATUSES)
    for code, (status, example) in KINDS.items():
        assert 400 <= status < 600, code
        assert example[0].islower() or example[0] in "'\"" or example.startswith(("Mumbai", "Delhi")), code
    for endpoint in ENDPOINTS:
        assert all(code in STATUSES for codes in problem_codes(endpoint).values() for code in codes)


@pytest.mark.parametrize(
    ("error", "in_url", "status", "code"),
    [
        (Refused("account_exists", "x"), False, 422, "account_exists"),
        (Refused("account_not_found", "x"), True, 404, "account_not_found"),
        (RemoteFault("account_not_found", "x"), False, 422, "account_not_found"),
        (RemoteFault("busy", "x", 2500), False, 503, "busy"),
        (RemoteFault("malformed", "x"), False, 422, "invalid_request"),
        (RemoteFault("something_new", "x"), False, 503, "unavailable"),
        (InvalidInput("x"), False, 422, "invalid_request"),
        (InvalidAmount("x"), False, 422, "invalid_amount"),
        (Unreachable("x"), False, 503, "branch_unavailable"),
        (NoAnswer("x"), False, 503, "branch_unavailable"),
        (errors.ClientClosed("x"), False, 503, "unavailable"),
    ],
)
def test_errors_of_ours_become_problems(error: ZbankError, in_url: bool, status: int, code: str) -> None:
    problem = problem_of(error, in_url=in_url)
    assert (problem.status, problem.code) == (status, code)
    assert (problem.retry_after_s > 0) == (status == 503)
    assert problem_of(RemoteFault("busy", "x", 2500)).retry_after_s == 3


def test_a_bug_leaves_no_trace_outside() -> None:
    app = Flask("broken")
    app.register_error_handler(Exception, app_module._on_error)
    app.after_request(app_module._finish)

    @app.get("/")
    def broken() -> str:
        raise KeyError("secret of the house")

    answer = app.test_client().get("/")
    assert (answer.status_code, answer.json and answer.json["code"]) == (500, "internal_error")
    assert b"secret" not in answer.data
    assert b"KeyError" not in answer.data
    assert app.test_client().get("/none").content_type == "application/problem+json"


@given(st.text(max_size=60).map(lambda text: text.encode("ascii", "ignore").decode()))
def test_cursors_come_back(cursor: str) -> None:
    shown = cursor_text(cursor)
    assert (shown is None) == (not cursor)
    assert cursor_from(shown or "") == cursor


def test_roles() -> None:
    assert set(MAY) == set(ROLES)
    assert all(acts <= ALL for acts in MAY.values())
    assert {endpoint.act for endpoint in ENDPOINTS} <= ALL | {None}
    customer = Principal("asha", CUSTOMER, frozenset({"Mumbai/1001"}))
    assert customer.owns("Mumbai/1001")
    assert not customer.owns("Mumbai/1002")
    assert not customer.owns_any([])
    assert customer.why_not_pay([("Mumbai/1001", True), ("Delhi/9", False)]) == ""
    assert "Delhi/9" in customer.why_not_pay([("Delhi/9", True), ("Mumbai/1001", False)])
    assert "Delhi/cash" in customer.why_not_pay([("Mumbai/1001", True), ("Delhi/cash", False)])
    assert ANYBODY.why_not_pay([("Delhi/cash", True)]) == ""
    teller = Principal("till", TELLER)
    assert teller.why_not_pay([("Delhi/cash", True)]) == ""
    assert "settled by an operator" in teller.why_not_pay([("Delhi/cash", True), ("Delhi/suspense", False)])
    assert ANYBODY.why_not_pay([("Delhi/suspense", True)]) == ""


#: what these do is done once by its nature
WITHOUT_KEY = ("/cancel", "/inquire", "/promotion", "/play", "/play/next", "/play/end")


def test_the_document_has_every_endpoint_with_all_its_answers() -> None:
    found = document(ENDPOINTS)
    names = [operation["operationId"] for path in found["paths"].values() for operation in path.values()]
    assert len(names) == len(set(names)) == len(ENDPOINTS)
    for path, methods in found["paths"].items():
        for method, operation in methods.items():
            assert operation["summary"].endswith((".", "?")), (path, method)
            assert any(status.startswith("2") for status in operation["responses"])
            for answer in operation["responses"].values():
                assert answer["content"], (path, method)
            if method in ("post", "patch") and path.startswith("/v1/") and not path.endswith(WITHOUT_KEY):
                keys = [one for one in operation["parameters"] if one["name"] == "Idempotency-Key"]
                assert keys[0]["required"], (path, method)
    text = json.dumps(found)
    references = {part.split('"')[0] for part in text.split("#/components/schemas/")[1:]}
    assert references <= set(found["components"]["schemas"])


def test_every_answer_is_shown_by_an_example_that_fits() -> None:
    models: list[Any] = [one.model for endpoint in ENDPOINTS for one in endpoint.answers if isinstance(one.model, type)]
    assert len(models) > 20
    for model in models:
        (example,) = model.model_config["json_schema_extra"]["examples"]
        model.model_validate(example)


def test_the_page_loads_nothing_from_elsewhere() -> None:
    assert set(re.findall(r'(?:src|href)="([^"]+)"', docs.PAGE)) <= {f"/docs/{name}" for name in (*docs.ASSETS, "begin.js")}
    assert "//" not in docs.PAGE + docs.BEGIN


def event(seq: int, kind: str = "vote", **more: Any) -> Event:
    return Event(seq, 1_000 + seq, kind, bytes(16), **more)


@given(st.lists(st.tuples(st.sampled_from(["*", "Delhi", "Mumbai"]), st.booleans()), max_size=12))
def test_whoever_goes_on_after_any_event_misses_none(rows: list[tuple[str, bool]]) -> None:
    """A row may tell two events. After any of them: all later ones come, and at most the one of its row before again."""
    seqs = dict.fromkeys(["*", "Delhi", "Mumbai"], 0)
    events: list[tuple[str, Event]] = []
    for actor, is_double in rows:
        seqs[actor] += 1
        events += [(actor, event(seqs[actor], kind)) for kind in (("begin", "vote") if is_double else ("vote",))]
    begin = dict.fromkeys(seqs, 0)
    shown = list(told(EventBatch(events, seqs, True, []), begin))
    assert [(actor, one) for _, actor, one in shown] == events
    for n, (place, _, _) in enumerate(shown):
        positions = positions_from(place)
        assert positions is not None
        assert positions_text(positions) == place
        later = [(actor, one) for actor, one in events if one.seq > positions[actor]]
        assert later[-len(events[n + 1 :]) :] == events[n + 1 :] or not events[n + 1 :]
        assert len(later) - len(events[n + 1 :]) <= 1


@pytest.mark.parametrize("text", ["", "x", "*", "*:", "*:x", "*:1,", "*:-2", "Mumbai:1;Delhi:2", "*:9" + "9" * 18, "*:1\n"])
def test_what_is_no_place(text: str) -> None:
    assert positions_from(text) is None


def test_a_customer_sees_what_touches_an_own_account() -> None:
    sight = Sight(Principal("ravi", CUSTOMER, frozenset({"Delhi/1002"})))
    assert not sight.sees(event(1, "applied")), "of whom nothing was told before"
    assert sight.sees(event(2, "begin", legs=LEGS, currency="INR"))
    assert sight.sees(event(3, "applied"))
    assert not Sight(Principal("x", CUSTOMER, frozenset({"Pune/1"}))).sees(event(2, "begin", legs=LEGS))
    shown = event_json("*", event(2, "decision", legs=LEGS, currency="INR", txn=Txn("coordinator", 1, 2), number=7))
    assert (shown["actor"], shown["txn"], shown["legs"][0]["amount"]) == ("coordinator", "coordinator-1-2", "-1.00")


def test_no_cell_is_a_formula() -> None:
    def entry(memo: str) -> EntryView:
        return EntryView("id", 0, "", "-1.00", "9.00", "INR", memo, ("Mumbai/cash",), 1)

    lines = entries_csv([entry(memo) for memo in ("=1+1", "+1", "-1", "@x", "\tx", "plain", 'a "b", c')]).splitlines()
    assert [line.split(",")[6] for line in lines[1:6]] == ["'=1+1", "'+1", "'-1", "'@x", "'\tx"]
    assert lines[6].split(",")[6] == "plain"
    assert '"a ""b"", c"' in lines[7]


def test_figures_of_actors_as_prometheus_has_them() -> None:
    figures = Figures()
    figures.turn(3)
    figures.force.add(700)
    content: Any = type("Content", (), {"legs": LEGS})()
    figures.row("executed", Executed(bytes(16), 0, content))
    doubts = (InDoubt(Txn("c", 1, 1), bytes(16), 5_000_000), InDoubt(Txn("c", 1, 2), bytes(16), 700_000_000))
    status = StatusInfo("branch", "Mumbai", "demo", bytes(16), 1, 9, 0, 5, 2, 0, 30, 4, 2, doubts, 100, ("a",), "0.1.0")
    found = {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in (*_counts([figures.info("branch", "Mumbai")]), *_states([status, ActorDown(COORDINATOR, "", "e", "r")]))
        for sample in family.samples
    }
    who = (("name", "Mumbai"), ("role", "branch"))
    assert found["zbank_messages_total", *who] == 3
    assert found["zbank_rows_total", ("kind", "executed"), *who] == 1
    assert found["zbank_transfers_total", ("name", "Mumbai"), ("outcome", "committed"), ("scope", "local")] == 1
    assert found["zbank_force_seconds_bucket", ("le", "0.0005"), *who] == 0
    assert found["zbank_force_seconds_bucket", ("le", "0.001"), *who] == 1
    assert found["zbank_force_seconds_bucket", ("le", "+Inf"), *who] == 1
    assert found["zbank_up", ("name", "coordinator"), ("role", "coordinator")] == 0
    assert found["zbank_in_doubt", ("age", "under 10 s"), ("name", "Mumbai")] == 1
    assert found["zbank_in_doubt", ("age", "over 10 min"), ("name", "Mumbai")] == 1
    assert found["zbank_unposted_rows", *who] == 4


def test_how_far_replicas_are_behind_becomes_metrics() -> None:
    level = ReplicaInfo("Mumbai-replica-1", "Mumbai", "tcp://127.0.0.1:9200", bytes(16), 3, 8712, 5, 420_000)
    never = ReplicaInfo("Mumbai-replica-2", "Mumbai", "tcp://127.0.0.1:9201", bytes(16), 0, 0, 8717, NEVER_US + 7)
    found = {
        (sample.name, sample.labels["name"]): sample.value
        for family in _replicas([level, never])
        for sample in family.samples
        if sample.labels["branch"] == "Mumbai"
    }
    assert found == {
        ("zbank_replica_position", "Mumbai-replica-1"): 8712,
        ("zbank_replica_behind_rows", "Mumbai-replica-1"): 5,
        ("zbank_replica_lag_seconds", "Mumbai-replica-1"): 0.42,
        ("zbank_replica_position", "Mumbai-replica-2"): 0,
        ("zbank_replica_behind_rows", "Mumbai-replica-2"): 8717,
        ("zbank_replica_lag_seconds", "Mumbai-replica-2"): float("inf"),
    }


def test_without_the_coordinator_nobody_is_asked_for_replicas() -> None:
    class Bank:
        def replicas(self) -> list[ReplicaInfo]:
            raise Unreachable("no answer from tcp://127.0.0.1:9000")

    figures = ActorFigures(Bank())  # type: ignore[arg-type]
    assert figures._ask_replicas([ActorDown(COORDINATOR, "", "e", "r")]) == []
    up = StatusInfo(COORDINATOR, "coordinator", "demo", bytes(16), 1, 9, 0, 5, 2, 0, 30, 4, 2, (), 100, (), "0.1.0")
    assert figures._ask_replicas([up]) == [], "it left meanwhile"
