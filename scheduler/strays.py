"""Strays: what was meant for executors that are configured nowhere any more (0028)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog

from dag.outcomes import Ended
from metastore.commands.attempts import End, end_attempt
from metastore.commands.strays import find_runs_with_strays, find_strays, follow_default
from metastore.queries.strays import PAGE, heard_within
from metastore.queries.work import MOST
from scheduler.aside import set_aside

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import timedelta

    from dag.ids import AttemptId
    from dag.world import Clock
    from executors.base import Executor
    from metastore.queries.strays import Strays as Found
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
            self._within = heard_within(settings.lease)
        self._is_new = True
        #: Not before, by the monotonic clock.
        self._look_at = 0.0
        #: Of what is ready, the next look begins after this instance.
        self._after = 0
        #: Instances that were looked at and stay where they are: their tasks name their executors.
        self._staying: set[int] = set()
        #: Those of them that were met since the looks began at the first one.
        self._met: set[int] = set()
        self._named: set[str] = set()

    def hold_off(self) -> None:
        """Wait until other schedulers can have said that they are there: the metastore was away, for them as well."""
        if self._within is not None:
            self._look_at = self._clock.monotonic() + self._within.total_seconds()

    async def look(self) -> None:
        """Look at what is ready or offered, of very much at a part; the first time at all that waits."""
        if self._clock.monotonic() < self._look_at:
            return
        if self._is_new:
            await self._look_at_all()
            self._is_new = False
        found = await self._find()
        for attempt_id in found.offers:
            await self._withdraw(attempt_id)
        if found.offers:
            found = await self._find()
        for run in sorted({run for instance, run in found.ready if instance not in self._staying}):
            await self._follow(run)
        self._met |= self._staying & {instance for instance, _ in found.ready}
        self._after = found.ready[-1][0] if len(found.ready) == PAGE else 0
        if not self._after:
            self._staying, self._met = self._met, set()

    async def _find(self) -> Found:
        return await self._store.write(find_strays, self._own, self._within, self._after)

    async def _look_at_all(self) -> None:
        after, found = 0, [0] * MOST
        while len(found) == MOST:
            found = await self._store.write(find_runs_with_strays, self._own, self._within, after)
            for run in found:
                await self._follow(run)
                after = run

    async def _withdraw(self, attempt_id: AttemptId) -> None:
        """Put an offer back that nobody looks after; who finds its message later is refused: it has ended."""
        end = End(attempt_id=attempt_id, ended=Ended.DRAINED, cause="drained", error="its executor is gone")
        with set_aside("an offer cannot be withdrawn", attempt=attempt_id):
            await self._store.write(end_attempt, end, actor="scheduler")

    async def _follow(self, run: int) -> None:
        """Have what may of a run follow the default, and remember what stays.

        Only what names its executor is known to stay: a scheduler that was thought to be gone may have spoken again,
        and may go later.
        """
        with set_aside("strays cannot be moved", run=run):
            done = await self._store.write(follow_default, run, self._default, self._own, self._within)
            if done.moved:
                log.info("tasks follow the default executor", run=run, tasks=done.moved, executor=self._default)
            self._staying.update(done.named)
            for name in sorted({*done.named.values()} - self._named):
                self._named.add(name)
                what = "tasks name an executor that is configured nowhere, and wait for it"
                log.warning(what, executor=name, run=run)
