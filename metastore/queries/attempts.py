"""Asking for attempts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sqlalchemy import bindparam, select

from metastore.models.attempts import attempts
from metastore.records import AttemptRecord, columns, many, one

if TYPE_CHECKING:
    from sqlalchemy import Connection

_ATTEMPT: Final = columns(AttemptRecord, attempts)
_OF_INSTANCE: Final = (
    select(*_ATTEMPT)
    .where(attempts.c.instance == bindparam("instance"), attempts.c.try_number > bindparam("after_try"))
    .order_by(attempts.c.try_number)
    .limit(bindparam("most"))
)
_GET: Final = select(*_ATTEMPT).where(
    attempts.c.instance == bindparam("instance"), attempts.c.try_number == bindparam("try_number")
)
_BY_ID: Final = select(*_ATTEMPT).where(attempts.c.id == bindparam("attempt_id"))


def of_instance(conn: Connection, instance: int, *, after_try: int = 0, limit: int = 1000) -> list[AttemptRecord]:
    """Return the attempts of a task instance, the first one first."""
    return many(
        AttemptRecord, conn.execute(_OF_INSTANCE, {"instance": instance, "after_try": after_try, "most": limit})
    )


def get(conn: Connection, instance: int, try_number: int) -> AttemptRecord | None:
    """Return one attempt of a task instance."""
    return one(AttemptRecord, conn.execute(_GET, {"instance": instance, "try_number": try_number}).first())


def by_id(conn: Connection, attempt_id: str) -> AttemptRecord | None:
    """Return an attempt by its id."""
    return one(AttemptRecord, conn.execute(_BY_ID, {"attempt_id": attempt_id}).first())
