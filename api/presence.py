"""Presence: the metastore knows when an API served, so that no lease runs out for time in which none did."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Final

import structlog

from metastore.commands.agents import silence
from metastore.commands.workers import mark_serving

if TYPE_CHECKING:
    from datetime import timedelta

    from metastore.store import Store

log = structlog.get_logger(__name__)

#: How often a process that serves says so, in the time after which its silence is an outage.
_TIMES: Final = 3


class Presence:
    """Says that this process serves, for as long as it takes requests."""

    def __init__(self, store: Store, lease: timedelta) -> None:
        """*lease* is what workers have: an outage has to be noticed before it."""
        self._store = store
        self._gap = silence(lease)
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Say it now, and go on saying it."""
        await self._say()
        self._task = asyncio.create_task(self._go_on(), name="presence")

    def cease(self) -> None:
        """Say it no more: no further request is taken, though those that are there are still answered."""
        if self._task is not None:
            self._task.cancel()

    async def stop(self) -> None:
        self.cease()
        if self._task is not None:
            with suppress(asyncio.CancelledError):
                await self._task

    async def _go_on(self) -> None:
        while True:
            await asyncio.sleep(self._gap.total_seconds() / _TIMES)
            await self._say()

    async def _say(self) -> None:
        try:
            await self._store.write(mark_serving, self._gap)
        except Exception as error:  # noqa: BLE001  # whatever it is, it is said again; workers cannot be heard meanwhile
            log.warning("presence not noted", error=str(error))
