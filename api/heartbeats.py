"""Heartbeats: leases are renewed together.

Whoever beats while a transaction is on its way, or soon after one, shares the next: a thousand supervisors cost a few
commits a second.  The same transaction reads what they are asked to stop.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from prometheus_client import Histogram

from api.directives import Asked, Directives, asked_of
from dag.errors import RunyardError
from metastore.commands.lone import LoneBeat, beat_attempts, lone
from metastore.commands.workers import beat_worker
from metastore.together import Together

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import timedelta

    from prometheus_client import CollectorRegistry

    from api.settings import ApiSettings
    from dag.world import Clock
    from metastore.store import Store, Tx

#: At most so many heartbeats share a transaction.
_SHARED: Final = 500
#: Seconds between two transactions; the first one goes at once.  A lease counts from when its request was sent, so that
#: waiting costs the sender nothing.
_WINDOW: Final = 0.1
_BUCKETS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10)


@dataclass(frozen=True, slots=True)
class WorkerBeat:
    """Of a worker, for all that it holds."""

    place: str
    token_hash: str
    boot_id: str
    #: It says that it drains, so that it needs not be told.
    drains: bool


@dataclass(frozen=True, slots=True)
class AttemptBeat(LoneBeat):
    """Of a supervisor that is registered nowhere, and cannot be drained."""

    drains = True

    @property
    def place(self) -> str:
        return lone(self.attempt_id)


@dataclass(frozen=True, slots=True)
class Beaten:
    """The lease is renewed."""

    drain: bool
    asked: Asked


#: What becomes of one heartbeat.
Found = Beaten | Exception


class Heartbeats:
    """All heartbeats of this process."""

    def __init__(self, store: Store, clock: Clock, settings: ApiSettings, registry: CollectorRegistry) -> None:
        self._longest = settings.told_heartbeat
        self._directives = Directives(store, clock, settings.told_heartbeat)
        seconds = Histogram(
            "runyard_worker_heartbeat_seconds",
            "Time from a heartbeat to its renewed lease.",
            ("of",),
            buckets=_BUCKETS,
            registry=registry,
        )
        # Apart: a worker's beat may count its queues anew, and what ends an attempt holds such limits while it removes
        # the lease of that attempt's supervisor.
        lease = settings.worker_lease
        self._workers: Together[WorkerBeat, Beaten] = Together(
            store, _renew_workers, lease, most=_SHARED, pause=_WINDOW
        )
        self._attempts: Together[AttemptBeat, Beaten] = Together(
            store, _renew_attempts, lease, most=_SHARED, pause=_WINDOW
        )
        self._clock = clock
        self._seconds = seconds

    async def beat(self, beat: WorkerBeat | AttemptBeat, stopping: Mapping[str, str | None], wait: float) -> Beaten:
        """Renew a lease; then wait, at most *wait* seconds, for something that *stopping* does not say already.

        Raises what the metastore says of it: another process has taken over, the attempt was given up.
        """
        directives = self._directives
        if wait <= 0:
            beaten = await self._renew(beat)
            return Beaten(beaten.drain, directives.tell(beat.place, beaten.asked, stopping))
        # Listening begins before the look that is part of the renewal: what comes after that is heard.
        with directives.listen(beat.place, stopping, drains=beat.drains) as listener:
            beaten = await self._renew(beat)
            listener.take_over()  # not before: a stranger must not end the wait of whom the place belongs to
            listener.found(beaten.asked, drain=beaten.drain)
            await listener.until(min(wait, self._longest))
            return Beaten(listener.drain, directives.tell(beat.place, listener.asked, stopping))

    async def _renew(self, beat: WorkerBeat | AttemptBeat) -> Beaten:
        began = self._clock.monotonic()
        if isinstance(beat, WorkerBeat):
            of, beaten = "worker", await self._workers.do(beat)
        else:
            of, beaten = "attempt", await self._attempts.do(beat)
        self._seconds.labels(of).observe(self._clock.monotonic() - began)
        return beaten

    def stop(self) -> None:
        """Answer all who wait; called before the server stops to take requests."""
        self._directives.stop()


def _renew_workers(tx: Tx, beats: Sequence[WorkerBeat], lease: timedelta) -> list[Found]:
    drains: dict[int, bool | RunyardError] = {}
    for number in sorted(range(len(beats)), key=lambda number: beats[number].place):  # one order for all locks
        beat = beats[number]
        try:
            drains[number] = beat_worker(
                tx, beat.place, token_hash=beat.token_hash, boot_id=beat.boot_id, lease=lease, draining=beat.drains
            )
        except RunyardError as error:
            drains[number] = error
    asked = asked_of(tx.conn, [beat.place for beat in beats])
    return [
        drain if isinstance(drain := drains[number], RunyardError) else Beaten(drain, asked.get(beat.place, {}))
        for number, beat in enumerate(beats)
    ]


def _renew_attempts(tx: Tx, beats: Sequence[AttemptBeat], lease: timedelta) -> list[Found]:
    return [
        one
        if isinstance(one, RunyardError)
        else Beaten(drain=False, asked={} if one is None else {beat.attempt_id: one})
        for beat, one in zip(beats, beat_attempts(tx, beats, lease), strict=True)
    ]
