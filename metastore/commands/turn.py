"""A turn: one command's hold on one run.

The run's row is locked first (run → limits is the lock order everywhere; rows of a run's instances and attempts are
only touched under its lock); then events and counter changes are collected and written once, at the end, together with
the end of the run where that is due.  Without the lock a cancel could miss an attempt that is inserted beside it under
READ COMMITTED.
"""

from __future__ import annotations

from collections import Counter
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import BigInteger, Integer, and_, bindparam, select, update
from sqlalchemy.exc import DBAPIError

from dag.outcomes import verdict
from dag.states import RUN_FINAL, RUN_STEPS, AttemptState, RunState, RunStep, TaskState, step
from metastore.among import among
from metastore.each import Each, EachNew, write
from metastore.models.attempts import attempts
from metastore.models.events import events
from metastore.models.limits import limits
from metastore.models.runs import runs, task_instances

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime

    from sqlalchemy import Row, Select

    from dag.plan import Plan, PlanTask
    from metastore.store import Tx

_instance = task_instances.c
_RUN_COLUMNS: Final = (
    runs.c.id,
    runs.c.dag_id,
    runs.c.run_id,
    runs.c.version,
    runs.c.content_hash,
    runs.c.run_type,
    runs.c.state,
    runs.c.reason,
    runs.c.params,
    runs.c.logical_date,
    runs.c.data_interval_start,
    runs.c.data_interval_end,
    runs.c.run_after,
    runs.c.started_at,
    runs.c.ended_at,
    runs.c.deadline_at,
    runs.c.created_instances,
    runs.c.materialised,
    runs.c.unfinished,
    runs.c.bad,
    runs.c.cancelled,
    runs.c.cancel_asked,
    runs.c.seq,
    runs.c.quarantines,
)
_BY_ID: Final = select(*_RUN_COLUMNS).where(runs.c.id == bindparam("run")).with_for_update()
_BY_NAME: Final = (
    select(*_RUN_COLUMNS)
    .where(runs.c.dag_id == bindparam("dag_id"), runs.c.run_id == bindparam("run_id"))
    .with_for_update()
)
# In one order: whoever locks several runs must not meet another one who does.
_BY_ATTEMPTS: Final[Select[Any]] = (
    select(*_RUN_COLUMNS)
    .where(runs.c.id.in_(select(attempts.c.run).where(among(attempts.c.id, "attempts"))))
    .order_by(runs.c.id)
    .with_for_update(of=runs)
)
#: What closing writes of a run's row, and what the indexes of all runs have of it: SQLite writes their pages for the
#: same value too.
_CLOSED: Final = (
    "seq",
    "reason",
    "started_at",
    "ended_at",
    "unfinished",
    "bad",
    "cancelled",
    "cancel_asked",
    "created_instances",
    "materialised",
    "quarantined_until",
    "quarantines",
)
_INDEXED: Final = ("state", "deadline_at")


def _closing(names: Sequence[str]) -> Each:
    return Each(
        "runs",
        {"run": BigInteger, "old_seq": Integer} | {f"new_{name}": runs.c[name].type for name in names},
        lambda value: (
            update(runs)
            .where(and_(runs.c.id == value("run"), runs.c.seq == value("old_seq")))
            .values({name: value(f"new_{name}") for name in names})
        ),
    )


_CLOSE: Final = _closing(_CLOSED)
_CLOSE_MOVED: Final = _closing((*_CLOSED, *_INDEXED))
_ADD_EVENTS: Final = EachNew("events", events, [column.name for column in events.c if column.name not in ("id", "xid")])
_RELEASE: Final = (
    update(limits)
    .where(limits.c.key == bindparam("limit_key"), limits.c.used >= bindparam("freed"))
    .values(used=limits.c.used - bindparam("freed"))
    .returning(limits.c.capacity, limits.c.used)
)
_WAITING: Final = (
    select(_instance.id)
    .where(_instance.blocked_on == bindparam("key"))
    .order_by(_instance.priority_weight.desc(), _instance.scheduled_at, _instance.id)
    .limit(bindparam("most"))
    .with_for_update(skip_locked=True)
)
_UNBLOCK: Final = (
    update(task_instances)
    .where(among(_instance.id, "ids"), _instance.state == TaskState.SCHEDULED.value)
    .values(blocked_on=None, reason=None)
)


#: Postgres' word for a lock that was waited for too long: lock_not_available.
_LOCKED: Final = "55P03"


class Busy(Exception):
    """One of several runs is held by somebody else for long; the others should not wait for it."""


class Turn:
    """A locked run, and what a command changes about it."""

    def __init__(self, tx: Tx, row: Row[Any]) -> None:
        self.tx = tx
        self.id: int = row.id
        self.dag_id: str = row.dag_id
        self.run_id: str = row.run_id
        self.row = row
        self.state = RunState(row.state)
        self.reason: str | None = row.reason
        self.started_at: datetime | None = row.started_at
        self.unfinished: int = row.unfinished
        self.bad: int = row.bad
        self.cancelled: int = row.cancelled
        self.cancel_asked: bool = row.cancel_asked
        self.created_instances: int = row.created_instances
        self.materialised: bool = row.materialised
        self.ended_at: datetime | None = row.ended_at
        self.deadline_at: datetime | None = row.deadline_at
        self.quarantined_until: datetime | None = None
        self.quarantines = 0
        #: Slots that this command gave back, by limit key; admission hands them on or the end of the turn writes them.
        self.freed: Counter[str] = Counter()
        #: Executors and queues that this command made instances ready for and that were not offered to them yet.
        self.ready: set[tuple[str, str]] = set()
        self.seq: int = row.seq
        #: Each with its place among all events of this transaction.
        self.events: list[tuple[int, dict[str, Any]]] = []
        self._plan: Plan | None = None

    @property
    def plan(self) -> Plan:
        """The compiled version that this run is pinned to."""
        if self._plan is None:
            self._plan = self.tx.plans.get(self.tx.conn, self.dag_id, self.row.version, self.row.content_hash)
        return self._plan

    def task(self, number: int) -> PlanTask:
        return self.plan.tasks[number]

    @property
    def runs_key(self) -> str:
        """The key of the limit that ``max_active_runs`` sets."""
        return f"dag:{self.dag_id}:runs"

    @property
    def tasks_key(self) -> str:
        """The key of the limit that ``max_active_tasks`` sets."""
        return f"dag:{self.dag_id}:tasks"

    def event(  # noqa: PLR0913  # an event has that many facts
        self,
        kind: str,
        *,
        actor: str,
        task_id: str | None = None,
        map_index: int | None = None,
        try_number: int | None = None,
        attempt_id: str | None = None,
        from_state: str | None = None,
        to_state: str | None = None,
        reason: str | None = None,
        data: Any = None,
    ) -> None:
        """Add a row to the event log, in this transaction, under the next ``run_seq``."""
        self.seq += 1
        event = {
            "at": self.tx.now,
            "kind": kind,
            "dag_id": self.dag_id,
            "run": self.id,
            "run_id": self.run_id,
            "run_seq": self.seq,
            "task_id": task_id,
            "map_index": map_index,
            "try_number": try_number,
            "attempt_id": attempt_id,
            "from_state": from_state,
            "to_state": to_state,
            "actor": actor,
            "reason": reason,
            "data": data,
        }
        self.events.append((next(self.tx.happened), event))

    def task_event(  # an event has that many facts
        self,
        row: Any,
        to: TaskState,
        *,
        actor: str,
        from_state: TaskState | None = None,
        try_number: int | None = None,
        attempt_id: str | None = None,
        reason: str | None = None,
        data: Any = None,
    ) -> None:
        """Add the event that the instance *row* went to *to*."""
        self.event(
            f"task.{to}",
            actor=actor,
            task_id=row.task_id,
            map_index=row.map_index,
            try_number=row.try_number if try_number is None else try_number,
            attempt_id=attempt_id,
            from_state=from_state or row.state,
            to_state=to,
            reason=reason,
            data=data,
        )

    def take(self, taken: RunStep, *, actor: str, reason: str | None = None) -> None:
        """Take a step of the run's table, with its event."""
        before = self.state
        self.state = step(RUN_STEPS, before, taken)
        if reason is not None:
            self.reason = reason
        self.event(f"run.{self.state}", actor=actor, from_state=before, to_state=self.state, reason=reason)
        if self.state in RUN_FINAL:
            self.tx.topics.add(f"ended:{self.id}")

    def count_end(self, number: int, state: TaskState) -> None:
        """Count an instance that ended in *state*."""
        self.unfinished -= 1
        if state is TaskState.CANCELLED:
            self.cancelled += 1
        elif state in (TaskState.FAILED, TaskState.UPSTREAM_FAILED) and not self.task(number).allow_failure:
            self.bad += 1

    def end_if_done(self, actor: str) -> None:
        """End the run when nothing of it is left to do."""
        if not self.materialised or self.unfinished or self.state not in (RunState.RUNNING, RunState.CANCELLING):
            return
        taken = verdict(
            self.state, reason=self.reason, cancel_asked=self.cancel_asked, cancelled=self.cancelled, bad=self.bad
        )
        self.ended_at = self.tx.now
        self.take(taken, actor=actor)
        release(self.tx, Counter({self.runs_key: 1}))
        self.tx.topics.add("runs")

    def close(self, actor: str = "scheduler") -> None:
        """Write what was collected."""
        close_turns(self.tx, [self], actor)

    def closing(self, names: Sequence[str]) -> dict[str, Any]:
        """Return how the run's row is to be."""
        return {"run": self.id, "old_seq": self.row.seq} | {f"new_{name}": getattr(self, name) for name in names}

    @property
    def is_moved(self) -> bool:
        """Whether it has another place in the indexes of runs."""
        return any(getattr(self, name) != getattr(self.row, name) for name in _INDEXED)


def close_turns(tx: Tx, turns: Iterable[Turn], actor: str = "scheduler") -> None:
    """Write what was collected about these runs."""
    held = sorted(turns, key=lambda turn: turn.runs_key)  # in the lock order of what an end gives back
    for turn in held:
        turn.end_if_done(actor)
    freed: Counter[str] = Counter()
    for turn in held:
        freed.update(turn.freed)
        turn.freed.clear()
    release(tx, freed)
    if any(turn.ready for turn in held):
        tx.topics.add("ready")
    changed = [turn for turn in held if turn.events]
    happened = sorted((event for turn in changed for event in turn.events), key=itemgetter(0))
    due, tx.due = tx.due, []
    write(
        tx,
        *due,
        (_CLOSE, [turn.closing(_CLOSED) for turn in changed if not turn.is_moved]),
        (_CLOSE_MOVED, [turn.closing((*_CLOSED, *_INDEXED)) for turn in changed if turn.is_moved]),
        (_ADD_EVENTS, [event for _, event in happened]),
    )
    for turn in changed:
        turn.events = []
        tx.topics.add(f"run:{turn.id}")


def open_turn(tx: Tx, run: int) -> Turn | None:
    """Lock a run by its number."""
    return _open(tx, _BY_ID, {"run": run})


def open_by_name(tx: Tx, dag_id: str, run_id: str) -> Turn | None:
    """Lock a run by its names."""
    return _open(tx, _BY_NAME, {"dag_id": dag_id, "run_id": run_id})


def open_by_attempts(tx: Tx, attempt_ids: Sequence[str]) -> dict[int, Turn]:
    """Lock the runs of attempts; they come by their numbers.  Raises :exc:`Busy` where several have to wait for one."""
    try:
        rows = tx.conn.execute(_BY_ATTEMPTS, {"attempts": list(attempt_ids)}).all()
    except DBAPIError as error:
        from metastore.wire import sqlstate  # noqa: PLC0415  # it brings Postgres' driver, which SQLite does without

        if len(attempt_ids) > 1 and sqlstate(error) == _LOCKED:
            raise Busy from error
        raise
    return {row.id: Turn(tx, row) for row in rows}


def _open(tx: Tx, statement: Select[Any], names: dict[str, Any]) -> Turn | None:
    row = tx.conn.execute(statement, names).first()
    return None if row is None else Turn(tx, row)


def release(tx: Tx, freed: Counter[str]) -> None:
    """Give slots back, and let go of what waits for them; *freed* is empty afterwards."""
    for key in sorted(freed, key=lock_rank):
        if freed[key]:
            row = tx.conn.execute(_RELEASE, {"limit_key": key, "freed": freed[key]}).first()
            room = 0 if row is None or row.capacity is None else row.capacity - row.used
            if room > 0 and key.endswith(":tasks"):  # nothing is held back for the others
                unblock(tx, key, room)
            tx.topics.add("ready")
    freed.clear()


def unblock(tx: Tx, key: str, most: int) -> int:
    """Let up to *most* instances that *key* held back be admitted again; return how many."""
    waiting = [row.id for row in tx.conn.execute(_WAITING, {"key": key, "most": most})]
    if not waiting:
        return 0
    return tx.conn.execute(_UNBLOCK, {"ids": waiting}).rowcount


def lock_rank(key: str) -> tuple[int, str]:
    """Return the place of a limit in the lock order: runs of a DAG, slots of an executor, tasks of a DAG."""
    return (1 if key.startswith("slots:") else 0 if key.endswith(":runs") else 2, key)


def states(of: Iterable[TaskState | AttemptState | RunState]) -> list[str]:
    """Return states as SQL parameters, in a stable order."""
    return sorted(str(state) for state in of)
