"""What a SQL metastore holds in the end, read from outside of the simulated world."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from dag.states import RUN_FINAL
from tests.simulation.store import Dump

if TYPE_CHECKING:
    import sqlite3

_EVENT: Final = (
    "id", "at", "kind", "dag_id", "run_id", "run_seq", "task_id", "map_index", "try_number", "attempt_id",
    "from_state", "to_state", "actor", "reason", "data",
)  # fmt: skip
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
#: Runs that nothing holds back: neither a paused DAG nor a time to come.
_ACTIVE: Final = "SELECT count(*) FROM attempts WHERE state IN ('queued', 'running')"


def dump(raw: sqlite3.Connection, capacities: list[tuple[int, str, int | None]]) -> Dump:
    """Return everything that a history is made of."""
    events = [_event(row) for row in raw.execute(f"SELECT {', '.join(_EVENT)} FROM events ORDER BY id")]  # noqa: S608  # names of columns
    counts: dict[int, dict[str, int]] = {}
    for run, state, number in raw.execute(
        "SELECT run, state, count(*) FROM task_instances GROUP BY 1, 2 ORDER BY 1, 2"
    ):
        counts.setdefault(run, {})[state] = number
    runs = [
        {"dag_id": dag_id, "run_id": run_id, "state": state, "version": version, "counts": counts.get(number, {})}
        for number, dag_id, run_id, state, version in raw.execute(
            "SELECT id, dag_id, run_id, state, version FROM runs ORDER BY id"
        )
    ]
    names = ("dag_id", "run_id", "task_id", "map_index", "state", "try_number", "failures", "losses")
    instances = [
        dict(zip(names, row, strict=True))
        for row in raw.execute(
            "SELECT r.dag_id, r.run_id, t.task_id, t.map_index, t.state, t.try_number, t.failures, t.losses "
            "FROM task_instances t JOIN runs r ON r.id = t.run ORDER BY t.id"
        )
    ]
    documents = [
        (dag_id, version, json.loads(document))
        for dag_id, version, document in raw.execute(
            "SELECT dag_id, version, document FROM dag_versions ORDER BY dag_id, version"
        )
    ]
    used = dict(raw.execute("SELECT key, used FROM limits ORDER BY key").fetchall())
    held = [
        f"{dag_id}/{run_id}"
        for dag_id, run_id in raw.execute(
            "SELECT r.dag_id, r.run_id FROM runs r JOIN dags d ON d.dag_id = r.dag_id "
            "WHERE r.state = 'queued' AND d.paused ORDER BY r.id"
        )
    ]
    return Dump(events, capacities, documents, runs, instances, used, held)


def _event(row: tuple[Any, ...]) -> dict[str, Any]:
    event = dict(zip(_EVENT, row, strict=True))
    event["at"] = (_EPOCH + timedelta(microseconds=event["at"])).isoformat()
    event["data"] = None if event["data"] is None else json.loads(event["data"])
    return event


def last_event(raw: sqlite3.Connection) -> int:
    """Return the number of the last event that is committed."""
    (number,) = raw.execute("SELECT coalesce(max(id), 0) FROM events").fetchone()
    return int(number)


def is_at_rest(raw: sqlite3.Connection) -> bool:
    """Whether every run that nothing holds back has ended, and no slot is taken."""
    waiting = raw.execute(
        "SELECT r.state FROM runs r JOIN dags d ON d.dag_id = r.dag_id WHERE NOT (r.state = 'queued' AND d.paused)"
    ).fetchall()
    open_runs = [state for (state,) in waiting if state not in RUN_FINAL]
    (taken,) = raw.execute("SELECT count(*) FROM limits WHERE used > 0").fetchone()
    (active,) = raw.execute(_ACTIVE).fetchone()
    return not open_runs and not taken and not active
