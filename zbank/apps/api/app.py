"""The Flask app: makes a blueprint of each file of views, and wraps each view in what all of them need."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable
from functools import partial

from flask import Blueprint, Flask, Request, Response, request
from werkzeug.exceptions import HTTPException
from werkzeug.routing import BaseConverter

from zbank import Client
from zbank.apps.api.bridge import Bridge, RestSettings
from zbank.apps.api.endpoint import REQUIRED, Ask, Endpoint, Reply, Routes, encode_json
from zbank.apps.api.openapi import PATH_PARTS, PROBLEM_JSON, document
from zbank.apps.api.problems import INTERNAL, MALFORMED, NOT_FOUND, STATUSES, Problem, problem_of
from zbank.apps.api.reading import read_body, read_key, read_query
from zbank.apps.api.views import accounts, bulk, cluster, docs, drills, events, replicas, service, simple, transfers
from zbank.errors import ZbankError
from zbank.ids import format_id, new_id

ALL_ROUTES: tuple[Routes, ...] = (
    simple.routes,
    transfers.routes,
    bulk.routes,
    accounts.routes,
    cluster.routes,
    replicas.routes,
    events.routes,
    drills.routes,
    service.routes,
)

HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cache-Control": "no-store",
}
REQUEST_ID = "X-Request-ID"
REQUEST_ID_PATTERN = re.compile(r"[A-Za-z0-9._-]{1,64}", re.ASCII)
#: what Werkzeug raises by itself, by status
CODES_BY_STATUS = {
    400: MALFORMED,
    404: NOT_FOUND,
    405: "method_not_allowed",
    406: "not_acceptable",
    408: "request_timeout",
    413: "body_too_large",
    415: "unsupported_media_type",
    431: "header_too_large",
}

log = logging.getLogger("zbank.rest")


def create_app(bank: Client, settings: RestSettings) -> tuple[Flask, Bridge]:
    """The app, and what its requests share: close that when the app has served."""
    bridge = Bridge(bank, settings)
    app = Flask("zbank", static_folder=None)
    app.url_map.merge_slashes = False  # a path is what is declared: nothing is redirected
    app.url_map.strict_slashes = True
    app.url_map.converters.update({name: _converter(pattern) for name, (pattern, *_) in PATH_PARTS.items()})
    endpoints: list[Endpoint] = []
    for n, routes in enumerate(ALL_ROUTES):
        blueprint = Blueprint(f"{routes.tag}-{n}", __name__)
        for endpoint in routes.endpoints:
            blueprint.add_url_rule(
                re.sub(r"<(\w+)>", r"<\1:\1>", endpoint.path),
                endpoint.name,
                _served(bridge, endpoint),
                methods=[endpoint.method],
                provide_automatic_options=False,
            )
        app.register_blueprint(blueprint)
        endpoints += routes.endpoints
    app.register_blueprint(docs.make_blueprint(document(endpoints)))
    app.register_error_handler(Exception, _on_error)
    app.before_request(partial(_check_host, bridge))
    app.after_request(_finish)
    return app, bridge


def _check_host(bridge: Bridge) -> Response | None:
    """Before anything else: is it we who are meant?"""
    try:
        bridge.check_host(request.host)
    except Problem as problem:
        return problem_response(problem)
    return None


def _converter(pattern: str) -> type[BaseConverter]:
    """What a part of a path can be: anything else is another address, where nothing is."""
    return type("Part", (BaseConverter,), {"regex": pattern.removeprefix("^").removesuffix("$")})


def _served(bridge: Bridge, endpoint: Endpoint) -> Callable[..., Response]:
    """The view with its checks before it and its figures around it."""

    def serve(**parts: str) -> Response:
        begun_s = time.monotonic()
        status = 500
        request_id = _request_id(request)
        with bridge.metrics.in_flight.track_inprogress():
            try:
                answer = endpoint.view(_ask(bridge, endpoint, request, request_id), **parts)
                response = answer.response() if isinstance(answer, Reply) else answer
                status = response.status_code
            except (Problem, ZbankError) as error:
                problem = error if isinstance(error, Problem) else problem_of(error, in_url=endpoint.names_in_url)
                response = problem_response(problem)
                status = problem.status
            finally:
                took_s = time.monotonic() - begun_s
                bridge.metrics.answered(endpoint.method, endpoint.path, status, took_s)
                log.debug(
                    "%s %s answered %d in %.1f ms",
                    request.method,
                    request.path,
                    status,
                    took_s * 1000,
                    extra={"request_id": request_id},
                )
        response.headers[REQUEST_ID] = request_id
        return response

    return serve


def _request_id(given: Request) -> str:
    """What names this request in all logs: what the caller gave, or a fresh one."""
    told = given.headers.get(REQUEST_ID, "")
    return told if REQUEST_ID_PATTERN.fullmatch(told) else format_id(new_id())


def _ask(bridge: Bridge, endpoint: Endpoint, given: Request, request_id: str) -> Ask:
    """Let in and check: first who asks, then what. Raises Problem."""
    principal = bridge.admit(given, endpoint.act)
    query = read_query(given, endpoint.query)
    key = read_key(given, is_required=endpoint.key == REQUIRED) if endpoint.key else ""
    body = read_body(given, endpoint.body) if endpoint.body is not None else None
    return Ask(bridge, given, principal, body, query, key, request_id)


def problem_response(problem: Problem) -> Response:
    """The answer that tells a problem."""
    response = Response(encode_json(problem.to_json()), problem.status, content_type=PROBLEM_JSON)
    if problem.retry_after_s:
        response.headers["Retry-After"] = str(problem.retry_after_s)
    if problem.status == 401:
        response.headers["WWW-Authenticate"] = 'Bearer realm="zbank"'
    if problem.replayed:
        response.headers["Idempotency-Replayed"] = "true"
    return response


def _on_error(error: Exception) -> Response:
    """What is raised outside of a view, or by mistake: never a trace of it leaves."""
    if isinstance(error, HTTPException) and error.code is not None and error.code < 500:
        code = CODES_BY_STATUS.get(error.code, MALFORMED)
        response = problem_response(Problem(code, _plain(error), status=STATUSES[code]))
        for name, value in error.get_headers():
            if name == "Allow":
                response.headers[name] = value
        return response
    log.error("%s %s failed", request.method, request.path, exc_info=error)
    return problem_response(Problem(INTERNAL, "the bridge erred: it is in its log; the same key may be sent again"))


def _plain(error: HTTPException) -> str:
    if error.code == 404:
        return "there is nothing at this address: /docs shows what there is"
    if error.code == 405:
        return "this address does not take this method: /docs shows what it takes"
    return str(error.description or error.name)


def _finish(response: Response) -> Response:
    for name, value in HEADERS.items():
        response.headers.setdefault(name, value)
    if request.is_secure:
        response.headers["Strict-Transport-Security"] = "max-age=31536000"
    return response


