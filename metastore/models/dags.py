"""DAGs and their immutable numbered versions."""

from __future__ import annotations

from sqlalchemy import Boolean, Column, ForeignKey, Index, Integer, Table, Text, false

from metastore.models.base import Instant, Json, metadata

dags = Table(
    "dags",
    metadata,
    Column("dag_id", Text, primary_key=True),
    #: The current version: what a trigger pins.
    Column("version", Integer, nullable=False),
    #: Grows with every change of this row; the ETag is made of it.
    Column("revision", Integer, nullable=False),
    Column("paused", Boolean, nullable=False, server_default=false()),
    Column("description", Text),
    Column("tags", Json, nullable=False),
    Column("owners", Json, nullable=False),
    Column("created_at", Instant, nullable=False),
    Column("updated_at", Instant, nullable=False),
    sqlite_strict=True,
)

dag_tags = Table(
    "dag_tags",
    metadata,
    Column("dag_id", Text, ForeignKey("dags.dag_id", ondelete="CASCADE"), primary_key=True),
    Column("tag", Text, primary_key=True),
    Index(None, "tag", "dag_id"),
    sqlite_strict=True,
    sqlite_with_rowid=False,
)

dag_versions = Table(
    "dag_versions",
    metadata,
    Column("dag_id", Text, ForeignKey("dags.dag_id", ondelete="CASCADE"), primary_key=True),
    Column("version", Integer, primary_key=True, autoincrement=False),
    #: SHA-256 over the canonical JSON of the document; an identical PUT is a no-op.
    Column("content_hash", Text, nullable=False),
    Column("document", Json, nullable=False),
    Column("task_count", Integer, nullable=False),
    Column("created_at", Instant, nullable=False),
    #: The id of the API key that put it.
    Column("created_by", Text, nullable=False),
    sqlite_strict=True,
)
