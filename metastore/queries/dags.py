"""Asking for DAGs and their versions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import and_, bindparam, func, select

from metastore.models.dags import dag_tags, dag_versions, dags
from metastore.records import DagRecord, DagVersionRecord, DagVersionSummary, columns, many, one

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import ColumnElement, Connection

_DAG: Final = columns(DagRecord, dags)
_GET: Final = select(*_DAG).where(dags.c.dag_id == bindparam("dag_id"))
_VERSION: Final = columns(DagVersionRecord, dag_versions)
_DOCUMENT: Final = select(*_VERSION).where(
    dag_versions.c.dag_id == bindparam("dag_id"), dag_versions.c.version == bindparam("version")
)
_VERSIONS: Final = (
    select(*columns(DagVersionSummary, dag_versions))
    .where(dag_versions.c.dag_id == bindparam("dag_id"), dag_versions.c.version < bindparam("before"))
    .order_by(dag_versions.c.version.desc())
    .limit(bindparam("most"))
)


def get(conn: Connection, dag_id: str, *, prefix: str | None = None) -> DagRecord | None:
    """Return a DAG, unless its id does not start with *prefix*: for the caller there is none then."""
    if prefix is not None and not dag_id.startswith(prefix):
        return None
    return one(DagRecord, conn.execute(_GET, {"dag_id": dag_id}).first())


def document(conn: Connection, dag_id: str, version: int) -> DagVersionRecord | None:
    """Return one version of a DAG with its document."""
    return one(DagVersionRecord, conn.execute(_DOCUMENT, {"dag_id": dag_id, "version": version}).first())


def versions(conn: Connection, dag_id: str, *, limit: int, before: int | None = None) -> list[DagVersionSummary]:
    """Return the versions of a DAG, the newest first; *before* is the last one of the previous page."""
    values = {"dag_id": dag_id, "before": 2**31 - 1 if before is None else before, "most": limit}
    return many(DagVersionSummary, conn.execute(_VERSIONS, values))


def page(  # each of them is a filter of the public API
    conn: Connection,
    *,
    limit: int,
    after: str | None = None,
    paused: bool | None = None,
    tags: Sequence[str] = (),
    id_contains: str | None = None,
    id_prefix: str | None = None,
    dag_prefix: str | None = None,
) -> list[DagRecord]:
    """Return DAGs in the order of their ids; each has all of *tags*.  *dag_prefix* is what the caller may see."""
    query = select(*_DAG).order_by(dags.c.dag_id).limit(limit)
    if after is not None:
        query = query.where(dags.c.dag_id > after)
    if paused is not None:
        query = query.where(dags.c.paused.is_(paused))
    for tag in dict.fromkeys(tags):
        query = query.where(
            select(dag_tags.c.tag).where(and_(dag_tags.c.dag_id == dags.c.dag_id, dag_tags.c.tag == tag)).exists()
        )
    if id_contains:
        query = query.where(dags.c.dag_id.icontains(id_contains, autoescape=True))
    for prefix in (id_prefix, dag_prefix):
        if prefix:
            query = query.where(starts_with(dags.c.dag_id, prefix))
    return many(DagRecord, conn.execute(query))


def starts_with(column: ColumnElement[Any], prefix: str) -> ColumnElement[bool]:
    """Return the exact test: SQLite's LIKE ignores case, and a range of texts depends on Postgres' collation."""
    return func.substr(column, 1, len(prefix)) == prefix
