"""Migrations: up, down and up again on both databases, and the same tables as the models say."""

from __future__ import annotations

import asyncio
import re
import sqlite3
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import asyncpg  # type: ignore[import-untyped]  # it ships no types
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, create_engine
from sqlalchemy.dialects.postgresql.base import ischema_names
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from dag.errors import SchemaMismatch, Unavailable
from metastore import migrate
from metastore.models.events import Xid8
from metastore.schema import TABLES, metadata
from metastore.settings import DatabaseSettings
from metastore.wire import Timeouts, connect
from tests.databases import PostgresServer, elsewhere

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def empty_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A database with nothing in it."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'new.db'}"
        return
    server: PostgresServer = request.getfixturevalue("postgres_server")
    url = server.create(empty=True)
    yield url
    server.drop(url)


def tables(url: str) -> set[str]:
    settings = DatabaseSettings(url)
    if settings.dialect == "sqlite":
        conn = sqlite3.connect(settings.path)
        rows = conn.execute(
            "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'"
        ).fetchall()
        conn.close()
        return {name for (name,) in rows}

    async def ask() -> list[Any]:
        pg = await connect(settings, Timeouts())
        found = await pg.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
        await pg.close()
        return list(found)

    return {row[0] for row in elsewhere(ask())}


def test_up_down_and_up_again(empty_url: str) -> None:
    assert migrate.current(empty_url) is None

    assert migrate.upgrade(empty_url)
    assert tables(empty_url) == {*TABLES, "alembic_version"}
    assert migrate.current(empty_url) == migrate.HEAD
    migrate.check(empty_url)

    migrate.downgrade(empty_url, "base")
    assert tables(empty_url) == {"alembic_version"}
    with pytest.raises(SchemaMismatch, match="runyard db upgrade"):
        migrate.check(empty_url)

    assert migrate.upgrade(empty_url)
    assert not migrate.upgrade(empty_url)
    assert tables(empty_url) == {*TABLES, "alembic_version"}


def test_the_known_revisions_are_those_of_the_scripts() -> None:
    scripts = ScriptDirectory.from_config(migrate.config(DatabaseSettings("sqlite:///unused.db")))

    assert [script.revision for script in scripts.walk_revisions()][::-1] == list(migrate.REVISIONS)


def differences(conn: Connection) -> list[Any]:
    options = {"compare_type": True, "compare_server_default": conn.dialect.name == "sqlite"}
    return list(compare_metadata(MigrationContext.configure(conn, opts=options), metadata))


#: Alembic compares no indexes with expressions.
DESCENDING = {"ix_task_instances_blocked", "ix_task_instances_offers", "ix_task_instances_ready"}


def test_models_and_migrations_agree_on_sqlite(sqlite_url: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("ERROR", "alembic")  # it guesses at indexes with DESC, which the next test compares
    engine = create_engine(sqlite_url, poolclass=NullPool)
    with engine.connect() as conn:
        found = [what for what in differences(conn) if getattr(what[1], "name", "") not in DESCENDING]
    assert found == []


def test_a_new_file_is_what_the_migrations_make_of_it(tmp_path: Path) -> None:
    """What the comparison above does not look at: checks, STRICT, conditions and order of indexes, defaults."""
    created, migrated = (f"sqlite:///{tmp_path / name}.db" for name in ("created", "migrated"))

    migrate.upgrade(created)
    migrate.run_scripts(DatabaseSettings(migrated))

    assert ddl(created) == ddl(migrated)
    assert migrate.current(created) == migrate.current(migrated) == migrate.HEAD


def ddl(url: str) -> dict[str, list[str]]:
    conn = sqlite3.connect(DatabaseSettings(url).path)
    rows = conn.execute("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL").fetchall()
    conn.close()
    return {name: sorted(_lines(sql)) for name, sql in rows}


def _lines(sql: str) -> Iterator[str]:
    """Yield what is said, a part for every column and constraint, whatever their order and the spaces.

    ``ALTER TABLE`` writes a new column at the end, on no line of its own, and a table that was made anew has its
    name in quotes.
    """
    depth, part = 0, ""
    for letter in re.sub(r"\s+", " ", sql).replace('"', ""):
        depth += (letter == "(") - (letter == ")")
        if (letter == "," and depth == 1) or (letter in "()" and depth == (letter == "(")):
            yield part.strip()
            part = ""
        else:
            part += letter
    yield part.strip()


@pytest.mark.postgres
async def test_models_and_migrations_agree_on_postgres(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ischema_names, "xid8", Xid8)  # SQLAlchemy does not know it
    settings = DatabaseSettings(postgres_url)

    async def wire(**_: Any) -> Any:
        return await connect(settings, Timeouts())

    engine = create_async_engine("postgresql+asyncpg://", async_creator=wire, poolclass=NullPool)
    async with engine.connect() as conn:
        found = await conn.run_sync(differences)
    await engine.dispose()

    # One index is of the log's order on Postgres, and on no other database.
    assert [(what, getattr(thing, "name", thing)) for what, thing, *_ in found] == [("remove_index", "ix_events_order")]


@pytest.mark.postgres
async def test_partial_indexes_have_the_same_conditions_on_postgres(
    postgres_server: PostgresServer, postgres_url: str
) -> None:
    """The comparison does not look at conditions; Postgres itself says how it has understood them."""
    url = await asyncio.to_thread(postgres_server.create, empty=True)
    settings = DatabaseSettings(url)

    async def wire(**_: Any) -> Any:
        return await connect(settings, Timeouts())

    engine = create_async_engine("postgresql+asyncpg://", async_creator=wire, poolclass=NullPool)
    async with engine.begin() as conn:
        await conn.run_sync(metadata.create_all)
    await engine.dispose()

    created, migrated = await definitions(url), await definitions(postgres_url)
    await asyncio.to_thread(postgres_server.drop, url)
    only = {name: migrated.pop(name) for name in ("ix_events_order", "alembic_version_pkc")}
    assert "(xid, id)" in only["ix_events_order"]
    assert migrated == created


async def definitions(url: str) -> dict[str, str]:
    """Return every index and constraint, as Postgres writes them."""
    conn = await asyncpg.connect(url)
    rows = await conn.fetch(
        "SELECT indexname, indexdef FROM pg_indexes WHERE schemaname = 'public' UNION ALL "
        "SELECT conname, pg_get_constraintdef(oid) FROM pg_constraint "
        "WHERE connamespace = 'public'::regnamespace AND contype IN ('c', 'f')"
    )
    await conn.close()
    return {row[0]: row[1] for row in rows}


@pytest.mark.postgres
async def test_an_event_notes_its_transaction_on_postgres(postgres_url: str) -> None:
    conn = await asyncpg.connect(postgres_url)
    async with conn.transaction():
        mine = await conn.fetchval("SELECT pg_current_xact_id()::text")
        noted = await conn.fetchval(
            "INSERT INTO events (at, kind, actor) VALUES (now(), 'x', 'system') RETURNING xid::text"
        )
    await conn.close()

    assert noted == mine


def test_services_that_start_together_migrate_once(empty_url: str) -> None:
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(lambda _: _process("upgrade", empty_url), range(3)))

    assert migrate.current(empty_url) == migrate.HEAD
    assert tables(empty_url) == {*TABLES, "alembic_version"}


def _process(what: str, url: str) -> None:
    code = f"import sys; from metastore import migrate; migrate.{what}(sys.argv[1])"
    subprocess.run([sys.executable, "-c", code, url], cwd=ROOT, check=True, capture_output=True, timeout=60)


def test_a_database_of_a_newer_release_is_refused_by_name(sqlite_url: str) -> None:
    conn = sqlite3.connect(DatabaseSettings(sqlite_url).path)
    conn.execute("UPDATE alembic_version SET version_num = '0999'")
    conn.commit()
    conn.close()

    for ask in (migrate.check, migrate.upgrade, lambda url: migrate.downgrade(url, "base")):
        with pytest.raises(SchemaMismatch) as refused:
            ask(sqlite_url)
        assert "'0999'" in str(refused.value)
        assert f"'{migrate.HEAD}'" in str(refused.value)
        assert f"runyard db downgrade {migrate.HEAD}" in str(refused.value)


def test_a_migrated_database_is_opened_without_alembic(sqlite_url: str) -> None:
    code = (
        "import sys; from metastore import migrate; migrate.upgrade(sys.argv[1]); migrate.check(sys.argv[1]); "
        "sys.exit(int(any(name in sys.modules for name in ('alembic', 'asyncpg', 'sqlalchemy.ext.asyncio'))))"
    )
    done = subprocess.run([sys.executable, "-c", code, sqlite_url], cwd=ROOT, check=False, timeout=60)

    assert done.returncode == 0


@pytest.mark.parametrize("way", ["upgrade(url)", "run_scripts(migrate.DatabaseSettings(url))"])
def test_a_migration_that_is_killed_at_any_statement_has_done_nothing(tmp_path: Path, way: str) -> None:
    """SQLite: the process dies at the n-th statement; what is there afterwards is nothing, or everything."""
    url = f"sqlite:///{tmp_path / 'new.db'}"
    code = (
        "import os, sqlite3, sys; from sqlalchemy import Engine, event; from metastore import migrate\n"
        "left = int(sys.argv[2])\n"
        "@event.listens_for(Engine, 'before_cursor_execute')\n"
        "def _(*_):\n"
        "    global left; left -= 1\n"
        "    if left == 0: os._exit(9)\n"
        f"url = sys.argv[1]; migrate.{way}\n"
    )
    for left in (3, 25):
        done = subprocess.run([sys.executable, "-c", code, url, str(left)], cwd=ROOT, check=False, timeout=60)
        assert done.returncode == 9
        assert tables(url) == set()

    migrate.upgrade(url)
    migrate.check(url)


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="cannot be created"):
        migrate.upgrade(f"sqlite:///{tmp_path / 'nowhere' / 'new.db'}")


def test_a_server_that_is_not_there_is_named_without_its_password() -> None:
    with pytest.raises(Unavailable) as unavailable:
        migrate.current("postgresql://me:s3cret@127.0.0.1:1/nothing")

    assert "127.0.0.1:1" in str(unavailable.value)
    assert "RUNYARD_DATABASE_URL" in str(unavailable.value)
    assert "s3cret" not in str(unavailable.value)


def test_a_file_that_is_no_database_is_named_with_a_way_out(tmp_path: Path) -> None:
    path = tmp_path / "runyard.db"
    path.write_text("This is a letter. " * 500)
    with pytest.raises(Unavailable, match=r"runyard\.db .*not a database.*put a copy in its place"):
        migrate.upgrade(f"sqlite:///{path}")


def test_the_file_is_its_owners_only(sqlite_files: Any, tmp_path: Path) -> None:  # noqa: ARG001  # alembic is warm
    path = tmp_path / "new.db"
    migrate.upgrade(f"sqlite:///{path}")

    assert path.stat().st_mode & 0o777 == 0o600


def test_the_folder_of_migrations_never_becomes_a_package() -> None:
    assert not (ROOT / "alembic" / "__init__.py").exists()
