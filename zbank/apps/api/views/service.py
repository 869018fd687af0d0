"""The bridge itself: is it alive, is the bank behind it, what does it count."""

from __future__ import annotations

from zbank.apps.api.access import WATCH
from zbank.apps.api.endpoint import Answer, Ask, Reply, Routes
from zbank.apps.api.metrics import CONTENT_TYPE
from zbank.apps.api.shown import HealthShown

routes = Routes("service")


@routes.add("GET", "/healthz", act=None, answers=[Answer(200, "The bridge is alive.", HealthShown)])
def healthz(ask: Ask) -> Reply:
    """Is the bridge alive? It asks nobody else."""
    return Reply({"status": "ok", "down": {}})


@routes.add(
    "GET",
    "/readyz",
    act=None,
    answers=[
        Answer(200, "The coordinator and all branches answer.", HealthShown),
        Answer(503, "Somebody does not, or has stopped: `down` says who and why.", HealthShown),
    ],
)
def readyz(ask: Ask) -> Reply:
    """Do the coordinator and all branches answer?"""
    down = ask.bridge.readiness()
    return Reply({"status": "not_ready" if down else "ok", "down": down}, 503 if down else 200)


@routes.add(
    "GET",
    "/metrics",
    act=WATCH,
    answers=[
        Answer(200, "Prometheus text format.", content={"text/plain": {"schema": {"type": "string"}, "example": "zbank_up 1"}})
    ],
)
def metrics(ask: Ask) -> Reply:
    """Figures of the bridge and of every actor, for Prometheus."""
    return Reply(ask.bridge.metrics.page(), content_type=CONTENT_TYPE)
