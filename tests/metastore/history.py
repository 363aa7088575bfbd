"""What a metastore says happened, as the history checker reads it (``tests/simulation/checker/FORMAT.md``)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import select

from metastore.models.dags import dag_versions
from metastore.models.events import events
from metastore.models.limits import limits
from metastore.models.runs import runs, task_instances
from metastore.records import EventRecord, columns, many
from tests.simulation.checker import check

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from sqlalchemy import Connection

    from metastore.store import Store
    from tests.simulation.checker import Report

Line = dict[str, Any]


async def told(store: Store, *, slots: Mapping[str, int | None] | None = None) -> list[Line]:
    """Return the log and what is stored now; *slots*: capacities where those of the end were not those of all time."""
    lines = await store.read(_all)
    if slots is not None:
        lines[0]["limits"] = dict(slots)
    return lines


async def judged(store: Store, *more: Iterable[Line], rest: bool = True, clients: bool = False, **setup: Any) -> Report:
    """Check what *store* says happened, together with *more* witnesses."""
    lines = await told(store, slots=setup.pop("slots", None))
    lines[0].update(clients=clients, **setup)
    return check([*lines, *(line for each in more for line in each), *([{"type": "rest"}] if rest else [])])


def _all(conn: Connection) -> list[Line]:
    """Return everything as of one snapshot."""
    setup = {"type": "setup", "limits": _capacities(conn)}
    return [setup, *_documents(conn), *_log(conn), *_stored(conn)]


def _log(conn: Connection) -> list[Line]:
    # Ids are drawn while the locks are held that order the transactions; transaction numbers are those of their begins.
    found = many(EventRecord, conn.execute(select(*columns(EventRecord, events)).order_by(events.c.id)))
    return [
        {"type": "event", "at": event.at.isoformat()}
        | {name: getattr(event, name) for name in event.__slots__ if name not in ("at", "id", "xid", "run")}
        for event in found
    ]


def _documents(conn: Connection) -> list[Line]:
    rows = conn.execute(select(dag_versions.c.dag_id, dag_versions.c.version, dag_versions.c.document))
    return [{"type": "dag", "dag_id": row.dag_id, "version": row.version, "document": row.document} for row in rows]


def _capacities(conn: Connection) -> dict[str, int | None]:
    rows = conn.execute(select(limits.c.key, limits.c.capacity).where(limits.c.key.like("slots:%")))
    return {row.key: row.capacity for row in rows}


def _stored(conn: Connection) -> list[Line]:
    found: list[Line] = [
        {"type": "run", "dag_id": row.dag_id, "run_id": row.run_id, "state": row.state, "version": row.version}
        for row in conn.execute(select(runs.c.dag_id, runs.c.run_id, runs.c.state, runs.c.version))
    ]
    i = task_instances.c
    columns = (i.task_id, i.map_index, i.state, i.try_number, i.failures, i.losses)
    rows = conn.execute(
        select(runs.c.dag_id, runs.c.run_id, *columns).join_from(task_instances, runs, i.run == runs.c.id)
    )
    found += [{"type": "instance", **row._asdict()} for row in rows]
    return found + [
        {"type": "used", "key": row.key, "used": row.used} for row in conn.execute(select(limits.c.key, limits.c.used))
    ]
