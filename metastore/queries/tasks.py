"""Asking for the task instances of a run, in the order of its document."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sqlalchemy import bindparam, select, tuple_

from metastore.among import among
from metastore.models.attempts import attempts
from metastore.models.runs import outputs, task_instances
from metastore.records import TaskRecord, columns, many, one

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection

_TASK: Final = columns(TaskRecord, task_instances)
_GET: Final = select(*_TASK).where(
    task_instances.c.run == bindparam("run"),
    task_instances.c.task_id == bindparam("task_id"),
    task_instances.c.map_index == bindparam("map_index"),
)
_HOLDERS: Final = select(attempts.c.instance, attempts.c.placed_on).where(
    among(attempts.c.instance, "instances"),
    attempts.c.placed_on.is_not(None),
    attempts.c.try_number
    == select(task_instances.c.try_number).where(task_instances.c.id == attempts.c.instance).scalar_subquery(),
)
_OUTPUT: Final = select(outputs.c.value).where(outputs.c.instance == bindparam("instance"))


def get(conn: Connection, run: int, task_id: str, map_index: int = -1) -> TaskRecord | None:
    """Return one task instance."""
    row = conn.execute(_GET, {"run": run, "task_id": task_id, "map_index": map_index}).first()
    return one(TaskRecord, row)


def page(
    conn: Connection, run: int, *, limit: int, after: tuple[int, int] | None = None, states: Sequence[str] = ()
) -> list[TaskRecord]:
    """Return task instances; *after* is the (task_no, map_index) of the last one of the previous page."""
    query = (
        select(*_TASK)
        .where(task_instances.c.run == run)
        .order_by(task_instances.c.task_no, task_instances.c.map_index)
        .limit(limit)
    )
    if after is not None:
        query = query.where(tuple_(task_instances.c.task_no, task_instances.c.map_index) > tuple_(*after))
    if states:
        query = query.where(task_instances.c.state.in_(states))
    return many(TaskRecord, conn.execute(query))


def holders(conn: Connection, instances: Sequence[int]) -> dict[int, str]:
    """Return, by task instance, what its last attempt was placed on."""
    if not instances:
        return {}
    return {row.instance: row.placed_on for row in conn.execute(_HOLDERS, {"instances": list(instances)})}


def output(conn: Connection, instance: int) -> str | None:
    """Return the output of a task instance as the JSON text that its task wrote."""
    found: str | None = conn.execute(_OUTPUT, {"instance": instance}).scalar()
    return found
