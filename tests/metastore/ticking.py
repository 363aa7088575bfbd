"""A Postgres whose clock obeys, as the one of a store on SQLite does: two plays of one scenario are alike.

What a store asks the database for is ``clock_timestamp()``, in the first statement of every write.  A schema that is
searched before Postgres' own answers it here; each wait of the world outside is one second.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, Self

import asyncpg  # type: ignore[import-untyped]  # it ships no types

from tests.metastore.outside import Outside

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.databases import PostgresServer
    from tests.world import FakeClock

#: A sequence: it goes on for everybody at once, whatever snapshot they look at.
_CLOCK: Final = (
    "CREATE SCHEMA ticking",
    "CREATE SEQUENCE ticking.ticks",
    """
    CREATE FUNCTION ticking.clock_timestamp() RETURNS timestamptz LANGUAGE sql VOLATILE AS $$
        SELECT timestamptz '2026-01-01 00:00:00+00' + (last_value - 1) * interval '1 second' FROM ticking.ticks
    $$
    """,
)


@contextmanager
def lent(server: PostgresServer) -> Iterator[str]:
    """Lend an empty database with such a clock; who fails keeps it."""
    url = server.borrow()
    name = url.partition("?")[0].rpartition("/")[2]
    server.run(*_CLOCK, f"ALTER DATABASE {name} SET search_path = ticking, pg_catalog, public", database=name)
    yield url
    server.give_back(url)
    server.run(f"ALTER DATABASE {name} RESET search_path", "DROP SCHEMA ticking CASCADE", database=name)


class Ticking(Outside):
    """A world outside with which the database's clock goes on."""

    def __init__(self, path: Path, conn: asyncpg.Connection) -> None:
        super().__init__(path)
        self._conn = conn

    @classmethod
    async def open(cls, path: Path, url: str) -> Self:
        """Open the memory, and set the clock of the database at *url* to it."""
        outside = cls(path, await asyncpg.connect(url))
        await outside._tick()
        return outside

    def close(self) -> None:
        self._conn.terminate()
        super().close()

    async def wait(self, clock: FakeClock) -> None:
        await super().wait(clock)
        await self._tick()

    async def _tick(self) -> None:
        await self._conn.execute(f"SELECT setval('ticking.ticks', {self.waits + 1})")
