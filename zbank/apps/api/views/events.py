"""Events as they happen, by server-sent events (https://html.spec.whatwg.org/multipage/server-sent-events.html)."""

from __future__ import annotations

import time
from collections.abc import Iterator

from flask import Response

from zbank.apps.api.access import SEE
from zbank.apps.api.endpoint import Answer, Ask, Routes, encode_json
from zbank.apps.api.feed import POLL_S, Sight, event_json, positions_from, told
from zbank.apps.api.problems import MALFORMED, TOO_MANY, Problem, problem_of
from zbank.apps.api.queries import EventsQuery
from zbank.apps.api.shown_watch import EventShown
from zbank.errors import ZbankError

routes = Routes("events")

BEAT_S = 10.0  #: a comment at least so often: who is gone is noticed
RETRY_MS = 1_000  #: after which a browser that lost the stream connects again


@routes.add(
    "GET",
    "/v1/events",
    act=SEE,
    answers=[
        Answer(
            200,
            "A stream that does not end: `event` is the kind, `data` an Event, `id` the place to go on from.",
            content={
                "text/event-stream": {
                    "schema": {"type": "string", "description": "Each `data:` line is an Event object."},
                    "example": "id: *:4,Delhi:9,Mumbai:9\nevent: decision\ndata: {…}\n\n",
                }
            },
        )
    ],
    problems=[TOO_MANY],
    query=EventsQuery,
)
def stream_events(ask: Ask) -> Response:
    """Committed and aborted transfers, and each step of two-phase commit: begin, vote, decision, applied, released.

    They come from the actors' journals, so each was forced to a disk. With `Last-Event-ID` the stream goes on after that
    event and leaves none out (the last may come again); without it it begins now. A customer sees transfers of the own
    accounts.
    """
    feed = ask.bridge.feed
    last = ask.request.headers.get("Last-Event-ID")
    positions = None if last is None else positions_from(last)
    if last is not None and positions is None:
        raise Problem(MALFORMED, "Last-Event-ID: this is no event of this bank")
    if not ask.bridge.streams.acquire(blocking=False):
        most = ask.bridge.settings.max_streams
        raise Problem(TOO_MANY, f"{most} event streams are open already: close one, or try again later", retry_after_s=10)
    try:
        start = feed.now() if positions is None else positions
    except ZbankError as error:
        ask.bridge.streams.release()
        raise problem_of(error) from error
    ask.bridge.metrics.streams.inc()
    response = Response(_stream(ask, start), content_type="text/event-stream; charset=utf-8")
    response.headers["X-Accel-Buffering"] = "no"  # nginx would hold events back

    def closed() -> None:
        ask.bridge.metrics.streams.dec()
        ask.bridge.streams.release()

    response.call_on_close(closed)
    return response


def _stream(ask: Ask, positions: dict[str, int]) -> Iterator[bytes]:
    bridge = ask.bridge
    sight = Sight(ask.principal)
    kind = ask.query.kind
    yield f"retry: {RETRY_MS}\n: begin\n\n".encode()
    said_s = time.monotonic()
    while not bridge.stopping.is_set():
        try:
            batch = bridge.feed.since(positions)
        except ZbankError as error:
            yield f": {error.detail!r}\n\n".encode()
            if bridge.stopping.wait(RETRY_MS / 1000):
                return
            continue
        for place, actor, event in told(batch, positions):
            if sight.sees(event) and kind in (None, event.kind):
                data = encode_json(event_json(actor, event)).decode()
                yield f"id: {place}\nevent: {event.kind}\ndata: {data}\n\n".encode()
                said_s = time.monotonic()
        positions = batch.positions
        if not batch.is_last:
            continue
        if time.monotonic() - said_s > BEAT_S:
            said_s = time.monotonic()
            yield b": beat\n\n"
        bridge.stopping.wait(POLL_S)


EVENT_MODEL = EventShown  #: part of the document, though no JSON body is one
