"""The OpenAPI 3.1 document, made of the same declarations that route and check (https://spec.openapis.org/oas/v3.1.0)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

from pydantic import TypeAdapter

from zbank import __version__
from zbank.apps.api.access import MAY
from zbank.apps.api.endpoint import JSON, OPTIONAL, REQUIRED, Answer, Endpoint
from zbank.apps.api.given import (
    BRANCH_PATTERN,
    DRILL_PATTERN,
    ID_PATTERN,
    KEY_PATTERN,
    NUMBER_PATTERN,
    REPLICA_PATTERN,
    TXN_PATTERN,
    BulkGiven,
)
from zbank.apps.api.problems import KINDS, STATUSES, problem_json
from zbank.apps.api.reading import adapter_of
from zbank.apps.api.shown import ProblemShown
from zbank.apps.api.shown_watch import EventShown

PROBLEM_JSON = "application/problem+json"

#: by name of a part of a path: (pattern, what it is, an example)
PATH_PARTS = {
    "branch": (BRANCH_PATTERN, "A branch.", "Mumbai"),
    "number": (NUMBER_PATTERN, "An account's number within its branch.", "1001"),
    "replica": (REPLICA_PATTERN, "A replica.", "Mumbai-replica"),
    "drill": (DRILL_PATTERN, "A drill.", "all-goes-well"),
    "txn": (TXN_PATTERN, "A two-phase commit.", "coordinator-2-17"),
    "id": (ID_PATTERN, "The id of a transfer.", "01a206e4-6535-7290-a6cf-c388bb3b8b1c"),
}
HEADERS = {
    "Location": "Where it can be looked at.",
    "Idempotency-Replayed": "`true` when an earlier request with this key had done it already.",
    "X-Next-Cursor": "`cursor` of the next page; missing after the last.",
}
IN_URL = ("account_not_found", "branch_not_found")  # 404 there, 422 in a body

ABOUT = """A distributed bank over HTTP. Amounts are decimals, exactly as they are written; answers give them as text.

Every write takes an `Idempotency-Key`: a fresh text for each thing you want done, and the same one to ask again. Whatever \
gets lost on the way, the same key never moves money twice, and is told the same outcome. `201` is done, `422` is a no for \
good, `202` and `503` are no outcome: ask again with the same key."""

Json = dict[str, Any]


def document(endpoints: Iterable[Endpoint]) -> Json:
    """The whole document."""
    endpoints = list(endpoints)
    schemas = _Schemas(endpoints)
    paths: dict[str, Json] = {}
    for endpoint in endpoints:
        path = re.sub(r"<(\w+)>", r"{\1}", endpoint.path)
        paths.setdefault(path, {})[endpoint.method.lower()] = _operation(endpoint, schemas)
    return {
        "openapi": "3.1.0",
        "info": {"title": "zbank", "version": __version__, "description": ABOUT, "license": {"name": "MIT"}},
        "paths": paths,
        "components": {
            "schemas": schemas.definitions,
            "securitySchemes": {
                "token": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "From `zbank tokens make`. The demo on this machine asks for none until one is made.",
                }
            },
        },
        "tags": [{"name": tag} for tag in dict.fromkeys(endpoint.tag for endpoint in endpoints)],
    }


class _Schemas:
    """The schemas of all models, each once; `of` gives the schema of a declared type."""

    def __init__(self, endpoints: Sequence[Endpoint]) -> None:
        wanted: dict[int, tuple[TypeAdapter[Any], str]] = {}
        self._answers: dict[int, TypeAdapter[Any]] = {}
        for endpoint in endpoints:
            for adapter in (endpoint.body, endpoint.query):
                if adapter is not None:
                    wanted[id(adapter)] = (adapter, "validation")
            for answer in endpoint.answers:
                if answer.model is not None:
                    adapter = self._answers[id(answer)] = adapter_of(answer.model)
                    wanted[id(adapter)] = (adapter, "serialization")
        extra = [adapter_of(model) for model in (ProblemShown, EventShown, BulkGiven)]
        inputs = [(key, mode, adapter) for key, (adapter, mode) in wanted.items()]
        inputs += [(id(adapter), "serialization" if n < 2 else "validation", adapter) for n, adapter in enumerate(extra)]
        found, shared = TypeAdapter.json_schemas(inputs, ref_template="#/components/schemas/{model}")  # type: ignore[arg-type]
        self._by_key = {key: schema for (key, _), schema in found.items()}
        self.definitions: Json = shared["$defs"]
        for adapter, model in zip(extra, (ProblemShown, EventShown, BulkGiven), strict=True):
            self.definitions.setdefault(model.__name__, self._by_key[id(adapter)])

    def of(self, adapter: TypeAdapter[Any]) -> Json:
        """Of what comes in."""
        return self._by_key[id(adapter)]

    def of_answer(self, answer: Answer) -> Json:
        """Of what goes out."""
        return self._by_key[id(self._answers[id(answer)])]

    def resolved(self, adapter: TypeAdapter[Any]) -> Json:
        """The schema of a model itself, where `of` may give a reference to it."""
        schema = self.of(adapter)
        name = schema.get("$ref", "").rpartition("/")[2]
        return self.definitions[name] if name else schema


def _operation(endpoint: Endpoint, schemas: _Schemas) -> Json:
    operation: Json = {
        "operationId": endpoint.name,
        "summary": endpoint.summary,
        "tags": [endpoint.tag],
        "parameters": [*_path_parameters(endpoint), *_query_parameters(endpoint, schemas), *_header_parameters(endpoint)],
        "responses": {**_answers(endpoint, schemas), **_problems(endpoint)},
    }
    description = endpoint.description
    if endpoint.act is not None:
        roles = [role for role, acts in MAY.items() if endpoint.act in acts]
        description = f"{description}\n\nFor roles: {', '.join(roles)}.".strip()
        operation["security"] = [{"token": []}, {}]
    if description:
        operation["description"] = description
    content = {**({JSON: {"schema": schemas.of(endpoint.body)}} if endpoint.body else {}), **endpoint.body_content}
    if content:
        operation["requestBody"] = {"required": True, "content": content}
    return operation


def _path_parameters(endpoint: Endpoint) -> list[Json]:
    found = []
    for name in re.findall(r"<(\w+)>", endpoint.path):
        pattern, description, example = PATH_PARTS[name]
        schema = {"type": "string", "pattern": pattern, "examples": [example]}
        found.append({"name": name, "in": "path", "required": True, "description": description, "schema": schema})
    return found


def _query_parameters(endpoint: Endpoint, schemas: _Schemas) -> list[Json]:
    if endpoint.query is None:
        return []
    model = schemas.resolved(endpoint.query)
    required = model.get("required", [])
    return [
        {
            "name": name,
            "in": "query",
            "required": name in required,
            **({"description": schema["description"]} if "description" in schema else {}),
            "schema": _without_null(schema),
        }
        for name, schema in model["properties"].items()
    ]


def _without_null(schema: Json) -> Json:
    """A parameter that is not there is not null."""
    kinds = [kind for kind in schema.get("anyOf", ()) if kind.get("type") != "null"]
    rest = {key: value for key, value in schema.items() if key not in ("anyOf", "title", "default", "description")}
    if not kinds:
        return {key: value for key, value in schema.items() if key not in ("title", "description")}
    return {**rest, **kinds[0]} if len(kinds) == 1 else {**rest, "anyOf": kinds}


def _header_parameters(endpoint: Endpoint) -> list[Json]:
    if endpoint.key not in (REQUIRED, OPTIONAL):
        return []
    return [
        {
            "name": "Idempotency-Key",
            "in": "header",
            "required": endpoint.key == REQUIRED,
            "description": "A fresh text for each thing you want done, the same one to ask again. Yours alone: another "
            "caller's same key is another one.",
            "schema": {"type": "string", "pattern": KEY_PATTERN, "examples": ["rent-2026-06"]},
        }
    ]


def _answers(endpoint: Endpoint, schemas: _Schemas) -> Json:
    found: Json = {}
    for answer in endpoint.answers:
        content = {**({JSON: {"schema": schemas.of_answer(answer)}} if answer.model else {}), **answer.content}
        found[str(answer.status)] = {
            "description": answer.description,
            **(
                {"headers": {name: {"description": HEADERS[name], "schema": {"type": "string"}} for name in answer.headers}}
                if answer.headers
                else {}
            ),
            "content": content,
        }
    return found


def problem_codes(endpoint: Endpoint) -> dict[int, list[str]]:
    """All codes that an endpoint may answer, by status."""
    found: dict[int, list[str]] = {}

    def add(code: str, status: int | None = None) -> None:
        codes = found.setdefault(status or STATUSES[code], [])
        if code not in codes:
            codes.append(code)

    takes_body = endpoint.body is not None or endpoint.body_content
    add("malformed")
    if endpoint.key == REQUIRED:
        add("idempotency_key_missing")
    add("too_many_requests")
    if endpoint.act is not None:
        for code in ("unauthorized", "forbidden", "branch_unavailable", "busy", "unavailable"):
            add(code)
    if takes_body:
        for code in ("body_too_large", "unsupported_media_type"):
            add(code)
        if endpoint.key:
            add("storage_full")
    if "<" in endpoint.path:
        add("not_found")
    for code in endpoint.problems:
        add(code, 404 if code in IN_URL and endpoint.names_in_url else None)
    return found


def _problems(endpoint: Endpoint) -> Json:
    declared = {answer.status for answer in endpoint.answers}
    schema = {"$ref": "#/components/schemas/ProblemShown"}
    found: Json = {}
    for status, codes in sorted(problem_codes(endpoint).items()):
        if status in declared:
            continue
        examples = {code: {"value": problem_json(code, KINDS[code][1], status)} for code in codes}
        found[str(status)] = {
            "description": f"Codes: {', '.join(f'`{code}`' for code in codes)}.",
            "content": {PROBLEM_JSON: {"schema": schema, "examples": examples}},
            **({"headers": {"Retry-After": {"schema": {"type": "integer"}}}} if status in (429, 503) else {}),
        }
    return found
