"""Hints inside one process: who waits for what.

A hint says "look again", never what changed, so that hints may be merged, repeated or lost.  Everything here runs on
one event loop; other threads come in through ``loop.call_soon_threadsafe``.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from metastore.store import Topic


class Waiter:
    """A level-triggered flag: set by any of its topics, cleared by waiting."""

    __slots__ = ("_event", "_hub", "topics")

    def __init__(self, hub: Hub, topics: frozenset[Topic]) -> None:
        self.topics = topics
        self._hub = hub
        self._event = asyncio.Event()

    def set(self) -> None:
        self._event.set()

    async def wait(self, timeout: float | None) -> bool:  # noqa: ASYNC109  # a deadline is part of the promise
        """Return True when a topic was told since the last wait, False after *timeout* seconds."""
        if not self._event.is_set():
            try:
                async with asyncio.timeout(timeout):
                    await self._event.wait()
            except TimeoutError:
                return False
        self._event.clear()
        return True

    def close(self) -> None:
        self._hub.remove(self)


class Hub:
    """All waiters of a process, by topic."""

    def __init__(self) -> None:
        self._waiters: dict[Topic, set[Waiter]] = {}

    def subscribe(self, *topics: Topic) -> Waiter:
        waiter = Waiter(self, frozenset(topics))
        for topic in waiter.topics:
            self._waiters.setdefault(topic, set()).add(waiter)
        return waiter

    def remove(self, waiter: Waiter) -> None:
        for topic in waiter.topics:
            if (waiters := self._waiters.get(topic)) is not None:
                waiters.discard(waiter)
                if not waiters:
                    del self._waiters[topic]

    def tell(self, topics: Iterable[Topic]) -> None:
        """Wake whoever waits for one of *topics*."""
        for topic in topics:
            for waiter in self._waiters.get(topic, ()):
                waiter.set()

    def tell_all(self) -> None:
        """Wake everybody: hints may have been missed."""
        self.tell(list(self._waiters))
