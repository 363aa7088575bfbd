"""Reading the event log: of one run by its dense ``run_seq``, or all of it in an order that loses nothing.

Sequence numbers are given at insert and rows become visible at COMMIT, so "everything after id 7" misses a row 6 that
commits late.  On Postgres the whole log is therefore read by (transaction, id), and only up to the oldest transaction
that is still running; on SQLite there is one writer, and the ids are the order of the commits.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from sqlalchemy import bindparam, func, literal_column, or_, select

from metastore.models.events import events
from metastore.records import EventRecord, columns, many

if TYPE_CHECKING:
    from sqlalchemy import Connection

_EVENT: Final = columns(EventRecord, events)
_OF_RUN: Final = (
    select(*_EVENT)
    .where(events.c.run == bindparam("of_run"), events.c.run_seq > bindparam("after_seq"))
    .order_by(events.c.run_seq)
    .limit(bindparam("most"))
)
_BY_ID: Final = (
    select(*_EVENT).where(events.c.id > bindparam("after_id")).order_by(events.c.id).limit(bindparam("most"))
)
_BY_XID: Final = (
    select(*_EVENT)
    .where(
        events.c.xid >= bindparam("after_xid", type_=events.c.xid.type),
        or_(
            events.c.xid > bindparam("after_xid", type_=events.c.xid.type),
            events.c.id > bindparam("after_id"),
        ),
        events.c.xid < func.pg_snapshot_xmin(literal_column("pg_current_snapshot()")),
    )
    .order_by(events.c.xid, events.c.id)
    .limit(bindparam("most"))
)


class Place(NamedTuple):
    """A place in the whole log: give back what was given, and read nothing into it."""

    xid: int
    id: int


START: Final = Place(0, 0)


def of_run(conn: Connection, run: int, *, after_seq: int = 0, limit: int) -> list[EventRecord]:
    """Return the events of a run after its *after_seq*-th, in their order and without a gap."""
    return many(EventRecord, conn.execute(_OF_RUN, {"of_run": run, "after_seq": after_seq, "most": limit}))


def page(conn: Connection, *, after: Place = START, limit: int) -> list[EventRecord]:
    """Return what happened after a place; the same calls give the same events, whenever they are made."""
    if conn.dialect.name == "sqlite":
        return many(EventRecord, conn.execute(_BY_ID, {"after_id": after.id, "most": limit}))
    values = {"after_xid": after.xid, "after_id": after.id, "most": limit}
    return many(EventRecord, conn.execute(_BY_XID, values))


def place(event: EventRecord) -> Place:
    """Return the place right after *event*."""
    return Place(event.xid or 0, event.id)
