"""Strays: what was meant for executors that are configured nowhere any more (0028)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog

from dag.errors import Unavailable
from dag.outcomes import Ended
from metastore.commands.attempts import End, end_attempt
from metastore.commands.strays import follow_default
from metastore.queries import strays as queries
from metastore.queries.work import MOST

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import timedelta

    from dag.ids import AttemptId
    from dag.world import Clock
    from executors.base import Executor
    from metastore.store import Store
    from scheduler.settings import SchedulerSettings

log = structlog.get_logger(__name__)


class Strays:
    """Has them follow the default executor where they had an earlier one; names the others."""

    def __init__(
        self, store: Store, executors: Mapping[str, Executor], clock: Clock, settings: SchedulerSettings
    ) -> None:
        self._store = store
        self._default = next(iter(executors))
        self._own = [name for name, executor in executors.items() if executor.slots != 0]
        self._clock = clock
        self._within: timedelta | None = None
        if store.dialect == "postgresql":
            self._within = queries.heard_within(settings.lease)
        self._is_new = True
        #: Instances that were looked at and stay where they are: their tasks name their executors.
        self._staying: set[int] = set()
        self._named: set[str] = set()

    async def look(self) -> None:
        """Look at what is ready or offered; the first time at all that waits."""
        if self._is_new:
            await self._look_at_all()
            self._is_new = False
        found = await self._find()
        for attempt_id in found.offers:
            await self._withdraw(attempt_id)
        if found.offers:
            found = await self._find()
        self._staying &= {instance for instance, _ in found.ready}
        for run in sorted({run for instance, run in found.ready if instance not in self._staying}):
            if await self._follow(run):
                self._staying |= {instance for instance, its_run in found.ready if its_run == run}

    async def _find(self) -> queries.Strays:
        return await self._store.read(queries.strays, self._clock.now(), self._own, self._within)

    async def _look_at_all(self) -> None:
        after, found = 0, [0] * MOST
        while len(found) == MOST:
            now = self._clock.now()
            found = await self._store.read(queries.runs_with_strays, now, self._own, self._within, after)
            for run in found:
                await self._follow(run)
                after = run

    async def _withdraw(self, attempt_id: AttemptId) -> None:
        """Put an offer back that nobody looks after; who finds its message later is refused: it has ended."""
        end = End(attempt_id=attempt_id, ended=Ended.DRAINED, cause="drained", error="its executor is gone")
        await self._store.write(end_attempt, end, actor="scheduler")

    async def _follow(self, run: int) -> bool:
        """Have what may of a run follow the default; return whether that could be done."""
        try:
            done = await self._store.write(follow_default, run, self._default, self._own, self._within)
        except Unavailable:
            raise
        except Exception:
            # A run that cannot even be looked at must not keep the others.
            log.exception("strays cannot be moved", run=run)
            return False
        if done.moved:
            log.info("tasks follow the default executor", run=run, tasks=done.moved, executor=self._default)
        for name in set(done.named) - self._named:
            self._named.add(name)
            log.warning("tasks name an executor that is configured nowhere, and wait for it", executor=name, run=run)
        return True
