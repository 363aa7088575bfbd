"""Runs, their task instances, and the outputs of these."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    ForeignKey,
    Index,
    Integer,
    Table,
    Text,
    UniqueConstraint,
    false,
    text,
)

from dag.states import TASK_FINAL, RunState, TaskState
from metastore.models.base import Instant, Json, identity, in_states, metadata

runs = Table(
    "runs",
    metadata,
    identity(),
    Column("dag_id", Text, ForeignKey("dags.dag_id", ondelete="CASCADE"), nullable=False),
    Column("run_id", Text, nullable=False),
    #: The DAG version this run is pinned to.
    Column("version", Integer, nullable=False),
    #: The hash of that version's document; plans are remembered by it.
    Column("content_hash", Text, nullable=False),
    Column("run_type", Text, nullable=False),
    Column("state", Text, nullable=False),
    #: Why it is cancelling or ended as it did: user, run_timeout, quarantined…; null where the state says all.
    Column("reason", Text),
    Column("params", Json, nullable=False),
    Column("labels", Json, nullable=False),
    Column("note", Text),
    Column("logical_date", Instant),
    Column("data_interval_start", Instant),
    Column("data_interval_end", Instant),
    #: Not before this moment.
    Column("run_after", Instant, nullable=False),
    Column("queued_at", Instant, nullable=False),
    Column("started_at", Instant),
    Column("ended_at", Instant),
    #: When ``run_timeout`` strikes.
    Column("deadline_at", Instant),
    #: How many instances exist so far; all of them once ``materialised``.
    Column("created_instances", Integer, nullable=False, server_default="0"),
    Column("materialised", Boolean, nullable=False, server_default=false()),
    #: Instances that have not ended; with those not yet created it decides the end of the run.
    Column("unfinished", Integer, nullable=False, server_default="0"),
    #: Instances that are failed or upstream_failed and whose task lacks ``allow_failure``.
    Column("bad", Integer, nullable=False, server_default="0"),
    #: Instances that are cancelled.
    Column("cancelled", Integer, nullable=False, server_default="0"),
    #: A cancel was asked for by somebody (not by a timeout).
    Column("cancel_asked", Boolean, nullable=False, server_default=false()),
    #: The last ``run_seq`` given to an event of this run.
    Column("seq", Integer, nullable=False, server_default="0"),
    #: When the scheduler last failed on this run, and when it tries again; null is healthy.
    Column("quarantined_until", Instant),
    Column("quarantines", Integer, nullable=False, server_default="0"),
    #: Random, one per API request: tells a replayed insert (its COMMIT's reply was lost) from a taken run_id.
    Column("request_id", Text, nullable=False),
    Column("created_by", Text, nullable=False),
    UniqueConstraint("dag_id", "run_id"),
    CheckConstraint(in_states("state", RunState), name="state"),
    CheckConstraint("unfinished >= 0", name="unfinished"),
    #: The next run of one DAG: a paused DAG, or one at its limit, costs nothing however many of its runs wait.
    Index(
        "ix_runs_queued",
        "dag_id",
        "run_after",
        "id",
        sqlite_where=text("state = 'queued'"),
        postgresql_where=text("state = 'queued'"),
    ),
    #: When the next one is due.
    Index(
        "ix_runs_run_after",
        "run_after",
        sqlite_where=text("state = 'queued'"),
        postgresql_where=text("state = 'queued'"),
    ),
    Index(
        "ix_runs_unmaterialised",
        "id",
        sqlite_where=text("state = 'running' AND NOT materialised"),
        postgresql_where=text("state = 'running' AND NOT materialised"),
    ),
    Index(
        "ix_runs_quarantined",
        "quarantined_until",
        sqlite_where=text("quarantined_until IS NOT NULL"),
        postgresql_where=text("quarantined_until IS NOT NULL"),
    ),
    Index(
        "ix_runs_active",
        "deadline_at",
        "id",
        sqlite_where=text("state IN ('running', 'cancelling')"),
        postgresql_where=text("state IN ('running', 'cancelling')"),
    ),
    Index(None, "dag_id", "id"),
    Index(None, "state", "id"),
    #: A state that is rare in one DAG and common in others: neither of the two before finds it without reading all.
    Index(None, "dag_id", "state", "id"),
    sqlite_strict=True,
    sqlite_autoincrement=True,  # a number that was deleted is not given again
)

run_labels = Table(
    "run_labels",
    metadata,
    Column(
        "run", BigInteger().with_variant(Integer, "sqlite"), ForeignKey("runs.id", ondelete="CASCADE"), primary_key=True
    ),
    Column("name", Text, primary_key=True),
    Column("value", Text, nullable=False),
    Index(None, "name", "value", "run"),
    sqlite_strict=True,
    sqlite_with_rowid=False,
)

_OPEN_TASK = f"state NOT IN ({', '.join(repr(str(s)) for s in sorted(TASK_FINAL))})"

task_instances = Table(
    "task_instances",
    metadata,
    identity(),
    Column(
        "run", BigInteger().with_variant(Integer, "sqlite"), ForeignKey("runs.id", ondelete="CASCADE"), nullable=False
    ),
    #: The task's number in its plan (document order); what edges are written in.
    Column("task_no", Integer, nullable=False),
    Column("task_id", Text, nullable=False),
    #: -1: not mapped.
    Column("map_index", Integer, nullable=False, server_default="-1"),
    Column("state", Text, nullable=False),
    #: Why it waits, or why it ended as it did; a short code.
    Column("reason", Text),
    #: The fence: grows by one with every attempt, never falls.
    Column("try_number", Integer, nullable=False, server_default="0"),
    #: Attempts that the user's code failed, since the last clear.
    Column("failures", Integer, nullable=False, server_default="0"),
    #: Attempts that the infrastructure lost, since the last clear.
    Column("losses", Integer, nullable=False, server_default="0"),
    #: Upstream tasks by how they ended.
    Column("n_success", Integer, nullable=False, server_default="0"),
    Column("n_failed", Integer, nullable=False, server_default="0"),
    Column("n_upstream_failed", Integer, nullable=False, server_default="0"),
    Column("n_skipped", Integer, nullable=False, server_default="0"),
    Column("n_cancelled", Integer, nullable=False, server_default="0"),
    #: pending: look at it now (roots, cascades cut short); up_for_retry: when the next attempt may start.
    Column("due_at", Instant),
    Column("executor", Text, nullable=False),
    Column("queue", Text, nullable=False, server_default="default"),
    Column("priority_weight", Integer, nullable=False),
    #: The key of the limit that holds a scheduled instance back; null: it can be admitted.
    Column("blocked_on", Text),
    Column("scheduled_at", Instant),
    Column("queued_at", Instant),
    Column("started_at", Instant),
    Column("ended_at", Instant),
    #: One line for people about the last bad end.
    Column("error", Text),
    UniqueConstraint("run", "task_no", "map_index"),
    UniqueConstraint("run", "task_id", "map_index"),
    CheckConstraint(in_states("state", TaskState), name="state"),
    Index(
        "ix_task_instances_ready",
        "executor",
        text("priority_weight DESC"),
        "scheduled_at",
        "id",
        sqlite_where=text("state = 'scheduled' AND blocked_on IS NULL"),
        postgresql_where=text("state = 'scheduled' AND blocked_on IS NULL"),
    ),
    Index(
        "ix_task_instances_offers",
        "executor",
        "queue",
        text("priority_weight DESC"),
        "scheduled_at",
        "id",
        sqlite_where=text("state = 'scheduled' AND blocked_on IS NULL"),
        postgresql_where=text("state = 'scheduled' AND blocked_on IS NULL"),
    ),
    Index(
        "ix_task_instances_blocked",
        "blocked_on",
        text("priority_weight DESC"),
        "scheduled_at",
        "id",
        sqlite_where=text("blocked_on IS NOT NULL"),
        postgresql_where=text("blocked_on IS NOT NULL"),
    ),
    Index(
        "ix_task_instances_due",
        "due_at",
        "run",
        sqlite_where=text("due_at IS NOT NULL"),
        postgresql_where=text("due_at IS NOT NULL"),
    ),
    sqlite_strict=True,
)

outputs = Table(
    "outputs",
    metadata,
    Column(
        "instance",
        BigInteger().with_variant(Integer, "sqlite"),
        ForeignKey("task_instances.id", ondelete="CASCADE"),
        primary_key=True,
        autoincrement=False,
    ),
    #: The accepted, successful attempt it came from.
    Column("attempt_id", Text, nullable=False),
    #: JSON text as the task wrote it.
    Column("value", Text, nullable=False),
    sqlite_strict=True,
)
