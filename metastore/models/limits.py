"""Limits: how much of something may be in use at once.

Keys: ``dag:<dag_id>:runs`` (max_active_runs), ``dag:<dag_id>:tasks`` (max_active_tasks over all runs of the DAG),
``slots:<executor>`` or ``slots:<executor>@<agent>`` (executor slots), ``slots:<executor>/<queue>`` (what the live
workers of a queue can take).  A conditional UPDATE is the only way up.
"""

from __future__ import annotations

from sqlalchemy import CheckConstraint, Column, Index, Integer, Table, Text, text

from metastore.models.base import metadata

limits = Table(
    "limits",
    metadata,
    Column("key", Text, primary_key=True),
    #: Null is unbounded.  Lowering it below what is used admits nothing until it drains.
    Column("capacity", Integer),
    Column("used", Integer, nullable=False, server_default="0"),
    #: Of a queue: its executor.  Not found by the key's beginning: a range of texts depends on a database's collation.
    Column("queue_of", Text),
    CheckConstraint("used >= 0", name="used"),
    Index(
        "ix_limits_queues",
        "queue_of",
        "key",
        sqlite_where=text("queue_of IS NOT NULL"),
        postgresql_where=text("queue_of IS NOT NULL"),
    ),
    sqlite_strict=True,
)


def queues_prefix(executor: str) -> str:
    """Return what the keys of the limits of an executor's queues begin with."""
    return f"slots:{executor}/"
