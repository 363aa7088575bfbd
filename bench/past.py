"""A metastore with a past, made by direct SQL: what a busy installation has after a year, in half a minute.

100,000 runs of ten tasks each: a million task instances with an attempt and an event each, all ended.  Every second run
belongs to one DAG, ``past_big``: it succeeded, but the oldest fifty of them were cancelled.  The others belong to fifty
DAGs where every state is common, so that a list of a state that is rare in one DAG has many runs to get wrong.
"""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Final

import asyncpg  # type: ignore[import-untyped]  # it ships no types

if TYPE_CHECKING:
    from pathlib import Path

    from bench.client import Client

RUNS: Final = 100_000
TASKS: Final = 10
DAGS: Final = 50
BIG: Final = "past_big"

#: i is the number of a run, t that of a task; microseconds since 1970 are what SQLite has for an instant.
_SERIES: Final = {
    "sqlite": "WITH RECURSIVE s(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM s WHERE i < {runs}), "
    "n(t) AS (SELECT 0 UNION ALL SELECT t + 1 FROM n WHERE t < {tasks} - 1)",
    "postgres": "WITH s(i) AS (SELECT generate_series(1, {runs})), n(t) AS (SELECT generate_series(0, {tasks} - 1))",
}
_AT: Final = {
    "sqlite": "1700000000000000 + s.i * 1000000",
    "postgres": "timestamptz 'epoch' + (1700000000 + s.i) * interval '1 second'",
}
_TRUE: Final = {"sqlite": "1", "postgres": "true"}
_DAG: Final = "CASE WHEN s.i % 2 = 0 THEN 'past_big' ELSE 'past_' || (s.i / 2 % {dags}) END"
_STATE: Final = (
    "CASE WHEN s.i % 2 = 0 THEN CASE WHEN s.i <= 100 THEN 'cancelled' ELSE 'success' END "
    "WHEN s.i % 10 = 3 THEN 'cancelled' WHEN s.i % 10 = 7 THEN 'failed' ELSE 'success' END"
)
_SQL: Final = """
INSERT INTO runs (id, dag_id, run_id, version, content_hash, run_type, state, params, labels, run_after, queued_at,
  started_at, ended_at, created_instances, materialised, unfinished, bad, cancelled, seq, request_id, created_by)
{series}
SELECT s.i, v.dag_id, 'past-' || s.i, v.version, v.content_hash, 'manual', {state}, '{{}}',
  CASE WHEN s.i % 10 = 0 THEN '{{"team":"blue"}}' ELSE '{{}}' END, {at}, {at}, {at}, {at}, {tasks}, {true}, 0, 0, 0,
  {tasks}, 'past-' || s.i, 'past'
FROM s JOIN dag_versions v ON v.dag_id = {dag} ORDER BY s.i;

INSERT INTO run_labels (run, name, value)
{series}
SELECT s.i, 'team', 'blue' FROM s WHERE s.i % 10 = 0;

INSERT INTO task_instances (id, run, task_no, task_id, state, try_number, n_success, executor, priority_weight,
  scheduled_at, queued_at, started_at, ended_at)
{series}
SELECT (s.i - 1) * {tasks} + n.t + 1, s.i, n.t, 't' || n.t, 'success', 1, CASE n.t WHEN 0 THEN 0 ELSE 1 END, 'local', 1,
  {at}, {at}, {at}, {at}
FROM s CROSS JOIN n ORDER BY s.i, n.t;

INSERT INTO attempts (id, run, instance, try_number, state, executor, placed_on, queued_at, started_at, ended_at, cause,
  exit_code, log_size)
{series}
SELECT 'past-' || (1000000000 + s.i * 100 + n.t), s.i, (s.i - 1) * {tasks} + n.t + 1, 1, 'success', 'local', 'past',
  {at}, {at}, {at}, 'exit', 0, 0
FROM s CROSS JOIN n ORDER BY s.i, n.t;

INSERT INTO events (at, kind, dag_id, run, run_id, run_seq, task_id, try_number, to_state, actor)
{series}
SELECT {at}, 'task.success', {dag}, s.i, 'past-' || s.i, n.t + 1, 't' || n.t, 1, 'success', 'supervisor'
FROM s CROSS JOIN n ORDER BY s.i, n.t
"""
_NUMBERS: Final = (
    "SELECT setval(pg_get_serial_sequence('runs', 'id'), max(id)) FROM runs",
    "SELECT setval(pg_get_serial_sequence('task_instances', 'id'), max(id)) FROM task_instances",
)


def define(client: Client) -> None:
    """Define the DAGs that will have a past."""
    tasks = {f"t{n}": {"command": ["true"], **({"depends_on": [f"t{n - 1}"]} if n else {})} for n in range(TASKS)}
    for dag_id in (BIG, *(f"past_{n}" for n in range(DAGS))):
        client.define(dag_id, tasks)


def statements(kind: str) -> list[str]:
    """Return the SQL that makes the past of the DAGs that :func:`define` put, on a *kind* of database."""
    sizes = {"runs": RUNS, "tasks": TASKS, "dags": DAGS}
    parts = {
        "series": _SERIES[kind].format(**sizes),
        "at": _AT[kind],
        "dag": _DAG.format(**sizes),
        "state": _STATE,
        "true": _TRUE[kind],
    }
    return _SQL.format(**sizes, **parts).split(";")


def fill(database: Path | str) -> None:
    """Make it all in *database*, a file or the URL of a Postgres, whose service is not running."""
    if isinstance(database, str):
        asyncio.run(_fill_postgres(database))
        return
    with closing(sqlite3.connect(database, isolation_level=None)) as conn:
        conn.execute("BEGIN IMMEDIATE")
        for statement in statements("sqlite"):
            conn.execute(statement)
        conn.execute("COMMIT")
        conn.execute("PRAGMA wal_checkpoint(TRUNCATE)")


async def _fill_postgres(url: str) -> None:
    conn = await asyncpg.connect(url)
    try:
        async with conn.transaction():
            for statement in (*statements("postgres"), *_NUMBERS):
                await conn.execute(statement)
        # What autovacuum does of itself within minutes.
        await conn.execute("VACUUM ANALYZE")
    finally:
        await conn.close()
