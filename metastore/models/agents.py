"""Agents: the places that local attempts are held by; on Postgres with a lease that their scheduler renews."""

from __future__ import annotations

from sqlalchemy import Column, Table, Text

from metastore.models.base import Instant, Json, metadata

agents = Table(
    "agents",
    metadata,
    #: Lasting: made once per home.
    Column("agent_id", Text, primary_key=True),
    Column("host", Text, nullable=False),
    #: The executors it serves, with their slots.
    Column("executors", Json, nullable=False),
    Column("seen_at", Instant, nullable=False),
    #: Database time until which its attempts are its own; null (SQLite): nobody else may take them.
    Column("lease_until", Instant),
    sqlite_strict=True,
)
