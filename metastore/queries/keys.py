"""Asking for API keys."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sqlalchemy import bindparam, select

from metastore.models.keys import api_keys
from metastore.records import KeyRecord, columns, many, one

if TYPE_CHECKING:
    from sqlalchemy import Connection

_KEY: Final = columns(KeyRecord, api_keys)
_GET: Final = select(*_KEY).where(api_keys.c.key_id == bindparam("key_id"))
_PAGE: Final = (
    select(*_KEY).where(api_keys.c.key_id > bindparam("after_key")).order_by(api_keys.c.key_id).limit(bindparam("most"))
)
_ANY: Final = select(api_keys.c.key_id).where(api_keys.c.revoked_at.is_(None)).limit(1)


def get(conn: Connection, key_id: str) -> KeyRecord | None:
    """Return a key by its public part, revoked and expired ones as well."""
    return one(KeyRecord, conn.execute(_GET, {"key_id": key_id}).first())


def page(conn: Connection, *, limit: int, after: str = "") -> list[KeyRecord]:
    """Return keys in the order of their ids."""
    return many(KeyRecord, conn.execute(_PAGE, {"after_key": after, "most": limit}))


def exist(conn: Connection) -> bool:
    """Whether there is a key that was not revoked."""
    return conn.execute(_ANY).first() is not None
