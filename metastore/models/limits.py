"""Limits: how much of something may be in use at once.

Keys: ``dag:<dag_id>:runs`` (max_active_runs), ``dag:<dag_id>:tasks`` (max_active_tasks over all runs of the DAG),
``slots:<executor>`` or ``slots:<executor>@<agent>`` (executor slots), ``slots:<executor>/<queue>`` (what the live
workers of a queue can take).  A conditional UPDATE is the only way up.
"""

from __future__ import annotations

from sqlalchemy import CheckConstraint, Column, Integer, Table, Text

from metastore.models.base import metadata

limits = Table(
    "limits",
    metadata,
    Column("key", Text, primary_key=True),
    #: Null is unbounded.  Lowering it below what is used admits nothing until it drains.
    Column("capacity", Integer),
    Column("used", Integer, nullable=False, server_default="0"),
    CheckConstraint("used >= 0", name="used"),
    sqlite_strict=True,
)


def queues_prefix(executor: str) -> str:
    """Return what the keys of the limits of an executor's queues begin with."""
    return f"slots:{executor}/"
