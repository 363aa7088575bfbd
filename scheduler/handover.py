"""After the commit: queued attempts go to their executors.  Safe to repeat, and safe to die in.

What was queued is its own outbox: an attempt that was not handed over is found again by the next reconcile.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, assert_never

import structlog

from dag.errors import Unavailable
from dag.outcomes import Ended
from executors.base import Accepted, Deferred, Launch, Rejected
from metastore.commands.attempts import End, defer_attempt, end_attempt

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from datetime import timedelta

    from dag.ids import AttemptId
    from executors.base import Executor, LaunchResult
    from metastore.commands.admission import Admitted
    from metastore.store import Store
    from worker.protocol import StopReason

log = structlog.get_logger(__name__)


class Handover:
    """Hands attempts over, each executor in its own error boundary."""

    def __init__(self, store: Store, executors: Mapping[str, Executor]) -> None:
        self._store = store
        self._executors = executors
        #: Called with how long an executor deferred something.
        self.deferred: Callable[[timedelta], None] = _nobody

    async def admitted(self, admitted: Iterable[Admitted]) -> None:
        """Launch what was queued and is not started yet."""
        batches: dict[str, list[Launch]] = {}
        for one in admitted:
            if one.body is None and one.executor in self._executors:
                batches.setdefault(one.executor, []).append(Launch(one.attempt_id, one.labels))
        for name, batch in batches.items():
            await self.launch(name, batch)

    async def launch(self, name: str, batch: Sequence[Launch]) -> None:
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

    async def stop(self, name: str, batch: Sequence[AttemptId], reason: StopReason) -> None:
        """Deliver the directive to stop; repeated by the next reconcile while it is not followed."""
        try:
            await self._executors[name].cancel(batch, reason=reason)
        except Exception:
            # As above: the directive stands in the metastore and is repeated.
            log.exception("cancel failed", executor=name, attempts=len(batch))


def _nobody(_: timedelta) -> None:
    """Nobody wants to know."""
