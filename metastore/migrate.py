"""Bring the schema to this release, from a checkout and from an installed wheel alike.

Alembic is imported only where there is something to migrate: a service starts on a database that is already right
without it, and a SQLite file that is new is created from the models (a test compares the two, word by word).
These functions block and may run an event loop of their own; from async code call them by ``asyncio.to_thread``.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
from pathlib import Path
from typing import TYPE_CHECKING, Final

from dag.errors import SchemaMismatch, Unavailable
from metastore.settings import DatabaseSettings

if TYPE_CHECKING:
    from alembic.config import Config

#: Every revision there is, oldest first; a test compares them with the scripts.
REVISIONS: Final = ("0001", "0002", "0003")
HEAD: Final = REVISIONS[-1]

_HERE: Final = Path(__file__).parent
#: In the wheel the scripts are inside this package, in a checkout beside it.
_PACKAGED, _CHECKOUT = _HERE / "migrations", _HERE.parent / "alembic"


def upgrade(url: str) -> bool:
    """Bring the database to this release's schema; return whether anything had to be done."""
    settings = DatabaseSettings(url)
    found = current(url)
    if found == HEAD:
        return False
    _refuse_newer(found)
    if settings.dialect == "sqlite":
        _make_file(settings.path)
        if _create_whole(settings.path):
            return True
    run_scripts(settings)
    return True


def run_scripts(settings: DatabaseSettings) -> None:
    """Run the migrations that are missing, one by one."""
    from alembic import command  # noqa: PLC0415  # see the module's docstring

    command.upgrade(config(settings), HEAD)


def downgrade(url: str, to: str) -> None:
    """Take the database back to revision *to*, or to nothing at all: ``base``."""
    settings = DatabaseSettings(url)
    _refuse_newer(current(url))
    from alembic import command  # noqa: PLC0415  # see the module's docstring

    command.downgrade(config(settings), to)


def check(url: str) -> None:
    """Raise :exc:`~dag.errors.SchemaMismatch` unless the database has exactly this release's schema."""
    found = current(url)
    _refuse_newer(found)
    if found != HEAD:
        raise SchemaMismatch(found, HEAD, newer=False)


def current(url: str) -> str | None:
    """Return the database's revision, None where there is none yet."""
    settings = DatabaseSettings(url)
    try:
        if settings.dialect == "sqlite":
            return _sqlite_revision(settings.path)
        return asyncio.run(_postgres_revision(settings))
    except (OSError, TimeoutError, sqlite3.Error) as error:
        msg = f"The database {settings.shown} cannot be reached: {error or type(error).__name__}. {_way_out(error)}"
        raise Unavailable(msg) from error


def _way_out(error: Exception) -> str:
    if not isinstance(error, sqlite3.Error):
        return "Start the database server, or mend RUNYARD_DATABASE_URL."
    if isinstance(error, sqlite3.OperationalError):
        return "Look at the file's owner and mode, and whether another program has locked it."
    return (
        "The file is damaged or none of SQLite's: put a copy in its place, or move it away to begin with an empty one."
    )


def config(settings: DatabaseSettings) -> Config:
    """Return an Alembic configuration that needs no ini file."""
    from alembic.config import Config  # noqa: PLC0415  # see the module's docstring

    config = Config()
    config.set_main_option("script_location", str(_PACKAGED if _PACKAGED.is_dir() else _CHECKOUT))
    config.attributes["settings"] = settings  # an attribute, not an option: a % in a password is no interpolation
    return config


def _refuse_newer(found: str | None) -> None:
    if found is not None and found not in REVISIONS:
        raise SchemaMismatch(found, HEAD, newer=True)


def _sqlite_revision(path: Path) -> str | None:
    if not path.exists():
        return None
    conn = sqlite3.connect(path, timeout=5)
    try:
        known = conn.execute("SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'alembic_version'").fetchone()
        row = conn.execute("SELECT version_num FROM alembic_version").fetchone() if known else None
    finally:
        conn.close()
    return None if row is None else str(row[0])


async def _postgres_revision(settings: DatabaseSettings) -> str | None:
    import asyncpg  # type: ignore[import-untyped]  # noqa: PLC0415  # it ships no types; only where Postgres is used

    try:
        conn = await asyncpg.connect(settings.asyncpg, timeout=10, command_timeout=30)
    except asyncpg.PostgresError as error:
        msg = f"The database {settings.shown} cannot be used: {error}. Look at RUNYARD_DATABASE_URL."
        raise Unavailable(msg) from error
    try:
        if await conn.fetchval("SELECT to_regclass('alembic_version')") is None:
            return None
        found = await conn.fetchval("SELECT version_num FROM alembic_version")
    finally:
        await conn.close(timeout=5)
    return None if found is None else str(found)


def _make_file(path: Path) -> None:
    """Make the file, for its owner only, in the journal mode that it keeps."""
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
    except FileExistsError:
        return
    except OSError as error:
        msg = f"The database {path} cannot be created: {error.strerror}."
        raise Unavailable(msg) from error
    conn = sqlite3.connect(path, timeout=30)
    conn.execute("PRAGMA journal_mode = WAL").close()
    conn.close()


def _create_whole(path: Path) -> bool:
    """Create this release's tables in an empty file; return False where it is not empty."""
    from sqlalchemy import create_engine  # noqa: PLC0415  # a check of the revision does without
    from sqlalchemy.pool import NullPool  # noqa: PLC0415  # as above

    from metastore.schema import metadata  # noqa: PLC0415  # as above

    def connect() -> sqlite3.Connection:
        return sqlite3.connect(path, isolation_level=None, timeout=30)

    with create_engine("sqlite://", creator=connect, poolclass=NullPool).begin() as conn:
        conn.exec_driver_sql("BEGIN IMMEDIATE")  # the driver is in autocommit: nobody else sends it
        if conn.exec_driver_sql("SELECT 1 FROM sqlite_master").first() is not None:
            return False
        metadata.create_all(conn, checkfirst=False)
        conn.exec_driver_sql(_VERSION_TABLE)
        conn.exec_driver_sql("INSERT INTO alembic_version (version_num) VALUES (?)", (HEAD,))
    return True


#: As Alembic itself writes it.
_VERSION_TABLE: Final = (
    "CREATE TABLE alembic_version (\n\tversion_num VARCHAR(32) NOT NULL, "
    "\n\tCONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)\n)"
)
