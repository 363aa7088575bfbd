"""What the API measures of itself, and how the metastore's counts are written for Prometheus."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest

if TYPE_CHECKING:
    from collections.abc import Container, Mapping, Sequence
    from datetime import datetime

    from metastore.queries.stats import Depth, Stats
    from metastore.queries.workers import QueueRecord, WorkerRecord

CONTENT_TYPE: Final = CONTENT_TYPE_PLAIN_0_0_4
#: From a cached read to a followed log.
_BUCKETS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10, 60, 300)
#: More queues than these share one series: their names are the users'.
_MOST_QUEUES: Final = 200
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


@dataclass(frozen=True, slots=True)
class Counted:
    """What the metastore counts, of one moment."""

    stats: Stats
    queues: Sequence[QueueRecord]
    workers: Sequence[WorkerRecord]
    now: datetime


def exposition(registry: CollectorRegistry, counted: Counted) -> bytes:
    """Return what *registry* has and what the metastore counts, as text."""
    families = [*_families(counted.stats, counted.now), *_of_queues(counted), *_of_workers(counted.workers)]
    return generate_latest(registry) + generate_latest(_Counts(families))


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


def _of_queues(counted: Counted) -> list[GaugeMetricFamily]:
    """Return the measures of queues; those of which there are too many share a series."""
    labels = ("executor", "queue")
    ready = GaugeMetricFamily("runyard_queue_ready_tasks", "Ready tasks that wait in a queue.", labels=labels)
    age = GaugeMetricFamily(
        "runyard_queue_ready_tasks_oldest_seconds", "How long the first task of a queue has waited.", labels=labels
    )
    queued = GaugeMetricFamily("runyard_queue_queued_attempts", "Attempts offered and not taken.", labels=labels)
    running = GaugeMetricFamily("runyard_queue_running_attempts", "Attempts of a queue that run.", labels=labels)
    serving = GaugeMetricFamily("runyard_queue_workers", "Live workers that serve a queue.", labels=labels)
    slots = GaugeMetricFamily("runyard_queue_slots", "Slots of the live workers of a queue.", labels=labels)
    shown: dict[tuple[str, str], list[QueueRecord]] = {}
    for queue in counted.queues:
        key = (queue.executor, queue.queue if len(shown) < _MOST_QUEUES else "other")
        shown.setdefault(key, []).append(queue)
    for key, records in shown.items():
        since = min((one.oldest_ready_at for one in records if one.oldest_ready_at is not None), default=counted.now)
        ready.add_metric(key, sum(one.ready for one in records))
        age.add_metric(key, max(0.0, (counted.now - since).total_seconds()))
        queued.add_metric(key, sum(one.queued for one in records))
        running.add_metric(key, sum(one.running for one in records))
        serving.add_metric(key, sum(one.workers for one in records))
        slots.add_metric(key, sum(one.slots for one in records))
    return [ready, age, queued, running, serving, slots]


def _of_workers(records: Sequence[WorkerRecord]) -> list[GaugeMetricFamily]:
    workers = [one for one in records if one.kind == "worker"]
    number = GaugeMetricFamily("runyard_workers", "Workers, by how they are.", labels=("executor", "state"))
    slots = GaugeMetricFamily("runyard_worker_slots", "Slots of live workers.", labels=("executor",))
    running = GaugeMetricFamily("runyard_worker_running_attempts", "Attempts that workers hold.", labels=("executor",))
    for name in sorted({one.executor or "" for one in workers}):
        own = [one for one in workers if one.executor == name]
        for state in ("live", "draining", "lost", "gone"):
            number.add_metric((name, state), sum(one.state == state for one in own))
        slots.add_metric((name,), sum(one.slots or 0 for one in own if one.state == "live"))
        running.add_metric((name,), sum(one.running for one in own))
    return [number, slots, running]


def _pair(
    name: str, says: str, label: str, depths: Mapping[str, Depth], now: datetime
) -> tuple[GaugeMetricFamily, GaugeMetricFamily]:
    number = GaugeMetricFamily(name, says, labels=(label,))
    age = GaugeMetricFamily(f"{name}_oldest_seconds", f"{says} The age of the oldest.", labels=(label,))
    for value, depth in depths.items():
        number.add_metric((value,), depth.count)
        age.add_metric((value,), 0 if depth.oldest is None else max(0.0, (now - depth.oldest).total_seconds()))
    return number, age
