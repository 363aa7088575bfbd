"""Agents: who holds attempts.  Those of this product's own hosts, and the workers on others.

``agent``: the agent of a scheduler's home; its scheduler renews its lease (Postgres), and its slots are per executor.
``worker``: a worker that registered itself over HTTP; its heartbeat renews its lease, and it serves queues.
``attempt``: a supervisor that is registered nowhere, known by the one attempt that it holds (``attempt:<id>``).
"""

from __future__ import annotations

from sqlalchemy import BigInteger, Boolean, CheckConstraint, Column, Index, Integer, Table, Text, false, text

from metastore.models.base import Instant, Json, metadata

agents = Table(
    "agents",
    metadata,
    #: Lasting: made once per home.
    Column("agent_id", Text, primary_key=True),
    Column("kind", Text, nullable=False, server_default="agent"),
    Column("host", Text, nullable=False),
    #: ``agent``: the executors it serves, with their slots.
    Column("executors", Json, nullable=False),
    Column("seen_at", Instant, nullable=False),
    #: Database time until which its attempts are its own; null (SQLite): nobody else may take them.
    Column("lease_until", Instant),
    #: ``worker``: the executor whose queues it serves.
    Column("executor", Text),
    Column("queues", Json),
    Column("slots", Integer),
    Column("name", Text),
    Column("version", Text),
    Column("pid", Integer),
    #: Its process: a new one proves the earlier ones dead.
    Column("boot_id", Text),
    #: How many processes it has had, where it counts them: a smaller one is a late word of a dead process.
    Column("boot_number", BigInteger),
    #: SHA-256 of the secret that its heartbeats show.
    Column("token_hash", Text),
    #: The API key that it registered with; when that is revoked, so is the token.
    Column("key_id", Text),
    Column("registered_at", Instant),
    #: It takes nothing new.  ``agent``: it was given up, and was not heard of since.
    Column("draining", Boolean, nullable=False, server_default=false()),
    #: Somebody asked it to drain; said with every answer to a heartbeat.
    Column("drain_asked", Boolean, nullable=False, server_default=false()),
    CheckConstraint("kind IN ('agent', 'worker', 'attempt')", name="kind"),
    Index(
        "ix_agents_workers",
        "executor",
        "agent_id",
        sqlite_where=text("kind = 'worker'"),
        postgresql_where=text("kind = 'worker'"),
    ),
    Index("ix_agents_lease", "lease_until"),
    sqlite_strict=True,
)
