"""The slow poll that trusts nothing: verifies counters and limits, heals them with an event, and sweeps what is old."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

import structlog

from metastore.commands.heal import verify_limit, verify_run
from metastore.commands.once import forget
from metastore.commands.workers import forget_workers
from metastore.queries import work

if TYPE_CHECKING:
    from dag.world import Clock
    from metastore.store import Store
    from scheduler.metrics import SchedulerMetrics
    from scheduler.settings import SchedulerSettings

log = structlog.get_logger(__name__)

#: How many runs and limits one poll looks at; the next one goes on from there.
_RUNS: Final = 20
_LIMITS: Final = 50
#: Seconds between two sweeps of old answers.
_SWEEP_EVERY: Final = 3_600.0


class Safety:
    """Goes round all active runs and all limits, a few at a time."""

    def __init__(self, store: Store, clock: Clock, metrics: SchedulerMetrics, settings: SchedulerSettings) -> None:
        self._store = store
        self._clock = clock
        self._metrics = metrics
        self._settings = settings
        self._run = 0
        self._limit = ""
        self._sweep_at = clock.monotonic() + _SWEEP_EVERY

    async def poll(self) -> None:
        """Verify the next few, then sleep."""
        await asyncio.sleep(self._settings.safety_poll.total_seconds())
        now = self._clock.now()
        runs = await self._store.read(work.active_runs, now, self._run, _RUNS)
        self._run = runs[-1] if len(runs) == _RUNS else 0
        for run in await self._store.read(work.doubtful_runs, runs):
            if await self._store.write(verify_run, run):
                self._metrics.healed.labels("run").inc()
                log.warning("run healed", run=run)
        keys = await self._store.read(work.limit_keys, self._limit, _LIMITS)
        self._limit = keys[-1] if len(keys) == _LIMITS else ""
        for key in await self._store.read(work.doubtful_limits, keys):
            if await self._store.write(verify_limit, key):
                self._metrics.healed.labels("limit").inc()
                log.warning("limit healed", limit=key)
        if self._clock.monotonic() >= self._sweep_at:
            self._sweep_at = self._clock.monotonic() + _SWEEP_EVERY
            while await self._store.write(forget, self._settings.keep_answers):
                pass  # a few at a time: nobody waits for long
            await self._store.write(forget_workers, self._settings.keep_workers)
