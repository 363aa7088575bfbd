"""Hints between processes: LISTEN and NOTIFY on one connection of their own.

A NOTIFY inside a transaction takes a lock of the whole database cluster at COMMIT, so these are sent afterwards, in
autocommit, and at most one in a window however many topics there are.  A hint that is lost costs latency, nothing else;
a process that stopped listening would lose all of them, so whatever goes wrong here ends in another connection.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

import structlog

from metastore.wire import connect

if TYPE_CHECKING:
    from collections.abc import Iterable

    from dag.world import Entropy
    from metastore.hints import Hub
    from metastore.settings import DatabaseSettings
    from metastore.store import Topic
    from metastore.wire import Timeouts

log = structlog.get_logger(__name__)

CHANNEL: Final = "runyard"
#: Seconds between two notifications of one process; the first goes out at once.
_WINDOW: Final = 0.05
#: Postgres refuses payloads of 8,000 bytes; an empty one means everything.
_LARGEST: Final = 7_000
#: How often the connection has to prove that it is alive.
_WATCH: Final = 10.0
#: Seconds until another connection is tried: after a good one, and at most.
_SOONEST: Final = 0.1
_LATEST: Final = 5.0
#: While nobody can be told, more topics than these become "everything".
_MOST_PENDING: Final = 1_000


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
        self._everything = False
        self._failures = 0
        self._closed = False
        self._task = self._start()

    def tell(self, topics: Iterable[Topic]) -> None:
        """Tell other processes, soon."""
        self._pending.update(topics)
        if len(self._pending) > _MOST_PENDING:
            self._pending.clear()
            self._everything = True
        self._wake.set()

    async def close(self) -> None:
        self._closed = True
        self._task.cancel()
        with suppress(asyncio.CancelledError):
            await self._task

    def _start(self) -> asyncio.Task[None]:
        task = asyncio.create_task(self._run(), name="metastore-hints")
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        """Begin again after an end that nobody asked for; without hints all work waits for the next look around."""
        if self._closed or task.cancelled():
            return
        log.error("hints ended unexpectedly", exc_info=task.exception())
        self._failures += 1
        self._task = self._start()

    async def _run(self) -> None:
        while not self._closed:
            if self._failures:
                await asyncio.sleep(self._pause())
            self._failures += 1
            try:
                await self._connected()
            except asyncio.CancelledError:
                if self._closed or _asked_to_stop():
                    raise
                log.warning("hints interrupted", error="cancelled by the driver")
            except Exception as error:  # noqa: BLE001  # a broken driver raises what it likes, and this must go on
                log.warning("hints interrupted", error=str(error), kind=type(error).__name__)

    def _pause(self) -> float:
        longest = min(_LATEST, _SOONEST * 2 ** min(self._failures - 1, 6))
        return float(longest * (0.5 + self._entropy.luck() / 2))

    async def _connected(self) -> None:
        conn = await connect(self._settings, self._timeouts, name="runyard hints")
        try:
            await self._serve(conn)
        finally:
            self.listening.clear()
            conn.terminate()

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
        self._failures = 1
        self._wake.set()  # for what has come together meanwhile
        while not gone.is_set():
            try:
                async with asyncio.timeout(_WATCH):
                    await self._wake.wait()
            except TimeoutError:
                await conn.execute("SELECT 1")
                continue
            self._wake.clear()
            if (self._pending or self._everything) and not gone.is_set():
                await self._say(conn)
                await asyncio.sleep(_WINDOW)
        msg = "The connection was lost."
        raise ConnectionError(msg)

    async def _say(self, conn: Any) -> None:
        """Send what is pending; if that fails, the next connection says "everything"."""
        payload = "" if self._everything else "\n".join(sorted(self._pending))
        if len(payload.encode()) > _LARGEST:
            payload = ""
        self._pending.clear()
        self._everything = False
        try:
            await conn.execute("SELECT pg_notify($1, $2)", CHANNEL, payload)
        except BaseException:
            self._everything = True
            raise


def _asked_to_stop() -> bool:
    task = asyncio.current_task()
    return task is None or task.cancelling() > 0
