"""Making and revoking API keys."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import bindparam, insert, or_, update
from sqlalchemy.dialects import postgresql, sqlite

from dag.errors import AlreadyExists, NotFound
from metastore.models.agents import agents
from metastore.models.events import events
from metastore.models.keys import api_keys
from metastore.queries import keys as queries
from metastore.records import KeyRecord

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from metastore.store import Tx

_ADD: Final = {
    dialect: add(api_keys).on_conflict_do_nothing(index_elements=["key_id"]).returning(api_keys.c.key_id)
    for dialect, add in (("sqlite", sqlite.insert), ("postgresql", postgresql.insert))
}
_REVOKE: Final = (
    update(api_keys)
    .where(api_keys.c.key_id == bindparam("of_key"), api_keys.c.revoked_at.is_(None))
    .values(revoked_at=bindparam("now"))
)
#: What no secret has as its hash: a worker that registered with the key is asked to do so again, and cannot.
_TAKE_TOKENS: Final = update(agents).where(agents.c.key_id == bindparam("of_key")).values(token_hash="")
_TOUCH: Final = (
    update(api_keys)
    .where(
        api_keys.c.key_id == bindparam("of_key"),
        or_(api_keys.c.last_used_at.is_(None), api_keys.c.last_used_at < bindparam("before")),
    )
    .values(last_used_at=bindparam("now"))
)
_ADD_EVENT: Final = insert(events).inline()
_GRANULARITY: Final = timedelta(minutes=1)


def create_key(  # noqa: PLR0913  # what a key is made of
    tx: Tx,
    *,
    key_id: str,
    name: str,
    secret_hash: str,
    scopes: Sequence[str],
    dag_prefix: str | None,
    expires_at: datetime | None,
    actor: str,
    queues: Sequence[str] | None = None,
) -> KeyRecord:
    """Make a key known.  The same key again, by its secret's hash, is found and left as it is."""
    record = KeyRecord(
        key_id=key_id,
        name=name,
        secret_hash=secret_hash,
        scopes=list(scopes),
        dag_prefix=dag_prefix,
        created_at=tx.now,
        created_by=actor,
        expires_at=expires_at,
        revoked_at=None,
        last_used_at=None,
        queues=None if queues is None else list(queues),
    )
    row = {field: getattr(record, field) for field in KeyRecord.__slots__}
    if tx.conn.execute(_ADD[tx.conn.dialect.name], row).first() is None:
        there = queries.get(tx.conn, key_id)
        if there is None or there.secret_hash != secret_hash:
            raise AlreadyExists("key", key_id)
        return there
    facts = {"key_id": key_id, "name": name, "scopes": record.scopes, "dag_prefix": dag_prefix, "queues": record.queues}
    _tell(tx, "key.created", actor, facts)
    return record


def revoke_key(tx: Tx, key_id: str, actor: str) -> KeyRecord:
    """Revoke a key, and the tokens of workers that registered with it; revoking it again changes nothing."""
    revoked = tx.conn.execute(_REVOKE, {"of_key": key_id, "now": tx.now}).rowcount
    record = queries.get(tx.conn, key_id)
    if record is None:
        raise NotFound("key", key_id)
    if revoked:
        tx.conn.execute(_TAKE_TOKENS, {"of_key": key_id})
        _tell(tx, "key.revoked", actor, {"key_id": key_id})
    return record


def touch_key(tx: Tx, key_id: str) -> None:
    """Note that a key was used, to the minute."""
    tx.conn.execute(_TOUCH, {"of_key": key_id, "now": tx.now, "before": tx.now - _GRANULARITY})


def _tell(tx: Tx, kind: str, actor: str, data: Any) -> None:
    tx.conn.execute(_ADD_EVENT, {"at": tx.now, "kind": kind, "actor": actor, "data": data})
