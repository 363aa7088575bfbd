"""How Postgres finds the rows that commands write: by their primary keys, whatever it believes of the tables' sizes."""

from __future__ import annotations

import json
import pkgutil
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

import asyncpg  # type: ignore[import-untyped]  # it ships no types
import pytest
from sqlalchemy.dialects.postgresql import asyncpg as asyncpg_dialect

from metastore import commands
from metastore.each import Write, together
from metastore.postgres import PLANNED
from metastore.settings import DatabaseSettings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.databases import PostgresServer

_POSTGRES: Final = asyncpg_dialect.dialect()  # type: ignore[no-untyped-call]  # SQLAlchemy has not typed it


def writes() -> Iterator[tuple[str, Write]]:
    """Yield every write of several rows that a module of commands has, with its name."""
    for module in pkgutil.iter_modules(commands.__path__):
        for name, value in vars(import_module(f"metastore.commands.{module.name}")).items():
            if isinstance(value, Write):
                yield f"{module.name}.{name}", value


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for inner in plan.get("Plans", ()):
        yield from nodes(inner)


@pytest.mark.postgres
async def test_rows_are_found_by_their_keys(postgres_server: PostgresServer) -> None:
    # As a migration leaves it, not one that other tests have emptied: of that the planner knows that nothing is there.
    url = postgres_server.create()
    conn = await asyncpg.connect(DatabaseSettings(url).asyncpg)
    for name in PLANNED:
        await conn.execute(f"SET {name} = off")
    await conn.execute("SET plan_cache_mode = force_generic_plan")
    by: dict[str, set[str]] = {}
    for what, one in writes():
        await conn.execute(f"PREPARE it AS {together((one,)).compile(dialect=_POSTGRES)}")
        count = "SELECT cardinality(parameter_types) FROM pg_prepared_statements WHERE name = 'it'"
        nulls = ", ".join(["NULL"] * await conn.fetchval(count))
        (plan,) = json.loads(await conn.fetchval(f"EXPLAIN (FORMAT JSON) EXECUTE it({nulls})"))
        await conn.execute("DEALLOCATE it")
        by[what] = {
            f"{node.get('Index Name', node['Node Type'])}{' by its key' if 'Index Cond' in node else ''}"
            for node in nodes(plan["Plan"])
            if "Scan" in node["Node Type"] and node["Node Type"] not in {"Function Scan", "CTE Scan"}
        }
    await conn.close()
    postgres_server.drop(url)

    instances, of_attempts, of_runs = "pk_task_instances by its key", "pk_attempts by its key", "pk_runs by its key"
    assert by == {
        "admission._QUEUE": {instances},
        "admission._ADD_ATTEMPTS": set(),
        "admission._CHANGE_USE": {"pk_limits by its key"},
        "moves._START_ATTEMPT": {of_attempts},
        "moves._START_INSTANCE": {instances},
        "moves._END_ATTEMPT": {of_attempts},
        "moves._END_INSTANCE": {instances},
        "turn._CLOSE": {of_runs},
        "turn._CLOSE_MOVED": {of_runs},
        "turn._ADD_EVENTS": set(),
    }
