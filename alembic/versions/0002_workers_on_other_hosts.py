"""Workers on other hosts: queues, leases that heartbeats renew, secrets of attempts."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

FLAG = sa.Boolean().with_variant(sa.Integer(), "sqlite")
INSTANT = sa.DateTime(timezone=True).with_variant(sa.Integer(), "sqlite")

_READY = "state = 'scheduled' AND blocked_on IS NULL"


def _agent_columns() -> list[sa.Column[object]]:
    return [
        sa.Column("kind", sa.Text(), nullable=False, server_default="agent"),
        sa.Column("executor", sa.Text()),
        sa.Column("queues", sa.Text()),
        sa.Column("slots", sa.Integer()),
        sa.Column("name", sa.Text()),
        sa.Column("version", sa.Text()),
        sa.Column("pid", sa.Integer()),
        sa.Column("boot_id", sa.Text()),
        sa.Column("token_hash", sa.Text()),
        sa.Column("key_id", sa.Text()),
        sa.Column("registered_at", INSTANT),
        sa.Column("draining", FLAG, nullable=False, server_default=sa.false()),
        sa.Column("drain_asked", FLAG, nullable=False, server_default=sa.false()),
    ]


def upgrade() -> None:
    # A batch, because SQLite cannot add a CHECK to a table that is there.
    with op.batch_alter_table("agents", table_kwargs={"sqlite_strict": True}) as batch:
        for column in _agent_columns():
            batch.add_column(column)
        batch.create_check_constraint(op.f("ck_agents_kind"), "kind IN ('agent', 'worker', 'attempt')")
    op.create_index(
        "ix_agents_workers",
        "agents",
        ["executor", "agent_id"],
        sqlite_where=sa.text("kind = 'worker'"),
        postgresql_where=sa.text("kind = 'worker'"),
    )
    op.create_index("ix_agents_lease", "agents", ["lease_until"])
    for name in ("queue", "slots", "key_hash"):
        op.add_column("attempts", sa.Column(name, sa.Text()))
    # What is active now holds the slot that its row names.
    op.execute(
        "UPDATE attempts SET slots = 'slots:' || executor || CASE WHEN placed_on IS NULL THEN '' "
        "ELSE '@' || placed_on END WHERE state IN ('queued', 'running')"
    )
    op.add_column("task_instances", sa.Column("queue", sa.Text(), nullable=False, server_default="default"))
    op.create_index(
        "ix_task_instances_offers",
        "task_instances",
        ["executor", "queue", sa.text("priority_weight DESC"), "scheduled_at", "id"],
        sqlite_where=sa.text(_READY),
        postgresql_where=sa.text(_READY),
    )
    op.create_index("ix_runs_dag_id_state_id", "runs", ["dag_id", "state", "id"])
    op.add_column("limits", sa.Column("queue_of", sa.Text()))
    op.create_index(
        "ix_limits_queues",
        "limits",
        ["queue_of", "key"],
        sqlite_where=sa.text("queue_of IS NOT NULL"),
        postgresql_where=sa.text("queue_of IS NOT NULL"),
    )
    op.add_column("api_keys", sa.Column("queues", sa.Text()))
    op.create_table(
        "staged_outputs",
        sa.Column("attempt_id", sa.Text(), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("attempt_id", name=op.f("pk_staged_outputs")),
        sa.ForeignKeyConstraint(
            ["attempt_id"], ["attempts.id"], ondelete="CASCADE", name=op.f("fk_staged_outputs_attempt_id")
        ),
        sqlite_strict=True,
    )
    op.create_table(
        "signing_keys",
        sa.Column("purpose", sa.Text(), nullable=False),
        sa.Column("secret", sa.Text(), nullable=False),
        sa.Column("created_at", INSTANT, nullable=False),
        sa.PrimaryKeyConstraint("purpose", name=op.f("pk_signing_keys")),
        sqlite_strict=True,
    )
    op.create_table(
        "presence",
        sa.Column("part", sa.Text(), nullable=False),
        sa.Column("since", INSTANT, nullable=False),
        sa.Column("seen_at", INSTANT, nullable=False),
        sa.PrimaryKeyConstraint("part", name=op.f("pk_presence")),
        sqlite_strict=True,
    )


def downgrade() -> None:
    for table in ("presence", "signing_keys", "staged_outputs"):
        op.drop_table(table)
    op.drop_column("api_keys", "queues")
    op.execute("DELETE FROM limits WHERE queue_of IS NOT NULL")
    op.drop_index("ix_limits_queues", "limits")
    op.drop_column("limits", "queue_of")
    op.drop_index("ix_runs_dag_id_state_id", "runs")
    op.drop_index("ix_task_instances_offers", "task_instances")
    op.drop_column("task_instances", "queue")
    for name in ("key_hash", "slots", "queue"):
        op.drop_column("attempts", name)
    op.drop_index("ix_agents_lease", "agents")
    op.drop_index("ix_agents_workers", "agents")
    op.execute("DELETE FROM agents WHERE kind <> 'agent'")
    with op.batch_alter_table("agents", table_kwargs={"sqlite_strict": True}) as batch:
        batch.drop_constraint(op.f("ck_agents_kind"), type_="check")
        for column in reversed(_agent_columns()):
            batch.drop_column(column.name)
