"""Create the first tables."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


class Xid8(sa.types.UserDefinedType[int]):
    """Postgres' 64-bit transaction id."""

    cache_ok = True

    def get_col_spec(self, **_: Any) -> str:
        return "xid8"


# SQLite's STRICT tables call every whole number INTEGER, moments (microseconds) and truths among them.
BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
FLAG = sa.Boolean().with_variant(sa.Integer(), "sqlite")
INSTANT = sa.DateTime(timezone=True).with_variant(sa.Integer(), "sqlite")
XID = Xid8().with_variant(sa.Integer(), "sqlite")

#: Rows of these change many times and go out of the partial indexes: room for new versions on the same page, and a
#: clean-up that comes early.
HOT = ("runs", "task_instances", "attempts", "limits")


def upgrade() -> None:
    _agents()
    _api_keys()
    _dags()
    _idempotency_keys()
    _limits()
    _dag_tags()
    _dag_versions()
    _runs()
    _events()
    _run_labels()
    _task_instances()
    _attempts()
    _outputs()
    if op.get_context().dialect.name == "postgresql":
        _postgres_only()


def downgrade() -> None:
    for table in (
        "outputs",
        "attempts",
        "task_instances",
        "run_labels",
        "events",
        "runs",
        "dag_versions",
        "dag_tags",
        "limits",
        "idempotency_keys",
        "dags",
        "api_keys",
        "agents",
    ):
        op.drop_table(table)


def _postgres_only() -> None:
    # What writes an event, and the order that the log is read in.
    op.alter_column("events", "xid", server_default=sa.text("pg_current_xact_id()"))
    op.create_index("ix_events_order", "events", ["xid", "id"])
    for table in HOT:
        op.execute(
            f"ALTER TABLE {table} SET (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.02, "
            "autovacuum_vacuum_threshold = 200, autovacuum_analyze_scale_factor = 0.05)"
        )


def _agents() -> None:
    op.create_table(
        "agents",
        sa.Column("agent_id", sa.Text(), nullable=False),
        sa.Column("host", sa.Text(), nullable=False),
        sa.Column("executors", sa.Text(), nullable=False),
        sa.Column("seen_at", INSTANT, nullable=False),
        sa.Column("lease_until", INSTANT),
        sa.PrimaryKeyConstraint("agent_id", name=op.f("pk_agents")),
        sqlite_strict=True,
    )


def _api_keys() -> None:
    op.create_table(
        "api_keys",
        sa.Column("key_id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("secret_hash", sa.Text(), nullable=False),
        sa.Column("scopes", sa.Text(), nullable=False),
        sa.Column("dag_prefix", sa.Text()),
        sa.Column("created_at", INSTANT, nullable=False),
        sa.Column("created_by", sa.Text(), nullable=False),
        sa.Column("expires_at", INSTANT),
        sa.Column("revoked_at", INSTANT),
        sa.Column("last_used_at", INSTANT),
        sa.PrimaryKeyConstraint("key_id", name=op.f("pk_api_keys")),
        sqlite_strict=True,
    )


def _dags() -> None:
    op.create_table(
        "dags",
        sa.Column("dag_id", sa.Text(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("paused", FLAG, nullable=False, server_default=sa.false()),
        sa.Column("description", sa.Text()),
        sa.Column("tags", sa.Text(), nullable=False),
        sa.Column("owners", sa.Text(), nullable=False),
        sa.Column("created_at", INSTANT, nullable=False),
        sa.Column("updated_at", INSTANT, nullable=False),
        sa.PrimaryKeyConstraint("dag_id", name=op.f("pk_dags")),
        sqlite_strict=True,
    )


def _idempotency_keys() -> None:
    op.create_table(
        "idempotency_keys",
        sa.Column("principal", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("fingerprint", sa.Text(), nullable=False),
        sa.Column("status", sa.Integer(), nullable=False),
        sa.Column("headers", sa.Text(), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.Column("created_at", INSTANT, nullable=False),
        sa.PrimaryKeyConstraint("principal", "key", name=op.f("pk_idempotency_keys")),
        sqlite_strict=True,
    )
    op.create_index("ix_idempotency_keys_created_at", "idempotency_keys", ["created_at"])


def _limits() -> None:
    op.create_table(
        "limits",
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("capacity", sa.Integer()),
        sa.Column("used", sa.Integer(), nullable=False, server_default="0"),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_limits")),
        sa.CheckConstraint("used >= 0", name=op.f("ck_limits_used")),
        sqlite_strict=True,
    )


def _dag_tags() -> None:
    op.create_table(
        "dag_tags",
        sa.Column("dag_id", sa.Text(), nullable=False),
        sa.Column("tag", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("dag_id", "tag", name=op.f("pk_dag_tags")),
        sa.ForeignKeyConstraint(["dag_id"], ["dags.dag_id"], ondelete="CASCADE", name=op.f("fk_dag_tags_dag_id")),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )
    op.create_index("ix_dag_tags_tag_dag_id", "dag_tags", ["tag", "dag_id"])


def _dag_versions() -> None:
    op.create_table(
        "dag_versions",
        sa.Column("dag_id", sa.Text(), nullable=False),
        sa.Column("version", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("content_hash", sa.Text(), nullable=False),
        sa.Column("document", sa.Text(), nullable=False),
        sa.Column("task_count", sa.Integer(), nullable=False),
        sa.Column("created_at", INSTANT, nullable=False),
        sa.Column("created_by", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("dag_id", "version", name=op.f("pk_dag_versions")),
        sa.ForeignKeyConstraint(["dag_id"], ["dags.dag_id"], ondelete="CASCADE", name=op.f("fk_dag_versions_dag_id")),
        sqlite_strict=True,
    )


def _runs() -> None:
    op.create_table(
        "runs",
        sa.Column("id", BIG, autoincrement=True, nullable=False),
        sa.Column("dag_id", sa.Text(), nullable=False),
        sa.Column("run_id", sa.Text(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("content_hash", sa.Text(), nullable=False),
        sa.Column("run_type", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text()),
        sa.Column("params", sa.Text(), nullable=False),
        sa.Column("labels", sa.Text(), nullable=False),
        sa.Column("note", sa.Text()),
        sa.Column("logical_date", INSTANT),
        sa.Column("data_interval_start", INSTANT),
        sa.Column("data_interval_end", INSTANT),
        sa.Column("run_after", INSTANT, nullable=False),
        sa.Column("queued_at", INSTANT, nullable=False),
        sa.Column("started_at", INSTANT),
        sa.Column("ended_at", INSTANT),
        sa.Column("deadline_at", INSTANT),
        sa.Column("created_instances", sa.Integer(), nullable=False, server_default="0"),
        sa.Column("materialised", FLAG, nullable=False, server_default=sa.false()),
        sa.Column("unfinished", sa.Integer(), nullable=False, server_default="0"),
        sa.Column("bad", sa.Integer(), nullable=False, server_default="0"),
        sa.Column("cancelled", sa.Integer(), nullable=False, server_default="0"),
        sa.Column("cancel_asked", FLAG, nullable=False, server_default=sa.false()),
        sa.Column("seq", sa.Integer(), nullable=False, server_default="0"),
        sa.Column("quarantined_until", INSTANT),
        sa.Column("quarantines", sa.Integer(), nullable=False, server_default="0"),
        sa.Column("request_id", sa.Text(), nullable=False),
        sa.Column("created_by", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_runs")),
        sa.CheckConstraint(
            "state IN ('queued', 'running', 'cancelling', 'success', 'failed', 'cancelled')", name=op.f("ck_runs_state")
        ),
        sa.CheckConstraint("unfinished >= 0", name=op.f("ck_runs_unfinished")),
        sa.ForeignKeyConstraint(["dag_id"], ["dags.dag_id"], ondelete="CASCADE", name=op.f("fk_runs_dag_id")),
        sa.UniqueConstraint("dag_id", "run_id", name=op.f("uq_runs_dag_id_run_id")),
        sqlite_strict=True,
        sqlite_autoincrement=True,
    )
    op.create_index(
        "ix_runs_active",
        "runs",
        ["deadline_at", "id"],
        sqlite_where=sa.text("state IN ('running', 'cancelling')"),
        postgresql_where=sa.text("state IN ('running', 'cancelling')"),
    )
    op.create_index("ix_runs_dag_id_id", "runs", ["dag_id", "id"])
    op.create_index(
        "ix_runs_quarantined",
        "runs",
        ["quarantined_until"],
        sqlite_where=sa.text("quarantined_until IS NOT NULL"),
        postgresql_where=sa.text("quarantined_until IS NOT NULL"),
    )
    op.create_index(
        "ix_runs_queued",
        "runs",
        ["dag_id", "run_after", "id"],
        sqlite_where=sa.text("state = 'queued'"),
        postgresql_where=sa.text("state = 'queued'"),
    )
    op.create_index(
        "ix_runs_run_after",
        "runs",
        ["run_after"],
        sqlite_where=sa.text("state = 'queued'"),
        postgresql_where=sa.text("state = 'queued'"),
    )
    op.create_index("ix_runs_state_id", "runs", ["state", "id"])
    op.create_index(
        "ix_runs_unmaterialised",
        "runs",
        ["id"],
        sqlite_where=sa.text("state = 'running' AND NOT materialised"),
        postgresql_where=sa.text("state = 'running' AND NOT materialised"),
    )


def _events() -> None:
    op.create_table(
        "events",
        sa.Column("id", BIG, autoincrement=True, nullable=False),
        sa.Column("xid", XID),
        sa.Column("at", INSTANT, nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("dag_id", sa.Text()),
        sa.Column("run", BIG),
        sa.Column("run_id", sa.Text()),
        sa.Column("run_seq", sa.Integer()),
        sa.Column("task_id", sa.Text()),
        sa.Column("map_index", sa.Integer()),
        sa.Column("try_number", sa.Integer()),
        sa.Column("attempt_id", sa.Text()),
        sa.Column("from_state", sa.Text()),
        sa.Column("to_state", sa.Text()),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text()),
        sa.Column("data", sa.Text()),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_events")),
        sa.ForeignKeyConstraint(["run"], ["runs.id"], ondelete="CASCADE", name=op.f("fk_events_run")),
        sqlite_strict=True,
        sqlite_autoincrement=True,
    )
    op.create_index("ix_events_run", "events", ["run", "run_seq"], unique=True)


def _run_labels() -> None:
    op.create_table(
        "run_labels",
        sa.Column("run", BIG, nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("run", "name", name=op.f("pk_run_labels")),
        sa.ForeignKeyConstraint(["run"], ["runs.id"], ondelete="CASCADE", name=op.f("fk_run_labels_run")),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )
    op.create_index("ix_run_labels_name_value_run", "run_labels", ["name", "value", "run"])


def _task_instances() -> None:
    op.create_table(
        "task_instances",
        sa.Column("id", BIG, autoincrement=True, nullable=False),
        sa.Column("run", BIG, nullable=False),
        sa.Column("task_no", sa.Integer(), nullable=False),
        sa.Column("task_id", sa.Text(), nullable=False),
        sa.Column("map_index", sa.Integer(), nullable=False, server_default="-1"),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text()),
        sa.Column("try_number", sa.Integer(), nullable=False, server_default="0"),
        sa.Column("failures", sa.Integer(), nullable=False, server_default="0"),
        sa.Column("losses", sa.Integer(), nullable=False, server_default="0"),
        sa.Column("n_success", sa.Integer(), nullable=False, server_default="0"),
        sa.Column("n_failed", sa.Integer(), nullable=False, server_default="0"),
        sa.Column("n_upstream_failed", sa.Integer(), nullable=False, server_default="0"),
        sa.Column("n_skipped", sa.Integer(), nullable=False, server_default="0"),
        sa.Column("n_cancelled", sa.Integer(), nullable=False, server_default="0"),
        sa.Column("due_at", INSTANT),
        sa.Column("executor", sa.Text(), nullable=False),
        sa.Column("priority_weight", sa.Integer(), nullable=False),
        sa.Column("blocked_on", sa.Text()),
        sa.Column("scheduled_at", INSTANT),
        sa.Column("queued_at", INSTANT),
        sa.Column("started_at", INSTANT),
        sa.Column("ended_at", INSTANT),
        sa.Column("error", sa.Text()),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_task_instances")),
        sa.CheckConstraint(
            "state IN ('pending', 'scheduled', 'queued', 'running', 'up_for_retry', "
            "'cancelling', 'success', 'failed', 'skipped', 'upstream_failed', 'cancelled')",
            name=op.f("ck_task_instances_state"),
        ),
        sa.ForeignKeyConstraint(["run"], ["runs.id"], ondelete="CASCADE", name=op.f("fk_task_instances_run")),
        sa.UniqueConstraint("run", "task_id", "map_index", name=op.f("uq_task_instances_run_task_id_map_index")),
        sa.UniqueConstraint("run", "task_no", "map_index", name=op.f("uq_task_instances_run_task_no_map_index")),
        sqlite_strict=True,
    )
    op.create_index(
        "ix_task_instances_blocked",
        "task_instances",
        ["blocked_on", sa.text("priority_weight DESC"), "scheduled_at", "id"],
        sqlite_where=sa.text("blocked_on IS NOT NULL"),
        postgresql_where=sa.text("blocked_on IS NOT NULL"),
    )
    op.create_index(
        "ix_task_instances_due",
        "task_instances",
        ["due_at", "run"],
        sqlite_where=sa.text("due_at IS NOT NULL"),
        postgresql_where=sa.text("due_at IS NOT NULL"),
    )
    op.create_index(
        "ix_task_instances_ready",
        "task_instances",
        ["executor", sa.text("priority_weight DESC"), "scheduled_at", "id"],
        sqlite_where=sa.text("state = 'scheduled' AND blocked_on IS NULL"),
        postgresql_where=sa.text("state = 'scheduled' AND blocked_on IS NULL"),
    )


def _attempts() -> None:
    op.create_table(
        "attempts",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("run", BIG, nullable=False),
        sa.Column("instance", BIG, nullable=False),
        sa.Column("try_number", sa.Integer(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("executor", sa.Text(), nullable=False),
        sa.Column("placed_on", sa.Text()),
        sa.Column("boot_id", sa.Text()),
        sa.Column("queued_at", INSTANT, nullable=False),
        sa.Column("started_at", INSTANT),
        sa.Column("ended_at", INSTANT),
        sa.Column("launch_after", INSTANT),
        sa.Column("deferred_reason", sa.Text()),
        sa.Column("relaunches", sa.Integer(), nullable=False, server_default="0"),
        sa.Column("stop_reason", sa.Text()),
        sa.Column("stop_asked_at", INSTANT),
        sa.Column("cause", sa.Text()),
        sa.Column("exit_code", sa.Integer()),
        sa.Column("signal", sa.Integer()),
        sa.Column("error", sa.Text()),
        sa.Column("log_size", BIG),
        sa.Column("log_dropped", BIG),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_attempts")),
        sa.CheckConstraint(
            "state IN ('queued', 'running', 'success', 'failed', 'cancelled', 'timed_out', 'lost', 'never_started')",
            name=op.f("ck_attempts_state"),
        ),
        sa.ForeignKeyConstraint(
            ["instance"], ["task_instances.id"], ondelete="CASCADE", name=op.f("fk_attempts_instance")
        ),
        sa.ForeignKeyConstraint(["run"], ["runs.id"], ondelete="CASCADE", name=op.f("fk_attempts_run")),
        sa.UniqueConstraint("instance", "try_number", name=op.f("uq_attempts_instance_try_number")),
        sqlite_strict=True,
    )
    op.create_index(
        "ix_attempts_active",
        "attempts",
        ["placed_on", "id"],
        sqlite_where=sa.text("state IN ('queued', 'running')"),
        postgresql_where=sa.text("state IN ('queued', 'running')"),
    )
    op.create_index(
        "ix_attempts_one_active",
        "attempts",
        ["instance"],
        unique=True,
        sqlite_where=sa.text("state IN ('queued', 'running')"),
        postgresql_where=sa.text("state IN ('queued', 'running')"),
    )
    op.create_index("ix_attempts_run", "attempts", ["run"])
    op.create_index(
        "ix_attempts_stopping",
        "attempts",
        ["id"],
        sqlite_where=sa.text("state = 'running' AND stop_reason IS NOT NULL"),
        postgresql_where=sa.text("state = 'running' AND stop_reason IS NOT NULL"),
    )


def _outputs() -> None:
    op.create_table(
        "outputs",
        sa.Column("instance", BIG, autoincrement=False, nullable=False),
        sa.Column("attempt_id", sa.Text(), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("instance", name=op.f("pk_outputs")),
        sa.ForeignKeyConstraint(
            ["instance"], ["task_instances.id"], ondelete="CASCADE", name=op.f("fk_outputs_instance")
        ),
        sqlite_strict=True,
    )
