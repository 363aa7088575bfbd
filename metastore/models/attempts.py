"""Attempts: one row for every try of a task instance; they survive a clear."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    ForeignKey,
    Index,
    Integer,
    Table,
    Text,
    UniqueConstraint,
    text,
)

from dag.states import AttemptState
from metastore.models.base import Instant, in_states, metadata

attempts = Table(
    "attempts",
    metadata,
    #: Chosen in the transaction that queues it, and the handle it has everywhere.
    Column("id", Text, primary_key=True),
    Column(
        "run", BigInteger().with_variant(Integer, "sqlite"), ForeignKey("runs.id", ondelete="CASCADE"), nullable=False
    ),
    Column(
        "instance",
        BigInteger().with_variant(Integer, "sqlite"),
        ForeignKey("task_instances.id", ondelete="CASCADE"),
        nullable=False,
    ),
    Column("try_number", Integer, nullable=False),
    Column("state", Text, nullable=False),
    Column("executor", Text, nullable=False),
    #: The queue that it was offered to, where its executor is by queue.
    Column("queue", Text),
    #: The key of the limit that counts it while it is active.
    Column("slots", Text),
    #: Which agent or worker holds it; null: any scheduler may act.
    Column("placed_on", Text),
    #: The supervisor that won the start.
    Column("boot_id", Text),
    #: SHA-256 of the secret that a remote supervisor shows with all that it says of this attempt.
    Column("key_hash", Text),
    Column("queued_at", Instant, nullable=False),
    Column("started_at", Instant),
    Column("ended_at", Instant),
    #: Not launched again before this moment (the executor deferred it).
    Column("launch_after", Instant),
    #: Why the executor deferred it.
    Column("deferred_reason", Text),
    Column("relaunches", Integer, nullable=False, server_default="0"),
    #: Why it was asked to stop, and when; the directive is repeated until it ends.
    Column("stop_reason", Text),
    Column("stop_asked_at", Instant),
    #: What the end was: exit, signal, timeout, drained, worker_lost, config…
    Column("cause", Text),
    Column("exit_code", Integer),
    Column("signal", Integer),
    Column("error", Text),
    Column("log_size", BigInteger),
    Column("log_dropped", BigInteger),
    UniqueConstraint("instance", "try_number"),
    CheckConstraint(in_states("state", AttemptState), name="state"),
    #: One active attempt a task instance: the database itself refuses a second.
    Index(
        "ix_attempts_one_active",
        "instance",
        unique=True,
        sqlite_where=text("state IN ('queued', 'running')"),
        postgresql_where=text("state IN ('queued', 'running')"),
    ),
    Index(
        "ix_attempts_active",
        "placed_on",
        "id",
        sqlite_where=text("state IN ('queued', 'running')"),
        postgresql_where=text("state IN ('queued', 'running')"),
    ),
    Index(
        "ix_attempts_stopping",
        "id",
        sqlite_where=text("state = 'running' AND stop_reason IS NOT NULL"),
        postgresql_where=text("state = 'running' AND stop_reason IS NOT NULL"),
    ),
    Index(None, "run"),
    sqlite_strict=True,
)

staged_outputs = Table(
    "staged_outputs",
    metadata,
    Column("attempt_id", Text, ForeignKey("attempts.id", ondelete="CASCADE"), primary_key=True),
    #: JSON text; it becomes the task's output with the accepted end, or goes with any other.
    Column("value", Text, nullable=False),
    sqlite_strict=True,
)
