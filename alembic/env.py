"""How migrations are run: alone, and each of them whole or not at all.

SQLite: everything in one BEGIN IMMEDIATE.  Postgres: one transaction a migration under an advisory lock, so that
several services may start at once; a migration waits only briefly for tables that are in use, and fails rather than
hold up everybody else.
"""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING

from alembic import context
from sqlalchemy import create_engine, event, text
from sqlalchemy.pool import NullPool

from metastore.schema import metadata
from metastore.settings import DatabaseSettings

if TYPE_CHECKING:
    from sqlalchemy import Connection

#: Any number will do, as long as it stays the same.
LOCK = 7_242_630_451


def configure(connection: Connection) -> None:
    sqlite = connection.dialect.name == "sqlite"
    context.configure(
        connection=connection,
        target_metadata=metadata,
        transactional_ddl=True,  # true of SQLite as well, as long as BEGIN is sent by hand
        transaction_per_migration=not sqlite,
        render_as_batch=sqlite,
    )


def on_sqlite(settings: DatabaseSettings) -> None:
    engine = create_engine(f"sqlite:///{settings.path}", connect_args={"isolation_level": None}, poolclass=NullPool)

    @event.listens_for(engine, "begin")
    def _(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    with engine.begin() as connection:
        configure(connection)
        context.run_migrations()


async def on_postgres(settings: DatabaseSettings) -> None:
    from sqlalchemy.ext.asyncio import create_async_engine  # noqa: PLC0415  # greenlet, which SQLite does without

    engine = create_async_engine(
        settings.asyncpg.replace("postgresql:", "postgresql+asyncpg:", 1),
        poolclass=NullPool,
        connect_args={"timeout": 10, "server_settings": {"application_name": "runyard migrate"}},
    )
    async with engine.connect() as connection:
        await connection.run_sync(locked)
    await engine.dispose()


def locked(connection: Connection) -> None:
    connection.execute(text("SELECT pg_advisory_lock(:lock)"), {"lock": LOCK})
    connection.execute(text("SET lock_timeout = '10s'"))
    connection.commit()
    try:
        configure(connection)
        with context.begin_transaction():
            context.run_migrations()
    finally:
        connection.rollback()
        connection.execute(text("SELECT pg_advisory_unlock(:lock)"), {"lock": LOCK})
        connection.commit()


def run() -> None:
    given = context.config.attributes.get("settings")
    settings = given or DatabaseSettings(os.environ["RUNYARD_DATABASE_URL"])
    if settings.dialect == "sqlite":
        on_sqlite(settings)
    else:
        asyncio.run(on_postgres(settings))


run()
