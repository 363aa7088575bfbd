"""Strays: what was meant for an executor that nobody has any more, as after a restart with others.

An executor is there while a scheduler says so: the one that asks has its *own*, and what others have is in their rows
(Postgres).  On SQLite there is one service, and rows of earlier ones prove nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import and_, bindparam, func, or_, select

from dag.ids import AttemptId
from dag.states import TaskState
from metastore.among import among
from metastore.models.agents import agents
from metastore.models.attempts import attempts
from metastore.models.base import Instant
from metastore.models.runs import runs, task_instances
from metastore.queries.offers import IS_OFFERED
from metastore.queries.work import IS_READY, IS_RUNNING, MOST

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from sqlalchemy import Connection

#: Schedulers whose executors no agent holds say four times as often that they are there.
_SHORTEST: Final = timedelta(seconds=80)
#: States in which an instance has no attempt, and will be admitted to the executor that its row names.
UNPLACED: Final = tuple(sorted(str(one) for one in (TaskState.PENDING, TaskState.SCHEDULED, TaskState.UP_FOR_RETRY)))

#: How many that are ready one look is given.
PAGE: Final = 10 * MOST

_instance = task_instances.c
_attempt = attempts.c
#: Agents are hosts with a scheduler: there are never many.
_ANNOUNCED: Final = (
    select(agents.c.executors)
    .where(
        agents.c.kind == "agent",
        or_(
            agents.c.lease_until > bindparam("now", type_=Instant),
            and_(agents.c.agent_id.like("scheduler:%"), agents.c.seen_at > bindparam("heard", type_=Instant)),
        ),
    )
    .limit(1_000)
)
# From one name to the next by the index of what is ready: however much that is, it costs a seek for each executor.
_NEXT_READY: Final = select(func.min(_instance.executor)).where(*IS_READY, _instance.executor > bindparam("after"))
_READY_OF: Final = (
    select(_instance.id, _instance.run)
    .where(*IS_READY, _instance.executor == bindparam("executor"), _instance.id > bindparam("after"))
    .order_by(_instance.id)
    .limit(PAGE)
)
_OFFERS: Final = (
    select(_attempt.id).where(*IS_OFFERED, ~among(_attempt.executor, "known")).order_by(_attempt.id).limit(MOST)
)
_RUNS: Final = (
    select(runs.c.id)
    .where(
        *IS_RUNNING,
        runs.c.id > bindparam("after"),
        select(_instance.id)
        .where(_instance.run == runs.c.id, _instance.state.in_(UNPLACED), ~among(_instance.executor, "known"))
        .exists(),
    )
    .order_by(runs.c.id)
    .limit(MOST)
)


@dataclass(frozen=True, slots=True)
class Strays:
    """What waits for executors that nobody has."""

    #: (instance, its run): ready to be admitted, by number.  As many as :data:`PAGE`: there may be more.
    ready: list[tuple[int, int]]
    #: In a queue, and taken by nobody.
    offers: list[AttemptId]


def heard_within(lease: timedelta) -> timedelta:
    """Return how long ago a scheduler may have spoken that is there, where schedulers have a *lease* that long."""
    return max(lease, _SHORTEST)


def there(conn: Connection, now: datetime, own: Sequence[str], within: timedelta | None) -> list[str]:
    """Return the executors that are there: *own*, and those of others that spoke *within* that time.

    None: there are no others.
    """
    found = set(own)
    if within is not None:
        for row in conn.execute(_ANNOUNCED, {"now": now, "heard": now - within}):
            found |= {one["name"] for one in row.executors if one.get("by_queue") or one["slots"] != 0}
    return sorted(found)


def strays(conn: Connection, now: datetime, own: Sequence[str], within: timedelta | None, after: int) -> Strays:
    """Return what is ready or offered for executors that are not :func:`there`; of what is ready, from *after* on."""
    known = there(conn, now, own, within)
    ready: list[tuple[int, int]] = []
    name: Any = conn.execute(_NEXT_READY, {"after": ""}).scalar()
    while name is not None:
        if name not in known:
            ready += [(row.id, row.run) for row in conn.execute(_READY_OF, {"executor": name, "after": after})]
        name = conn.execute(_NEXT_READY, {"after": name}).scalar()
    offers = [AttemptId(one) for one in conn.execute(_OFFERS, {"known": known}).scalars()]
    return Strays(sorted(ready)[:PAGE], offers)


def runs_with_strays(
    conn: Connection, now: datetime, own: Sequence[str], within: timedelta | None, after: int
) -> list[int]:
    """Return running runs, by number from *after* on, with instances for executors that are not :func:`there`.

    Reads all that is open: for the start of a scheduler.
    """
    return list(conn.execute(_RUNS, {"known": there(conn, now, own, within), "after": after}).scalars())
