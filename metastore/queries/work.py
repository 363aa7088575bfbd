"""What there is to do: the scheduler's reads, each by a partial index over what has not ended."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import and_, bindparam, func, literal_column, or_, select, text

from dag.ids import AttemptId
from dag.states import TASK_FINAL, AttemptState, RunState, TaskState
from metastore.among import among
from metastore.models.agents import agents
from metastore.models.attempts import attempts
from metastore.models.dags import dags
from metastore.models.limits import limits
from metastore.models.runs import runs, task_instances

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from sqlalchemy import Connection

#: How many of each kind are read at once; the rest follows in the next look.
MOST: Final = 100

_instance = task_instances.c
_attempt = attempts.c
_HEALTHY: Final = or_(runs.c.quarantined_until.is_(None), runs.c.quarantined_until <= bindparam("now"))
_QUEUED_NOW: Final = and_(runs.c.state == RunState.QUEUED.value, runs.c.run_after <= bindparam("now"), _HEALTHY)

# The DAG comes first: one that is paused or at its limit is passed over whole, however many of its runs wait.
_DAGS_TO_START: Final = (
    select(dags.c.dag_id, limits.c.capacity, limits.c.used)
    .select_from(
        dags.join(limits, limits.c.key == literal_column("'dag:'") + dags.c.dag_id + literal_column("':runs'"))
    )
    .where(
        dags.c.paused.is_(False),
        or_(limits.c.capacity.is_(None), limits.c.used < limits.c.capacity),
        select(runs.c.id).where(runs.c.dag_id == dags.c.dag_id, _QUEUED_NOW).exists(),
    )
    .limit(MOST)
)
_RUNS_TO_START: Final = (
    select(runs.c.id, runs.c.run_after)
    .where(runs.c.dag_id == bindparam("dag_id"), _QUEUED_NOW)
    .order_by(runs.c.run_after, runs.c.id)
    .limit(bindparam("most"))
)
_UNMATERIALISED: Final = (
    select(runs.c.id)
    .where(text("runs.state = 'running' AND NOT runs.materialised"), _HEALTHY)
    .order_by(runs.c.id)
    .limit(MOST)
)
_DUE: Final = (
    select(_instance.run)
    .select_from(task_instances.join(runs, runs.c.id == _instance.run))
    .where(_instance.due_at <= bindparam("now"), runs.c.state == RunState.RUNNING.value, runs.c.materialised, _HEALTHY)
    .distinct()
    .limit(MOST)
)
#: A running run, in the words of the index of the active ones.
IS_RUNNING: Final = (text("runs.state IN ('running', 'cancelling')"), runs.c.state == RunState.RUNNING.value)
_OVERDUE: Final = (
    select(runs.c.id)
    .where(
        *IS_RUNNING,
        runs.c.deadline_at <= bindparam("now"),
        _HEALTHY,
    )
    .order_by(runs.c.deadline_at)
    .limit(MOST)
)
#: An instance that waits for a slot.
IS_READY: Final = (text("task_instances.state = 'scheduled'"), _instance.blocked_on.is_(None))
ANY_READY: Final = select(_instance.id).where(_instance.executor == bindparam("executor"), *IS_READY).limit(1)
_NEXT: Final = (
    select(func.min(runs.c.run_after)).where(text("runs.state = 'queued'"), runs.c.run_after > bindparam("now")),
    select(func.min(_instance.due_at)).where(_instance.due_at > bindparam("now")),
    select(func.min(runs.c.deadline_at)).where(
        *IS_RUNNING,
        runs.c.deadline_at > bindparam("now"),
    ),
    select(func.min(runs.c.quarantined_until)).where(runs.c.quarantined_until > bindparam("now")),
)
_STOPPING: Final = (
    select(_attempt.id, _attempt.executor, _attempt.placed_on, _attempt.stop_reason)
    .where(
        text("attempts.state = 'running' AND attempts.stop_reason IS NOT NULL"),
        among(_attempt.placed_on, "places"),
    )
    .order_by(_attempt.id)
    .limit(1_000)
)
PLACED: Final = select(
    _attempt.id,
    _attempt.executor,
    _attempt.placed_on,
    _attempt.state,
    _attempt.boot_id,
    _attempt.queued_at,
    _attempt.launch_after,
    _attempt.deferred_reason,
    _attempt.relaunches,
    _attempt.queue,
    _attempt.stop_reason,
    _attempt.try_number,
    _instance.priority_weight,
    _instance.task_id,
    _instance.map_index,
    runs.c.dag_id,
    runs.c.run_id,
).select_from(attempts.join(task_instances, _instance.id == _attempt.instance).join(runs, runs.c.id == _attempt.run))
_PLACED: Final = PLACED.where(
    text("attempts.state IN ('queued', 'running')"), among(_attempt.placed_on, "places")
).order_by(_attempt.id)
_ACTIVE_RUNS: Final = (
    select(runs.c.id)
    .where(text("runs.state IN ('running', 'cancelling')"), runs.c.id > bindparam("after"), _HEALTHY)
    .order_by(runs.c.id)
    .limit(bindparam("most"))
)
_LIMIT_KEYS: Final = (
    select(limits.c.key).where(limits.c.key > bindparam("after")).order_by(limits.c.key).limit(bindparam("most"))
)


@dataclass(frozen=True, slots=True)
class Placed:
    """An active attempt and where it was placed."""

    id: AttemptId
    executor: str
    placed_on: str | None
    state: AttemptState
    boot_id: str | None
    queued_at: datetime
    launch_after: datetime | None
    stop_reason: str | None
    labels: dict[str, str]
    #: Why its executor put it off.
    deferred_reason: str | None = None
    relaunches: int = 0
    queue: str | None = None
    priority: int = 0


@dataclass(frozen=True, slots=True)
class Stopping:
    """A running attempt that was asked to stop."""

    id: AttemptId
    executor: str
    placed_on: str | None
    reason: str


def startable_runs(conn: Connection, now: datetime) -> list[int]:
    """Return queued runs whose time has come and whose DAG has room, earliest first in each DAG."""
    found: list[tuple[datetime, int]] = []
    for dag in conn.execute(_DAGS_TO_START, {"now": now}).all():
        most = MOST if dag.capacity is None else min(MOST, dag.capacity - dag.used)
        rows = conn.execute(_RUNS_TO_START, {"now": now, "dag_id": dag.dag_id, "most": most})
        found += [(row.run_after, row.id) for row in rows]
    return [run for _, run in sorted(found)[:MOST]]


def unmaterialised_runs(conn: Connection, now: datetime) -> list[int]:
    """Return running runs some of whose instances have not been created."""
    return list(conn.execute(_UNMATERIALISED, {"now": now}).scalars())


def due_runs(conn: Connection, now: datetime) -> list[int]:
    """Return runs with an instance whose time has come."""
    return list(conn.execute(_DUE, {"now": now}).scalars())


def overdue_runs(conn: Connection, now: datetime) -> list[int]:
    """Return runs that have passed their deadline."""
    return list(conn.execute(_OVERDUE, {"now": now}).scalars())


def executors_with_ready(conn: Connection, executors: Sequence[str]) -> list[str]:
    """Return which of *executors* have an instance that waits for a slot."""
    return [name for name in executors if conn.execute(ANY_READY, {"executor": name}).first() is not None]


_FREE: Final = select(limits.c.key).where(
    limits.c.key == bindparam("limit_key"), or_(limits.c.capacity.is_(None), limits.c.used < limits.c.capacity)
)
_NEXT_EXPIRY: Final = select(func.min(agents.c.lease_until))


def idle_beside_ready(conn: Connection, slots: Sequence[tuple[str, str]]) -> bool:
    """Whether one of *slots* (executor, limit key) has room while an instance waits for its executor."""
    return any(
        conn.execute(_FREE, {"limit_key": key}).first() is not None
        and conn.execute(ANY_READY, {"executor": executor}).first() is not None
        for executor, key in slots
    )


def next_expiry(conn: Connection) -> datetime | None:
    """Return when the next lease runs out, or the one that ran out first."""
    moment: datetime | None = conn.execute(_NEXT_EXPIRY).scalar()
    return moment


def next_due(conn: Connection, now: datetime) -> datetime | None:
    """Return the next moment at which something becomes due by itself."""
    moments = [conn.execute(statement, {"now": now}).scalar() for statement in _NEXT]
    return min((moment for moment in moments if moment is not None), default=None)


def placed(conn: Connection, places: Sequence[str]) -> list[Placed]:
    """Return the active attempts that *places* hold."""
    return [to_placed(row) for row in conn.execute(_PLACED, {"places": list(places)})]


def to_placed(row: Any) -> Placed:
    labels = {
        "dag_id": row.dag_id,
        "run_id": row.run_id,
        "task_id": row.task_id,
        "map_index": str(row.map_index),
        "try_number": str(row.try_number),
    }
    return Placed(
        AttemptId(row.id),
        row.executor,
        row.placed_on,
        AttemptState(row.state),
        row.boot_id,
        row.queued_at,
        row.launch_after,
        row.stop_reason,
        labels,
        row.deferred_reason,
        row.relaunches,
        row.queue,
        row.priority_weight,
    )


def stopping(conn: Connection, places: Sequence[str]) -> list[Stopping]:
    """Return the running attempts of *places* that were asked to stop."""
    rows = conn.execute(_STOPPING, {"places": list(places)})
    return [Stopping(AttemptId(row.id), row.executor, row.placed_on, row.stop_reason) for row in rows]


def active_runs(conn: Connection, now: datetime, after: int, most: int) -> list[int]:
    """Return running runs by number, from *after* on."""
    return list(conn.execute(_ACTIVE_RUNS, {"now": now, "after": after, "most": most}).scalars())


def limit_keys(conn: Connection, after: str, most: int) -> list[str]:
    """Return the keys of limits, from *after* on."""
    return list(conn.execute(_LIMIT_KEYS, {"after": after, "most": most}).scalars())


_OPEN_INSTANCES: Final = (
    select(func.count())
    .where(_instance.run == runs.c.id, _instance.state.not_in(sorted(str(state) for state in TASK_FINAL)))
    .scalar_subquery()
)
_CANCELLED_INSTANCES: Final = (
    select(func.count())
    .where(_instance.run == runs.c.id, _instance.state == TaskState.CANCELLED.value)
    .scalar_subquery()
)
_GOES_ON: Final = (
    select(_instance.id)
    .where(
        _instance.run == runs.c.id,
        or_(_instance.state.not_in(sorted({TaskState.PENDING.value, *TASK_FINAL})), _instance.due_at.is_not(None)),
    )
    .exists()
)
# Wrong totals, or nothing of it is active, ready or due although it has not ended: somebody was not told.
_DOUBTFUL_RUNS: Final = (
    select(runs.c.id)
    .where(
        among(runs.c.id, "runs"),
        runs.c.materialised,
        or_(runs.c.unfinished != _OPEN_INSTANCES, runs.c.cancelled != _CANCELLED_INSTANCES, ~_GOES_ON),
    )
    .order_by(runs.c.id)
)
_ACTIVE_OF_DAG: Final = (
    select(func.count())
    .select_from(attempts.join(runs, runs.c.id == _attempt.run))
    .where(text("attempts.state IN ('queued', 'running')"), runs.c.dag_id == bindparam("dag_id"))
)
_RUNS_OF_DAG: Final = select(func.count()).where(
    text("runs.state IN ('running', 'cancelling')"), runs.c.dag_id == bindparam("dag_id")
)
_SLOTS_USED: Final = select(func.count()).where(
    text("attempts.state IN ('queued', 'running')"), _attempt.slots == bindparam("limit_key")
)
_LIMIT_NOW: Final = select(limits.c.key, limits.c.capacity, limits.c.used).where(limits.c.key == bindparam("limit_key"))
_HELD_BACK: Final = select(_instance.id).where(_instance.blocked_on == bindparam("limit_key")).limit(1)


def doubtful_runs(conn: Connection, ids: Sequence[int]) -> list[int]:
    """Return which of these running runs should be verified under their lock."""
    if not ids:
        return []
    return list(conn.execute(_DOUBTFUL_RUNS, {"runs": list(ids)}).scalars())


def used(conn: Connection, key: str) -> int:
    """Count what really holds a limit."""
    if key.startswith("slots:"):
        return int(conn.execute(_SLOTS_USED, {"limit_key": key}).scalar_one())
    dag_id, _, kind = key.removeprefix("dag:").rpartition(":")
    statement = _RUNS_OF_DAG if kind == "runs" else _ACTIVE_OF_DAG
    return int(conn.execute(statement, {"dag_id": dag_id}).scalar_one())


def doubtful_limits(conn: Connection, keys: Sequence[str]) -> list[str]:
    """Return which limits should be recounted under their lock: a wrong count, or room beside what it holds back."""
    return [key for key in keys if _doubtful(conn, key)]


def _doubtful(conn: Connection, key: str) -> bool:
    row = conn.execute(_LIMIT_NOW, {"limit_key": key}).first()
    if row is None:
        return False
    if row.used != used(conn, key):
        return True
    room = row.capacity is None or row.used < row.capacity
    return room and conn.execute(_HELD_BACK, {"limit_key": key}).first() is not None
