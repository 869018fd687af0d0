"""Prometheus figures: of HTTP, counted here; of the actors, asked of each over its own connection at every scrape.

https://prometheus.io/docs/instrumenting/exposition_formats/
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from math import inf

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from zbank import Client
from zbank.errors import ZbankError
from zbank.protocol.messages import BRANCH, COORDINATOR, FiguresInfo, ReplicaInfo, StatusInfo
from zbank.transport.views import ActorDown, lag_seconds

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
HTTP_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)

#: by name in an actor's figures: (metric, what it is)
HISTOGRAMS = {
    "force": ("zbank_force_seconds", "How long a commit to the disk takes"),
    "vote": ("zbank_vote_seconds", "Two-phase commit: from the request to each vote"),
    "decide": ("zbank_decide_seconds", "Two-phase commit: from the request to the decision"),
    "apply": ("zbank_apply_seconds", "Two-phase commit: from the decision to each ack"),
}
AGES_S = ((10, "under 10 s"), (60, "10 s to 1 min"), (600, "1 to 10 min"))
OLDER = "over 10 min"


class Metrics:
    """The figures of one bridge."""

    def __init__(self, bank: Client) -> None:
        self.registry = CollectorRegistry()
        disable_created_metrics()  # type: ignore[no-untyped-call]  # else each counter has a line more: since when
        self._children: dict[tuple[str, str, str], tuple[Counter, Histogram]] = {}
        self._requests = Counter(
            "zbank_http_requests", "HTTP requests", ("method", "route", "status"), registry=self.registry
        )
        self._seconds = Histogram(
            "zbank_http_request_seconds",
            "How long a request took",
            ("method", "route"),
            buckets=HTTP_BUCKETS_S,
            registry=self.registry,
        )
        self.in_flight = Gauge("zbank_http_in_flight", "HTTP requests that are being answered", registry=self.registry)
        self.streams = Gauge("zbank_http_event_streams", "Event streams that are open", registry=self.registry)
        outstanding = Gauge("zbank_client_outstanding", "Requests to the bank without an answer yet", registry=self.registry)
        outstanding.set_function(lambda: bank.outstanding)
        self.registry.register(ActorFigures(bank))

    def answered(self, method: str, route: str, status: int, took_s: float) -> None:
        """Count a request."""
        key = (method, route, str(status))
        children = self._children.get(key)  # finding them by their labels costs more than counting
        if children is None:
            children = self._requests.labels(*key), self._seconds.labels(method, route)
            self._children[key] = children
        children[0].inc()
        children[1].observe(took_s)

    def page(self) -> bytes:
        """The exposition, in text."""
        return generate_latest(self.registry)


class ActorFigures(Collector):
    """Asks all actors when it is scraped."""

    def __init__(self, bank: Client) -> None:
        self._bank = bank

    def describe(self) -> list[Metric]:
        """Nothing, so that nobody is asked when this is registered."""
        return []

    def collect(self) -> Iterator[Metric]:
        """What the actors tell now."""
        with ThreadPoolExecutor(1) as pool:  # both at once: a silent actor is waited for
            asked = pool.submit(self._bank.figures)
            actors = self._bank.status()
            yield from _states(actors)
            yield from _counts([told for told in asked.result() if isinstance(told, FiguresInfo)])
            yield from _replicas(self._ask_replicas(actors))

    def _ask_replicas(self, actors: list[StatusInfo | ActorDown]) -> list[ReplicaInfo]:
        """None while the coordinator is away: they would be waited for."""
        if any(isinstance(actor, StatusInfo) and actor.role == COORDINATOR for actor in actors):
            with suppress(ZbankError):
                return self._bank.replicas()
        return []


def _states(actors: list[StatusInfo | ActorDown]) -> Iterator[Metric]:
    labels = ("role", "name")
    up = GaugeMetricFamily("zbank_up", "Whether the actor answers", labels=labels)
    gauges = {
        "epoch": GaugeMetricFamily("zbank_epoch", "How often it took office", labels=labels),
        "seq": GaugeMetricFamily("zbank_journal_rows", "Rows of its journal", labels=labels),
        "journal_bytes": GaugeMetricFamily("zbank_journal_bytes", "Size of its data file", labels=labels),
        "unposted": GaugeMetricFamily("zbank_unposted_rows", "Posting lag: rows that are not in the tables yet", labels=labels),
        "in_flight": GaugeMetricFamily("zbank_in_flight", "Transfers between branches that are not over", labels=labels),
        "accounts": GaugeMetricFamily("zbank_accounts", "Accounts of the branch", labels=labels),
        "clearing_minor": GaugeMetricFamily("zbank_clearing_minor", "Money on its way, in minor units", labels=labels),
        "customers_minor": GaugeMetricFamily(
            "zbank_customers_minor", "Sum of the customers' balances, in minor units", labels=labels
        ),
        "total_minor": GaugeMetricFamily("zbank_books_minor", "Sum of all balances: always 0", labels=labels),
    }
    uptime = GaugeMetricFamily("zbank_uptime_seconds", "Since when it runs", labels=labels)
    stopped = GaugeMetricFamily("zbank_stopped", "It takes nothing on, for its synchronous replica is away", labels=labels)
    alarms = GaugeMetricFamily("zbank_alarms", "Things that an operator should know", labels=labels)
    doubt = GaugeMetricFamily("zbank_in_doubt", "Prepared and undecided for longer than 2 s", labels=("name", "age"))
    for actor in actors:
        names = (actor.role, actor.name or actor.role)
        up.add_metric(names, float(isinstance(actor, StatusInfo)))
        if isinstance(actor, ActorDown):
            continue
        for field, gauge in gauges.items():
            if actor.role == BRANCH or field not in ("accounts", "clearing_minor", "customers_minor", "total_minor"):
                gauge.add_metric(names, float(getattr(actor, field)))
        uptime.add_metric(names, actor.uptime_us / 1e6)
        stopped.add_metric(names, float(actor.stopped))
        alarms.add_metric(names, float(len(actor.alarms)))
        if actor.role == BRANCH:
            for age, count in _by_age(actor).items():
                doubt.add_metric((actor.name, age), count)
    yield from (up, *gauges.values(), uptime, stopped, alarms, doubt)


def _replicas(replicas: list[ReplicaInfo]) -> Iterator[Metric]:
    labels = ("name", "branch")
    position = GaugeMetricFamily("zbank_replica_position", "Its last row of its branch's journal", labels=labels)
    behind = GaugeMetricFamily("zbank_replica_behind_rows", "Rows that its branch was known to have more", labels=labels)
    lag = GaugeMetricFamily(
        "zbank_replica_lag_seconds", "It shows all that its branch had so long ago; +Inf: it never was level", labels=labels
    )
    for info in replicas:
        names = (info.name, info.of)
        position.add_metric(names, float(info.seq))
        behind.add_metric(names, float(info.behind))
        lag_s = lag_seconds(info.lag_us)
        lag.add_metric(names, inf if lag_s is None else lag_s)
    yield from (position, behind, lag)


def _by_age(actor: StatusInfo) -> dict[str, float]:
    found = dict.fromkeys([*(text for _, text in AGES_S), OLDER], 0.0)
    for held in actor.in_doubt:
        found[next((text for limit_s, text in AGES_S if held.age_us < limit_s * 1e6), OLDER)] += 1
    return found


def _counts(actors: list[FiguresInfo]) -> Iterator[Metric]:
    labels = ("role", "name")
    rows = CounterMetricFamily("zbank_rows", "Journal rows written since it runs, by kind", labels=(*labels, "kind"))
    turns = CounterMetricFamily("zbank_turns", "Batches taken on", labels=labels)
    messages = CounterMetricFamily("zbank_messages", "Messages taken on", labels=labels)
    transfers = CounterMetricFamily(
        "zbank_transfers", "Transfers that came to an outcome", labels=("name", "scope", "outcome")
    )
    histograms = {what: HistogramMetricFamily(name, text, labels=labels) for what, (name, text) in HISTOGRAMS.items()}
    for actor in actors:
        names = (actor.role, actor.name or COORDINATOR)
        for one in actor.counts:
            what, _, rest = one.name.rpartition(" ")
            if one.name == "turns":
                turns.add_metric(names, one.count)
            elif one.name == "messages":
                messages.add_metric(names, one.count)
            elif what == "rows":
                rows.add_metric((*names, rest), one.count)
            else:
                transfers.add_metric((actor.name, what, rest), one.count)
        for told in actor.histograms:
            if told.name in histograms:
                buckets, total = [], 0
                for bound_us, count in zip((*told.bounds_us, None), told.counts, strict=True):
                    total += count
                    buckets.append(("+Inf" if bound_us is None else repr(bound_us / 1e6), float(total)))
                histograms[told.name].add_metric(names, buckets, told.total_us / 1e6)
    yield from (rows, turns, messages, transfers, *histograms.values())
