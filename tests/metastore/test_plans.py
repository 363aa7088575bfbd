"""How Postgres finds what commands look for: by an index, whatever it believes of the tables' sizes."""

from __future__ import annotations

import json
import pkgutil
import re
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

import asyncpg  # type: ignore[import-untyped]  # it ships no types
import pytest
from sqlalchemy import Executable
from sqlalchemy.dialects.postgresql import asyncpg as asyncpg_dialect
from sqlalchemy.dialects.sqlite import Insert as SqliteInsert

from metastore import commands
from metastore.each import Each, together
from metastore.postgres import PLANNED
from metastore.settings import DatabaseSettings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.databases import PostgresServer

#: What there are many of.
GROW: Final = {"runs", "run_labels", "task_instances", "outputs", "attempts", "staged_outputs", "events"}
_POSTGRES: Final = asyncpg_dialect.dialect()  # type: ignore[no-untyped-call]  # SQLAlchemy's
#: A list whose length SQLAlchemy waits for.
_LIST: Final = re.compile(r"__\[POSTCOMPILE_[^]]*\]")


def statements() -> Iterator[tuple[str, Any]]:
    """Yield every statement that a module of commands has made at its import, with its name."""
    for module in pkgutil.iter_modules(commands.__path__):
        named = vars(import_module(f"metastore.commands.{module.name}"))
        for name, value in named.items():
            for nth, one in enumerate(value.values() if isinstance(value, dict) else [value]):
                if isinstance(one, Each):
                    yield f"{module.name}.{name}", together((one,))
                elif isinstance(one, Executable) and not isinstance(one, SqliteInsert):
                    yield f"{module.name}.{name}[{nth}]", one


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for inner in plan.get("Plans", ()):
        yield from nodes(inner)


@pytest.mark.postgres
async def test_no_command_reads_a_whole_table(postgres_server: PostgresServer) -> None:
    # As a migration leaves it, not one that other tests have emptied: of that the planner knows that nothing is there.
    url = postgres_server.create()
    conn = await asyncpg.connect(DatabaseSettings(url).asyncpg)
    for name, value in PLANNED.items():
        await conn.execute(f"SET {name} = '{value}'")
    partial = {
        row["name"]
        for row in await conn.fetch("SELECT indexrelid::regclass::text AS name FROM pg_index WHERE indpred IS NOT NULL")
    }
    looked_at, found = 0, []
    for what, statement in statements():
        text = _LIST.sub("NULL", str(statement.compile(dialect=_POSTGRES)))
        await conn.execute(f"PREPARE it AS {text}")
        types = await conn.fetchval("SELECT cardinality(parameter_types) FROM pg_prepared_statements WHERE name = 'it'")
        given = f"({', '.join(['NULL'] * types)})" if types else ""
        (plan,) = json.loads(await conn.fetchval(f"EXPLAIN (FORMAT JSON) EXECUTE it{given}"))
        await conn.execute("DEALLOCATE it")
        looked_at += 1
        for node in nodes(plan["Plan"]):
            index = node.get("Index Name", "")
            if node["Node Type"] == "Seq Scan" and node["Relation Name"] in GROW:
                found.append(f"{what} reads all of {node['Relation Name']}")
            elif index and "Index Cond" not in node and index not in partial and _table(index) in GROW:
                found.append(f"{what} reads all of {index}")
    await conn.close()
    postgres_server.drop(url)

    assert found == []
    assert looked_at > 50, "the commands keep their statements elsewhere"


def _table(index: str) -> str:
    return next((table for table in sorted(GROW, key=len, reverse=True) if f"_{table}" in index), "")
