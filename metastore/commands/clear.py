"""Clearing: ended instances go back to pending, and their run is queued again.

The fence goes on growing and the attempts stay; only the budgets start anew.  Counters are recomputed from the run's
edges, never decremented.
"""

from __future__ import annotations

from collections import Counter, deque
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import bindparam, delete, select, update

from dag.errors import IllegalStep, Invalid, NotFound, Problem
from dag.states import RUN_FINAL, TASK_FINAL, TASK_STEPS, RunState, RunStep, TaskState, TaskStep, sources, step
from metastore.among import among
from metastore.commands.advance import COUNTERS, look_at_due
from metastore.commands.turn import Turn, open_by_name, states
from metastore.each import expect
from metastore.models.runs import outputs, task_instances
from metastore.records import TaskRecord, columns, many

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from metastore.store import Tx

_instance = task_instances.c
_ALL: Final = (
    select(*columns(TaskRecord, task_instances)).where(_instance.run == bindparam("run")).order_by(_instance.task_no)
)
_CLEAR: Final = (
    update(task_instances)
    .where(
        among(_instance.id, "ids"),
        _instance.state.in_(states(sources(TASK_STEPS, TaskStep.CLEAR))),
    )
    .values(
        state=TaskState.PENDING.value,
        reason=None,
        error=None,
        failures=0,
        losses=0,
        due_at=bindparam("now"),
        scheduled_at=None,
        queued_at=None,
        started_at=None,
        ended_at=None,
    )
)
_DROP_OUTPUTS: Final = delete(outputs).where(among(outputs.c.instance, "ids"))
_SET_COUNTERS: Final = (
    update(task_instances)
    .where(_instance.id == bindparam("instance"))
    .values({column.name: bindparam(f"new_{column.name}") for column in COUNTERS.values()})
)
_BATCH: Final = 500


def clear_run(  # the API's body
    tx: Tx,
    dag_id: str,
    run_id: str,
    *,
    task_ids: Sequence[str] | None,
    only_failed: bool,
    downstream: bool,
    dry_run: bool,
    actor: str,
) -> list[TaskRecord]:
    """Send ended instances back to pending and return them as they were.

    *task_ids*: where to begin, None for the whole run; *only_failed*: of these, what is failed, upstream_failed or
    cancelled; *downstream*: and everything that depends on them.  Instances that have not ended are left alone.
    Raises :exc:`IllegalStep` while the run is being cancelled.
    """
    turn = open_by_name(tx, dag_id, run_id)
    if turn is None:
        raise NotFound("run", f"{dag_id}/{run_id}")
    if turn.state is RunState.CANCELLING:
        # What is cleared would start again, and after an answered cancel nothing of the run may start.
        raise IllegalStep(turn.state, RunStep.CLEAR)
    rows = instances(tx, turn.id)
    chosen = _choose(turn, rows, task_ids, only_failed=only_failed, downstream=downstream)
    if not dry_run and (chosen or _was_cut_short(turn)):
        _clear(turn, rows, chosen, actor)
    return chosen


def instances(tx: Tx, run: int) -> list[TaskRecord]:
    """Return every instance of a locked run, by task number."""
    return many(TaskRecord, tx.conn.execute(_ALL, {"run": run}).all())


def _was_cut_short(turn: Turn) -> bool:
    """Whether the run ended before all its instances were created."""
    return turn.state in RUN_FINAL and turn.created_instances < len(turn.plan.tasks)


def _choose(
    turn: Turn, rows: Sequence[TaskRecord], task_ids: Sequence[str] | None, *, only_failed: bool, downstream: bool
) -> list[TaskRecord]:
    plan = turn.plan
    if task_ids is None:
        numbers = set(range(len(plan.tasks)))
    else:
        unknown = [(at, name) for at, name in enumerate(task_ids) if name not in plan.numbers]
        if unknown:
            raise Invalid(
                [
                    Problem(
                        pointer=f"/task_ids/{at}",
                        code="unknown_task",
                        message=f"The DAG has no task {name!r} in version {turn.row.version}.",
                        hint="GET the run's tasks to see their ids.",
                    )
                    for at, name in unknown
                ]
            )
        numbers = {plan.numbers[name] for name in task_ids}
    bad = {TaskState.FAILED, TaskState.UPSTREAM_FAILED, TaskState.CANCELLED}
    if only_failed:
        numbers &= {row.task_no for row in rows if row.state in bad}
    if downstream:
        numbers = _with_downstream(turn, numbers)
    return [row for row in rows if row.task_no in numbers and row.state in TASK_FINAL]


def _with_downstream(turn: Turn, numbers: Iterable[int]) -> set[int]:
    reached = set(numbers)
    frontier = deque(reached)
    while frontier:
        for neighbour in turn.task(frontier.popleft()).downstream:
            if neighbour not in reached:
                reached.add(neighbour)
                frontier.append(neighbour)
    return reached


def _clear(turn: Turn, rows: Sequence[TaskRecord], chosen: Sequence[TaskRecord], actor: str) -> None:
    tx = turn.tx
    ids = [row.id for row in chosen]
    for at in range(0, len(ids), _BATCH):
        batch = ids[at : at + _BATCH]
        expect(tx.conn.execute(_CLEAR, {"ids": batch, "now": tx.now}).rowcount, len(batch), "clear")
        tx.conn.execute(_DROP_OUTPUTS, {"ids": batch})
    after = {row.task_no: TaskState(row.state) for row in rows}
    for row in chosen:
        after[row.task_no] = step(TASK_STEPS, TaskState(row.state), TaskStep.CLEAR)
        turn.task_event(row, TaskState.PENDING, actor=actor, reason="clear")
    recount(turn, rows, after)
    turn.materialised = turn.created_instances == len(turn.plan.tasks)
    if turn.state in RUN_FINAL:
        turn.cancel_asked = False
        turn.reason = None
        turn.ended_at = None
        turn.take(RunStep.CLEAR, actor=actor)
        tx.topics.add("runs")
    elif turn.state is RunState.RUNNING:  # a run that waits for its slot looks at what is due when it gets it
        look_at_due(turn)
        tx.topics.add("due")
    turn.close(actor)


def recount(turn: Turn, rows: Sequence[TaskRecord], now_in: dict[int, TaskState]) -> int:
    """Recompute every counter of a run from the states *now_in*; return how many instances had a wrong one."""
    wrong = 0
    for row in rows:
        counts = Counter(now_in[number] for number in turn.task(row.task_no).upstream if number in now_in)
        new: dict[str, Any] = {f"new_{column.name}": counts[state] for state, column in COUNTERS.items()}
        if any(getattr(row, column.name) != new[f"new_{column.name}"] for column in COUNTERS.values()):
            turn.tx.conn.execute(_SET_COUNTERS, new | {"instance": row.id})
            wrong += 1
    turn.unfinished = sum(state not in TASK_FINAL for state in now_in.values())
    turn.cancelled = sum(state is TaskState.CANCELLED for state in now_in.values())
    turn.bad = sum(
        state in (TaskState.FAILED, TaskState.UPSTREAM_FAILED) and not turn.task(number).allow_failure
        for number, state in now_in.items()
    )
    return wrong
