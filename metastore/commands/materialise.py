"""Starting runs: a slot of ``max_active_runs``, then the task instances, in chunks.

No instance is scheduled before all of them exist: an end would find no neighbour to tell.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import bindparam, insert, or_, select, update

from dag.states import RunState, RunStep, TaskState
from dag.trigger_rules import Counts, Verdict, judge
from metastore.commands.admission import Admitted, Outlet, admit
from metastore.commands.advance import look_at_due
from metastore.commands.turn import Turn, close_turns, open_turn
from metastore.models.dags import dags
from metastore.models.limits import limits
from metastore.models.runs import task_instances

if TYPE_CHECKING:
    from collections.abc import Sequence

    from metastore.store import Tx

#: How many instances one command creates at the most.
CHUNK: Final = 1_000

_NONE_ENDED: Final = Counts()
_ADD: Final = insert(task_instances).inline()
_PAUSED: Final = select(dags.c.paused).where(dags.c.dag_id == bindparam("dag_id"))
_TAKE_RUN_SLOT: Final = (
    update(limits)
    .where(
        limits.c.key == bindparam("limit_key"),
        or_(limits.c.capacity.is_(None), limits.c.used < limits.c.capacity),
    )
    .values(used=limits.c.used + 1)
)


def start_run(tx: Tx, run: int, default_executor: str, outlets: Sequence[Outlet] = ()) -> list[Admitted]:
    """Start a queued run whose time has come, if its DAG is not paused and ``max_active_runs`` has room.

    Creates its first instances, and admits what is ready into *outlets* when these are all of them.
    """
    turn = open_turn(tx, run)
    if turn is None or turn.state is not RunState.QUEUED or turn.row.run_after > tx.now:
        return []
    if tx.conn.execute(_PAUSED, {"dag_id": turn.dag_id}).scalar():
        return []
    plan = turn.plan  # a document that does not compile must not take a slot
    if tx.conn.execute(_TAKE_RUN_SLOT, {"limit_key": turn.runs_key}).rowcount != 1:
        return []
    turn.take(RunStep.START, actor="scheduler")
    turn.started_at = tx.now
    turn.deadline_at = None if plan.run_timeout is None else tx.now + plan.run_timeout
    if turn.deadline_at is not None:
        tx.topics.add("due")
    return _go_on(turn, default_executor, outlets)


def materialise(tx: Tx, run: int, default_executor: str, outlets: Sequence[Outlet] = ()) -> list[Admitted]:
    """Create the next instances of a running run."""
    turn = open_turn(tx, run)
    if turn is None or turn.state is not RunState.RUNNING or turn.materialised:
        return []
    return _go_on(turn, default_executor, outlets)


def _go_on(turn: Turn, default_executor: str, outlets: Sequence[Outlet]) -> list[Admitted]:
    tx = turn.tx
    if not turn.materialised:
        _create(turn, default_executor)
    if turn.materialised and look_at_due(turn):
        tx.topics.add("due")
    turn.end_if_done("scheduler")
    turns = {turn.id: turn}
    admitted = admit(tx, outlets, turns) if turn.materialised and outlets else []
    close_turns(tx, turns.values())
    return admitted


def _create(turn: Turn, default_executor: str) -> None:
    tx, plan = turn.tx, turn.plan
    first = turn.created_instances
    tasks = plan.tasks[first : first + CHUNK]
    rows: list[dict[str, Any]] = [
        {
            "run": turn.id,
            "task_no": task.no,
            "task_id": task.task_id,
            "map_index": -1,
            "state": TaskState.PENDING.value,
            "executor": task.executor or default_executor,
            "queue": task.queue,
            "priority_weight": task.priority_weight,
            # Decided without its upstreams: a root, or one that waits for nobody.
            "due_at": None if judge(task.trigger_rule, len(task.upstream), _NONE_ENDED) is Verdict.WAIT else tx.now,
        }
        for task in tasks
    ]
    if rows:
        tx.conn.execute(_ADD, rows)
    turn.created_instances += len(rows)
    turn.unfinished += len(rows)
    turn.materialised = turn.created_instances == len(plan.tasks)
    if not turn.materialised:
        tx.topics.add("runs")
        turn.event(
            "run.materialising", actor="scheduler", data={"created": turn.created_instances, "of": len(plan.tasks)}
        )
