"""Asking for runs, the newest first."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import bindparam, literal_column, select, union_all

from metastore.models.runs import run_labels, runs
from metastore.queries.dags import starts_with
from metastore.records import RunRecord, columns, many, one

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from sqlalchemy import ColumnElement, Connection, Select

_RUN: Final = columns(RunRecord, runs)
_GET: Final = select(*_RUN).where(runs.c.dag_id == bindparam("dag_id"), runs.c.run_id == bindparam("run_id"))
_BY_ID: Final = select(*_RUN).where(runs.c.id == bindparam("run"))


def get(conn: Connection, dag_id: str, run_id: str) -> RunRecord | None:
    """Return a run by its names."""
    return one(RunRecord, conn.execute(_GET, {"dag_id": dag_id, "run_id": run_id}).first())


def by_id(conn: Connection, run: int) -> RunRecord | None:
    """Return a run by its number."""
    return one(RunRecord, conn.execute(_BY_ID, {"run": run}).first())


def page(  # noqa: PLR0913  # each of them is a filter of the public API
    conn: Connection,
    *,
    limit: int,
    dag_id: str | None = None,
    states: Sequence[str] = (),
    run_types: Sequence[str] = (),
    queued_at_gte: datetime | None = None,
    queued_at_lte: datetime | None = None,
    labels: Mapping[str, str] | None = None,
    dag_prefix: str | None = None,
    before: int | None = None,
) -> list[RunRecord]:
    """Return runs, those accepted last first; *before* is the number of the last run of the previous page."""
    tests: list[ColumnElement[bool]] = []
    if dag_id is not None:
        tests.append(runs.c.dag_id == dag_id)
    if run_types:
        tests.append(runs.c.run_type.in_(run_types))
    if queued_at_gte is not None:
        tests.append(runs.c.queued_at >= queued_at_gte)
    if queued_at_lte is not None:
        tests.append(runs.c.queued_at <= queued_at_lte)
    if dag_prefix:
        tests.append(starts_with(runs.c.dag_id, dag_prefix))
    if before is not None:
        tests.append(runs.c.id < before)
    newest = _newest(tests, tuple(dict.fromkeys(states)), dict(labels or {}), int(limit), by_dag=dag_id is not None)
    return many(RunRecord, conn.execute(newest))


def _newest(
    tests: list[ColumnElement[bool]], states: tuple[str, ...], labels: dict[str, str], limit: int, *, by_dag: bool
) -> Select[Any]:
    """Return the query that walks the best index from its new end and stops at *limit*."""
    if labels:
        # One label leads: its index has the order, the other labels are looked up.
        name, value = labels.popitem()
        newest = select(*_RUN).select_from(runs.join(run_labels, run_labels.c.run == runs.c.id))
        tests = [*tests, run_labels.c.name == name, run_labels.c.value == value]
        for other in labels.items():
            tests.append(_labelled(*other).exists())
        if states:
            tests.append(runs.c.state.in_(states))
        return newest.where(*tests).order_by(run_labels.c.run.desc()).limit(limit)
    if not states and not by_dag:
        return select(*_RUN).where(*tests).order_by(runs.c.id.desc()).limit(limit)
    # One index walk a state, merged: with IN the database would sort every run of these states.  The walks give numbers
    # only: Postgres, which does not know that a state is rare in one DAG, would walk all runs from the newest instead,
    # but not where the index alone answers.  And their LIMIT is told, not bound: a plan for any limit is one for many.
    most: ColumnElement[int] = literal_column(str(limit))
    parts = [
        select(
            select(runs.c.id)
            .where(*tests, *(() if state is None else (runs.c.state == state,)))
            .order_by(runs.c.id.desc())
            .limit(most)
            .subquery()
            .c.id
        )
        for state in states or (None,)
    ]
    found = (parts[0] if len(parts) == 1 else union_all(*parts)).subquery()
    return select(*_RUN).where(runs.c.id.in_(select(found.c.id))).order_by(runs.c.id.desc()).limit(most)


def _labelled(name: str, value: str) -> Select[Any]:
    mine = run_labels.alias()
    return select(mine.c.run).where(mine.c.run == runs.c.id, mine.c.name == name, mine.c.value == value)
