"""After the commit: queued attempts go to their executors.  Safe to repeat, and safe to die in.

What was queued is its own outbox: an attempt that was not handed over is found again by the next reconcile.  Every
executor has a lane of its own, a task that launches what is put into it, so that one that is slow or broken keeps
nobody else waiting.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Final, assert_never

import structlog

from dag.errors import Unavailable
from dag.outcomes import Ended
from dag.tickets import sign
from executors.base import Accepted, Deferred, Launch, Rejected
from metastore.commands.attempts import End, end_attempt
from metastore.commands.offers import defer_attempt

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from datetime import timedelta

    from dag.ids import AttemptId
    from executors.base import Executor, LaunchResult
    from metastore.commands.admission import Admitted
    from metastore.queries.work import Placed
    from metastore.store import Store
    from worker.protocol import StopReason

log = structlog.get_logger(__name__)

#: How many attempts one call of an executor launches at the most.
_AT_ONCE: Final = 100


class Handover:
    """Hands attempts over, each executor in its own lane and error boundary."""

    def __init__(self, store: Store, executors: Mapping[str, Executor]) -> None:
        self._store = store
        self._executors = executors
        self._waiting: dict[str, dict[AttemptId, Launch]] = {name: {} for name in executors}
        self._lanes: dict[str, asyncio.Task[None]] = {}
        #: What tickets are signed with; the scheduler sets it before anything is handed over.
        self.signing_key = b""
        #: Called with how long an executor deferred something.
        self.deferred: Callable[[timedelta], None] = _nobody

    def admitted(self, admitted: Iterable[Admitted]) -> None:
        """Launch what was queued and is not started yet; soon, and not before this returns."""
        batches: dict[str, list[Launch]] = {}
        for one in admitted:
            if one.body is None and one.executor in self._executors:
                launch = self._launch_of(one.executor, one.attempt_id, one.labels, one.queue, one.priority)
                batches.setdefault(one.executor, []).append(launch)
        for name, batch in batches.items():
            self.launch(name, batch)

    def again(self, name: str, placed: Iterable[Placed]) -> None:
        """Launch what an executor has not, or should have by now."""
        self.launch(
            name,
            [
                replace(
                    self._launch_of(name, one.id, one.labels, one.queue or "default", one.priority),
                    started=one.state == "running",
                )
                for one in placed
            ],
        )

    def _launch_of(
        self, name: str, attempt_id: AttemptId, labels: Mapping[str, str], queue: str, priority: int
    ) -> Launch:
        if not self._executors[name].by_queue:
            return Launch(attempt_id, labels)
        return Launch(attempt_id, labels, queue, priority, sign(self.signing_key, attempt_id))

    def launch(self, name: str, batch: Sequence[Launch]) -> None:
        """Put *batch* into the lane of an executor."""
        if not batch:
            return
        self._waiting[name].update((launch.attempt_id, launch) for launch in batch)
        lane = self._lanes.get(name)
        # Done, and not out of the table: a callback takes it out a round of the loop after it has found nothing more.
        if lane is None or lane.done():
            self._lanes[name] = asyncio.get_running_loop().create_task(self._drive(name), name=f"lane:{name}")

    async def close(self) -> None:
        """Launch no more; what waits stays queued, and is found again."""
        lanes = list(self._lanes.values())
        for lane in lanes:
            lane.cancel()
        await asyncio.gather(*lanes, return_exceptions=True)

    async def _drive(self, name: str) -> None:
        waiting = self._waiting[name]
        while waiting:
            batch = [waiting.pop(attempt_id) for attempt_id in list(waiting)[:_AT_ONCE]]
            await self._launch(name, batch)

    async def _launch(self, name: str, batch: Sequence[Launch]) -> None:
        """Launch *batch*, and write down what the executor deferred or refused."""
        try:
            results = await self._executors[name].launch(batch)
        except Exception:
            # A broken executor must not stop the others; its attempts stay queued and are launched again.
            log.exception("launch failed", executor=name, attempts=len(batch))
            return
        for result in results:
            await self._note(result)

    async def _note(self, result: LaunchResult) -> None:
        try:
            match result:
                case Accepted():
                    pass
                case Deferred(attempt_id, reason, retry_after):
                    await self._store.write(defer_attempt, attempt_id, reason, retry_after)
                    self.deferred(retry_after)
                case Rejected(attempt_id, cause, detail):
                    end = End(attempt_id=attempt_id, ended=Ended.REJECTED, cause=str(cause), error=detail)
                    await self._store.write(end_attempt, end, actor="scheduler")
                case _:
                    assert_never(result)
        except Unavailable as error:
            log.warning("metastore unavailable", while_noting=type(result).__name__, error=str(error))
        except Exception:
            # One row that cannot be written must not end the lane of the others.
            log.exception("a launch's result cannot be noted", attempt=result.attempt_id)

    async def stop(self, name: str, batch: Sequence[AttemptId], reason: StopReason) -> None:
        """Deliver the directive to stop; repeated by the next reconcile while it is not followed."""
        try:
            await self._executors[name].cancel(batch, reason=reason)
        except Exception:
            # As above: the directive stands in the metastore and is repeated.
            log.exception("cancel failed", executor=name, attempts=len(batch))


def _nobody(_: timedelta) -> None:
    """Nobody wants to know."""
