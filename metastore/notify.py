"""Hints between processes: LISTEN and NOTIFY on one connection of their own.

A NOTIFY inside a transaction takes a lock of the whole database cluster at COMMIT, so these are sent afterwards, in
autocommit, and at most one in a window however many topics there are.  A hint that is lost costs latency, nothing else.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

import asyncpg  # type: ignore[import-untyped]  # it ships no types

from metastore.wire import connect

if TYPE_CHECKING:
    from collections.abc import Iterable

    from dag.world import Entropy
    from metastore.hints import Hub
    from metastore.settings import DatabaseSettings
    from metastore.store import Topic
    from metastore.wire import Timeouts

CHANNEL: Final = "runyard"
#: Seconds between two notifications of one process; the first goes out at once.
_WINDOW: Final = 0.05
#: Postgres refuses payloads of 8,000 bytes; an empty one means everything.
_LARGEST: Final = 7_000
#: How often the connection has to prove that it is alive.
_WATCH: Final = 10.0


class Exchange:
    """One process' ear and voice."""

    def __init__(self, settings: DatabaseSettings, timeouts: Timeouts, hub: Hub, entropy: Entropy) -> None:
        self._settings = settings
        self._timeouts = timeouts
        self._hub = hub
        self._entropy = entropy
        self._pending: set[Topic] = set()
        self._wake = asyncio.Event()
        self.listening = asyncio.Event()
        self._task = asyncio.create_task(self._run(), name="metastore-hints")

    def tell(self, topics: Iterable[Topic]) -> None:
        """Tell other processes, soon."""
        self._pending.update(topics)
        self._wake.set()

    async def close(self) -> None:
        self._task.cancel()
        with suppress(asyncio.CancelledError):
            await self._task

    async def _run(self) -> None:
        failures = 0
        while True:
            with suppress(OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
                conn = await connect(self._settings, self._timeouts, name="runyard hints")
                try:
                    await self._serve(conn)
                finally:
                    failures = 0 if self.listening.is_set() else failures + 1
                    self.listening.clear()
                    conn.terminate()
            self._pending.clear()
            await asyncio.sleep(min(5.0, 0.1 * 2 ** min(failures, 6)) * (0.5 + self._entropy.luck()))

    async def _serve(self, conn: Any) -> None:
        gone = asyncio.Event()

        def lost(_conn: Any) -> None:
            gone.set()
            self._wake.set()

        conn.add_termination_listener(lost)
        me = conn.get_server_pid()

        def heard(_conn: Any, sender: int, _channel: str, payload: str) -> None:
            if sender == me:
                return
            if payload:
                self._hub.tell(payload.split("\n"))
            else:
                self._hub.tell_all()

        await conn.add_listener(CHANNEL, heard)
        self._hub.tell_all()  # what was said while nobody listened is lost
        self.listening.set()
        while not gone.is_set():
            try:
                async with asyncio.timeout(_WATCH):
                    await self._wake.wait()
            except TimeoutError:
                await conn.execute("SELECT 1")
                continue
            self._wake.clear()
            if self._pending:
                payload = "\n".join(sorted(self._pending))
                self._pending.clear()
                await conn.execute(
                    "SELECT pg_notify($1, $2)", CHANNEL, payload if len(payload.encode()) <= _LARGEST else ""
                )
                await asyncio.sleep(_WINDOW)
