"""Asking for runs, the newest first."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import bindparam, select, union_all

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
    return many(RunRecord, conn.execute(_newest(tests, tuple(dict.fromkeys(states)), dict(labels or {}), limit)))


def _newest(
    tests: list[ColumnElement[bool]], states: tuple[str, ...], labels: dict[str, str], limit: int
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
    if len(states) < 2:  # noqa: PLR2004  # one state, or any
        tests = [*tests, *(runs.c.state == s for s in states)]
        return select(*_RUN).where(*tests).order_by(runs.c.id.desc()).limit(limit)
    # One index walk a state, merged: with IN the database would sort every run of these states.
    parts = [
        select(
            select(runs.c.id).where(*tests, runs.c.state == s).order_by(runs.c.id.desc()).limit(limit).subquery().c.id
        )
        for s in states
    ]
    merged = union_all(*parts).subquery()
    return select(*_RUN).where(runs.c.id.in_(select(merged.c.id))).order_by(runs.c.id.desc()).limit(limit)


def _labelled(name: str, value: str) -> Select[Any]:
    mine = run_labels.alias()
    return select(mine.c.run).where(mine.c.run == runs.c.id, mine.c.name == name, mine.c.value == value)
