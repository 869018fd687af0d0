"""What comes in over HTTP, read strictly: exact JSON, no field twice, no unknown parameter, money never as a float."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any, NoReturn, TypeVar

from flask import Request
from pydantic import BaseModel, TypeAdapter, ValidationError

from zbank.apps.api.problems import KEY_MISSING, MALFORMED, Problem
from zbank.ids import MAX_KEY_CHARS

MAX_BODY_BYTES = 64 * 1024  #: of one request, but for bulk
MAX_PROBLEMS_TOLD = 5

Model = TypeVar("Model")


def read_json(body: bytes) -> Any:
    """The value of a JSON text (RFC 8259): numbers as int or Decimal, exactly. Raises Problem `malformed`."""
    try:
        return json.loads(
            body.decode("utf-8"),
            parse_float=Decimal,
            parse_constant=_refuse_constant,
            object_pairs_hook=_without_repeats,
        )
    except UnicodeDecodeError as error:
        raise Problem(MALFORMED, f"the body is not UTF-8 text (byte {error.start})") from error
    except RecursionError as error:
        raise Problem(MALFORMED, "the body is nested too deeply") from error
    except json.JSONDecodeError as error:
        raise Problem(MALFORMED, f"the body is not JSON: {error.msg} at line {error.lineno}, column {error.colno}") from error
    except ValueError as error:  # of the hooks; an integer of thousands of digits
        raise Problem(MALFORMED, f"the body is not JSON as it is taken here: {error}") from error


def read_body(request: Request, adapter: TypeAdapter[Model]) -> Model:
    """The body as it is declared. Raises Problem `malformed`, `unsupported_media_type`, `body_too_large`."""
    if request.mimetype != "application/json":
        raise Problem("unsupported_media_type", "send JSON, with the header Content-Type: application/json")
    return checked(adapter, read_json(read_bytes(request, MAX_BODY_BYTES)), "body")


def read_bytes(request: Request, most_bytes: int) -> bytes:
    """The whole body. Raises Problem `body_too_large`."""
    length = request.content_length
    if length is None or length <= most_bytes:
        body = request.stream.read(most_bytes + 1)
        if len(body) <= most_bytes:
            return body
    raise Problem("body_too_large", f"a body here has at most {most_bytes} bytes")


def read_query(request: Request, adapter: TypeAdapter[Model] | None) -> Model | None:
    """The parameters behind the `?`, each once and only those that are declared. Raises Problem `malformed`."""
    given: dict[str, str] = {}
    for name, values in request.args.lists():
        if len(values) > 1:
            raise Problem(MALFORMED, f"query: {name[:64]!r} is given {len(values)} times")
        given[name] = values[0]
    if adapter is None:
        if given:
            raise Problem(MALFORMED, f"query: there is no parameter {next(iter(given))[:64]!r} here")
        return None
    return checked(adapter, given, "query")


def read_key(request: Request, *, is_required: bool) -> str:
    """The Idempotency-Key; "" when there is none. Raises Problem `idempotency_key_missing` or `malformed`."""
    keys = request.headers.getlist("Idempotency-Key")
    if not keys and not is_required:
        return ""
    if not keys or not keys[0]:
        raise Problem(KEY_MISSING, "give an Idempotency-Key: a fresh text for each thing you want done, the same to ask again")
    if len(keys) > 1 or len(keys[0]) > MAX_KEY_CHARS or not all("!" <= char <= "~" for char in keys[0]):
        raise Problem(MALFORMED, f"an Idempotency-Key has 1 to {MAX_KEY_CHARS} visible ASCII characters")
    return keys[0]


def checked(adapter: TypeAdapter[Model], value: object, where: str) -> Model:
    """The value as it is declared. Raises Problem `malformed`, which names what is wrong and where."""
    try:
        return adapter.validate_python(value)
    except ValidationError as error:
        raise Problem(MALFORMED, _told(error.errors(include_url=False, include_input=False), where)) from error


def adapter_of(model: type[BaseModel] | Any) -> TypeAdapter[Any]:
    """What checks values of a declared type."""
    return TypeAdapter(model)


def _told(errors: Sequence[Mapping[str, Any]], where: str) -> str:
    lines: dict[str, None] = {}
    for error in errors:
        # Of a union pydantic names the branch that it tried: that is no part of the caller's document.
        path = [str(part) for part in error["loc"] if not str(part).endswith("Given") and "[" not in str(part)]
        text = str(error["msg"]).removeprefix("Value error, ")
        lines[f"{'.'.join([where, *path])}: {text}"] = None
    shown = list(lines)[:MAX_PROBLEMS_TOLD]
    return "; ".join(shown).encode("utf-8", "backslashreplace").decode()[:1000]


def _refuse_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is no JSON number")


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{twice[:64]!r} is given twice")
    return found
