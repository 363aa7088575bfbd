"""Counts for monitoring: only of what is alive, each from a partial index, so that history costs nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from sqlalchemy import func, select, text

from metastore.models.attempts import attempts
from metastore.models.runs import runs, task_instances

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy import Connection


@dataclass(frozen=True, slots=True)
class Depth:
    """How many wait or run, and since when the first of them."""

    count: int
    oldest: datetime | None


@dataclass(frozen=True, slots=True)
class Stats:
    """What is alive in the metastore."""

    #: queued, running, cancelling.
    runs: dict[str, Depth]
    #: Ready instances that wait for a slot, by executor.
    ready: dict[str, Depth]
    #: Ready instances that a limit holds back, by its key.
    blocked: dict[str, Depth]
    #: Attempts that were handed over and have not started, by executor.
    queued: dict[str, Depth]
    #: Attempts that run, by executor.
    running: dict[str, Depth]


# The conditions are the indexes' own words: a database uses a partial index only where it sees the same text.
_QUEUED_RUNS: Final = select(func.count(), func.min(runs.c.queued_at)).where(text("state = 'queued'"))
_ACTIVE_RUNS: Final = (
    select(runs.c.state, func.count(), func.min(runs.c.started_at))
    .where(text("state IN ('running', 'cancelling')"))
    .group_by(runs.c.state)
)
_READY: Final = (
    select(task_instances.c.executor, func.count(), func.min(task_instances.c.scheduled_at))
    .where(text("state = 'scheduled' AND blocked_on IS NULL"))
    .group_by(task_instances.c.executor)
)
_BLOCKED: Final = (
    select(task_instances.c.blocked_on, func.count(), func.min(task_instances.c.scheduled_at))
    .where(text("blocked_on IS NOT NULL"))
    .group_by(task_instances.c.blocked_on)
)
_ATTEMPTS: Final = (
    select(
        attempts.c.state,
        attempts.c.executor,
        func.count(),
        func.min(func.coalesce(attempts.c.started_at, attempts.c.queued_at)),
    )
    .where(text("state IN ('queued', 'running')"))
    .group_by(attempts.c.state, attempts.c.executor)
)


def count(conn: Connection) -> Stats:
    """Return the counts of now."""
    queued = conn.execute(_QUEUED_RUNS).one()
    found = {"queued": Depth(*queued), "running": Depth(0, None), "cancelling": Depth(0, None)}
    found |= {state: Depth(number, oldest) for state, number, oldest in conn.execute(_ACTIVE_RUNS)}
    handed: dict[str, dict[str, Depth]] = {"queued": {}, "running": {}}
    for state, executor, number, oldest in conn.execute(_ATTEMPTS):
        handed[state][executor] = Depth(number, oldest)
    return Stats(
        runs=found,
        ready={executor: Depth(number, oldest) for executor, number, oldest in conn.execute(_READY)},
        blocked={key: Depth(number, oldest) for key, number, oldest in conn.execute(_BLOCKED)},
        queued=handed["queued"],
        running=handed["running"],
    )
