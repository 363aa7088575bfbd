"""The executor of every broker: it publishes what the metastore has queued, and says what the broker has."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Final

from executors.base import (
    API_VERSION,
    Accepted,
    Deferred,
    Health,
    HealthStatus,
    LaunchResult,
    Observation,
    Phase,
    Traits,
)
from executors.queues.courier import Courier
from executors.queues.medium import Away, Parcel, Where

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dag.ids import AttemptId
    from executors.base import Context, Launch
    from executors.queues.medium import Medium
    from worker.protocol import StopReason

#: How long one call may take, whatever the broker does.
_BUDGET: Final = 5.0
_FIRST_RETRY: Final = timedelta(seconds=1)
_LONGEST_RETRY: Final = timedelta(seconds=30)

_PHASES: Final = {Where.THERE: Phase.PENDING, Where.NOT_THERE: Phase.GONE, Where.UNSURE: Phase.UNKNOWN}


class QueueExecutor:
    """Offers attempts to whichever worker takes them from a queue."""

    api_version = API_VERSION
    placed_on: str | None = None
    slots: int | None = None
    by_queue = True

    def __init__(self, name: str, medium: Medium, *, observable: bool) -> None:
        self.name = name
        self.traits = Traits(survives_scheduler=True, observable=observable, revocable=False)
        self._medium = medium
        self._courier: Courier | None = None
        self._retry = _FIRST_RETRY

    async def start(self, context: Context) -> None:
        """Begin to connect, in the background."""

        def on_return() -> None:
            self._retry = _FIRST_RETRY
            context.wake()

        self._clock = context.clock
        self._courier = Courier(self._medium, name=self.name, clock=context.clock, on_return=on_return)

    async def stop(self, *, drain: timedelta) -> None:  # noqa: ARG002  # what runs is the workers', who drain by themselves
        """Let go of the broker; what lies there stays."""
        courier, self._courier = self._courier, None
        if courier is not None:
            await courier.stop()

    async def launch(self, batch: Sequence[Launch]) -> Sequence[LaunchResult]:
        """Publish every attempt of *batch*.

        Where it is not known what became of a message, it is deferred and published again: a worker that gets the
        second one is told that the attempt is taken.
        """
        courier = self._courier
        if courier is None:
            return [Deferred(one.attempt_id, "the executor is not started", self._retry) for one in batch]
        if not batch:
            return []
        parcels = [Parcel(one.attempt_id, one.queue, one.priority, one.ticket) for one in batch]
        deadline = self._clock.monotonic() + _BUDGET

        def publish() -> dict[str, str]:
            return dict(self._medium.publish(parcels, lambda: self._clock.monotonic() < deadline))

        try:
            refused = await courier.ask(publish, _BUDGET)
        except Away as error:
            return self._defer([(one.attempt_id, str(error)) for one in batch])
        if refused:
            late = iter(
                self._defer([(one.attempt_id, refused[one.attempt_id]) for one in batch if one.attempt_id in refused])
            )
            return [next(late) if one.attempt_id in refused else Accepted(one.attempt_id) for one in batch]
        self._retry = _FIRST_RETRY
        return [Accepted(one.attempt_id) for one in batch]

    def _defer(self, refused: Sequence[tuple[AttemptId, str]]) -> list[LaunchResult]:
        retry = self._retry
        self._retry = min(retry * 2, _LONGEST_RETRY)
        return [Deferred(attempt_id, why, retry) for attempt_id, why in refused]

    async def cancel(self, batch: Sequence[AttemptId], *, reason: StopReason) -> None:  # noqa: ARG002  # the metastore has it, and the worker asks there
        """Take out what nobody has taken yet: only tidy, since a start that comes later is refused."""
        if self._courier is not None and batch:
            attempts = list(batch)
            try:
                await self._courier.ask(lambda: self._medium.forget(attempts), _BUDGET)
            except Away:
                return

    async def observe(self, batch: Sequence[AttemptId]) -> Sequence[Observation]:
        """Say what the broker says."""
        why = "the executor is not started"
        if self._courier is not None:
            attempts = list(batch)
            try:
                found = await self._courier.ask(lambda: self._medium.locate(attempts), _BUDGET)
            except Away as error:
                why = str(error)
            else:
                return [Observation(attempt_id=each, phase=_PHASES[found[each]]) for each in batch]
        return [Observation(attempt_id=each, phase=Phase.UNKNOWN, detail=why) for each in batch]

    def renew(self, ttl: timedelta | None) -> None:
        """Workers have leases of their own."""

    def health(self) -> Health:
        if self._courier is None:
            return Health(HealthStatus.DOWN, "not started")
        why = self._courier.why_away
        return Health(HealthStatus.OK) if why is None else Health(HealthStatus.DOWN, why)
