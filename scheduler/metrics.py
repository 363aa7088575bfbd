"""What a scheduler measures of itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import Counter, Histogram

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

_FAST = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


class SchedulerMetrics:
    """Counters and histograms, registered where the front door wants them."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.loop_seconds = Histogram(
            "runyard_scheduler_loop_seconds",
            "Time of one pass of the scheduler's loop.",
            registry=registry,
            buckets=_FAST,
        )
        self.runs_started = Counter("runyard_runs_started", "Runs started by this scheduler.", registry=registry)
        self.attempts_started = Counter(
            "runyard_attempts_started", "Attempts whose start was won.", ["executor"], registry=registry
        )
        self.attempts_ended = Counter(
            "runyard_attempts_ended", "Attempts that ended, by how.", ["executor", "outcome"], registry=registry
        )
        self.start_lag = Histogram(
            "runyard_attempt_start_lag_seconds",
            "Time from an attempt being queued to its start.",
            ["executor"],
            registry=registry,
            buckets=_FAST,
        )
        self.stale_ends = Counter(
            "runyard_stale_ends",
            "Ends of attempts that were not theirs any more; they changed nothing.",
            registry=registry,
        )
        self.quarantines = Counter("runyard_quarantines", "Runs that were set aside after an error.", registry=registry)
        self.healed = Counter(
            "runyard_healed", "Wrong counters that the safety poll put right.", ["what"], registry=registry
        )
        self.errors = Counter(
            "runyard_scheduler_errors", "Errors of the scheduler's parts.", ["part"], registry=registry
        )
