"""What an installation has once: the key that tickets are signed with, and when somebody served its API."""

from __future__ import annotations

from sqlalchemy import Column, Table, Text

from metastore.models.base import Instant, metadata

signing_keys = Table(
    "signing_keys",
    metadata,
    Column("purpose", Text, primary_key=True),
    #: 256 random bits, as hexadecimal digits.  Whoever reads this table reads the tasks themselves, too.
    Column("secret", Text, nullable=False),
    Column("created_at", Instant, nullable=False),
    sqlite_strict=True,
)

presence = Table(
    "presence",
    metadata,
    #: ``api``: any process that serves it.
    Column("part", Text, primary_key=True),
    #: Since when there was always one, and when one was last heard of.
    Column("since", Instant, nullable=False),
    Column("seen_at", Instant, nullable=False),
    sqlite_strict=True,
)
