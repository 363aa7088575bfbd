"""Idempotency: an effect and its answer in one transaction, under a key that is claimed first.

The claim is an insert, so that two requests with the same key meet in the database: the second one waits until the
first has committed, and then finds its answer; or until it has failed, and then has its own try.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from sqlalchemy import bindparam, delete, select, update
from sqlalchemy.dialects import postgresql, sqlite

from dag.errors import KeyReused, Unavailable
from metastore.models.keys import idempotency_keys

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import timedelta

    from metastore.store import Tx


@dataclass(frozen=True, slots=True)
class Answer:
    """What a request was answered."""

    status: int
    headers: Mapping[str, str]
    body: str


_c = idempotency_keys.c
_MINE: Final = (_c.principal == bindparam("of_principal"), _c.key == bindparam("of_key"))
_CLAIM: Final = {
    dialect: add(idempotency_keys).on_conflict_do_nothing(index_elements=["principal", "key"]).returning(_c.key)
    for dialect, add in (("sqlite", sqlite.insert), ("postgresql", postgresql.insert))
}
_STORED: Final = select(_c.fingerprint, _c.status, _c.headers, _c.body).where(*_MINE)
_STORE: Final = (
    update(idempotency_keys)
    .where(*_MINE)
    .values(status=bindparam("new_status"), headers=bindparam("new_headers"), body=bindparam("new_body"))
)
_OLD: Final = select(_c.principal, _c.key).where(_c.created_at < bindparam("before")).order_by(_c.created_at).limit(500)
_FORGET: Final = delete(idempotency_keys).where(*_MINE)


def once(tx: Tx, principal: str, key: str, fingerprint: str, effect: Callable[[Tx], Answer]) -> tuple[Answer, bool]:
    """Run *effect* unless *principal* has had an answer under *key*; return the answer and whether it is the old one.

    An effect that raises stores nothing.  Raises :exc:`~dag.errors.KeyReused` for a request with another *fingerprint*.
    """
    claim = {
        "principal": principal,
        "key": key,
        "fingerprint": fingerprint,
        "status": 0,
        "headers": {},
        "body": "",
        "created_at": tx.now,
    }
    mine = {"of_principal": principal, "of_key": key}
    if tx.conn.execute(_CLAIM[tx.conn.dialect.name], claim).first() is not None:
        answer = effect(tx)
        new = {"new_status": answer.status, "new_headers": dict(answer.headers), "new_body": answer.body}
        tx.conn.execute(_STORE, mine | new)
        return answer, False
    stored = tx.conn.execute(_STORED, mine).first()
    if stored is None:  # forgotten between the two statements
        msg = f"The idempotency key {key!r} has just expired. Send the request again."
        raise Unavailable(msg)
    if stored.fingerprint != fingerprint:
        raise KeyReused(key)
    return Answer(stored.status, stored.headers, stored.body), True


def forget(tx: Tx, older_than: timedelta) -> int:
    """Delete some answers that are older than *older_than*; return how many, 0 when none is left."""
    old = tx.conn.execute(_OLD, {"before": tx.now - older_than}).all()
    if old:
        tx.conn.execute(_FORGET, [{"of_principal": row.principal, "of_key": row.key} for row in old])
    return len(old)
