"""What the API measures of itself, and how the metastore's counts are written for Prometheus."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest

if TYPE_CHECKING:
    from collections.abc import Container, Mapping
    from datetime import datetime

    from metastore.queries.stats import Depth, Stats

CONTENT_TYPE: Final = CONTENT_TYPE_PLAIN_0_0_4
#: From a cached read to a followed log.
_BUCKETS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10, 60, 300)
_METHODS: Final = frozenset({"GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"})


class Meters:
    """Requests, by route template and never by path: the number of series has a bound."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._requests = Counter(
            "runyard_http_requests_total", "Requests answered.", ("method", "route", "status"), registry=registry
        )
        self._seconds = Histogram(
            "runyard_http_request_seconds",
            "Time from a request to the end of its answer.",
            ("method", "route"),
            buckets=_BUCKETS,
            registry=registry,
        )

        self._registered = Counter(
            "runyard_worker_registrations_total", "Registrations of workers.", ("executor",), registry=registry
        )

    def registered(self, executor: str, known: Container[str]) -> None:
        """Note that a worker registered; executors that nobody configured share a series."""
        self._registered.labels(executor if executor in known else "other").inc()

    def count(self, method: str, route: str, status: int, seconds: float) -> None:
        """Note one request; *status* 0 is a client that went away before an answer."""
        method = method if method in _METHODS else "other"
        self._requests.labels(method, route, str(status)).inc()
        self._seconds.labels(method, route).observe(seconds)


def exposition(registry: CollectorRegistry, counts: Stats, now: datetime) -> bytes:
    """Return what *registry* has and what the metastore counts, as text."""
    return generate_latest(registry) + generate_latest(_Counts(_families(counts, now)))


class _Counts(CollectorRegistry):
    """Families that were made for one answer."""

    def __init__(self, families: list[GaugeMetricFamily]) -> None:
        super().__init__()
        self._families = families

    def collect(self) -> list[GaugeMetricFamily]:
        return self._families


def _families(counts: Stats, now: datetime) -> list[GaugeMetricFamily]:
    blocked: dict[str, int] = {}
    for key, depth in counts.blocked.items():
        # The kind of limit only: keys hold DAG ids, and series must have a bound.
        kind = f"dag_{key.rpartition(':')[2]}" if key.startswith("dag:") else "slots"
        blocked[kind] = blocked.get(kind, 0) + depth.count
    held = GaugeMetricFamily(
        "runyard_blocked_tasks", "Ready task instances that a limit holds back.", labels=("limit",)
    )
    for kind, number in blocked.items():
        held.add_metric((kind,), number)
    return [
        *_pair("runyard_runs", "Runs that have not ended.", "state", counts.runs, now),
        *_pair("runyard_ready_tasks", "Ready task instances that wait for a slot.", "executor", counts.ready, now),
        *_pair("runyard_queued_attempts", "Attempts handed over and not started.", "executor", counts.queued, now),
        *_pair("runyard_running_attempts", "Attempts that run.", "executor", counts.running, now),
        held,
    ]


def _pair(
    name: str, says: str, label: str, depths: Mapping[str, Depth], now: datetime
) -> tuple[GaugeMetricFamily, GaugeMetricFamily]:
    number = GaugeMetricFamily(name, says, labels=(label,))
    age = GaugeMetricFamily(f"{name}_oldest_seconds", f"{says} The age of the oldest.", labels=(label,))
    for value, depth in depths.items():
        number.add_metric((value,), depth.count)
        age.add_metric((value,), 0 if depth.oldest is None else max(0.0, (now - depth.oldest).total_seconds()))
    return number, age
