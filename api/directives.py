"""Directives: what supervisors are asked to stop, told while they wait for it.

All who wait are one subscription; when it is told something, one query answers for all of them.  A lost hint costs a
supervisor the rest of its wait: the next heartbeat looks by itself.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Final

import structlog

from metastore.queries.workers import asked_to_drain, stopping_on

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from dag.world import Clock
    from metastore.store import Store, Subscription

log = structlog.get_logger(__name__)

#: For how many places it is remembered what they were told.
_REMEMBERED: Final = 10_000
#: How soon a look that failed is taken again.
_PAUSE: Final = 1.0

#: What a place is asked to stop, and why, by attempt.
Asked = dict[str, str]


def asked_of(conn: Any, places: Sequence[str]) -> dict[str, Asked]:
    """Return what each of *places* is asked to stop."""
    found: dict[str, Asked] = {}
    if places:
        for one in stopping_on(conn, places):
            found.setdefault(one.worker_id, {})[one.attempt_id] = one.reason
    return found


class Listener:
    """One supervisor that waits."""

    def __init__(self, directives: Directives, place: str, stopping: Mapping[str, str | None], *, drains: bool) -> None:
        self.asked: Asked = {}
        self.drain = False
        self._directives = directives
        self._place = place
        self._stopping = stopping
        self._drains = drains
        self._news = asyncio.Event()

    def found(self, asked: Asked, *, drain: bool) -> None:
        """Take notice of how it stands; what is new ends the wait."""
        self.asked, self.drain = asked, drain
        if (drain and not self._drains) or self._directives.is_new(self._place, asked, self._stopping):
            self._news.set()

    def take_over(self) -> None:
        """It has shown that it may listen here: older ones need not wait any more."""
        self._directives.release_before(self._place, self)

    def release(self) -> None:
        """End the wait, whether there is something new or not."""
        self._news.set()

    async def until(self, seconds: float) -> None:
        """Wait for something new, at most *seconds*."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._news.wait()


class Directives:
    """What all supervisors of this process are asked."""

    def __init__(self, store: Store, clock: Clock, again: float) -> None:
        self._store = store
        self._clock = clock
        #: What was told is told again after so many seconds, to who does not say that it has heard.
        self._again = again
        self._listeners: dict[str, list[Listener]] = {}
        self._told: OrderedDict[str, dict[tuple[str, str], float]] = OrderedDict()
        self._changes: Subscription | None = None
        self._watch: asyncio.Task[None] | None = None
        self._stopping = False

    @contextmanager
    def listen(self, place: str, stopping: Mapping[str, str | None], *, drains: bool) -> Iterator[Listener]:
        """Hear for *place* from now on; :meth:`Listener.take_over` makes it the only one."""
        listener = Listener(self, place, stopping, drains=drains)
        self._listeners.setdefault(place, []).append(listener)
        if self._stopping:
            listener.release()
        if self._changes is None:
            # Subscribed here and now: what is told from now on is heard.
            self._changes = self._store.subscribe("stop")
            self._watch = asyncio.create_task(self._hear(self._changes), name="directives")
        try:
            yield listener
        finally:
            self._listeners[place].remove(listener)
            if not self._listeners[place]:
                del self._listeners[place]
            if not self._listeners:
                self._rest()

    def is_new(self, place: str, asked: Asked, stopping: Mapping[str, str | None]) -> bool:
        """Whether something of *asked* is neither being done nor told a moment ago.

        A supervisor may not know of an attempt any more whose end is on its way here: it would ask at once again.
        """
        told = self._told.get(place, {})
        now = self._clock.monotonic()
        return any(
            stopping.get(attempt_id) != reason and now - told.get((attempt_id, reason), -self._again) >= self._again
            for attempt_id, reason in asked.items()
        )

    def tell(self, place: str, asked: Asked, stopping: Mapping[str, str | None]) -> Asked:
        """Return what of *asked* is to be told to who does *stopping* already, and remember it."""
        unsaid = {attempt_id: reason for attempt_id, reason in asked.items() if stopping.get(attempt_id) != reason}
        if not unsaid:
            self._told.pop(place, None)
            return unsaid
        now = self._clock.monotonic()
        before = self._told.get(place, {})
        if self.is_new(place, asked, stopping):
            before = {}
        self._told[place] = {one: before.get(one, now) for one in unsaid.items()}
        self._told.move_to_end(place)
        if len(self._told) > _REMEMBERED:
            self._told.popitem(last=False)
        return unsaid

    def stop(self) -> None:
        """End every wait, now and from now on."""
        self._stopping = True
        for listeners in self._listeners.values():
            for listener in listeners:
                listener.release()

    def release_before(self, place: str, newer: Listener) -> None:
        """End the waits of a place's older listeners."""
        listeners = self._listeners[place]
        for listener in listeners[: listeners.index(newer)]:
            listener.release()

    def _rest(self) -> None:
        """Stop to listen while nobody waits."""
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None
        if self._changes is not None:
            self._changes.close()
            self._changes = None

    async def _hear(self, changes: Subscription) -> None:
        while True:
            await changes.wait(None)
            places = list(self._listeners)
            try:
                asked, draining = await self._store.read(_look, places)
            except Exception as error:  # noqa: BLE001  # whatever it is: they look by themselves with the next beat
                log.warning("directives not read", error=str(error))
                await asyncio.sleep(_PAUSE)
                continue
            for place in places:
                for listener in self._listeners.get(place, ()):
                    listener.found(asked.get(place, {}), drain=place in draining)


def _look(conn: Any, places: Sequence[str]) -> tuple[dict[str, Asked], set[str]]:
    return asked_of(conn, places), set(asked_to_drain(conn, places))
