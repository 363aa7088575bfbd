"""The whole schema: importing this module has imported every table."""

from __future__ import annotations

from typing import Final

from metastore.models import agents, attempts, dags, events, keys, limits, runs, service
from metastore.models.base import metadata

#: Every table, by name, in an order in which each comes after what it refers to.
TABLES: Final = {table.name: table for table in metadata.sorted_tables}

__all__ = ["TABLES", "agents", "attempts", "dags", "events", "keys", "limits", "metadata", "runs", "service"]
