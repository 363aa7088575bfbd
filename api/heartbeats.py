"""Heartbeats: leases are renewed together.

Whoever beats while a transaction is on its way, or soon after one, shares the next: a thousand supervisors cost a few
commits a second.  The same transaction reads what they are asked to stop.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

from prometheus_client import Histogram

from api.directives import Asked, Directives, asked_of
from dag.errors import RunyardError
from metastore.commands.workers import beat_attempt, beat_worker, lone

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


class Beat(Protocol):
    """One sign of life."""

    @property
    def place(self) -> str:
        """What the attempts that it is for are placed on."""
        ...

    @property
    def drains(self) -> bool:
        """Whether its sender knows already that it is to drain, or cannot."""
        ...

    def renew(self, tx: Tx, lease: timedelta) -> Beaten:
        """Renew the lease; return what is asked, as far as that costs nothing more."""
        ...


@dataclass(frozen=True, slots=True)
class WorkerBeat:
    """Of a worker, for all that it holds."""

    place: str
    token_hash: str
    boot_id: str
    drains: bool

    def renew(self, tx: Tx, lease: timedelta) -> Beaten:
        drain = beat_worker(
            tx, self.place, token_hash=self.token_hash, boot_id=self.boot_id, lease=lease, draining=self.drains
        )
        return Beaten(drain, {})


@dataclass(frozen=True, slots=True)
class AttemptBeat:
    """Of a supervisor that is registered nowhere."""

    attempt_id: str
    key_hash: str
    boot_id: str
    drains: bool = True

    @property
    def place(self) -> str:
        return lone(self.attempt_id)

    def renew(self, tx: Tx, lease: timedelta) -> Beaten:
        reason = beat_attempt(tx, self.attempt_id, key_hash=self.key_hash, boot_id=self.boot_id, lease=lease)
        return Beaten(drain=False, asked={} if reason is None else {self.attempt_id: reason})


@dataclass(frozen=True, slots=True)
class Beaten:
    """The lease is renewed."""

    drain: bool
    asked: Asked


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
        self._workers = _Shared(store, clock, settings.worker_lease, seconds.labels("worker"))
        self._attempts = _Shared(store, clock, settings.worker_lease, seconds.labels("attempt"))

    async def beat(self, beat: WorkerBeat | AttemptBeat, stopping: Mapping[str, str | None], wait: float) -> Beaten:
        """Renew a lease; then wait, at most *wait* seconds, for something that *stopping* does not say already.

        Raises what the metastore says of it: another process has taken over, the attempt was given up.
        """
        shared = self._workers if isinstance(beat, WorkerBeat) else self._attempts
        directives = self._directives
        if wait <= 0:
            beaten = await shared.renew(beat)
            return Beaten(beaten.drain, directives.tell(beat.place, beaten.asked, stopping))
        # Listening begins before the look that is part of the renewal: what comes after that is heard.
        with directives.listen(beat.place, stopping, drains=beat.drains) as listener:
            beaten = await shared.renew(beat)
            listener.found(beaten.asked, drain=beaten.drain)
            await listener.until(min(wait, self._longest))
            return Beaten(listener.drain, directives.tell(beat.place, listener.asked, stopping))

    def stop(self) -> None:
        """Answer all who wait; called before the server stops to take requests."""
        self._directives.stop()


class _Shared:
    """Heartbeats of one kind, on their way into transactions."""

    def __init__(self, store: Store, clock: Clock, lease: timedelta, seconds: Any) -> None:
        self._store = store
        self._clock = clock
        self._lease = lease
        self._seconds = seconds
        self._pending: list[tuple[Beat, asyncio.Future[Beaten]]] = []
        self._task: asyncio.Task[None] | None = None

    async def renew(self, beat: Beat) -> Beaten:
        began = self._clock.monotonic()
        future: asyncio.Future[Beaten] = asyncio.get_running_loop().create_future()
        self._pending.append((beat, future))
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._write(), name="heartbeats")
        beaten = await future
        self._seconds.observe(self._clock.monotonic() - began)
        return beaten

    async def _write(self) -> None:
        while self._pending:
            batch, self._pending = self._pending[:_SHARED], self._pending[_SHARED:]
            for (_, future), found in zip(batch, await self._together([beat for beat, _ in batch]), strict=True):
                if future.done():  # whoever asked has gone; the lease is renewed all the same
                    continue
                if isinstance(found, Exception):
                    future.set_exception(found)
                else:
                    future.set_result(found)
            await asyncio.sleep(_WINDOW)

    async def _together(self, beats: Sequence[Beat]) -> list[Beaten | Exception]:
        try:
            return await self._store.write(_renew, beats, self._lease)
        except RunyardError as error:  # the metastore is away
            return [error] * len(beats)
        except Exception as error:  # noqa: BLE001  # it is theirs who beat; the next ones go on
            if len(beats) == 1:
                return [error]
        # One of them cannot be written at all, and must not cost the others their leases.
        return [found for beat in beats for found in await self._together([beat])]


def _renew(tx: Tx, beats: Sequence[Beat], lease: timedelta) -> list[Beaten | Exception]:
    found: list[Beaten | Exception] = [_UNSAID] * len(beats)
    for number in sorted(range(len(beats)), key=lambda number: beats[number].place):  # one order for all locks
        try:
            found[number] = beats[number].renew(tx, lease)
        except RunyardError as error:
            found[number] = error
    asked = asked_of(tx.conn, [beat.place for beat in beats if isinstance(beat, WorkerBeat)])
    for number, beat in enumerate(beats):
        one = found[number]
        if isinstance(one, Beaten) and beat.place in asked:
            found[number] = Beaten(one.drain, asked[beat.place])
    return found


_UNSAID: Final = Beaten(drain=False, asked={})
