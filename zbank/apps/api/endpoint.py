"""One declaration an endpoint: where it is, who may ask, what goes in and out. Routes, checks and the OpenAPI document are
all made of it, so that they cannot differ.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import msgspec
from flask import Request, Response
from pydantic import BaseModel, TypeAdapter

from zbank import Client
from zbank.apps.api.access import Principal
from zbank.apps.api.bridge import Bridge
from zbank.apps.api.reading import adapter_of
from zbank.ids import id_from_key

JSON = "application/json"

REQUIRED = "required"
OPTIONAL = "optional"

encode_json = msgspec.json.Encoder().encode


class Ask(NamedTuple):
    """A request that was let in and checked."""

    bridge: Bridge
    request: Request
    principal: Principal
    body: Any  #: as declared
    query: Any  #: as declared; None when nothing is
    key: str  #: the Idempotency-Key; "" = none
    request_id: str  #: names this request in all logs

    @property
    def bank(self) -> Client:
        """The bank, in the name of who asks."""
        return self.bridge.bank.on_behalf_of(self.principal.caller, self.request_id)

    @property
    def id(self) -> bytes | None:
        """The id that the key stands for, of this caller's; None without a key: a fresh one."""
        return id_from_key(self.key, self.principal.caller) if self.key else None


class Reply(NamedTuple):
    """An answer."""

    value: Any  #: becomes JSON, unless `content_type` says otherwise
    status: int = 200
    headers: Mapping[str, str] = {}
    content_type: str = JSON

    def response(self) -> Response:
        """As Flask sends it."""
        body = encode_json(self.value) if self.content_type == JSON else self.value
        response = Response(body, self.status, content_type=self.content_type)
        for name, value in self.headers.items():
            response.headers[name] = value
        return response


class Answer(NamedTuple):
    """One kind of success, for the document."""

    status: int
    description: str
    model: Any = None  #: of a JSON body
    headers: tuple[str, ...] = ()
    content: Mapping[str, Mapping[str, Any]] = {}  #: other content types: media type objects


View = Callable[..., "Reply | Response"]


class Endpoint(NamedTuple):
    """One method of one path."""

    method: str
    path: str  #: as in Flask: `/v1/branches/<branch>`
    view: View
    tag: str
    act: str | None  #: what the caller must be allowed to do; None = anybody may ask
    answers: tuple[Answer, ...]
    problems: tuple[str, ...]  #: codes, beside those that any endpoint has
    body: TypeAdapter[Any] | None  #: of a JSON body; None = there is none, or the view reads it
    body_content: Mapping[str, Mapping[str, Any]]  #: of a body that the view reads: media type objects
    query: TypeAdapter[Any] | None
    key: str  #: REQUIRED, OPTIONAL or ""

    @property
    def name(self) -> str:
        """Unique, and the operationId."""
        return self.view.__name__

    @property
    def names_in_url(self) -> bool:
        """What is not found stands in the URL: then it is 404. In a body, or in what is searched for, it is a refusal, 422."""
        return "<branch>" in self.path or self.path == "/list_accounts"

    @property
    def summary(self) -> str:
        """The first sentence of the view's docstring."""
        return (self.view.__doc__ or "").strip().split("\n\n")[0].replace("\n    ", " ")

    @property
    def description(self) -> str:
        """The rest of it."""
        rest = (self.view.__doc__ or "").strip().split("\n\n")[1:]
        return "\n\n".join(part.replace("\n    ", " ").strip() for part in rest)


class Routes:
    """The endpoints of one file; `app.create_app` makes a blueprint of them."""

    def __init__(self, tag: str) -> None:
        self.tag = tag
        self.endpoints: list[Endpoint] = []

    def add(
        self,
        method: str,
        path: str,
        *,
        act: str | None,
        answers: Iterable[Answer],
        problems: Iterable[str] = (),
        body: type[BaseModel] | Any = None,
        body_content: Mapping[str, Mapping[str, Any]] | None = None,
        query: type[BaseModel] | None = None,
        key: str = "",
    ) -> Callable[[View], View]:
        """Declare the view that follows."""

        def declare(view: View) -> View:
            self.endpoints.append(
                Endpoint(
                    method,
                    path,
                    view,
                    self.tag,
                    act,
                    tuple(answers),
                    tuple(problems),
                    None if body is None else adapter_of(body),
                    body_content or {},
                    None if query is None else adapter_of(query),
                    key,
                )
            )
            return view

        return declare
