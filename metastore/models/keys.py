"""API keys and the answers given under idempotency keys."""

from __future__ import annotations

from sqlalchemy import Column, Index, Integer, Table, Text

from metastore.models.base import Instant, Json, metadata

api_keys = Table(
    "api_keys",
    metadata,
    #: Public part of the key; what it is looked up by.
    Column("key_id", Text, primary_key=True),
    Column("name", Text, nullable=False),
    #: SHA-256 of the secret part: a fast hash is right for 256 random bits.
    Column("secret_hash", Text, nullable=False),
    Column("scopes", Json, nullable=False),
    #: The key sees only DAGs whose id starts with this; null: all.
    Column("dag_prefix", Text),
    #: The queues that a worker with this key may serve; null: all.
    Column("queues", Json),
    Column("created_at", Instant, nullable=False),
    Column("created_by", Text, nullable=False),
    Column("expires_at", Instant),
    Column("revoked_at", Instant),
    #: With a granularity of a minute.
    Column("last_used_at", Instant),
    sqlite_strict=True,
)

idempotency_keys = Table(
    "idempotency_keys",
    metadata,
    Column("principal", Text, primary_key=True),
    Column("key", Text, primary_key=True),
    #: SHA-256 over method, route, path and body.
    Column("fingerprint", Text, nullable=False),
    Column("status", Integer, nullable=False),
    Column("headers", Json, nullable=False),
    Column("body", Text, nullable=False),
    Column("created_at", Instant, nullable=False),
    Index(None, "created_at"),
    sqlite_strict=True,
)
