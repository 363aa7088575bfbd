"""Who may say that a transaction committed: a connection that was there before the transaction began.

``pg_xact_status`` speaks of a number, and numbers come again: Postgres does not log that it hands one out, so that
after a crash one whose transaction never reached the disk is somebody else's, and "committed" is about that one.  A
crash of a server ends all its connections, and a server that took over has none of the old one's: what still answers
on a connection that is older than the transaction speaks of that transaction.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

import asyncpg  # type: ignore[import-untyped]  # it ships no types

from metastore.wire import connect

if TYPE_CHECKING:
    from metastore.settings import DatabaseSettings
    from metastore.wire import Timeouts

#: What ``pg_xact_status`` answers about the transaction that has this number.
OUTCOME: Final = "SELECT pg_xact_status($1::text::xid8)"
#: What a driver raises where nobody answers.
_BROKEN: Final = (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError)
#: Seconds between two attempts to open another connection.
_PAUSE: Final = 1.0


class Witness:
    """One process' connection for that; it does nothing else."""

    def __init__(self, settings: DatabaseSettings, timeouts: Timeouts) -> None:
        self._settings = settings
        self._timeouts = timeouts
        self._conn: Any = None
        self._turn = asyncio.Lock()
        self._opening: asyncio.Task[None] | None = None
        self._again_at = 0.0

    async def open(self) -> None:
        """Connect, if that is possible now; the next one who needs it has it tried again."""
        with suppress(*_BROKEN):
            self._conn = await connect(self._settings, self._timeouts, name="runyard witness")

    def present(self) -> Any:
        """Return the connection that will have seen what begins now; None, and soon another one, where it is lost."""
        if self._conn is not None and not self._conn.is_closed():
            return self._conn
        now = asyncio.get_running_loop().time()
        if self._opening is None and now >= self._again_at:
            self._again_at = now + _PAUSE
            self._opening = asyncio.create_task(self._reopen(), name="metastore-witness")
        return None

    async def _reopen(self) -> None:
        try:
            await self.open()
        finally:
            self._opening = None

    async def outcome(self, conn: Any, xid: str) -> str | None:
        """Return what *conn*, which :meth:`present` gave, says of a transaction; None where it does not answer."""
        if conn is None:
            return None
        async with self._turn:
            try:
                said: str | None = await conn.fetchval(OUTCOME, xid)
            except _BROKEN:
                conn.terminate()
                return None
        return said

    async def close(self) -> None:
        if self._opening is not None:
            self._opening.cancel()
            with suppress(asyncio.CancelledError):
                await self._opening
        if self._conn is not None:
            self._conn.terminate()
