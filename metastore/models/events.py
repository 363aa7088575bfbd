"""The event log: every transition writes its row in the same transaction.

On Postgres a reader goes by ``(xid, id)`` below the snapshot's xmin: a plain sequence loses rows that commit late.
``run_seq`` is dense within a run, given under the run's lock.
"""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, ForeignKey, Index, Integer, Table, Text
from sqlalchemy.types import UserDefinedType

from metastore.models.base import Instant, Json, identity, metadata


class Xid8(UserDefinedType[int]):
    """Postgres' ``xid8``; on SQLite a plain integer (one writer: commit order is id order)."""

    cache_ok = True

    def get_col_spec(self, **_: object) -> str:
        return "xid8"


events = Table(
    "events",
    metadata,
    identity(),
    #: The writing transaction; null on SQLite.
    Column("xid", Xid8().with_variant(Integer, "sqlite")),
    Column("at", Instant, nullable=False),
    #: ``dag.put``, ``run.queued``, ``task.running``, ``key.created``, ``run.healed``…
    Column("kind", Text, nullable=False),
    Column("dag_id", Text),
    Column("run", BigInteger().with_variant(Integer, "sqlite"), ForeignKey("runs.id", ondelete="CASCADE")),
    Column("run_id", Text),
    Column("run_seq", Integer),
    Column("task_id", Text),
    Column("map_index", Integer),
    Column("try_number", Integer),
    Column("attempt_id", Text),
    Column("from_state", Text),
    Column("to_state", Text),
    #: ``key:<id>``, ``scheduler``, ``supervisor``, ``system``.
    Column("actor", Text, nullable=False),
    Column("reason", Text),
    Column("data", Json),
    Index("ix_events_run", "run", "run_seq", unique=True),
    sqlite_strict=True,
    sqlite_autoincrement=True,  # a number that was deleted is not given again
)
