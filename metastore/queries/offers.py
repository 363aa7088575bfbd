"""Offers: what waits in queues for workers, and who could take it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sqlalchemy import Integer, and_, bindparam, func, or_, select, text

from metastore.among import among
from metastore.models.agents import agents
from metastore.models.attempts import attempts
from metastore.models.base import Instant
from metastore.models.limits import limits, queues_prefix
from metastore.models.runs import task_instances
from metastore.queries.work import ANY_READY, MOST, PLACED, Placed, to_placed

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from sqlalchemy import Connection

_attempt = attempts.c
_ANY_OFFER: Final = ANY_READY.where(task_instances.c.queue == bindparam("queue"))
_QUEUES_WITH_ROOM: Final = select(limits.c.key).where(
    limits.c.queue_of == bindparam("of"), limits.c.used < limits.c.capacity
)
#: An attempt that lies in a queue, in the words of the index of the active ones.
IS_OFFERED: Final = (
    text("attempts.state IN ('queued', 'running') AND attempts.state = 'queued'"),
    _attempt.placed_on.is_(None),
)
_OFFERED: Final = (
    PLACED.where(
        *IS_OFFERED,
        or_(
            _attempt.launch_after <= bindparam("now", type_=Instant),
            and_(bindparam("everything", type_=Integer) == 1, _attempt.deferred_reason.is_not(None)),
        ),
        among(_attempt.executor, "executors"),
    )
    .order_by(_attempt.id)
    .limit(MOST)
)
_NEXT_OFFER: Final = select(func.min(_attempt.launch_after)).where(
    *IS_OFFERED,
    among(_attempt.executor, "executors"),
)
_LIVE_WORKERS: Final = select(agents.c.agent_id, agents.c.queues, agents.c.slots).where(
    agents.c.kind == "worker",
    agents.c.executor == bindparam("of"),
    agents.c.lease_until > bindparam("now", type_=Instant),
    agents.c.draining.is_(False),
)
_ON_WORKERS: Final = (
    select(_attempt.placed_on, func.count().label("running"))
    .where(text("attempts.state IN ('queued', 'running')"), among(_attempt.placed_on, "places"))
    .group_by(_attempt.placed_on)
)


def executors_with_offers(conn: Connection, executors: Sequence[str]) -> list[str]:
    """Return which of *executors*, all by queue, have an instance that waits in a queue with room."""
    return [name for name in executors if _has_offers(conn, name)]


def _has_offers(conn: Connection, executor: str) -> bool:
    prefix = queues_prefix(executor)
    rows = conn.execute(_QUEUES_WITH_ROOM, {"of": executor}).all()
    queues = [row.key.removeprefix(prefix) for row in rows]
    return any(conn.execute(_ANY_OFFER, {"executor": executor, "queue": queue}).first() for queue in queues)


def offered(conn: Connection, now: datetime, executors: Sequence[str], *, everything: bool = False) -> list[Placed]:
    """Return the attempts that were offered to queues of *executors* and should have been taken by now.

    With *everything*, those too that their executor put off to later.
    """
    values = {"now": now, "executors": list(executors), "everything": int(everything)}
    return [to_placed(row) for row in conn.execute(_OFFERED, values)]


def next_offer(conn: Connection, executors: Sequence[str]) -> datetime | None:
    """Return when the next offer should have been taken."""
    moment: datetime | None = conn.execute(_NEXT_OFFER, {"executors": list(executors)}).scalar()
    return moment


def idle_slots(conn: Connection, now: datetime, executor: str) -> dict[str, tuple[int, int]]:
    """Return, by queue, how many live workers of *executor* serve it and how many of their slots run nothing."""
    live = conn.execute(_LIVE_WORKERS, {"of": executor, "now": now}).all()
    busy = {row.placed_on: row.running for row in conn.execute(_ON_WORKERS, {"places": [w.agent_id for w in live]})}
    found: dict[str, tuple[int, int]] = {}
    for worker in live:
        free = max(0, worker.slots - busy.get(worker.agent_id, 0))
        for queue in worker.queues:
            workers, slots = found.get(queue, (0, 0))
            found[queue] = (workers + 1, slots + free)
    return found
