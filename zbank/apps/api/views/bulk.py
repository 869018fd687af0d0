"""Many transfers in one request: a JSON array, or a line each (NDJSON), with a result a line."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from typing import Any

from flask import Response, stream_with_context

from zbank.apps.api.access import PAY
from zbank.apps.api.endpoint import REQUIRED, Answer, Ask, Reply, Routes, encode_json
from zbank.apps.api.given import BulkGiven, PairGiven
from zbank.apps.api.paying import check_may_pay, submit, told
from zbank.apps.api.problems import MALFORMED, Problem, problem_of
from zbank.apps.api.reading import adapter_of, checked, read_bytes, read_json
from zbank.apps.api.shown import BulkLineShown
from zbank.apps.api.views.accounts import REPLAYED
from zbank.errors import ZbankError
from zbank.ids import MAX_KEY_CHARS, id_from_key
from zbank.transport.views import TransferResult

routes = Routes("transfers")

MAX_LINES = 10_000
MAX_BULK_BYTES = 8 << 20
MAX_FLYING = 1_000  #: lines in the bank's hands at once
NDJSON = "application/x-ndjson"

LINE = adapter_of(BulkGiven)
LINES = adapter_of(list[Any])

_SCHEMA = {"$ref": "#/components/schemas/BulkGiven"}
_ARRAY = {"type": "array", "items": _SCHEMA, "minItems": 1, "maxItems": MAX_LINES}

Line = Problem | Future[TransferResult]


@routes.add(
    "POST",
    "/v1/transfers/bulk",
    act=PAY,
    body_content={
        "application/json": {"schema": _ARRAY},
        NDJSON: {"schema": {"type": "string", "description": "A transfer a line."}},
    },
    key=REQUIRED,
    answers=[
        Answer(
            200,
            "A result for each line, in order: a JSON array, or a line each as they were sent.",
            list[BulkLineShown],
            content={NDJSON: {"schema": {"type": "string", "description": "A BulkLineShown a line."}}},
        )
    ],
    problems=["body_too_large"],
)
def make_transfers(ask: Ask) -> Reply | Response:
    """Up to 10,000 transfers, each once and by itself: one that is refused stops no other.

    Each line has an id by its own `key`, or by the request's key and its number: the same request sent again moves nothing
    twice, and tells what became of each line. Of an array all lines are checked before the first is sent; of lines (NDJSON)
    each is by itself.
    """
    lines = _lines(ask)
    results = _results(ask, lines)
    if ask.request.mimetype == NDJSON:
        body = (encode_json(result) + b"\n" for result in results)
        return Response(stream_with_context(body), content_type=NDJSON)
    return Reply(list(results))


def _lines(ask: Ask) -> list[Any]:
    """What stands in each line, checked or JSON, or the Problem that it is none. Raises Problem when the whole is wrong."""
    body = read_bytes(ask.request, MAX_BULK_BYTES)
    if ask.request.mimetype == NDJSON:
        lines: list[Any] = [_json_or_problem(line) for line in body.split(b"\n") if line.strip()]
    elif ask.request.mimetype == "application/json":
        lines = checked(LINES, read_json(body), "body")
        if len(lines) <= MAX_LINES:
            lines = [checked(LINE, line, f"line {number}") for number, line in enumerate(lines, 1)]
    else:
        raise Problem("unsupported_media_type", f"send a JSON array (application/json), or a line each ({NDJSON})")
    if not 1 <= len(lines) <= MAX_LINES:
        raise Problem(MALFORMED, f"a bulk request has 1 to {MAX_LINES} lines, this one has {len(lines)}")
    return lines


def _json_or_problem(line: bytes) -> Any:
    try:
        return read_json(line)
    except Problem as problem:
        return problem


def _results(ask: Ask, lines: Iterable[Any]) -> Iterator[dict[str, Any]]:
    """Send the lines, at most MAX_FLYING ahead of the results, which come in order."""
    flying: deque[Line] = deque()
    done = 0
    for number, line in enumerate(lines, 1):
        if len(flying) >= MAX_FLYING:
            done += 1
            yield _result(done, flying.popleft())
        flying.append(_send(ask, number, line))
    while flying:
        done += 1
        yield _result(done, flying.popleft())


def _send(ask: Ask, number: int, line: Any) -> Line:
    try:
        if isinstance(line, Problem):
            raise line
        given: BulkGiven = line if isinstance(line, BulkGiven) else checked(LINE, line, f"line {number}")
        key = given.key or f"{ask.key}/{number}"
        if len(key) > MAX_KEY_CHARS:
            raise Problem(MALFORMED, f"line {number}: its key {key[:40]!r}… is longer than {MAX_KEY_CHARS} characters")
        pair = PairGiven.model_construct(**{name: getattr(given, name) for name in PairGiven.model_fields})
        check_may_pay(ask.principal, pair)
        return submit(ask.bank, pair, id_from_key(key, ask.principal.caller))
    except ZbankError as error:
        return problem_of(error)
    except Problem as problem:
        return problem


def _result(number: int, line: Line) -> dict[str, Any]:
    try:
        if isinstance(line, Problem):
            raise line
        reply = told(line.result())
        replayed = REPLAYED in reply.headers
        return {"line": number, "status": reply.status, "replayed": replayed, "transfer": reply.value, "problem": None}
    except ZbankError as error:
        problem = problem_of(error)
    except Problem as found:
        problem = found
    told_before = problem.replayed
    return {
        "line": number,
        "status": problem.status,
        "replayed": told_before,
        "transfer": None,
        "problem": problem.to_json(),
    }
