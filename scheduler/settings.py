"""What can be set about a scheduler."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from metastore.commands.agents import told


@dataclass(frozen=True, slots=True, kw_only=True)
class SchedulerSettings:
    """All have defaults; tests shorten them."""

    #: A name for this host, for display.
    host: str = "localhost"
    #: How long the loop sleeps at the most when nothing wakes it.
    longest_sleep: timedelta = timedelta(seconds=20)
    #: How often counters and limits are verified, and placements observed without a reason.
    safety_poll: timedelta = timedelta(seconds=20)
    #: How long an agent's attempts stay its own without a renewal (Postgres).
    lease: timedelta = timedelta(seconds=90)
    #: How often the lease is renewed, at least.
    beat: timedelta = timedelta(seconds=15)
    #: How long answers under idempotency keys are kept.
    keep_answers: timedelta = timedelta(days=7)
    #: How long a worker that is gone can still be looked at.
    keep_workers: timedelta = timedelta(days=1)

    @property
    def told_lease(self) -> timedelta:
        """How long an agent lets its tasks live that hears nothing."""
        return told(self.lease)

    @property
    def renewal(self) -> timedelta:
        """How long it is from one renewal to the next: several of them fit into a lease."""
        return min(self.beat, self.told_lease / 4)
